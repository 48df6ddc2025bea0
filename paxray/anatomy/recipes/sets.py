"""Unions, intersections, differences, and windows of HU."""

from __future__ import annotations

import numpy as np

from paxray.anatomy.labels import Status
from paxray.anatomy.recipes.region import Region, Underivable, overlap, union_of, within
from paxray.anatomy.recipes.registry import operator
from paxray.anatomy.recipes.scene import Scene


@operator(tolerant=True)
def union(scene: Scene, of: list[Region], and_if_known: list[Region] | None = None) -> Region:
    """The voxels of any of the regions; partial where one of ``of`` is unknown and another is not."""
    of = [*of, *(and_if_known or [])]
    joined = union_of(of)
    known = all(region.status in (Status.PRESENT, Status.ABSENT) for region in of)
    if joined.empty:
        return Region.nothing(Status.ABSENT if known else Status.UNKNOWN, *joined.notes)
    return Region(joined.box, joined.mask, Status.PRESENT if known else Status.PARTIAL, joined.notes)


@operator
def intersection(scene: Scene, of: list[Region]) -> Region:
    """The voxels that all regions share."""
    box = of[0].box
    for region in of[1:]:
        common = overlap(box, region.box)
        if common is None:
            return Region.nothing()
        box = common
    mask = of[0].mask[within(box, of[0].box)].copy()
    for region in of[1:]:
        mask &= region.mask[within(box, region.box)]
    return Region.of_mask(mask, box)


@operator
def difference(
    scene: Scene, of: Region, minus: list[Region], minus_if_known: list[Region] | None = None
) -> Region:
    """The voxels of the first region that lie in none of the others."""
    mask = of.mask.copy()
    for region in (*minus, *(minus_if_known or [])):
        common = overlap(of.box, region.box)
        if common is not None:
            mask[within(common, of.box)] &= ~region.mask[within(common, region.box)]
    return Region.of_mask(mask, of.box)


@operator
def hu_window(scene: Scene, of: Region, from_hu: float | None = None, to_hu: float | None = None) -> Region:
    """The voxels of a region whose HU lie in a window, its ends included; an end left out is open."""
    if of.empty:
        return of
    if from_hu is not None and to_hu is not None and from_hu > to_hu:
        raise Underivable(f"a window from {from_hu:g} to {to_hu:g} HU holds nothing")
    hu = scene.hu(of.box)
    mask = of.mask.copy()
    if from_hu is not None:
        mask &= hu >= np.ceil(from_hu) if hu.dtype.kind in "iu" else hu >= from_hu
    if to_hu is not None:
        mask &= hu <= np.floor(to_hu) if hu.dtype.kind in "iu" else hu <= to_hu
    return Region.of_mask(mask, of.box)
