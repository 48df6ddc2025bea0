"""The shapes against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray.phantom.canvas import BodyFrame, Canvas
from paxray.phantom.shapes import (
    Ellipsoid,
    Tube,
    paint_ellipsoid,
    rotation,
    smooth_union,
    tube,
    tube_distance,
)


def canvas(step_mm: float = 1.0, half_mm: float = 30.0) -> Canvas:
    axis = np.arange(-half_mm, half_mm + step_mm / 2, step_mm)
    return Canvas((axis, axis, axis), BodyFrame((1.0, 1.0, 1.0), 0.0, 0.0), {"ball": 1})


def whole(target: Canvas) -> tuple[slice, slice, slice]:
    k, j, i = (slice(0, n) for n in target.hu.shape)
    return k, j, i


def test_painted_ball_has_the_volume_of_a_ball_in_labels_and_in_density() -> None:
    target = canvas()
    paint_ellipsoid(target, Ellipsoid((0.3, -0.2, 0.1), (20.0, 20.0, 20.0)), "ball", 0.0)
    truth = 4 / 3 * np.pi * 20.0**3
    assert (target.labels == 1).sum() == pytest.approx(truth, rel=0.005)
    assert ((target.hu + 1000.0) / 1000.0).sum() == pytest.approx(truth, rel=0.005)


@given(
    radii=st.tuples(*[st.floats(5.0, 20.0)] * 3),
    axis=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1)),
)
@settings(max_examples=20, deadline=None)
def test_ellipsoid_is_zero_on_its_surface_and_inside_its_bounds(
    radii: tuple[float, float, float], axis: tuple[float, float, float]
) -> None:
    shape = Ellipsoid((1.0, 2.0, 3.0), radii, rotation(axis))
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(200, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    surface = (unit * radii) @ rotation(axis) + shape.center
    x, y, z = surface.T.astype(np.float32)
    assert np.abs(shape.distance(x, y, z)).max() < 1e-3
    low, high = shape.bounds
    assert np.all(surface >= low - 1e-9)
    assert np.all(surface <= high + 1e-9)


def test_rotation_is_proper_and_leads_with_its_axis() -> None:
    for axis in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, -0.5, 0.8)):
        r = rotation(axis)
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(r) == pytest.approx(1.0)
        np.testing.assert_allclose(r[0], np.asarray(axis) / np.linalg.norm(axis))


def test_tube_distance_is_the_distance_to_the_line_less_the_radius() -> None:
    target = canvas()
    shape = Tube(np.array([[-15.0, 0.0, 0.0], [0.0, 5.0, 2.0], [15.0, 0.0, 8.0]]), np.array([4.0, 4.0, 4.0]))
    got = tube_distance(target, shape, whole(target), clearance_mm=8.0)
    z, y, x = np.meshgrid(*[np.arange(-30.0, 31.0)] * 3, indexing="ij")
    at = np.stack([x, y, z], axis=-1)
    best = np.full(x.shape, np.inf)
    for a, b in zip(shape.points[:-1], shape.points[1:], strict=True):
        t = np.clip((at - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        best = np.minimum(best, np.linalg.norm(at - a - t[..., None] * (b - a), axis=-1))
    near = best < 10.0
    np.testing.assert_allclose(got[near], best[near] - 4.0, atol=1e-3)


def test_flat_tube_has_its_two_radii_and_a_short_end() -> None:
    target = canvas()
    normals = np.tile([0.0, 1.0, 0.0], (2, 1))
    shape = Tube(np.array([[0.0, 0.0, -15.0], [0.0, 0.0, 15.0]]), np.full(2, 3.0), normals, np.full(2, 9.0))
    inside = tube_distance(target, shape, whole(target)) < 0
    k, j, i = (np.ptp(index) + 1 for index in np.nonzero(inside))
    assert (i, j) == (17, 5)
    assert k == pytest.approx(35, abs=1)


def test_tube_through_points_passes_them() -> None:
    points = [(0.0, 0.0, 0.0), (10.0, 0.0, 5.0), (20.0, 10.0, 5.0)]
    fine = tube(points, 2.0, step_mm=0.5)
    gap = np.linalg.norm(fine.points[:, None] - np.asarray(points)[None], axis=2).min(axis=0)
    assert gap.max() < 0.5


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(1, 30))
def test_smooth_union_is_below_both_and_equal_when_far(a: float, b: float, blend: float) -> None:
    value = float(smooth_union(np.float32(a), np.float32(b), blend))  # type: ignore[arg-type]
    assert value <= min(a, b) + 1e-4
    assert value >= min(a, b) - blend / 4 - 1e-4
    if abs(a - b) >= blend:
        assert value == pytest.approx(min(a, b), abs=1e-4)


def test_frame_and_canvas_agree_on_where_a_point_is() -> None:
    frame = BodyFrame((0.95, 1.1, 1.03), 5.0, 8.0)
    axes = tuple(np.linspace(-120.0, 120.0, 13) for _ in range(3))
    target = Canvas((axes[0], axes[1], axes[2]), frame, {})
    box = whole(target)
    x, y, z = (np.broadcast_to(part, target.hu.shape) for part in target.coordinates(box))
    world = frame.to_world(np.stack([x, y, z], axis=-1))
    z_mm, y_mm, x_mm = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    np.testing.assert_allclose(world, np.stack([x_mm, y_mm, z_mm], axis=-1), atol=1e-3)
