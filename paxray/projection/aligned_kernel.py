"""What `aligned` compiles: runs of atoms and sums of attenuation along columns of voxels, and pixels that read them.

Both volumes are read in one pass, and what comes next is fetched meanwhile: the memory is what takes the time.
Small arrays are passed to few functions and these are called for whole tiles: numba hands each array over as a
handful of values, which costs more than the work on a voxel.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj

from paxray.compiling import helper, loop
from paxray.projection.lanes import claim, gather, get, lowest, ones, put, unlike
from paxray.projection.rays import POSITION_DECIMALS
from paxray.projection.want import BODY, PADDING

#: Slabs whose attenuation is added up in float32, before their sum goes to float64.
SLABS = 8
#: Slabs by which voxels are fetched ahead: no fewer than are added up together. Half as many and twice as many were
#: slower.
AHEAD = 8
#: Voxels of attenuation in a line of the cache.
LINE = 16
#: Floats that a sum along contiguous memory keeps apart.
SUM_LANES = 64
#: Runs of atoms found before they are credited.
RUNS_HELD = 1024
_ROUND = 10.0**POSITION_DECIMALS
_BODY, _PADDING = np.uint8(BODY), np.uint8(PADDING)

F32 = np.float32


@intrinsic
def fetch(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Have the cache line of ``array[at]`` brought near; `at` may lie outside of the array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = arrayobj.make_array(signature.args[0])(context, builder, args[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # Of data that is read and soon, but not so soon that it had to be in the first-level cache.
        read, locality, of_data = word(0), word(2), word(1)
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(prefetch, [place, read, locality, of_data])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@loop(error_model="numpy")
def pixels_of_columns(b_of, c_of, edge_b, edge_c, size, counted):  # type: ignore[no-untyped-def]
    """Which column of the box each pixel is nearest to, and the pixels of each column together.

    A pixel ``(row, u)`` lies at ``b_of[0] + u b_of[1] + row b_of[2]`` in a line, counted from the box, likewise `c_of`
    among the lines; columns from `edge_b[0]` to below `edge_b[1]` exist. Returns the column of each pixel, -1 for none;
    and the numbers of the pixels nearest to column x, in order: ``pixel_of[pixels_from[x]:pixels_from[x + 1]]``.
    """
    rows, columns = size
    _, width, lines = counted
    column_of = np.empty(rows * columns, np.int32)
    for row in range(rows):
        for u in range(columns):
            near_b = np.floor(_rounded(b_of[0] + u * b_of[1] + row * b_of[2]) + 0.5)
            near_c = np.floor(_rounded(c_of[0] + u * c_of[1] + row * c_of[2]) + 0.5)
            inside = (
                (near_b >= edge_b[0]) & (near_b < edge_b[1]) & (near_c >= edge_c[0]) & (near_c < edge_c[1])
            )
            put(column_of, row * columns + u, np.int32(near_c * width + near_b) if inside else np.int32(-1))
    pixels_from = np.zeros(width * lines + 1, np.int32)
    for x in column_of:
        if x >= 0:
            pixels_from[x] += 1
    total = 0
    for x in range(pixels_from.size):
        total += pixels_from[x]
        pixels_from[x] = total
    # Filled from behind, the end of each column's pixels becomes their beginning.
    pixel_of = np.empty(total, np.int32)
    for pixel in range(column_of.size - 1, -1, -1):
        x = column_of[pixel]
        if x >= 0:
            pixels_from[x] -= 1
            pixel_of[pixels_from[x]] = pixel
    return column_of, pixels_from, pixel_of


@loop(nogil=True, fastmath={"contract"}, error_model="numpy")
def follow_tiles(  # type: ignore[no-untyped-def]
    turn, mu, atoms, counted, origin, strides, lines_per_tile, tiles_together, step_mm, mirror, depth_of, size,
    column_of, pixels_from, pixel_of, start, members, atom_bits, flags, n_channels, labelled,
    column_sums, bits, path, entry, exit_, incomplete, counts, sums,
):  # fmt: skip
    """Follow a box of columns of voxels, and give each pixel what its column met; tiles of lines are taken in `turn`.

    `counted` is the number of slabs, of columns in a line and of lines, `origin` the place in memory of the box's
    first voxel, `strides` the way to the next slab, column and line. `depth_of` is the depth in mm of a pixel's first
    sample: at ``(0, 0)``, and its steps along u and row. `column_sums`, of size zero where no image is wanted, is
    ``(lines + 3, width + 3)``: framed by zeros, in which attenuation beyond the outermost columns ends.
    """
    n_a, width, lines = counted
    stride_a, stride_b, stride_c = strides
    want_image, deep = column_sums.size > 0, entry.size > 0 or counts.size > 0
    measured = path.size > 0 or deep
    flat_bits, flat_incomplete = bits.reshape(-1), incomplete.reshape(-1)
    flat_path, flat_entry, flat_exit = path.reshape(-1), entry.reshape(-1), exit_.reshape(-1)
    tiles = (lines + lines_per_tile - 1) // lines_per_tile
    piece = claim(turn)
    while piece * tiles_together < tiles:
        for tile in range(piece * tiles_together, min(tiles, (piece + 1) * tiles_together)):
            first_line = tile * lines_per_tile
            last_line = min(lines, first_line + lines_per_tile)
            base = origin + first_line * stride_c
            # The pixels of column x of this tile: mine[x] to mine[x + 1].
            mine = pixels_from[first_line * width : last_line * width + 1] if labelled else pixels_from
            seen = labelled and mine[0] < mine[-1]
            n_columns = (last_line - first_line) * width if seen else 0
            lowest_column, highest_column = np.full(n_channels, n_columns), np.full(n_channels, -1)
            # Of channel times column.
            steps = np.empty(n_channels * n_columns if measured else 0, np.int32)
            first = np.empty(n_channels * n_columns if deep else 0, np.int32)
            last = np.empty(n_channels * n_columns if deep else 0, np.int32)
            cut = np.zeros(n_columns if incomplete.size > 0 else 0, np.bool_)
            found_bits = np.zeros((n_columns, atom_bits.shape[1]), np.uint64)
            if want_image and stride_a == 1:
                for line in range(first_line, last_line):
                    _sum_along(
                        mu, origin + line * stride_c, n_a, stride_b, column_sums[line + 1, 1 : width + 1]
                    )
            _follow(mu, atoms, base, n_a, width, last_line - first_line, stride_a, stride_b, stride_c, want_image, seen,
                    column_sums, (first_line + 1) * (width + 3) + 1, mine, start, members, atom_bits, flags,
                    lowest_column, highest_column, steps, first, last, cut, found_bits)  # fmt: skip
            for x in range(n_columns if bits.size > 0 or incomplete.size > 0 else 0):
                for n in range(mine[x], mine[x + 1]):
                    for word in range(bits.shape[2]):
                        flat_bits[pixel_of[n] * bits.shape[2] + word] = found_bits[x, word]
                    if incomplete.size > 0:
                        flat_incomplete[pixel_of[n]] = cut[x]
            if measured and seen:
                _spread(mine, pixel_of, column_of, first_line * width, lowest_column, highest_column, steps, first,
                        last, step_mm, mirror, depth_of, size, flat_path, flat_entry, flat_exit,
                        counts[tile : tile + 1], sums[tile : tile + 1])  # fmt: skip
        piece = claim(turn)


@loop(nogil=True, fastmath={"contract"}, error_model="numpy")
def read_off(turn, column_sums, b_of, c_of, step_mm, image):  # type: ignore[no-untyped-def]
    """Interpolate each pixel's line integral between four columns; rows of pixels are taken in `turn`."""
    (rows, columns), (lines, width) = image.shape, column_sums.shape
    sums, pixels, last_b, last_c = column_sums.reshape(-1), image.reshape(-1), width - 3.0, lines - 3.0
    row = claim(turn)
    while row < rows:
        for u in range(columns):
            at_b = min(max(_rounded(b_of[0] + u * b_of[1] + row * b_of[2]), -1.0), last_b)
            at_c = min(max(_rounded(c_of[0] + u * c_of[1] + row * c_of[2]), -1.0), last_c)
            low_b, low_c = np.floor(at_b), np.floor(at_c)
            high_b, high_c = at_b - low_b, at_c - low_c
            lower = (np.int64(low_c) + 1) * width + np.int64(low_b) + 1
            upper = lower + width
            below = (1.0 - high_b) * gather(sums, lower, 0) + high_b * gather(sums, lower, 1)
            above = (1.0 - high_b) * gather(sums, upper, 0) + high_b * gather(sums, upper, 1)
            put(pixels, row * columns + u, F32(((1.0 - high_c) * below + high_c * above) * step_mm))
        row = claim(turn)


