"""Small files with named segments: Slicer's .seg.nrrd, DICOM SEG and RTSTRUCT, written without paxray's readers."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SERIES, FRAME = "1.2.3.4", "1.2.3.9"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
Coded = tuple[str, str]  # scheme, value
SIDES = {"left": ("SCT", "7771000"), "right": ("SCT", "24028007")}


def plain_affine() -> np.ndarray:
    """Spacing .75 x .5 x 2.5 mm, axial."""
    return np.array([[0.75, 0, 0, -20], [0, 0.5, 0, -9], [0, 0, 2.5, 33], [0, 0, 0, 1.0]])


def oblique() -> np.ndarray:
    """The same, turned by .3 rad about a skew axis."""
    axis = np.array([0.6, 0.0, 0.8])
    cross = np.cross(np.eye(3), axis)
    affine = plain_affine()
    affine[:3, :3] = (np.eye(3) + np.sin(0.3) * cross + (1 - np.cos(0.3)) * cross @ cross) @ affine[:3, :3]
    return affine


def write_ct_series(
    folder: Path, shape: tuple[int, int, int], affine: np.ndarray, uid: str = SERIES, frame: str = FRAME
) -> list[Dataset]:
    """Write a CT of noise; one file per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    stored = np.random.default_rng(0).integers(0, 2500, shape).astype(np.uint16)
    study, out = generate_uid(), []
    for k in range(shape[0]):
        dataset = _file(CT_IMAGE)
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID, dataset.StudyInstanceUID = uid, frame, study
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PatientID, dataset.PatientName = "MRN-12345", "Doe^Jane"
        dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
        dataset.StudyID = dataset.StudyDate = dataset.StudyTime = dataset.ReferringPhysicianName = ""
        dataset.SeriesNumber, dataset.InstanceNumber = 1, k + 1
        dataset.ImageOrientationPatient = ds([*(affine[:3, 0] / spacing[0]), *(affine[:3, 1] / spacing[1])])
        dataset.ImagePositionPatient = ds(affine[:3, 3] + k * affine[:3, 2])
        dataset.PixelSpacing = ds([spacing[1], spacing[0]])
        dataset.SliceThickness = ds([spacing[2]])[0]
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.Rows, dataset.Columns = shape[1:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelData = stored[k].tobytes()
        pydicom.dcmwrite(folder / f"{k:03d}.dcm", dataset, enforce_file_format=True)
        out.append(dataset)
    return out


def ds(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Numbers as DICOM's decimal strings."""
    return [f"{float(value):.10g}"[:16] for value in numbers]


def _file(sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    return dataset


def _item(**fields: Any) -> Dataset:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def code_item(code: Coded, modifier: str = "", side: Coded | None = None) -> Dataset:
    item = _item(CodingSchemeDesignator=code[0], CodeValue=code[1], CodeMeaning="meaning")
    if side is not None:
        setattr(item, modifier, [code_item(side)])
    return item


def segment_item(
    number: int,
    label: str,
    kind: Coded = ("SCT", "123037004"),
    side: Coded | None = None,
    region: Coded | None = None,
    region_side: Coded | None = None,
) -> Dataset:
    """An item of SegmentSequence; the kind is "anatomical structure" unless given."""
    item = _item(SegmentNumber=number, SegmentLabel=label)
    item.SegmentedPropertyTypeCodeSequence = [
        code_item(kind, "SegmentedPropertyTypeModifierCodeSequence", side)
    ]
    if region is not None:
        item.AnatomicRegionSequence = [code_item(region, "AnatomicRegionModifierSequence", region_side)]
    return item


def write_seg(
    path: Path,
    frames: Sequence[tuple[int | None, int, np.ndarray]],
    segments: Sequence[Dataset],
    affine: np.ndarray,
    *,
    kind: str = "BINARY",
    series: str = SERIES,
    frame_of_reference: str = FRAME,
    **changes: Any,
) -> Path:
    """Write a SEG.

    Parameters
    ----------
    frames
        Segment number (None in a label map), slice number k, and the plane.
    affine
        Of the stack that k counts in.
    """
    dataset = _file(LABEL_MAP if kind == "LABELMAP" else SEG)
    dataset.Modality, dataset.SegmentationType = "SEG", kind
    dataset.PatientID, dataset.PatientName = "MRN-12345", "Doe^Jane"
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = generate_uid(), frame_of_reference
    dataset.ReferencedSeriesSequence = [_item(SeriesInstanceUID=series)]
    dataset.SegmentSequence = list(segments)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(PixelSpacing=ds([spacing[1], spacing[0]]))],
            PlaneOrientationSequence=[
                _item(
                    ImageOrientationPatient=ds([*(affine[:3, 0] / spacing[0]), *(affine[:3, 1] / spacing[1])])
                )
            ],
        )
    ]
    groups = []
    for number, k, _ in frames:
        place = _item(ImagePositionPatient=ds(affine[:3, 3] + k * affine[:3, 2]))
        group = _item(PlanePositionSequence=[place])
        if number is not None:
            group.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=number)]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(frames)
    planes = np.stack([plane for *_, plane in frames])
    dataset.Rows, dataset.Columns = planes.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    bits = 1 if kind == "BINARY" else 8 * planes.dtype.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    content = (
        np.packbits(planes.astype(bool).ravel(), bitorder="little").tobytes()
        if bits == 1
        else planes.tobytes()
    )
    dataset.PixelData = content + bytes(len(content) % 2)
    dataset["PixelData"].VR = "OB" if bits < 16 else "OW"
    for name, value in changes.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_rtstruct(
    path: Path,
    regions: Mapping[str, Sequence[np.ndarray]],
    *,
    series: str = SERIES,
    frame_of_reference: str = FRAME,
    kind: str = "CLOSED_PLANAR",
    decimals: int = 4,
) -> Path:
    """Write an RTSTRUCT: contours of (points, 3) LPS mm by the name of their region."""
    dataset = _file(RTSTRUCT)
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "test"
    dataset.PatientID, dataset.PatientName = "MRN-12345", "Doe^Jane"
    dataset.SeriesInstanceUID = generate_uid()
    study = _item(RTReferencedSeriesSequence=[_item(SeriesInstanceUID=series)])
    dataset.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=frame_of_reference, RTReferencedStudySequence=[study])
    ]
    structures, drawn = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        structures.append(
            _item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame_of_reference)
        )
        items = [
            _item(
                ContourGeometricType=kind,
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.{decimals}f}" for value in np.ravel(points)],
            )
            for points in contours
        ]
        drawn.append(_item(ReferencedROINumber=number, **({"ContourSequence": items} if items else {})))
    dataset.StructureSetROISequence, dataset.ROIContourSequence = structures, drawn
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_seg_nrrd(
    path: Path,
    layers: np.ndarray,
    affine: np.ndarray,
    segments: Sequence[Mapping[str, str]],
    *,
    drawn_on: tuple[np.ndarray, tuple[int, int, int]] | None = None,
    **common: str,
) -> Path:
    """Write a .seg.nrrd as Slicer does.

    Parameters
    ----------
    layers
        ``(layers, nk, nj, ni)`` uint8; one layer has no axis of its own in the file.
    segments
        Fields of each, such as ``{"Name": "liver", "LabelValue": "1", "Layer": "0"}``.
    drawn_on
        Affine (LPS) and shape of the reference image, which Slicer writes in RAS.
    """
    one = len(layers) == 1
    vectors = [f"({','.join(f'{value:.12g}' for value in affine[:3, axis])})" for axis in range(3)]
    sizes = [str(n) for n in layers.shape[1:][::-1]]
    lines = [
        "NRRD0004", "# as 3D Slicer writes it", "type: unsigned char", f"dimension: {3 if one else 4}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(sizes if one else [str(len(layers)), *sizes]),
        "space directions: " + " ".join(vectors if one else ["none", *vectors]),
        "kinds: " + ("" if one else "list ") + "domain domain domain",
        "encoding: gzip",
        f"space origin: ({','.join(f'{value:.12g}' for value in affine[:3, 3])})",
    ]  # fmt: skip
    for n, fields in enumerate(segments):
        lines += [f"Segment{n}_{key}:={value}" for key, value in fields.items()]
    lines += [f"Segmentation_{key}:={value}" for key, value in common.items()]
    if drawn_on is not None:
        ras = np.diag([-1.0, -1, 1, 1]) @ drawn_on[0]
        nk, nj, ni = drawn_on[1]
        numbers = [*(f"{value:.12g}" for value in ras.ravel()), 0, ni - 1, 0, nj - 1, 0, nk - 1]
        geometry = "".join(f"{number};" for number in numbers)
        lines.append(
            "Segmentation_ConversionParameters:=Oversampling factor|1|Some help.&"
            f"Reference image geometry|{geometry}|More of it.&"
        )
    voxels = np.moveaxis(layers, 0, -1).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + gzip.compress(voxels, 1))
    return path
