"""The compiled CPU projector's short cut for parallel rays along an axis of the volume.

Such a ray stays in one column of voxels: its bilinear weights and its nearest voxel do not change on the way. So the
sum of attenuation and the runs of atoms are found once for each column of voxels, in the order in which the volume
lies in memory, and pixels read them off: the label of the nearest column, attenuation between four columns. The
samples are those of `reference`, only their order differs.

Along a stepping axis a, columns are numbered by the other two: `b`, the faster one in memory, within a line `c`.
Each thread takes whole tiles of lines and the pixels nearest to them, so results do not depend on the thread count.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from paxray.projection.channels import Channels
from paxray.projection.lanes import gather, get, lowest, put, unlike
from paxray.projection.rays import POSITION_DECIMALS, IndexRays
from paxray.projection.want import BODY, NO_PIXEL, PADDING, Maps, Want, empty_facts, words_for

#: Columns of voxels that may be followed for each pixel. Where the detector is coarser, most are followed in vain.
MOST_COLUMNS_PER_PIXEL = 16
#: Voxels that lie together in memory in each slab of a tile, at least: enough for the processor to fetch ahead.
VOXELS_TOGETHER = 2048
#: Floats that a sum along contiguous memory keeps apart.
SUM_LANES = 64
#: Runs of atoms found before they are credited.
RUNS_HELD = 1024
_ROUND = 10.0**POSITION_DECIMALS
_BODY, _PADDING = np.uint8(BODY), np.uint8(PADDING)

F32 = np.float32


def applies(rays: IndexRays, axes: NDArray[np.int8], shape: tuple[int, int, int], want: Want) -> bool:
    """Whether a view's rays all run along one axis, and the short cut can give what is wanted.

    Shares of the line integral need each sample's own interpolated attenuation and are left to the general march;
    so are detectors much coarser than the volume.
    """
    if rays.cone or want.share:
        return False
    a, b, c = _axis_order(int(axes[0, 0]))
    n_a = shape[2 - a]
    # As in the general march: a drift that does not reach the last rounded decimal over the whole ray is none.
    drift = np.abs(rays.direction[[b, c]] / rays.direction[a]) * n_a * _ROUND
    if (drift >= 0.5).any():
        return False
    (b_from, b_to), (c_from, c_to) = _columns_met(rays, a, b, c, shape)
    return (b_to - b_from) * (c_to - c_from) <= MOST_COLUMNS_PER_PIXEL * rays.size[0] * rays.size[1]


def _axis_order(signed_axis: int) -> tuple[int, int, int]:
    """Stepping axis, and the other two, the faster in memory first."""
    a = abs(signed_axis) - 1
    b, c = (x for x in range(3) if x != a)
    return a, b, c


def _columns_met(
    rays: IndexRays, a: int, b: int, c: int, shape: tuple[int, int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The box of columns that some pixel interpolates between, one column more to either side for safety."""
    rows, columns = rays.size
    corner = np.array([[u, v] for u in (0, columns - 1) for v in (0, rows - 1)], dtype=np.float64)
    at = rays.pixel + corner[:, :1] * rays.du + corner[:, 1:] * rays.dv
    at = at - at[:, a : a + 1] * (rays.direction / rays.direction[a])
    box = []
    for axis in (b, c):
        n = shape[2 - axis]
        first = int(np.clip(np.floor(at[:, axis].min()) - 1, 0, n))
        last = int(np.clip(np.ceil(at[:, axis].max()) + 1, -1, n - 1))
        box.append((first, max(last + 1, first)))
    return box[0], box[1]


