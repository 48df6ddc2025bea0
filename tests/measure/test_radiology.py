"""Radiological measures of shapes that have them in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measure_shapes import anatomy_of, ball, box, grid_of, points, tube, volume_of
from test_landmarks import GRID, y_airway

from paxray.anatomy.labels import Status
from paxray.io.volume import Volume
from paxray.measure import landmarks
from paxray.measure.landmarks import Landmark, find_landmarks
from paxray.measure.radiology import RULES, Measure, measure_case, measure_view, widest_row_px, width_px
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Projection, project
from paxray.projection.view import View


def measured(
    masks: dict[str, np.ndarray], absent: tuple[str, ...] = (), **status: Status
) -> dict[str, Measure]:
    anatomy = anatomy_of(volume_of(GRID, masks, absent, **status))
    return {m.name: m for m in measure_case(anatomy, find_landmarks(anatomy))}


def of_points(places: dict[str, tuple[float, float, float]], **changes: str) -> dict[str, Measure]:
    """Measures of landmarks alone."""
    anatomy = anatomy_of(volume_of(GRID, {"body": np.ones(GRID.shape, bool)}))
    found = {p.name: p for p in find_landmarks(anatomy)}
    for name, at in places.items():
        found[name] = Landmark(name, changes.get(name, "present"), "", np.array(at, float))
    return {m.name: m for m in measure_case(anatomy, found.values())}


def spine_arc(step_deg: float, lean: float = 0.0) -> dict[str, tuple[float, float, float]]:
    """Vertebrae T1 to L5 on a circle in the sagittal plane, bulging backward, a step apart."""
    levels = [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 6)]
    turn = np.radians(step_deg)
    radius = 25 / (2 * np.sin(turn / 2))
    at = turn * (np.arange(len(levels)) - 7)
    return {
        f"vertebra_{level}": (lean * -radius * np.sin(a), radius * np.cos(a), -radius * np.sin(a))
        for level, a in zip(levels, at, strict=True)
    }


@pytest.mark.parametrize("step", [2.0, 5.0, 8.0])
def test_kyphosis_of_an_arc(step: float) -> None:
    """From the middle of T4-T5 to the middle of T11-T12 are seven steps."""
    found = of_points(spine_arc(step))["kyphosis_angle"]
    assert found.value == pytest.approx(7 * step, abs=1e-9)
    assert (found.unit, found.status) == ("degree", "present")


def test_lordosis_is_negative_and_a_sideways_bend_counts_for_nothing() -> None:
    forward = {name: (x, -y, z) for name, (x, y, z) in spine_arc(5).items()}
    assert of_points(forward)["kyphosis_angle"].value == pytest.approx(-35, abs=1e-9)
    sideways = {name: (y, 0.0, z) for name, (x, y, z) in spine_arc(5).items()}
    assert of_points(sideways)["kyphosis_angle"].value == pytest.approx(0, abs=1e-9)


def test_a_straight_spine_lies_on_its_line_however_it_leans() -> None:
    assert of_points(spine_arc(4, lean=0.2))["spine_centre_distance"].value == pytest.approx(0, abs=1e-9)


def test_spine_centre_distance_of_a_zigzag() -> None:
    """Alternating 3 mm to either side of a leaning line, in pairs so that the fit is the line itself."""
    heights = np.array([50, 30, 10, -10, -30, -50, -70, -90], float)
    side = np.array([1, -1, -1, 1, 1, -1, -1, 1], float)  # no correlation with height
    lean = 0.25
    places = {
        f"vertebra_T{n + 1}": (lean * z + 3 * s, 0.0, z)
        for n, (z, s) in enumerate(zip(heights, side, strict=True))
    }
    assert of_points(places)["spine_centre_distance"].value == pytest.approx(3 / np.hypot(1, lean), abs=1e-9)


def test_too_few_vertebrae_make_no_line() -> None:
    few = {f"vertebra_T{n}": (0.0, 0.0, -25.0 * n) for n in range(1, 4)}
    found = of_points(few)["spine_centre_distance"]
    assert (found.status, found.value) == ("unknown", None)
    assert "3 whole vertebrae" in found.reason


def test_lung_height_is_along_the_body() -> None:
    places = {"lung_apex_left": (50.0, 0.0, 100.0), "hemidiaphragm_dome_left": (60.0, 20.0, -70.0)}
    found = of_points(places, lung_apex_left="cut")
    assert found["lung_height_left"].value == pytest.approx(170)
    assert found["lung_height_left"].status == "cut"
    assert found["lung_height_right"].status == "unknown"
    assert "lung" in found["lung_height_right"].reason


@pytest.mark.parametrize("angle", [50.0, 70.0, 90.0])
def test_carinal_angle_of_a_fork(angle: float) -> None:
    found = measured({"trachea": y_airway(angle_deg=angle, length=60)})["carinal_angle"]
    assert found.status == "present"
    assert found.value == pytest.approx(angle, abs=4)


def test_short_bronchi_have_no_angle() -> None:
    found = measured({"trachea": y_airway(length=14)})["carinal_angle"]
    assert (found.status, found.value) == ("unknown", None)


def test_stumps_of_bronchi_have_an_angle_in_part() -> None:
    """A length of 30 mm reaches 24 mm below the fork, less what of it is one; of 20 mm, 16 mm."""
    found = measured({"trachea": y_airway(length=22)})["carinal_angle"]
    assert found.status == "partial"
    assert "mm of 20 mm" in found.reason
    assert found.value is not None


def test_no_width_where_the_knob_is_not_left_of_the_trachea() -> None:
    arch = tube(GRID, (-12, -20, 20), (10, 14, 20), 9)
    limbs = tube(GRID, (-12, -20, -40), (-12, -20, 20), 9) | tube(GRID, (10, 14, -40), (10, 14, 20), 9)
    for x in (12, 30):  # its left border at 19 mm, as the knob's, and beyond
        trachea = tube(GRID, (x, -30, -30), (x, -30, 40), 7)
        found = measured({"aorta": arch | limbs, "trachea": trachea})["aortic_width"]
        assert (found.status, found.value) == ("unknown", None)
        assert "left of the trachea" in found.reason


def test_aortic_width_of_tubes() -> None:
    """From the trachea's left border at 7 mm to the knob at 19 mm."""
    arch = tube(GRID, (-12, -20, 20), (10, 14, 20), 9)
    limbs = tube(GRID, (-12, -20, -40), (-12, -20, 20), 9) | tube(GRID, (10, 14, -40), (10, 14, 20), 9)
    masks = {"aorta": arch | limbs, "trachea": tube(GRID, (0, -30, -30), (0, -30, 40), 7)}
    assert measured(masks)["aortic_width"].value == pytest.approx(12, abs=2.1)
    low = measured({"aorta": arch | limbs, "trachea": tube(GRID, (0, -30, -44), (0, -30, -20), 7)})[
        "aortic_width"
    ]
    assert (low.status, low.value) == ("unknown", None)
    assert measured({"aorta": arch | limbs}, ("trachea",))["aortic_width"].status == "absent"
    assert measured({"aorta": arch | limbs})["aortic_width"].status == "unknown"


