"""The compiled march over the rows of a detector.

In a row the slab loop stands outside the pixel loop, which the compiler turns into vector gathers; pixels are
taken a chunk at a time. A ray's state is a run (atom, first step): nothing but a comparison happens to it until
the atom changes. Runs are added up per atom, and atoms into classes at the end of the row.
"""

from __future__ import annotations

import numpy as np

from paxray.compiling import helper, loop
from paxray.projection.cpu_buffers import CHUNK
from paxray.projection.cpu_rays import set_up_row
from paxray.projection.cpu_runs import WORD, clear, close, fold, tally
from paxray.projection.cpu_slab import (
    BEYOND,
    OUTSIDE,
    TILE,
    blend_line,
    copy_atoms,
    edge_image,
    edge_label,
    fill_tile,
    inside_both,
    inside_image,
    inside_label,
    line_both,
    line_image,
    line_label,
    place,
)
from paxray.projection.lanes import claim, differing, gather, get, highest, lowest, put
from paxray.projection.tiles import ROWS_PER_BLOCK

F32, I32 = np.float32, np.int32


@helper(error_model="numpy")
def _parts(  # type: ignore[no-untyped-def]
    s, chunk_first, chunk_last, surely_first, surely_last, part_begin, part_end, part_sure
):  # fmt: skip
    """Divide a row by what is known of its samples in slab `s`; returns the number of parts, and their last slab."""
    count, until, open_ = 0, np.int32(2**31 - 1), False
    for chunk in range(chunk_first.size):
        if s < chunk_first[chunk]:
            until, open_ = min(until, chunk_first[chunk] - I32(1)), False
            continue
        if s > chunk_last[chunk]:
            open_ = False
            continue
        until = min(until, chunk_last[chunk])
        sure = surely_first[chunk] <= s <= surely_last[chunk]
        if sure:
            until = min(until, surely_last[chunk])
        elif s < surely_first[chunk]:
            until = min(until, surely_first[chunk] - I32(1))
        if open_ and part_sure[count - 1] == sure:
            part_end[count - 1] += CHUNK
            continue
        part_begin[count], part_end[count], part_sure[count] = chunk * CHUNK, (chunk + 1) * CHUNK, sure
        count, open_ = count + 1, True
    return count, until


