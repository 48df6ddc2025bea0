"""A case judged: what was found, what the pipeline makes of it, and the masks that are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError
from paxray.io.volume import Volume
from paxray.plausibility.density import judge_density
from paxray.plausibility.evidence import Evidence
from paxray.plausibility.order import judge_counts, judge_order
from paxray.plausibility.rules import RULES, Action, Finding
from paxray.plausibility.scan import judge_scan
from paxray.plausibility.sides import judge_sides
from paxray.plausibility.solid import judge_overlap, judge_pieces, judge_volumes
from paxray.segmentation.body import UNSCANNED

JUDGES: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    judge_order,
    judge_counts,
    judge_sides,
    judge_density,
    judge_volumes,
    judge_pieces,
    judge_overlap,
    judge_scan,
)
#: The code of a case that is dropped.
IMPLAUSIBLE = "implausible"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a pipeline makes of a case's findings.

    Attributes
    ----------
    findings
        With the action taken for each, in the order of `RULES`; those that are ignored are left out.
    labels
        Without the classes that were dropped.
    withheld
        Class to the reason why nothing may be known of it: those dropped, and all their parts.
    """

    findings: tuple[tuple[Finding, Action], ...]
    labels: LabelVolume
    withheld: Mapping[str, str] = field(default_factory=dict)


def find(labels: LabelVolume, catalog: Catalog, ct: Volume | None = None) -> tuple[Finding, ...]:
    """Look for everything in `RULES`.

    Parameters
    ----------
    labels
        What sources drew, with the body and what was not reconstructed (`paxray.segmentation.body.with_body`);
        without recipes: what is derived from a wrong mask follows it.
    catalog
        Sides, twins and parts.
    ct
        HU on the masks' lattice; without it densities are not judged.

    Returns
    -------
    Findings in the order of `RULES`.
    """
    cut_by_ct = labels.cut_by_ct(UNSCANNED if UNSCANNED in labels.names else None)
    evidence = Evidence(labels, catalog, cut_by_ct, ct)
    found = [finding for judge in JUDGES for finding in judge(evidence)]
    rank = {name: n for n, name in enumerate(RULES)}
    return tuple(sorted(found, key=lambda finding: rank[finding.name]))


def judge(
    labels: LabelVolume, catalog: Catalog, policy: Mapping[str, Action], ct: Volume | None = None
) -> Verdict:
    """Find what is implausible, and drop what the pipeline drops for it.

    Parameters
    ----------
    labels, catalog, ct
        As in `find`.
    policy
        Name of a finding to what follows; by default as in `RULES`.

    Raises
    ------
    CaseError
        ``implausible``: a finding that drops the case, with its words.
    """
    actions = {name: rule.default for name, rule in RULES.items()} | dict(policy)
    found = [(finding, actions[finding.name]) for finding in find(labels, catalog, ct)]
    found = [(finding, action) for finding, action in found if action != "ignore"]
    grave = [finding for finding, action in found if action == "drop_case"]
    if grave:
        names = dict.fromkeys(finding.name for finding in grave)
        raise CaseError(
            f"the masks are not plausible ({', '.join(names)})",
            found="; ".join(finding.message for finding in grave),
            do="look at the case; if it is right, set "
            + " and ".join(f"plausibility.{name}: warn" for name in names)
            + " in the pipeline",
            code=IMPLAUSIBLE,
        )
    withheld: dict[str, str] = {}
    for finding, action in found:
        if action == "drop_class":
            for name in finding.classes:
                for part in _with_parts(catalog, name):
                    withheld.setdefault(part, f"dropped for a finding ({finding.name}): {finding.message}")
    return Verdict(tuple(found), _without(labels, withheld), withheld)


def _with_parts(catalog: Catalog, name: str) -> list[str]:
    """A class and what it is made of: of a whole that cannot be believed, no part can."""
    below, stack = [], [name]
    while stack:
        current = stack.pop()
        if current not in below:
            below.append(current)
            stack += catalog[current].parts
    return below


def _without(labels: LabelVolume, names: Mapping[str, str]) -> LabelVolume:
    dropped = [name for name in labels.names if name in names]
    if not dropped:
        return labels
    kept = [name for name in labels.names if name not in names]
    left = LabelBuilder.resume(labels, without=dropped).build(labels.affine, kept)
    notes = {name: note for name, note in labels.notes.items() if name not in names}
    return replace(left, notes=notes)._keep_counts(left.atom_counts())


def explain(labels: LabelVolume, catalog: Catalog, withheld: Mapping[str, str]) -> LabelVolume:
    """Say beside each class that was dropped, and each union that lacks it, why; after all is derived."""
    notes = dict(labels.notes) | dict(withheld)
    lacking: dict[str, list[str]] = {}
    for name in withheld:
        for above in catalog.ancestors(name):
            if above not in withheld and labels.status.get(above) is Status.PARTIAL:
                lacking.setdefault(above, []).append(name)
    for name, parts in lacking.items():
        outer = [part for part in parts if not set(parts).intersection(catalog.ancestors(part))]
        note = f"without {', '.join(outer)}: dropped for a finding"
        notes[name] = f"{notes[name]}; {note}" if name in notes else note
    return replace(labels, notes=notes)._keep_counts(labels.atom_counts())
