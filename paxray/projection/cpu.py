"""The compiled CPU projector: the same march as `reference`, one pass for the image and every class.

Detector rows are shared out among threads in fixed blocks, so results do not depend on the thread count. In a
row the slab loop stands outside the pixel loop, which the compiler turns into vector gathers. The state of
each ray is a run (atom, first step); classes are touched only where the atom changes.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import config as numba_config
from numba import njit, prange
from numpy.typing import NDArray

from paxray.errors import ResourceError
from paxray.projection.channels import Channels
from paxray.projection.lanes import gather, get, put
from paxray.projection.rays import POSITION_DECIMALS, IndexRays
from paxray.projection.threads import one_at_a_time
from paxray.projection.want import FACTS, Maps, Want, empty_facts, merge_facts, words_for

#: Rows that one thread handles at a time; part of the reduction's order, so never tied to the thread count.
ROWS_PER_BLOCK = 8
#: Rays whose atoms are compared at once.
LANES = 16
#: Instead of an atom: outside the array; or not on the ray, before its source or behind its detector.
OUTSIDE, BEYOND = np.int32(-1), np.int32(-2)
_ROUND = 10.0**POSITION_DECIMALS

F32, I32 = np.float32, np.int32


def march(
    mu: NDArray[np.float32],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    flags: NDArray[np.uint8],
    rays: IndexRays,
    axes: NDArray[np.int8],
    want: Want,
    threads: int | None = None,
) -> Maps:
    """Follow all rays of a view; arguments and result as in `paxray.projection.reference.march`, float32.

    Parameters
    ----------
    mu, atoms
        C-contiguous ``(nk, nj, ni)`` with at least two voxels along each axis.
    axes
        From `paxray.projection.rays.stepping_axes`; a wide fan is followed in several passes.
    threads
        At most this many; all that numba has by default.
    """
    size, count = rays.size, channels.count if want.any_class else 0
    maps = Maps(size=size, want=want)
    per_class = (count, *size)
    none3, none2 = np.empty((0, 0, 0), F32), np.empty((0, 0), F32)
    maps.image = np.zeros(size, F32) if want.image else None
    maps.path = np.zeros(per_class, F32) if want.path else None
    maps.entry = np.full(per_class, np.nan, F32) if want.depth else None
    maps.exit = np.full(per_class, np.nan, F32) if want.depth else None
    maps.share = np.zeros(per_class, F32) if want.share else None
    bits = np.zeros((*size, words_for(count)), np.uint64) if want.presence else np.empty((0, 0, 0), np.uint64)
    incomplete = np.zeros(size, np.bool_) if want.incomplete else np.empty((0, 0), np.bool_)
    blocks = -(-size[0] // ROWS_PER_BLOCK)
    facts: list[NDArray[np.void]] = []
    labelled = want.any_class or want.incomplete
    if mu.size >= 2**31:
        raise ResourceError(
            "the volume is too large for the CPU projector",
            expected="fewer than 2^31 voxels",
            found=f"{mu.size} voxels of shape {mu.shape}",
            do="crop the CT, or resample it to larger voxels",
        )
    words, packed = _as_words(atoms)

    with one_at_a_time():
        before = numba.get_num_threads()
        if threads is not None:
            numba.set_num_threads(max(1, min(threads, _most_threads())))
        try:
            for axis in sorted({int(a) for a in np.unique(axes)}):
                if want.facts:
                    counts = np.zeros((blocks, count, 7), np.int64)
                    sums = np.zeros((blocks, count, 4), np.float64)
                else:
                    counts, sums = np.zeros((0, 0, 0), np.int64), np.zeros((0, 0, 0))
                _march_rows(
                    mu.reshape(-1),
                    words,
                    packed,
                    np.array(mu.shape[::-1], np.int64),
                    axis,
                    axes,
                    rays.cone,
                    rays.pixel,
                    rays.du,
                    rays.dv,
                    rays.source,
                    rays.direction,
                    rays.pixel_depth_mm,
                    rays.metric,
                    size,
                    channels.start if count else np.zeros(len(flags) + 1, np.int32),
                    channels.members if count else np.zeros(0, np.int32),
                    flags,
                    count,
                    labelled,
                    want.depth or want.facts,
                    maps.image if maps.image is not None else none2,
                    bits,
                    maps.path if maps.path is not None else none3,
                    maps.entry if maps.entry is not None else none3,
                    maps.exit if maps.exit is not None else none3,
                    maps.share if maps.share is not None else none3,
                    incomplete,
                    counts,
                    sums,
                )
                if want.facts:
                    facts.append(_facts_of_blocks(counts, sums))
        finally:
            numba.set_num_threads(before)
    maps.presence = bits if want.presence else None
    maps.incomplete = incomplete if want.incomplete else None
    maps.facts = merge_facts(facts) if want.facts else None
    return maps


def _as_words(atoms: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.uint32], bool]:
    """Flat 32-bit words of one atom each, or of two where atoms have 16 bits; and which of the two."""
    flat = atoms.reshape(-1)
    if flat.dtype != np.uint16:
        return flat.astype(np.uint32, copy=False), False
    if flat.size % 2:
        flat = np.append(flat, np.uint16(0))
    return flat.view(np.uint32), True


def _most_threads() -> int:
    """As many as numba was started with: the processors, or NUMBA_NUM_THREADS."""
    return int(numba_config.NUMBA_NUM_THREADS)


def _facts_of_blocks(counts: NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.void]:
    """Merge the kernel's per-block columns into facts, block after block."""
    parts = []
    for block_counts, block_sums in zip(counts, sums, strict=True):
        part = empty_facts(counts.shape[1])
        met = block_counts[:, 0] > 0
        for column, name in enumerate((FACTS.names or ())[:7]):
            part[name][met] = block_counts[met, column]
        for column, name in enumerate((FACTS.names or ())[7:]):
            part[name][met] = block_sums[met, column]
        parts.append(part)
    return merge_facts(parts)


