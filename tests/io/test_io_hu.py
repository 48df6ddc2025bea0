"""What cannot be HU is refused; what is odd but real is not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom

from paxray.errors import CaseError
from paxray.io.hu import require_hu

RNG = np.random.default_rng(0)
CHEST = np.concatenate([np.full(500, -1000), RNG.normal(-850, 40, 300), RNG.normal(40, 20, 300), [900]])


@pytest.mark.parametrize(
    "values",
    [
        CHEST,
        np.clip(CHEST, -200, 300),  # clipped to a window, in HU
        RNG.normal(60, 40, 1000),  # a noisy crop of the liver
        np.append(RNG.normal(1000, 200, 1000), -5),  # a crop of dense bone with one speck of fat
        np.where(RNG.random(1000) < 0.9, -2048, 50),  # mostly padding
        np.full(100, -1000),  # an empty scan
        np.where(np.arange(1000) < 20, 400, 0),  # masked bone on zero
        np.concatenate(
            [np.zeros(700), RNG.normal(110, 15, 300), [400]]
        ),  # masked liver with contrast on zero
    ],
)
def test_real_ct_passes(values):
    require_hu(values.astype(np.int16), where="ct")


@pytest.mark.parametrize(
    "values",
    [
        RNG.integers(0, 256, 1000),  # a windowed picture
        np.zeros(1000),
        np.arange(118),  # labels
        RNG.random(1000),  # normalised to 0..1
        RNG.normal(0, 1, 1000),  # z-scores
        (CHEST + 1024).clip(0),  # the intercept was never applied
        (CHEST + 1000).clip(0),
        CHEST.clip(0),  # stored without a sign, and clipped for it
        CHEST % 2**16,  # or wrapped around
    ],
)
def test_what_is_not_hu_is_refused(values):
    with pytest.raises(CaseError) as caught:
        require_hu(values.astype(np.float32), where="x.nii")
    assert caught.value.code == "not_hu"
    assert caught.value.do


def brain() -> np.ndarray:
    """A skull-stripped brain in 0 with cerebrospinal fluid of 10 HU and a calcification."""
    distance = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0)
    hu = np.where(distance < 8, 10, np.where(distance < 17, RNG.normal(35, 5, distance.shape), 0))
    hu[20, 20, 34] = 400
    return hu


def speck() -> np.ndarray:
    """Masked bone so small that a sample of the voxels need not hold any of it."""
    hu = np.zeros((120, 160, 160))
    hu[61, 81, 81] = 400
    return hu


@pytest.mark.parametrize("make", [brain, speck])
def test_what_is_masked_on_zero_passes(make):
    require_hu(make().astype(np.int16), where="ct")


@pytest.fixture(scope="module")
def chest(real_data):
    image = nib.load(real_data / "lidc-idri-0001" / "ct_2.5mm.nii.gz")
    return np.asarray(image.dataobj).astype(np.int16).T


@pytest.mark.parametrize("above_hu", [100, 150, 200])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_real_bone_masked_on_zero_and_resampled_passes(chest, above_hu, factor):
    """Its rim passes through all that is near water."""
    resampled = zoom(np.where(chest > above_hu, chest, 0), factor, order=1)
    assert ((resampled > 0) & (resampled <= 20)).sum() > 0.05 * (resampled > 0).sum()
    require_hu(resampled, where="ct")


@pytest.mark.parametrize("factor", [1, 0.7])
def test_a_real_chest_cut_off_at_zero_is_refused(chest, factor):
    with pytest.raises(CaseError, match="-1024 outside") as caught:
        require_hu(zoom(chest.clip(0), factor, order=1), where="ct")
    assert caught.value.code == "not_hu"
