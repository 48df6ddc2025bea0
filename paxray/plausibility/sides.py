"""Left and right: twins, and organs that lie on one side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from paxray.plausibility.evidence import Evidence, listed
from paxray.plausibility.rules import Finding

#: A class lies on a side with at least this share of its voxels.
MOST = 0.9
#: A centroid that lies on a side does so by more than this, mm.
CLEARLY_MM = 10.0
#: Fewer twins say nothing of a flip of the whole case.
FEWEST_TWINS = 3
#: Unpaired organs and where they lie, as a sign: +1 is the patient's left.
USUAL = {"liver": -1, "spleen": 1, "stomach": 1}
_SIGN = {"left": 1, "right": -1}


def judge_sides(evidence: Evidence) -> Iterator[Finding]:
    """`flipped_left_right`, `sides_exchanged`, `twins_on_one_side`, `on_other_side`, and organs on the other side."""
    if not evidence.has_midline():
        return
    beyond = {
        name: share
        for name in evidence.drawn
        if evidence.catalog[name].laterality and (share := _share_beyond(evidence, name)) is not None
    }
    exchanged, twins = [], 0
    single: list[Finding] = []
    for name, share in beyond.items():
        twin = evidence.catalog[name].mirror
        if twin not in beyond:
            if share >= MOST and not evidence.cut(name):
                single.append(_one("on_other_side", name, share, "and its twin is not there to compare"))
            continue
        if evidence.catalog[name].laterality == "left":
            twins += 1
            if share >= MOST and beyond[twin] >= MOST:
                exchanged.append((name, twin))
        # What crosses the midline (the left brachiocephalic vein) may be cut down to what lies beyond it.
        if share >= MOST > beyond[twin] and not evidence.cut(name):
            single.append(_one("twins_on_one_side", name, share, f"beside its twin {twin}"))
    flipped = twins >= FEWEST_TWINS and len(exchanged) > twins / 2
    if not flipped:
        yield from single
        single = []  # of a flip, what lies on the other side alone is a part
    if exchanged:
        pairs = [f"{left} and {right}" for left, right in exchanged]
        yield Finding(
            "flipped_left_right" if flipped else "sides_exchanged",
            tuple(name for pair in exchanged for name in pair)
            + tuple(name for finding in single for name in finding.classes),
            f"{len(exchanged)} of {twins} pairs of twins lie on each other's sides: {listed(pairs, 3)}; "
            + _names_or_flip(evidence),
            value=len(exchanged),
            limit=twins / 2 if flipped else 0,
            unit="pairs",
        )
    yield from _organs(evidence)


def _one(rule: str, name: str, share: float, circumstance: str) -> Finding:
    return Finding(
        rule,
        (name,),
        f"{name} lies on the other side with {100 * share:.0f} % of its voxels, {circumstance}",
        value=share,
        limit=MOST,
        unit="share of voxels",
    )


def _share_beyond(evidence: Evidence, name: str) -> float | None:
    """The share of a class's voxels on the side that it is not named for; None where it has too few."""
    if not evidence.placed(name):
        return None
    sign = _SIGN[evidence.catalog[name].laterality]
    return float((sign * evidence.leftward_mm(evidence.points(name)) < 0).mean())


def _organs(evidence: Evidence) -> Iterator[Finding]:
    heart = _whole_leftward_mm(evidence, "heart")
    if heart is not None and heart < -CLEARLY_MM:
        yield Finding(
            "heart_on_the_right",
            ("heart",),
            f"the heart lies {-heart:.0f} mm to the right of the midline: dextrocardia, or a left-right flip; "
            + _dextrocardia_or_flip(evidence),
            value=-heart,
            limit=CLEARLY_MM,
            unit="mm",
        )
    for name, sign in USUAL.items():
        at = _whole_leftward_mm(evidence, name)
        if at is not None and sign * at < -CLEARLY_MM:
            side = "right" if sign > 0 else "left"
            yield Finding(
                "organ_on_other_side",
                (name,),
                f"the {name} lies {abs(at):.0f} mm to the {side} of the midline: situs inversus or heterotaxy, a "
                "left-right flip, or a wrong mask",
                value=abs(at),
                limit=CLEARLY_MM,
                unit="mm",
            )


