"""Masks from several sources, overlapping at will, made into the atoms of a `LabelVolume`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.vocabulary import Told, Vocabulary
from paxray.anatomy.voxels import (
    BoolArray,
    Int64,
    count_inside,
    count_values,
    flat,
    look_up,
    look_up_pairs,
    pieces,
    replace_inside,
)
from paxray.errors import CaseError, ConfigError
from paxray.io.volume import Float64

Box = tuple[slice, ...]
_EMPTY: frozenset[str] = frozenset()
T = TypeVar("T")
#: Note on a class that a source names and did not find, although it may lie beyond what the source covers.
NOT_COVERED = "nothing of it was found, and its source covers only part of the CT"


class LabelBuilder:
    """Collects sources in order of precedence, the first one first.

    A class that an earlier source knows is not taken from a later one, wherever the earlier one drew it;
    different classes may overlap. Each voxel holds a code, and a table says which set of classes a code
    stands for; adding a source gives new codes to new sets.

    Parameters
    ----------
    shape
        ``(nk, nj, ni)`` of the CT.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._codes: NDArray[Any] | None = None
        # The first label map's values serve as codes until something has to be written.
        self._borrowed = False
        self._sets: list[frozenset[str]] = [_EMPTY]
        self._counts: Int64 = np.array([np.prod(shape, dtype=np.int64)])
        self._code_of: dict[frozenset[str], int] = {_EMPTY: 0}
        self._status: dict[str, Status] = {}
        self._added: dict[str, int | None] = {}
        self._notes: dict[str, str] = {}
        self._confidence: dict[str, float] = {}

    @classmethod
    def resume(cls, labels: LabelVolume, without: Collection[str] = ()) -> LabelBuilder:
        """Return a builder that holds all classes of ``labels`` but those in ``without``."""
        builder = cls(labels.shape)
        builder._codes, builder._borrowed = labels.atoms, True
        builder._sets = [
            frozenset(name for name, inside in zip(labels.names, row, strict=True) if inside)
            - frozenset(without)
            for row in labels.membership.tolist()
        ]
        builder._counts = labels.atom_counts()
        builder._status = {name: s for name, s in labels.status.items() if name not in without}
        builder._added = {name: n for name, n in labels.added_voxels.items() if name not in without}
        builder._notes = {name: text for name, text in labels.notes.items() if name not in without}
        builder._confidence = {name: c for name, c in labels.confidence.items() if name not in without}
        return builder

    def add_label_map(
        self,
        array: NDArray[Any],
        vocabulary: Vocabulary,
        extent: Box | None = None,
        where: str = "",
    ) -> tuple[str, ...]:
        """Add a label map: one integer per voxel, each naming a class.

        Parameters
        ----------
        array
            Integers of the CT's shape, 0 for background. It may be kept, and must not change
            until `finish`.
        vocabulary
            What the values mean.
        extent
            Part of the CT that the source covers, slices along k, j, i; None for all of it.
        where
            The source's name in messages.

        Returns
        -------
        The classes taken from this source: those of which no earlier source knows.

        Raises
        ------
        CaseError
            Another shape or a status that the voxels belie (``bad_labels``), or a value that the vocabulary does not
            name (``unknown_label``).
        """
        counts = self._count_label_map(array, vocabulary, where)
        whole = self._covers_all(extent)
        voxels = dict.fromkeys(vocabulary.classes, 0)
        for value, names in vocabulary.sets.items():
            if value < len(counts):
                for name in names:
                    voxels[name] += int(counts[value])
        fresh = {name for name in voxels if not self._settled(name)}
        for name in voxels:
            if name in fresh:
                told = vocabulary.told.get(name, Told())
                status = _status_as_told(told.status, voxels[name], whole, name, where)
                note = told.note or (NOT_COVERED if status is Status.UNKNOWN and not whole else "")
                self._tell(name, status, note, told.confidence if voxels[name] else None)
        self._add_map(array, {value: names & fresh for value, names in vocabulary.sets.items()}, counts)
        return tuple(name for name in voxels if name in fresh)

    def add_labels(self, labels: LabelVolume) -> tuple[str, ...]:
        """Add the classes of a label volume on the same lattice that no earlier source settled, with all that is known.

        Returns
        -------
        The classes taken.
        """
        fresh = {name for name in labels.names if not self._settled(name)}
        for name in labels.names:
            if name in fresh:
                note, confidence = labels.notes.get(name, ""), labels.confidence.get(name)
                self._tell(name, labels.status[name], note, confidence)
        sets = {
            atom: frozenset(name for name, inside in zip(labels.names, row, strict=True) if inside) & fresh
            for atom, row in enumerate(labels.membership.tolist())
        }
        self._add_map(labels.atoms, sets, labels.atom_counts())
        return tuple(name for name in labels.names if name in fresh)

    def _add_map(self, array: NDArray[Any], sets: dict[int, frozenset[str]], counts: Int64) -> None:
        """Add classes to the voxels of each value."""
        taken = {v: names for v, names in sets.items() if names and v < len(counts) and counts[v]}
        if self._codes is None:
            self._codes, self._borrowed, self._counts = array, True, counts
            self._sets = [taken.get(value, _EMPTY) for value in range(len(counts))]
        elif taken:
            self._overlay(array, taken, len(counts))

    def add_mask(
        self,
        name: str,
        box: Box,
        array: BoolArray,
        extent: Box | None = None,
        where: str = "",
        *,
        status: Status | None = None,
        note: str = "",
        confidence: float | None = None,
    ) -> tuple[str, ...]:
        """Add the mask of one class.

        Parameters
        ----------
        name
            Canonical class name.
        box
            Where ``array`` lies in the CT, slices along k, j, i.
        array
            Bool of the box's shape.
        extent
            Part of the CT that the source covers; None for all of it.
        where
            The source's name in messages.
        status
            What is known of the class, where that is more than mask and extent tell.
        note, confidence
            As `LabelVolume` holds them.

        Returns
        -------
        ``(name,)``, or nothing if an earlier source knows of the class.

        Raises
        ------
        CaseError
            Shapes that do not fit, or a status that the mask belies (code ``bad_labels``).
        """
        if self._settled(name):
            return ()
        size = tuple(len(range(*part.indices(n))) for part, n in zip(box, self._shape, strict=True))
        if array.dtype != np.bool_ or array.shape != size:
            raise CaseError(
                f"the mask of '{name}' does not fill its box",
                where=where,
                expected=f"bool {size}",
                found=f"{array.dtype} {array.shape}",
                code="bad_labels",
            )
        n_voxels = int(np.count_nonzero(array))
        if status is None:
            status = _status(n_voxels, self._covers_all(extent))
            note = note or (NOT_COVERED if status is Status.UNKNOWN else "")
        elif (status in (Status.PRESENT, Status.PARTIAL)) != (n_voxels > 0):
            raise CaseError(
                f"'{name}' is said to be {status.value}, but its mask has {n_voxels} voxels",
                where=where,
                code="bad_labels",
            )
        self._tell(name, status, note, confidence)
        if n_voxels:
            codes = self._own_codes()
            counts = count_inside(codes[box], array, len(self._sets))
            table = np.arange(len(counts))
            for code in np.flatnonzero(counts).tolist():
                table[code] = self._code(
                    self._sets[code] | {name}, from_code=code, n_voxels=int(counts[code])
                )
            part = self._own_codes()[box]
            replace_inside(part, array, table.astype(part.dtype))
        return (name,)

    def _tell(self, name: str, status: Status, note: str = "", confidence: float | None = None) -> None:
        """Keep what is known of a class; of two sources that know nothing the first one's reason stays."""
        if status is Status.UNKNOWN and self._notes.get(name):
            return
        self._status[name] = status
        self._notes.pop(name, None)
        if note:
            self._notes[name] = note
        if confidence is not None:
            self._confidence[name] = confidence

    def _settled(self, name: str) -> bool:
        """Whether an earlier source knows of a class."""
        return self._status.get(name, Status.UNKNOWN) is not Status.UNKNOWN

    def finish(self, affine: Float64, catalog: Catalog) -> LabelVolume:
        """Return the label volume.

        Classes stand in catalog order and atoms in the order of their sets of classes, so that the order
        in which sources came does not show unless they name the same class.

        Parameters
        ----------
        affine
            The CT's, ``(4, 4)`` from ``(i, j, k, 1)`` to LPS mm.
        catalog
                Gives the order.

        Raises
        ------
        ConfigError
            A class was added under a name that is not canonical (code ``unknown_class``).
        """
        for name in self._status:
            if name not in catalog:
                raise ConfigError(
                    f"'{name}' is not the name of a class",
                    expected=f"'{catalog.resolve(name)}', for which it is a synonym",
                    code="unknown_class",
                )
        return self.build(affine, [name for name in catalog if name in self._status])

    def build(self, affine: Float64, names: Sequence[str]) -> LabelVolume:
        """Return the label volume with its columns in the order of ``names``, which are all classes added."""
        ordered, membership = _atoms((self._sets[code] for code in np.flatnonzero(self._counts)), names)
        atom_of = {classes: atom for atom, classes in enumerate(ordered)}
        table = np.array([atom_of.get(classes, 0) for classes in self._sets], _smallest(len(ordered)))
        if self._codes is None:
            atoms: NDArray[Any] = np.zeros(self._shape, table.dtype)
        else:
            atoms = look_up(table, self._codes, in_place=not self._borrowed)
        counts = np.zeros(len(ordered), np.int64)
        np.add.at(counts, table, self._counts)
        # What was handed out is the builder's no more.
        self._codes, self._borrowed, self._counts = atoms, True, counts
        self._sets, self._code_of = ordered, atom_of
        status = {name: self._status[name] for name in names}
        labels = LabelVolume(
            atoms,
            membership,
            tuple(names),
            affine,
            status,
            notes=dict(self._notes),
            added_voxels=dict(self._added),
            confidence=dict(self._confidence),
        )
        return labels._keep_counts(counts)

    def _count_label_map(self, array: NDArray[Any], vocabulary: Vocabulary, where: str) -> Int64:
        """Count each value, and refuse one that the vocabulary does not name."""
        if array.shape != self._shape or array.dtype.kind not in "ui":
            raise CaseError(
                "the label map does not fit the CT",
                where=where,
                expected=f"integers {self._shape}",
                found=f"{array.dtype} {array.shape}",
                code="bad_labels",
            )
        top = int(array.max())
        # Beyond 16 bits no vocabulary reaches, and a table of counts would not fit in memory.
        if array.dtype.itemsize > 2 and (top > 65535 or int(array.min()) < 0):
            raise CaseError(
                "a label lies outside 0 to 65535",
                where=where,
                found=f"{array.min()} to {top}",
                code="unknown_label",
            )
        if array.dtype.kind == "i" and int(array.min()) < 0:
            raise CaseError("a label is negative", where=where, found=str(array.min()), code="unknown_label")
        counts = count_values(array, top + 1)
        unknown = [int(v) for v in np.flatnonzero(counts) if v and int(v) not in vocabulary.labels]
        if unknown:
            raise _unknown_label(unknown, counts, vocabulary, where)
        return counts

    def _overlay(self, array: NDArray[Any], sets: dict[int, frozenset[str]], n_values: int) -> None:
        """Add the classes of a second or later label map to the voxels' sets."""
        rank = np.zeros(n_values, np.int64)
        rank_of = {names: n for n, names in enumerate(dict.fromkeys(sets.values()), start=1)}
        for value, names in sets.items():
            rank[value] = rank_of[names]
        added_sets = [_EMPTY, *rank_of]
        codes, labels, base = flat(self._own_codes()), flat(array), len(added_sets)
        n_pairs = len(self._sets) * base

        counts = np.zeros(n_pairs, np.int64)
        for piece in pieces(labels.size, n_pairs):
            added = rank[labels[piece]]
            hit = np.flatnonzero(added)
            if hit.size:
                counts += np.bincount(codes[piece][hit] * base + added[hit], minlength=n_pairs)

        table = np.arange(n_pairs) // base
        for pair in np.flatnonzero(counts).tolist():
            code, n = divmod(pair, base)
            table[pair] = self._code(
                self._sets[code] | added_sets[n], from_code=code, n_voxels=int(counts[pair])
            )
        codes = flat(self._own_codes())
        for piece in pieces(labels.size):
            added = rank[labels[piece]]
            hit = np.flatnonzero(added)
            if hit.size:
                part = codes[piece]
                part[hit] = table[part[hit] * base + added[hit]]

    def _code(self, classes: frozenset[str], from_code: int, n_voxels: int) -> int:
        """Return the code of a set, a new one if need be, and move ``n_voxels`` to it in the counts."""
        code = self._code_of.get(classes)
        if code is None:
            code = self._code_of[classes] = len(self._sets)
            self._sets.append(classes)
            self._counts = np.append(self._counts, 0)
        self._counts[from_code] -= n_voxels
        self._counts[code] += n_voxels
        return code

    def _own_codes(self) -> NDArray[Any]:
        """Return an array of codes that may be written and can hold every code there is."""
        if self._codes is None:
            self._codes = np.zeros(self._shape, np.uint16)
        elif self._borrowed:
            used = [self._sets[code] for code in np.flatnonzero(self._counts).tolist()]
            sets = list(dict.fromkeys([_EMPTY, *used]))
            self._code_of = {classes: code for code, classes in enumerate(sets)}
            table = np.array([self._code_of.get(classes, 0) for classes in self._sets], _smallest(len(sets)))
            counts = np.zeros(len(sets), np.int64)
            np.add.at(counts, table, self._counts)
            self._codes, self._borrowed = look_up(table, self._codes), False
            self._sets, self._counts = sets, counts
        if self._codes.dtype != np.uint32 and len(self._sets) > 65536:
            self._codes = self._codes.astype(np.uint32)
        return self._codes

    def _covers_all(self, extent: Box | None) -> bool:
        if extent is None:
            return True
        return all(part.indices(n) == (0, n, 1) for part, n in zip(extent, self._shape, strict=True))


