"""Cuts at planes: the body's midline, levels of structures, slabs between two levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from paxray.anatomy.recipes.region import Level, Region, Underivable
from paxray.anatomy.recipes.registry import BadArgument, operator
from paxray.anatomy.recipes.scene import BACK, LEFT, UP, Scene
from paxray.anatomy.recipes.tubes import carina_mm
from paxray.io.volume import Float64

Keep = Literal["above", "below", "in_front_of", "behind", "left_of", "right_of"]

#: Direction in which a kept part lies, and whether it is the side of larger coordinates.
_KEEP: dict[str, tuple[tuple[float, float, float], bool]] = {
    "above": (UP, True),
    "below": (UP, False),
    "behind": (BACK, True),
    "in_front_of": (BACK, False),
    "left_of": (LEFT, True),
    "right_of": (LEFT, False),
}
_ENDS: dict[str, tuple[tuple[float, float, float], bool]] = {
    "top_of": (UP, True),
    "bottom_of": (UP, False),
    "back_of": (BACK, True),
    "front_of": (BACK, False),
    "left_of": (LEFT, True),
    "right_of": (LEFT, False),
}
_ALONG = {"up": UP, "back": BACK, "left": LEFT}
_WORD = {UP: "up and down", BACK: "front and back", LEFT: "left and right"}

#: A midline that leans more than this from the patient's own axes is that of wrong masks.
MAX_LEAN_DEG = 30.0


@dataclass(frozen=True, eq=False)
class Midline:
    """The plane ``normal . x = offset_mm`` that halves the body; the normal points to the patient's left."""

    normal: Float64
    offset_mm: float
    note: str = ""


def fit_midline(scene: Scene, spine: Region | None, sternum: Region | None) -> Midline:
    """Fit a plane to the spine and the sternum.

    The centroids of both, every 5 mm along the patient, each weighing the same, give ``x = a + b y + c z`` by least
    squares. With the spine alone the plane keeps the patient's front-to-back direction (b = 0), with the sternum
    alone too, and either is noted.

    Raises
    ------
    Underivable
        Neither is there, or the plane leans by more than `MAX_LEAN_DEG`.
    """
    points = {
        name: scene.centre_line(region)
        for name, region in (("spine", spine), ("sternum", sternum))
        if region is not None and not region.empty
    }
    if not points:
        raise Underivable("the midline cannot be found: neither spine nor sternum is known and in the scan")
    note = ""
    if len(points) == 1:
        note = f"the midline was taken from the {next(iter(points))} alone, straight from front to back"
    every = np.concatenate(list(points.values()))
    # Each structure weighs the same, however long it is.
    weight = np.sqrt(np.concatenate([np.full(len(p), 1 / len(p)) for p in points.values()]))
    centre = every.mean(axis=0)
    columns = [np.ones(len(every)), every[:, 2] - centre[2]]
    if len(points) == 2:
        columns.append(every[:, 1] - centre[1])
    matrix = np.column_stack(columns)
    if np.ptp(every[:, 2]) < 1e-6:
        matrix = matrix[:, [0, *range(2, matrix.shape[1])]]  # a single slice: no lean can be told
        slope_z, rest = 0.0, np.linalg.lstsq(matrix * weight[:, None], every[:, 0] * weight, rcond=None)[0]
        at, slope_y = rest[0], rest[1] if len(rest) > 1 else 0.0
    else:
        found = np.linalg.lstsq(matrix * weight[:, None], every[:, 0] * weight, rcond=None)[0]
        at, slope_z, slope_y = found[0], found[1], found[2] if len(found) > 2 else 0.0
    normal = np.array([1.0, -slope_y, -slope_z])
    normal /= np.linalg.norm(normal)
    lean_deg = float(np.degrees(np.arccos(np.clip(normal[0], -1, 1))))
    if lean_deg > MAX_LEAN_DEG:
        raise Underivable(
            f"the midline cannot be trusted: spine and sternum put it {lean_deg:.0f} degrees off the patient's axes"
        )
    return Midline(normal, float(normal @ [at, centre[1], centre[2]]), note)


def midline(scene: Scene, spine: Region | None, sternum: Region | None) -> Midline:
    """`fit_midline`, once per pair of structures. `Underivable` as there."""

    def fit() -> Midline | Underivable:
        try:
            return fit_midline(scene, spine, sternum)
        except Underivable as error:
            return error

    key = ("midline", *(None if r is None else r.identity for r in (spine, sternum)))
    found = scene.once(key, fit)
    if isinstance(found, Underivable):
        raise Underivable(str(found))
    return found


@operator(classes={"spine": "vertebrae", "sternum": "sternum"}, landmarks=("spine", "sternum"))
def side(
    scene: Scene,
    of: Region,
    side: Literal["left", "right"],
    spine: Region | None,
    sternum: Region | None,
) -> Region:
    """The part of a region on the patient's left or right of the body's own midline.

    The midline is a plane fitted to spine and sternum (`fit_midline`), not the image's middle; where one of the two is
    missing the other does, with a note; without either the halves are unknown.
    """
    if of.empty:
        return of
    plane = midline(scene, spine, sternum)
    to_left = scene.coordinate(of.box, plane.normal) >= plane.offset_mm
    mask = of.mask & (to_left if side == "left" else ~to_left)
    return Region.of_mask(mask, of.box, [plane.note] if plane.note else [])


