"""The lattice rule: any re-indexing of a mask says the same of the patient, anything else is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_files import oblique_affine

from paxray.errors import CaseError
from paxray.io.lattice import match_lattice
from paxray.io.volume import Grid, reindex

SHAPE = (7, 6, 5)
AFFINE = oblique_affine(2, spacing=(0.7, 0.8, 1.5))
CT = Grid(SHAPE, AFFINE)
LABELS = np.arange(np.prod(SHAPE)).reshape(SHAPE) + 1
TURNS = [(axes, flips) for axes in itertools.permutations(range(3)) for flips in np.ndindex(2, 2, 2)]


def turned(array: np.ndarray, affine: np.ndarray, axes, flips) -> tuple[np.ndarray, np.ndarray]:
    """Re-index an array and give the affine that leaves every voxel where it is."""
    out = reindex(array, axes, flips)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        change[2 - old, 2 - new] = -1 if flip else 1
        change[2 - old, 3] = array.shape[old] - 1 if flip else 0
    return out, affine @ change


def cut_or_padded(low: list[int], high: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Grow (positive) or shrink (negative) the label array at each end of each axis."""
    array = np.pad(LABELS, [(max(0, a), max(0, b)) for a, b in zip(low, high, strict=True)])
    box = tuple(
        slice(max(0, -a), size - max(0, -b)) for a, b, size in zip(low, high, array.shape, strict=True)
    )
    affine = AFFINE.copy()
    affine[:3, 3] = CT.to_world([-low[2], -low[1], -low[0]])
    return array[box], affine


ends = st.lists(st.integers(-2, 3), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(turn=st.sampled_from(TURNS), low=ends, high=ends)
def test_orientations_crops_and_pads_say_the_same_of_the_world(turn, low, high):
    array, affine = cut_or_padded(low, high)
    array, affine = turned(array, affine, *turn)
    match = match_lattice(Grid(array.shape, affine), CT)
    assert match.displacement_mm < 1e-9
    extent = tuple(slice(max(0, -a), size - max(0, -b)) for a, b, size in zip(low, high, SHAPE, strict=True))
    assert match.extent == extent
    np.testing.assert_array_equal(match.apply(array), LABELS[extent])


@pytest.mark.parametrize("turn", TURNS)
def test_all_48_orientations(turn):
    array, affine = turned(LABELS, AFFINE, *turn)
    np.testing.assert_array_equal(match_lattice(Grid(array.shape, affine), CT).apply(array), LABELS)


@settings(max_examples=100, deadline=None)
@given(
    turn=st.sampled_from(TURNS),
    direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    share=st.floats(0, 0.03),
)
def test_the_tolerance_is_one_per_cent_of_the_smallest_spacing(turn, direction, share):
    array, affine = turned(LABELS, AFFINE, *turn)
    shift = np.array(direction) / np.linalg.norm(direction) * share * min(CT.spacing_mm)
    affine[:3, 3] += shift
    if abs(share - 0.01) < 1e-6:
        return
    if share < 0.01:
        match = match_lattice(Grid(array.shape, affine), CT)
        assert match.displacement_mm == pytest.approx(np.linalg.norm(shift), abs=1e-9)
        np.testing.assert_array_equal(match.apply(array), LABELS)
    else:
        with pytest.raises(CaseError):
            match_lattice(Grid(array.shape, affine), CT)


@pytest.mark.parametrize("scale", [2.0, 0.5, 1.01])
def test_other_spacing_is_refused(scale):
    affine = AFFINE.copy()
    affine[:3, 1] *= scale
    with pytest.raises(CaseError) as caught:
        match_lattice(Grid((40, 40, 40), affine), CT, where="mask.nii")
    assert caught.value.code == "mask_mismatch"
    assert "mask.nii" in str(caught.value)
    sizes = f"voxels of 0.7 x {0.8 * scale:.5g} x 1.5 mm on a CT of 0.7 x 0.8 x 1.5 mm; largest displacement"
    assert caught.value.found.startswith(sizes)


def test_a_header_that_is_mirrored_is_told_before_resampling_is():
    plain = Grid(SHAPE, np.diag([0.7, 0.8, 1.5, 1.0]))
    for shift in (-0.7, 0.35):  # wholly outside, and between the voxels
        mirrored = plain.affine.copy()
        mirrored[0, 0] *= -1
        mirrored[0, 3] += shift
        with pytest.raises(CaseError) as caught:
            match_lattice(Grid(SHAPE, mirrored), plain)
        assert "mirrored: check before resampling" in caught.value.do
    same = plain.affine.copy()
    same[0, 3] += 0.35
    with pytest.raises(CaseError) as caught:
        match_lattice(Grid(SHAPE, same), plain)
    assert "mirrored" not in caught.value.do


def test_a_small_turn_is_refused_by_what_it_does_at_the_corners():
    angle = 0.002
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    near = Grid((3, 3, 3), np.eye(4))
    wide = Grid((3, 300, 300), np.eye(4))
    assert match_lattice(Grid(near.shape, turn), near).displacement_mm < 0.01
    with pytest.raises(CaseError) as caught:
        match_lattice(Grid(wide.shape, turn), wide)
    assert caught.value.code == "mask_mismatch"


def test_the_largest_displacement_is_named_in_mm():
    affine = AFFINE.copy()
    affine[:3, 3] += 0.25 * AFFINE[:3, 2]  # a quarter of 1.5 mm along k
    with pytest.raises(CaseError) as caught:
        match_lattice(Grid(SHAPE, affine), CT)
    assert "largest displacement 0.375 mm" in caught.value.found


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_mask_wholly_outside_is_refused(axis, sign):
    affine = AFFINE.copy()
    affine[:3, 3] += sign * SHAPE[::-1][axis] * AFFINE[:3, axis]
    with pytest.raises(CaseError) as caught:
        match_lattice(Grid(SHAPE, affine), CT)
    assert caught.value.code == "mask_mismatch"
