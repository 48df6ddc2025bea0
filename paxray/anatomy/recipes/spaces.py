"""Spaces that no source draws: between the lungs, below the diaphragm, the mediastinum's compartments."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes.pieces import hull_2d
from paxray.anatomy.recipes.region import Box, Region, Underivable, join, overlap, shape_of, within
from paxray.anatomy.recipes.registry import operator
from paxray.anatomy.recipes.scene import BACK, UP, Scene
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

#: ITMIG's line between the visceral and the paravertebral compartment lies this far behind the front of the vertebral bodies.
ITMIG_LINE_MM = 10.0


@operator
def between(scene: Scene, of: list[Region], within_: Region) -> Region:
    """What of a region lies between two structures: in their common convex hull, axial slice by slice, and in neither.

    Slices that hold only one of the two have nothing between them.
    """
    if len(of) != 2:
        raise Underivable("`between` takes two structures")
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


@operator
def below(scene: Scene, of: Region, within_: Region, roof: Region | None = None) -> Region:
    """What of a region lies below a structure, such as the body below the lungs.

    In each column of voxels along the patient the structure's lowest voxel is the floor. Columns that do not meet it
    take the floor from their neighbours: linearly in between, the nearest one's beyond. With a ``roof`` of what is
    known to lie below (liver, stomach, spleen), a column's floor is the top of the roof where it meets it, and a floor
    of the structure higher than the roof reaches anywhere is none: there, the structure hangs over something else.
    """
    if of.empty:
        raise Underivable("nothing to lie below of: the structure is not in the scan")
    axis, rising = scene.long_axis, scene.is_rising(scene.long_axis, UP)
    floor = _ends(of, scene.shape, axis, lowest=rising)
    sign = 1 if rising else -1  # heights grow towards the head
    floor = sign * floor
    if roof is not None and not roof.empty:
        top = sign * _ends(roof, scene.shape, axis, lowest=not rising)
        floor[floor > np.nanmax(top) + 1] = np.nan
        # Where both are met the border lies in between; the roof's top voxel stays below.
        both = np.isfinite(floor) & np.isfinite(top)
        floor[both] = np.maximum(np.minimum(floor[both], top[both] + 1), top[both] + 0.5)
        only = np.isnan(floor) & np.isfinite(top)
        floor[only] = top[only] + 0.5
    border = _filled_in(floor)
    box = within_.box
    index = np.arange(box[axis].start, box[axis].stop) * sign
    height = np.expand_dims(border, axis)[tuple(s if n != axis else slice(None) for n, s in enumerate(box))]
    index = index.reshape([-1 if n == axis else 1 for n in range(3)])
    common = overlap(of.box, box)
    mask = within_.mask & (index < height)
    if common is not None:
        mask[within(common, box)] &= ~of.mask[within(common, of.box)]
    return Region.of_mask(mask, box)


def _ends(of: Region, shape: tuple[int, int, int], axis: int, *, lowest: bool) -> Float64:
    """The lowest or highest index along an axis of a region's voxels, per column of the whole lattice; NaN without any."""
    flat = of.mask if lowest else np.flip(of.mask, axis)
    first = flat.argmax(axis=axis).astype(np.float64)
    first = of.box[axis].start + first if lowest else of.box[axis].stop - 1 - first
    first[~of.mask.any(axis=axis)] = np.nan
    out = np.full([n for at, n in enumerate(shape) if at != axis], np.nan)
    out[tuple(part for at, part in enumerate(of.box) if at != axis)] = first
    return out


def _filled_in(height: Float64, step: int = 4) -> Float64:
    """A map of heights with its gaps filled: linearly between what is known, with the nearest value beyond."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    known = np.isfinite(height)
    if not known.any():
        raise Underivable("the diaphragm's height cannot be told: no column meets it")
    if known.all():
        return height
    out = height.copy()
    # A surface as smooth as a diaphragm needs no more points than one in `step` x `step`.
    thin = np.zeros_like(known)
    thin[::step, ::step] = True
    chosen = np.argwhere(known & thin)
    if len(chosen) < 16:
        chosen = np.argwhere(known)
    values, gaps = height[tuple(chosen.T)], np.argwhere(~known)
    if len(chosen) > 3 and np.ptp(chosen, axis=0).min() > 0:
        out[tuple(gaps.T)] = LinearNDInterpolator(chosen, values)(gaps)
    rest = np.argwhere(np.isnan(out))
    if len(rest):
        out[tuple(rest.T)] = NearestNDInterpolator(chosen, values)(rest)
    return out


@operator(
    classes={
        "organs": ["heart", "aorta", "venae_cavae", "brachiocephalic_veins", "trachea", "esophagus"],
        "spine": "vertebrae",
    }
)
def mediastinal_compartment(
    scene: Scene,
    of: Region,
    part: Literal["anterior", "middle", "posterior"],
    organs: list[Region],
    spine: Region,
) -> Region:
    """A compartment of the mediastinum after ITMIG: prevascular, visceral, paravertebral.

    Anterior lies in front of the foremost organ of its axial slice, column by column, the profile going on from the
    nearest column beside the organs; posterior lies behind the line 10 mm behind the front of the vertebral bodies
    and is no organ; the middle is the rest, the organs included.
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
    anterior = of.mask & ~posterior & ~inside & (y < _organ_front_mm(scene, inside, np.broadcast_to(y, inside.shape)))
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
    """How far to the front the organs reach, per axial slice and column; +inf in slices without organs."""
    axis = scene.array_axis(BACK)
    front = np.where(inside, y, np.inf).min(axis=axis, keepdims=True)
    along = np.moveaxis(front, scene.long_axis, 0)
    for plane in along:
        row = plane.reshape(-1)
        met = np.flatnonzero(np.isfinite(row))
        if met.size:
            plane[...] = np.interp(np.arange(row.size), met, row[met]).reshape(plane.shape)
    return front
