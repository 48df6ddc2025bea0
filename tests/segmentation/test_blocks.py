"""Blocks of voxels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray.segmentation.blocks import any_in_blocks, block_means


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), factor=st.tuples(*[st.integers(1, 4)] * 3))
def test_blocks_by_their_definition(seed: int, factor: tuple[int, int, int]) -> None:
    """Each block holds its voxels; where they run out, the last ones count again."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 9, 3)
    hu = rng.integers(-2000, 3000, shape).astype(np.int16)
    index = [
        np.minimum(np.arange(-(-n // f))[:, None] * f + np.arange(f), n - 1)
        for n, f in zip(shape, factor, strict=True)
    ]
    blocks = hu[
        index[0][:, None, None, :, None, None], index[1][:, None, None, :, None], index[2][:, None, None, :]
    ]
    mean = blocks.astype(np.float64).mean(axis=(3, 4, 5))
    for array in (hu, hu.astype(np.float32), hu.astype(np.int32)):
        found, lowest = block_means(array, factor)
        np.testing.assert_allclose(found, mean, rtol=1e-6)
        np.testing.assert_array_equal(lowest, blocks.min(axis=(3, 4, 5)))
    for dtype in (np.uint8, np.uint16, np.uint32):
        known = np.where(hu > 2000, rng.integers(1, 256, shape), 0).astype(dtype)
        np.testing.assert_array_equal(any_in_blocks(known, factor), (blocks > 2000).any(axis=(3, 4, 5)))
    mean, _ = block_means((hu > 0).view(np.uint8), factor)
    np.testing.assert_allclose(mean, (blocks > 0).mean(axis=(3, 4, 5)), rtol=1e-6)
