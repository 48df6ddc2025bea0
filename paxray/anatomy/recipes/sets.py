"""Unions, intersections, differences, and windows of HU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paxray.anatomy.labels import Status
from paxray.anatomy.recipes.region import Region, overlap, union_of, within
from paxray.anatomy.recipes.registry import BadArgument, operator
from paxray.anatomy.recipes.scene import Scene


def _listed_once(first: str, second: str) -> Any:
    """A check: no region stands in both of two lists."""

    def check(given: Mapping[str, Any]) -> None:
        again = {node.key for node in given[first]}.intersection(node.key for node in given[second] or ())
        if again:
            raise BadArgument(second, f"it stands under `{first}` too", found=", ".join(sorted(again)))

    return check


def _several(given: Mapping[str, Any]) -> None:
    if len(given["of"]) < 2:
        raise BadArgument("of", "an intersection of one", expected="two regions or more")


def _something_is_left(given: Mapping[str, Any]) -> None:
    _listed_once("minus", "minus_if_known")(given)
    for word in ("minus", "minus_if_known"):
        if any(node.key == given["of"].key for node in given[word] or ()):
            raise BadArgument(word, "taken from itself, nothing is left of a region")


def _window_is_open(given: Mapping[str, Any]) -> None:
    low, high = given["from_hu"], given["to_hu"]
    if low is None and high is None:
        raise BadArgument("of", "a window without ends holds everything", expected="from_hu, to_hu, or both")
    if low is not None and high is not None and low > high:
        raise BadArgument(
            "from_hu",
            "a window that ends before it begins holds nothing",
            expected="from_hu at most to_hu",
            found=f"from_hu {low:g}, to_hu {high:g}",
        )


@operator(tolerant=True, check=_listed_once("of", "and_if_known"))
def union(scene: Scene, of: list[Region], and_if_known: list[Region] | None = None) -> Region:
    """The voxels of any of the regions; partial where one of ``of`` is unknown and another is not."""
    of = [*of, *(and_if_known or [])]
    joined = union_of(of)
    known = all(region.status in (Status.PRESENT, Status.ABSENT) for region in of)
    if joined.empty:
        return Region.nothing(Status.ABSENT if known else Status.UNKNOWN, *joined.notes)
    return Region(joined.box, joined.mask, Status.PRESENT if known else Status.PARTIAL, joined.notes)


@operator(check=_several)
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


@operator(check=_something_is_left)
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


@operator(check=_window_is_open)
def hu_window(scene: Scene, of: Region, from_hu: float | None = None, to_hu: float | None = None) -> Region:
    """The voxels of a region whose HU lie in a window, its ends included; an end left out is open."""
    if of.empty:
        return of
    hu = scene.hu(of.box)
    mask = of.mask.copy()
    if from_hu is not None:
        mask &= hu >= np.ceil(from_hu) if hu.dtype.kind in "iu" else hu >= from_hu
    if to_hu is not None:
        mask &= hu <= np.floor(to_hu) if hu.dtype.kind in "iu" else hu <= to_hu
    return Region.of_mask(mask, of.box)
