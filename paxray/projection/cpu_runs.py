"""Runs of atoms along the rays of a row: credited to their atoms, those folded into classes, these into facts.

Buffers are flat, `width` columns for each atom's slot or class. They are clear but for the columns between which the
slot or class has steps, so loops over whole groups of `LANES` columns may go beyond these and change nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from paxray.projection.lanes import gather, get, larger, put

#: Columns that loops over runs take together; rows of buffers are a multiple of it.
LANES = 16
NEVER = np.int32(2**31 - 1)
#: Ids below that of the first atom, which stand for none: `OUTSIDE` and `BEYOND`.
NO_ATOMS = 2
#: Instead of a slot: not taken yet; or never, for the atom is of no class.
FREE, NO_SLOT = np.int32(-1), np.int32(-2)

F32, I32 = np.float32, np.int32


@njit(cache=True, error_model="numpy")
def take_slot(  # type: ignore[no-untyped-def]
    atom, u, used, slots, width, atom_of, slot_of, low_of, high_of, slot_ready,
    start, members, met_low, met_high, ready, deep, shared, run_steps, run_first, run_last, run_share,
    steps, first, last, share,
):  # fmt: skip
    """Give an atom the slot after the `used` ones, or the first where all are taken and must be folded."""
    if used == slots:
        fold(used, width, atom_of, slot_of, low_of, high_of, start, members, met_low, met_high, ready,
             deep, shared, run_steps, run_first, run_last, run_share, steps, first, last, share)  # fmt: skip
        used = 0
    slot_of[atom + NO_ATOMS], atom_of[used] = used, atom
    low_of[used], high_of[used] = u, u
    if slot_ready[used] == 0:
        slot_ready[used] = 1
        clear(used * width, (used + 1) * width, deep, shared, run_steps, run_first, run_last, run_share)
    return used


@njit(inline="always")
def close(  # type: ignore[no-untyped-def]
    atom, u, begun, step, used, slots, width, atom_of, slot_of, low_of, high_of, slot_ready,
    start, members, met_low, met_high, ready, deep, shared, run_steps, run_first, run_last, run_share,
    steps, first, last, share, segment,
):  # fmt: skip
    """Credit a run that ended before `step` to its atom's slot; returns how many slots are in use."""
    # What a sample beyond the outermost voxel's border still sees belongs to the background.
    seen = max(atom, I32(0)) if shared else atom
    slot = np.int64(slot_of[seen + NO_ATOMS])
    if slot != NO_SLOT:
        if slot < 0:
            slot = np.int64(take_slot(
                seen, u, used, slots, width, atom_of, slot_of, low_of, high_of, slot_ready,
                start, members, met_low, met_high, ready, deep, shared, run_steps, run_first, run_last, run_share,
                steps, first, last, share,
            ))  # fmt: skip
            used = slot + 1
        low_of[slot], high_of[slot] = min(low_of[slot], u), max(high_of[slot], u)
        at = slot * width + u
        if atom >= 0:
            run_steps[at] += step - begun
            if deep:
                run_first[at] = min(run_first[at], begun)
                run_last[at] = step - 1
        if shared:
            run_share[at] += segment[u]
    return used


@njit(cache=True, error_model="numpy")
def clear(begin, end, deep, shared, steps, first, last, share):  # type: ignore[no-untyped-def]
    """Empty a stretch of the buffers of slots or classes."""
    for at in range(begin, end):
        put(steps, at, I32(0))
    if deep:
        for at in range(begin, end):
            put(first, at, NEVER)
            put(last, at, I32(-1))
    if shared:
        for at in range(begin, end):
            put(share, at, F32(0))


@njit(cache=True, error_model="numpy")
def fold(  # type: ignore[no-untyped-def]
    used, width, atom_of, slot_of, low_of, high_of, start, members, met_low, met_high, ready, deep, shared,
    run_steps, run_first, run_last, run_share, steps, first, last, share,
):  # fmt: skip
    """Add the atoms' runs to their classes, and leave their slots free and clear."""
    for slot in range(used):
        atom = atom_of[slot]
        slot_of[atom + NO_ATOMS] = FREE
        low, high = low_of[slot] - low_of[slot] % LANES, high_of[slot] - high_of[slot] % LANES + LANES
        of_slot = np.int64(slot) * width
        for m in range(start[atom], start[atom + 1]):
            ch = members[m]
            of_class = np.int64(ch) * width
            if ready[ch] == 0:
                ready[ch] = 1
                clear(of_class, of_class + width, deep, shared, steps, first, last, share)
            met_low[ch], met_high[ch] = min(met_low[ch], low), max(met_high[ch], high)
            for u in range(low, high, LANES):
                source, target = of_slot + u, of_class + u
                for lane in range(LANES):
                    at = target + lane
                    put(steps, at, I32(get(steps, at) + gather(run_steps, source, lane)))
                if deep:
                    for lane in range(LANES):
                        at = target + lane
                        put(first, at, min(get(first, at), gather(run_first, source, lane)))
                    for lane in range(LANES):
                        at = target + lane
                        put(last, at, max(get(last, at), gather(run_last, source, lane)))
                if shared:
                    for lane in range(LANES):
                        at = target + lane
                        put(share, at, get(share, at) + gather(run_share, source, lane))
        clear(of_slot + low, of_slot + high, deep, shared, run_steps, run_first, run_last, run_share)


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nnan", "nsz"})
def tally(row, ch, at, low, high, steps, first, last, step_mm, depth0, counts, sums):  # type: ignore[no-untyped-def]
    """Take a class's pixels in one row, whose buffers begin at `at`, into the facts of a block of rows.

    Without branches and with leave to reorder sums of float64, so that the loops become vector code.
    """
    pixels, left, right, column_sum = I32(0), I32(high), I32(-1), 0
    for u in range(low, high):
        hit = gather(steps, at, u) > 0
        pixels = I32(pixels + (I32(1) if hit else I32(0)))
        left, right = min(left, I32(u) if hit else I32(high)), max(right, I32(u) if hit else I32(-1))
        column_sum += u if hit else 0
    if pixels == 0:
        return
    longest, length_sum, entry_sum, exit_sum = 0.0, 0.0, 0.0, 0.0
    for u in range(low, high):
        count, step = gather(steps, at, u), gather(step_mm, 0, u)
        begins = gather(depth0, 0, u) + (gather(first, at, u) - 0.5) * step
        ends = gather(depth0, 0, u) + (gather(last, at, u) + 0.5) * step
        length_sum += count * step
        longest = larger(longest, count * step)
        entry_sum += begins if count > 0 else 0.0
        exit_sum += ends if count > 0 else 0.0
    if counts[ch, 0] == 0:
        counts[ch, 1], counts[ch, 2], counts[ch, 3], counts[ch, 4] = left, right, row, row
    counts[ch, 0] += pixels
    counts[ch, 1], counts[ch, 2] = min(counts[ch, 1], left), max(counts[ch, 2], right)
    counts[ch, 3], counts[ch, 4] = min(counts[ch, 3], row), max(counts[ch, 4], row)
    counts[ch, 5] += column_sum
    counts[ch, 6] += row * pixels
    sums[ch, 0] += length_sum
    sums[ch, 1] = max(sums[ch, 1], longest)
    sums[ch, 2] += entry_sum
    sums[ch, 3] += exit_sum
