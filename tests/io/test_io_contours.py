"""Polygons to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import grid_points_in_poly

from paxray.io.contours import fill


def filled(polygons, shape) -> np.ndarray:
    out = np.zeros(shape, bool)
    found = fill([np.asarray(points, float) for points in polygons], shape)
    if found is not None:
        out[found[0], found[1]] = found[2]
    return out


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def circle(centre: tuple[float, float], radius: float, n: int = 720) -> np.ndarray:
    angle = np.arange(n) * 2 * np.pi / n
    return np.array(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_a_rectangle_holds_the_centres_in_it():
    inside = filled([box(1.5, 0.5, 4.5, 2.5)], (5, 7))
    expected = np.zeros((5, 7), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(inside, expected)


@pytest.mark.parametrize("radius", [3.3, 17.2, 60.7])
def test_a_circle_has_its_area(radius):
    """Gauss's circle problem: the pixels that the edge crosses bound the difference; far fewer are wrong."""
    inside = filled([circle((64.3, 63.8), radius)], (128, 128))
    assert abs(inside.sum() - np.pi * radius**2) < 2 * np.sqrt(2 * np.pi * radius)
    rows, columns = np.nonzero(inside)
    assert np.hypot(columns - 64.3, rows - 63.8).max() <= radius


def test_polygons_that_share_edges_share_no_pixel_and_leave_none_out():
    """Corners on pixel centres, edges through them: a fan of triangles that fills a square."""
    corners = np.array([[0, 0], [4, 0], [8, 0], [8, 4], [8, 8], [4, 8], [0, 8], [0, 4]], float)
    middle = np.array([4, 4])
    fan = [np.array([a, b, middle]) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    covered = sum(filled([triangle], (12, 12)).astype(int) for triangle in fan)
    np.testing.assert_array_equal(covered, filled([corners], (12, 12)))
    assert covered.sum() == 64


def test_a_contour_within_another_is_a_hole_and_one_within_that_is_not():
    inside = filled([box(0.5, 0.5, 10.5, 10.5), box(2.5, 2.5, 8.5, 8.5), box(4.5, 4.5, 6.5, 6.5)], (12, 12))
    assert inside.sum() == 100 - 36 + 4
    assert inside[1, 1]
    assert not inside[3, 3]
    assert inside[5, 5]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 2 * np.pi), st.floats(-3, 3), st.floats(-3, 3))
def test_a_keyhole_is_the_hole_that_it_leads_to(angle, x, y):
    """The channel runs to and fro; whatever its slope, its two sides cancel to the last pixel."""
    outer = circle((20 + x, 20 + y), 15, 90)
    inner = circle((20 + x, 20 + y), 6, 60)
    start = int(angle / (2 * np.pi) * 89)
    outer = np.roll(outer, -start, axis=0)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    np.testing.assert_array_equal(filled([keyhole], (40, 40)), filled([outer, inner], (40, 40)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 23), st.floats(-3, 18)), min_size=3, max_size=12), st.randoms())
def test_agrees_with_scikit_image_and_with_itself_turned_round(points, random):
    # Corners off the centres: on an edge each library has a rule of its own.
    polygon = np.array([(x + random.uniform(0.01, 0.02), y + random.uniform(0.01, 0.02)) for x, y in points])
    inside = filled([polygon], (16, 20))
    np.testing.assert_array_equal(inside, filled([polygon[::-1]], (16, 20)))
    np.testing.assert_array_equal(inside, filled([np.roll(polygon, 1, axis=0)], (16, 20)))
    near = np.zeros(inside.shape, bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        near |= _distance(a, b, inside.shape) < 1e-6
    theirs = grid_points_in_poly(inside.shape, polygon[:, ::-1])
    np.testing.assert_array_equal(inside[~near], theirs[~near])


def _distance(a: np.ndarray, b: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Of every pixel's centre from a segment."""
    rows, columns = np.indices(shape)
    points = np.stack([columns, rows], axis=-1).astype(float)
    along = b - a
    length = float(along @ along)
    share = np.clip((points - a) @ along / length, 0, 1) if length else np.zeros(shape)
    return np.linalg.norm(points - a - share[..., None] * along, axis=-1)


def test_what_lies_beyond_the_picture_is_cut_off():
    whole = filled([circle((10, 10), 8)], (20, 20))
    moved = circle((10, 10), 8) - [7, 5]
    np.testing.assert_array_equal(filled([moved], (10, 9)), whole[5:15, 7:16])
    assert fill([circle((-30, 5), 8)], (10, 10)) is None
    assert not filled([box(3.2, 3.2, 3.4, 9)], (10, 10)).any()
