"""Weights in nnU-Net's own format, laid out as TotalSegmentator keeps its own, set by hand.

Each network takes a voxel for the class whose HU is nearest, so that what it must find is known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nnunet_model import write_linear_model
from numpy.typing import NDArray

from paxray.segmentation.totalsegmentator_tasks import Model

AIR_HU = -1000.0
_NEVER = (0.0, -100.0)


def nearest(array: NDArray[Any], hu: Mapping[int, float]) -> NDArray[np.uint8]:
    """The label whose HU is nearest to each voxel's, 0 for air: what a network of `write_weights` must find."""
    labels = np.array([0, *hu], np.uint8)
    centres = np.array([AIR_HU, *hu.values()])
    return labels[np.abs(array[..., None] - centres).argmin(axis=-1)]


def write_weights(
    weights_dir: Path, model: Model, spacing_mm: float, n_labels: int, hu: Mapping[int, float]
) -> None:
    """Write a model that gives each voxel the label with the nearest HU, of those that have one.

    Of centres m the nearest to x has the highest 2 m x - m^2.
    """
    centres = {0: AIR_HU / 1000} | {label: value / 1000 for label, value in hu.items()}
    lines = [(2 * centres[n], -(centres[n] ** 2)) if n in centres else _NEVER for n in range(n_labels + 1)]
    write_linear_model(
        weights_dir / model.folder,
        (spacing_mm,) * 3,
        lines,
        labels={"background": 0, **{f"label_{n}": n for n in range(1, n_labels + 1)}},
        folds=[f"fold_{fold}" for fold in model.folds],
        trainer=model.folder.split("/")[1].split("__")[0],
    )
