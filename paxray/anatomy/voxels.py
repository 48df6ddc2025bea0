"""Lookup-table passes over voxel arrays, in pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# numpy widens indices to 64 bits before it counts or gathers: 2^16 of them fill half a megabyte.
_PIECE = 1 << 16

Int64 = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as one row in C order; a copy only where its memory lies otherwise."""
    return np.ascontiguousarray(array).reshape(-1)


def pieces(size: int, at_least: int = 0) -> Iterator[slice]:
    """Cut ``range(size)`` into slices of a cache-friendly length, or of ``at_least`` if that is longer."""
    step = max(_PIECE, at_least)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def count_values(array: NDArray[Any], n_values: int) -> Int64:
    """Count the voxels of each value.

    Parameters
    ----------
    array
        Integers from 0 to ``n_values - 1``, any shape.

    Returns
    -------
    ``(n_values,)`` int64.
    """
    row = flat(array)
    counts = np.zeros(n_values, np.int64)
    for piece in pieces(row.size, n_values):
        counts += np.bincount(row[piece], minlength=n_values)
    return counts


def look_up(table: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """Return ``table[array]``: the same shape, the table's type, C order. Values must lie in the table."""
    row = flat(array)
    result = np.empty(row.size, table.dtype)
    for piece in pieces(row.size):
        # "clip" lets numpy write straight into the output; the values are known to lie in the table.
        np.take(table, row[piece], out=result[piece], mode="clip")
    return result.reshape(array.shape)


def values_on_edge(array: NDArray[Any], n_values: int, outside: BoolArray | None) -> BoolArray:
    """Say which values touch a face of the array or a 6-neighbour that lies ``outside``.

    Parameters
    ----------
    array
        ``(nk, nj, ni)`` integers from 0 to ``n_values - 1``.
    outside
        ``(nk, nj, ni)`` bool, or None for the faces alone.

    Returns
    -------
    ``(n_values,)`` bool.
    """
    found = np.zeros(n_values, np.bool_)
    for axis in range(3):
        for end in (0, -1):
            found[np.take(array, end, axis=axis)] = True
    if outside is None:
        return found
    for k in range(array.shape[0]):
        near = slice(max(k - 1, 0), k + 2)
        if not outside[near].any():
            continue
        edge = np.zeros(array.shape[1:], np.bool_)
        edge[1:] |= outside[k, :-1]
        edge[:-1] |= outside[k, 1:]
        edge[:, 1:] |= outside[k, :, :-1]
        edge[:, :-1] |= outside[k, :, 1:]
        if k > 0:
            edge |= outside[k - 1]
        if k + 1 < array.shape[0]:
            edge |= outside[k + 1]
        found[array[k][edge]] = True
    return found
