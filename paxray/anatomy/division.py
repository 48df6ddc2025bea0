"""Where a tube has two parts: the airway below its carina, the aorta below its arch.

One rule for recipes, landmarks and measures: the first axial slice, from above, with two parts that stay two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64, Grid

#: A part of a slice smaller than this is a speck of a mask or a small branch, no bronchus.
BRONCHUS_MM2 = 15.0
#: A part of the aorta's slice is a limb if it has this share of a usual slice; the stump of a branch is smaller.
LIMB_SHARE = 0.25
#: Two parts must stay two over this length.
APART_MM = 5.0


def slice_axis(grid: Grid) -> int:
    """The array axis (0 for k, 1 for j, 2 for i) nearest to the patient's long axis."""
    return 2 - int(np.argmax(np.abs(grid.affine[2, :3]) / np.asarray(grid.spacing_mm)))


@dataclass(frozen=True, eq=False)
class Slices:
    """A mask in a box of a lattice, seen as slices across the patient.

    Attributes
    ----------
    mask
        ``[k, j, i]`` bool.
    first_ijk
        ``(3,)`` voxel (i, j, k) of the volume at which the box begins.
    grid
        The whole volume's lattice.
    """

    mask: BoolArray
    first_ijk: NDArray[np.int64]
    grid: Grid

    @cached_property
    def slice_axis(self) -> int:
        """The array axis (0 for k, 1 for j, 2 for i) nearest to the patient's long axis."""
        return slice_axis(self.grid)

    def slices_from_above(self) -> list[tuple[int, BoolArray]]:
        """Index within the box, and mask, of each slice across the patient, the uppermost first."""
        planes = np.moveaxis(self.mask, self.slice_axis, 0)
        order = range(len(planes))
        upward = self.grid.affine[2, 2 - self.slice_axis] > 0
        return [(n, planes[n]) for n in (reversed(order) if upward else order)]

    def to_world(self, index: int, places: NDArray[Any]) -> Float64:
        """``(n, 3)`` LPS mm of places ``(row, column)``, which may be fractional, in slice `index` of the box."""
        full = np.insert(np.atleast_2d(np.asarray(places, float)), self.slice_axis, index, axis=1)
        return self.grid.to_world(full[:, ::-1] + self.first_ijk)

    @cached_property
    def step_mm(self) -> float:
        """Distance between neighbouring slices, across them."""
        one, other = (axis for axis in range(3) if axis != 2 - self.slice_axis)
        normal = np.cross(self.grid.affine[:3, one], self.grid.affine[:3, other])
        normal /= np.linalg.norm(normal)
        return float(abs(normal @ self.grid.affine[:3, 2 - self.slice_axis]))

    @property
    def pixel_mm2(self) -> float:
        """Area of a slice's pixel."""
        return self.grid.voxel_volume_mm3 / self.step_mm

    def parts(self, plane: BoolArray, at_least_mm2: float = 0.0) -> list[NDArray[np.int64]]:
        """``(n, 2)`` places (row, column) of each connected part (8 neighbours) large enough, the largest first."""
        from scipy import ndimage

        numbers, count = ndimage.label(plane, np.ones((3, 3), bool))
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:] * self.pixel_mm2
        order = sorted(range(count), key=lambda n: (-sizes[n], n))
        return [np.argwhere(numbers == n + 1) for n in order if sizes[n] >= at_least_mm2]


def first_division(of: Slices, at_least_mm2: float, *, from_one: bool = True) -> int | None:
    """Number, in the order from above, of the first slice with two parts that stay two over `APART_MM`.

    Parameters
    ----------
    of
        The tube.
    at_least_mm2
        Smaller parts do not count.
    from_one
        A slice with one part must lie above: where the scan begins below the division, it is not seen. Otherwise the
        uppermost slice may be the first.

    Returns
    -------
    None where there is none.
    """
    need = max(2, int(np.ceil(APART_MM / of.step_mm - 1e-6)))
    one_above, run = not from_one, 0
    for n, (_, plane) in enumerate(of.slices_from_above()):
        count = len(of.parts(plane, at_least_mm2))
        run = run + 1 if count >= 2 and one_above else 0
        if run == need:
            return n - need + 1
        one_above = one_above or count == 1
    return None


def carina_mm(airway: Slices) -> Float64 | None:
    """``(3,)`` LPS mm: half way between the nearest points of the two parts in the slice where the airway divides.

    Where several pairs are equally near (parallel walls), their middle. None where the division is not seen.
    """
    from scipy.spatial.distance import cdist

    n = first_division(airway, BRONCHUS_MM2)
    if n is None:
        return None
    index, plane = airway.slices_from_above()[n]
    one, other = (airway.to_world(index, part) for part in airway.parts(plane, BRONCHUS_MM2)[:2])
    apart = cdist(one, other)
    a, b = np.nonzero(apart <= apart.min() + 1e-6)
    return np.asarray((one[a].mean(axis=0) + other[b].mean(axis=0)) / 2)


def limb_mm2(aorta: Slices) -> float:
    """The least area of a limb of the aorta: `LIMB_SHARE` of the median of its slices' largest parts."""
    areas = [
        len(aorta.parts(plane)[0]) * aorta.pixel_mm2 for _, plane in aorta.slices_from_above() if plane.any()
    ]
    return max(BRONCHUS_MM2, LIMB_SHARE * float(np.median(areas)))
