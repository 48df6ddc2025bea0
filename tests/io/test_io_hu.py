"""What cannot be HU is refused; what is odd but real is not."""

from __future__ import annotations

import numpy as np
import pytest

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