def with_flags(
    labels: LabelVolume, flags: NDArray[np.uint8], names: Sequence[str], pairs: NDArray[np.int64]
) -> LabelVolume:
    """Return labels in which some classes are exactly what flags say, replacing what they were before.

    As `LabelBuilder.resume` with a mask of each, in one pass over the voxels.

    Parameters
    ----------
    flags
        ``(nk, nj, ni)``: bit n of a voxel says whether ``names[n]`` holds it; no other bit is set.
    names
        Class names, present; new ones become the last columns.
    pairs
        ``(n_atoms, 2 ** len(names))``: how many voxels have each pair of an atom and a flag.
    """
    drawn = [
        frozenset(name for n, name in enumerate(names) if flag >> n & 1) for flag in range(1 << len(names))
    ]
    before = [
        frozenset(name for name, inside in zip(labels.names, row, strict=True) if inside) - drawn[-1]
        for row in labels.membership.tolist()
    ]
    columns = list(dict.fromkeys((*labels.names, *names)))
    ordered, membership = _atoms((before[atom] | drawn[flag] for atom, flag in np.argwhere(pairs)), columns)
    atom_of = {classes: atom for atom, classes in enumerate(ordered)}
    table = np.array(
        [[atom_of.get(old | new, 0) for new in drawn] for old in before], _smallest(len(ordered))
    )
    counts = np.zeros(len(ordered), np.int64)
    np.add.at(counts, table, pairs)
    status = {name: Status.PRESENT if name in drawn[-1] else labels.status[name] for name in columns}
    atoms = look_up_pairs(table, labels.atoms, flags)

    def others(told: Mapping[str, T]) -> dict[str, T]:
        return {name: what for name, what in told.items() if name not in drawn[-1]}

    made = LabelVolume(
        atoms,
        membership,
        tuple(columns),
        labels.affine,
        status,
        notes=others(labels.notes),
        confidence=others(labels.confidence),
        added_voxels=others(labels.added_voxels),
    )
    return made._keep_counts(counts)


