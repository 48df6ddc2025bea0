"""Classes by their SNOMED CT codes, as DICOM segmentations and Slicer's terminology state them."""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

from paxray.anatomy.anatomy_class import LATERALITY_CODES
from paxray.anatomy.catalog import Catalog

#: DICOM's designators of SNOMED CT and of its older alphanumeric form (PS3.16, section 8.1).
_CURRENT = "SCT"
_OLD = ("SRT", "SNM3", "99SDM")
#: Codes that say only that the segment is some structure; what it is, its anatomic region then says.
#: 3D Slicer's "General Anatomy" terminology: Tissue, Anatomical Structure.
_GENERAL = ("85756007", "123037004", "91723000")
_SIDES = {code: side for side, code in LATERALITY_CODES.items()}


class CodeLike(Protocol):
    """A code and the scheme that it is from."""

    @property
    def scheme(self) -> str:
        """Coding scheme designator."""

    @property
    def value(self) -> str:
        """The code."""


class CodeIndex:
    """Finds classes by code and side."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._by_code: dict[str, list[str]] = defaultdict(list)
        for name, item in catalog.items():
            if item.snomed_ct:
                self._by_code[item.snomed_ct].append(name)

    def find(self, code: CodeLike, side: CodeLike | None) -> tuple[str, ...]:
        """Return the classes with a code: none where the catalog lacks it, several where it does not decide.

        A code with a side means the class of that side. One without means a class that has no side of its own: a
        paired organ's code alone does not say which of the two it is.
        """
        known = self._same(code, self._by_code)
        if known is None:
            return ()
        named = self._by_code[known]
        word = "" if side is None else self._same(side, _SIDES)
        if word is None:
            return ()  # a modifier that is no side: deep, upper, ... which narrows down what the code says
        wanted = _SIDES.get(word, "")
        exact = [name for name in named if self._catalog[name].snomed_laterality == word]
        if wanted in ("left", "right"):
            exact = [name for name in named if self._catalog[name].laterality == wanted]
        elif not wanted:
            exact = [name for name in exact if not self._catalog[name].laterality] or exact
        return tuple(exact)

    def is_general(self, code: CodeLike) -> bool:
        """Whether a code says no more than that there is a structure."""
        return self._same(code, _GENERAL) is not None

    @staticmethod
    def _same(code: CodeLike, known: dict[str, list[str]] | dict[str, str] | tuple[str, ...]) -> str | None:
        """Return the SNOMED CT code among ``known`` that a code stands for."""
        if code.scheme == _CURRENT:
            return code.value if code.value in known else None
        if code.scheme not in _OLD:
            return None
        from pydicom.sr.coding import Code  # knows which code of the older form became which

        old = Code(code.value, "SRT", "")
        return next((value for value in known if Code(value, "SCT", "") == old), None)
