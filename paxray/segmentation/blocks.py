"""A volume in blocks of voxels: their mean, their least value, whether anything is in them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from paxray.parallel import share


def block_means(
    array: NDArray[np.number], factor: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.number]]:
    """Mean and least value of blocks.

    Parameters
    ----------
    array
        ``(nk, nj, ni)``.
    factor
        Voxels along k, j, i in a block; the last block of an axis repeats the last voxels.

    Returns
    -------
    mean, least
        Of each block. Integers of up to 16 bits are added exactly.
    """
    from paxray.segmentation import block_loops

    array = np.ascontiguousarray(array)
    size = [-(-n // f) for n, f in zip(array.shape, factor, strict=True)]
    exact = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
    total = np.empty(size, np.int32 if exact else np.float64)
    least = np.empty(size, array.dtype)
    share(len(total), lambda start, stop: block_loops.coarsen(array, factor, start, stop, total, least))
    return np.divide(total, math.prod(factor)).astype(np.float32), least


def any_in_blocks(array: NDArray[np.unsignedinteger], factor: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether any voxel of each block is not 0."""
    from paxray.segmentation import block_loops

    out = np.empty([-(-n // f) for n, f in zip(array.shape, factor, strict=True)], bool)
    share(len(out), lambda start, stop: block_loops.coarsen_set(array, factor, start, stop, out))
    return out
