"""What processes of a test do that keep segmentations in one folder at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.segmentation.cache import SegmentationCache

MADE_BY = {"segmenter": "fake"}
KEYS = tuple(f"ct-{n}" for n in range(8))


def segmentation(one: int) -> LabelVolume:
    """A heart that differs from one number to the next."""
    atoms = np.zeros((3, 4, 5), np.uint16)
    atoms[0, 0, : one + 1] = 1
    return LabelVolume(atoms, np.array([[False], [True]]), ("heart",), np.eye(4), {"heart": Status.PRESENT})


def drawn_by(process: int, key: str) -> LabelVolume:
    """What a process keeps: of every second CT all draw the same, of the others each something else."""
    return segmentation(process if KEYS.index(key) % 2 else 0)


def keep_together(barrier: Any, told: Any, folder: Path, process: int) -> None:
    """Keep every CT's masks in the same moment as others do, twice; the second time a damaged entry stands there."""
    cache, catalog, wrong = SegmentationCache(folder), load_catalog(), []
    for key in KEYS:
        for stands in ("nothing", "a damaged entry"):
            if process == 0 and stands != "nothing":
                (cache.path_of(key, MADE_BY) / "labels.nii.gz").write_bytes(b"damage")
            barrier.wait(300)
            try:
                cache.put(key, MADE_BY, drawn_by(process, key), catalog)
            except Exception as error:
                wrong.append(f"{key}, where {stands} stood: {type(error).__name__}: {error}")
            barrier.wait(300)
    told.put(wrong)
