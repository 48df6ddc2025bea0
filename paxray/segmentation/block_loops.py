"""Compiled loops over voxels, for `paxray.segmentation.blocks`; they run without the interpreter's lock.

All take part of the planes of blocks, so that threads can share them; arrays are ``(nk, nj, ni)`` and C-contiguous.
"""

from __future__ import annotations

import numpy as np

from paxray.compiling import loop


@loop(nogil=True)
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
            # Element by element: an assignment could fail, and numba would compile its message for seconds.
            for i in range(ni):
                least[i] = hu[bk * fk, bj * fj, i]
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


@loop(nogil=True)
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