def position_mm(scene: Scene, level: Level, direction: tuple[float, float, float]) -> float:
    """Where a level lies along a direction of the patient, in mm.

    Ends are outer faces of voxels, so that a structure lies wholly on its side of its own end.

    Raises
    ------
    Underivable
        Its structure is not in the scan, or the level lies along another direction.
    """
    if level.of is None:
        return level.offset_mm
    if level.of.empty:
        raise Underivable(f"a level is missing: the structure of '{level.kind}' is not in the scan")
    if level.kind == "centre_of":
        return float(np.asarray(direction) @ scene.world(level.of).mean(axis=0)) + level.offset_mm
    if level.kind == "carina_of":
        return float(np.asarray(direction) @ carina_mm(scene, level.of)) + level.offset_mm
    along, upper = _ENDS[level.kind]
    if along != direction:
        raise Underivable(f"'{level.kind}' is a level {_WORD[along]}, the cut is {_WORD[direction]}")
    at = scene.coordinate(level.of.box, direction)
    reached = np.broadcast_to(at, level.of.mask.shape)[level.of.mask]
    half = scene.half_voxel_mm(direction)
    return float(reached.max() + half if upper else reached.min() - half) + level.offset_mm


def _require_along(word: str, level: Any, direction: tuple[float, float, float], cut: str) -> None:
    """Refuse an end along another direction than the cut's."""
    along = _ENDS.get(level.kind, (direction, True))[0]
    if along != direction:
        fitting = ", ".join(name for name, (way, _) in _ENDS.items() if way == direction)
        raise BadArgument(
            word,
            f"'{level.kind}' is a level {_WORD[along]}, and the cut is {_WORD[direction]}",
            expected=f"for {cut}: {fitting}, centre_of, carina_of, or a number in mm",
        )


def _cuts_something(given: Mapping[str, Any]) -> None:
    """A split's level lies along its direction, and not beyond the region's own end."""
    level = given["at"]
    direction, upper = _KEEP[given["keep"]]
    _require_along("at", level, direction, f"`keep: {given['keep']}`")
    if level.of is None or level.of.key != given["of"].key or level.kind not in _ENDS:
        return
    at_upper_end = _ENDS[level.kind][1]
    if (level.offset_mm >= 0) if at_upper_end else (level.offset_mm <= 0):
        kept = "nothing" if at_upper_end == upper else "everything"
        raise BadArgument(
            "at",
            f"the level lies at or beyond the region's own end: {kept} is kept",
            expected=f"an offset_mm {'below' if at_upper_end else 'above'} 0, or another structure's level",
        )


def _slab_is_open(given: Mapping[str, Any]) -> None:
    """A slab's levels lie along its direction, in order where that can be told."""
    direction = _ALONG[given["along"]]
    start, stop = given["from"], given["to"]
    for word, level in (("from", start), ("to", stop)):
        _require_along(word, level, direction, f"`along: {given['along']}`")
    one = start.of is None and stop.of is None
    one |= start.of is not None and stop.of is not None and start.of.key == stop.of.key
    ends = [_ENDS[level.kind][1] for level in (start, stop) if level.kind in _ENDS]
    # Of one structure, its upper end lies above its lower one; other pairs of kinds can be in either order.
    reversed_ = ends == [True, False] or start.kind == stop.kind
    if one and reversed_ and start.offset_mm >= stop.offset_mm:
        raise BadArgument(
            "from",
            "the slab ends where it begins, or before",
            expected="`from` below, in front of, or right of `to`",
        )


@operator(check=_cuts_something)
def split(scene: Scene, of: Region, keep: Keep, at: Level) -> Region:
    """The part of a region on one side of a level; what lies on the level is above, behind or to the left of it."""
    if of.empty:
        return of
    direction, upper = _KEEP[keep]
    beyond = scene.coordinate(of.box, direction) >= position_mm(scene, at, direction)
    return Region.of_mask(of.mask & (beyond if upper else ~beyond), of.box)


@operator(check=_slab_is_open)
def slab(
    scene: Scene,
    of: Region,
    from_: Level,
    to: Level,
    along: Literal["up", "back", "left"] = "up",
) -> Region:
    """The part of a region between two levels, the first one below (in front of, right of) the second."""
    if of.empty:
        return of
    direction = _ALONG[along]
    start, stop = position_mm(scene, from_, direction), position_mm(scene, to, direction)
    if start > stop:
        raise Underivable(
            f"the levels of a slab are in the wrong order: from {start:.0f} to {stop:.0f} mm {_WORD[direction]}"
        )
    at = scene.coordinate(of.box, direction)
    return Region.of_mask(of.mask & (at >= start) & (at < stop), of.box)