@helper(inline="always")
def _rounded(at):  # type: ignore[no-untyped-def]
    return np.rint(at * _ROUND) / _ROUND


@helper(fastmath={"contract"}, error_model="numpy")
def _sum_along(mu, base, n_a, stride_b, totals):  # type: ignore[no-untyped-def]
    """Sums of one line's columns, each of which lies in one piece of memory."""
    apart = np.empty(SUM_LANES, F32)
    whole = n_a - n_a % SUM_LANES
    for b in range(totals.size):
        at = base + b * stride_b
        apart[:] = 0
        for s in range(0, whole, SUM_LANES):
            for lane in range(SUM_LANES):
                put(apart, lane, get(apart, lane) + gather(mu, at + s, lane))
        for lane in range(SUM_LANES // 2):
            apart[lane] += apart[lane + SUM_LANES // 2]
        for lane in range(SUM_LANES // 4):
            apart[lane] += apart[lane + SUM_LANES // 4]
        total = 0.0
        for lane in range(SUM_LANES // 4):
            total += apart[lane]
        for s in range(whole, n_a):
            total += mu[at + s]
        totals[b] = total


@helper(error_model="numpy")
def _credit(  # type: ignore[no-untyped-def]
    held, at_column, of_atom, begins, ends, start, members, atom_bits,
    lowest_column, highest_column, steps, first, last, found_bits,
):  # fmt: skip
    """Add runs to what the columns meet; a channel's rows are cleared when a tile first meets it."""
    measured, deep = steps.size > 0, last.size > 0
    n_columns = found_bits.shape[0]
    words = atom_bits.shape[1]
    flat_found, flat_bits = found_bits.reshape(-1), atom_bits.reshape(-1)
    for run in range(held):
        column, atom = np.int64(get(at_column, run)), np.int64(get(of_atom, run))
        for word in range(words):
            cell = column * words + word
            put(flat_found, cell, get(flat_found, cell) | get(flat_bits, atom * words + word))
        if not measured:
            continue
        begin, end = get(begins, run), get(ends, run)
        for m in range(np.int64(get(start, atom)), np.int64(get(start, atom + 1))):
            channel = np.int64(get(members, m))
            cell = channel * n_columns + column
            low, high = get(lowest_column, channel), get(highest_column, channel)
            if high < 0:
                for x in range(channel * n_columns, (channel + 1) * n_columns):
                    steps[x] = 0
            put(lowest_column, channel, min(low, column))
            put(highest_column, channel, max(high, column))
            met = get(steps, cell)
            if deep:
                if met == 0:
                    put(first, cell, begin)
                put(last, cell, end)
            put(steps, cell, np.int32(met + (end - begin + np.int32(1))))


@helper(fastmath={"contract"}, error_model="numpy")
def _follow(  # type: ignore[no-untyped-def]
    mu, atoms, base, n_a, width, lines, stride_a, stride_b, stride_c, imaged, labelled, totals, totals_at,
    mine, start, members, atom_bits, flags, lowest_column, highest_column, steps, first, last, cut, found_bits,
):  # fmt: skip
    """Add up a tile's attenuation across the slabs; find and credit its columns' runs of atoms, slab 0 first.

    The sums of a line begin at `totals_at` in `totals`, a row of it for each line. Written without branches that
    depend on where structures lie: the processor cannot foresee those. Runs are handed on many at a time, for a call
    costs more than a run.
    """
    # Voxels are compared 32 side by side in memory: along the columns where these lie in one piece, else across.
    along = stride_a == 1
    outer, inner = (width, n_a) if along else (n_a, width)
    outer_stride, back = (stride_b, np.int64(1)) if along else (stride_a, stride_a)
    totals_stride, totals = totals.shape[1], totals.reshape(-1)
    whole = n_a - n_a % SLABS
    of_slabs = np.empty(width if imaged else 0, F32)
    differs = np.zeros(inner // 32 + 2, np.uint32)
    differs_at = np.zeros(inner // 32 + 2, np.int64)
    change_at = np.empty(inner + 4, np.int64)
    run_start = np.zeros(lines * width, np.int32)
    room = RUNS_HELD + inner
    at_column, of_atom = np.empty(room, np.int32), np.empty(room, np.int32)
    begins, ends = np.empty(room, np.int32), np.empty(room, np.int32)
    held = 0
    for slow in range(outer if labelled or not along else 0):
        for line in range(lines):
            row = base + line * stride_c + slow * outer_stride
            # What is fetched next of `mu`, and up to where. Along the columns, which are long, the processor does it.
            coming = row + AHEAD * stride_a
            enough = coming + width if imaged and not along else coming
            total = totals_at + line * totals_stride
            if imaged and not along and slow < whole:
                # A part of the line through all slabs of eight, then the next part: so the memory is not idle.
                part, at = slow % SLABS, row - slow % SLABS * stride_a
                low, high = part * width // SLABS, (part + 1) * width // SLABS
                for b in range(low, high):
                    even = (gather(mu, at, b) + gather(mu, at + stride_a, b)) + (
                        gather(mu, at + 2 * stride_a, b) + gather(mu, at + 3 * stride_a, b)
                    )
                    odd = (gather(mu, at + 4 * stride_a, b) + gather(mu, at + 5 * stride_a, b)) + (
                        gather(mu, at + 6 * stride_a, b) + gather(mu, at + 7 * stride_a, b)
                    )
                    put(of_slabs, b, even + odd)
                # Apart, so that the loop above is not held to the lanes of float64.
                for b in range(low, high):
                    put(totals, total + b, get(totals, total + b) + np.float64(gather(of_slabs, 0, b)))
            elif imaged and not along:
                for b in range(width):
                    put(totals, total + b, get(totals, total + b) + np.float64(gather(mu, row, b)))
            # What is left of a row after whole words is apart: one branch more, and the loop's numbers no longer
            # fit into the processor's registers.
            words, begin = 0, 1 if along else 0
            until = inner if labelled and (along or slow > 0) else 0
            rest = begin + max(until - begin, 0) // 32 * 32
            for fast in range(begin, rest, 32):
                fetch(atoms, row + fast + AHEAD * stride_a)
                differ = unlike(atoms, row + fast, back)
                put(differs, words, differ)
                put(differs_at, words, fast)
                words += differ != 0
            if rest < until:
                lanes, at = until - rest, row + rest
                fetch(atoms, at + AHEAD * stride_a)
                if at + lanes - 32 >= back:
                    differ = unlike(atoms, at + lanes - 32, back) >> np.uint32(32 - lanes)
                else:
                    differ = np.uint32(0)
                    for lane in range(lanes):
                        if atoms[at + lane] != atoms[at + lane - back]:
                            differ |= np.uint32(1) << np.uint32(lane)
                differs[words], differs_at[words] = differ, rest
                words += differ != 0
            # Most words that are not zero have few bits: four are written whether there or not.
            changes = 0
            for word in range(words):
                differ, fast = differs[word], differs_at[word]
                end = changes + ones(differ)
                while True:
                    for n in range(4):
                        change_at[changes + n] = fast + lowest(differ)
                        differ &= differ - np.uint32(1)
                    changes += 4
                    if changes >= end:
                        break
                changes = end
            for change in range(changes):
                # In between, so that the memory is not idle.
                if coming < enough:
                    fetch(mu, coming)
                    coming += LINE
                fast = get(change_at, change)
                s = fast if along else slow
                column = line * width + (slow if along else fast)
                old = np.int64(gather(atoms, row, fast - back))
                put(at_column, held, np.int32(column))
                put(of_atom, held, np.int32(old))
                put(begins, held, get(run_start, column))
                put(ends, held, np.int32(s - 1))
                put(run_start, column, np.int32(s))
                held += (get(start, old + 1) > get(start, old)) & (get(mine, column + 1) > get(mine, column))
                if cut.size > 0:
                    before, after = flags[old], flags[np.int64(atoms[row + fast])]
                    leaves = (before & _BODY > 0) & (after & _PADDING > 0)
                    cut[column] |= leaves | (before & _PADDING > 0) & (after & _BODY > 0)
            for at in range(coming, enough, LINE):
                fetch(mu, at)
            if held >= RUNS_HELD:
                _credit(held, at_column, of_atom, begins, ends, start, members, atom_bits,
                        lowest_column, highest_column, steps, first, last, found_bits)  # fmt: skip
                held = 0
    for line in range(lines if labelled else 0):
        for b in range(width):
            column = line * width + b
            low = base + line * stride_c + b * stride_b
            old = np.int64(atoms[low + (n_a - 1) * stride_a])
            at_column[held], of_atom[held], begins[held], ends[held] = column, old, run_start[column], n_a - 1
            held += (start[old + 1] > start[old]) & (mine[column + 1] > mine[column])
            # The array's faces end the scan.
            if cut.size > 0:
                cut[column] |= (flags[np.int64(atoms[low])] | flags[old]) & _BODY > 0
            if held >= RUNS_HELD:
                _credit(held, at_column, of_atom, begins, ends, start, members, atom_bits,
                        lowest_column, highest_column, steps, first, last, found_bits)  # fmt: skip
                held = 0
    _credit(held, at_column, of_atom, begins, ends, start, members, atom_bits,
            lowest_column, highest_column, steps, first, last, found_bits)  # fmt: skip


@helper(error_model="numpy")
def _spread(  # type: ignore[no-untyped-def]
    mine, pixel_of, column_of, first_column, lowest_column, highest_column, steps, first, last,
    step_mm, mirror, depth_of, size, path, entry, exit_, counts, sums,
):  # fmt: skip
    """Give each of a tile's pixels what its column met; `mirror` is the number of slabs if rays run against them.

    Columns are counted from `first_column` in the tile. Maps are flat.
    """
    deep, n_columns, (rows, columns) = last.size > 0, mine.size - 1, size
    for channel in range(lowest_column.size):
        if highest_column[channel] < 0:
            continue
        pixels, column_sum, row_sum, left, right, top, bottom = 0, 0, 0, columns, -1, rows, -1
        length_sum, longest, begins_sum, ends_sum = 0.0, 0.0, 0.0, 0.0
        for n in range(mine[lowest_column[channel]], mine[highest_column[channel] + 1]):
            pixel = np.int64(pixel_of[n])
            cell = channel * n_columns + column_of[pixel] - first_column
            met = get(steps, cell)
            if met == 0:
                continue
            length, of_channel = met * step_mm, channel * rows * columns + pixel
            if path.size > 0:
                put(path, of_channel, F32(length))
            if not deep:
                continue
            enters, leaves = np.int64(get(first, cell)), np.int64(get(last, cell))
            if mirror > 0:
                enters, leaves = mirror - 1 - leaves, mirror - 1 - enters
            row, u = pixel // columns, pixel % columns
            depth0 = depth_of[0] + u * depth_of[1] + row * depth_of[2]
            begins, ends = depth0 + (enters - 0.5) * step_mm, depth0 + (leaves + 0.5) * step_mm
            if entry.size > 0:
                put(entry, of_channel, F32(begins))
                put(exit_, of_channel, F32(ends))
            pixels, column_sum, row_sum = pixels + 1, column_sum + u, row_sum + row
            left, right, top, bottom = min(left, u), max(right, u), min(top, row), max(bottom, row)
            length_sum, longest = length_sum + length, max(longest, length)
            begins_sum, ends_sum = begins_sum + begins, ends_sum + ends
        if pixels > 0 and counts.size > 0:
            found = counts[0, channel]
            found[0], found[1], found[2], found[3], found[4] = pixels, left, right, top, bottom
            found[5], found[6] = column_sum, row_sum
            summed = sums[0, channel]
            summed[0], summed[1], summed[2], summed[3] = length_sum, longest, begins_sum, ends_sum