@njit(inline="always")
def _credit(ch, u, first_step, last_step, touched, steps, first, last, share, deep, shared):  # type: ignore[no-untyped-def]
    """Add a run of steps to one class of one ray; a class's row buffers are cleared when it is first met."""
    if touched[ch] == 0:
        touched[ch] = 1
        steps[ch, :] = 0
        if shared:
            share[ch, :] = F32(0)
    if deep:
        if steps[ch, u] == 0:
            first[ch, u] = first_step
        last[ch, u] = last_step
    steps[ch, u] += last_step - first_step + 1


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _sample(  # type: ignore[no-untyped-def]
    mu, base, stride_b, stride_c, top_b, top_c, b_mid, b_slope, c_mid, c_slope, ds, step, s_first, s_last, keep, out
):  # fmt: skip
    """``out = keep * out + interpolated attenuation`` for one slab of a row of rays."""
    one, zero = F32(1), F32(0)
    for u in range(out.size):
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


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _nearest(  # type: ignore[no-untyped-def]
    words, packed, base, stride_b, stride_c, edge_b, edge_c, b_mid, b_slope, c_mid, c_slope,
    ds, step, s_first, s_last, out,
):  # fmt: skip
    """The atom of the voxel nearest to each ray's sample in one slab, or `OUTSIDE` or `BEYOND`.

    `words` holds one atom in each 32 bits, or two where `packed`: there are no gathers of 16 bits.
    """
    one, zero, half = F32(1), F32(0), F32(0.5)
    odd = I32(base & 1) if packed else I32(0)
    first_word = base >> 1 if packed else base
    for u in range(out.size):
        bb = np.floor(get(b_mid, u) + ds * get(b_slope, u) + half)
        cc = np.floor(get(c_mid, u) + ds * get(c_slope, u) + half)
        inside = (bb >= zero) & (bb < edge_b) & (cc >= zero) & (cc < edge_c)
        between = (get(s_first, u) <= step) & (step <= get(s_last, u))
        in_b = min(max(bb, zero), edge_b - one)
        in_c = min(max(cc, zero), edge_c - one)
        at = I32(I32(in_b) * stride_b + I32(in_c) * stride_c + odd)
        if packed:
            word = gather(words, first_word, I32(at >> 1))
            atom = I32((word >> np.uint32((at & 1) << 4)) & np.uint32(0xFFFF))
        else:
            atom = I32(gather(words, first_word, at))
        put(out, u, (atom if inside else OUTSIDE) if between else BEYOND)


@njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _march_rows(  # type: ignore[no-untyped-def]
    mu, words, packed, shape, signed_axis, axes, cone, pixel, du, dv, source, direction, pixel_depth, metric, size,
    start, members, flags, n_channels, labelled, deep,
    image, bits, path, entry, exit_, share_out, incomplete, counts, sums,
):  # fmt: skip
    rows, columns = size
    a = abs(signed_axis) - 1
    b = 1 if a == 0 else 0
    c = 1 if a == 2 else 2
    stride = (np.int64(1), shape[0], shape[0] * shape[1])
    stride_a, stride_b, stride_c = stride[a], I32(stride[b]), I32(stride[c])
    n_a, n_b, n_c = shape[a], shape[b], shape[c]
    top_b, top_c = F32(n_b - 2), F32(n_c - 2)
    edge_b, edge_c = F32(n_b), F32(n_c)
    forward = signed_axis > 0
    want_image, shared = image.size > 0, share_out.size > 0
    want_bits, want_path, want_depth = bits.size > 0, path.size > 0, entry.size > 0
    want_incomplete, want_facts = incomplete.size > 0, counts.size > 0
    one, zero = F32(1), F32(0)
    blocks = (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK

    for block in prange(blocks):
        b_mid, b_slope = np.empty(columns, F32), np.empty(columns, F32)
        c_mid, c_slope = np.empty(columns, F32), np.empty(columns, F32)
        b0, c0 = np.empty(columns), np.empty(columns)
        db, dc = np.empty(columns), np.empty(columns)
        step_mm, depth0 = np.empty(columns), np.empty(columns)
        s_first, s_last = np.empty(columns, np.int32), np.empty(columns, np.int32)
        # `value` is scaled by zero before its first use, which must not meet a NaN.
        value, total, segment = np.zeros(columns, F32), np.empty(columns, F32), np.empty(columns, F32)
        near = np.empty(columns, np.int32)
        current, run_start = np.empty(columns, np.int32), np.empty(columns, np.int32)
        touched = np.zeros(n_channels, np.uint8)
        steps = np.empty((n_channels, columns), np.int32)
        first = np.empty((n_channels if deep else 0, columns), np.int32)
        last = np.empty((n_channels if deep else 0, columns), np.int32)
        share = np.empty((n_channels if shared else 0, columns), F32)
        way, at_pixel = np.empty(3), np.empty(3)

        for row in range(block * ROWS_PER_BLOCK, min(rows, (block + 1) * ROWS_PER_BLOCK)):
            # Each ray as b = b0 + s db, c = c0 + s dc, s = 0, 1, ... counting slabs in the ray's order.
            row_first, row_last = n_a, -1
            for u in range(columns):
                for x in range(3):
                    at_pixel[x] = pixel[x] + u * du[x] + row * dv[x]
                    way[x] = at_pixel[x] - source[x] if cone else direction[x]
                mine = axes[0, 0] if axes.size == 1 else axes[row, u]
                if mine != signed_axis:
                    b0[u], c0[u], db[u], dc[u] = -10.0, -10.0, 0.0, 0.0
                    step_mm[u], depth0[u] = 0.0, 0.0
                    s_first[u], s_last[u] = 1, 0
                    continue
                length2 = 0.0
                ahead = 0.0
                for x in range(3):
                    for y in range(3):
                        length2 += way[x] * metric[x, y] * way[y]
                        ahead += direction[x] * metric[x, y] * (at_pixel[y] - pixel[y])
                per_slab = abs(1.0 / way[a])
                slab0 = 0 if forward else n_a - 1
                t0 = (slab0 - at_pixel[a]) / way[a]
                b0[u], db[u] = at_pixel[b] + t0 * way[b], per_slab * way[b]
                c0[u], dc[u] = at_pixel[c] + t0 * way[c], per_slab * way[c]
                b0[u], c0[u] = np.rint(b0[u] * _ROUND) / _ROUND, np.rint(c0[u] * _ROUND) / _ROUND
                # A drift too small to reach the last rounded decimal over the whole march is none.
                if abs(db[u]) * n_a * _ROUND < 0.5:
                    db[u] = 0.0
                if abs(dc[u]) * n_a * _ROUND < 0.5:
                    dc[u] = 0.0
                step_mm[u] = per_slab * np.sqrt(length2)
                low, high = 0.0, n_a - 1.0
                if cone:
                    # t0 counts from the pixel: the source is at -1. Keep source < sample <= pixel. A detector may
                    # lie in a plane of voxels, where the last bit must not decide either.
                    depth0[u] = (t0 + 1.0) * np.sqrt(length2)
                    low = max(low, np.floor((-1.0 - t0) / per_slab + 1.0 / _ROUND) + 1.0)
                    high = min(high, np.floor(-t0 / per_slab + 1.0 / _ROUND))
                else:
                    depth0[u] = t0 * np.sqrt(length2) + pixel_depth + ahead
                s_first[u], s_last[u] = int(max(low, -1.0)), int(max(high, -1.0))
                # The part of the ray that can meet the lattice, one slab more to either side for safety.
                for x in range(2):
                    at0, slope, edge = (b0[u], db[u], n_b) if x == 0 else (c0[u], dc[u], n_c)
                    if abs(slope) < 1e-12:
                        if at0 <= -1.0 or at0 >= edge:
                            high = -1.0
                    else:
                        s0, s1 = (-1.0 - at0) / slope, (edge - at0) / slope
                        low, high = max(low, min(s0, s1) - 1.0), min(high, max(s0, s1) + 1.0)
                if low <= high:
                    row_first, row_last = min(row_first, int(low)), max(row_last, int(high))
            row_first, row_last = max(row_first, 0), min(row_last, n_a - 1)
            middle = (row_first + row_last) // 2
            for u in range(columns):
                b_mid[u], b_slope[u] = b0[u] + middle * db[u], db[u]
                c_mid[u], c_slope[u] = c0[u] + middle * dc[u], dc[u]
                total[u], segment[u], run_start[u] = zero, zero, row_first
                # A ray that begins inside the volume, at its source, does not enter it through a face.
                current[u] = OUTSIDE if s_first[u] <= 0 else BEYOND

            for s in range(row_first, row_last + 1):
                base = (s if forward else n_a - 1 - s) * stride_a
                ds = F32(s - middle)
                step = np.int32(s)
                if shared:
                    _sample(mu, base, stride_b, stride_c, top_b, top_c, b_mid, b_slope, c_mid, c_slope,
                            ds, step, s_first, s_last, zero, value)  # fmt: skip
                elif want_image:
                    _sample(mu, base, stride_b, stride_c, top_b, top_c, b_mid, b_slope, c_mid, c_slope,
                            ds, step, s_first, s_last, one, total)  # fmt: skip
                if not labelled:
                    continue
                _nearest(words, packed, base, stride_b, stride_c, edge_b, edge_c, b_mid, b_slope, c_mid, c_slope,
                         ds, step, s_first, s_last, near)  # fmt: skip
                if shared:
                    for u in range(columns):
                        if near[u] == current[u]:
                            segment[u] += value[u]
                # Most lanes go on in the atom they are in: look at a handful at a time.
                for lane in range(0, columns, LANES):
                    end = min(lane + LANES, columns)
                    differs = np.int32(0)
                    for u in range(lane, end):
                        differs |= near[u] ^ current[u]
                    if differs == 0:
                        continue
                    for u in range(lane, end):
                        new, old = near[u], current[u]
                        if new == old:
                            continue
                        if old >= 0:
                            for m in range(start[old], start[old + 1]):
                                _credit(members[m], u, run_start[u], step - 1, touched, steps, first, last,
                                        share, deep, shared)  # fmt: skip
                        if shared:
                            seen = max(old, 0)
                            for m in range(start[seen], start[seen + 1]):
                                if touched[members[m]] == 0:
                                    _credit(members[m], u, step, step - 1, touched, steps, first, last,
                                            share, False, shared)  # fmt: skip
                                share[members[m], u] += segment[u]
                            total[u] += segment[u]
                            segment[u] = zero
                        if want_incomplete:
                            before = flags[old] if old >= 0 else np.uint8(2 if old == OUTSIDE else 0)
                            after = flags[new] if new >= 0 else np.uint8(2 if new == OUTSIDE else 0)
                            if ((before & 1) and (after & 2)) or ((before & 2) and (after & 1)):
                                incomplete[row, u] = True
                        current[u], run_start[u] = new, step
                        if shared:
                            segment[u] = value[u]

            for u in range(columns):
                old = current[u]
                if s_first[u] > s_last[u] or not labelled:
                    continue
                if old >= 0:
                    for m in range(start[old], start[old + 1]):
                        _credit(members[m], u, run_start[u], row_last, touched, steps, first, last,
                                share, deep, shared)  # fmt: skip
                    # The march ended in the body: at the array's end, unless the detector ended it before.
                    if want_incomplete and (flags[old] & 1) and s_last[u] >= n_a - 1:
                        incomplete[row, u] = True
                if shared:
                    seen = max(old, 0)
                    for m in range(start[seen], start[seen + 1]):
                        if touched[members[m]] == 0:
                            _credit(members[m], u, row_last + 1, row_last, touched, steps, first, last,
                                    share, False, shared)  # fmt: skip
                        share[members[m], u] += segment[u]
                    total[u] += segment[u]
            if want_image:
                for u in range(columns):
                    if s_first[u] <= s_last[u]:
                        image[row, u] = total[u] * F32(step_mm[u])

            for ch in range(n_channels):
                if touched[ch] == 0:
                    continue
                touched[ch] = 0
                word, bit = ch // 64, np.uint64(1) << np.uint64(ch % 64)
                for u in range(columns):
                    n = steps[ch, u]
                    if shared and s_first[u] <= s_last[u]:
                        share_out[ch, row, u] = share[ch, u] * F32(step_mm[u])
                    if n == 0:
                        continue
                    length = n * step_mm[u]
                    if want_bits:
                        bits[row, u, word] |= bit
                    if want_path:
                        path[ch, row, u] = F32(length)
                    if not deep:
                        continue
                    begins = depth0[u] + (first[ch, u] - 0.5) * step_mm[u]
                    ends = depth0[u] + (last[ch, u] + 0.5) * step_mm[u]
                    if want_depth:
                        entry[ch, row, u] = F32(begins)
                        exit_[ch, row, u] = F32(ends)
                    if want_facts:
                        if counts[block, ch, 0] == 0:
                            counts[block, ch, 1], counts[block, ch, 2] = u, u
                            counts[block, ch, 3], counts[block, ch, 4] = row, row
                        counts[block, ch, 0] += 1
                        counts[block, ch, 1] = min(counts[block, ch, 1], u)
                        counts[block, ch, 2] = max(counts[block, ch, 2], u)
                        counts[block, ch, 3] = min(counts[block, ch, 3], row)
                        counts[block, ch, 4] = max(counts[block, ch, 4], row)
                        counts[block, ch, 5] += u
                        counts[block, ch, 6] += row
                        sums[block, ch, 0] += length
                        sums[block, ch, 1] = max(sums[block, ch, 1], length)
                        sums[block, ch, 2] += begins
                        sums[block, ch, 3] += ends
