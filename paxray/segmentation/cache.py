"""Segmentations kept on disk under what made them, so that no CT is segmented twice."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, PaxrayError, ResourceError
from paxray.files import digest, sha256_of, sync_folder, write_json
from paxray.io.cases import MaskSource
from paxray.io.volume import Grid
from paxray.segmentation.contract import Segmenter
from paxray.segmentation.files import read_masks
from paxray.segmentation.written import write_label_map
from paxray.stages import STAGE_VERSIONS

#: Raised when what lies in the cache would be read otherwise.
CACHE_VERSION = 1
_LABELS, _VOCABULARY, _ENTRY = "labels.nii.gz", "labels.yaml", "entry.json"


def fingerprint(segmenter: Segmenter, catalog: Catalog, device: str) -> dict[str, Any]:
    """All that decides a segmentation beside the CT's content, as JSON values.

    Parameters
    ----------
    segmenter
        Its name, settings, version and weights, by `Segmenter.identity`.
    catalog
        Classes are kept under its names, and it says which of a model's labels is which (`Segmenter.meanings`).
    device
        Where the segmenter computes.
    """
    return {
        "segmenter": segmenter.name,
        "device": device,
        "io": STAGE_VERSIONS["io"],
        "classes": digest([segmenter.classes(catalog), segmenter.meanings(catalog)])[:16],
        **{f"identity.{key}": value for key, value in segmenter.identity().items()},
    }


class SegmentationCache:
    """A folder of segmentations, shared at will between data sets and processes.

    An entry is a folder named by its key: a label map with its vocabulary (`paxray.segmentation.written`), which any
    command reads as masks, and ``entry.json`` with what made them and their SHA-256. It is written under a hidden name
    and renamed, so it is whole or not there; one that has changed since is made again.

    Parameters
    ----------
    folder
        Made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require_writable(self) -> None:
        """Make the folder and write into it, so that hours of segmenting do not end at a closed door.

        Raises
        ------
        ResourceError
            It cannot be made or written to.
        """
        made = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            if made:
                self.folder.rmdir()  # nothing is kept yet
        except OSError as error:
            raise ResourceError(
                "segmentations cannot be kept",
                where=str(self.folder),
                expected="a folder that can be made and written to",
                found=error.strerror or str(error),
                do="name another one with --segmentations",
            ) from error

    def path_of(self, ct_hash: str, made_by: Mapping[str, Any]) -> Path:
        """Where the segmentation of a CT lies, whether it is there or not."""
        key = digest({"cache": CACHE_VERSION, "ct": ct_hash, **made_by})
        return self.folder / f"{made_by['segmenter']}-{key[:32]}"

    def get(
        self, ct_hash: str, made_by: Mapping[str, Any], grid: Grid, catalog: Catalog
    ) -> tuple[LabelVolume | None, str]:
        """What is kept of a CT, and what is wrong with it.

        Returns
        -------
        labels, complaint
            No labels where nothing is kept, or where what is kept is damaged; then the complaint is not empty.
        """
        path = self.path_of(ct_hash, made_by)
        if not path.is_dir():
            return None, ""
        try:
            entry = json.loads((path / _ENTRY).read_text(encoding="utf-8"))
            for name in (_LABELS, _VOCABULARY):
                if sha256_of(path / name) != entry["sha256"][name]:
                    return None, f"{path.name}/{name} is not what was written"
            source = MaskSource(path / _LABELS, str(path.absolute() / _VOCABULARY), f"{path.name}/{_LABELS}")
            return read_masks([source], grid, catalog), ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"{path.name} cannot be read ({type(error).__name__})"
        except PaxrayError as error:
            return None, f"{path.name}: {error.what}"

    def put(self, ct_hash: str, made_by: Mapping[str, Any], labels: LabelVolume) -> None:
        """Keep a segmentation; one that another process put there meanwhile is replaced by the same content."""
        path = self.path_of(ct_hash, made_by)
        self.folder.mkdir(parents=True, exist_ok=True)
        hidden = self.folder / f".{path.name}.{os.getpid()}"
        shutil.rmtree(hidden, ignore_errors=True)
        try:
            write_label_map(hidden / _LABELS, labels, segmenter=str(made_by["segmenter"]))
            sums = {name: sha256_of(hidden / name) for name in (_LABELS, _VOCABULARY)}
            write_json(hidden / _ENTRY, {"ct": ct_hash, "made_by": dict(made_by), "sha256": sums})
            _replace_folder(hidden, path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename a folder into place, moving out of the way what stands there."""
    for _ in range(3):
        try:
            new.replace(path)
            sync_folder(path.parent)
            return
        except OSError:
            if not path.exists():
                raise
        old = path.with_name(f".{path.name}.old.{os.getpid()}")
        shutil.rmtree(old, ignore_errors=True)
        try:
            path.replace(old)
        except FileNotFoundError:
            continue  # another process did so first
        shutil.rmtree(old, ignore_errors=True)
    raise CaseError(
        "a segmentation cannot be kept: other processes keep replacing it",
        where=path.name,
        do="build again, with one process at a time on this folder",
        code="segmenter_failed",
    )
