"""The lattice that the thorax is analysed on: axes along the patient's, cropped to the body, blocks averaged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.lattice import Box
from paxray.io.volume import Volume, reindex
from paxray.segmentation.blocks import block_means

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]

#: Blocks of voxels are averaged to about this size: half the thickness of a rib's smaller diameter.
WORK_MM = 1.4
#: Beyond this the planes of the array are not the patient's axial ones any more.
MAX_TILT_DEG = 30.0
AIR_HU, MAX_HU = -1024.0, 3071.0


@dataclass(frozen=True, eq=False)
class Field:
    """A CT seen along the patient's axes: arrays are indexed ``[z, y, x]``, growing to Superior, Posterior, Left.

    Parameters
    ----------
    ct
        The whole CT on its own lattice.
    axes, flips
        What `reindex` needs to turn an array of the CT into patient order.
    crop
        The body's box in patient order, at full resolution.
    factor
        Voxels averaged along z, y, x.
    """

    ct: Volume
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    crop: Box
    factor: tuple[int, int, int]

    @classmethod
    def of(cls, ct: Volume, body: Bool) -> Field:
        """Turn and crop; `CaseError` (code ``oblique``) where no array plane is near the patient's axial plane."""
        cosines = ct.affine[:3, :3] / np.asarray(ct.spacing_mm)
        axes, flips = [], []
        for world in (2, 1, 0):
            column = int(np.argmax(np.abs(cosines[world])))
            tilt = float(np.degrees(np.arccos(min(1.0, abs(cosines[world, column])))))
            if tilt > MAX_TILT_DEG or 2 - column in axes:
                raise CaseError(
                    "the CT's planes are oblique to the patient",
                    expected=f"array axes within {MAX_TILT_DEG:g} degrees of the patient's",
                    found=f"{tilt:.0f} degrees",
                    do="resample the CT to axial slices",
                    code="oblique",
                )
            axes.append(2 - column)
            flips.append(bool(cosines[world, column] < 0))
        turned = reindex(body, axes, flips)
        crop = _bounds(turned)
        spacing = [ct.spacing_mm[2 - axis] for axis in axes]
        factor = tuple(max(1, round(WORK_MM / s)) for s in spacing)
        return cls(ct, tuple(axes), tuple(flips), crop, factor)  # type: ignore[arg-type]

    @cached_property
    def full(self) -> NDArray[Any]:
        """HU at full resolution, in patient order, cropped to the body; padding and metal are not clamped."""
        return np.ascontiguousarray(self.turn(self.ct.array))

    @cached_property
    def hu(self) -> Float32:
        """Mean HU of each block, clamped to -1024..3071 before averaging."""
        low, high = np.array([AIR_HU, MAX_HU]).astype(self.full.dtype)
        return block_means(np.clip(self.full, low, high), self.factor)[0]

    @property
    def full_mm(self) -> tuple[float, float, float]:
        """Spacing of `full` along z, y, x."""
        s = self.ct.spacing_mm
        return s[2 - self.axes[0]], s[2 - self.axes[1]], s[2 - self.axes[2]]

    @property
    def mm(self) -> tuple[float, float, float]:
        """Spacing of `hu` along z, y, x."""
        z, y, x = (s * f for s, f in zip(self.full_mm, self.factor, strict=True))
        return z, y, x

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array on the CT's lattice in patient order, cropped: a view."""
        return reindex(array, self.axes, self.flips)[self.crop]

    def coarse(self, array: Bool) -> Bool:
        """A mask at full resolution to blocks of which it fills half or more."""
        return block_means(array.view(np.uint8), self.factor)[0] >= 0.5

    def fine(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Blow blocks (a mask or labels) up to full resolution."""
        for axis, f in enumerate(self.factor):
            if f > 1:
                mask = np.repeat(mask, f, axis=axis)
        return mask[tuple(slice(n) for n in self.full.shape)]

    def back(self, mask: Bool) -> tuple[Box, Bool]:
        """A mask at full resolution, as its box and content on the CT's own lattice."""
        if not mask.any():
            return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool)
        box = _bounds(mask)
        inner = mask[box]
        sizes = [self.ct.shape[axis] for axis in self.axes]
        start = [c.start + b.start for c, b in zip(self.crop, box, strict=True)]
        out: list[slice] = [slice(0)] * 3
        for turned, axis in enumerate(self.axes):
            low = start[turned]
            high = low + inner.shape[turned]
            if self.flips[turned]:
                low, high = sizes[turned] - high, sizes[turned] - low
            out[axis] = slice(low, high)
        inner = inner[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        order = tuple(int(n) for n in np.argsort(self.axes))
        return (out[0], out[1], out[2]), np.ascontiguousarray(inner.transpose(order))

    def world_mm(self, index_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map ``(..., 3)`` block indices ``(z, y, x)`` to LPS mm."""
        index = (np.asarray(index_zyx, float) + 0.5) * np.asarray(self.factor) - 0.5
        index = index + [c.start for c in self.crop]
        ijk = np.empty_like(index)
        for turned, axis in enumerate(self.axes):
            at = index[..., turned]
            ijk[..., 2 - axis] = self.ct.shape[axis] - 1 - at if self.flips[turned] else at
        return self.ct.grid.to_world(ijk)


def _bounds(mask: Bool) -> Box:
    """The smallest box around a mask that is not empty."""
    ends = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return ends[0], ends[1], ends[2]
