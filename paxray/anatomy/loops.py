"""Compiled loops over voxels, for `paxray.anatomy.voxels`; they run without the interpreter's lock."""

from __future__ import annotations

import numpy as np
from numba import njit

from paxray.compiling import loop


@loop(nogil=True)
def count(values, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how often each value stands in a row."""
    if values.size == 0:
        return
    # Labels come in runs, and a run costs one addition.
    current, begin = np.int64(values[0]), 0
    for n in range(1, values.size):
        value = np.int64(values[n])
        if value != current:
            if not 0 <= current < counts.size:
                raise IndexError("a value outside the table")
            counts[current] += n - begin
            current, begin = value, n
    if not 0 <= current < counts.size:
        raise IndexError("a value outside the table")
    counts[current] += values.size - begin


@loop(nogil=True)
def look_up(table, values, out):  # type: ignore[no-untyped-def]
    """``out = table[values]``; values beyond the table take its last entry."""
    last = table.size - 1
    for n in range(values.size):
        out[n] = table[min(np.int64(values[n]), last)]


@loop(nogil=True)
def look_up_pairs(table, values, flags, out):  # type: ignore[no-untyped-def]
    """``out = table[values, flags]``."""
    for n in range(values.size):
        out[n] = table[values[n], flags[n]]


@loop(nogil=True)
def count_inside(values, mask, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how often each value stands where the mask is set; all ``(nk, nj, ni)``."""
    for k in range(values.shape[0]):
        for j in range(values.shape[1]):
            for i in range(values.shape[2]):
                if mask[k, j, i]:
                    counts[values[k, j, i]] += 1


@loop(nogil=True)
def replace_inside(values, mask, table):  # type: ignore[no-untyped-def]
    """``values = table[values]`` where the mask is set."""
    for k in range(values.shape[0]):
        for j in range(values.shape[1]):
            for i in range(values.shape[2]):
                if mask[k, j, i]:
                    values[k, j, i] = table[values[k, j, i]]


@loop(nogil=True)
def bounds(values, first_k, low, high):  # type: ignore[no-untyped-def]
    """Widen each value's box, ``low`` and ``high`` ``(n_values, 3)`` as ``(i, j, k)``, by some of the planes."""
    for k in range(values.shape[0]):
        for j in range(values.shape[1]):
            begin = 0
            for i in range(1, values.shape[2] + 1):
                if i < values.shape[2] and values[k, j, i] == values[k, j, begin]:
                    continue
                value = values[k, j, begin]
                low[value, 0] = min(low[value, 0], begin)
                high[value, 0] = max(high[value, 0], i - 1)
                low[value, 1] = min(low[value, 1], j)
                high[value, 1] = max(high[value, 1], j)
                low[value, 2] = min(low[value, 2], first_k + k)
                high[value, 2] = max(high[value, 2], first_k + k)
                begin = i


@loop(nogil=True)
def beside(values, outside, start, stop, found):  # type: ignore[no-untyped-def]
    """Mark in ``found`` each value with a 6-neighbour of a value that is ``outside`` and in some of the planes."""
    nk, nj, ni = values.shape
    for k in range(start, stop):
        for j in range(nj):
            i = 0
            while i < ni:
                if not outside[values[k, j, i]]:
                    i += 1
                    continue
                begin = i
                while i < ni and outside[values[k, j, i]]:
                    i += 1
                if begin > 0:
                    found[values[k, j, begin - 1]] = True
                if i < ni:
                    found[values[k, j, i]] = True
                if i - begin > 1:
                    _mark(values[k, j, begin:i], found)
                if k > 0:
                    _mark(values[k - 1, j, begin:i], found)
                if k + 1 < nk:
                    _mark(values[k + 1, j, begin:i], found)
                if j > 0:
                    _mark(values[k, j - 1, begin:i], found)
                if j + 1 < nj:
                    _mark(values[k, j + 1, begin:i], found)


@njit(inline="always")
def _mark(row, found):  # type: ignore[no-untyped-def]
    current = row[0]
    found[current] = True
    for n in range(1, row.size):
        if row[n] != current:
            current = row[n]
            found[current] = True
