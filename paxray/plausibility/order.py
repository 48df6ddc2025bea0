"""Vertebrae and ribs: in order, complete, and at one another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from paxray.anatomy.labels import Status
from paxray.plausibility.evidence import SPINE, Evidence, Float64, listed
from paxray.plausibility.rules import Finding

#: Fewer vertebrae make no spine to order ribs along.
FEWEST_VERTEBRAE = 3
#: The part of a rib, counted from its voxel nearest to the spine, that is its end there, mm.
HEAD_MM = 10.0
#: A rib begins no farther than this from a vertebra's centroid, mm.
BEGINS_WITHIN_MM = 55.0
#: Of a rib that the scan cuts, the end at the spine lies at least this far from the scan's first and last slice, mm.
INSIDE_MM = 15.0
_RIB = re.compile(r"rib_(left|right)_(\d+)")


def not_in_order(heights: Sequence[float]) -> list[int]:
    """Which of these break the order from high to low.

    Those that are not on every longest falling subsequence: of two neighbours exchanged both, since nothing tells
    which is wrong; of two far apart just these two.
    """
    n = len(heights)
    down, up = [1] * n, [1] * n  # the longest chains that end here, and that begin here
    for b in range(n):
        down[b] += max((down[a] for a in range(b) if heights[a] > heights[b]), default=0)
    for a in reversed(range(n)):
        up[a] += max((up[b] for b in range(a + 1, n) if heights[a] > heights[b]), default=0)
    longest = max(down, default=0)
    at = [down[m] for m in range(n) if down[m] + up[m] - 1 == longest]
    return [m for m in range(n) if down[m] + up[m] - 1 < longest or at.count(down[m]) > 1]


def ribs_of(evidence: Evidence) -> dict[str, dict[int, str]]:
    """Side to number to class, of all ribs that the catalog knows."""
    out: dict[str, dict[int, str]] = {"left": {}, "right": {}}
    for name in evidence.catalog:
        if found := _RIB.fullmatch(name):
            out[found.group(1)][int(found.group(2))] = name
    return {side: dict(sorted(ribs.items())) for side, ribs in out.items()}


def judge_order(evidence: Evidence) -> Iterator[Finding]:
    """`vertebrae_out_of_order`, `ribs_out_of_order` and `rib_off_its_vertebra`."""
    levels = list(evidence.vertebrae)
    astray = {levels[n] for n in not_in_order([-evidence.spine.index(level) for level in levels])}
    if astray:
        names = [f"vertebrae_{level}" for level in levels if level in astray]
        yield _out_of_order("vertebrae_out_of_order", names, "vertebrae")
    has_spine = len(levels) >= FEWEST_VERTEBRAE
    down_mm: dict[str, float] = {}
    for side, ribs in ribs_of(evidence).items():
        names = [name for name in ribs.values() if evidence.placed(name)]
        if has_spine:
            heads = {name: head for name in names if (head := _head_mm(evidence, name)) is not None}
            names = list(heads)
            down_mm |= {name: float(evidence.along_spine_mm(at[None])[0]) for name, at in heads.items()}
            wrong = not_in_order([-down_mm[name] for name in names])
        else:
            # What the scan cuts above has no uppermost voxel to go by.
            names = [name for name in names if not evidence.cut(name)]
            wrong = not_in_order([float(evidence.points(name)[:, 2].max()) for name in names])
        if wrong:
            yield _out_of_order("ribs_out_of_order", [names[n] for n in wrong], f"{side} ribs")
            down_mm = {name: mm for name, mm in down_mm.items() if name not in {names[n] for n in wrong}}
    if has_spine:
        yield from _off_their_vertebrae(evidence, down_mm, astray)


def _out_of_order(rule: str, names: list[str], what: str) -> Finding:
    return Finding(
        rule,
        tuple(names),
        f"{len(names)} {what} do not lie in the order of their names: {listed(names)}",
        value=len(names),
        limit=0,
    )


def _head_mm(evidence: Evidence, rib: str) -> Float64 | None:
    """Where a rib begins, LPS mm; None where the scan cuts it so that its end at the spine may lie beyond."""
    points = evidence.points(rib)
    centroids = np.array(list(evidence.vertebrae.values()))
    away = np.linalg.norm(points[:, None] - centroids, axis=2).min(axis=1)
    head = points[away < away.min() + HEAD_MM]
    if evidence.cut(rib):
        low, high = evidence.ends_mm
        inside = head[:, 2].min() > low + INSIDE_MM and head[:, 2].max() < high - INSIDE_MM
        if away.min() > BEGINS_WITHIN_MM or not inside:
            return None
    return np.asarray(head.mean(axis=0))


def _off_their_vertebrae(
    evidence: Evidence, down_mm: dict[str, float], astray: set[str]
) -> Iterator[Finding]:
    """Ribs that begin more than one vertebra away from their own.

    What the scan cuts is not told from its place, and what is out of order has been found already.
    """
    at_mm = evidence.along_spine_mm(np.array(list(evidence.vertebrae.values())))
    places = {
        SPINE.index(level): mm
        for level, mm in zip(evidence.vertebrae, at_mm.tolist(), strict=True)
        if level not in astray and not evidence.cut(f"vertebrae_{level}")
    }
    off: dict[str, int] = {}
    for name, down in down_mm.items():
        found = _RIB.fullmatch(name)
        own = SPINE.index("T1") + int(found.group(2)) - 1 if found else -1
        if own not in places or evidence.cut(name):
            continue
        nearest = min(places, key=lambda place: abs(places[place] - down))
        if abs(nearest - own) > 1:
            off[name] = nearest - own
    if off:
        worst = max(off, key=lambda name: abs(off[name]))
        yield Finding(
            "rib_off_its_vertebra",
            tuple(off),
            f"{len(off)} ribs do not begin at their own vertebra: {listed(list(off))}; {worst} by {off[worst]:+d} "
            "vertebrae (towards the feet is +): ribs or vertebrae are counted wrongly",
            value=abs(off[worst]),
            limit=1,
            unit="vertebrae",
        )


def judge_counts(evidence: Evidence) -> Iterator[Finding]:
    """`vertebra_missing`, `rib_missing`, `rib_pairs`."""
    spine = [f"vertebrae_{level}" for level in SPINE if level not in ("T13", "L6")]
    for name in _gaps(evidence, spine):
        # Transitional anatomy, not a gap: said as a number of pairs.
        if name != "vertebrae_T12":
            yield Finding(
                "vertebra_missing", (name,), f"{name} was not found between the vertebrae above and below it"
            )
    ribs = ribs_of(evidence)
    for side, other in (("left", "right"), ("right", "left")):
        gaps = _gaps(evidence, list(ribs[side].values()))
        for number, name in ribs[side].items():
            twin = ribs[other].get(number, "")
            alone = (
                evidence.status(name) is Status.ABSENT
                and evidence.placed(twin)
                and not evidence.cut(twin)
                and evidence.mirror_in_scan(twin)
            )
            if name in gaps or alone:
                because = "its neighbours were" if name in gaps else f"{twin} was"
                yield Finding("rib_missing", (name,), f"{name} was not found, though {because}")
    yield from _pairs(evidence, ribs)


def _gaps(evidence: Evidence, names: list[str]) -> list[str]:
    """What is absent while both its neighbours are there as a whole."""
    whole = {name for name in names if evidence.present(name) and not evidence.cut(name)}
    return [
        name
        for above, name, below in zip(names, names[1:], names[2:], strict=False)
        if evidence.status(name) is Status.ABSENT and {above, below} <= whole
    ]


def _pairs(evidence: Evidence, ribs: dict[str, dict[int, str]]) -> Iterator[Finding]:
    numbers = {n for of in ribs.values() for n, name in of.items() if evidence.present(name)}
    further = sorted(f"rib {n}" for n in numbers if n > 12)
    further += ["vertebra T13"] if evidence.present("vertebrae_T13") else []
    if further:
        named = [name for of in ribs.values() for n, name in of.items() if n > 12 and evidence.present(name)]
        named += ["vertebrae_T13"] if evidence.present("vertebrae_T13") else []
        yield Finding(
            "rib_pairs",
            tuple(named),
            f"13 rib pairs: there is a {' and a '.join(further)}",
            value=13,
            limit=12,
            unit="pairs",
        )
        return
    last = [of[12] for of in ribs.values() if 12 in of]
    no_rib = all(evidence.status(name) is Status.ABSENT for name in last)
    no_vertebra = "vertebrae_T12" in _gaps(evidence, ["vertebrae_T11", "vertebrae_T12", "vertebrae_L1"])
    reached = evidence.present("vertebrae_L1") and not evidence.cut("vertebrae_L1")
    in_scan = 11 in numbers and reached
    if in_scan and last and (no_rib or no_vertebra):
        lacking = " and ".join(
            word for word, is_so in (("twelfth rib", no_rib), ("vertebra T12", no_vertebra)) if is_so
        )
        yield Finding(
            "rib_pairs",
            (*(last if no_rib else ()), *(("vertebrae_T12",) if no_vertebra else ())),
            f"11 rib pairs: no {lacking} was found, though the scan reaches the first lumbar vertebra",
            value=11,
            limit=12,
            unit="pairs",
        )
