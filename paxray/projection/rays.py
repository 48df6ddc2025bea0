"""The rays of a view in the index space of a volume: what every backend starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from paxray.io.volume import Grid
from paxray.projection.view import View

Float64 = NDArray[np.float64]

#: A fan is too wide for one stepping axis where some ray advances along it by less than this share of its
#: fastest axis: Joseph's method then skips voxels.
FAN_LIMIT = 0.5

#: Positions are rounded to this many decimals of a voxel, so that a sample exactly on the border of two voxels
#: (pixels on voxel borders are common in parallel beams) is not decided by the noise of the last bit.
POSITION_DECIMALS = 9


#: Rays of a wide fan whose axes are chosen at a time; bounds the memory that it takes.
_RAYS_AT_A_TIME = 2**16


@dataclass(frozen=True, eq=False)
class IndexRays:
    """A view's rays in continuous voxel indices ``(i, j, k)``.

    Pixel ``(row, column)`` sits at ``pixel + column * du + row * dv``. A cone's ray runs from `source`
    (depth 0) to the pixel; a parallel ray through the pixel along `direction` (index steps per mm), the
    pixel lying at depth `pixel_depth_mm`.

    Attributes
    ----------
    metric
        ``(3, 3)`` A^T A of the affine's linear part: the length in mm of an index vector d is
        ``sqrt(d @ metric @ d)``.
    """

    cone: bool
    size: tuple[int, int]
    pixel: Float64
    du: Float64
    dv: Float64
    source: Float64
    direction: Float64
    pixel_depth_mm: float
    metric: Float64

    @classmethod
    def of(cls, view: View, grid: Grid) -> IndexRays:
        """Take a view into the index space of a grid; nothing is resampled."""
        linear = grid.inverse[:3, :3]
        forward = grid.affine[:3, :3]
        return cls(
            cone=view.beam == "cone",
            size=view.size,
            pixel=grid.to_index(view.first_pixel_mm),
            du=linear @ (view.u * view.pitch_mm[0]),
            dv=linear @ (view.v * view.pitch_mm[1]),
            source=grid.to_index(view.source_mm),
            direction=linear @ view.direction,
            pixel_depth_mm=float((view.first_pixel_mm - view.source_mm) @ view.direction),
            metric=forward.T @ forward,
        )

    def part(self, top: int, height: int) -> IndexRays:
        """The rays of `height` rows from row `top` on; their depth is counted from the same plane or source."""
        down = top * self.dv
        # The pixels of a detector that is tilted to a parallel beam lie at different depths.
        depth = 0.0 if self.cone else float(self.direction @ self.metric @ down)
        return replace(
            self,
            size=(height, self.size[1]),
            pixel=self.pixel + down,
            pixel_depth_mm=self.pixel_depth_mm + depth,
        )

    def pixels(self) -> Float64:
        """``(rows, columns, 3)`` pixel centres in index space."""
        rows, columns = self.size
        return (
            self.pixel
            + np.arange(columns)[None, :, None] * self.du
            + np.arange(rows)[:, None, None] * self.dv
        )

    def directions(self) -> Float64:
        """``(rows, columns, 3)`` index steps per mm along each ray (parallel: depth offset not included)."""
        rows, columns = self.size
        if not self.cone:
            return np.broadcast_to(self.direction, (rows, columns, 3))
        toward = self.pixels() - self.source
        length = np.sqrt(np.einsum("...a,ab,...b->...", toward, self.metric, toward))
        return toward / length[..., None]

    def depth_of_pixels_mm(self) -> Float64:
        """``(rows, columns)`` depth at which each ray reaches the detector."""
        rows, columns = self.size
        if not self.cone:
            # A detector tilted to a parallel beam has its pixels at different depths.
            per_mm = self.direction @ self.metric
            shift = (self.pixels() - self.pixel) @ per_mm
            return self.pixel_depth_mm + shift
        toward = self.pixels() - self.source
        return np.sqrt(np.einsum("...a,ab,...b->...", toward, self.metric, toward)).reshape(rows, columns)


def stepping_axes(view: View, grid: Grid) -> NDArray[np.int8]:
    """Choose the axis along which the rays step: one for the view, or one for each ray of a wide fan.

    Returns
    -------
    ndarray
        ``(1, 1)`` for the whole view, else ``(rows, columns)``; values 1, 2, 3 for i, j, k, negative where
        the rays run against the index. The view's axis is the one that its central ray crosses the most
        voxels along. A tie goes to the axis nearest to world y, then x, then z, so that the choice does
        not depend on how the array is laid out.
    """
    rays = IndexRays.of(view, grid)
    cosines = np.abs(grid.affine[:3, :3]) / np.asarray(grid.spacing_mm)
    rank = np.array([3.0, 4.0, 2.0]) @ np.round(cosines, 6)

    def fastest(step: Float64) -> NDArray[np.int8]:
        speed = np.abs(step)
        near = speed >= speed.max(axis=-1, keepdims=True) * (1 - 1e-6)
        axis = np.argmax(np.where(near, rank, -1.0), axis=-1)
        sign = np.sign(np.take_along_axis(step, axis[..., None], axis=-1)[..., 0])
        return ((axis + 1) * sign).astype(np.int8)

    central = grid.inverse[:3, :3] @ view.direction
    whole = fastest(central[None, None, :])
    if not rays.cone:
        return whole
    # A ray's step is linear in the pixel before it is normalised, so the corners bound it along each axis.
    rows, columns = view.size
    corner = np.array([[0, 0], [0, columns - 1], [rows - 1, 0], [rows - 1, columns - 1]], dtype=np.float64)
    toward = rays.pixel + corner[:, 1:] * rays.du + corner[:, :1] * rays.dv - rays.source
    axis, sign = abs(int(whole[0, 0])) - 1, np.sign(whole[0, 0])
    if (toward[:, axis] * sign >= FAN_LIMIT * np.abs(toward).max(axis=1)).all():
        return whole
    axes = np.empty(view.size, np.int8)
    height = max(1, _RAYS_AT_A_TIME // columns)
    for top in range(0, rows, height):
        part = rays.part(top, min(height, rows - top))
        axes[top : top + height] = fastest(part.pixels() - rays.source)
    return axes
