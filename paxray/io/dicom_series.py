"""Find the CT series among the DICOM files of a folder, from their headers alone.

Attribute names and macros: DICOM PS3.3, CT Image (A.3), Enhanced CT Image (A.38), Legacy Converted Enhanced
CT Image (A.70). Nothing of a header leaves this module but geometry, rescale, the identifiers of series and frame of
reference, by which segmentations are known to belong to it, and the patient's, which only `paxray.io.scan` looks
at, to hash it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paxray.errors import CaseError
from paxray.io.stored import unreadable
from paxray.io.volume import DicomOrigin, Float64

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATIONS = (SEGMENTATION, LABEL_MAP_SEGMENTATION)
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_SEGMENTATION = "segmentation"
_UNPLACED = "CT without position, orientation or spacing"
_SAME_DIRECTION = 1e-4  # of a direction cosine
_TAGS = [
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "ImageType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: where its pixels are, where it lies and how its numbers become HU.

    Parameters
    ----------
    path, index
        The file, and the frame in it (None in a single-frame file).
    rows, columns
        Size in pixels.
    spacing_mm
        Distance between rows, distance between columns (the order of PixelSpacing).
    row_direction, column_direction
        LPS unit vectors along a row and down a column (ImageOrientationPatient).
    position_mm
        LPS centre of the first pixel (ImagePositionPatient).
    slope, intercept, unit
        Rescale; None where the file has none. ``unit`` is the RescaleType.
    """

    path: Path
    index: int | None
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    row_direction: Float64
    column_direction: Float64
    position_mm: Float64
    slope: float | None
    intercept: float | None
    unit: str

    @property
    def normal(self) -> Float64:
        """Unit normal of the slice: row direction x column direction."""
        return np.cross(self.row_direction, self.column_direction)

    def lies_like(self, other: Frame) -> bool:
        """Whether two frames have one size, spacing and orientation."""
        return (
            (self.rows, self.columns) == (other.rows, other.columns)
            and np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-5, atol=0)
            and np.allclose(self.row_direction, other.row_direction, rtol=0, atol=_SAME_DIRECTION)
            and np.allclose(self.column_direction, other.column_direction, rtol=0, atol=_SAME_DIRECTION)
        )


@dataclass(frozen=True, eq=False)
class Series:
    """The frames of one CT series that share size, spacing and orientation, in no particular order."""

    uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    frames: tuple[Frame, ...]
    frame_of_reference_uid: str = field(default="", repr=False)

    @property
    def origin(self) -> DicomOrigin:
        """What segmentations of this series refer to."""
        return DicomOrigin(self.uid, self.frame_of_reference_uid)

    def describe(self) -> str:
        """Return size and first file name; nothing from the patient's part of the header."""
        first = min(self.frames, key=lambda frame: (frame.path.name, frame.index or 0))
        return f"{len(self.frames)} slices of {first.columns} x {first.rows} ({first.path.name}, ...)"


@dataclass(frozen=True, eq=False)
class Inventory:
    """The CT series of a folder, its SEG and RTSTRUCT files, and how many files were left out under which reason."""

    series: tuple[Series, ...]
    left_out: dict[str, int]
    segmentations: tuple[Path, ...] = ()


