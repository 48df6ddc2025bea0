"""Zeroed maps of which only those pages take memory that something is written to."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Smaller maps are not worth a mapping of their own.
LEAST_BYTES = 2**22


def sparse_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """`numpy.zeros` for maps per class, most of which are empty nearly everywhere.

    numpy asks for huge pages, of which the first value written clears two megabytes: with a hundred classes of a
    few rows each, that costs more than finding them. Where the system knows no such pages, it is `numpy.zeros`.
    """
    count = math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if size < LEAST_BYTES or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype, count).reshape(shape)
