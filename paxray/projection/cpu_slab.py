"""One slab of a row of rays: the interpolated attenuation and the nearest atom of each sample.

Three ways, by what is known of the samples:

* *inside*: all have their four neighbours in the lattice, which is most of them;
* *line*: inside, and at the same place on one of the slab's two axes, as in a view along the axes of the
  volume: two lines of voxels are blended once for all pixels of the row;
* *edge*: anything else, with tent weights around clamped corners.

``out`` becomes ``keep * out + value``; ``near`` the atom, or `OUTSIDE` or `BEYOND`. Loops over pixels read and write by
`paxray.projection.lanes`, which check no bounds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from paxray.compiling import helper
from paxray.projection.lanes import gather, get, lay, pair, put, take

#: Instead of an atom: outside the array; or not on the ray, before its source or behind its detector.
OUTSIDE, BEYOND = np.int32(-1), np.int32(-2)
#: Neighbouring slabs taken together where the steps go along memory: as many as a cache line has voxels.
TILE = 16

F32, I32 = np.float32, np.int32


@njit(inline="always")
def _corner(b_mid, b_slope, c_mid, c_slope, ds, u, top_b, top_c, stride_b, stride_c):  # type: ignore[no-untyped-def]
    """Offset in the slab of the lower of four neighbours, and the sample's distances from it."""
    bb = get(b_mid, u) + ds * get(b_slope, u)
    cc = get(c_mid, u) + ds * get(c_slope, u)
    low_b, low_c = min(max(I32(bb), I32(0)), top_b), min(max(I32(cc), I32(0)), top_c)
    return I32(low_b * stride_b + low_c * stride_c), bb - F32(low_b), cc - F32(low_c)


@njit(inline="always")
def blend(mu, base, at, fb, fc, stride_b, stride_c):  # type: ignore[no-untyped-def]
    """Bilinear interpolation of four neighbours."""
    x0, x1 = gather(mu, base, at), gather(mu, base + stride_c, at)
    y0, y1 = gather(mu, base + stride_b, at), gather(mu, base + stride_b + stride_c, at)
    x, y = x0 + fc * (x1 - x0), y0 + fc * (y1 - y0)
    return x + fb * (y - x)


# Inlined by the compiler, not numba, which would count references to the arrays in every slab.
@helper(forceinline=True, error_model="numpy")
def atom(ids, words, packed, base, at):  # type: ignore[no-untyped-def]
    """The atom at an offset, out of `ids` of 16 bits if `packed`, else out of `words` of 32."""
    if packed:
        # No processor gathers 16 bits: with the one before it, but for the first of all, an atom is 32.
        low = max(I32(at - 1), I32(-1) if base > 0 else I32(0))
        return I32((pair(ids, base, low) >> (np.uint32(at - low) << np.uint32(4))) & np.uint32(0xFFFF))
    return I32(gather(words, base, at))


@helper(fastmath={"contract"}, error_model="numpy")
def inside_image(  # type: ignore[no-untyped-def]
    mu, base, stride_b, stride_c, top_b, top_c, b_mid, b_slope, c_mid, c_slope, ds, begin, end, keep, out
):  # fmt: skip
    """Attenuation of pixels that are well inside the lattice."""
    for u in range(begin, end):
        at, fb, fc = _corner(b_mid, b_slope, c_mid, c_slope, ds, u, top_b, top_c, stride_b, stride_c)
        put(out, u, keep * get(out, u) + blend(mu, base, at, fb, fc, stride_b, stride_c))


@helper(fastmath={"contract"}, error_model="numpy")
def inside_label(  # type: ignore[no-untyped-def]
    ids, words, packed, base, stride_b, stride_c, top_b, top_c, b_mid, b_slope, c_mid, c_slope, ds, begin, end, near
):  # fmt: skip
    """Nearest atom of pixels that are well inside."""
    half, zero = F32(0.5), I32(0)
    for u in range(begin, end):
        at, fb, fc = _corner(b_mid, b_slope, c_mid, c_slope, ds, u, top_b, top_c, stride_b, stride_c)
        nearest = I32(at + (stride_b if fb >= half else zero) + (stride_c if fc >= half else zero))
        put(near, u, atom(ids, words, packed, base, nearest))


@helper(fastmath={"contract"}, error_model="numpy")
def inside_both(  # type: ignore[no-untyped-def]
    mu, ids, words, packed, base, stride_b, stride_c, top_b, top_c, b_mid, b_slope, c_mid, c_slope,
    ds, begin, end, keep, out, near,
):  # fmt: skip
    """Both at once."""
    half, zero = F32(0.5), I32(0)
    for u in range(begin, end):
        at, fb, fc = _corner(b_mid, b_slope, c_mid, c_slope, ds, u, top_b, top_c, stride_b, stride_c)
        put(out, u, keep * get(out, u) + blend(mu, base, at, fb, fc, stride_b, stride_c))
        nearest = I32(at + (stride_b if fb >= half else zero) + (stride_c if fc >= half else zero))
        put(near, u, atom(ids, words, packed, base, nearest))


