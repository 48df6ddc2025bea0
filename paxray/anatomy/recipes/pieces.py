"""Connected pieces, holes and hulls."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes.region import Region, Underivable, shape_of
from paxray.anatomy.recipes.registry import operator
from paxray.anatomy.recipes.scene import BACK, LEFT, UP, Scene
from paxray.anatomy.voxels import BoolArray

_TOUCHING = np.ones((3, 3, 3), np.bool_)  # faces, edges and corners: 26 neighbours
_ACROSS = {"axial": UP, "coronal": BACK, "sagittal": LEFT}


def label_pieces(mask: BoolArray) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number a mask's pieces (26-neighbours), the largest 1; returns numbers and sizes in voxels, size 0 unused."""
    from scipy import ndimage

    numbers, count = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(numbers.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    # Equal sizes keep the order in which they were met, which the lattice fixes.
    order = np.argsort(-sizes[1:], kind="stable") + 1
    rank = np.zeros(count + 1, np.int32)
    rank[order] = np.arange(1, count + 1)
    return rank[numbers], np.concatenate([[0], sizes[order]])


@operator
def largest(scene: Scene, of: Region) -> Region:
    """The largest connected piece."""
    return component(scene, of, 1)


@operator
def component(scene: Scene, of: Region, n: int) -> Region:
    """The n-th largest connected piece, counted from 1; nothing where there are fewer."""
    if of.empty:
        return of
    return Region.of_mask(label_pieces(of.mask)[0] == n, of.box)


@operator
def drop_small(scene: Scene, of: Region, below_mm3: float) -> Region:
    """A region without its pieces smaller than a volume."""
    if of.empty:
        return of
    numbers, sizes = label_pieces(of.mask)
    keep = sizes * scene.voxel_mm3 >= below_mm3
    keep[0] = False
    return Region.of_mask(keep[numbers], of.box)


@operator
def fill(
    scene: Scene, of: Region, per: Literal["volume", "axial", "coronal", "sagittal"] = "volume"
) -> Region:
    """A region with its enclosed holes: in 3D, or in each slice across one of the patient's axes."""
    from scipy import ndimage

    if of.empty:
        return of
    if per == "volume":
        return Region.of_mask(ndimage.binary_fill_holes(of.mask), of.box)
    mask = of.mask.copy()
    axis = scene.array_axis(_ACROSS[per])
    for plane in np.moveaxis(mask, axis, 0):
        plane[...] = ndimage.binary_fill_holes(plane)
    return Region.of_mask(mask, of.box)


@operator
def hull(
    scene: Scene, of: Region, per: Literal["volume", "axial", "coronal", "sagittal"] = "volume"
) -> Region:
    """The convex hull: the voxel centres inside the hull of the region's voxel centres, in 3D or slice by slice."""
    if of.empty:
        return of
    if per == "volume":
        return Region.of_mask(_hull_3d(of.mask), of.box)
    mask = np.zeros(shape_of(of.box), np.bool_)
    axis = scene.array_axis(_ACROSS[per])
    for plane, out in zip(np.moveaxis(of.mask, axis, 0), np.moveaxis(mask, axis, 0), strict=True):
        out[...] = hull_2d(plane)
    return Region.of_mask(mask, of.box)


def hull_2d(plane: BoolArray) -> BoolArray:
    """Voxel centres inside the convex hull of a plane's voxel centres: row by row between the hull's two chains.

    Being convex does not depend on the affine, so indices do.
    """
    out = np.zeros(plane.shape, np.bool_)
    rows = np.flatnonzero(plane.any(axis=1))
    if not rows.size:
        return out
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows][:, ::-1].argmax(axis=1)
    every = np.arange(rows[0], rows[-1] + 1)
    low = np.interp(every, *_lower_chain(rows, first))
    high = -np.interp(every, *_lower_chain(rows, -last))
    column = np.arange(plane.shape[1])
    # A hair's breadth of tolerance keeps centres that lie on an edge.
    out[every] = (column >= low[:, None] - 1e-9) & (column <= high[:, None] + 1e-9)
    return out


def _lower_chain(x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """The lower convex chain of points with rising x (Andrew's monotone chain)."""
    chain: list[tuple[int, int]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (point[1] - ay) > (by - ay) * (point[0] - ax):
                break
            chain.pop()
        chain.append(point)
    return [float(p[0]) for p in chain], [float(p[1]) for p in chain]


def _hull_3d(mask: BoolArray) -> BoolArray:
    """As `hull_2d`, in 3D; a region of a single slice is hulled in its plane."""
    from scipy.spatial import ConvexHull, QhullError

    if min(mask.shape) == 1:
        axis = mask.shape.index(1)
        return np.expand_dims(hull_2d(np.squeeze(mask, axis)), axis)
    # Only the ends of each row along i can be corners of the hull.
    k, j = np.nonzero(mask.any(axis=2))
    rows = mask[k, j]
    first, last = rows.argmax(axis=1), mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([k, j, first]), np.column_stack([k, j, last])])
    try:
        planes = np.unique(np.round(ConvexHull(ends).equations, 9), axis=0)
    except QhullError as error:
        raise Underivable("the hull of a region that lies in an oblique plane has no volume") from error
    # Along i the hull is one interval per row: each facet bounds it from above or below, or takes the row out.
    kk, jj = np.arange(mask.shape[0])[:, None], np.arange(mask.shape[1])[None, :]
    low, high = np.full(mask.shape[:2], -np.inf), np.full(mask.shape[:2], np.inf)
    for a, b, c, d in planes:
        rest = a * kk + b * jj + d
        if abs(c) < 1e-9:
            high[rest > 1e-6] = -np.inf
        elif c > 0:
            high = np.minimum(high, -rest / c)
        else:
            low = np.maximum(low, -rest / c)
    i = np.arange(mask.shape[2])
    inside: BoolArray = (i >= low[..., None] - 1e-6) & (i <= high[..., None] + 1e-6)
    return inside
