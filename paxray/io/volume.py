"""A voxel array with its place in the patient: LPS millimetres, array indexed ``[k, j, i]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paxray.errors import CaseError

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class DicomOrigin:
    """The DICOM series that a lattice was read from, and the frame of reference in which its mm are counted.

    Segmentations name both, so that they meet no other series than theirs. No output holds them. Empty where a
    header has none.
    """

    series_uid: str = field(repr=False)
    frame_uid: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class Grid:
    """The lattice of voxel centres of a volume.

    Parameters
    ----------
    shape
        Array shape ``(nk, nj, ni)``.
    affine
        ``(4, 4)`` float64 from voxel centre ``(i, j, k, 1)`` to world LPS mm. Oblique and sheared
        affines are legal; a singular one is a `CaseError` (code ``bad_affine``).
    origin
        Where it was read from, for a DICOM series.
    """

    shape: tuple[int, int, int]
    affine: Float64
    origin: DicomOrigin | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise CaseError(
                "the affine is not a finite 4x4 matrix",
                found=np.array2string(affine, precision=4),
                code="bad_affine",
            )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise CaseError(
                "a volume needs three axes of at least one voxel",
                found=f"shape {self.shape}",
                code="bad_shape",
            )
        size = np.linalg.norm(affine[:3, :3], axis=0)
        if size.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / size)) < 1e-6:
            raise CaseError(
                "the affine is singular: two voxel axes coincide or a voxel has no size",
                expected="three independent voxel axes",
                found=np.array2string(affine[:3, :3], precision=4),
                code="bad_affine",
            )

    @cached_property
    def inverse(self) -> Float64:
        """``(4, 4)`` from world mm to continuous voxel index ``(i, j, k, 1)``."""
        return np.asarray(np.linalg.inv(self.affine), dtype=np.float64)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k."""
        si, sj, sk = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(si), float(sj), float(sk)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel (the parallelepiped, for a sheared affine)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def orientation(self) -> str:
        """The patient direction in which i, j, k grow, e.g. ``"LPS"``; nearest axis for oblique ones."""
        return orientation_of(self.affine)

    def to_world(self, index_ijk: ArrayLike) -> Float64:
        """Map ``(..., 3)`` voxel indices ``(i, j, k)`` to world mm."""
        index = np.asarray(index_ijk, dtype=np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def to_index(self, world_mm: ArrayLike) -> Float64:
        """Map ``(..., 3)`` world mm to continuous voxel indices ``(i, j, k)``."""
        world = np.asarray(world_mm, dtype=np.float64)
        return np.asarray(world @ self.inverse[:3, :3].T + self.inverse[:3, 3], dtype=np.float64)

    @property
    def center_mm(self) -> Float64:
        """World position of the middle of the voxel box."""
        nk, nj, ni = self.shape
        return self.to_world([(ni - 1) / 2, (nj - 1) / 2, (nk - 1) / 2])

    @property
    def corners_mm(self) -> Float64:
        """``(8, 3)`` outer corners of the voxel box (half a voxel beyond the outer centres)."""
        nk, nj, ni = self.shape
        index = [(i, j, k) for k in (-0.5, nk - 0.5) for j in (-0.5, nj - 0.5) for i in (-0.5, ni - 0.5)]
        return self.to_world(index)


@dataclass(frozen=True, eq=False)
class Volume:
    """A voxel array on a `Grid`.

    Parameters
    ----------
    array
        ``(nk, nj, ni)``, indexed ``[k, j, i]``; HU for a CT, integers for labels.
    affine
        ``(4, 4)`` float64 from ``(i, j, k, 1)`` to LPS mm.
    origin
        Where it was read from, for a DICOM series.
    """

    array: NDArray[Any]
    affine: Float64
    origin: DicomOrigin | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", self.grid.affine)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"Volume({self.array.dtype}, shape {self.shape}, {spacing} mm, {self.grid.orientation})"

    @cached_property
    def grid(self) -> Grid:
        """The lattice that the array stands on."""
        nk, nj, ni = self.array.shape
        return Grid((nk, nj, ni), self.affine, self.origin)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(nk, nj, ni)``."""
        return self.grid.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel spacing along i, j, k in mm."""
        return self.grid.spacing_mm


def orientation_of(affine: Float64) -> str:
    """Return the three letters towards which i, j, k grow (``L/R``, ``P/A``, ``S/I``), nearest axes.

    The letters name distinct world axes even for strongly oblique grids: axes are assigned largest
    cosine first.
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left = np.abs(cosines)
    letters = [""] * 3
    for _ in range(3):
        world, voxel = np.unravel_index(int(np.argmax(left)), left.shape)
        letters[int(voxel)] = ("RL", "AP", "IS")[int(world)][int(cosines[world, voxel] > 0)]
        left = left.copy()
        left[world, :] = -1
        left[:, voxel] = -1
    return "".join(letters)


def reindex(array: NDArray[Any], axes: Sequence[int], flips: Sequence[bool]) -> NDArray[Any]:
    """Return a view of ``array`` with its axes permuted by ``axes`` and then reversed where ``flips``."""
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return np.transpose(array, tuple(axes))[step]
