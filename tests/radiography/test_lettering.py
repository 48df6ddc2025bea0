"""Letters on pictures: the right ones, at the right edges, and nothing else changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from paxray.preview import WINDOW_HU, _window_hu
from paxray.projection.pose import Pose, Setup, place
from paxray.radiography.lettering import (
    LETTER_PX,
    LETTER_RGB,
    MARGIN_PX,
    mark_sides,
    side_letter,
    with_caption,
    with_legend,
)

LEFT, BACK, UP = np.eye(3)


def grey(rows=120, columns=160):
    return np.full((rows, columns, 3), 90, np.uint8)


def written(picture):
    return (picture == LETTER_RGB).all(axis=-1)


@pytest.mark.parametrize(
    ("direction", "letter"),
    [(LEFT, "L"), (-LEFT, "R"), (BACK, "P"), (-BACK, "A"), (UP, "H"), (-UP, "F"), ((0.8, -0.6, 0.0), "L")],
)
def test_a_direction_points_to_a_side_of_the_patient(direction, letter):
    assert side_letter(direction) == letter


@pytest.mark.parametrize(
    ("pose", "right", "bottom"),
    [("pa", "L", "F"), ("ap", "L", "F"), ("lateral_left", "P", "F"), ("lateral_right", "A", "F")],
)
def test_radiographs_are_marked_as_they_are_looked_at(pose, right, bottom):
    """As the conventions of views have it: the patient's right on image left, the chest of a left lateral there."""
    box = np.array([[-100.0, -80.0, -120.0], [100.0, 80.0, 120.0]])
    view = place(Pose.named(pose), Setup(size=(64, 64)), box)
    assert (side_letter(view.u), side_letter(view.v)) == (right, bottom)


def test_each_edge_bears_its_letter():
    """A letter appears where its own direction points: turning a picture around turns the letters around."""
    picture = mark_sides(grey(), LEFT, -UP)
    assert picture.shape == grey().shape
    turned = mark_sides(grey(), -LEFT, UP)
    edges = {
        "left": (slice(40, 80), slice(0, 30)),
        "right": (slice(40, 80), slice(130, 160)),
        "top": (slice(0, 32), slice(60, 100)),
        "bottom": (slice(88, 120), slice(60, 100)),
    }
    for at in edges.values():
        assert written(picture[at]).sum() > 10
        assert (written(picture[at]) != written(turned[at])).any()
    inside = np.ones(grey().shape[:2], bool)
    for at in edges.values():
        inside[at] = False
    assert_array_equal(picture[inside], grey()[inside])
    # What stood on the right stands on the left of the picture turned around, letter by letter.
    ink = [
        np.trim_zeros(written(part[at]).any(axis=0))
        for part, at in ((picture, edges["right"]), (turned, edges["left"]))
    ]
    assert_array_equal(*ink)


def test_a_caption_stands_under_the_picture():
    picture = with_caption(grey(columns=400), ["heart: 377.7 ml", "a/ct.nii.gz"])
    assert_array_equal(picture[:120], grey(columns=400))
    assert picture.shape == (120 + 2 * (LETTER_PX + MARGIN_PX) + MARGIN_PX, 400, 3)
    for line in (0, 1):
        rows = slice(120 + line * (LETTER_PX + MARGIN_PX), 120 + (line + 1) * (LETTER_PX + MARGIN_PX))
        assert written(picture[rows]).sum() > 50


def test_a_long_caption_keeps_its_end():
    """What tells two cases apart stands at the end of a path."""
    one, other = (with_caption(grey(), ["x" * 80 + end])[120:] for end in ("patient_1", "patient_2"))
    assert not written(one)[:, -MARGIN_PX:].any()
    assert (one != other).any()


ENTRIES = [("aorta", (200, 60, 40)), ("lung_left", (60, 120, 200)), ("outlined: rib", None)]


@pytest.mark.parametrize("columns", [40, 160, 1024])
def test_a_legend_stands_under_the_picture_with_every_colour(columns):
    """In as many lines as it needs; what the picture shows stays as it is."""
    sheet = with_legend(grey(columns=columns), ENTRIES)
    assert_array_equal(sheet[:120], grey(columns=columns))
    strip = sheet[120:]
    lines = {40: 3, 160: 3, 1024: 1}[columns]
    assert strip.shape == (lines * (LETTER_PX + MARGIN_PX) + MARGIN_PX, columns, 3)
    rows = [np.nonzero((strip == colour).all(axis=2))[0] for _, colour in ENTRIES if colour]
    for n, (row, colour) in enumerate(zip(rows, [c for _, c in ENTRIES if c], strict=True)):
        square = (strip == colour).all(axis=2)
        side = np.ptp(row) + 1
        assert square.sum() == side**2, "a square of one colour, that nothing is drawn over"
        assert min(n, lines - 1) * (LETTER_PX + MARGIN_PX) <= row.min()
    # A longer name takes more ink than none at all.
    assert written(strip).sum() > written(with_legend(grey(columns=columns), ENTRIES[:1])[120:]).sum() > 10


def test_without_entries_no_legend():
    assert_array_equal(with_legend(grey(), []), grey())


@given(st.lists(st.floats(-1024, 3071), min_size=1, max_size=50))
def test_a_window_holds_the_class_and_soft_tissue(hu):
    low, high = _window_hu(np.array(hu))
    assert low <= min(WINDOW_HU[0], np.quantile(hu, 0.02)) + 1e-6
    assert high >= max(WINDOW_HU[1], np.quantile(hu, 0.98)) - 1e-6


def test_the_window_of_a_plain_organ_is_that_of_soft_tissue():
    assert _window_hu(np.random.default_rng(0).normal(60, 15, 1000)) == WINDOW_HU
