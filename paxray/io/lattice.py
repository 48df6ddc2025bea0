"""The lattice rule: a mask lies on its CT's voxels, up to axis order, flips and a whole-voxel offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.volume import Grid, reindex

Box = tuple[slice, slice, slice]
EMPTY_BOX: Box = (slice(0, 0), slice(0, 0), slice(0, 0))

LATTICE_TOLERANCE = 0.01  # of the CT's smallest spacing


@dataclass(frozen=True)
class LatticeMatch:
    """How a mask's array maps onto a CT's array, voxel to voxel. All tuples are in array order k, j, i.

    Parameters
    ----------
    axes
        The mask array's axes in the order of the CT's.
    flips
        Which axes are reversed, after `axes`.
    offset
        Where in the CT's array the first voxel then lies; negative where the mask begins outside.
    source
        The part of the re-indexed mask that lies inside the CT.
    extent
        The part of the CT that the mask covers.
    displacement_mm
        The largest distance of a voxel centre from its CT voxel's.
    shape
        The mask's own array's.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    offset: tuple[int, int, int]
    source: Box
    extent: Box
    displacement_mm: float

    shape: tuple[int, int, int]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the mask's array in the CT's axis order, cut to `extent`."""
        return reindex(array, self.axes, self.flips)[self.source]

    def place(self, box: Box, array: NDArray[Any]) -> tuple[Box, NDArray[Any]]:
        """Map a part of the mask's array to its box in the CT's array and a view in the CT's axis order.

        What lies outside the CT is cut off; where nothing is left the box is of size 0.

        Parameters
        ----------
        box
            Where ``array`` lies in the mask's own array, with explicit bounds.
        """
        turned = reindex(array, self.axes, self.flips)
        placed, kept = [], []
        for ct_axis, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            part = box[axis]
            start = self.offset[ct_axis] + (self.shape[axis] - part.stop if flip else part.start)
            whole = self.extent[ct_axis]
            low = max(start, whole.start)
            high = min(start + part.stop - part.start, whole.stop)
            if low >= high:
                return EMPTY_BOX, turned[:0, :0, :0]
            placed.append(slice(low, high))
            kept.append(slice(low - start, high - start))
        return (placed[0], placed[1], placed[2]), turned[tuple(kept)]


def match_lattice(mask_grid: Grid, ct_grid: Grid, *, where: str = "") -> LatticeMatch:
    """Find the re-indexing that puts a mask's voxels onto a CT's.

    Raises
    ------
    CaseError
        Code ``mask_mismatch``: a voxel centre lies more than 1 % of the CT's smallest spacing from any CT
        voxel's that a permutation, flips and a whole-voxel offset can give it, or the mask lies wholly
        outside the CT. The map is affine, so the eight corners decide.
    """
    step = ct_grid.inverse[:3, :3] @ mask_grid.affine[:3, :3]  # CT voxels (ijk) per mask voxel (ijk)
    turn = _signed_permutation(step)
    nk, nj, ni = mask_grid.shape
    corners = np.array(
        [(i, j, k) for k in (0, nk - 1) for j in (0, nj - 1) for i in (0, ni - 1)], dtype=float
    )
    mapped = ct_grid.to_index(mask_grid.to_world(corners))
    drift = mapped - corners @ turn.T
    shift = np.rint((drift.min(axis=0) + drift.max(axis=0)) / 2)
    off_mm = float(np.linalg.norm((drift - shift) @ ct_grid.affine[:3, :3].T, axis=1).max())
    tolerance_mm = LATTICE_TOLERANCE * min(ct_grid.spacing_mm)
    if not off_mm <= tolerance_mm:
        raise CaseError(
            "the mask does not lie on the CT's voxels",
            where=where,
            expected=f"every voxel within {tolerance_mm:.4f} mm of a CT voxel: {_describe(ct_grid)}",
            found=f"{_other_spacing(mask_grid, ct_grid)}largest displacement {off_mm:.4g} mm: {_describe(mask_grid)}",
            do=_mirrored_perhaps(mask_grid, ct_grid)
            + "segment this very CT, or resample the mask onto its grid (nearest neighbour)",
            code="mask_mismatch",
        )
    return _match(turn, shift, mask_grid, ct_grid, off_mm, where)


def _signed_permutation(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the permutation with signs that is nearest to ``step``, largest entries first."""
    left = np.abs(step)
    turn = np.zeros((3, 3))
    for _ in range(3):
        row, column = np.unravel_index(int(np.argmax(left)), left.shape)
        turn[row, column] = 1.0 if step[row, column] >= 0 else -1.0
        left[row, :] = -1
        left[:, column] = -1
    return turn


def _match(
    turn: NDArray[np.float64],
    shift: NDArray[np.float64],
    mask_grid: Grid,
    ct_grid: Grid,
    off_mm: float,
    where: str,
) -> LatticeMatch:
    shape = mask_grid.shape
    axes, flips, offset, source, extent = [], [], [], [], []
    for ct_axis in range(3):  # array axis; the affine's axes run the other way round
        row = turn[2 - ct_axis]
        column = int(np.flatnonzero(row)[0])
        axis, flip = 2 - column, bool(row[column] < 0)
        size = shape[axis]
        start = int(shift[2 - ct_axis]) - (size - 1 if flip else 0)
        low, high = max(0, start), min(ct_grid.shape[ct_axis], start + size)
        if low >= high:
            raise CaseError(
                "the mask lies outside the CT",
                where=where,
                expected=f"voxels in common with the CT: {_describe(ct_grid)}",
                found=f"voxels {start} to {start + size - 1} along array axis {'kji'[ct_axis]}, "
                f"where the CT has 0 to {ct_grid.shape[ct_axis] - 1}",
                do=_mirrored_perhaps(mask_grid, ct_grid) + "check that mask and CT belong together",
                code="mask_mismatch",
            )
        axes.append(axis)
        flips.append(flip)
        offset.append(start)
        source.append(slice(low - start, high - start))
        extent.append(slice(low, high))
    axes_, flips_, offset_, source_, extent_ = (tuple(each) for each in (axes, flips, offset, source, extent))
    return LatticeMatch(axes_, flips_, offset_, source_, extent_, off_mm, shape)  # type: ignore[arg-type]


def _other_spacing(mask_grid: Grid, ct_grid: Grid) -> str:
    """The plain fact where voxels differ in size, whatever the order of the axes."""
    one, other = (np.sort(grid.spacing_mm) for grid in (mask_grid, ct_grid))
    if np.allclose(one, other, rtol=LATTICE_TOLERANCE, atol=0):
        return ""
    return f"voxels of {_sizes(mask_grid)} mm on a CT of {_sizes(ct_grid)} mm; "


def _mirrored_perhaps(mask_grid: Grid, ct_grid: Grid) -> str:
    """A caution where left and right run in opposite orders: resampling would then mirror the mask."""
    if ("L" in mask_grid.orientation) == ("L" in ct_grid.orientation):
        return ""
    return "left and right run the other way in the mask's header, which may be mirrored: check before resampling; "


def _sizes(grid: Grid) -> str:
    return " x ".join(f"{size:.5g}" for size in grid.spacing_mm)


def _describe(grid: Grid) -> str:
    nk, nj, ni = grid.shape
    origin = ", ".join(f"{value:.5g}" for value in grid.affine[:3, 3])
    return f"{ni} x {nj} x {nk} voxels of {_sizes(grid)} mm, first at ({origin}), axes {grid.orientation}"
