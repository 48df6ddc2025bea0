"""Structures with a course: the airway's bifurcation, the aorta's parts, the ribs' turn."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes.region import Region, Underivable, shape_of
from paxray.anatomy.recipes.registry import operator
from paxray.anatomy.recipes.scene import UP, Scene
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

#: Smaller parts of an axial slice are specks of a mask, not branches.
MIN_BRANCH_MM2 = 15.0
#: A part of the aorta's slice is a limb if it has this share of a usual slice; the stump of a branch is smaller.
LIMB_SHARE = 0.25
#: Two parts must go on for this long to be a bifurcation.
MIN_FORK_MM = 5.0
#: Reach of the tracheal bifurcation above and below the carina.
BIFURCATION_ABOVE_MM, BIFURCATION_BELOW_MM = 10.0, 20.0

#: Ribs are followed in steps of this length.
COURSE_STEP_MM = 4.0


class _Slice:
    """One axial slice of a structure: its branches, each a mask and a centroid in world mm."""

    def __init__(self, scene: Scene, of: Region, index: int, at_least_mm2: float = MIN_BRANCH_MM2) -> None:
        from scipy import ndimage

        axis = scene.long_axis
        plane = np.take(of.mask, index, axis=axis)
        numbers, count = ndimage.label(plane, np.ones((3, 3), bool))
        pixel_mm2 = scene.voxel_mm3 / scene.grid.spacing_mm[2 - axis]
        sizes = np.bincount(numbers.reshape(-1), minlength=count + 1)
        self.numbers: NDArray[np.int32] = numbers
        # The largest first.
        self.branches = [
            int(n) + 1
            for n in np.argsort(-sizes[1:], kind="stable")
            if sizes[n + 1] * pixel_mm2 >= at_least_mm2
        ]
        self._scene, self._of, self._index = scene, of, index

    def points_mm(self, branch: int) -> Float64:
        """``(n, 3)`` voxel centres of a branch."""
        axis, box = self._scene.long_axis, self._of.box
        index = np.insert(np.argwhere(self.numbers == branch), axis, self._index, axis=1)
        return self._scene.grid.to_world((index + [part.start for part in box])[:, ::-1])


def _slices_down(scene: Scene, of: Region) -> list[int]:
    """Indices of the region's slices along the patient, from the head downwards."""
    indices = list(range(shape_of(of.box)[scene.long_axis]))
    return indices[::-1] if scene.is_rising(scene.long_axis, UP) else indices


def fork_from_above(scene: Scene, of: Region, at_least_mm2: float = MIN_BRANCH_MM2) -> tuple[int, _Slice]:
    """The first axial slice from above in which a structure has two branches that go on for `MIN_FORK_MM`.

    Parts of a slice smaller than ``at_least_mm2`` are no branches.

    Returns
    -------
    Position in `_slices_down`, and the slice.

    Raises
    ------
    Underivable
        There is none.
    """
    axis = scene.long_axis
    order = _slices_down(scene, of)
    needed = max(2, int(np.ceil(MIN_FORK_MM / scene.grid.spacing_mm[2 - axis])))
    first: _Slice | None = None
    forked = 0
    for position, index in enumerate(order):
        here = _Slice(scene, of, index, at_least_mm2)
        if len(here.branches) < 2:
            first, forked = None, 0
            continue
        first = first or here
        forked += 1
        if forked == needed:
            return position - needed + 1, first
    raise Underivable("no bifurcation is seen: in no axial slice does the structure have two branches")


def carina_mm(scene: Scene, airway: Region) -> Float64:
    """The carina: midway between the two airways where an axial slice first shows two.

    Raises
    ------
    Underivable
        The airway is not followed to where it forks.
    """

    def find() -> Float64 | str:
        from scipy.spatial.distance import cdist

        try:
            _, here = fork_from_above(scene, airway)
        except Underivable:
            return "the carina is not seen: in no axial slice does the airway have two branches"
        one, other = (here.points_mm(branch) for branch in here.branches[:2])
        apart = cdist(one, other)
        # Parallel walls are nearest in many places: the middle of them.
        a, b = np.nonzero(apart <= apart.min() + 1e-6)
        return np.asarray((one[a].mean(axis=0) + other[b].mean(axis=0)) / 2)

    found = scene.once(("carina", airway.identity), find)
    if isinstance(found, str):
        raise Underivable(found)
    return found


