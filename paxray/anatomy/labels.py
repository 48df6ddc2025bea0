"""The label volume: one integer per voxel, and a table of which classes each integer belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.voxels import BoolArray, Int64, count_values, look_up, values_on_edge
from paxray.errors import CaseError, ConfigError, suggest
from paxray.io.volume import Float64, Grid

T = TypeVar("T")


class Status(StrEnum):
    """What is known of a class in a case."""

    PRESENT = "present"
    """It has voxels, and its source covers the whole CT."""
    ABSENT = "absent"
    """A source that names it and covers the whole CT found nothing."""
    UNKNOWN = "unknown"
    """Nothing looked for it, or not in the whole CT and nothing was found."""
    PARTIAL = "partial"
    """It has voxels, but its source covers only part of the CT or part of the union is unknown."""


def suggest_class(word: str, names: Iterable[str]) -> str:
    """Say which of some classes is meant, by a synonym or the nearest spelling, or how one comes to be among them."""
    from paxray.anatomy.catalog import load_catalog

    known, catalog = list(names), load_catalog()
    if not catalog.knows(word):
        return suggest(word, known)
    name = catalog.resolve(word)
    if name in known:
        return f"did you mean '{name}'?"
    film = catalog[name].film
    if film is not None:
        return (
            f"it is of the film and has no voxels: take a view's mask of '{film.of}' without those of "
            f"{', '.join(film.not_hidden_by)}; `paxray project --only {name}` and builds make it"
        )
    return f"derive it, if the masks allow: paxray.derive(labels, ct=ct, names=['{name}'])"


class _Statuses(dict[str, Status]):
    """Statuses by class, with a word on a class that is not there."""

    def __missing__(self, name: str) -> Status:
        raise KeyError(f"the label volume has no class '{name}'. {suggest_class(name, self)}".strip())


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """Overlapping, nested classes as one array of atoms; an atom is a voxel's exact set of classes.

    Parameters
    ----------
    atoms
        ``(nk, nj, ni)`` uint16 or uint32, indexed ``[k, j, i]``; 0 is background.
    membership
        ``(n_atoms, n_classes)`` bool; row 0 is all False.
    names
        The classes, one per column.
    affine
        ``(4, 4)`` float64 from ``(i, j, k, 1)`` to LPS mm.
    status
        What is known of each class in ``names``; a class that is not there is `Status.UNKNOWN`.
    notes
        What a reader of a class should know, in words: why a derived one is unknown, what stood in for a
        landmark. Classes without voxels may have notes too.
    added_voxels
        By class, once unions are derived: the voxels of its parts that its own source or recipe had left out, and
        that were added so that it contains them; None where it is made of its parts alone.
    confidence
        By class, 0 to 1, where its source rates it: that the name is right and the mask good. Not a probability.

    Raises
    ------
    CaseError
        The parts do not fit together (code ``bad_labels``).
    """

    atoms: NDArray[Any]
    membership: BoolArray
    names: tuple[str, ...]
    affine: Float64
    status: Mapping[str, Status]
    notes: Mapping[str, str] = field(default_factory=dict)
    added_voxels: Mapping[str, int | None] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.atoms.ndim != 3 or self.atoms.dtype not in (np.uint16, np.uint32):
            raise CaseError(
                "atoms are not a volume of uint16 or uint32",
                found=f"{self.atoms.dtype} {self.atoms.shape}",
                code="bad_labels",
            )
        object.__setattr__(self, "affine", self.grid.affine)
        object.__setattr__(self, "status", _Statuses(self.status))
        if self.membership.dtype != np.bool_ or self.membership.shape[1:] != (len(self.names),):
            raise CaseError(
                "the membership table does not fit the class names",
                expected=f"(n_atoms, {len(self.names)}) bool",
                found=f"{self.membership.shape} {self.membership.dtype}",
                code="bad_labels",
            )
        if not len(self.membership) or self.membership[0].any():
            raise CaseError("atom 0 is not the background", code="bad_labels")
        if len(set(self.names)) != len(self.names) or set(self.status) != set(self.names):
            raise CaseError("names repeat, or a status is missing or too many", code="bad_labels")

    def __repr__(self) -> str:
        present = sum(n > 0 for n in self.voxel_counts().values())
        classes = f"{present} of {len(self.names)} classes present"
        return f"LabelVolume(shape {self.shape}, {len(self.membership)} atoms, {classes})"

    @cached_property
    def grid(self) -> Grid:
        """The lattice that the atoms stand on."""
        nk, nj, ni = self.atoms.shape
        return Grid((nk, nj, ni), self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(nk, nj, ni)``."""
        return self.grid.shape

    def index(self, name: str) -> int:
        """Return the column of a class. `ConfigError` (code ``unknown_class``) if there is none."""
        try:
            return self._columns[name]
        except KeyError:
            raise ConfigError(
                f"the label volume has no class '{name}'",
                do=suggest_class(name, self.names),
                code="unknown_class",
            ) from None

    def check(self) -> None:
        """Raise `CaseError` (code ``bad_labels``) where a voxel holds an atom that the table lacks.

        Compiled passes would read beyond the table. It takes a pass over the voxels, the first time, unless they have
        been counted as the volume was made.
        """
        if "_counts" not in self.__dict__ and self._largest >= len(self.membership):
            raise CaseError(
                "a voxel holds an atom that the membership table lacks",
                expected=f"0 to {len(self.membership) - 1}",
                found=str(self._largest),
                code="bad_labels",
            )

    def mask(self, name: str) -> BoolArray:
        """Return the voxels of a class, ``(nk, nj, ni)`` bool."""
        return look_up(np.ascontiguousarray(self.membership[:, self.index(name)]), self.atoms)

    def atom_counts(self) -> Int64:
        """Return the number of voxels of each atom, ``(n_atoms,)``."""
        return self._counts.copy()

    def voxel_counts(self) -> dict[str, int]:
        """Return the number of voxels of each class."""
        counts: Int64 = self._counts @ self.membership
        return dict(zip(self.names, counts.tolist(), strict=True))

    def keep(self, names: Sequence[str]) -> LabelVolume:
        """Return a copy that has only these classes, in this order; atoms stay as they are."""
        columns = [self.index(name) for name in names]

        def kept(of: Mapping[str, T]) -> dict[str, T]:
            return {name: of[name] for name in names if name in of}

        return LabelVolume(
            self.atoms,
            np.ascontiguousarray(self.membership[:, columns]),
            tuple(names),
            self.affine,
            kept(self.status),
            kept(self.notes),
            kept(self.added_voxels),
            kept(self.confidence),
        )._keep_counts(self._counts)

    def cut_by_ct(self, outside: str | None = None) -> dict[str, bool]:
        """Say of each class whether the scan cuts it off.

        Parameters
        ----------
        outside
            The class of voxels that were not reconstructed (padding beyond the circle), if there is one.

        Returns
        -------
        True for a class with a voxel on a face of the array or beside (6-neighbours) an outside voxel.
        """
        among = None if outside is None else self.membership[:, self.index(outside)]
        on_edge = values_on_edge(self.atoms, len(self.membership), among)
        cut: BoolArray = np.logical_or.reduce(self.membership[on_edge], axis=0)
        return dict(zip(self.names, cut.tolist(), strict=True))

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.names)}

    @cached_property
    def _largest(self) -> int:
        return int(self.atoms.max())

    @cached_property
    def _counts(self) -> Int64:
        self.check()
        return count_values(self.atoms, len(self.membership))

    def _keep_counts(self, counts: Int64) -> LabelVolume:
        """Remember voxel counts that are known already, which saves a pass over the voxels."""
        self.__dict__["_counts"] = counts  # where cached_property keeps them
        return self
