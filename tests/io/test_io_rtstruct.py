"""DICOM RTSTRUCT: contours on the CT's slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segment_files import oblique, plain_affine, write_ct_series, write_rtstruct
from skimage.measure import grid_points_in_poly

from paxray import api
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError
from paxray.io.ct import read_ct
from paxray.io.volume import Grid, Volume

SHAPE = (9, 64, 60)
SPACING_MM2 = 0.75 * 0.5


def ct(affine: np.ndarray) -> Volume:
    return Volume(np.zeros(SHAPE, np.int16), affine)


def ring(affine: np.ndarray, k: float, radius_mm: float, n: int = 240, centre=(29.7, 31.2)) -> np.ndarray:
    """A circle in the plane of slice k round pixel (i, j), LPS mm."""
    angle = np.arange(n) * 2 * np.pi / n
    i = centre[0] + radius_mm / 0.75 * np.cos(angle)
    j = centre[1] + radius_mm / 0.5 * np.sin(angle)
    return Grid(SHAPE, affine).to_world(np.stack([i, j, np.full(n, float(k))], axis=1))


def read(path: Path, volume: Volume) -> LabelVolume:
    return api.read_masks(path, volume)


def refused(path: Path, volume: Volume) -> CaseError:
    with pytest.raises(CaseError) as caught:
        read(path, volume)
    assert "MRN-12345" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("affine", [plain_affine(), oblique()])
def test_a_cylinder_has_its_area_on_every_slice(tmp_path, affine):
    contours = [ring(affine, k, 9.0) for k in range(2, 7)]
    labels = read(write_rtstruct(tmp_path / "rs.dcm", {"Heart": contours}), ct(affine))
    area_mm2 = labels.mask("heart").sum(axis=(1, 2)) * SPACING_MM2
    np.testing.assert_array_equal(area_mm2[[0, 1, 7, 8]], 0)
    np.testing.assert_allclose(area_mm2[2:7], np.pi * 81, rtol=0.02)
    assert labels.status["heart"] is Status.PRESENT


@pytest.mark.parametrize("affine", [plain_affine(), oblique()])
def test_a_contour_within_another_is_a_hole(tmp_path, affine):
    outer, inner = ring(affine, 4, 9.0), ring(affine, 4, 4.0)
    apart = read(write_rtstruct(tmp_path / "a.dcm", {"heart": [outer, inner]}), ct(affine)).mask("heart")
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    joined = read(write_rtstruct(tmp_path / "k.dcm", {"heart": [keyhole]}), ct(affine)).mask("heart")
    np.testing.assert_allclose(apart.sum() * SPACING_MM2, np.pi * (81 - 16), rtol=0.02)
    assert not apart[4, 31, 30]
    # What is written with four decimals is not quite a keyhole where it is oblique; its channel is a hair.
    assert np.count_nonzero(apart != joined) <= (0 if affine[0, 1] == 0 else 2)


def test_agrees_with_scikit_image(tmp_path):
    rng = np.random.default_rng(0)
    affine, angle = plain_affine(), np.arange(17) * 2 * np.pi / 17
    radius = rng.uniform(5, 25, 17)
    star = np.stack([30 + radius * np.cos(angle), 31 + radius * np.sin(angle)], axis=1)
    points = Grid(SHAPE, affine).to_world(np.column_stack([star, np.full(17, 3.0)]))
    mask = read(write_rtstruct(tmp_path / "rs.dcm", {"liver": [points]}), ct(affine)).mask("liver")
    np.testing.assert_array_equal(mask[3], grid_points_in_poly(SHAPE[1:], star[:, ::-1]))
    assert mask.sum() == mask[3].sum()


def test_a_ct_whose_array_runs_otherwise_gets_the_same_voxels(tmp_path):
    """Axes exchanged and reversed, as a NIfTI copy of the series may have them."""
    affine = plain_affine()
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(affine, k, 9.0) for k in (3, 4)]})
    plain = read(path, ct(affine)).mask("heart")
    # Array order (i, k reversed, j): affine columns are for the last, the middle and the first axis.
    columns = [affine[:, 1], -affine[:, 2], affine[:, 0], affine[:, 3] + (SHAPE[0] - 1) * affine[:, 2]]
    turned = Volume(np.zeros((SHAPE[2], SHAPE[0], SHAPE[1]), np.int16), np.stack(columns, axis=1))
    mask = read(path, turned).mask("heart")
    np.testing.assert_array_equal(mask, plain[::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(("off", "passes"), [(0.04, True), (-0.08, True), (0.2, False), (0.5, False)])
def test_contours_between_slices_are_refused_in_mm(tmp_path, off, passes):
    affine = plain_affine()
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(affine, k + off, 9.0) for k in (3, 4)]})
    if passes:
        assert np.flatnonzero(read(path, ct(affine)).mask("heart").any(axis=(1, 2))).tolist() == [3, 4]
    else:
        error = refused(path, ct(affine))
        assert error.code == "mask_mismatch"
        assert f"{off * 2.5:.4g} mm" in error.found


def test_contours_across_the_slices_are_refused(tmp_path):
    affine = plain_affine()
    tilted = ring(affine, 4, 9.0)
    tilted[:, 2] += 0.2 * tilted[:, 0]
    assert (
        refused(write_rtstruct(tmp_path / "rs.dcm", {"heart": [tilted]}), ct(affine)).code == "mask_mismatch"
    )


def test_contours_on_every_second_slice_are_refused(tmp_path):
    affine = plain_affine()
    error = refused(
        write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(affine, k, 9.0) for k in (1, 3, 5)]}), ct(affine)
    )
    assert error.code == "bad_contours"
    assert "2 slices" in error.found
    # Two pieces with a gap between them are as they may be.
    two = write_rtstruct(tmp_path / "two.dcm", {"heart": [ring(affine, k, 9.0) for k in (1, 2, 5)]})
    assert read(two, ct(affine)).mask("heart").any(axis=(1, 2)).sum() == 3


@pytest.mark.parametrize(
    ("slices", "reads"),
    [
        ([1, 2, 4, 6, 8], False),  # two neighbours among every second slice
        ([0, 1, 2, 3, 4, 6, 8, 10], False),  # thinned out from somewhere on
        ([1, 6], False),  # two slices and nothing between them
        ([0, 1, 2, 7], True),  # a second piece
        ([0, 1, 4, 5, 7, 8], True),  # three pieces
        ([3], True),
        ([3, 4], True),
    ],
)
def test_contours_thinned_out_are_refused_and_pieces_are_not(tmp_path, slices, reads):
    affine = plain_affine()
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(affine, k, 9.0) for k in slices]})
    if reads:
        drawn = read(path, ct(affine)).mask("heart").any(axis=(1, 2))
        assert np.flatnonzero(drawn).tolist() == slices
    else:
        assert refused(path, ct(affine)).code == "bad_contours"


def test_contours_beyond_the_ct(tmp_path):
    affine = plain_affine()
    over = write_rtstruct(tmp_path / "over.dcm", {"heart": [ring(affine, k, 9.0) for k in (7, 8, 9, 10)]})
    assert np.flatnonzero(read(over, ct(affine)).mask("heart").any(axis=(1, 2))).tolist() == [7, 8]
    beyond = write_rtstruct(tmp_path / "beyond.dcm", {"heart": [ring(affine, 20, 9.0)]})
    assert refused(beyond, ct(affine)).code == "mask_mismatch"


def test_a_region_that_nobody_drew_is_absent(tmp_path):
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(plain_affine(), 3, 9.0)], "liver": []})
    assert read(path, ct(plain_affine())).status == {"heart": Status.PRESENT, "liver": Status.ABSENT}


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_what_is_no_solid_is_refused(tmp_path, kind):
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(plain_affine(), 3, 9.0)]}, kind=kind)
    error = refused(path, ct(plain_affine()))
    assert error.code == "bad_contours"
    assert kind in error.found


def test_two_points_are_no_contour(tmp_path):
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(plain_affine(), 3, 9.0)[:2]]})
    assert refused(path, ct(plain_affine())).code == "bad_contours"


def test_another_frame_of_reference_is_refused_and_another_series_in_it_is_not(tmp_path):
    write_ct_series(tmp_path / "ct", SHAPE, plain_affine())
    volume = read_ct(tmp_path / "ct")
    contours = {"heart": [ring(plain_affine(), 3, 9.0)]}
    elsewhere = write_rtstruct(tmp_path / "a.dcm", contours, frame_of_reference="9.9")
    assert refused(elsewhere, volume).code == "wrong_frame"
    # Contours are mm: whoever shares the frame may draw on slices that are the CT's.
    sibling = write_rtstruct(tmp_path / "b.dcm", contours, series="9.9")
    assert read(sibling, volume).status["heart"] is Status.PRESENT


@pytest.mark.parametrize("keep", [0, 140, 400, 900, -50])
def test_truncated(tmp_path, keep):
    path = write_rtstruct(tmp_path / "rs.dcm", {"heart": [ring(plain_affine(), 3, 9.0)]})
    path.write_bytes(path.read_bytes()[:keep])
    assert refused(path, ct(plain_affine())).code == "unreadable"
