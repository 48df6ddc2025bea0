"""Lookup-table passes over voxel arrays, compiled and shared out among threads (`paxray.parallel`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.parallel import share

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
    from paxray.anatomy import loops

    row = flat(array)

    def part(start: int, stop: int) -> Int64:
        counts = np.zeros(n_values, np.int64)
        loops.count(row[start:stop], counts)
        return counts

    return np.sum(share(row.size, part), axis=0, dtype=np.int64)


def look_up(table: NDArray[Any], array: NDArray[Any], *, in_place: bool = False) -> NDArray[Any]:
    """Return ``table[array]``: the same shape, the table's type, C order. Values must lie in the table.

    In place where asked for and array and table have one type.
    """
    from paxray.anatomy import loops

    row = flat(array)
    result = row if in_place and row.dtype == table.dtype else np.empty(row.size, table.dtype)
    share(row.size, lambda start, stop: loops.look_up(table, row[start:stop], result[start:stop]))
    return result.reshape(array.shape)


def look_up_pairs(table: NDArray[Any], array: NDArray[Any], flags: NDArray[np.uint8]) -> NDArray[Any]:
    """Return ``table[array, flags]``: C order, the table's type. Pairs must lie in the table."""
    from paxray.anatomy import loops

    values, beside = flat(array), flat(flags)
    result = np.empty(values.size, table.dtype)
    share(
        values.size,
        lambda start, stop: loops.look_up_pairs(
            table, values[start:stop], beside[start:stop], result[start:stop]
        ),
    )
    return result.reshape(array.shape)


def count_inside(array: NDArray[Any], mask: BoolArray, n_values: int) -> Int64:
    """Count the voxels of each value where a mask is set; as `count_values` of ``array[mask]``."""
    from paxray.anatomy import loops

    def part(start: int, stop: int) -> Int64:
        counts = np.zeros(n_values, np.int64)
        loops.count_inside(array[start:stop], mask[start:stop], counts)
        return counts

    return np.sum(share(len(array), part), axis=0, dtype=np.int64)


def replace_inside(array: NDArray[Any], mask: BoolArray, table: NDArray[Any]) -> None:
    """Replace values by ``table[value]`` where a mask is set, in place. Values must lie in the table."""
    from paxray.anatomy import loops

    share(len(array), lambda start, stop: loops.replace_inside(array[start:stop], mask[start:stop], table))


def value_boxes(array: NDArray[Any], n_values: int) -> Int64:
    """Return the bounding box of each value.

    Parameters
    ----------
    array
        ``(nk, nj, ni)`` integers from 0 to ``n_values - 1``.

    Returns
    -------
    ``(n_values, 2, 3)`` first and last voxel ``(i, j, k)``; zeros for a value that does not occur.
    """
    from paxray.anatomy import loops

    def part(start: int, stop: int) -> tuple[Int64, Int64]:
        low = np.full((n_values, 3), np.iinfo(np.int64).max)
        high = np.full((n_values, 3), -1, np.int64)
        loops.bounds(array[start:stop], start, low, high)
        return low, high

    parts = share(len(array), part)
    low = np.minimum.reduce([low for low, _ in parts])
    high = np.maximum.reduce([high for _, high in parts])
    boxes = np.stack([low, high], axis=1)
    boxes[high[:, 0] < 0] = 0
    return boxes


def values_on_edge(array: NDArray[Any], n_values: int, outside: BoolArray | None = None) -> BoolArray:
    """Say which values touch a face of the array or a 6-neighbour that lies outside.

    Parameters
    ----------
    array
        ``(nk, nj, ni)`` integers from 0 to ``n_values - 1``.
    outside
        ``(n_values,)``, which values lie outside; None for the faces alone.

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
    from paxray.anatomy import loops

    values, table = np.ascontiguousarray(array), np.ascontiguousarray(outside)

    def planes(start: int, stop: int) -> BoolArray:
        met = np.zeros(n_values, np.bool_)
        loops.beside(values, table, start, stop, met)
        return met

    return np.logical_or.reduce([found, *share(len(values), planes)])