@operator
def trachea_part(scene: Scene, of: Region, part: Literal["above", "bifurcation", "beyond"]) -> Region:
    """A part of the airway by the level of its carina.

    ``bifurcation`` reaches from 10 mm above the carina to 20 mm below it, ``above`` and ``beyond`` are the rest. The
    carina's level is that of the first axial slice, from above, in which the airway has two parts.
    """
    if of.empty:
        return of
    carina = float(carina_mm(scene, of)[2])
    at = scene.coordinate(of.box, UP)
    high, low = at >= carina + BIFURCATION_ABOVE_MM, at < carina - BIFURCATION_BELOW_MM
    chosen = {"above": high, "beyond": low, "bifurcation": ~high & ~low}[part]
    return Region.of_mask(of.mask & chosen, of.box)


@operator(version=2)
def aorta_part(scene: Scene, of: Region, part: Literal["ascending", "arch", "descending"]) -> Region:
    """A part of the aorta.

    The arch is what lies above the highest axial slice in which the aorta has two separate parts, that is, above the
    underside of its bend; a part smaller than a quarter of a usual slice is the stump of a branch. Below, the part in
    front is ascending and the one behind descending, followed downwards from slice to slice.
    """
    if of.empty:
        return of
    parts = scene.once(("aorta", of.identity), lambda: _aorta_parts(scene, of))
    if isinstance(parts, str):
        raise Underivable(parts)
    return Region.of_mask(parts == ("arch", "ascending", "descending").index(part) + 1, of.box)


def _usual_slice_mm2(scene: Scene, of: Region) -> float:
    """The median, over the slices of a structure, of the area of its largest part."""
    axis = scene.long_axis
    slices = (_Slice(scene, of, index) for index in range(shape_of(of.box)[axis]))
    areas = [np.bincount(s.numbers.reshape(-1))[1:].max() for s in slices if s.numbers.any()]
    return float(np.median(areas)) * scene.voxel_mm3 / scene.grid.spacing_mm[2 - axis]


def _aorta_parts(scene: Scene, of: Region) -> NDArray[np.uint8] | str:
    """1 arch, 2 ascending, 3 descending, in the region's box; or why it cannot be told."""
    try:
        fork, first = fork_from_above(
            scene, of, max(MIN_BRANCH_MM2, LIMB_SHARE * _usual_slice_mm2(scene, of))
        )
    except Underivable:
        return (
            "the aorta cannot be divided: in no axial slice does it have an ascending and a descending part"
        )
    out = of.mask.astype(np.uint8)
    one, other = (first.points_mm(branch).mean(axis=0) for branch in first.branches[:2])
    ascending, descending = (one, other) if one[1] < other[1] else (other, one)
    planes = np.moveaxis(out, scene.long_axis, 0)
    for index in _slices_down(scene, of)[fork:]:
        here = _Slice(scene, of, index)
        plane = planes[index]
        met: dict[int, list[Float64]] = {2: [], 3: []}
        for branch in range(1, int(here.numbers.max(initial=0)) + 1):
            points = here.points_mm(branch)
            centre = points.mean(axis=0)
            # Only what lies across counts: the centroids come from the slice above.
            to = [np.linalg.norm((centre - known)[:2]) for known in (ascending, descending)]
            which = 2 if to[0] < to[1] else 3
            plane[here.numbers == branch] = which
            met[which].append(points)
        if met[2]:
            ascending = np.concatenate(met[2]).mean(axis=0)
        if met[3]:
            descending = np.concatenate(met[3]).mean(axis=0)
    return out