def _leftward_mm(evidence: Evidence, name: str) -> float | None:
    """How far a class's centroid lies to the left of the midline; None where it has none."""
    if not evidence.placed(name):
        return None
    return float(evidence.leftward_mm(evidence.points(name)).mean())


def _whole_leftward_mm(evidence: Evidence, name: str) -> float | None:
    """As `_leftward_mm`; None too for what is cut in a scan that cuts the body at a side: the rest may lie beyond."""
    if evidence.body_at_sides > 0 and evidence.cut(name):
        return None
    return _leftward_mm(evidence, name)


def usual_and_mirrored(evidence: Evidence) -> tuple[list[str], list[str]]:
    """Of liver, spleen, stomach, descending aorta and middle lobe, those where they usually lie and those mirrored.

    What lies within 10 mm of the midline (the aorta: 5 mm) counts as neither.
    """
    usual: list[str] = []
    mirrored: list[str] = []

    def count(word: str, toward_mm: float | None, least_mm: float) -> None:
        if toward_mm is not None and abs(toward_mm) > least_mm:
            (usual if toward_mm > 0 else mirrored).append(word)

    for name, sign in USUAL.items():
        at = _leftward_mm(evidence, name)
        count(name, None if at is None else sign * at, CLEARLY_MM)
    count("descending aorta", _descending_aorta_mm(evidence), CLEARLY_MM / 2)
    lobe = _leftward_mm(evidence, "lung_middle_lobe_right")
    count("middle lobe", None if lobe is None else -lobe, CLEARLY_MM)
    return usual, mirrored


def _descending_aorta_mm(evidence: Evidence) -> float | None:
    """How far left the aorta lies behind the heart."""
    if not evidence.placed("heart") or not evidence.placed("aorta"):
        return None
    heart, aorta = evidence.points("heart"), evidence.points("aorta")
    low, high = np.quantile(heart[:, 2], [0.25, 0.75])
    behind = aorta[
        (aorta[:, 2] > low) & (aorta[:, 2] < high) & (aorta[:, 1] > np.quantile(heart[:, 1], 0.75))
    ]
    return float(evidence.leftward_mm(behind).mean()) if len(behind) else None


def _dextrocardia_or_flip(evidence: Evidence) -> str:
    usual, mirrored = usual_and_mirrored(evidence)
    if usual and not mirrored:
        return (
            f"{listed(usual)} lie as usual, so the case is not flipped: dextrocardia, a heart pushed or drawn "
            "over, or a wrong mask of the heart"
        )
    if mirrored and not usual:
        return (
            f"{listed(mirrored)} lie mirrored too: situs inversus or a flip, which masks cannot tell apart; the "
            "header's orientation, a side marker or another examination can"
        )
    if usual:
        return f"{listed(usual)} lie as usual and {listed(mirrored)} mirrored: heterotaxy, or wrong masks"
    return "no liver, spleen, stomach or descending aorta lies clearly on a side, by which the two could be told apart"


def _names_or_flip(evidence: Evidence) -> str:
    usual, mirrored = usual_and_mirrored(evidence)
    heart = _leftward_mm(evidence, "heart")
    if heart is not None and abs(heart) > CLEARLY_MM:
        (usual if heart > 0 else mirrored).append("heart")
    # The middle lobe is named for a side itself.
    usual, mirrored = ([name for name in of if name != "middle lobe"] for of in (usual, mirrored))
    if usual and not mirrored:
        return f"{listed(usual)} lie as usual, so left and right are exchanged in the names"
    if mirrored and not usual:
        return f"{listed(mirrored)} lie mirrored too, so the masks, or CT and masks, are flipped"
    return "whether names are exchanged or the case is flipped, the unpaired organs do not tell"
