"""The body: on phantoms, where truth is exact, and on a real chest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from paxray import api
from paxray.errors import CaseError
from paxray.io.volume import Volume
from paxray.phantom.thorax import make_phantom
from paxray.segmentation.body import BODY, UNSCANNED, body_extent, body_mask


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
    np.testing.assert_array_equal(alone.mask(UNSCANNED), ct == -2048)
    known = np.zeros(ct.shape, bool)
    known[20, 30, 88] = True
    assert (body_mask(volume, include=known) & arm).sum() > 0.9 * arm.sum()


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
