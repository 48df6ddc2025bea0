"""Files whose segments bear names: folders with a file per class, Slicer's .seg.nrrd, DICOM SEG and RTSTRUCT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from paxray.errors import CaseError
from paxray.io.dicom_series import DICOM_SUFFIXES, RTSTRUCT, SEGMENTATIONS, has_dicom_magic
from paxray.io.planes import ClassMask
from paxray.io.stored import image_suffix, unreadable
from paxray.io.volume import Grid

SEG_NRRD = ".seg.nrrd"


@dataclass(frozen=True)
class Code:
    """A code with its scheme's designator, as DICOM writes it: ``SCT`` for SNOMED CT, ``SRT`` for its older form."""

    scheme: str
    value: str


@dataclass(frozen=True)
class Term:
    """A coded structure, and the code of its side where one is given."""

    code: Code
    side: Code | None = None


@dataclass(frozen=True)
class Segment:
    """What a file says of one of its segments.

    Parameters
    ----------
    name
        The label that people see: a file's stem, a segment's label, a region's name.
    where
        How errors name it.
    kind
        Its type's code, where it has one.
    region
        The code of where it lies, which for a type such as "tissue" is what it is.
    """

    name: str
    where: str
    kind: Term | None = None
    region: Term | None = None


class SegmentFile(ABC):
    """An opened source: its segments are known, its voxels not read yet."""

    #: What messages call one of its segments.
    word: str = "segment"
    segments: tuple[Segment, ...]

    @abstractmethod
    def masks(
        self, grid: Grid, wanted: Collection[int], fraction: float | None = None
    ) -> Iterator[tuple[int, ClassMask]]:
        """Yield the masks of segments, each with its number in `segments`, on a CT's lattice.

        Parameters
        ----------
        grid
            The CT's.
        wanted
            Numbers of the segments to read.
        fraction
            From which share of a voxel on it counts, in a file that stores shares; None refuses such a file.

        Raises
        ------
        CaseError
            ``mask_mismatch``, ``bad_labels`` and the codes of the format.
        """


def names_its_segments(path: Path) -> bool:
    """Whether a source says by names what its masks are, so that it needs no table of label values."""
    name = path.name.lower()
    if path.is_dir() or name.endswith((SEG_NRRD, *DICOM_SUFFIXES)):
        return True
    if image_suffix(path) or not path.is_file():
        return False
    try:
        return has_dicom_magic(path)
    except OSError:
        return False  # said with its reason when it is read


def open_segments(path: Path, *, where: str = "") -> list[SegmentFile]:
    """Open a source of named masks.

    Parameters
    ----------
    path
        A ``.seg.nrrd`` or DICOM file, an image file of one class, or a folder: of image files, one per class, or of
        DICOM SEG and RTSTRUCT files.

    Raises
    ------
    CaseError
        ``missing_file``, ``unreadable``, ``no_masks`` for a folder without any, ``bad_labels`` for one with both
        kinds, ``not_segments`` for a DICOM file of another kind; and the codes of the format.
    """
    from paxray.io.masks import ClassFiles, mask_files

    path = Path(path)
    where = where or path.name
    if path.is_dir():
        dicom = [file for file in _visible(path) if _is_dicom(file, where)]
        found = [one for file in dicom if (one := _open_dicom(file, f"{where}/{file.name}", optional=True))]
        images = any(image_suffix(file) for file in _visible(path))
        if found and images:
            raise CaseError(
                "the folder holds image files and DICOM segmentations",
                where=where,
                expected="masks of one format",
                do="name the DICOM files one by one, or move them into a folder of their own",
                code="bad_labels",
            )
        return list(found) if found else [ClassFiles(mask_files(path, where=where), where)]
    if path.name.lower().endswith(SEG_NRRD):
        from paxray.io.seg_nrrd import SlicerSegments

        return [SlicerSegments(path, where)]
    if image_suffix(path):
        return [ClassFiles([path], "", names=[where])]
    opened = _open_dicom(path, where, optional=False)
    assert opened is not None
    return [opened]


def _visible(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _is_dicom(file: Path, where: str) -> bool:
    try:
        return not image_suffix(file) and has_dicom_magic(file)
    except OSError as error:
        raise unreadable(f"{where}/{file.name}", error.strerror or "a file that cannot be opened") from error


def _open_dicom(path: Path, where: str, *, optional: bool) -> SegmentFile | None:
    """Open a SEG or RTSTRUCT file; another kind is None where that is `optional`."""
    from paxray.io.dicom_header import sop_class
    from paxray.io.dicom_rtstruct import Contours
    from paxray.io.dicom_seg import DicomSegments

    kind = sop_class(path, where)
    if kind in SEGMENTATIONS:
        return DicomSegments(path, where)
    if kind == RTSTRUCT:
        return Contours(path, where)
    if optional:
        return None
    if not kind:
        raise unreadable(where, "a DICOM file that does not say what it holds", "a SOP class")
    raise CaseError(
        "the DICOM file holds no segments",
        where=where,
        expected="a Segmentation (SEG, label map or not) or an RT Structure Set",
        found=_name_of(kind),
        do="name the file of the segmentation",
        code="not_segments",
    )


def _name_of(sop_class_uid: str) -> str:
    from pydicom.uid import UID_dictionary

    return UID_dictionary[sop_class_uid][0] if sop_class_uid in UID_dictionary else "an unknown SOP class"
