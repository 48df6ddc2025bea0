"""One door to the single-file formats: NIfTI, NRRD, MetaImage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.itk import read_itk, read_itk_header
from paxray.io.nifti import iter_nifti_planes, read_nifti, read_nifti_header
from paxray.io.stored import (
    IMAGE_SUFFIXES,
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    Header,
    Stored,
    image_suffix,
    require_there,
)


def read_header(path: Path, *, where: str = "") -> Header:
    """Read an image file's header; errors as the format's own reader, ``unknown_format`` for others."""
    if _suffix(path, where) in NIFTI_SUFFIXES:
        return read_nifti_header(path, where=where)
    return read_itk_header(path, where=where)


def read_stored(path: Path, *, where: str = "") -> Stored:
    """Read an image file whole; errors as `read_header`."""
    if _suffix(path, where) in NIFTI_SUFFIXES:
        return read_nifti(path, where=where)
    return read_itk(path, where=where)


def iter_planes(path: Path, *, where: str = "") -> Iterator[NDArray[Any]]:
    """Yield the stored numbers plane by plane, ``(nj, ni)``; NIfTI is read no further than asked."""
    if _suffix(path, where) in NIFTI_SUFFIXES:
        return iter_nifti_planes(path, where=where)
    return iter(read_itk(path, where=where).array)


def _suffix(path: Path, where: str) -> str:
    require_there(path, where or path.name)
    suffix = image_suffix(path)
    if suffix not in NIFTI_SUFFIXES + ITK_SUFFIXES:
        raise CaseError(
            "the file's format is not known by its ending",
            where=where or path.name,
            expected=", ".join(IMAGE_SUFFIXES) + ", or a folder that holds one DICOM series",
            found=path.name,
            do="convert the file, or give it its ending back",
            code="unknown_format",
        )
    return suffix
