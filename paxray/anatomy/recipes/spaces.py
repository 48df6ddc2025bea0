"""Spaces that no source draws: between the lungs, below the diaphragm, the mediastinum's compartments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes.pieces import hull_2d
from paxray.anatomy.recipes.region import Box, Region, Underivable, join, overlap, shape_of, within
from paxray.anatomy.recipes.registry import BadArgument, operator
from paxray.anatomy.recipes.scene import BACK, LEFT, UP, Scene
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

#: ITMIG's line between the visceral and the paravertebral compartment lies this far behind the front of the
#: vertebral bodies.
ITMIG_LINE_MM = 10.0
#: The front of the organs is evened out over this distance along the patient.
FRONT_REACH_MM = 10.0
#: Blocks in which the diaphragm's height is interpolated where it is not seen.
FLOOR_STEP_MM = 5.0
#: Beyond the columns that tell it, the diaphragm's height is smoothed over this distance.
FLOOR_SMOOTH_MM = 15.0
#: A diaphragm falls towards its rim. A lung's underside that is this much higher than `OVERHANG_REACH_MM` beside is
#: no floor.
OVERHANG_MM, OVERHANG_REACH_MM = 25.0, 20.0


def _two_in_a_third(given: Mapping[str, Any]) -> None:
    if len(given["of"]) != 2:
        raise BadArgument(
            "of", "what lies between takes two structures", expected="2", found=str(len(given["of"]))
        )
    if any(node.key == given["within"].key for node in given["of"]):
        raise BadArgument("within", "nothing of a structure lies between itself and another")


def _below_in_another(given: Mapping[str, Any]) -> None:
    if given["of"].key == given["within"].key:
        raise BadArgument("within", "nothing of a structure lies below itself")


@operator(check=_two_in_a_third)
def between(scene: Scene, of: list[Region], within_: Region) -> Region:
    """What of a region lies between two structures: in their common convex hull, axial slice by slice, and in neither.

    Slices that hold only one of the two have nothing between them.
    """
    one, other = of
    if one.empty or other.empty or within_.empty:
        return Region.nothing()
    box = join([one.box, other.box])
    a, b = one.inside(box), other.inside(box)
    out = np.zeros(shape_of(box), np.bool_)
    axis = scene.long_axis
    planes = (np.moveaxis(array, axis, 0) for array in (a, b, out))
    for first, second, target in zip(*planes, strict=True):
        if first.any() and second.any():
            target[...] = hull_2d(first | second)
    out &= ~a & ~b & within_.inside(box)
    return Region.of_mask(out, box)


@operator(landmarks=("roof",), check=_below_in_another, version=2)
def below(scene: Scene, of: Region, within_: Region, roof: Region | None = None) -> Region:
    """What of a region lies below a structure, such as the body below the lungs.

    In each column of voxels along the patient the structure's lowest voxel is the floor. Where the structure only hangs
    over a wall that leans inwards there is no floor: a floor more than `OVERHANG_MM` higher than another one
    `OVERHANG_REACH_MM` beside it is none. Columns without a floor take it from their neighbours: linearly in
    between, the nearest one's beyond.

    With a ``roof`` of what is known to lie below (liver, stomach, spleen) no floor lies above the roof's highest
    point, and a column that meets the roof has its floor there unless the structure's own lies less than
    `OVERHANG_MM` above. Where the roof falls off steeply, more than `OVERHANG_MM` within `OVERHANG_REACH_MM`, it is a
    flank and no floor.
    """
    if of.empty:
        raise Underivable("nothing to lie below of: the structure is not in the scan")
    upright = _Upright(scene)
    floor = upright.heights(of, lowest=True)
    axis = scene.long_axis
    spacing_mm = upright.spacing_mm
    overhang = OVERHANG_MM / scene.grid.spacing_mm[2 - axis]
    top = np.full(floor.shape, np.nan)
    if roof is not None and not roof.empty:
        top = upright.heights(roof, lowest=False)
        floor[floor > np.nanmax(top) + 1] = np.nan
    floor[_hangs_over(floor, spacing_mm, overhang) & np.isnan(top)] = np.nan
    on_roof = np.isfinite(top) & ~((floor > top) & (floor <= top + overhang))
    floor[on_roof] = top[on_roof] + 0.5
    # Far below what lies beside it, a roof's highest voxel is the foot of its flank.
    floor[on_roof & _hangs_over(-floor, spacing_mm, overhang)] = np.nan
    border = _filled_in(floor, [max(1, round(FLOOR_STEP_MM / s)) for s in spacing_mm])
    box = within_.box
    mask = within_.mask & upright.lies_below(border, box)
    common = overlap(of.box, box)
    if common is not None:
        mask[within(common, box)] &= ~of.mask[within(common, of.box)]
    return Region.of_mask(mask, box)


class _Upright:
    """Maps of heights as seen from the feet, so that no outcome depends on how the array is stored.

    A map's rows run to the back and its columns to the patient's left, along the array axes nearest to these; heights
    are voxels above the lowest slice.
    """

    def __init__(self, scene: Scene) -> None:
        self._shape = scene.shape
        self._axis = scene.long_axis
        self._rising = scene.is_rising(self._axis, UP)
        back = scene.array_axis(BACK)
        left = 3 - self._axis - back
        self._swapped = back > left
        self._flipped = not scene.is_rising(back, BACK), not scene.is_rising(left, LEFT)
        self.spacing_mm = [scene.grid.spacing_mm[2 - n] for n in (back, left)]

    def heights(self, of: Region, *, lowest: bool) -> Float64:
        """The height of a region's lowest or highest voxel in each column of the lattice; NaN without any."""
        low_index = lowest == self._rising
        flat = of.mask if low_index else np.flip(of.mask, self._axis)
        first = flat.argmax(axis=self._axis).astype(np.float64)
        part = of.box[self._axis]
        first = part.start + first if low_index else part.stop - 1 - first
        if not self._rising:
            first = self._shape[self._axis] - 1 - first
        first[~of.mask.any(axis=self._axis)] = np.nan
        out = np.full([n for at, n in enumerate(self._shape) if at != self._axis], np.nan)
        out[tuple(part for at, part in enumerate(of.box) if at != self._axis)] = first
        out = out.T if self._swapped else out
        return np.ascontiguousarray(out[tuple(slice(None, None, -1 if f else 1) for f in self._flipped)])

    def lies_below(self, heights: Float64, box: Box) -> BoolArray:
        """Which voxels of a box lie below the heights of their columns."""
        stored = heights[tuple(slice(None, None, -1 if f else 1) for f in self._flipped)]
        stored = stored.T if self._swapped else stored
        border = stored[tuple(part for at, part in enumerate(box) if at != self._axis)]
        along = box[self._axis]
        index = np.arange(along.start, along.stop)
        height = index if self._rising else self._shape[self._axis] - 1 - index
        shape = [-1 if n == self._axis else 1 for n in range(3)]
        below: BoolArray = height.reshape(shape) < np.expand_dims(border, self._axis)
        return below


