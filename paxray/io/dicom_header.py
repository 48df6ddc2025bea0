"""What DICOM segmentations refer to, and the codes in which they say what a segment is.

Attributes and macros: DICOM PS3.3, Segmentation (A.51), RT Structure Set (A.19), Code Sequence (8.8).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paxray.errors import CaseError, PaxrayError
from paxray.io.segments import Code, Term
from paxray.io.stored import require_file, unreadable
from paxray.io.volume import Grid


@dataclass(frozen=True)
class References:
    """The series and the frame of reference that a segmentation was made on; empty where it does not say.

    Neither ever stands in a message or an output.
    """

    series_uids: frozenset[str] = field(default=frozenset(), repr=False)
    frame_uids: frozenset[str] = field(default=frozenset(), repr=False)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged header makes pydicom raise into ``unreadable``."""
    import pydicom

    try:
        # Its validation prints values into warnings; they may be the patient's.
        with pydicom.config.disable_value_validation():
            yield
    except PaxrayError:
        raise
    except Exception as error:  # what pydicom raises for damaged headers is not bounded
        raise unreadable(where, f"a damaged DICOM file ({type(error).__name__})") from error


def sop_class(path: Path, where: str) -> str:
    """Return the SOP class of a DICOM file.

    Raises
    ------
    CaseError
        ``missing_file``, or ``unreadable`` for another or a damaged file.
    """
    import pydicom

    require_file(path, where)
    with reading(where):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        except pydicom.errors.InvalidDicomError as error:
            raise unreadable(where, "another beginning", "a DICOM file") from error
        return str(header.get("SOPClassUID") or "")


def first(item: Any, keyword: str) -> Any:
    """Return the first item of a sequence, or None."""
    sequence = item.get(keyword) if item is not None else None
    return sequence[0] if sequence else None


def code_of(item: Any) -> Code | None:
    """Read an item of a code sequence; None for none, or one without a value."""
    if item is None:
        return None
    value = item.get("CodeValue") or item.get("LongCodeValue") or ""
    return Code(str(item.get("CodingSchemeDesignator") or ""), str(value)) if value else None


def term_of(item: Any, modifiers: str) -> Term | None:
    """Read a coded structure and its side, which stands in a sequence within its item."""
    code = code_of(item)
    return None if code is None else Term(code, code_of(first(item, modifiers)))


def require_origin(grid: Grid, references: References, where: str, *, by_series: bool) -> None:
    """Refuse a segmentation of another series or frame of reference than the CT's.

    Nothing is known, and nothing refused, where the CT is not DICOM or a header names neither.

    Raises
    ------
    CaseError
        ``wrong_series`` (with `by_series`), ``wrong_frame``.
    """
    if grid.origin is None:
        return
    if by_series and _differ(grid.origin.series_uid, references.series_uids):
        raise CaseError(
            "the segmentation was made on another series",
            where=where,
            expected="a reference to the CT's SeriesInstanceUID",
            found="a reference to another",
            do="segment this very series; one that lies on the same voxels may be converted to NIfTI",
            code="wrong_series",
        )
    if _differ(grid.origin.frame_uid, references.frame_uids):
        raise CaseError(
            "the segmentation lies in another frame of reference",
            where=where,
            expected="the CT's FrameOfReferenceUID",
            found="another, whose mm are not the CT's",
            do="check that it belongs to this CT, or register and resample it",
            code="wrong_frame",
        )


def _differ(own: str, named: Collection[str]) -> bool:
    return bool(own and named) and own not in named
