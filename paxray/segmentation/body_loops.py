"""Compiled loops over voxels, for `paxray.segmentation.body`; they run without the interpreter's lock.

All take part of the planes, so that threads can share them; arrays are ``(nk, nj, ni)`` and C-contiguous unless said.
"""

from __future__ import annotations

import numpy as np

from paxray.compiling import helper, loop


@loop(nogil=True)
def below_within(hu, limit, wanted, factor, start, stop, out):  # type: ignore[no-untyped-def]
    """``out`` = below a limit and in a wanted block, in some planes."""
    fk, fj, fi = factor
    for k in range(start, stop):
        for j in range(hu.shape[1]):
            blocks = wanted[k // fk, j // fj]
            first = 0
            while first < blocks.size:
                end = _run_end(blocks, first)
                voxels, result = hu[k, j, first * fi : end * fi], out[k, j, first * fi : end * fi]
                if blocks[first]:
                    for i in range(voxels.size):
                        result[i] = voxels[i] < limit
                else:
                    result[:] = False
                first = end


@loop(nogil=True)
def solid_within(hu, limit, near, factor, include, start, stop, out):  # type: ignore[no-untyped-def]
    """``out`` = in a block that is 2, or above a limit in one that is 1, or not 0 in ``include``, in some planes."""
    fk, fj, fi = factor
    for k in range(start, stop):
        for j in range(hu.shape[1]):
            blocks = near[k // fk, j // fj]
            first = 0
            while first < blocks.size:
                end = _run_end(blocks, first)
                voxels, result = hu[k, j, first * fi : end * fi], out[k, j, first * fi : end * fi]
                drawn = include[k, j, first * fi : end * fi]
                if blocks[first] == 2:
                    result[:] = True
                elif blocks[first] == 1:
                    for i in range(voxels.size):
                        result[i] = (voxels[i] > limit) | (drawn[i] != 0)
                else:
                    for i in range(voxels.size):
                        result[i] = drawn[i] != 0
                first = end


@helper()
def _run_end(row, first):  # type: ignore[no-untyped-def]
    """Where the run of equal values that begins at ``first`` ends: rows of many blocks are quicker than single ones."""
    end = first + 1
    while end < row.size and row[end] == row[first]:
        end += 1
    return end


@loop(nogil=True)
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


@loop(nogil=True)
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


@loop(nogil=True)
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


@loop(nogil=True)
def number_pieces(mask, joins, out):  # type: ignore[no-untyped-def]
    """Number pieces 1, 2, ... in the order of their first voxels, 0 elsewhere; `joins` says for k, j, i if neighbours
    along that axis hang together. Returns how many there are.

    Provisional numbers in a first pass, joined where they meet, settled in a second (union-find).
    """
    nk, nj, ni = mask.shape
    parent = np.empty(mask.size + 1, np.int32)
    parent[0] = 0
    count = 0
    for k in range(nk):
        for j in range(nj):
            for i in range(ni):
                number = 0
                if mask[k, j, i]:
                    if joins[2] and i > 0:
                        number = out[k, j, i - 1]
                    if joins[1] and j > 0:
                        number = _joined(parent, number, out[k, j - 1, i])
                    if joins[0] and k > 0:
                        number = _joined(parent, number, out[k - 1, j, i])
                    if number == 0:
                        count += 1
                        parent[count] = number = count
                out[k, j, i] = number
    pieces = 0
    for number in range(1, count + 1):
        if parent[number] == number:
            pieces += 1
            parent[number] = pieces
        else:  # a parent has the smaller number, so it is settled already
            parent[number] = parent[parent[number]]
    for k in range(nk):
        for j in range(nj):
            for i in range(ni):
                out[k, j, i] = parent[out[k, j, i]]
    return pieces


@helper()
def _joined(parent, one, other):  # type: ignore[no-untyped-def]
    """The number of two voxels that hang together, each of whose numbers may be 0."""
    if one == 0 or other == 0 or one == other:
        return max(one, other)
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)
    return min(one, other)


@helper()
def _root(parent, number):  # type: ignore[no-untyped-def]
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number
