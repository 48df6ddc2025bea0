"""The floor of the chest: its height in each column of voxels along the patient, told by what lies on and under it.

A diaphragm falls from its domes towards its rim. The lungs show it where they lie on it, and not where they hang over a
wall, over the mediastinum, or over the heart and the fat around; the heart lies on it in a bed of fat. All are above it
nevertheless, and the organs of the abdomen below. A taut sheet spans what is not shown (conventions of this project).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes.pieces import hull_2d
from paxray.anatomy.recipes.region import Box, Region, Underivable
from paxray.anatomy.recipes.scene import BACK, LEFT, UP, Scene
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

#: An organ whose top lies no further below an underside tells with it where the floor is: a diaphragm of 3 to 5 mm and
#: some fat lie in between.
TOUCH_MM = 10.0
#: So near its outline an underside may lie on a wall or hang over the mediastinum.
RIM_MM = 20.0
#: The pericardium and the fat around the heart reach so far beyond it.
CUSHION_MM = 30.0
#: Heights that differ by less, or by less than a slice, are one height.
SAME_MM = 2.5
#: Blocks in which the sheet is computed.
STEP_MM = 5.0


class Upright:
    """Maps of heights as seen from the feet, so that no outcome depends on how the array is stored.

    A map's rows run to the back and its columns to the patient's left, along the array axes nearest to these; heights
    are mm above the lowest slice's middle.
    """

    def __init__(self, scene: Scene) -> None:
        self._shape = scene.shape
        self._axis = scene.long_axis
        self._rising = scene.is_rising(self._axis, UP)
        back = scene.back_axis
        left = 3 - self._axis - back
        self._swapped = back > left
        self._flipped = not scene.is_rising(back, BACK), not scene.is_rising(left, LEFT)
        self.pixel_mm = (scene.grid.spacing_mm[2 - back], scene.grid.spacing_mm[2 - left])
        self.slice_mm = scene.grid.spacing_mm[2 - self._axis]

    def heights(self, of: Region, *, lowest: bool) -> Float64:
        """Where a region begins or ends in each column of the lattice: a face of its last voxel; NaN without any."""
        out = np.full([n for at, n in enumerate(self._shape) if at != self._axis], np.nan)
        if not of.empty:
            low_index = lowest == self._rising
            flat = of.mask if low_index else np.flip(of.mask, self._axis)
            first = flat.argmax(axis=self._axis).astype(np.float64)
            part = of.box[self._axis]
            first = part.start + first if low_index else part.stop - 1 - first
            if not self._rising:
                first = self._shape[self._axis] - 1 - first
            first[~of.mask.any(axis=self._axis)] = np.nan
            face = first + (-0.5 if lowest else 0.5)
            out[tuple(part for at, part in enumerate(of.box) if at != self._axis)] = face * self.slice_mm
        out = out.T if self._swapped else out
        return np.ascontiguousarray(out[tuple(slice(None, None, -1 if f else 1) for f in self._flipped)])

    def lies_below(self, heights: Float64, box: Box) -> BoolArray:
        """Which voxels of a box have their centres below the heights of their columns."""
        stored = heights[tuple(slice(None, None, -1 if f else 1) for f in self._flipped)]
        stored = stored.T if self._swapped else stored
        border = stored[tuple(part for at, part in enumerate(box) if at != self._axis)]
        along = box[self._axis]
        index = np.arange(along.start, along.stop)
        height = (index if self._rising else self._shape[self._axis] - 1 - index) * self.slice_mm
        shape = [-1 if n == self._axis else 1 for n in range(3)]
        below: BoolArray = height.reshape(shape) < np.expand_dims(border, self._axis)
        return below


def find_floor(
    underside: Float64,
    top: Float64,
    cushioned: BoolArray,
    pixel_mm: tuple[float, float],
    slice_mm: float,
    *,
    complete: bool = True,
) -> Float64:
    """Height of the floor in every column.

    Parameters
    ----------
    underside
        ``(rows, columns)`` mm, where what lies above begins; NaN where a column has none.
    top
        Where what lies below ends; NaN where a column has none.
    cushioned
        Columns of what lies above in a bed of fat.
    pixel_mm, slice_mm
        Distances of rows, of columns, and of voxels along a column.
    complete
        Whether ``top`` is that of all that a floor can cover: then none is higher.

    Raises
    ------
    Underivable
        No column tells anything.
    """
    same_mm = max(SAME_MM, slice_mm)
    floor = underside.copy()
    if complete and np.isfinite(top).any():
        floor[floor > np.nanmax(top) + TOUCH_MM] = np.nan
    bulging = floor < top  # an organ bulges over what lies in a recess beside it
    touched = (floor >= top) & (floor <= top + TOUCH_MM)
    floor[on_the_wall(underside, pixel_mm, slice_mm) & ~touched] = np.nan
    depth = _distance_mm(np.isnan(floor), pixel_mm)
    shown = (depth > min(RIM_MM, depth.max() / 2)) & (
        _distance_mm(cushioned, pixel_mm) > CUSHION_MM
    ) | touched
    if shown.any():
        floor[_peaks(floor, shown, same_mm)] = np.nan
    floor[cushioned & ~touched] = np.nan
    floor[bulging] = top[bulging]
    border = _sheet(floor if np.isfinite(floor).any() else top, pixel_mm)
    border = np.where(bulging, border, np.fmin(border, underside))
    return np.fmax(border, top)


def on_the_wall(underside: Float64, pixel_mm: tuple[float, float], slice_mm: float) -> BoolArray:
    """Where an underside rises towards its rim, from the rim inwards: there it lies on a wall that leans outwards.

    The rim is that of the convex hull of its columns: gaps within, such as between the lungs, have no wall. Parameters
    as of `find_floor`.
    """
    from scipy.ndimage import distance_transform_edt

    same_mm = max(SAME_MM, slice_mm)
    height = np.pad(underside, 1, constant_values=np.nan)
    met = np.isfinite(height)
    pixel = np.array(pixel_mm)
    depth, rim = distance_transform_edt(hull_2d(met), pixel_mm, return_indices=True)
    at = np.argwhere(met)
    inwards = (at - rim[:, met].T) / depth[met][:, None]  # pixels a mm

    def go(by_mm: float, which: BoolArray | slice = slice(None)) -> tuple[NDArray[np.int64], ...]:
        there = np.rint(at[which] + by_mm * inwards[which]).astype(np.int64)
        return tuple(np.clip(there, 0, np.array(height.shape) - 1).T)

    step_mm = max(pixel.max(), SAME_MM)
    lowest = np.full(len(at), np.inf)
    for further_mm in np.arange(step_mm, RIM_MM + 1e-6, step_mm):
        lowest = np.fmin(lowest, height[go(further_mm)])
    leans = height[met] > lowest + same_mm
    here, outwards = go(0.0, leans), go(-pixel.max(), leans)
    wall = ~met
    while True:
        more = wall[outwards] & ~wall[here]
        if not more.any():
            return (wall & met)[1:-1, 1:-1]
        wall[tuple(index[more] for index in here)] = True


def _peaks(floor: Float64, shown: BoolArray, same_mm: float) -> BoolArray:
    """Where a floor lies higher than a way from where it is shown leads without a descent first: on something else."""
    from skimage.morphology import reconstruction

    known = np.isfinite(floor)
    bottom = floor[known].min() - 1.0
    mask = np.where(known, floor, bottom)
    reached = reconstruction(np.where(shown, mask, bottom), mask, "dilation", np.ones((3, 3)))
    out: BoolArray = known & (floor > reached + same_mm)
    return out


def _distance_mm(columns: BoolArray, pixel_mm: tuple[float, float]) -> Float64:
    """How far each column is from the nearest one of some; infinite without any."""
    from scipy.ndimage import distance_transform_edt

    if not columns.any():
        return np.full(columns.shape, np.inf)
    out: Float64 = distance_transform_edt(~columns, pixel_mm)
    return out


def _sheet(height: Float64, pixel_mm: tuple[float, float]) -> Float64:
    """A map of heights with its gaps spanned by a taut sheet: nowhere above or below all that is known around.

    It solves Laplace's equation with free edges, in blocks of `STEP_MM`: a diaphragm needs no more.
    """
    from scipy.ndimage import map_coordinates

    known = np.isfinite(height)
    if not known.any():
        raise Underivable("the diaphragm's height cannot be told: no column meets it")
    if known.all():
        return height
    step = [max(1, round(STEP_MM / s)) for s in pixel_mm]
    padded = np.pad(
        height, [(0, -n % s) for n, s in zip(height.shape, step, strict=True)], constant_values=np.nan
    )
    rows, columns = (n // s for n, s in zip(padded.shape, step, strict=True))
    blocks = padded.reshape(rows, step[0], columns, step[1])
    counts = np.isfinite(blocks).sum(axis=(1, 3))
    coarse = np.nansum(blocks, axis=(1, 3)) / np.where(counts, counts, np.nan)
    coarse = _harmonic(coarse, [n * s for n, s in zip(step, pixel_mm, strict=True)])
    out = height.copy()
    at = (np.argwhere(~known) - (np.array(step) - 1) / 2) / step
    out[~known] = map_coordinates(coarse, at.T, order=1, mode="nearest")
    return out


def _harmonic(height: Float64, pixel_mm: list[float]) -> Float64:
    """A map whose unknown (NaN) values are the mean of their neighbours, weighted by distance."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve

    flat = height.ravel()
    free, told = np.flatnonzero(np.isnan(flat)), np.flatnonzero(np.isfinite(flat))
    if not len(free):
        return height
    index = np.arange(flat.size).reshape(height.shape)
    one = np.concatenate([index[:-1].ravel(), index[:, :-1].ravel()])
    other = np.concatenate([index[1:].ravel(), index[:, 1:].ravel()])
    weight = np.repeat(np.array(pixel_mm) ** -2.0, [index[:-1].size, index[:, :-1].size])
    ends = np.concatenate([one, other]), np.concatenate([other, one])
    links = coo_array((np.tile(weight, 2), ends), (flat.size, flat.size)).tocsr()[free]
    out = flat.copy()
    out[free] = spsolve(
        (diags_array(links.sum(axis=1)) - links[:, free]).tocsc(), links[:, told] @ flat[told]
    )
    return out.reshape(height.shape)
