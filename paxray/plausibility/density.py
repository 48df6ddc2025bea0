"""Whether the CT has, where the masks lie, what they say is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Volume
from paxray.plausibility.evidence import SAMPLE_MM, Evidence, listed
from paxray.plausibility.rules import Finding

#: What is less dense than this is lung or gas: fat, the least dense of solid tissues, has about -100 HU.
LUNG_OR_GAS_HU = -150
#: Fewer sampled voxels of a tissue say nothing of its density.
FEWEST_VOXELS = 20
#: How far apart voxels are that are looked at in passing.
GLANCE_MM = 2 * SAMPLE_MM
#: At least so many tissues must be off the CT before the masks as a whole are.
FEWEST_TISSUES = 2


@dataclass(frozen=True)
class Tissue:
    """Classes of one density, and how much of them may have another.

    Attributes
    ----------
    air
        It is lung or gas, and should have no more than `above_hu`; else it should have `LUNG_OR_GAS_HU` or more.
    share
        The greatest share of its voxels that may have another density: partial volumes, disease, a rough mask.
    votes
        It counts where all masks are judged. The lungs and the spine are so symmetric that a mirrored CT fits them, and
        both lungs can be consolidated.
    """

    classes: tuple[str, ...]
    share: float
    air: bool = False
    above_hu: float = LUNG_OR_GAS_HU
    votes: bool = True


#: Wide bounds that hold with and without contrast; they are no reference values, and come from no study.
TISSUES: dict[str, Tissue] = {
    "lungs": Tissue(("lung_left", "lung_right"), 0.5, air=True, votes=False),
    "trachea": Tissue(("trachea",), 0.5, air=True, above_hu=-400),
    "heart": Tissue(("heart",), 0.1),
    "aorta": Tissue(("aorta",), 0.1),
    "liver": Tissue(("liver",), 0.05),
    "ribs": Tissue(("ribs",), 0.1),
    "spine": Tissue(("spine",), 0.1, votes=False),
}


def judge_density(evidence: Evidence) -> Iterator[Finding]:
    """`masks_off_the_ct`, or else `hu_out_of_range`; nothing without a CT."""
    off: list[tuple[str, Finding]] = []
    judged = 0
    for name, tissue in TISSUES.items():
        classes = tuple(each for each in tissue.classes if evidence.present(each))
        hu = evidence.hu(classes)
        if hu is None or len(hu) < FEWEST_VOXELS:
            continue
        judged += tissue.votes
        share = float((hu > tissue.above_hu if tissue.air else hu < LUNG_OR_GAS_HU).mean())
        if share > tissue.share:
            off.append((name, _one(name, tissue, classes, share, float(np.median(hu)))))
    voters = [name for name, _ in off if TISSUES[name].votes]
    if len(voters) < FEWEST_TISSUES or len(voters) <= judged / 2:
        yield from (finding for _, finding in off)
        return
    yield Finding(
        "masks_off_the_ct",
        tuple(each for _, finding in off for each in finding.classes),
        f"{len(voters)} of {judged} tissues are not in the CT where the masks are ({listed(voters)}): the CT or the "
        f"masks are mirrored or moved, or belong to another case; {'; '.join(f.message for _, f in off)}",
        value=len(voters),
        limit=judged / 2,
        unit="tissues",
    )


def judge_at_a_glance(labels: LabelVolume, catalog: Catalog, ct: Volume) -> tuple[Finding, ...]:
    """`masks_off_the_ct` alone, from an eighth of the voxels that `judge` asks: for whoever only looks at a case.

    Parameters
    ----------
    labels, catalog, ct
        As in `paxray.plausibility.judge.find`.
    """
    evidence = Evidence(labels, catalog, {}, ct, sample_mm=GLANCE_MM)
    return tuple(finding for finding in judge_density(evidence) if finding.name == "masks_off_the_ct")


def _one(name: str, tissue: Tissue, classes: tuple[str, ...], share: float, median_hu: float) -> Finding:
    words = f"more than {tissue.above_hu:g} HU" if tissue.air else f"less than {LUNG_OR_GAS_HU} HU"
    return Finding(
        "hu_out_of_range",
        classes,
        f"{100 * share:.0f} % of {name} has {words} (median {median_hu:.0f} HU)",
        value=share,
        limit=tissue.share,
        unit="share of voxels",
    )
