"""Spaces that no source draws: between the lungs, below the diaphragm, the mediastinum's compartments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import Status
from paxray.anatomy.recipes.floor import Upright, find_floor, on_the_wall
from paxray.anatomy.recipes.pieces import hull_2d
from paxray.anatomy.recipes.region import Box, Region, Underivable, join, overlap, shape_of, within
from paxray.anatomy.recipes.registry import BadArgument, operator
from paxray.anatomy.recipes.scene import BACK, UP, Scene
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

#: ITMIG's line between the visceral and the paravertebral compartment lies this far behind the front of the
#: vertebral bodies.
ITMIG_LINE_MM = 10.0
#: The front of the organs is evened out over this distance along the patient.
FRONT_REACH_MM = 10.0


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


@operator(landmarks=("roof", "cushioned"), check=_below_in_another, version=3)
def below(
    scene: Scene,
    of: Region,
    within_: Region,
    roof: Region | None = None,
    cushioned: Region | None = None,
) -> Region:
    """What of a region lies below a structure, such as the body below the lungs.

    In each column of voxels along the patient the structure's lowest voxel is the floor, but where it rises towards its
    outline: there it lies on a wall that leans outwards. A column without a floor takes it from a taut sheet through
    those with one, which goes on level beyond; nowhere does it lie above the structure itself.

    A ``roof`` is what is known to lie below (liver, stomach, spleen): the floor is nowhere lower than its top, and if
    all of it is known, nowhere more than `TOUCH_MM` higher than its highest point. Where the structure lies no more
    than that above it, the floor is told for certain. What is ``cushioned`` (the heart) lies on the floor in a bed of
    fat. Under it, as far as `CUSHION_MM` around it and `RIM_MM` from the structure's outline, a floor must be reached
    from where it is told without a descent first; what rises beyond that only bounds it from above.
    """
    if of.empty:
        raise Underivable("nothing to lie below of: the structure is not in the scan")
    upright = Upright(scene)
    underside = upright.heights(of, lowest=True)
    nowhere = np.full(underside.shape, np.nan)
    top = nowhere if roof is None else upright.heights(roof, lowest=False)
    soft = nowhere if cushioned is None else upright.heights(cushioned, lowest=True)
    complete = roof is not None and roof.status is not Status.PARTIAL
    border = find_floor(
        underside, top, np.isfinite(soft), upright.pixel_mm, upright.slice_mm, complete=complete
    )
    box = within_.box
    mask = within_.mask & upright.lies_below(border, box)
    common = overlap(of.box, box)
    if common is not None:
        mask[within(common, box)] &= ~of.mask[within(common, of.box)]
    return Region.of_mask(mask, box)


def _covered_by_another(given: Mapping[str, Any]) -> None:
    if given["of"].key == given["by"].key:
        raise BadArgument("by", "no structure covers itself")


@operator(check=_covered_by_another)
def covered(scene: Scene, of: Region, by: Region) -> Region:
    """What of a region another structure covers, such as the abdomen under the domes of the diaphragm by the lungs.

    That is what has voxels of the structure above it in its column along the patient and is none of them. Columns in
    which the structure rises towards its outline are left out: there it lies on a wall that leans outwards, and what
    lies below it is that wall.
    """
    if of.empty or by.empty:
        return Region.nothing()
    upright = Upright(scene)
    top = upright.heights(by, lowest=False)
    top[on_the_wall(upright.heights(by, lowest=True), upright.pixel_mm, upright.slice_mm)] = np.nan
    return Region.of_mask(of.mask & upright.lies_below(top, of.box) & ~by.inside(of.box), of.box)


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

    axis, along = scene.back_axis, scene.long_axis
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