def frontal(beam: str, pose: str = "pa") -> tuple[Projection, View]:
    """A heart 60 mm wide in a thorax 160 mm wide."""
    grid = grid_of((50, 50, 100), (2.0, 2.0, 2.0))
    masks = {
        "body": ball(grid, (0, 0, 0), 95) & (np.abs(points(grid)[..., 2]) < 45),
        "lung_left": box(grid, (20, -20, -30), (80, 20, 30)),
        "lung_right": box(grid, (-80, -20, -30), (-20, 20, 30)),
        "heart": box(grid, (-20, -10, -30), (40, 10, 0)),
    }
    extent = points(grid)[masks["body"]]
    view = place(Pose.named(pose), Setup(beam=beam, size=(300, 600)), extent, (extent, extent))  # type: ignore[arg-type]
    volume = Volume(np.zeros(grid.shape, np.float32), grid.affine)
    return project(volume, volume_of(grid, masks), view, ["presence"]), view


KNOWN = dict.fromkeys(("heart", "lung_left", "lung_right"), "present")


@pytest.mark.parametrize("pose", ["pa", "ap"])
def test_cardiothoracic_ratio_of_boxes(pose: str) -> None:
    projection, view = frontal("parallel", pose)
    (found,) = measure_view(projection, KNOWN)
    # Each width is right to a pixel.
    assert found.value == pytest.approx(60 / 160, abs=2 * view.pitch_mm[0] / 160)
    assert (found.name, found.unit, found.status) == ("cardiothoracic_ratio", "1", "present")


def test_a_cone_magnifies_what_lies_far_from_the_detector() -> None:
    """The front and the back faces bound each silhouette: as on a film."""
    projection, view = frontal("cone")
    (found,) = measure_view(projection, KNOWN)
    source, detector = view.source_mm[1], view.center_mm[1]

    def seen(half_width: float, half_depth: float) -> float:
        near = max((detector - source) / (y - source) for y in (-half_depth, half_depth))
        return half_width * near

    assert found.value == pytest.approx((seen(20, 10) + seen(40, 10)) / (2 * seen(80, 20)), abs=0.01)


def test_only_a_frontal_view_has_a_ratio() -> None:
    projection, _ = frontal("cone", "lateral_left")
    assert measure_view(projection, KNOWN) == ()


@pytest.mark.parametrize(
    ("change", "status", "has_value"),
    [
        ({"heart": "cut"}, "cut", True),
        ({"lung_left": "partial"}, "partial", True),
        ({"lung_left": "partial", "heart": "cut"}, "cut", True),
        ({"heart": "absent"}, "absent", False),
        ({"heart": "absent", "lung_right": "unknown"}, "unknown", False),
    ],
)
def test_a_ratio_is_as_good_as_what_it_is_of(change: dict[str, str], status: str, has_value: bool) -> None:
    projection, _ = frontal("parallel")
    (found,) = measure_view(projection, KNOWN | change)
    assert (found.status, found.value is not None) == (status, has_value)
    assert found.reason


def test_widths() -> None:
    mask = np.zeros((4, 9), bool)
    mask[0, 2], mask[1, 3:6], mask[2, 7] = True, True, True
    assert width_px(mask) == 6, "borders may lie in different rows"
    assert widest_row_px(mask) == 3
    mask[3, [1, 8]] = True
    assert widest_row_px(mask) == 8, "what lies between two lungs counts"


def test_every_measure_has_a_unit_and_a_rule() -> None:
    assert all(unit in ("mm", "degree", "1") and len(rule) > 20 for unit, rule in RULES.values())
    anatomy = anatomy_of(volume_of(GRID, {"body": np.ones(GRID.shape, bool)}))
    names = [m.name for m in measure_case(anatomy, find_landmarks(anatomy))]
    assert ["cardiothoracic_ratio", *names] == list(RULES)


def test_the_documented_rules_are_the_rules() -> None:
    """Every rule stands in the data set's documentation word for word."""
    text = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text(encoding="utf-8")
    for rule in [*landmarks.RULES.values(), *(rule for _, rule in RULES.values())]:
        assert f"| {rule} |" in text, rule
