"""Lattices of several kinds and shapes of known answers on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes import Region, Scene
from paxray.io.volume import Grid


def turned(degrees: float, axis: tuple[float, float, float]) -> NDArray[np.float64]:
    """A rotation matrix (Rodrigues)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def lattice(kind: str, shape: tuple[int, int, int] = (36, 40, 44)) -> Grid:
    """A lattice centred on the world's origin."""
    spacing = {"even": (1.0, 1.0, 1.0)}.get(kind, (0.9, 1.1, 1.7))
    linear = np.diag(spacing)
    if kind == "oblique":
        linear = turned(17, (1, 2, 3)) @ linear
    if kind == "flipped":
        linear = linear @ np.diag([-1.0, 1.0, -1.0])
    if kind == "permuted":  # slices are sagittal: i runs down, j to the left, k back
        linear = np.array([[0, 1.1, 0], [0, 0, 1.7], [-0.9, 0, 0]])
    if kind == "sheared":
        linear = linear @ np.array([[1, 0, 0], [0, 1, 0.35], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = linear
    nk, nj, ni = shape
    affine[:3, 3] = -linear @ (np.array([ni, nj, nk]) - 1) / 2
    return Grid(shape, affine)


KINDS = ("even", "uneven", "oblique", "flipped", "permuted", "sheared")


def world(grid: Grid) -> NDArray[np.float64]:
    """``(nk, nj, ni, 3)`` LPS mm of all voxel centres."""
    k, j, i = np.indices(grid.shape)
    return grid.to_world(np.stack([i, j, k], axis=-1))


def ball(grid: Grid, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.bool_]:
    return np.linalg.norm(world(grid) - centre, axis=-1) <= radius


def box(grid: Grid, low: tuple[float, float, float], high: tuple[float, float, float]) -> NDArray[np.bool_]:
    at = world(grid)
    return ((at >= low) & (at <= high)).all(axis=-1)


def region(mask: NDArray[np.bool_]) -> Region:
    return Region.of_mask(mask)


def full(scene: Scene, found: Region) -> NDArray[np.bool_]:
    """A region on the whole lattice."""
    return found.inside(tuple(slice(0, n) for n in scene.shape))
