"""Long and short axis of shapes whose diameters are known."""

from __future__ import annotations

import numpy as np
import pytest
from measure_shapes import TURN, anatomy_of, ball, box, grid_of, points, volume_of

from paxray.io.volume import Grid
from paxray.measure.lesions import axial_axes_mm
from paxray.measure.voxel_set import VoxelSet


def axes_of(grid: Grid, mask: np.ndarray) -> tuple[float, float]:
    labels = volume_of(grid, {"lymph_nodes#1": mask})
    region = VoxelSet.of(labels, anatomy_of(labels).boxes_ijk, ["lymph_nodes#1"])
    assert region is not None
    return axial_axes_mm(region)


@pytest.mark.parametrize("turn_deg", [0, 20, 45, 77])
@pytest.mark.parametrize("spacing", [(0.5, 0.5, 2.0), (0.5, 0.7, 1.0)])
def test_ellipse(turn_deg: float, spacing: tuple[float, float, float]) -> None:
    """Half axes 10 and 6 mm in the slice, however it lies there; along the body it may be as long as it likes."""
    grid = grid_of((40, 60, 60), spacing)
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    x, y, z = np.moveaxis(points(grid), -1, 0)
    mask = ((c * x + s * y) / 10) ** 2 + ((c * y - s * x) / 6) ** 2 + (z / 18) ** 2 <= 1
    long_axis, short_axis = axes_of(grid, mask)
    assert long_axis == pytest.approx(20, abs=0.7)
    assert short_axis == pytest.approx(12, abs=0.7)


def test_the_slice_with_the_longest_diameter_counts() -> None:
    """A long thin slice beats a large round one; the short axis is that slice's."""
    grid = grid_of((9, 60, 60), (1.0, 1.0, 2.0))
    round_one = ball(grid, (0, 0, -4), 10) & (np.abs(points(grid)[..., 2] + 4) < 0.5)
    thin = box(grid, (-20, -2, 3.5), (20, 2, 4.5))
    long_axis, short_axis = axes_of(grid, round_one | thin)
    assert long_axis == pytest.approx(40, abs=0.5)
    assert short_axis == pytest.approx(4, abs=0.5)


def test_a_single_voxel_is_as_long_as_its_edge() -> None:
    grid = grid_of((5, 5, 5), (0.8, 0.6, 2.0))
    one = np.zeros(grid.shape, bool)
    one[2, 2, 2] = True
    assert axes_of(grid, one) == pytest.approx((0.8, 0.6))


def test_a_rectangle_is_measured_along_its_diagonal() -> None:
    """The hull lacks half a pixel at each corner; the longest chord across the diagonal is short side / cos."""
    grid = grid_of((3, 200, 200), (0.2, 0.2, 1.0))
    width, height = 24.0, 10.0
    mask = box(grid, (-width / 2, -height / 2, -2), (width / 2, height / 2, 2))
    long_axis, short_axis = axes_of(grid, mask)
    diagonal = np.hypot(width, height)
    assert long_axis == pytest.approx(diagonal, abs=0.4)
    assert short_axis == pytest.approx(height * diagonal / width, abs=0.4)


def test_an_oblique_scan_is_measured_in_its_own_slices() -> None:
    straight, turned = grid_of((30, 60, 60), (0.6, 0.6, 1.5)), grid_of((30, 60, 60), (0.6, 0.6, 1.5), TURN)
    for grid in (straight, turned):
        assert axes_of(grid, ball(grid, (0.1, 0.2, 0.1), 8)) == pytest.approx((16, 16), abs=0.8)