# Without numba's run time (NRT): it would count references to arrays wherever they are given a name, and threads wait
# for one another there.
@loop(nogil=True, error_model="numpy", _nrt=False)
def march_rows(  # type: ignore[no-untyped-def]
    turn, buffers, mu, ids, words, packed, shape, signed_axis, axes,
    cone, pixel, du, dv, source, direction, pixel_depth, metric, size,
    start, members, flags, n_channels, labelled, deep,
    image, bits, path, entry, exit_, share_out, incomplete, counts, sums,
):  # fmt: skip
    """Follow the rays whose stepping axis is `signed_axis`; arguments as `paxray.projection.cpu.march` makes them.

    Called in several threads at once, each with `buffers` of its own (`paxray.projection.cpu_buffers`); they take
    blocks of rows in `turn`. Every ray belongs to one thread, and a block of rows to one row of `counts` and `sums`,
    so that nothing depends on the number of threads. An output of size zero is not wanted.
    """
    rays, divided, samples, runs = buffers.rays, buffers.parts, buffers.samples, buffers.runs
    slots, shift = buffers.slots, buffers.shift
    rows, columns = size
    a = abs(signed_axis) - 1
    n_a, stride = shape[a], (np.int64(1), shape[0], shape[0] * shape[1])
    stride_a = stride[a]
    forward = signed_axis > 0
    want_image, shared = image.size > 0, share_out.size > 0
    want_bits, want_path, want_depth = bits.size > 0, path.size > 0, entry.size > 0
    want_incomplete, want_facts = incomplete.size > 0, counts.size > 0
    imaged = want_image or shared
    one, zero = F32(1), F32(0)
    blocks = (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK

    b0, c0, db, dc, step_mm, depth0 = rays.b0, rays.c0, rays.db, rays.dc, rays.step_mm, rays.depth0
    b_mid, b_slope, c_mid, c_slope = rays.b_mid, rays.b_slope, rays.c_mid, rays.c_slope
    s_first, s_last, meets_first, meets_last = rays.s_first, rays.s_last, rays.meets_first, rays.meets_last
    inside_first, inside_last = rays.inside_first, rays.inside_last
    chunk_first, chunk_last = divided.chunk_first, divided.chunk_last
    surely_first, surely_last = divided.surely_first, divided.surely_last
    part_begin, part_end, part_sure = divided.begin, divided.end, divided.sure
    value, total, segment = samples.value, samples.total, samples.segment
    near, current, run_start = samples.near, samples.current, samples.run_start
    line, atom_line = samples.line, samples.atom_line
    tile_low, tile_near, tile_fc = samples.tile_low, samples.tile_near, samples.tile_fc
    slot_of, atom_of, touched, slot_ready = runs.slot_of, runs.atom_of, runs.touched, runs.slot_ready
    run_steps, run_first, run_last, run_share = runs.run_steps, runs.run_first, runs.run_last, runs.run_share
    met, ready, row_bits = runs.met, runs.ready, runs.bits
    steps, first, last, share = runs.steps, runs.first, runs.last, runs.share
    chunks, width = chunk_first.size, near.size

    keep, out = (zero, value) if shared else (one, total)

    block = claim(turn)
    while block < blocks:
        for row in range(block * ROWS_PER_BLOCK, min(rows, (block + 1) * ROWS_PER_BLOCK)):
            axis_b, axis_c = 1 if a == 0 else 0, 1 if a == 2 else 2
            set_up_row(
                row, axes, signed_axis, axis_b, axis_c, shape, cone, pixel, du, dv, source, direction, pixel_depth,
                metric, b0, c0, db, dc, step_mm, depth0,
                s_first, s_last, meets_first, meets_last, inside_first, inside_last,
            )  # fmt: skip
            row_first, row_last = n_a, -1
            for chunk in range(chunks):
                chunk_first[chunk], chunk_last[chunk] = n_a, -1
                surely_first[chunk], surely_last[chunk] = -1, n_a
                for u in range(chunk * CHUNK, min(columns, (chunk + 1) * CHUNK)):
                    chunk_first[chunk] = min(chunk_first[chunk], meets_first[u])
                    chunk_last[chunk] = max(chunk_last[chunk], meets_last[u])
                    surely_first[chunk] = max(surely_first[chunk], inside_first[u])
                    surely_last[chunk] = min(surely_last[chunk], inside_last[u])
                if (chunk + 1) * CHUNK > columns:
                    surely_last[chunk] = -1
                row_first, row_last = min(row_first, chunk_first[chunk]), max(row_last, chunk_last[chunk])
            middle = (row_first + row_last) // 2
            flat_b, flat_c = True, True
            for u in range(columns):
                b_mid[u], b_slope[u] = b0[u] + middle * db[u], db[u]
                c_mid[u], c_slope[u] = c0[u] + middle * dc[u], dc[u]
                flat_b = flat_b and b_mid[u] == b_mid[0] and b_slope[u] == b_slope[0]
                flat_c = flat_c and c_mid[u] == c_mid[0] and c_slope[u] == c_slope[0]
            # On a line, c is the axis along which the row of samples does not move.
            lined = flat_b or flat_c
            if flat_b and not flat_c:
                axis_b, axis_c = axis_c, axis_b
                b_mid, b_slope, c_mid, c_slope = c_mid, c_slope, b_mid, b_slope
            stride_b, stride_c = I32(stride[axis_b]), I32(stride[axis_c])
            n_b, n_c = I32(shape[axis_b]), I32(shape[axis_c])
            top_b, top_c = I32(n_b - 2), I32(n_c - 2)
            line_low, line_high = n_b - 1, I32(0)
            for chunk in range(chunks):
                if surely_first[chunk] > surely_last[chunk]:
                    continue
                for end in (F32(surely_first[chunk] - middle), F32(surely_last[chunk] - middle)):
                    for lane in range(CHUNK):
                        low_b, _ = place(b_mid, b_slope, end, chunk * CHUNK + lane, top_b)
                        line_low, line_high = min(line_low, low_b), max(line_high, low_b + I32(1))
            # A strided line costs as many gathers as the pixels would, unless slabs are taken together.
            tiled = stride_a == 1
            lined = lined and (tiled or stride_b == 1 or line_high - line_low < columns)
            # Rounding of a position between two ends may reach one voxel further.
            line_low, line_high = max(line_low - I32(1), I32(0)), min(line_high + I32(1), n_b - I32(1))

            for u in range(columns):
                total[u], segment[u], run_start[u] = zero, zero, row_first
                # Scaled by zero before its first use, which must not meet a NaN; nor another row's.
                value[u] = zero
                # A ray that begins inside the volume, at its source, does not enter it through a face.
                near[u] = current[u] = OUTSIDE if s_first[u] <= 0 else BEYOND
            used, parts, until, have_line = np.int64(0), 0, row_first - 1, -1

            for s in range(row_first, row_last + 1):
                n = s if forward else n_a - 1 - s
                base = n * stride_a
                ds, step = F32(s - middle), np.int32(s)
                if s > until:
                    parts, until = _parts(
                        s, chunk_first, chunk_last, surely_first, surely_last, part_begin, part_end, part_sure
                    )
                for part in range(parts):
                    begin, end, sure = part_begin[part], part_end[part], part_sure[part]
                    if sure and lined:
                        at_line = (n % TILE) * n_b if tiled else np.int64(0)
                        if tiled and n // TILE != have_line:
                            have_line = n // TILE
                            fill_tile(mu, ids, words, packed, n, forward, n_a, middle, stride_b, stride_c, n_b, top_c,
                                      c_mid, c_slope,
                                       line_low, line_high, imaged, labelled,
                                          tile_low, tile_near, tile_fc, line, atom_line)  # fmt: skip
                        elif not tiled and n != have_line:
                            have_line = n
                            low_c, fc = place(c_mid, c_slope, ds, 0, top_c)
                            first_voxel = base + np.int64(low_c) * stride_c
                            if imaged:
                                blend_line(mu, first_voxel, stride_b, np.int64(stride_c),
                                           line_low, line_high, fc, line)  # fmt: skip
                            if labelled:
                                first_voxel += stride_c if fc >= F32(0.5) else 0
                                copy_atoms(
                                    ids, words, packed, first_voxel, stride_b, line_low, line_high, atom_line
                                )
                        if imaged and labelled:
                            line_both(line, atom_line, at_line, top_b, b_mid, b_slope,
                                       ds, begin, end, keep, out, near)  # fmt: skip
                        elif imaged:
                            line_image(line, at_line, top_b, b_mid, b_slope, ds, begin, end, keep, out)
                        else:
                            line_label(atom_line, at_line, top_b, b_mid, b_slope, ds, begin, end, near)
                    elif sure:
                        if imaged and labelled:
                            inside_both(mu, ids, words, packed, base, stride_b, stride_c, top_b, top_c,
                                         b_mid, b_slope, c_mid, c_slope, ds, begin, end, keep, out, near)  # fmt: skip
                        elif imaged:
                            inside_image(mu, base, stride_b, stride_c, top_b, top_c,
                                          b_mid, b_slope, c_mid, c_slope, ds, begin, end, keep, out)  # fmt: skip
                        else:
                            inside_label(ids, words, packed, base, stride_b, stride_c, top_b, top_c,
                                          b_mid, b_slope, c_mid, c_slope, ds, begin, end, near)  # fmt: skip
                    else:
                        if imaged:
                            edge_image(mu, base, stride_b, stride_c, n_b, n_c, b_mid, b_slope, c_mid, c_slope,
                                        ds, step, s_first, s_last, begin, end, keep, out)  # fmt: skip
                        if labelled:
                            edge_label(ids, words, packed, base, stride_b, stride_c, n_b, n_c, b_mid, b_slope,
                                        c_mid, c_slope, ds, step, s_first, s_last, begin, end, near)  # fmt: skip
                    if shared:
                        for u in range(begin, end):
                            if near[u] == current[u]:
                                segment[u] += value[u]
                if not labelled:
                    continue
                # Pixels not visited in this slab are still where they were.
                for at_word in range(0, width, WORD):
                    changed = differing(near, current, at_word)
                    while changed:
                        u = at_word + lowest(changed)
                        changed &= changed - np.uint64(1)
                        new, old = get(near, u), get(current, u)
                        used = close(
                            old, u, get(run_start, u), step, used, slots, width, shift, atom_of, slot_of, touched,
                            slot_ready, start, members, met, ready, deep, shared,
                            run_steps, run_first, run_last, run_share, steps, first, last, share, segment,
                        )  # fmt: skip
                        if shared:
                            put(total, u, get(total, u) + get(segment, u))
                            put(segment, u, get(value, u))
                        if want_incomplete:
                            before = flags[old] if old >= 0 else np.uint8(2 if old == OUTSIDE else 0)
                            after = flags[new] if new >= 0 else np.uint8(2 if new == OUTSIDE else 0)
                            if ((before & 1) and (after & 2)) or ((before & 2) and (after & 1)):
                                incomplete[row, u] = True
                        put(current, u, new)
                        put(run_start, u, step)

            if labelled:
                for chunk in range(chunks):
                    step = chunk_last[chunk] + I32(1)
                    for u in range(chunk * CHUNK, min(columns, (chunk + 1) * CHUNK)):
                        old = current[u]
                        if s_first[u] > s_last[u]:
                            continue
                        used = close(
                            old, u, run_start[u], step, used, slots, width, shift, atom_of, slot_of, touched,
                            slot_ready, start, members, met, ready, deep, shared,
                            run_steps, run_first, run_last, run_share, steps, first, last, share, segment,
                        )  # fmt: skip
                        # The march ended in the body: at the array's end, unless the detector ended it before.
                        if want_incomplete and old >= 0 and (flags[old] & 1) and s_last[u] >= n_a - 1:
                            incomplete[row, u] = True
                        if shared:
                            total[u] += segment[u]
                fold(used, width, shift, atom_of, slot_of, touched, start, members, met, ready,
                      deep, shared, run_steps, run_first, run_last, run_share, steps, first, last, share)  # fmt: skip
            if want_image:
                for u in range(columns):
                    if s_first[u] <= s_last[u]:
                        image[row, u] = total[u] * F32(step_mm[u])

            for ch in range(n_channels):
                if met[ch] == 0:
                    continue
                low, high = lowest(met[ch]) << shift, min((highest(met[ch]) + 1) << shift, width)
                met[ch], at = 0, ch * width
                if want_bits:
                    bit = np.uint64(ch % 64)
                    of_word = (ch // 64) * width
                    for u in range(low, high):
                        held = get(row_bits, of_word + u)
                        put(row_bits, of_word + u, held | (np.uint64(gather(steps, at, u) > 0) << bit))
                # A wide fan's other passes have written the rays that are not this one's.
                if want_path:
                    for u in range(low, min(high, columns)):
                        if steps[at + u] > 0:
                            path[ch, row, u] = F32(steps[at + u] * step_mm[u])
                if shared:
                    for u in range(low, min(high, columns)):
                        if s_first[u] <= s_last[u]:
                            share_out[ch, row, u] = share[at + u] * F32(step_mm[u])
                if want_depth:
                    for u in range(low, min(high, columns)):
                        if steps[at + u] > 0:
                            entry[ch, row, u] = F32(depth0[u] + (first[at + u] - 0.5) * step_mm[u])
                            exit_[ch, row, u] = F32(depth0[u] + (last[at + u] + 0.5) * step_mm[u])
                if want_facts:
                    tally(
                        row,
                        ch,
                        at,
                        low,
                        high,
                        steps,
                        first,
                        last,
                        step_mm,
                        depth0,
                        counts[block],
                        sums[block],
                    )
                clear(at + low, at + high, deep, shared, steps, first, last, share)
            if want_bits:
                for word in range(bits.shape[2]):
                    for u in range(columns):
                        bits[row, u, word] |= row_bits[word * width + u]
                row_bits[:] = 0
        block = claim(turn)
