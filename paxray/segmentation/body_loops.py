"""Compiled loops over voxels, for `paxray.segmentation.body`; they run without the interpreter's lock.

All take part of the planes, so that threads can share them; arrays are ``(nk, nj, ni)`` and C-contiguous unless said.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def coarsen(hu, factor, start, stop, total, lowest):  # type: ignore[no-untyped-def]
    """Sum and least value of the blocks of some planes of blocks; the last block of an axis repeats the last voxels.

    ``total`` gives the type to add in. Along a block's axes the sums run k, j, i.
    """
    nk, nj, ni = hu.shape
    fk, fj, fi = factor
    column = np.empty(ni, total.dtype)
    row = np.empty(ni, total.dtype)
    least = np.empty(ni, hu.dtype)
    for bk in range(start, stop):
        for bj in range(total.shape[1]):
            row[:] = 0
            least[:] = hu[bk * fk, bj * fj]
            for dj in range(fj):
                j = min(bj * fj + dj, nj - 1)
                column[:] = 0
                for dk in range(fk):
                    voxels = hu[min(bk * fk + dk, nk - 1), j]
                    for i in range(ni):
                        column[i] += voxels[i]
                        least[i] = min(least[i], voxels[i])
                for i in range(ni):
                    row[i] += column[i]
            for bi in range(total.shape[2]):
                summed, low = row[bi * fi], least[bi * fi]
                for di in range(1, fi):
                    i = min(bi * fi + di, ni - 1)
                    summed += row[i]
                    low = min(low, least[i])
                total[bk, bj, bi] = summed
                lowest[bk, bj, bi] = low


@njit(cache=True, nogil=True)
def coarsen_set(voxels, factor, start, stop, out):  # type: ignore[no-untyped-def]
    """Say of the blocks of some planes of blocks whether any voxel is not 0."""
    nk, nj, ni = voxels.shape
    fk, fj, fi = factor
    row = np.empty(ni, voxels.dtype)
    for bk in range(start, stop):
        for bj in range(out.shape[1]):
            row[:] = 0
            for k in range(bk * fk, min(bk * fk + fk, nk)):
                for j in range(bj * fj, min(bj * fj + fj, nj)):
                    for i in range(ni):
                        row[i] |= voxels[k, j, i]
            for bi in range(out.shape[2]):
                found = row[bi * fi]
                for i in range(bi * fi + 1, min(bi * fi + fi, ni)):
                    found |= row[i]
                out[bk, bj, bi] = found != 0


@njit(cache=True, nogil=True)
def below_within(hu, limit, wanted, factor, start, stop, out):  # type: ignore[no-untyped-def]
    """``out`` = below a limit and in a wanted block, in some planes."""
    nj, ni = hu.shape[1:]
    fk, fj, fi = factor
    inside = np.empty(ni, np.bool_)
    for k in range(start, stop):
        for j in range(nj):
            if j % fj == 0:
                _spread(wanted[k // fk, j // fj], fi, inside)
            for i in range(ni):
                out[k, j, i] = (hu[k, j, i] < limit) & inside[i]


@njit(cache=True, nogil=True)
def solid_within(hu, limit, outer, inner, factor, include, start, stop, out):  # type: ignore[no-untyped-def]
    """``out`` = above a limit and in an outer block, or in an inner block, or not 0 in ``include``, in some planes."""
    nj, ni = hu.shape[1:]
    fk, fj, fi = factor
    near, within = np.empty(ni, np.bool_), np.empty(ni, np.bool_)
    for k in range(start, stop):
        for j in range(nj):
            if j % fj == 0:
                _spread(outer[k // fk, j // fj], fi, near)
                _spread(inner[k // fk, j // fj], fi, within)
            for i in range(ni):
                out[k, j, i] = within[i] | (near[i] & (hu[k, j, i] > limit)) | (include[k, j, i] != 0)


@njit(inline="always")
def _spread(blocks, fi, row):  # type: ignore[no-untyped-def]
    """Give each voxel of a row its block's value."""
    for bi in range(blocks.size):
        for i in range(bi * fi, min(bi * fi + fi, row.size)):
            row[i] = blocks[bi]


@njit(cache=True, nogil=True)
def widen(mask, steps, start, stop):  # type: ignore[no-untyped-def]
    """Add the neighbours in the plane so many times over, in some planes; any strides."""
    nj, ni = mask.shape[1:]
    # With a border, so that no voxel asks whether it has a neighbour.
    now, then = np.zeros((nj + 2, ni + 2), np.uint8), np.zeros((nj + 2, ni + 2), np.uint8)
    for k in range(start, stop):
        for j in range(nj):
            for i in range(ni):
                now[j + 1, i + 1] = mask[k, j, i]
        for _ in range(steps):
            for j in range(1, nj + 1):
                for i in range(1, ni + 1):
                    then[j, i] = now[j, i] | now[j - 1, i] | now[j + 1, i] | now[j, i - 1] | now[j, i + 1]
            now, then = then, now
        for j in range(nj):
            for i in range(ni):
                mask[k, j, i] = now[j + 1, i + 1] != 0


@njit(cache=True, nogil=True)
def settle(labels, body, unscanned, start, stop, flags):  # type: ignore[no-untyped-def]
    """Body = labelled, or body and scanned; unscanned = and not body; ``flags`` 1 and 2 say which, in some planes."""
    for k in range(start, stop):
        for j in range(labels.shape[1]):
            for i in range(labels.shape[2]):
                inside = labels[k, j, i] != 0 or (body[k, j, i] and not unscanned[k, j, i])
                outside = unscanned[k, j, i] and not inside
                body[k, j, i] = inside
                unscanned[k, j, i] = outside
                flags[k, j, i] = 1 if inside else 2 if outside else 0


@njit(cache=True, nogil=True)
def row_inset(values, wanted, start, stop, inset):  # type: ignore[no-untyped-def]
    """How far from either end of each row its first wanted value lies, ``(2, nk, nj)``; infinite without one."""
    ni = values.shape[2]
    for k in range(start, stop):
        for j in range(values.shape[1]):
            row = values[k, j]
            first = 0
            while first < ni and not wanted[row[first]]:
                first += 1
            inset[0, k, j] = inset[1, k, j] = np.inf
            if first < ni:
                last = ni - 1
                while not wanted[row[last]]:
                    last -= 1
                inset[0, k, j] = first
                inset[1, k, j] = ni - 1 - last