def _atoms(used: Iterable[frozenset[str]], names: Sequence[str]) -> tuple[list[frozenset[str]], BoolArray]:
    """The sets of classes that are some voxel's, the empty one first, in order; and which of ``names`` each holds."""
    rank = {name: column for column, name in enumerate(names)}
    ordered = sorted({_EMPTY, *used}, key=lambda classes: sorted(rank[name] for name in classes))
    membership = np.zeros((len(ordered), len(names)), np.bool_)
    for atom, classes in enumerate(ordered):
        membership[atom, [rank[name] for name in classes]] = True
    return ordered, membership


def _smallest(n_codes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if n_codes <= 65536 else np.uint32


def _status(n_voxels: int, whole: bool) -> Status:
    if n_voxels:
        return Status.PRESENT if whole else Status.PARTIAL
    return Status.ABSENT if whole else Status.UNKNOWN


def _status_as_told(told: str, n_voxels: int, whole: bool, name: str, where: str) -> Status:
    """The status that mask and extent tell, or a more cautious one that the vocabulary states."""
    found = _status(n_voxels, whole)
    if n_voxels and told in (Status.ABSENT, Status.UNKNOWN):
        raise CaseError(
            f"the vocabulary says that '{name}' is {told}, but the file has {n_voxels} voxels of it",
            where=where,
            do="correct the vocabulary's `classes`, or name the vocabulary that belongs to this file",
            code="bad_labels",
        )
    return Status(told) if told in (Status.PARTIAL if n_voxels else Status.UNKNOWN,) else found


def _unknown_label(unknown: Iterable[int], counts: Int64, vocabulary: Vocabulary, where: str) -> CaseError:
    """Say which labels have no name, and the line that would give them one."""
    unknown = list(unknown)
    spec, hints = vocabulary.name, []
    for value in unknown[:8]:
        # A build that lists one class more shifts those behind it: the neighbour is named but empty.
        neighbour = value - 1
        name = vocabulary.labels.get(neighbour)
        shifted = name is not None and not counts[neighbour]
        spec += f"+{value}:{name if shifted else 'CLASS'}"
        if shifted:
            hints.append(f"label {neighbour}, {name}, is empty in this file, so {value} may be it")
    found = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:8])
    known = vocabulary.labels
    return CaseError(
        f"vocabulary '{vocabulary.name}' does not name every label in the file",
        where=where,
        expected=f"one of {len(known)} labels up to {max(known)}" if known else "0 alone",
        found=f"label {found}" + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""),
        do="; ".join([f"say what it is, if you know, with the vocabulary `{spec}`", *hints]),
        code="unknown_label",
    )
