"""Several segmenters on one CT: their consensus, and where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import ConfigError

#: Ends the name of a class's disputed voxels among label columns; no class of the catalog has it.
MARK = "~"
Rule = Literal["order", "majority"]


def disputed_column(name: str) -> str:
    """The column of the voxels that some segmenters give to a class and others do not."""
    return f"{name}{MARK}"


def require_distinct(made_by: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse an ensemble in which one segmenter stands twice: it would count twice, and agrees with itself.

    Parameters
    ----------
    made_by
        The fingerprint of each (`paxray.segmentation.cache.fingerprint`): name, settings, version, weights, device.
    where
        Where they were named: a pipeline's key, or an option.

    Raises
    ------
    ConfigError
        Two are the same.
    """
    for n, one in enumerate(made_by):
        if one in made_by[:n]:
            raise ConfigError(
                f"the segmenter '{one['segmenter']}' stands twice, with the same settings, version and weights",
                where=where,
                expected="segmenters that can differ: by name, settings or weights",
                do="leave one of the two out: its vote would count twice, and with itself it never disagrees",
            )


def consensus(found: Sequence[LabelVolume], rule: Rule, catalog: Catalog) -> LabelVolume:
    """Make one label volume of several on one lattice.

    On each class those vote that know of it: that found it, or looked for it and found nothing.

    Parameters
    ----------
    found
        In order of precedence.
    rule
        ``order``: the first that knows of a class draws it. ``majority``: a voxel belongs to it where more than half of
        the votes say so; where exactly half do, the first vote counts. Who could look at part of the CT only
        (`Status.PARTIAL`) votes where it drew; the outcome is partial where all voters are.
    catalog
        Gives the order of the classes.

    Returns
    -------
    LabelVolume
        For each class with several votes also the column `disputed_column`, absent where they agree. By majority, notes
        are those of all voters and the confidence is the mean of the ratings given.
    """
    if not found:
        raise ConfigError("there is nothing to find a consensus of", expected="one segmentation or more")
    joint = LabelBuilder(found[0].shape)
    columns: list[str] = []
    for n, labels in enumerate(found):
        own = {name: f"{n}{MARK}{name}" for name in labels.names}
        joint.add_labels(
            replace(
                labels,
                names=tuple(own.values()),
                status={own[name]: status for name, status in labels.status.items()},
                notes={},
                added_voxels={},
                confidence={},
            )
        )
        columns += own.values()
    together = joint.build(found[0].affine, columns)
    names = [name for name in catalog if any(name in labels.names for labels in found)]
    made = _Columns(together)
    for name in names:
        voters = [n for n, labels in enumerate(found) if _knows(labels, name)]
        if not voters:
            nothing = np.zeros(len(together.membership), bool)
            made.add(name, nothing, Status.UNKNOWN, _notes(found, name))
            continue
        votes = np.stack([together.membership[:, together.index(f"{n}{MARK}{name}")] for n in voters], axis=1)
        # Who could not look everywhere says yes where it drew, and nothing elsewhere.
        partial = np.array([found[n].status[name] is Status.PARTIAL for n in voters])
        count, first = votes.sum(axis=1), votes[:, 0]
        asked = (votes | ~partial).sum(axis=1)
        heard, chosen = [found[n] for n in voters], first
        if rule == "majority":
            chosen = (2 * count > asked) | ((2 * count == asked) & first)
        else:
            heard, partial = heard[:1], partial[:1]
        status = (Status.PARTIAL if partial.all() else Status.PRESENT) if chosen.any() else Status.ABSENT
        ratings = [labels.confidence[name] for labels in heard if name in labels.confidence]
        confidence = float(np.mean(ratings)) if ratings and chosen.any() else None
        made.add(name, chosen, status, _notes(heard, name), confidence)
        if len(voters) > 1:
            disputed = (count > 0) & (count < asked)
            disputed_status = Status.PRESENT if disputed.any() else Status.ABSENT
            made.add(disputed_column(name), disputed, disputed_status)
    return made.labels()


def _knows(labels: LabelVolume, name: str) -> bool:
    return labels.status.get(name, Status.UNKNOWN) is not Status.UNKNOWN


def _notes(heard: Sequence[LabelVolume], name: str) -> str:
    return "; ".join(dict.fromkeys(labels.notes[name] for labels in heard if labels.notes.get(name)))


class _Columns:
    """Columns over the atoms of a label volume, made into one of their own."""

    def __init__(self, atoms_of: LabelVolume) -> None:
        self._atoms_of = atoms_of
        self._columns: dict[str, np.ndarray] = {}
        self._status: dict[str, Status] = {}
        self._notes: dict[str, str] = {}
        self._confidence: dict[str, float] = {}

    def add(
        self, name: str, column: np.ndarray, status: Status, note: str = "", confidence: float | None = None
    ) -> None:
        self._columns[name], self._status[name] = column, status
        if note:
            self._notes[name] = note
        if confidence is not None:
            self._confidence[name] = confidence

    def labels(self) -> LabelVolume:
        """Classes in the order added, then disputed voxels; atoms that no longer differ are one."""
        names = sorted(self._columns, key=lambda name: name.endswith(MARK))  # a stable sort
        wide = LabelVolume(
            self._atoms_of.atoms,
            np.stack([self._columns[name] for name in names], axis=1),
            tuple(names),
            self._atoms_of.affine,
            self._status,
            notes=self._notes,
            confidence=self._confidence,
        )
        return LabelBuilder.resume(wide).build(wide.affine, names)