@helper(fastmath={"contract"}, error_model="numpy")
def blend_line(mu, first, stride_b, stride_c, low, high, fc, line):  # type: ignore[no-untyped-def]
    """Blend a slab's two lines of voxels, from `first` on and `stride_c` further, next to a row of samples."""
    if stride_b == 1:
        for b in range(low, high + 1):
            x = gather(mu, first, b)
            lay(line, b, x + fc * (gather(mu, first + stride_c, b) - x))
    else:
        for b in range(low, high + 1):
            at = I32(I32(b) * stride_b)
            x = gather(mu, first, at)
            lay(line, b, x + fc * (gather(mu, first + stride_c, at) - x))


@helper(fastmath={"contract"}, error_model="numpy")
def copy_atoms(ids, words, packed, first, stride_b, low, high, atom_line):  # type: ignore[no-untyped-def]
    """Copy the line of atoms nearest to a row of samples."""
    if stride_b == 1 and packed:
        for b in range(low, high + 1):
            lay(atom_line, b, I32(gather(ids, first, b)))
    elif stride_b == 1:
        for b in range(low, high + 1):
            lay(atom_line, b, I32(gather(words, first, b)))
    else:
        for b in range(low, high + 1):
            lay(atom_line, b, atom(ids, words, packed, first, I32(I32(b) * stride_b)))


@helper(fastmath={"contract"}, error_model="numpy")
def _blend_tile(mu, first, stride_b, stride_c, n_b, low, high, t0, t1, fc, line):  # type: ignore[no-untyped-def]
    """`blend_line` for slabs `t0` to `t1` of a tile, which are neighbours in memory; `fc` of each."""
    for b in range(low, high + 1):
        at = first + b * np.int64(stride_b)
        if t1 - t0 == TILE:
            for t in range(TILE):
                x = gather(mu, at, t)
                lay(line, t * n_b + b, x + get(fc, t) * (gather(mu, at + stride_c, t) - x))
        else:
            for t in range(t0, t1):
                x = gather(mu, at, t)
                lay(line, t * n_b + b, x + get(fc, t) * (gather(mu, at + stride_c, t) - x))


@helper(error_model="numpy")
def _copy_atom_tile(ids, first, stride_b, n_b, low, high, t0, t1, atom_line):  # type: ignore[no-untyped-def]
    """`copy_atoms` for slabs `t0` to `t1` of a tile."""
    for b in range(low, high + 1):
        at = first + b * np.int64(stride_b)
        if t1 - t0 == TILE:
            for t in range(TILE):
                lay(atom_line, t * n_b + b, I32(gather(ids, at, t)))
        else:
            for t in range(t0, t1):
                lay(atom_line, t * n_b + b, I32(gather(ids, at, t)))


@helper(error_model="numpy")
def fill_tile(  # type: ignore[no-untyped-def]
    mu, ids, words, packed, n, forward, n_a, middle, stride_b, stride_c, n_b, top_c,
    c_mid, c_slope, low, high, imaged, labelled, low_c, near_c, fc, line, atom_line,
):  # fmt: skip
    """Lines of the `TILE` slabs around slab `n` of the array, ``line[(slab % TILE) * n_b + b]``.

    Where the steps go along memory, a slab's line is strided; taking neighbouring slabs together reads whole
    cache lines, which a stride of a power of two would else throw out before their next use.
    """
    slab0 = n - n % TILE
    count = min(TILE, n_a - slab0)
    for t in range(count):
        step = slab0 + t if forward else n_a - 1 - slab0 - t
        low_c[t], fc[t] = place(c_mid, c_slope, F32(step - middle), 0, top_c)
        near_c[t] = low_c[t] + (1 if fc[t] >= F32(0.5) else 0)
    if imaged:
        t0 = np.int64(0)
        while t0 < count:
            t1 = t0 + 1
            while t1 < count and low_c[t1] == low_c[t0]:
                t1 += 1
            first = slab0 + np.int64(low_c[t0]) * stride_c
            _blend_tile(mu, first, stride_b, np.int64(stride_c), n_b, low, high, t0, t1, fc, line)
            t0 = t1
    if labelled:
        t0 = np.int64(0)
        while t0 < count:
            t1 = t0 + 1
            while t1 < count and near_c[t1] == near_c[t0]:
                t1 += 1
            first = slab0 + np.int64(near_c[t0]) * stride_c
            if packed:
                _copy_atom_tile(ids, first, stride_b, n_b, low, high, t0, t1, atom_line)
            else:
                _copy_atom_tile(words, first, stride_b, n_b, low, high, t0, t1, atom_line)
            t0 = t1


