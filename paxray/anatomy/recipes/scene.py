"""The case as operators see it: lattice, HU, coordinates and distances in mm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.recipes.region import Box, Region, Underivable, grow
from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64, Grid

T = TypeVar("T")

#: The patient's directions as unit vectors of world LPS.
LEFT, BACK, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


class Scene:
    """One case's lattice and CT, with what several recipes share.

    Parameters
    ----------
    grid
        The lattice.
    hu
        ``(nk, nj, ni)`` HU, or None where there is no CT at hand.
    unscanned
        Voxels that the scanner did not reconstruct: beyond the scan, as what lies outside the array.
    threads
        For distance transforms; 0 takes as many as there are processors.
    """

    def __init__(
        self,
        grid: Grid,
        hu: NDArray[Any] | None = None,
        unscanned: Region | None = None,
        threads: int = 0,
    ) -> None:
        self.grid = grid
        self.unscanned = unscanned or Region.nothing()
        self._hu = hu
        self._threads = threads
        self._shared: dict[Any, Any] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(nk, nj, ni)`` of the lattice."""
        return self.grid.shape

    @property
    def voxel_mm3(self) -> float:
        """The volume of a voxel."""
        return self.grid.voxel_volume_mm3

    def hu(self, box: Box) -> NDArray[Any]:
        """The CT in a box. `Underivable` without a CT."""
        if self._hu is None:
            raise Underivable("it needs the CT's HU, and only masks are at hand")
        return self._hu[box]

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Compute something that several operators need once, and remember it as long as the scene lives."""
        if key not in self._shared:
            self._shared[key] = make()
        result: T = self._shared[key]
        return result

    @property
    def long_axis(self) -> int:
        """The array axis (0, 1, 2 for k, j, i) nearest to the patient's long axis; slices across it are axial."""
        return self.array_axis(UP)

    @property
    def back_axis(self) -> int:
        """The array axis nearest to the patient's back among the two beside `long_axis`.

        In a lattice tilted about several axes one axis may be the nearest to both directions.
        """
        return self.array_axis(BACK, but=self.long_axis)

    def array_axis(self, direction: tuple[float, float, float], but: int | None = None) -> int:
        """The array axis whose voxel rows run nearest to a world direction, one perhaps left out."""
        cosines = np.abs(np.asarray(direction) @ self.grid.affine[:3, :3]) / np.asarray(self.grid.spacing_mm)
        if but is not None:
            cosines[2 - but] = -1.0
        return 2 - int(np.argmax(cosines))

    def is_rising(self, axis: int, direction: tuple[float, float, float]) -> bool:
        """Whether the coordinate along a direction grows with the index along an array axis."""
        return float(np.asarray(direction) @ self.grid.affine[:3, 2 - axis]) > 0

    def coordinate(self, box: Box, direction: tuple[float, float, float] | Float64) -> Float64:
        """World coordinate of the voxel centres of a box along a direction, in mm.

        Returns
        -------
        Float64 that broadcasts to the box's shape; axes along which it does not change have length 1.
        """
        slope = np.asarray(direction, np.float64) @ self.grid.affine[:3, :3]  # mm per i, j, k
        out = np.full((1, 1, 1), float(np.asarray(direction) @ self.grid.affine[:3, 3]))
        for axis, part in enumerate(box):
            step = float(slope[2 - axis])
            if abs(step) > 1e-12:
                along = [1, 1, 1]
                along[axis] = -1
                out = out + (step * np.arange(part.start, part.stop)).reshape(along)
        return np.asarray(out, np.float64)

    def half_voxel_mm(self, direction: tuple[float, float, float] | Float64) -> float:
        """How far a voxel reaches from its centre along a direction."""
        return float(0.5 * np.abs(np.asarray(direction) @ self.grid.affine[:3, :3]).sum())

    def margin(self, by_mm: float) -> tuple[int, int, int]:
        """Voxels along k, j, i that a distance of ``by_mm`` can reach across, whatever the affine."""
        # The rows of the inverse are the index axes' gradients: a ball reaches radius x length of a row.
        reach = np.linalg.norm(self.grid.inverse[:3, :3], axis=1) * by_mm
        i, j, k = (int(np.ceil(r - 1e-9)) for r in reach)
        return k, j, i

    def around(self, box: Box, by_mm: float) -> Box:
        """The box widened so that all within a distance of it lies inside."""
        return grow(box, self.margin(by_mm), self.shape)

    def distance_mm(self, target: BoolArray, upper_mm: float) -> NDArray[np.float32]:
        """Distance of each voxel centre to the nearest voxel centre of ``target``, both in one box.

        Parameters
        ----------
        target
            Bool, any box of the lattice.
        upper_mm
            Distances beyond this need not be right (they are larger, or infinite).

        Notes
        -----
        Orthogonal lattices take an exact Euclidean distance transform with their own spacing; sheared ones (a tilted
        gantry) a k-d tree in world coordinates.
        """
        if not target.any():
            return np.full(target.shape, np.inf, np.float32)
        axes = self.grid.affine[:3, :3] / np.asarray(self.grid.spacing_mm)
        if np.abs(axes.T @ axes - np.eye(3)).max() < 1e-4:
            import edt

            spacing = tuple(reversed(self.grid.spacing_mm))
            out: NDArray[np.float32] = edt.edt(
                np.ascontiguousarray(~target), anisotropy=spacing, black_border=False, parallel=self._threads
            )
            return out
        from scipy.spatial import KDTree

        out = np.full(target.shape, np.inf, np.float32)
        index = np.indices(target.shape).reshape(3, -1).T[:, ::-1] @ self.grid.affine[:3, :3].T
        tree = KDTree(index[target.reshape(-1)])
        distance, _ = tree.query(
            index, distance_upper_bound=upper_mm * (1 + 1e-6) + 1e-6, workers=self._threads or -1
        )
        return distance.astype(np.float32).reshape(target.shape)

    def world(self, region: Region) -> Float64:
        """``(n, 3)`` world LPS mm of a region's voxel centres."""
        return self.grid.to_world(region.indices())

    def centre_line(self, region: Region, step_mm: float = 5.0) -> Float64:
        """``(n, 3)`` centroids of a region, one for every ``step_mm`` along the patient that it reaches; world mm."""

        def find() -> Float64:
            world = self.world(region)
            bins = np.floor(world[:, 2] / step_mm).astype(np.int64)
            bins -= bins.min()
            counts = np.bincount(bins)
            sums = np.column_stack([np.bincount(bins, world[:, axis]) for axis in range(3)])
            filled = counts > 0
            return np.asarray(sums[filled] / counts[filled, None])

        return self.once(("centre line", region.identity, step_mm), find)
