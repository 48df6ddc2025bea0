"""Small image files for the tests of `paxray.io`, written by the formats' own libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from paxray.io.volume import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def oblique_affine(seed: int = 0, spacing: tuple[float, float, float] = (0.7, 0.9, 2.5)) -> np.ndarray:
    """A rotation by some tenths of a radian, with spacing (i, j, k) and an origin."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = 0.3
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def ct_array(shape: tuple[int, int, int] = (6, 7, 8), seed: int = 0) -> np.ndarray:
    """HU between air and bone, int16."""
    return np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)


def write_nifti(
    path: Path,
    array: np.ndarray,
    affine_lps: np.ndarray,
    *,
    sform: int = 2,
    qform: int = 0,
    scale: tuple[float, float] | None = None,
    **fields: Any,
) -> Path:
    """Write ``array`` ([k, j, i], as stored) with header fields set afterwards."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header.set_sform(LPS_TO_RAS @ affine_lps, sform)
    header.set_qform(LPS_TO_RAS @ affine_lps, qform)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = scale or (1, 0)
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + bytes(4) + array.tobytes()
    if path.name.endswith(".gz"):
        import gzip

        content = gzip.compress(content, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_itk(path: Path, array: np.ndarray, affine_lps: np.ndarray) -> Path:
    """Write an NRRD or MetaImage file through SimpleITK."""
    image = SimpleITK.GetImageFromArray(array)
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


def itk_grid(path: Path) -> Grid:
    """The lattice as SimpleITK understands a file."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize()[::-1], affine)


def slice_dataset(stored: np.ndarray, affine: np.ndarray, k: int, uid: str) -> FileDataset:
    """One CT slice: the plane ``stored`` (uint16 or int16) at index k of a volume with ``affine``."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CT_IMAGE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = CT_IMAGE
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = uid
    dataset.Modality = "CT"
    dataset.PatientID = "MRN-12345"
    dataset.PatientName = "Doe^Jane"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    dataset.ImageOrientationPatient = [*(affine[:3, 0] / spacing[0]), *(affine[:3, 1] / spacing[1])]
    dataset.ImagePositionPatient = list(affine[:3, 3] + k * affine[:3, 2])
    dataset.PixelSpacing = [spacing[1], spacing[0]]
    for element in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
        dataset[element].value = [f"{float(value):.10g}"[:16] for value in dataset[element].value]
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    set_pixels(dataset, stored)
    return dataset


def set_pixels(dataset: Dataset, stored: np.ndarray) -> None:
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()


def write_slice(folder: Path, dataset: FileDataset, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    hu: np.ndarray,
    affine: np.ndarray,
    *,
    uid: str = "1.2.3.4",
    seed: int = 0,
    skip: tuple[int, ...] = (),
    **changes: Any,
) -> Path:
    """Write a series whose file names and instance numbers are in a random order."""
    order = np.random.default_rng(seed).permutation(len(hu))
    for k, number in enumerate(order):
        if k in skip:
            continue
        dataset = slice_dataset((hu[k].astype(np.int32) + 1024).astype(np.uint16), affine, k, uid)
        dataset.InstanceNumber = int(number)
        for name, value in changes.items():
            setattr(dataset, name, value)
        write_slice(folder, dataset, f"{number:04d}.dcm")
    return folder


def write_enhanced(path: Path, hu: np.ndarray, affine: np.ndarray, order: list[int]) -> Path:
    """Write an enhanced CT whose frames lie in ``order``; geometry by frame, the rest shared."""
    dataset = slice_dataset(np.zeros((1, 1), np.uint16), affine, 0, "1.2.3.5")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    measures, turn, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = dataset.PixelSpacing
    turn.ImageOrientationPatient = dataset.ImageOrientationPatient
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([turn])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    own = []
    for k in order:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = [
            f"{float(value):.10g}"[:16] for value in affine[:3, 3] + k * affine[:3, 2]
        ]
        group.PlanePositionSequence = Sequence([place])
        own.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(own)
    for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope"):
        delattr(dataset, name)
    dataset.NumberOfFrames = len(order)
    set_pixels(dataset, (hu[order].astype(np.int32) + 1024).astype(np.uint16))
    write_slice(path.parent, dataset, path.name)
    return path
