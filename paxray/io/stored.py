"""Voxels as a file stores them, before anyone reads them as HU or as labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.volume import Float64, Grid

NIFTI_SUFFIXES = (".nii.gz", ".nii")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES


@dataclass(frozen=True, eq=False)
class Header:
    """What an image file says of itself, without its voxels.

    Parameters
    ----------
    grid
        The voxel lattice in LPS mm.
    dtype
        Type of the stored numbers, native byte order.
    slope, intercept
        A voxel's value is ``slope * stored + intercept``.
    """

    grid: Grid
    dtype: np.dtype[Any]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def scaled(self) -> bool:
        """Whether a voxel's value differs from the number stored for it."""
        return self.slope != 1 or self.intercept != 0


@dataclass(frozen=True, eq=False)
class Stored:
    """A `Header` with its stored numbers, ``(nk, nj, ni)`` indexed ``[k, j, i]``, native byte order."""

    header: Header
    array: NDArray[Any]


def image_suffix(path: Path) -> str:
    """Return the image ending of a file's name (``".nii.gz"``, ``".nrrd"``, ...), or ``""``."""
    name = path.name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), "")


def image_stem(path: Path) -> str:
    """Return a file's name without its image ending: ``liver.nii.gz`` is ``liver``."""
    return path.name[: len(path.name) - len(image_suffix(path))]


def sidecar_of(path: Path, suffix: str = ".json") -> Path:
    """What may be said of a mask's values beside it: ``nodes.json`` for ``nodes.nii.gz``."""
    return path.with_name(f"{image_stem(path)}{suffix}")


def located_grid(shape: tuple[int, ...], affine: Float64, where: str) -> Grid:
    """Make a `Grid`, naming the file in what it refuses."""
    try:
        return Grid(shape, affine)  # type: ignore[arg-type]
    except CaseError as error:
        raise CaseError(
            error.what,
            where=where,
            expected=error.expected,
            found=error.found,
            do="write the file anew with its geometry",
            code=error.code,
        ) from error


def require_there(path: Path, where: str) -> None:
    """Raise `CaseError` (code ``missing_file``) unless ``path`` is a file or a folder."""
    if not path.exists():
        raise CaseError(
            "there is no such file or folder",
            where=where,
            do="check the path; in a case table it is relative to the table",
            code="missing_file",
        )


def require_file(path: Path, where: str) -> None:
    """Raise `CaseError` (code ``missing_file``) unless ``path`` is a file."""
    if not path.is_file():
        raise CaseError(
            "there is no such file",
            where=where,
            found="a folder" if path.is_dir() else "nothing under that name",
            do="check the path; in a case table it is relative to the table",
            code="missing_file",
        )


def unreadable(where: str, found: str, expected: str = "") -> CaseError:
    """Return the error for a file that is damaged or is not what its name says."""
    return CaseError(
        "the file cannot be read",
        where=where,
        expected=expected,
        found=found,
        do="copy or export the file again",
        code="unreadable",
    )
