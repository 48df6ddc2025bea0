"""Small scenes with known answers that the projection tests share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume, Status
from paxray.io.volume import Grid, Volume


def rotation(z_deg: float, x_deg: float = 0.0) -> NDArray[np.float64]:
    """About z, then about x."""
    z, x = np.radians([z_deg, x_deg])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return about_x @ about_z


def affine_of(
    spacing_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
    turn: NDArray[np.float64] | None = None,
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> NDArray[np.float64]:
    """An affine whose volume is centred at a point."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing_mm)
    middle = (np.array(shape[::-1]) - 1) / 2
    affine[:3, 3] = np.array(center_mm) - affine[:3, :3] @ middle
    return affine


def centers_mm(grid: Grid) -> NDArray[np.float64]:
    """``(nk, nj, ni, 3)`` world positions of all voxel centres."""
    k, j, i = np.indices(grid.shape)
    return grid.to_world(np.stack([i, j, k], axis=-1))


def random_scene(
    seed: int, shape: tuple[int, int, int], affine: NDArray[np.float64], atoms: int = 6, classes: int = 5
) -> tuple[Volume, LabelVolume]:
    """Noise in blocks: random attenuation, and labels that overlap."""
    rng = np.random.default_rng(seed)
    mu = Volume(rng.random(shape, dtype=np.float32) * 0.02, affine)
    coarse = rng.integers(0, atoms, size=[-(-n // 3) for n in shape])
    ids = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(n) for n in shape)].astype(np.uint16)
    membership = rng.random((atoms, classes)) < 0.45
    membership[0] = False
    membership[1:, 0] = True
    return mu, labelled(ids, membership, affine, ("body", *(f"class_{c}" for c in range(1, classes))))


def labelled(
    atoms: NDArray[np.uint16],
    membership: NDArray[np.bool_],
    affine: NDArray[np.float64],
    names: tuple[str, ...],
) -> LabelVolume:
    """A label volume; atoms that the table knows and no voxel has are allowed here."""
    return LabelVolume(atoms, membership, names, affine, dict.fromkeys(names, Status.PRESENT))


def one_class(mask: NDArray[np.bool_], affine: NDArray[np.float64], name: str = "thing") -> LabelVolume:
    """A single class."""
    return labelled(mask.astype(np.uint16), np.array([[False], [True]]), affine, (name,))


def orientations() -> Iterator[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """All 48 ways to lay a volume out in memory: axis orders and flips."""
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            yield axes, flips


def relaid(
    array: NDArray[np.generic], affine: NDArray[np.float64], axes: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """The same voxels in the same places, stored in another order."""
    out = np.transpose(array, axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    # Array axes are k, j, i; affine columns are i, j, k.
    columns = [2 - axes[2 - c] for c in range(3)]
    new = np.eye(4)
    new[:3, :3] = affine[:3, columns]
    new[:3, 3] = affine[:3, 3]
    for c in range(3):
        if flips[2 - c]:
            new[:3, 3] += new[:3, c] * (out.shape[2 - c] - 1)
            new[:3, c] *= -1
    return np.ascontiguousarray(out), new
