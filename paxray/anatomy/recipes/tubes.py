"""Structures with a course: the airway's bifurcation, the aorta's parts, the ribs' turn."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy import division
from paxray.anatomy.division import Slices
from paxray.anatomy.recipes.region import Region, Underivable
from paxray.anatomy.recipes.registry import operator
from paxray.anatomy.recipes.scene import UP, Scene
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

#: Reach of the tracheal bifurcation above and below the carina.
BIFURCATION_ABOVE_MM, BIFURCATION_BELOW_MM = 10.0, 20.0

#: Ribs are followed in steps of this length.
COURSE_STEP_MM = 4.0


def slices_of(scene: Scene, of: Region) -> Slices:
    """A region as slices across the patient."""
    return Slices(of.mask, np.array([part.start for part in of.box[::-1]], np.int64), scene.grid)


def carina_mm(scene: Scene, airway: Region) -> Float64:
    """The carina, as `paxray.anatomy.division.carina_mm` has it. `Underivable` where it is not seen."""
    found = scene.once(("carina", airway.identity), lambda: division.carina_mm(slices_of(scene, airway)))
    if found is None:
        raise Underivable("the carina is not seen: in no axial slice does one airway become two")
    return found


@operator(version=2)
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


@operator(version=3)
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


def _aorta_parts(scene: Scene, of: Region) -> NDArray[np.uint8] | str:
    """1 arch, 2 ascending, 3 descending, in the region's box; or why it cannot be told."""
    slices = slices_of(scene, of)
    # A scan that begins below the arch shows two limbs from its first slice on.
    fork = division.first_division(slices, division.limb_mm2(slices), from_one=False)
    if fork is None:
        return (
            "the aorta cannot be divided: in no axial slice does it have an ascending and a descending part"
        )
    from_above = slices.slices_from_above()
    index, plane = from_above[fork]
    one, other = (slices.to_world(index, part).mean(axis=0) for part in slices.parts(plane)[:2])
    ascending, descending = (one, other) if one[1] < other[1] else (other, one)
    out = of.mask.astype(np.uint8)
    planes = np.moveaxis(out, slices.slice_axis, 0)
    for index, plane in from_above[fork:]:
        met: dict[int, list[Float64]] = {2: [], 3: []}
        for part in slices.parts(plane):
            points = slices.to_world(index, part)
            centre = points.mean(axis=0)
            # Only what lies across counts: the centroids come from the slice above.
            to = [np.linalg.norm((centre - known)[:2]) for known in (ascending, descending)]
            which = 2 if to[0] < to[1] else 3
            planes[index][tuple(part.T)] = which
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
