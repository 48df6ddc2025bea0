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
    want: Want,
) -> Maps:
    """Follow all rays of a view for which `applies` holds; arguments and result as in `paxray.projection.cpu.march`.

    Line integrals are summed in float32, eight slabs at a time (`SUM_LANES` apart along contiguous memory), and
    those sums in float64: for attenuation that is nowhere negative the relative error is below 1e-6.
    """
    size, count = rays.size, channels.count if want.any_class else 0
    signed_axis = int(axes[0, 0])
    a, b, c = _axis_order(signed_axis)
    box_b, box_c = _columns_met(rays, a, b, c, mu.shape)
    width, lines = box_b[1] - box_b[0], box_c[1] - box_c[0]
    labelled = want.any_class or want.incomplete
    stride = (1, mu.shape[2], mu.shape[1] * mu.shape[2])
    lines_per_tile = 1 if a != 2 else max(1, -(-VOXELS_TOGETHER // max(width, 1)))
    tiles = -(-lines // lines_per_tile)

    maps = Maps(size=size, want=want)
    per_class = (count, *size)
    none3 = np.empty((0, 0, 0), F32)
    maps.image = np.zeros(size, F32) if want.image else None
    maps.path = np.zeros(per_class, F32) if want.path else None
    maps.entry = np.full(per_class, np.nan, F32) if want.depth else None
    maps.exit = np.full(per_class, np.nan, F32) if want.depth else None
    bits = np.zeros((*size, words_for(count)) if want.presence else (0, 0, 0), np.uint64)
    incomplete = np.zeros(size if want.incomplete else (0, 0), np.bool_)
    counts = np.zeros((tiles, count, 7) if want.facts else (0, 0, 0), np.int64)
    sums = np.zeros((tiles, count, 4) if want.facts else (0, 0, 0), np.float64)
    if lines and width:
        # A label volume that is not asked for may be a single voxel.
        _project(
            mu.reshape(-1),
            atoms.reshape(-1),
            (mu.shape[2 - a], width, lines),
            box_b[0] * stride[b] + box_c[0] * stride[c],
            (stride[a], stride[b], stride[c]),
            (a, b, c),
            (float(box_b[0]), float(box_c[0])),
            (float(mu.shape[2 - b]), float(mu.shape[2 - c])),
            signed_axis > 0,
            lines_per_tile,
            rays.pixel,
            rays.du,
            rays.dv,
            rays.direction,
            rays.pixel_depth_mm,
            rays.metric,
            size,
            channels.start if count else np.zeros(len(flags) + 1, np.int32),
            channels.members if count else np.zeros(0, np.int32),
            _bits_of_atoms(channels) if want.presence else np.zeros((len(flags), 0), np.uint64),
            flags,
            count,
            labelled,
            maps.image if maps.image is not None else np.empty((0, 0), F32),
            bits,
            maps.path if maps.path is not None else none3,
            maps.entry if maps.entry is not None else none3,
            maps.exit if maps.exit is not None else none3,
            incomplete,
            counts,
            sums,
        )
    maps.presence = bits if want.presence else None
    maps.incomplete = incomplete if want.incomplete else None
    maps.facts = _facts_of_tiles(counts, sums) if want.facts else None
    return maps


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


@njit(inline="always")
def _place(row, column, pixel, du, dv, direction, axes, slab0):  # type: ignore[no-untyped-def]
    """A pixel's column as continuous (b, c), and the mm from the pixel to the first slab of its ray."""
    a, b, c = axes
    t0 = (slab0 - (pixel[a] + column * du[a] + row * dv[a])) / direction[a]
    at_b = pixel[b] + column * du[b] + row * dv[b] + t0 * direction[b]
    at_c = pixel[c] + column * du[c] + row * dv[c] + t0 * direction[c]
    return np.rint(at_b * _ROUND) / _ROUND, np.rint(at_c * _ROUND) / _ROUND, t0


@njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _project(  # type: ignore[no-untyped-def]
    mu, atoms, counted, origin, strides, axes, box_first, edges, forward, lines_per_tile,
    pixel, du, dv, direction, pixel_depth, metric, size,
    start, members, atom_bits, flags, n_channels, labelled,
    image, bits, path, entry, exit_, incomplete, counts, sums,
):  # fmt: skip
    rows, columns = size
    n_a, width, lines = counted
    stride_a, stride_b, stride_c = strides
    want_image, deep = image.size > 0, entry.size > 0 or counts.size > 0
    measured = path.size > 0 or deep
    slab0 = 0.0 if forward else n_a - 1.0
    length2 = 0.0
    for x in range(3):
        for y in range(3):
            length2 += direction[x] * metric[x, y] * direction[y]
    step_mm = np.sqrt(length2) / abs(direction[axes[0]])
    tiles = (lines + lines_per_tile - 1) // lines_per_tile

    # Which column of the box each pixel is nearest to, and the pixels of each line together.
    line_of = np.empty((rows if labelled else 0, columns), np.int32)
    column_of = np.empty((rows if labelled else 0, columns), np.int32)
    for row in prange(line_of.shape[0]):
        for u in range(columns):
            at_b, at_c, _ = _place(row, u, pixel, du, dv, direction, axes, slab0)
            near_b, near_c = np.floor(at_b + 0.5), np.floor(at_c + 0.5)
            inside = near_b >= 0 and near_b < edges[0] and near_c >= 0 and near_c < edges[1]
            line_of[row, u] = np.int32(near_c - box_first[1]) if inside else np.int32(-1)
            column_of[row, u] = np.int32(near_b - box_first[0]) if inside else np.int32(-1)
    line_start, order = _by_line(line_of, lines)

    column_sums = np.zeros((lines if want_image else 0, width))
    for tile in prange(tiles):
        first_line = tile * lines_per_tile
        last_line = min(lines, first_line + lines_per_tile)
        base = origin + first_line * stride_c
        if want_image:
            totals = column_sums[first_line:last_line]
            if stride_a == 1:
                _sum_along(mu, base, n_a, stride_b, totals[0])
            else:
                _sum_across(mu, base, n_a, stride_a, stride_c, totals)
        if labelled and line_start[first_line] < line_start[last_line]:
            n_columns = (last_line - first_line) * width
            mine = order[line_start[first_line] : line_start[last_line]]
            needed = np.zeros(n_columns, np.bool_)
            for pixel_number in mine:
                row, u = pixel_number // columns, pixel_number % columns
                needed[(line_of[row, u] - first_line) * width + column_of[row, u]] = True
            run_start = np.zeros(n_columns, np.int32)
            touched = np.zeros(n_channels, np.bool_)
            steps = np.empty((n_channels if measured else 0, n_columns), np.int32)
            first = np.empty((n_channels if deep else 0, n_columns), np.int32)
            last = np.empty((n_channels if deep else 0, n_columns), np.int32)
            cut = np.zeros(n_columns if incomplete.size > 0 else 0, np.bool_)
            found_bits = np.zeros((n_columns, atom_bits.shape[1]), np.uint64)
            _runs(atoms, base, n_a, width, last_line - first_line, stride_a, stride_b, stride_c, needed,
                  start, members, atom_bits, flags, run_start, touched, steps, first, last, cut, found_bits)  # fmt: skip
            _spread(mine, line_of, column_of, first_line, width, touched, steps, first, last, cut, found_bits,
                    pixel, du, dv, direction, axes, slab0, n_a if not forward else 0, step_mm, pixel_depth, metric,
                    bits, path, entry, exit_, incomplete, counts[tile : tile + 1], sums[tile : tile + 1])  # fmt: skip

    if want_image:
        for row in prange(rows):
            for u in range(columns):
                at_b, at_c, _ = _place(row, u, pixel, du, dv, direction, axes, slab0)
                image[row, u] = F32(_between(column_sums, at_b - box_first[0], at_c - box_first[1]) * step_mm)


@njit(cache=True)
def _by_line(line_of, lines):  # type: ignore[no-untyped-def]
    """Numbers of the pixels in each line, ascending: ``order[line_start[c]:line_start[c + 1]]``."""
    line_start = np.zeros(lines + 1, np.int64)
    flat = line_of.reshape(-1)
    for line in flat:
        if line >= 0:
            line_start[line + 1] += 1
    for line in range(lines):
        line_start[line + 1] += line_start[line]
    place = line_start.copy()
    order = np.empty(line_start[lines], np.int32)
    for number in range(flat.size):
        line = flat[number]
        if line >= 0:
            order[place[line]] = number
            place[line] += 1
    return line_start, order


@njit(cache=True)
def _between(column_sums, at_b, at_c):  # type: ignore[no-untyped-def]
    """Bilinear between columns, zero beyond the box: beyond it lies no column, or none that the pixel sees."""
    low_b, low_c = np.floor(at_b), np.floor(at_c)
    total = 0.0
    for c in range(2):
        for b in range(2):
            line, column = low_c + c, low_b + b
            if line >= 0 and line < column_sums.shape[0] and column >= 0 and column < column_sums.shape[1]:
                weight = (1.0 - abs(at_c - line)) * (1.0 - abs(at_b - column))
                total += weight * column_sums[int(line), int(column)]
    return total


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


@njit(inline="always")
def _differ(atoms, at, back, lanes):  # type: ignore[no-untyped-def]
    """Bit n: ``atoms[at + n]`` is another than `back` voxels before, for the first `lanes` of 32."""
    if lanes >= 32:
        return unlike(atoms, at, back)
    earlier = at + lanes - 32
    if earlier >= back:
        return unlike(atoms, earlier, back) >> np.uint32(32 - lanes)
    found = np.uint32(0)
    for n in range(lanes):
        if atoms[at + n] != atoms[at + n - back]:
            found |= np.uint32(1) << np.uint32(n)
    return found


@njit(inline="always")
def _end_run(atom, column, begin, end, start, members, atom_bits, touched, steps, first, last, found_bits):  # type: ignore[no-untyped-def]
    """Credit slabs `begin` to `end` of a column to the channels of an atom; rows are cleared when first met."""
    for word in range(atom_bits.shape[1]):
        found_bits[column, word] |= atom_bits[atom, word]
    if steps.size == 0:
        return
    for m in range(start[atom], start[atom + 1]):
        channel = members[m]
        if not touched[channel]:
            touched[channel] = True
            steps[channel, :] = 0
        if last.size > 0:
            if steps[channel, column] == 0:
                first[channel, column] = begin
            last[channel, column] = end
        steps[channel, column] += end - begin + 1


@njit(cache=True, error_model="numpy")
def _runs(  # type: ignore[no-untyped-def]
    atoms, base, n_a, width, lines, stride_a, stride_b, stride_c, needed,
    start, members, atom_bits, flags, run_start, touched, steps, first, last, cut, found_bits,
):  # fmt: skip
    """Find the runs of equal atoms in each column of a tile and credit them, slab 0 first."""
    # Voxels are compared 32 side by side in memory: along the columns where these lie in one piece, else across.
    along = stride_a == 1
    outer, inner = (width, n_a) if along else (n_a, width)
    outer_stride, back = (stride_b, 1) if along else (stride_a, stride_a)
    for slow in range(0 if along else 1, outer):
        for line in range(lines):
            row = base + line * stride_c + slow * outer_stride
            for fast in range(1 if along else 0, inner, 32):
                differ = _differ(atoms, row + fast, back, inner - fast)
                while differ != 0:
                    lane = lowest(differ)
                    differ &= differ - np.uint32(1)
                    s = fast + lane if along else slow
                    column = line * width + (slow if along else fast + lane)
                    if not needed[column]:
                        continue
                    at = row + fast + lane
                    old, new = np.int64(atoms[at - back]), np.int64(atoms[at])
                    _end_run(old, column, run_start[column], s - 1, start, members, atom_bits,
                             touched, steps, first, last, found_bits)  # fmt: skip
                    run_start[column] = s
                    if cut.size > 0:
                        before, after = flags[old], flags[new]
                        if (before & _BODY and after & _PADDING) or (before & _PADDING and after & _BODY):
                            cut[column] = True
    for line in range(lines):
        for b in range(width):
            column = line * width + b
            if not needed[column]:
                continue
            low = base + line * stride_c + b * stride_b
            atom = np.int64(atoms[low + (n_a - 1) * stride_a])
            _end_run(atom, column, run_start[column], n_a - 1, start, members, atom_bits,
                     touched, steps, first, last, found_bits)  # fmt: skip
            # The array's faces end the scan.
            if cut.size > 0 and (flags[atoms[low]] | flags[atom]) & _BODY:
                cut[column] = True


@njit(cache=True, error_model="numpy")
def _spread(  # type: ignore[no-untyped-def]
    mine, line_of, column_of, first_line, width, touched, steps, first, last, cut, found_bits,
    pixel, du, dv, direction, axes, slab0, mirror, step_mm, pixel_depth, metric,
    bits, path, entry, exit_, incomplete, counts, sums,
):  # fmt: skip
    """Give each of a tile's pixels what its column met; `mirror` is the number of slabs where rays run against them."""
    columns = line_of.shape[1]
    rows_of, us, at = np.empty(mine.size, np.int32), np.empty(mine.size, np.int32), np.empty(mine.size, np.int32)
    deep = last.size > 0
    depth0 = np.empty(mine.size if deep else 0)
    per_mm = np.sqrt(direction @ metric @ direction)
    for n in range(mine.size):
        row, u = mine[n] // columns, mine[n] % columns
        rows_of[n], us[n] = row, u
        at[n] = (line_of[row, u] - first_line) * width + column_of[row, u]
        for word in range(bits.shape[2]):
            bits[row, u, word] = found_bits[at[n], word]
        if cut.size > 0:
            incomplete[row, u] = cut[at[n]]
        if deep:
            # A detector tilted to the beam has its pixels at different depths.
            ahead = direction @ metric @ (u * du + row * dv)
            _, _, t0 = _place(row, u, pixel, du, dv, direction, axes, slab0)
            depth0[n] = t0 * per_mm + pixel_depth + ahead
    for channel in range(steps.shape[0]):
        if not touched[channel]:
            continue
        for n in range(mine.size):
            met = steps[channel, at[n]]
            if met == 0:
                continue
            row, u = rows_of[n], us[n]
            length = met * step_mm
            if path.size > 0:
                path[channel, row, u] = F32(length)
            if not deep:
                continue
            enters, leaves = first[channel, at[n]], last[channel, at[n]]
            if mirror > 0:
                enters, leaves = mirror - 1 - leaves, mirror - 1 - enters
            begins, ends = depth0[n] + (enters - 0.5) * step_mm, depth0[n] + (leaves + 0.5) * step_mm
            if entry.size > 0:
                entry[channel, row, u], exit_[channel, row, u] = F32(begins), F32(ends)
            if counts.size > 0:
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
