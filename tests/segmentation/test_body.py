"""The body: on phantoms, where truth is exact, and on a real chest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from paxray import api
from paxray.errors import CaseError
from paxray.io.volume import Volume
from paxray.parallel import at_most
from paxray.phantom.thorax import make_phantom
from paxray.segmentation import body_loops
from paxray.segmentation.body import (
    BODY,
    UNSCANNED,
    _ball_dilation,
    _fill,
    _pieces,
    body_extent,
    body_mask,
    row_ends,
    unscanned_mask,
)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("seed", [2, 5])
def test_phantom_body(seed: int) -> None:
    """The union of all labels is the body, exactly; the table is none of it."""
    made = make_phantom(seed, (3.0, 3.0, 3.0))
    truth = made.labels.array > 0
    # Beyond a voxel's breadth of the skin, where the scanner's blur ends.
    table = (made.ct.array > -300) & ~ndimage.binary_dilation(truth, iterations=2)
    found = body_mask(made.ct)
    assert dice(found, truth) >= 0.98
    assert table.sum() > 1000, "the phantom lies on a table"
    assert (found & table).sum() == 0
    assert (body_mask(made.ct, include=truth) & truth).sum() == truth.sum()


def test_orientation_does_not_matter() -> None:
    made = make_phantom(2, (4.0, 4.0, 4.0))
    plain = body_mask(made.ct)
    turned = np.ascontiguousarray(made.ct.array.transpose(2, 0, 1)[::-1])
    affine = np.eye(4)
    affine[:3, :3] = made.ct.affine[:3, :3][:, [1, 2, 0]]
    other = body_mask(Volume(turned, affine))
    np.testing.assert_array_equal(other, plain.transpose(2, 0, 1)[::-1])


def test_padding_and_detached_arm() -> None:
    """Padding is not scanned; a separate piece counts only if something labelled lies in it."""
    ct = np.full((40, 60, 100), -1000, np.int16)
    y, x = np.indices((60, 100)) - np.array([30, 40])[:, None, None]
    ct[:, (x / 30) ** 2 + (y / 22) ** 2 < 1] = 40
    arm = np.zeros(ct.shape, bool)
    arm[:, (np.indices((60, 100))[1] - 88) ** 2 + y**2 < 60] = True
    ct[arm] = 40
    ct[:, :, :12] = -2048
    volume = Volume(ct, np.diag([3.0, 3.0, 3.0, 1.0]))
    alone = api.segment(volume)
    assert not (alone.mask(BODY) & arm).any()
    # Padding, two voxels wider (resampling blurs its edge), and never in the body.
    wide = np.zeros(ct.shape, bool)
    wide[:, :, :14] = True
    np.testing.assert_array_equal(alone.mask(UNSCANNED), wide & ~alone.mask(BODY))
    known = np.zeros(ct.shape, bool)
    known[20, 30, 88] = True
    assert (body_mask(volume, include=known) & arm).sum() > 0.9 * arm.sum()


def test_a_streak_beside_metal_is_body_and_not_padding() -> None:
    ct = np.full((30, 60, 60), -1000, np.int16)
    y, x = np.indices((60, 60)) - 29.5
    ct[:, x**2 + y**2 < 22**2] = 40
    ct[10:20, 28:32, 25:35] = -1800
    volume = Volume(ct, np.diag([3.0, 3.0, 3.0, 1.0]))
    labels = api.segment(volume)
    assert UNSCANNED not in labels.names
    assert labels.mask(BODY)[ct == -1800].all()


def test_clipped_padding_is_seen_by_its_circle() -> None:
    """Corners of one constant value in every slice, noise inside: the reconstruction circle."""
    rng = np.random.default_rng(0)
    y, x = np.indices((80, 80)) - 39.5
    inside = np.hypot(x, y) < 40
    ct = np.where(inside, rng.normal(-1000, 12, (20, 80, 80)), -1024).clip(-1024, 3071).astype(np.int16)
    ct[:, (np.abs(y) < 20) & (np.abs(x) < 45) & inside] = 30  # cut by the circle left and right
    labels = api.segment(Volume(ct, np.diag([3.0, 3.0, 3.0, 1.0])))
    outside = labels.mask(UNSCANNED)
    assert outside[:, 0, 0].all()
    assert not outside[:, inside & (np.hypot(x, y) < 37)].any()
    plain = np.where(np.hypot(x, y) < 25, 30, -1000).astype(np.int16) * np.ones((20, 1, 1), np.int16)
    assert UNSCANNED not in api.segment(Volume(plain, np.diag([3.0, 3.0, 3.0, 1.0]))).names, (
        "no noise, no circle"
    )


def test_a_mattress_larger_than_the_patient_is_not_the_patient() -> None:
    ct = np.full((40, 80, 100), -1000, np.int16)
    y, x = np.indices((80, 100)) - np.array([25, 50])[:, None, None]
    child = np.zeros(ct.shape, bool)
    child[:, (x / 12) ** 2 + (y / 9) ** 2 < 1] = True
    ct[child] = 40
    ct[:, 45:60, 5:95] = -100
    labels = np.zeros(ct.shape, bool)
    labels[10:30, 22:28, 45:55] = True
    body = body_mask(Volume(ct, np.diag([3.0, 3.0, 3.0, 1.0])), include=labels)
    assert dice(body, child) > 0.95


def test_two_legs_are_both_body() -> None:
    ct = np.full((30, 50, 90), -1000, np.int16)
    for middle in (25, 65):
        y, x = np.indices((50, 90)) - np.array([25, middle])[:, None, None]
        ct[:, x**2 + y**2 < 12**2] = 40
    assert dice(body_mask(Volume(ct, np.diag([3.0, 3.0, 3.0, 1.0]))), ct > 0) > 0.97


def test_a_drawn_body_is_closed_over_all_other_classes() -> None:
    from paxray.anatomy.builder import LabelBuilder
    from paxray.anatomy.catalog import load_catalog

    shape = (20, 40, 40)
    everywhere = tuple(slice(0, n) for n in shape)
    small, fat = np.zeros(shape, bool), np.zeros(shape, bool)
    small[:, 10:30, 10:30], fat[:, 5:35, 5:35] = True, True
    builder = LabelBuilder(shape)
    builder.add_mask("body", everywhere, small)
    builder.add_mask("subcutaneous_fat", everywhere, fat)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    labels = builder.finish(affine, load_catalog())
    ct = Volume(np.where(fat, -80, -1000).astype(np.int16), affine)
    np.testing.assert_array_equal(api.segment(ct, labels).mask(BODY), small | fat)


def test_no_body_is_an_error() -> None:
    with pytest.raises(CaseError, match="no body found") as caught:
        body_mask(Volume(np.full((20, 20, 20), -1000, np.int16), np.diag([3.0, 3, 3, 1])))
    assert caught.value.code == "no_body"


def test_extent_is_the_hull() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((6, 7, 8)) < 0.1
    volume = Volume(mask, np.diag([1.0, 2.0, 3.0, 1.0]))
    points = body_extent(mask, volume.grid)
    corner = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)])
    everything = volume.grid.to_world((np.argwhere(mask)[:, None, ::-1] + corner).reshape(-1, 3))
    for _ in range(20):
        way = rng.normal(size=3)
        assert (points @ way).max() == pytest.approx((everything @ way).max())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), radius_mm=st.floats(0.5, 9))
def test_ball_dilation_is_what_lies_within_the_distance(seed: int, radius_mm: float) -> None:
    rng = np.random.default_rng(seed)
    mask, spacing = rng.random((7, 8, 9)) < 0.02, rng.uniform(0.8, 5, 3)
    far = np.inf if not mask.any() else ndimage.distance_transform_edt(~mask, sampling=spacing)
    np.testing.assert_array_equal(
        _ball_dilation(mask, spacing, radius_mm), (far <= radius_mm) & np.ones_like(mask)
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), factor=st.tuples(*[st.integers(1, 4)] * 3))
def test_voxels_within_blocks_by_their_definition(seed: int, factor: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 3))
    hu = rng.integers(-2000, 2000, shape).astype(np.int16)
    include = rng.integers(0, 2, shape).astype(np.uint16) * np.uint16(300)
    near = rng.integers(0, 3, [-(-n // f) for n, f in zip(shape, factor, strict=True)]).astype(np.uint8)
    of_voxel = near[np.ix_(*(np.arange(n) // f for n, f in zip(shape, factor, strict=True)))]
    out = np.empty(shape, bool)
    body_loops.below_within(hu, -100, near == 1, factor, 0, shape[0], out)
    np.testing.assert_array_equal(out, (hu < -100) & (of_voxel == 1))
    body_loops.solid_within(hu, -100, near, factor, include, 0, shape[0], out)
    np.testing.assert_array_equal(out, (of_voxel == 2) | ((of_voxel == 1) & (hu > -100)) | (include != 0))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    share=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]),
    along=st.sampled_from([(), (0,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]),
)
def test_pieces_are_scipys(seed: int, share: float, along: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 9, 3)) < share
    touching = np.zeros((3, 3, 3), bool)
    for axis in (0, 1, 2):
        touching[tuple(slice(None) if axis == other and axis in along else 1 for other in range(3))] = True
    expected, count = ndimage.label(mask, structure=touching)
    pieces, found = _pieces(mask, along)
    assert found == count
    np.testing.assert_array_equal(pieces, expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_holes_are_filled_plane_by_plane(seed: int) -> None:
    solid = np.random.default_rng(seed).random((6, 7, 8)) < 0.6
    expected = solid.copy()
    for axis in range(3):
        for n in range(solid.shape[axis]):
            plane = tuple(n if other == axis else slice(None) for other in range(3))
            expected[plane] |= ndimage.binary_fill_holes(solid[plane])
    np.testing.assert_array_equal(_fill(solid), expected)


def test_threads_do_not_show() -> None:
    made = make_phantom(5, (6.0, 6.0, 6.0))
    hu = made.ct.array.copy()
    hu[:, :, :3] = -2048
    ct, include = Volume(hu, made.ct.affine), made.labels.array > 0
    with at_most(1):
        alone = body_mask(ct, include), unscanned_mask(ct), row_ends(include)
    with at_most(2):
        both = body_mask(ct, include), unscanned_mask(ct), row_ends(include)
    np.testing.assert_array_equal(alone[0], both[0])
    np.testing.assert_array_equal(alone[1], both[1])
    for one, other in zip(alone[2], both[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_row_ends_are_few_on_a_rough_body_and_have_its_hull() -> None:
    rng = np.random.default_rng(1)
    k, j, i = np.indices((5, 80, 90)) - np.array([2, 40, 45])[:, None, None, None]
    mask = (i / 40) ** 2 + (j / 30) ** 2 + 0 * k < rng.uniform(0.6, 1, (5, 80, 1))
    ends = np.concatenate(row_ends(mask))
    assert len(ends) < 0.5 * 2 * mask.any(axis=2).sum()
    every = np.argwhere(mask)[:, ::-1]
    for way in rng.normal(size=(50, 3)):
        assert (ends @ way).max() == pytest.approx((every @ way).max())


@pytest.mark.real
def test_real_chest(real_data: Path) -> None:
    """All that TotalSegmentator labelled; one piece; nothing of the table's underside 3 cm below the back."""
    folder = real_data / "lidc-idri-0001"
    ct = api.read_ct(folder / "ct_2.5mm.nii.gz")
    source = f"{folder / 'totalsegmentator_v2_2.5mm.nii.gz'}=totalsegmentator_v2+118:costal_cartilages"
    labels = api.read_masks(source, ct)
    known = labels.atoms > 0
    alone, body = body_mask(ct), body_mask(ct, include=known)
    assert (body | known).sum() == body.sum()
    assert dice(alone, body) > 0.99
    assert (alone & known).sum() / known.sum() > 0.995
    pieces, _ = ndimage.label(body)
    assert np.bincount(pieces.ravel())[1:].max() / body.sum() > 0.999