@operator(classes={"spine": "vertebrae", "sternum": "sternum"}, landmarks=("spine", "sternum"))
def course(
    scene: Scene,
    of: Region,
    part: Literal["posterior", "anterior"],
    spine: Region,
    sternum: Region | None,
) -> Region:
    """A rib's posterior or anterior part: it is followed from its end at the spine, and cut where it turns.

    The turn is the point of its course farthest from the body's midline: up to there the rib runs outwards and back,
    from there inwards and to the front. A rib whose farthest point is its tip has no anterior part.
    """
    if of.empty:
        return of
    if spine.empty:
        raise Underivable("a rib's course starts at the spine, which is not in the scan")
    key = ("course", of.identity, spine.identity, sternum.identity if sternum else None)
    behind = scene.once(key, lambda: _behind_turn(scene, of, spine, sternum))
    return Region.of_mask(behind if part == "posterior" else of.mask & ~behind, of.box)


def _behind_turn(scene: Scene, of: Region, spine: Region, sternum: Region | None) -> BoolArray:
    """The voxels of a rib, in its box, from its end at the spine to where it turns."""
    from paxray.anatomy.recipes.cuts import midline

    points = scene.world(of)
    along = course_mm(scene, of, spine)
    lateral = np.abs(points @ (plane := midline(scene, spine, sternum)).normal - plane.offset_mm)
    bins = (along / COURSE_STEP_MM).astype(np.int64)
    counts = np.bincount(bins)
    filled = np.flatnonzero(counts)
    centre = np.bincount(bins, lateral)[filled] / counts[filled]
    # The turn is flat: its middle is found as that of all steps within 1 mm of the farthest.
    top = np.flatnonzero(centre >= centre.max() - 1.0)
    at_tip = top[-1] == len(filled) - 1
    turn = np.inf if at_tip else float((filled[top].mean() + 0.5) * COURSE_STEP_MM)
    out = np.zeros(of.mask.shape, np.bool_)
    out[of.mask] = along < turn
    return out


def course_mm(scene: Scene, of: Region, start: Region) -> Float64:
    """How far along a structure each of its voxels lies, from its end at ``start``.

    Returns
    -------
    ``(n,)`` mm, in the order of ``of.mask``'s voxels: the shortest way through the structure from its voxel nearest
    to the centre line of ``start``. A piece that hangs not together with the rest is reached from its nearest voxel,
    across the gap.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components, dijkstra
    from scipy.spatial import KDTree

    points = scene.world(of)
    number = np.full(of.mask.shape, -1, np.int64)
    number[of.mask] = np.arange(len(points))
    rows, columns = [], []
    # Half of the 26 neighbours: each pair is met once.
    steps: list[tuple[int, ...]] = [s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]
    for step in steps:
        sizes: list[tuple[int, int]] = list(zip(step, of.mask.shape, strict=True))
        here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in sizes)
        there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in sizes)
        pair = (number[here] >= 0) & (number[there] >= 0)
        rows.append(number[here][pair])
        columns.append(number[there][pair])
    row, column = np.concatenate(rows), np.concatenate(columns)
    weight = np.linalg.norm(points[row] - points[column], axis=1)
    graph = coo_matrix((weight, (row, column)), (len(points), len(points))).tocsr()
    pieces, piece_of = connected_components(graph, directed=False)
    away = KDTree(scene.centre_line(start)).query(points)[0]
    # The first piece is the one at the start; the nearest piece not reached yet is hung on to what is.
    source = np.flatnonzero(away <= away.min() + 1e-6)
    along = np.asarray(dijkstra(graph, directed=False, indices=source, min_only=True))
    for _ in range(pieces - 1):
        reached = np.isfinite(along)
        if reached.all():
            break
        gap, nearest = KDTree(points[reached]).query(points[~reached])
        entry = int(gap.argmin())
        begin = float(along[reached][nearest[entry]] + gap[entry])
        rest = np.asarray(dijkstra(graph, directed=False, indices=np.flatnonzero(~reached)[entry]))
        same = piece_of == piece_of[np.flatnonzero(~reached)[entry]]
        along[same] = begin + rest[same]
    return along
