"""Where a tube divides: one rule, told on tubes drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from paxray.anatomy.division import BRONCHUS_MM2, Slices, carina_mm, first_division, limb_mm2
from paxray.io.volume import Grid

#: Parts of a slice by a word: columns of a row of 2 x 2 mm pixels, each part 4 rows deep.
WORDS = {"one": [(8, 14)], "two": [(4, 9), (13, 18)], "speck": [(8, 14), (17, 18)], "none": []}


def tube(words: list[str], step_mm: float = 2.5) -> Slices:
    """Slices from above, 2 mm pixels; the array runs from the feet up."""
    mask = np.zeros((len(words), 10, 24), bool)
    for k, word in enumerate(reversed(words)):
        for first, last in WORDS[word]:
            rows = slice(3, 4) if last - first == 1 else slice(3, 7)
            mask[k, rows, first:last] = True
    return Slices(mask, np.array([5, 6, 7]), Grid((40, 40, 40), np.diag([2.0, 2.0, step_mm, 1.0])))


@pytest.mark.parametrize(
    ("words", "step_mm", "division"),
    [
        (["one", "one", "two", "two", "two"], 2.5, 2),
        (["one", "two", "one", "two", "two"], 2.5, 3),  # two for one slice alone is a stray gap
        (["one", "two", "two", "one", "two", "two", "two"], 1.0, None),  # 5 mm are five slices
        (["one", *["two"] * 5], 1.0, 1),
        (["two", "two", "two"], 2.5, None),  # the scan begins below
        (["one", "speck", "speck", "two", "two"], 2.5, 3),
        (["one", "one", "two"], 2.5, None),  # the scan ends before it can be told
        (["none", "none"], 2.5, None),
        (["one", "two", "two"], 10.0, 1),
    ],
)
def test_where_it_divides(words: list[str], step_mm: float, division: int | None) -> None:
    assert first_division(tube(words, step_mm), BRONCHUS_MM2) == division


def test_a_scan_may_begin_below_if_it_is_asked_so() -> None:
    assert first_division(tube(["two", "two", "two"]), BRONCHUS_MM2, from_one=False) == 0


def test_the_carina_lies_between_the_nearest_walls() -> None:
    """Parts of columns 4 to 8 and 13 to 17: walls at 8 and 13, rows 3 to 6; the box begins at (5, 6, 7)."""
    found = carina_mm(tube(["one", "two", "two"]))
    assert found is not None
    np.testing.assert_allclose(found, [2 * (10.5 + 5), 2 * (4.5 + 6), 2.5 * (1 + 7)])
    assert carina_mm(tube(["one", "one"])) is None


def test_a_limb_has_a_quarter_of_a_usual_slice() -> None:
    assert limb_mm2(tube(["one", "one", "two"])) == pytest.approx(0.25 * 6 * 4 * 4)
    small: NDArray[np.bool_] = np.zeros((3, 4, 4), bool)
    small[:, 1, 1] = True
    grid = Grid(small.shape, np.eye(4))
    assert limb_mm2(Slices(small, np.zeros(3, np.int64), grid)) == BRONCHUS_MM2