def fill(
    mu: NDArray[np.float32],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    flags: NDArray[np.uint8],
    rays: IndexRays,
    axes: NDArray[np.int8],
    maps: Maps,
    bits: NDArray[np.uint64],
    incomplete: NDArray[np.bool_],
) -> NDArray[np.void]:
    """Follow all rays of a view for which `applies` holds; the other arguments as in `paxray.projection.cpu.march`.

    Line integrals are summed in float32, eight slabs at a time (`SUM_LANES` apart along contiguous memory), and
    those sums in float64: for attenuation that is nowhere negative the relative error is below 1e-6 and a millionth
    more for each 512 slabs.

    Parameters
    ----------
    maps, bits, incomplete
        Filled in place: the maps wanted, as a march finds them, without presence, which goes to `bits`; what is
        not wanted has size 0.

    Returns
    -------
    ndarray
        Facts of all channels; empty where not wanted.
    """
    want, size = maps.want, maps.size
    count = channels.count if want.any_class else 0
    signed_axis = int(axes[0, 0])
    a, b, c = _axis_order(signed_axis)
    box_b, box_c = _columns_met(rays, a, b, c, mu.shape)
    width, lines = box_b[1] - box_b[0], box_c[1] - box_c[0]
    stride = (1, mu.shape[2], mu.shape[1] * mu.shape[2])
    lines_per_tile = 1 if a != 2 else max(1, -(-VOXELS_TOGETHER // max(width, 1)))
    tiles = -(-lines // lines_per_tile)
    none3 = np.empty((0, 0, 0), F32)
    counts = np.zeros((tiles, count, 7) if want.facts else (0, 0, 7), np.int64)
    sums = np.zeros((tiles, count, 4) if want.facts else (0, 0, 4), np.float64)
    if lines and width:
        depth_mm, b_of, c_of = _affine(rays, a, b, c, 0 if signed_axis > 0 else mu.shape[2 - a] - 1)
        _project(
            mu.reshape(-1),
            atoms.reshape(-1),
            (mu.shape[2 - a], width, lines),
            box_b[0] * stride[b] + box_c[0] * stride[c],
            (stride[a], stride[b], stride[c]),
            lines_per_tile,
            float(np.sqrt(rays.direction @ rays.metric @ rays.direction) / abs(rays.direction[a])),
            0 if signed_axis > 0 else mu.shape[2 - a],
            (b_of[0] - box_b[0], *b_of[1:]),
            (c_of[0] - box_c[0], *c_of[1:]),
            depth_mm,
            (float(-box_b[0]), float(mu.shape[2 - b] - box_b[0])),
            (float(-box_c[0]), float(mu.shape[2 - c] - box_c[0])),
            size,
            channels.start if count else np.zeros(len(flags) + 1, np.int32),
            channels.members if count else np.zeros(0, np.int32),
            _bits_of_atoms(channels) if want.presence else np.zeros((len(flags), 0), np.uint64),
            flags,
            count,
            want.any_class or want.incomplete,
            maps.image if maps.image is not None else np.empty((0, 0), F32),
            bits,
            maps.path if maps.path is not None else none3,
            maps.entry if maps.entry is not None else none3,
            maps.exit if maps.exit is not None else none3,
            incomplete,
            counts,
            sums,
        )
    return _facts_of_tiles(counts, sums)


def _affine(rays: IndexRays, a: int, b: int, c: int, slab0: int) -> tuple[tuple[float, float, float], ...]:
    """Depth of the sample in a slab (mm), and its indices b and c: each at pixel (0, 0), its step along u, and along v."""
    per_mm = np.sqrt(rays.direction @ rays.metric @ rays.direction)
    toward = rays.direction @ rays.metric
    found = []
    for origin, offset in ((slab0, rays.pixel), (0, rays.du), (0, rays.dv)):
        to_slab = (origin - offset[a]) / rays.direction[a]
        at = offset + to_slab * rays.direction
        # A detector tilted to the beam has its pixels at different depths.
        depth = rays.pixel_depth_mm if offset is rays.pixel else float(toward @ offset)
        found.append((float(to_slab * per_mm + depth), float(at[b]), float(at[c])))
    first, along_u, along_v = found
    return tuple(zip(first, along_u, along_v, strict=True))


def _bits_of_atoms(channels: Channels) -> NDArray[np.uint64]:
    """``(n_atoms, words)`` presence bits that each atom sets."""
    packed = np.packbits(channels.table, axis=1, bitorder="little")
    padded = np.zeros((len(packed), 8 * words_for(channels.count)), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view("<u8").astype(np.uint64)


def _facts_of_tiles(counts: NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.void]:
    """Merge what the tiles found, in their order; a tile without a class has zeros for it."""
    facts = empty_facts(counts.shape[1])
    met = counts[..., 0] > 0
    for column, name in enumerate(("pixels", "column_min", "column_max", "row_min", "row_max", "column_sum", "row_sum")):
        values = counts[..., column]
        if name.endswith("_min"):
            facts[name] = np.where(met, values, NO_PIXEL).min(axis=0, initial=NO_PIXEL)
        elif name.endswith("_max"):
            facts[name] = np.where(met, values, -1).max(axis=0, initial=-1)
        else:
            facts[name] = values.sum(axis=0)
    for column, name in enumerate(("path_sum_mm", "path_max_mm", "entry_sum_mm", "exit_sum_mm")):
        reduce = np.max if name == "path_max_mm" else np.sum
        facts[name] = reduce(sums[..., column], axis=0, initial=0.0)
    return facts


@njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _project(  # type: ignore[no-untyped-def]
    mu, atoms, counted, origin, strides, lines_per_tile, step_mm, mirror, b_of, c_of, depth_of, edge_b, edge_c, size,
    start, members, atom_bits, flags, n_channels, labelled,
    image, bits, path, entry, exit_, incomplete, counts, sums,
):  # fmt: skip
    rows, columns = size
    n_a, width, lines = counted
    stride_a, stride_b, stride_c = strides
    want_image, deep = image.size > 0, entry.size > 0 or counts.size > 0
    measured = path.size > 0 or deep

    # Which column of the box each pixel is nearest to, and the pixels of each column together.
    column_of = np.empty((rows if labelled else 0, columns), np.int32)
    for row in prange(column_of.shape[0]):
        for u in range(columns):
            near_b = np.floor(_rounded(b_of[0] + u * b_of[1] + row * b_of[2]) + 0.5)
            near_c = np.floor(_rounded(c_of[0] + u * c_of[1] + row * c_of[2]) + 0.5)
            inside = (near_b >= edge_b[0]) & (near_b < edge_b[1]) & (near_c >= edge_c[0]) & (near_c < edge_c[1])
            column_of[row, u] = np.int32(near_c * width + near_b) if inside else np.int32(-1)
    pixels_from, row_of, u_of = _by_column(column_of, width * lines if labelled else 0)

    # Framed by zeros, in which attenuation beyond the outermost columns ends.
    column_sums = np.zeros((lines + 3 if want_image else 0, width + 3))
    for tile in prange((lines + lines_per_tile - 1) // lines_per_tile):
        first_line = tile * lines_per_tile
        last_line = min(lines, first_line + lines_per_tile)
        base = origin + first_line * stride_c
        if want_image:
            totals = column_sums[first_line + 1 : last_line + 1, 1 : width + 1]
            if stride_a == 1:
                _sum_along(mu, base, n_a, stride_b, totals[0])
            else:
                _sum_across(mu, base, n_a, stride_a, stride_c, totals)
        if not labelled:
            continue
        # The pixels of column x of this tile: mine[x] to mine[x + 1].
        mine = pixels_from[first_line * width : last_line * width + 1]
        if mine[0] == mine[-1]:
            continue
        n_columns = mine.size - 1
        lowest_column, highest_column = np.full(n_channels, n_columns), np.full(n_channels, -1)
        steps = np.empty((n_channels if measured else 0, n_columns), np.int32)
        first = np.empty((n_channels if deep else 0, n_columns), np.int32)
        last = np.empty((n_channels if deep else 0, n_columns), np.int32)
        cut = np.zeros(n_columns if incomplete.size > 0 else 0, np.bool_)
        found_bits = np.zeros((n_columns, atom_bits.shape[1]), np.uint64)
        _runs(atoms, base, n_a, width, stride_a, stride_b, stride_c, mine, start, members, atom_bits, flags,
              lowest_column, highest_column, steps, first, last, cut, found_bits)  # fmt: skip
        for x in range(n_columns if bits.size > 0 or incomplete.size > 0 else 0):
            for n in range(mine[x], mine[x + 1]):
                row, u = row_of[n], u_of[n]
                for word in range(bits.shape[2]):
                    bits[row, u, word] = found_bits[x, word]
                if incomplete.size > 0:
                    incomplete[row, u] = cut[x]
        if measured:
            _spread(mine, row_of, u_of, lowest_column, highest_column, steps, first, last, step_mm, mirror, depth_of,
                    path, entry, exit_, counts[tile : tile + 1], sums[tile : tile + 1])  # fmt: skip

    if want_image:
        for row in prange(rows):
            for u in range(columns):
                at_b = min(max(_rounded(b_of[0] + u * b_of[1] + row * b_of[2]), -1.0), np.float64(width))
                at_c = min(max(_rounded(c_of[0] + u * c_of[1] + row * c_of[2]), -1.0), np.float64(lines))
                low_b, low_c = np.floor(at_b), np.floor(at_c)
                b, c, high_b, high_c = int(low_b) + 1, int(low_c) + 1, at_b - low_b, at_c - low_c
                lower = (1.0 - high_b) * column_sums[c, b] + high_b * column_sums[c, b + 1]
                upper = (1.0 - high_b) * column_sums[c + 1, b] + high_b * column_sums[c + 1, b + 1]
                image[row, u] = F32(((1.0 - high_c) * lower + high_c * upper) * step_mm)


@njit(inline="always")
def _rounded(at):  # type: ignore[no-untyped-def]
    return np.rint(at * _ROUND) / _ROUND


@njit(cache=True)
def _by_column(column_of, n_columns):  # type: ignore[no-untyped-def]
    """Rows and columns of the pixels nearest to column x, in order: from `pixels_from[x]` to `pixels_from[x + 1]`."""
    pixels_from = np.zeros(n_columns + 1, np.int32)
    for x in column_of.reshape(-1):
        if x >= 0:
            pixels_from[x] += 1
    total = 0
    for x in range(n_columns + 1):
        total += pixels_from[x]
        pixels_from[x] = total
    # Filled from behind, the end of each column's pixels becomes their beginning.
    row_of, u_of = np.empty(total, np.int32), np.empty(total, np.int32)
    for row in range(column_of.shape[0] - 1, -1, -1):
        for u in range(column_of.shape[1] - 1, -1, -1):
            x = column_of[row, u]
            if x >= 0:
                pixels_from[x] -= 1
                row_of[pixels_from[x]], u_of[pixels_from[x]] = row, u
    return pixels_from, row_of, u_of


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _sum_across(mu, base, n_a, stride_a, stride_c, totals):  # type: ignore[no-untyped-def]
    """Add all slabs to ``totals[line, column]``, where columns lie side by side in memory."""
    lines, width = totals.shape
    whole = n_a - n_a % 8
    for s in range(0, whole, 8):
        for line in range(lines):
            at = base + line * stride_c + s * stride_a
            total = totals[line]
            for b in range(width):
                even = (gather(mu, at, b) + gather(mu, at + stride_a, b)) + (
                    gather(mu, at + 2 * stride_a, b) + gather(mu, at + 3 * stride_a, b)
                )
                odd = (gather(mu, at + 4 * stride_a, b) + gather(mu, at + 5 * stride_a, b)) + (
                    gather(mu, at + 6 * stride_a, b) + gather(mu, at + 7 * stride_a, b)
                )
                put(total, b, get(total, b) + np.float64(even + odd))
    for s in range(whole, n_a):
        for line in range(lines):
            at = base + line * stride_c + s * stride_a
            for b in range(width):
                totals[line, b] += mu[at + b]


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
def _credit(  # type: ignore[no-untyped-def]
    held, at_column, of_atom, begins, ends, start, members, atom_bits,
    lowest_column, highest_column, steps, first, last, found_bits,
):  # fmt: skip
    """Add runs to what the columns meet; a channel's rows are cleared when a tile first meets it."""
    measured, deep = steps.size > 0, last.size > 0
    for run in range(held):
        column, atom = at_column[run], of_atom[run]
        for word in range(atom_bits.shape[1]):
            found_bits[column, word] |= atom_bits[atom, word]
        if not measured:
            continue
        begin, end = begins[run], ends[run]
        for m in range(start[atom], start[atom + 1]):
            channel = members[m]
            if highest_column[channel] < 0:
                for x in range(steps.shape[1]):
                    steps[channel, x] = 0
            lowest_column[channel] = min(lowest_column[channel], column)
            highest_column[channel] = max(highest_column[channel], column)
            if deep:
                if steps[channel, column] == 0:
                    first[channel, column] = begin
                last[channel, column] = end
            steps[channel, column] += end - begin + 1


@njit(cache=True, error_model="numpy")
def _runs(  # type: ignore[no-untyped-def]
    atoms, base, n_a, width, stride_a, stride_b, stride_c, mine, start, members, atom_bits, flags,
    lowest_column, highest_column, steps, first, last, cut, found_bits,
):  # fmt: skip
    """Find the runs of equal atoms in each column of a tile and credit them, slab 0 first.

    Written without branches that depend on where structures lie: the processor cannot foresee those. Runs are
    handed on many at a time, for a call costs more than a run.
    """
    # Voxels are compared 32 side by side in memory: along the columns where these lie in one piece, else across.
    along = stride_a == 1
    outer, inner = (width, n_a) if along else (n_a, width)
    outer_stride, back = (stride_b, np.int64(1)) if along else (stride_a, stride_a)
    lines = (mine.size - 1) // width
    differs = np.zeros(inner // 32 + 2, np.uint32)
    differs_at = np.zeros(inner // 32 + 2, np.int64)
    run_start = np.zeros(lines * width, np.int32)
    room = RUNS_HELD + inner
    at_column, of_atom = np.empty(room, np.int32), np.empty(room, np.int32)
    begins, ends = np.empty(room, np.int32), np.empty(room, np.int32)
    held = 0
    for slow in range(0 if along else 1, outer):
        for line in range(lines):
            row = base + line * stride_c + slow * outer_stride
            words = 0
            for fast in range(1 if along else 0, inner, 32):
                lanes, at = inner - fast, row + fast
                if lanes >= 32:
                    differ = unlike(atoms, at, back)
                elif at + lanes - 32 >= back:
                    differ = unlike(atoms, at + lanes - 32, back) >> np.uint32(32 - lanes)
                else:
                    differ = np.uint32(0)
                    for lane in range(lanes):
                        if atoms[at + lane] != atoms[at + lane - back]:
                            differ |= np.uint32(1) << np.uint32(lane)
                differs[words], differs_at[words] = differ, fast
                words += differ != 0
            word, differ = 0, differs[0] if words > 0 else np.uint32(0)
            while word < words:
                fast = differs_at[word] + lowest(differ)
                differ &= differ - np.uint32(1)
                spent = differ == 0
                word += spent
                differ |= differs[word] & (np.uint32(0) - np.uint32(spent))
                s = fast if along else slow
                column = line * width + (slow if along else fast)
                old = np.int64(atoms[row + fast - back])
                at_column[held], of_atom[held], begins[held], ends[held] = column, old, run_start[column], s - 1
                run_start[column] = s
                held += (start[old + 1] > start[old]) & (mine[column + 1] > mine[column])
                if cut.size > 0:
                    before, after = flags[old], flags[np.int64(atoms[row + fast])]
                    leaves = (before & _BODY > 0) & (after & _PADDING > 0)
                    cut[column] |= leaves | (before & _PADDING > 0) & (after & _BODY > 0)
            if held >= RUNS_HELD:
                _credit(held, at_column, of_atom, begins, ends, start, members, atom_bits,
                        lowest_column, highest_column, steps, first, last, found_bits)  # fmt: skip
                held = 0
    for line in range(lines):
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


@njit(cache=True, error_model="numpy")
def _spread(  # type: ignore[no-untyped-def]
    mine, row_of, u_of, lowest_column, highest_column, steps, first, last, step_mm, mirror, depth_of,
    path, entry, exit_, counts, sums,
):  # fmt: skip
    """Give each of a tile's pixels what its column met; `mirror` is the number of slabs if rays run against them."""
    deep = last.size > 0
    for channel in range(steps.shape[0]):
        for column in range(lowest_column[channel], highest_column[channel] + 1):
            met = steps[channel, column]
            if met == 0:
                continue
            length = met * step_mm
            for n in range(mine[column], mine[column + 1]):
                row, u = row_of[n], u_of[n]
                if path.size > 0:
                    path[channel, row, u] = F32(length)
                if not deep:
                    continue
                enters, leaves = first[channel, column], last[channel, column]
                if mirror > 0:
                    enters, leaves = mirror - 1 - leaves, mirror - 1 - enters
                depth0 = depth_of[0] + u * depth_of[1] + row * depth_of[2]
                begins, ends = depth0 + (enters - 0.5) * step_mm, depth0 + (leaves + 0.5) * step_mm
                if entry.size > 0:
                    entry[channel, row, u], exit_[channel, row, u] = F32(begins), F32(ends)
                if counts.size == 0:
                    continue
                if counts[0, channel, 0] == 0:
                    counts[0, channel, 1], counts[0, channel, 2] = u, u
                    counts[0, channel, 3], counts[0, channel, 4] = row, row
                counts[0, channel, 0] += 1
                counts[0, channel, 1] = min(counts[0, channel, 1], u)
                counts[0, channel, 2] = max(counts[0, channel, 2], u)
                counts[0, channel, 3] = min(counts[0, channel, 3], row)
                counts[0, channel, 4] = max(counts[0, channel, 4], row)
                counts[0, channel, 5] += u
                counts[0, channel, 6] += row
                sums[0, channel, 0] += length
                sums[0, channel, 1] = max(sums[0, channel, 1], length)
                sums[0, channel, 2] += begins
                sums[0, channel, 3] += ends