def has_dicom_magic(path: Path) -> bool:
    """Whether a file carries the DICOM mark (``DICM`` after a preamble of 128 bytes)."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def find_ct_series(folder: Path, *, where: str = "") -> Inventory:
    """Group the CT slices directly in a folder by SeriesInstanceUID, orientation and size.

    Localizers, secondary captures, other modalities and files that are not DICOM are left out and counted.

    Raises
    ------
    CaseError
        ``unreadable`` for a damaged DICOM file, ``no_orientation`` for a CT slice without position,
        orientation or spacing in a series that has slices with them.
    """
    where = where or folder.name
    left_out: Counter[str] = Counter()
    slices: dict[str, list[Frame]] = {}
    segmentations: list[Path] = []
    unplaced: dict[str, str] = {}
    patients: dict[str, str] = {}
    frames_of_reference: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        entry = _examine(path, f"{where}/{path.name}")
        if entry.left_out:
            left_out[entry.left_out] += 1
            if entry.left_out == _SEGMENTATION:
                segmentations.append(path)
            if entry.left_out == _UNPLACED:
                unplaced[entry.uid] = path.name
            continue
        slices.setdefault(entry.uid, []).extend(entry.frames)
        patients.setdefault(entry.uid, entry.patient_id)
        frames_of_reference.setdefault(entry.uid, entry.frame_of_reference_uid)
    for uid in sorted(set(unplaced) & set(slices)):
        raise CaseError(
            "a slice of the series does not say where it lies",
            where=f"{where}/{unplaced[uid]}",
            expected="ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
            do="export the series again, or take the file out",
            code="no_orientation",
        )
    series = [
        Series(uid, patients[uid], tuple(group), frames_of_reference[uid])
        for uid in sorted(slices)
        for group in _alike(slices[uid])
    ]
    return Inventory(tuple(series), dict(left_out), tuple(segmentations))


@dataclass(frozen=True, eq=False)
class _Entry:
    """What one file contributes: frames, or the reason why it is left out."""

    left_out: str = ""
    uid: str = ""
    patient_id: str = field(default="", repr=False)
    frames: tuple[Frame, ...] = ()
    frame_of_reference_uid: str = field(default="", repr=False)


def _examine(path: Path, where: str) -> _Entry:
    import pydicom

    try:
        if not has_dicom_magic(path):
            if path.suffix.lower() in DICOM_SUFFIXES:
                raise unreadable(where, f"no such mark in {path.stat().st_size} bytes", "a DICOM file")
            return _Entry("not DICOM")
        # Its validation prints values into warnings; they may be the patient's.
        with pydicom.config.disable_value_validation():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            reason = _reason_to_leave_out(header)
            if reason:
                return _Entry(reason)
            uid = str(header.get("SeriesInstanceUID") or "")
            try:
                frames = _frames(header, path)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
                return _Entry(_UNPLACED, uid)
            return _Entry(
                "" if frames else "localizer",
                uid,
                str(header.get("PatientID") or ""),
                tuple(frames),
                str(header.get("FrameOfReferenceUID") or ""),
            )
    except CaseError:
        raise
    except Exception as error:  # what pydicom raises for damaged headers is not bounded
        raise unreadable(where, f"a damaged DICOM header ({type(error).__name__})") from error


def _reason_to_leave_out(header: Any) -> str:
    sop_class = str(header.get("SOPClassUID") or "")
    if not sop_class:
        # Some anonymisers blank the class; the modality then has to do.
        ct = str(header.get("Modality") or "") == "CT" and "Rows" in header
    else:
        ct = sop_class == _CT_IMAGE or sop_class in _ENHANCED_CT
    if sop_class in (*SEGMENTATIONS, RTSTRUCT):
        return _SEGMENTATION
    if not ct:
        return "not a CT image"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "colour image"
    kind = header.get("ImageType") or ()
    words = {str(word).upper() for word in ([kind] if isinstance(kind, str) else kind)}
    return "localizer" if words & {"LOCALIZER", "SCOUT", "TOPOGRAM"} else ""


def _frames(header: Any, path: Path) -> list[Frame]:
    """Return the frames of a file; enhanced multi-frame images keep geometry in functional groups."""
    if str(header.get("SOPClassUID") or "") not in _ENHANCED_CT:
        if int(header.get("NumberOfFrames") or 1) != 1:
            raise ValueError("a multi-frame image without functional groups")
        return [_frame(header, path, None, header, header, header, header)]
    shared = header.SharedFunctionalGroupsSequence[0]
    frames = []
    for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):
        kind = _macro(own, shared, "CTImageFrameTypeSequence", optional=True)
        if kind is not None and "LOCALIZER" in {str(word) for word in kind.get("FrameType") or ()}:
            continue
        measures = _macro(own, shared, "PixelMeasuresSequence")
        place = _macro(own, shared, "PlanePositionSequence")
        turn = _macro(own, shared, "PlaneOrientationSequence")
        rescale = _macro(own, shared, "PixelValueTransformationSequence")
        frames.append(_frame(header, path, index, measures, place, turn, rescale))
    if len(frames) > int(header.NumberOfFrames):
        raise ValueError("more functional groups than frames")
    return frames


def _macro(own: Any, shared: Any, name: str, optional: bool = False) -> Any:
    for group in (own, shared):
        if group.get(name):
            return group[name].value[0]
    if optional:
        return None
    raise KeyError(name)


def _frame(
    header: Any, path: Path, index: int | None, measures: Any, place: Any, turn: Any, rescale: Any
) -> Frame:
    direction = np.array([float(value) for value in turn.ImageOrientationPatient])
    position = np.array([float(value) for value in place.ImagePositionPatient])
    spacing = [float(value) for value in measures.PixelSpacing]
    if direction.shape != (6,) or position.shape != (3,) or len(spacing) != 2 or min(spacing) <= 0:
        raise ValueError("incomplete geometry")
    row, column = direction[:3], direction[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if (
        not np.allclose([*lengths, row @ column], [1, 1, 0], rtol=0, atol=1e-3)
        or not np.isfinite(position).all()
    ):
        raise ValueError("direction cosines that are not two orthogonal unit vectors")
    slope, intercept = rescale.get("RescaleSlope"), rescale.get("RescaleIntercept")
    return Frame(
        path,
        index,
        int(header.Rows),
        int(header.Columns),
        (spacing[0], spacing[1]),
        row / lengths[0],
        column / lengths[1],
        position,
        None if slope is None else float(slope),
        None if intercept is None else float(intercept),
        str(rescale.get("RescaleType") or ""),
    )


def _alike(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if frame.lies_like(group[0])), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return groups
