"""Poses, matrices and rays against the conventions they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxray.errors import ConfigError
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.view import View

LEFT, BACK, UP = np.eye(3)
BOX = np.array([[x, y, z] for x in (-200, 180) for y in (-110, 130) for z in (-150, 170)], float)
POSES = ("pa", "ap", "lateral_left", "lateral_right", "rao", "lao", "rpo", "lpo")


def view_of(name: str, beam: str = "cone", **setup: object) -> View:
    return place(Pose.named(name), Setup(beam=beam, **setup), BOX)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "to_detector", "right"),
    [
        ("pa", -BACK, LEFT),
        ("ap", BACK, LEFT),
        ("lateral_left", LEFT, BACK),
        ("lateral_right", -LEFT, -BACK),
        ("rao", (-LEFT - BACK) / np.sqrt(2), (LEFT - BACK) / np.sqrt(2)),
        ("lao", (LEFT - BACK) / np.sqrt(2), (LEFT + BACK) / np.sqrt(2)),
        ("rpo", (-LEFT + BACK) / np.sqrt(2), (-LEFT - BACK) / np.sqrt(2)),
        ("lpo", (LEFT + BACK) / np.sqrt(2), (-LEFT + BACK) / np.sqrt(2)),
    ],
)
def test_named_poses(name: str, to_detector: np.ndarray, right: np.ndarray) -> None:
    direction, u, v = Pose.named(name).axes()
    np.testing.assert_allclose(direction, to_detector, atol=1e-15)
    np.testing.assert_allclose(u, right, atol=1e-15)
    np.testing.assert_allclose(v, -UP, atol=1e-15)


@given(azimuth=st.floats(-180, 180), elevation=st.floats(-89, 89), roll=st.floats(-180, 180))
def test_any_pose_is_seen_from_the_detector(azimuth: float, elevation: float, roll: float) -> None:
    direction, u, v = Pose("own", azimuth, elevation, roll).axes()
    np.testing.assert_allclose([u @ u, v @ v, direction @ direction], 1, atol=1e-12)
    np.testing.assert_allclose([u @ v, u @ direction, v @ direction], 0, atol=1e-12)
    # The observer looks against the beam: right x down points away from him, against the direction.
    np.testing.assert_allclose(np.cross(u, v), -direction, atol=1e-12)


def test_elevation_raises_the_detector() -> None:
    direction, _, v = Pose("own", 0, 20).axes()
    assert direction @ UP == pytest.approx(np.sin(np.radians(20)))
    assert v @ UP < 0  # head up


def test_roll_turns_the_detector_clockwise() -> None:
    _, u, _ = Pose("own", 0, 0, 30).axes()
    # Clockwise as seen: the detector's right side goes down.
    np.testing.assert_allclose(u, np.cos(np.radians(30)) * LEFT - np.sin(np.radians(30)) * UP, atol=1e-15)


@pytest.mark.parametrize("name", POSES)
@pytest.mark.parametrize("beam", ["cone", "parallel"])
def test_matrix_ray_and_pixel_agree(name: str, beam: str) -> None:
    view = view_of(name, beam, size=(300, 400))
    points = np.random.default_rng(3).uniform(BOX.min(0), BOX.max(0), (200, 3))
    pixel = view.project_points(points)
    origin, direction = view.ray(pixel[:, 0], pixel[:, 1])
    miss = np.linalg.norm(np.cross(points - origin, direction), axis=1)
    assert miss.max() < 1e-6  # mm
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", POSES)
def test_camera_matrices(name: str) -> None:
    view = view_of(name)
    assert view.K is not None
    np.testing.assert_allclose(view.R @ view.R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view.R) == pytest.approx(1)
    np.testing.assert_allclose(view.R[2], view.direction, atol=1e-12)
    assert (view.K[0, 0] < 0) == (name != "ap")  # ap alone is mirrored
    assert abs(view.K[0, 0]) == pytest.approx(view.sdd_mm / view.pitch_mm[0])
    np.testing.assert_allclose(view.matrix, view.K @ np.column_stack([view.R, view.t]))
    np.testing.assert_allclose(view.R @ view.source_mm + view.t, 0, atol=1e-9)


def test_parallel_matrix_is_affine() -> None:
    view = view_of("lao", "parallel")
    assert view.K is None
    assert view.matrix[2].tolist() == [0, 0, 0, 1]


def test_parallel_rays_oblique_to_the_detector() -> None:
    slanted = np.array([0.3, -1.0, 0.1])
    view = View(
        "own", "parallel", np.array([0, 500.0, 0]), slanted / np.linalg.norm(slanted), np.array([0, -200.0, 0]),
        LEFT, -UP, (1.5, 0.5), (90, 80),
    )  # fmt: skip
    points = np.random.default_rng(1).uniform(-50, 50, (50, 3))
    origin, direction = view.ray(*view.project_points(points).T)
    assert np.linalg.norm(np.cross(points - origin, direction), axis=1).max() < 1e-6


def test_magnification() -> None:
    """Two points 100 mm apart in a plane 1500 mm from the source, detector at 1800 mm: 120 mm apart."""
    view = view_of("pa", sdd_mm=1800.0, size=(512, 512))
    plane = view.source_mm + 1500 * view.direction
    pixel = view.project_points([plane - 50 * view.u, plane + 50 * view.u])
    assert (pixel[1, 0] - pixel[0, 0]) * view.pitch_mm[0] == pytest.approx(120, abs=1e-9)


@pytest.mark.parametrize("beam", ["cone", "parallel"])
@pytest.mark.parametrize("name", POSES)
def test_placed_against_the_patient_and_showing_all_of_it(name: str, beam: str) -> None:
    view = view_of(name, beam, margin_mm=5.0)
    assert (BOX @ view.direction).max() == pytest.approx(view.center_mm @ view.direction)
    pixel = view.project_points(BOX)
    room = 5.0 / view.pitch_mm[0] - 0.5 - 1e-6
    assert pixel.min() >= room
    assert (pixel <= np.array([view.columns, view.rows]) - 1 - room).all()
    # The fit is tight: some corner touches the margin.
    edge = np.minimum(pixel, np.array([view.columns, view.rows]) - 1 - pixel).min()
    assert edge == pytest.approx(room, abs=1e-5)


def test_fixed_field() -> None:
    view = view_of("pa", field_mm=430.0, size=(512, 512))
    assert view.pitch_mm == pytest.approx((430 / 512, 430 / 512))


def test_complete_rows_cross_the_scan_from_side_to_side() -> None:
    faces = [BOX[BOX[:, 2] == z] for z in (-150, 170)]
    view = place(Pose.named("pa"), Setup(size=(500, 500), complete_rows=True), BOX, faces)
    assert view.rows < 500
    for row in (-0.5, view.rows - 0.5):
        origin, direction = view.ray(np.linspace(0, view.columns - 1, 9), np.full(9, row))
        for y in (-110, 130):
            at = origin + direction * ((y - origin[:, 1]) / direction[:, 1])[:, None]
            assert (at[:, 2] >= -150 - 1e-6).all()
            assert (at[:, 2] <= 170 + 1e-6).all()


def test_dict_round_trip() -> None:
    view = view_of("lpo")
    again = View.from_dict(view.to_dict())
    np.testing.assert_array_equal(again.matrix, view.matrix)
    assert again.to_dict() == view.to_dict()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"u": (1, 1, 0)}, "unit vector"),
        ({"pitch_mm": (0, 1)}, "pitch"),
        ({"beam": "fan"}, "beam"),
        ({"size": (0, 5)}, "size"),
        ({"source_mm": (0, -900, 0)}, "behind"),
        ({"center_mm": (np.nan, 0, 0)}, "finite"),
    ],
)
def test_impossible_views_are_refused(change: dict[str, object], word: str) -> None:
    good = {
        "name": "x", "beam": "cone", "source_mm": (0, 900, 0), "direction": -BACK, "center_mm": (0, -300, 0),
        "u": LEFT, "v": -UP, "pitch_mm": (1, 1), "size": (5, 5),
    }  # fmt: skip
    View(**good)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=word):
        View(**(good | change))  # type: ignore[arg-type]


def test_unknown_pose_suggests() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lateral_left'"):
        Pose.named("latral_left")


def test_source_inside_the_body_is_refused() -> None:
    with pytest.raises(ConfigError, match="inside the body"):
        view_of("pa", sdd_mm=150.0)
