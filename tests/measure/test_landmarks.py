"""Landmarks of shapes, and what becomes of them in a view."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from measure_shapes import TURN, anatomy_of, ball, box, grid_of, points, tube, volume_of

from paxray.anatomy.labels import Status
from paxray.io.volume import Grid, Volume
from paxray.measure.landmarks import RULES, Landmark, find_landmarks, project_landmark
from paxray.measure.radiology import measure_case
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project

GRID = grid_of((48, 40, 64), (2.0, 2.0, 2.0))


def y_airway(top: float = 40.0, angle_deg: float = 70.0, length: float = 40.0) -> np.ndarray:
    """A trachea that divides at the origin into two bronchi, at an angle to each other."""
    half = np.radians(angle_deg / 2)
    end = (length * np.sin(half), 0.0, -length * np.cos(half))
    mask = tube(GRID, (0, 0, 0), (0, 0, top), 7)
    for sign in (-1, 1):
        mask |= tube(GRID, (0, 0, 0), (sign * end[0], 0, end[2]), 5)
    return mask


def chest(**more: np.ndarray) -> dict[str, np.ndarray]:
    """Two half ellipsoids on domes, a forked airway, an arch, a column of vertebrae."""
    at = points(GRID)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    masks = {}
    for side, sign in (("left", 1), ("right", -1)):
        shape = ((x - sign * 32) / 22) ** 2 + (y / 30) ** 2 + ((z + 30) / 66) ** 2 <= 1
        dome = ball(GRID, (sign * 32, 0, -60), 40)
        masks[f"lung_{side}"] = shape & ~dome & (z > -44)
        organ = dome & (z < -24)
        masks["liver" if side == "right" else "stomach"] = organ
    masks["trachea"] = y_airway()
    return masks | more


def found_in(
    masks: dict[str, np.ndarray], absent: tuple[str, ...] = ("spleen",), **status: Status
) -> dict[str, Landmark]:
    return {p.name: p for p in find_landmarks(anatomy_of(volume_of(GRID, masks, absent, **status)))}


def test_every_rule_gives_one_landmark_in_order() -> None:
    found = list(found_in(chest()))
    assert found == [name for name in RULES if name not in ("vertebra_T13", "vertebra_L6")]


def test_apex_and_costophrenic_angle() -> None:
    """The top of an ellipsoid, and its support point at 45 degrees."""
    at = points(GRID)
    ellipsoid = (((at - [20, 0, 0]) / [15, 12, 30]) ** 2).sum(axis=-1) <= 1
    found = found_in({"lung_left": ellipsoid})
    apex, angle = found["lung_apex_left"], found["costophrenic_angle_left"]
    assert apex.status == angle.status == "present"
    np.testing.assert_allclose(apex.position_mm, [20, 0, 30], atol=2)
    # Farthest point of an ellipsoid with half axes a along n: a^2 n / |a n|.
    n, a = np.array([1, 0, -1]) / np.sqrt(2), np.array([15, 12, 30])
    np.testing.assert_allclose(angle.position_mm, [20, 0, 0] + a**2 * n / np.linalg.norm(a * n), atol=3)
    assert found["lung_apex_right"].status == "unknown"
    assert "lung right" in found["lung_apex_right"].reason


def test_domes_are_the_tops_of_what_lies_beneath() -> None:
    found = found_in(
        chest(),
        absent=("spleen",),
    )
    right = found["hemidiaphragm_dome_right"]
    np.testing.assert_allclose(right.position_mm, [-32, 0, -20], atol=2.1)
    np.testing.assert_allclose(found["hemidiaphragm_dome_left"].position_mm, [32, 0, -20], atol=2.1)
    missing = found_in(chest(), absent=())["hemidiaphragm_dome_left"]
    assert (missing.status, missing.reason) == ("unknown", "nothing is known of spleen")


def test_a_lung_with_nothing_beneath_has_no_dome() -> None:
    masks = chest()
    masks["liver"] = box(GRID, (-60, -30, -47), (-50, -20, -43))
    assert found_in(masks)["hemidiaphragm_dome_right"].status == "unknown"


def test_carina_of_a_fork() -> None:
    """Two tubes of radius r at half angle a come apart, in axial slices, where their axes are r / cos(a) away."""
    carina = found_in({"trachea": y_airway()})["carina"]
    half = np.radians(35)
    depth = (5 / np.cos(half)) / np.tan(half)
    np.testing.assert_allclose(carina.position_mm, [0, 0, -depth], atol=2.5)


def test_an_airway_without_a_fork_has_no_carina() -> None:
    carina = found_in({"trachea": tube(GRID, (0, 0, -30), (0, 0, 40), 7)})["carina"]
    assert (carina.status, carina.position_mm) == ("unknown", None)
    assert "divide" in carina.reason


def test_a_scan_that_begins_below_the_fork_has_no_carina() -> None:
    low = y_airway() & (points(GRID)[..., 2] < -14)
    assert found_in({"trachea": low})["carina"].status == "unknown"


def test_aortic_knob_is_the_leftmost_of_the_arch_not_of_the_aorta() -> None:
    arch = tube(GRID, (-12, -20, 20), (10, 14, 20), 9)
    up, down = tube(GRID, (-12, -20, -40), (-12, -20, 20), 9), tube(GRID, (10, 14, -40), (10, 14, 20), 9)
    bulge = ball(GRID, (24, 14, -30), 12)
    knob = found_in({"aorta": arch | up | down | bulge})["aortic_knob"]
    assert knob.status == "present"
    # The descending limb's left border at the arch: 10 + 9.
    assert knob.position_mm is not None
    assert knob.position_mm[0] == pytest.approx(19, abs=2)
    assert knob.position_mm[2] > 8


def test_vertebrae_are_where_their_centroid_is() -> None:
    at = (3.0, 20.0, 10.0)
    found = found_in(
        {"vertebrae_T4": ball(GRID, at, 8), "vertebrae_T13": ball(GRID, (0, 0, -20), 6)}, ("vertebrae_C1",)
    )
    np.testing.assert_allclose(found["vertebra_T4"].position_mm, at, atol=0.2)
    assert found["vertebra_T13"].status == "present"
    assert found["vertebra_C1"].status == "absent"
    assert found["vertebra_L1"].status == "unknown"


def test_status_follows_the_class() -> None:
    lung = ball(GRID, (20, 0, 0), 20)
    found = found_in(
        {"lung_left": lung, "lung_right": ball(GRID, (-20, 0, 44), 20)}, lung_left=Status.PARTIAL
    )
    assert found["lung_apex_left"].status == "partial"
    assert found["lung_apex_right"].status == "cut", "the scan ends at the lung's top"
    assert found["costophrenic_angle_right"].status == "present", "its other end is whole"


@pytest.mark.parametrize(("gap_mm", "status"), [(0.0, "cut"), (2.0, "present")])
def test_padding_ends_a_scan_as_the_array_does(gap_mm: float, status: str) -> None:
    """A lung whose lower end reaches what was not reconstructed; its apex does not."""
    lung = box(GRID, (-20, -20, -21), (20, 20, 31))  # voxel centres at odd mm: from -19 to 29
    beyond = points(GRID)[..., 2] < -20 - gap_mm
    labels = volume_of(GRID, {"lung_left": lung & ~beyond, "unscanned": beyond})
    cut = {**labels.cut_by_ct("unscanned"), "lung_left": True}
    plain = anatomy_of(labels)
    found = {p.name: p for p in find_landmarks(replace(plain, cut_by_ct=cut))}
    assert found["costophrenic_angle_left"].status == status
    assert found["lung_apex_left"].status == "present"


def test_turning_the_lattice_does_not_move_a_landmark() -> None:
    straight, turned = grid_of((60, 60, 60), (1.0, 1.0, 1.0)), grid_of((60, 60, 60), (1.0, 1.0, 1.0), TURN)
    places = []
    for grid in (straight, turned):
        anatomy = anatomy_of(volume_of(grid, {"lung_left": ball(grid, (3, 2, 1), 20)}))
        places.append(next(p.position_mm for p in find_landmarks(anatomy) if p.name == "lung_apex_left"))
    np.testing.assert_allclose(places[0], places[1], atol=1.5)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_layout_of_the_array_does_not_show(order: tuple[int, ...]) -> None:
    """Axes in any order, one of them reversed: the same points, and the same measures of them."""
    arch = tube(GRID, (-12, -20, 20), (10, 14, 20), 9)
    limbs = tube(GRID, (-12, -20, -40), (-12, -20, 20), 9) | tube(GRID, (10, 14, -40), (10, 14, 20), 9)
    masks = chest(aorta=arch | limbs)
    columns = GRID.affine[:3, [2, 1, 0]][:, list(order)]
    last = order.index(0)
    affine = GRID.affine.copy()
    affine[:3, 3] += columns[:, last] * (GRID.shape[0] - 1)
    columns[:, last] *= -1
    affine[:3, [2, 1, 0]] = columns
    turned = {name: np.flip(mask.transpose(order), last) for name, mask in masks.items()}
    found = []
    for grid, drawn in ((GRID, masks), (Grid(turned["aorta"].shape, affine), turned)):
        anatomy = anatomy_of(volume_of(grid, drawn, ("spleen",)))
        points_found = find_landmarks(anatomy)
        found.append((points_found, measure_case(anatomy, points_found)))
    (points_here, measures_here), (points_there, measures_there) = found
    for here, there in zip(points_here, points_there, strict=True):
        assert (here.name, here.status) == (there.name, there.status)
        if here.position_mm is not None:
            np.testing.assert_allclose(here.position_mm, there.position_mm, atol=1e-6, err_msg=here.name)
    for one, other in zip(measures_here, measures_there, strict=True):
        assert (one.name, one.status, one.value) == (other.name, other.status, pytest.approx(other.value))
    assert {m.name for m in measures_here if m.status == "present"} >= {"aortic_width", "carinal_angle"}


@pytest.mark.parametrize("beam", ["cone", "parallel"])
@pytest.mark.parametrize("pose", ["pa", "lateral_left", "lao"])
def test_a_point_falls_on_the_pixels_of_its_voxel(beam: str, pose: str) -> None:
    """A class of one voxel is met by the rays around the pixel that its centre projects to, exactly."""
    grid = grid_of((30, 34, 38), (3.0, 3.0, 3.0), np.eye(3))
    body = ball(grid, (0, 0, 0), 42)
    one = np.zeros(grid.shape, bool)
    one[20, 12, 25] = True
    labels = volume_of(grid, {"body": body, "one": one})
    at = grid.to_world([25, 12, 20])
    extent = points(grid)[body]
    view = place(Pose.named(pose), Setup(beam=beam, size=(256, 256)), extent, (extent, extent))  # type: ignore[arg-type]
    met = project(Volume(np.zeros(grid.shape, np.float32), grid.affine), labels, view, ["presence"]).mask(
        "one"
    )
    pixel, inside = project_landmark(Landmark("carina", "present", "", at), view)
    assert inside
    assert pixel is not None
    v, u = np.nonzero(met)
    assert met[round(pixel[1]), round(pixel[0])]
    np.testing.assert_allclose([u.mean(), v.mean()], pixel, atol=0.6)


def test_outside_the_field() -> None:
    grid = grid_of((30, 34, 38), (3.0, 3.0, 3.0))
    extent = points(grid).reshape(-1, 3)
    view = place(Pose.named("pa"), Setup(), extent, (extent, extent))
    pixel, inside = project_landmark(Landmark("carina", "present", "", np.array([900.0, 0, 0])), view)
    assert pixel is not None
    assert inside is False
    assert project_landmark(Landmark("carina", "unknown", "why"), view) == (None, False)