@njit(inline="always")
def place(b_mid, b_slope, ds, u, top_b):  # type: ignore[no-untyped-def]
    """The lower of two neighbours on a line, and the sample's distance from it."""
    bb = get(b_mid, u) + ds * get(b_slope, u)
    low_b = min(max(I32(bb), I32(0)), top_b)
    return low_b, bb - F32(low_b)


@helper(fastmath={"contract"}, error_model="numpy")
def line_image(line, at, top_b, b_mid, b_slope, ds, begin, end, keep, out):  # type: ignore[no-untyped-def]
    """Attenuation along a line that `blend_line` made."""
    for u in range(begin, end):
        low_b, fb = place(b_mid, b_slope, ds, u, top_b)
        x = take(line, at, low_b)
        put(out, u, keep * get(out, u) + (x + fb * (take(line, at + 1, low_b) - x)))


@helper(fastmath={"contract"}, error_model="numpy")
def line_label(atom_line, at, top_b, b_mid, b_slope, ds, begin, end, near):  # type: ignore[no-untyped-def]
    """Nearest atom along a line."""
    half = F32(0.5)
    for u in range(begin, end):
        low_b, fb = place(b_mid, b_slope, ds, u, top_b)
        put(near, u, take(atom_line, at, I32(low_b + (I32(1) if fb >= half else I32(0)))))


@helper(fastmath={"contract"}, error_model="numpy")
def line_both(  # type: ignore[no-untyped-def]
    line, atom_line, at, top_b, b_mid, b_slope, ds, begin, end, keep, out, near
):  # fmt: skip
    """Both at once."""
    half = F32(0.5)
    for u in range(begin, end):
        low_b, fb = place(b_mid, b_slope, ds, u, top_b)
        x = take(line, at, low_b)
        put(out, u, keep * get(out, u) + (x + fb * (take(line, at + 1, low_b) - x)))
        put(near, u, take(atom_line, at, I32(low_b + (I32(1) if fb >= half else I32(0)))))


@helper(fastmath={"contract"}, error_model="numpy")
def edge_image(  # type: ignore[no-untyped-def]
    mu, base, stride_b, stride_c, n_b, n_c, b_mid, b_slope, c_mid, c_slope,
    ds, step, s_first, s_last, begin, end, keep, out,
):  # fmt: skip
    """Interpolated attenuation of pixels wherever they are: zero outside the lattice and off the ray."""
    one, zero = F32(1), F32(0)
    top_b, top_c = F32(n_b - 2), F32(n_c - 2)
    for u in range(begin, end):
        bb = get(b_mid, u) + ds * get(b_slope, u)
        cc = get(c_mid, u) + ds * get(c_slope, u)
        low_b = min(max(np.floor(bb), zero), top_b)
        low_c = min(max(np.floor(cc), zero), top_c)
        # Tent weights around clamped corners: zero outside the lattice, without a branch.
        b_low, b_high = max(zero, one - abs(bb - low_b)), max(zero, one - abs(bb - low_b - one))
        c_low, c_high = max(zero, one - abs(cc - low_c)), max(zero, one - abs(cc - low_c - one))
        at = I32(I32(low_b) * stride_b + I32(low_c) * stride_c)
        found = b_low * (c_low * gather(mu, base, at) + c_high * gather(mu, base + stride_c, at)) + b_high * (
            c_low * gather(mu, base + stride_b, at) + c_high * gather(mu, base + stride_b + stride_c, at)
        )
        between = (get(s_first, u) <= step) & (step <= get(s_last, u))
        put(out, u, keep * get(out, u) + (found if between else zero))


@helper(fastmath={"contract"}, error_model="numpy")
def edge_label(  # type: ignore[no-untyped-def]
    ids, words, packed, base, stride_b, stride_c, n_b, n_c, b_mid, b_slope, c_mid, c_slope,
    ds, step, s_first, s_last, begin, end, near,
):  # fmt: skip
    """Nearest atom of pixels wherever they are; or `OUTSIDE` or `BEYOND`."""
    one, zero, half = F32(1), F32(0), F32(0.5)
    edge_b, edge_c = F32(n_b), F32(n_c)
    for u in range(begin, end):
        bb = get(b_mid, u) + ds * get(b_slope, u)
        cc = get(c_mid, u) + ds * get(c_slope, u)
        # Not floor(x + 1/2): the sum may round up to the next voxel.
        low_b, low_c = np.floor(bb), np.floor(cc)
        bb = low_b + (one if bb - low_b >= half else zero)
        cc = low_c + (one if cc - low_c >= half else zero)
        inside = (bb >= zero) & (bb < edge_b) & (cc >= zero) & (cc < edge_c)
        between = (get(s_first, u) <= step) & (step <= get(s_last, u))
        in_b = min(max(bb, zero), edge_b - one)
        in_c = min(max(cc, zero), edge_c - one)
        found = atom(ids, words, packed, base, I32(I32(in_b) * stride_b + I32(in_c) * stride_c))
        put(near, u, (found if inside else OUTSIDE) if between else BEYOND)
