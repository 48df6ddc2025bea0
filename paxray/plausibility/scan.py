"""Where the scan ends: which classes it cuts, and through which face."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from paxray.anatomy.division import slice_axis
from paxray.plausibility.evidence import Evidence, listed
from paxray.plausibility.rules import Finding
from paxray.segmentation.body import BODY, UNSCANNED


def judge_scan(evidence: Evidence) -> Iterator[Finding]:
    """`cut_by_scan`, `lung_apices_cut`, `lung_bases_cut`, `body_cut_at_sides`."""
    cut = [
        name
        for name in evidence.drawn
        if name not in (BODY, UNSCANNED) and evidence.present(name) and evidence.cut_by_scan(name)
    ]
    if cut:
        yield Finding(
            "cut_by_scan",
            tuple(cut),
            f"the scan cuts {len(cut)} classes: {listed(cut)}",
            value=len(cut),
            limit=0,
        )
    for rule, face, upper in (
        ("lung_apices_cut", "uppermost", True),
        ("lung_bases_cut", "lowermost", False),
    ):
        at_face = _classes_in_slice(evidence, upper)
        sides = [
            name
            for name in ("lung_left", "lung_right")
            if at_face.intersection((name, *evidence.catalog.leaves(name)))
        ]
        if sides:
            yield Finding(rule, tuple(sides), f"{' and '.join(sides)} reach the scan's {face} slice")
    yield from _body(evidence)


def _classes_in_slice(evidence: Evidence, upper: bool) -> set[str]:
    """What sources drew in the scan's first or last slice across the patient."""
    grid, labels = evidence.labels.grid, evidence.labels
    axis = slice_axis(grid)
    last = (grid.affine[2, 2 - axis] > 0) == upper
    atoms = np.unique(np.take(labels.atoms, -1 if last else 0, axis=axis))
    held = labels.membership[atoms].any(axis=0)
    return {name for name, is_there in zip(labels.names, held.tolist(), strict=True) if is_there}


def _body(evidence: Evidence) -> Iterator[Finding]:
    share = evidence.body_at_sides
    if share > 0:
        yield Finding(
            "body_cut_at_sides",
            (BODY,),
            f"in {100 * share:.0f} % of the slices the body reaches the array's side or the edge of the "
            "reconstruction circle",
            value=share,
            limit=0,
            unit="share of slices",
        )
