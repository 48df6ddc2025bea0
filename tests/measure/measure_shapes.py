"""Shapes of known size as label volumes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.labels import LabelVolume, Status
from paxray.io.volume import Grid, Volume
from paxray.measure.landmarks import Anatomy
from paxray.measure.solids import solids
from paxray.produce import atom_boxes

#: A turn about no axis of the lattice.
TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]


def grid_of(
    shape: tuple[int, int, int] = (40, 60, 60),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    turn: NDArray[np.float64] | None = None,
) -> Grid:
    """A lattice with its middle at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * np.asarray(spacing_mm)
    nk, nj, ni = shape
    affine[:3, 3] = -affine[:3, :3] @ [(ni - 1) / 2, (nj - 1) / 2, (nk - 1) / 2]
    return Grid(shape, affine)


def points(grid: Grid) -> NDArray[np.float64]:
    """``(nk, nj, ni, 3)`` world position of every voxel."""
    k, j, i = np.indices(grid.shape)
    return grid.to_world(np.stack([i, j, k], axis=-1))


def ball(grid: Grid, center: tuple[float, float, float], radius_mm: float) -> NDArray[np.bool_]:
    return ((points(grid) - center) ** 2).sum(axis=-1) <= radius_mm**2


def box(grid: Grid, low: tuple[float, float, float], high: tuple[float, float, float]) -> NDArray[np.bool_]:
    at = points(grid)
    return ((at > low) & (at < high)).all(axis=-1)


def tube(
    grid: Grid, start: tuple[float, float, float], end: tuple[float, float, float], radius_mm: float
) -> NDArray[np.bool_]:
    """A cylinder with flat ends."""
    axis = np.subtract(end, start)
    length = np.linalg.norm(axis)
    from_start = points(grid) - start
    along = from_start @ (axis / length)
    across2 = (from_start**2).sum(axis=-1) - along**2
    return (along >= 0) & (along <= length) & (across2 <= radius_mm**2)


def volume_of(
    grid: Grid, masks: Mapping[str, NDArray[np.bool_]], absent: tuple[str, ...] = (), **status: Status
) -> LabelVolume:
    """Labels of overlapping masks; `absent` classes have no voxels."""
    builder = LabelBuilder(grid.shape)
    everywhere = tuple(slice(0, n) for n in grid.shape)
    for name, mask in masks.items():
        builder.add_mask(name, everywhere, mask, status=status.get(name, Status.PRESENT))
    for name in absent:
        builder.add_mask(name, everywhere, np.zeros(grid.shape, bool), status=Status.ABSENT)
    return builder.build(grid.affine, [*masks, *absent])


def anatomy_of(labels: LabelVolume, hu: NDArray[np.number] | None = None) -> Anatomy:
    ct = Volume(np.zeros(labels.shape, np.int16) if hu is None else hu, labels.affine)
    return Anatomy(labels, atom_boxes(labels), solids(labels, ct), labels.cut_by_ct())
