"""Every finding by name: its rule in words, how grave it is, and what follows unless a pipeline says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
Action = Literal["ignore", "warn", "drop_class", "drop_case"]
ACTIONS: tuple[Action, ...] = ("ignore", "warn", "drop_class", "drop_case")


@dataclass(frozen=True)
class Rule:
    """One kind of finding.

    Attributes
    ----------
    severity
        ``error``: cannot be so in a patient; ``warning``: rare, or a mistake; ``note``: so it is, and worth knowing.
    words
        When it is found.
    default
        What follows unless the pipeline says otherwise.
    actions
        What may follow. No class can be dropped for a finding that speaks of the scan, or of all masks at once.
    """

    severity: Severity
    words: str
    default: Action
    actions: tuple[Action, ...] = ACTIONS


_OF_ALL: tuple[Action, ...] = ("ignore", "warn", "drop_case")

RULES: dict[str, Rule] = {
    "vertebrae_out_of_order": Rule(
        "error",
        "the vertebrae, followed from the lowest always to the nearest centroid, do not come in the order of "
        "their names; named are all that are not on every longest chain in order",
        "drop_class",
    ),
    "ribs_out_of_order": Rule(
        "error",
        "on one side, the ribs do not begin one below the other along the line through the vertebrae's centroids; "
        "named as for vertebrae. Of ribs that the scan cuts, those count whose end at the spine lies well inside. "
        "With fewer than three vertebrae the heights of whole ribs' uppermost voxels are compared",
        "drop_class",
    ),
    "rib_off_its_vertebra": Rule(
        "warning",
        "a rib begins nearest to a vertebra that is more than one away from its own: ribs or vertebrae are "
        "counted wrongly; not judged where the scan cuts one of them, or one is out of order",
        "warn",
    ),
    "vertebra_missing": Rule(
        "warning",
        "a vertebra was looked for and not found, and those above and below it lie whole in the scan",
        "warn",
    ),
    "rib_missing": Rule(
        "warning",
        "a rib was looked for and not found, and its neighbours lie whole in the scan, or its twin does and most of "
        "the place mirrored from it was scanned",
        "warn",
    ),
    "rib_pairs": Rule(
        "warning",
        "11 rib pairs: no twelfth rib though the first lumbar vertebra lies whole in the scan, or no twelfth "
        "thoracic vertebra between its neighbours; 13: a thirteenth rib or thoracic vertebra",
        "warn",
    ),
    "flipped_left_right": Rule(
        "error",
        "of at least three pairs of twins more than half are exchanged, as in `sides_exchanged`; what else lies on "
        "the other side belongs to it",
        "drop_case",
    ),
    "sides_exchanged": Rule(
        "error",
        "of twins (left and right), each has at least nine tenths of its voxels on the other's side of the midline",
        "drop_class",
    ),
    "twins_on_one_side": Rule(
        "error",
        "of twins, one has at least nine tenths of its voxels on the other's side, and the other does not; named "
        "is that one; not judged where the scan cuts it",
        "drop_class",
    ),
    "on_other_side": Rule(
        "warning",
        "a class named for a side, whose twin is not there, has at least nine tenths of its voxels on the other; "
        "not judged where the scan cuts it",
        "warn",
    ),
    "heart_on_the_right": Rule(
        "warning",
        "the heart's centroid lies more than 10 mm to the right of the midline: dextrocardia, or a left-right flip",
        "warn",
    ),
    "organ_on_other_side": Rule(
        "warning",
        "the centroid of the liver lies more than 10 mm to the left of the midline, or that of spleen or stomach "
        "to the right; like the heart, not judged where the scan cuts both it and the body's side",
        "warn",
    ),
    "masks_off_the_ct": Rule(
        "error",
        "of trachea, heart, aorta, liver and ribs, as far as they are there, more than half and two at least "
        "have too many voxels of a density that is not theirs, as in `hu_out_of_range`: the CT is mirrored "
        "against its masks, or they belong to another CT",
        "drop_case",
        _OF_ALL,
    ),
    "hu_out_of_range": Rule(
        "warning",
        "too many voxels have a density that is not theirs (table below), and `masks_off_the_ct` is not "
        "found",
        "warn",
    ),
    "volume_out_of_range": Rule(
        "warning",
        "a volume lies outside wide bounds for adults (table below); of a class that the scan cuts, only above them",
        "warn",
    ),
    "far_pieces": Rule(
        "warning",
        "a class that is one piece in every body (lungs and lobes, heart, great vessels, solid organs, esophagus, "
        "spinal cord, each bone) has a second piece, of at least 1 ml and a twentieth of it, that lies 20 mm and two "
        "voxels or more from the first; not judged where the scan cuts the class",
        "warn",
    ),
    "contradictory_overlap": Rule(
        "error",
        "two solids (lobes or lungs, bones, organs), neither a part of the other, share more than 0.5 ml and a "
        "tenth of the smaller",
        "warn",
    ),
    "cut_by_scan": Rule(
        "note",
        "classes that reach a face of the scan or what was not reconstructed",
        "warn",
    ),
    "lung_apices_cut": Rule("note", "a lung reaches the scan's uppermost slice", "warn"),
    "lung_bases_cut": Rule("note", "a lung reaches the scan's lowermost slice", "warn"),
    "body_cut_at_sides": Rule(
        "note",
        "in some slices the body reaches a side of the array or the edge of the reconstruction circle; the value "
        "is the share of slices",
        "warn",
        _OF_ALL,
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing found in a case.

    Attributes
    ----------
    name
        Of `RULES`.
    classes
        Those concerned; they are what ``drop_class`` drops.
    message
        In words, figures with units.
    value, limit
        What was measured and what it was held against, in `unit`; None where the rule has no figure.
    """

    name: str
    classes: tuple[str, ...]
    message: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""

    @property
    def severity(self) -> Severity:
        """How grave findings of this name are."""
        return RULES[self.name].severity