def _hangs_over(floor: Float64, spacing_mm: list[float], overhang: float) -> BoolArray:
    """Where a floor lies far above another one beside it, in voxels."""
    from scipy.ndimage import minimum_filter

    size = [2 * round(OVERHANG_REACH_MM / s) + 1 for s in spacing_mm]
    lowest = minimum_filter(np.where(np.isfinite(floor), floor, np.inf), size, mode="nearest")
    out: BoolArray = floor > lowest + overhang
    return out


def _filled_in(height: Float64, step: list[int]) -> Float64:
    """A map of heights with its gaps filled: linearly between what is known, with the nearest value beyond, and
    smoothed.

    The gaps are filled in blocks of ``step`` pixels: a surface as smooth as a diaphragm needs no more.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.ndimage import gaussian_filter, map_coordinates

    known = np.isfinite(height)
    if not known.any():
        raise Underivable("the diaphragm's height cannot be told: no column meets it")
    if known.all():
        return height
    padded = np.pad(
        height, [(0, -n % s) for n, s in zip(height.shape, step, strict=True)], constant_values=np.nan
    )
    rows, columns = (n // s for n, s in zip(padded.shape, step, strict=True))
    blocks = padded.reshape(rows, step[0], columns, step[1])
    counts = np.isfinite(blocks).sum(axis=(1, 3))
    coarse = np.nansum(blocks, axis=(1, 3)) / np.where(counts, counts, np.nan)
    points = np.argwhere(counts > 0)
    values = coarse[tuple(points.T)]
    # Only within their hull: scipy looks through all triangles for each point that lies in none.
    gaps = np.argwhere(hull_2d(counts > 0) & (counts == 0))
    # Points on one line span nothing to interpolate in.
    if len(gaps) and _spans_a_plane(points):
        coarse[tuple(gaps.T)] = LinearNDInterpolator(points, values)(gaps)
    rest = np.argwhere(np.isnan(coarse))
    if len(rest):
        coarse[tuple(rest.T)] = NearestNDInterpolator(points, values)(rest)
    smooth = np.where(
        counts > 0, coarse, gaussian_filter(coarse, FLOOR_SMOOTH_MM / FLOOR_STEP_MM, mode="nearest")
    )
    out = height.copy()
    at = (np.argwhere(~known) - (np.array(step) - 1) / 2) / step
    out[~known] = map_coordinates(smooth, at.T, order=1, mode="nearest")
    return out


def _spans_a_plane(points: NDArray[np.int64]) -> bool:
    """Whether 2D points do not all lie on one line."""
    from_first = points - points[0]
    farthest = from_first[np.abs(from_first).sum(axis=1).argmax()]
    return bool((from_first @ [-farthest[1], farthest[0]]).any())


@operator(
    classes={
        # The left brachiocephalic vein runs in front of them: ITMIG counts it to the prevascular compartment.
        "organs": ["heart", "aorta", "venae_cavae", "brachiocephalic_vein_right", "trachea", "esophagus"],
        "spine": "vertebrae",
    },
    landmarks=("spine",),
)
def mediastinal_compartment(
    scene: Scene,
    of: Region,
    part: Literal["anterior", "middle", "posterior"],
    organs: list[Region],
    spine: Region,
) -> Region:
    """A compartment of the mediastinum after ITMIG: prevascular, visceral, paravertebral (Carter et al., J Thorac Oncol
    2014).

    Anterior lies in front of the organs of its axial slice, that is, of their common hull; beside them, in front of the
    foremost. Posterior lies behind the line 10 mm behind the front of the vertebral bodies and is no organ. The
    middle is the rest, the organs included.
    """
    if of.empty:
        return of
    if spine.empty:
        raise Underivable("the paravertebral line needs the spine, which is not in the scan")
    inside = np.zeros(shape_of(of.box), np.bool_)
    for organ in organs:
        inside |= organ.inside(of.box)
    y = scene.coordinate(of.box, BACK)
    behind = y >= _spine_front_mm(scene, of.box, spine) + ITMIG_LINE_MM
    posterior = of.mask & behind & ~inside
    anterior = (
        of.mask
        & ~posterior
        & ~inside
        & (y < _organ_front_mm(scene, inside, np.broadcast_to(y, inside.shape)))
    )
    chosen = {"anterior": anterior, "posterior": posterior, "middle": of.mask & ~anterior & ~posterior}
    return Region.of_mask(chosen[part], of.box)


def _spine_front_mm(scene: Scene, box: Box, spine: Region) -> Float64:
    """The front of the spine at each height of a box, smoothed over a vertebra and its disc; broadcasts to the box."""
    from scipy.ndimage import median_filter

    points = scene.world(spine)
    step = scene.grid.spacing_mm[2 - scene.long_axis]
    bins = np.round(points[:, 2] / step).astype(np.int64)
    low = bins.min()
    front = np.full(bins.max() - low + 1, np.inf)
    np.minimum.at(front, bins - low, points[:, 1])
    met = np.flatnonzero(np.isfinite(front))
    front = median_filter(front[met], max(1, round(30 / step)), mode="nearest")
    at = scene.coordinate(box, UP)
    return np.interp(at / step - low, met, front)


def _organ_front_mm(scene: Scene, inside: BoolArray, y: NDArray[np.float64]) -> Float64:
    """The front of the organs' common hull per axial slice, column by column; broadcasts to the box.

    Beside the organs it is that of the foremost one, and it lies nowhere behind that of a slice within
    `FRONT_REACH_MM` along the patient; +inf where there are no organs.
    """
    from scipy.ndimage import minimum_filter1d

    axis, along = scene.array_axis(BACK), scene.long_axis
    hulls = np.zeros_like(inside)
    for plane, hull in zip(np.moveaxis(inside, along, 0), np.moveaxis(hulls, along, 0), strict=True):
        hull[...] = hull_2d(plane)
    front = np.moveaxis(np.where(hulls, y, np.inf).min(axis=axis, keepdims=True), along, 0)
    flat = front.reshape(front.shape[0], -1)
    foremost = flat.min(axis=1, keepdims=True)
    flat = np.where(np.isfinite(flat), flat, foremost)
    reach = 2 * round(FRONT_REACH_MM / scene.grid.spacing_mm[2 - along]) + 1
    flat = minimum_filter1d(flat, reach, axis=0, mode="nearest")
    return np.moveaxis(flat.reshape(front.shape), 0, along)
