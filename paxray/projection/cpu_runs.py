"""Runs of atoms along the rays of a row: credited to their atoms, those folded into classes, these into facts.

Buffers are flat, `width` columns for each atom's slot or class. A word per slot or class has a bit for each group of
columns where it has steps; elsewhere its buffers are clear, once they are ready. A group is `LANES` columns, or so
many times 2 that 64 groups make a row. Steps are counted in 16 bits: what folding costs is moving these buffers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from paxray.compiling import helper
from paxray.projection.lanes import (
    LANES,
    add_lanes,
    gather,
    get,
    highest,
    larger,
    lowest,
    max_lanes,
    min_lanes,
    ones,
    positive,
    put,
)

#: Pixels compared at once: as many as a word has bits.
WORD = 64
#: Bits of a word whose number has bit n set, for each n.
ODD = tuple(np.uint64(sum(1 << place for place in range(WORD) if place >> n & 1)) for n in range(6))
#: No step has this number, so a ray has at most so many.
NEVER = np.int16(2**15 - 1)
#: Ids below that of the first atom, which stand for none: `OUTSIDE` and `BEYOND`.
NO_ATOMS = 2
#: Instead of a slot: not taken yet. What is of no class has the slot after the last, which nobody reads: no branch.
FREE = np.int32(-1)

F32, I16, I32 = np.float32, np.int16, np.int32


@helper(error_model="numpy")
def take_slot(  # type: ignore[no-untyped-def]
    atom, used, slots, width, shift, atom_of, slot_of, touched, slot_ready, start, members, met, ready,
    deep, shared, run_steps, run_first, run_last, run_share, steps, first, last, share,
):  # fmt: skip
    """Give an atom the slot after the `used` ones, or the first where all are taken and must be folded."""
    if used == slots:
        fold(used, width, shift, atom_of, slot_of, touched, start, members, met, ready,
             deep, shared, run_steps, run_first, run_last, run_share, steps, first, last, share)  # fmt: skip
        used = np.int64(0)
    slot_of[atom + NO_ATOMS], atom_of[used], touched[used] = used, atom, 0
    if slot_ready[used] == 0:
        slot_ready[used] = 1
        clear(used * width, (used + 1) * width, deep, shared, run_steps, run_first, run_last, run_share)
    return used


@njit(inline="always")
def close(  # type: ignore[no-untyped-def]
    atom, u, begun, step, used, slots, width, shift, atom_of, slot_of, touched, slot_ready,
    start, members, met, ready, deep, shared, run_steps, run_first, run_last, run_share,
    steps, first, last, share, segment,
):  # fmt: skip
    """Credit a run that ended before `step` to its atom's slot; returns how many slots are in use."""
    # What a sample beyond the outermost voxel's border still sees belongs to the background.
    seen = max(atom, I32(0)) if shared else atom
    slot = np.int64(get(slot_of, seen + NO_ATOMS))
    if slot < 0:
        slot = np.int64(take_slot(
            seen, used, slots, width, shift, atom_of, slot_of, touched, slot_ready, start, members, met, ready,
            deep, shared, run_steps, run_first, run_last, run_share, steps, first, last, share,
        ))  # fmt: skip
        used = slot + 1
    put(touched, slot, get(touched, slot) | (np.uint64(1) << np.uint64(u >> shift)))
    at = slot * width + u
    if not shared or atom >= 0:
        put(run_steps, at, I16(get(run_steps, at) + (step - begun)))
        if deep:
            put(run_first, at, min(get(run_first, at), I16(begun)))
            put(run_last, at, I16(step - I32(1)))
    if shared:
        put(run_share, at, get(run_share, at) + get(segment, u))
    return used


@helper(error_model="numpy")
def clear(begin, end, deep, shared, steps, first, last, share):  # type: ignore[no-untyped-def]
    """Empty a stretch of the buffers of slots or classes."""
    for at in range(begin, end):
        put(steps, at, I16(0))
    if deep:
        for at in range(begin, end):
            put(first, at, NEVER)
            put(last, at, I16(-1))
    if shared:
        for at in range(begin, end):
            put(share, at, F32(0))


@helper(error_model="numpy")
def fold(  # type: ignore[no-untyped-def]
    used, width, shift, atom_of, slot_of, touched, start, members, met, ready, deep, shared,
    run_steps, run_first, run_last, run_share, steps, first, last, share,
):  # fmt: skip
    """Add the atoms' runs to their classes, and leave their slots free and clear."""
    for slot in range(used):
        atom = atom_of[slot]
        slot_of[atom + NO_ATOMS] = FREE
        left, begin, end = touched[slot], start[atom], start[atom + 1]
        for m in range(begin, end):
            ch = members[m]
            met[ch] |= left
            if ready[ch] == 0:
                ready[ch] = 1
                clear(
                    ch * np.int64(width), (ch + 1) * np.int64(width), deep, shared, steps, first, last, share
                )
        while left:
            low = lowest(left) << shift
            high = min(low + (1 << shift), width)
            left &= left - np.uint64(1)
            for source in range(slot * width + low, slot * width + high, LANES):
                for m in range(begin, end):
                    target = source + (np.int64(get(members, m)) - slot) * width
                    add_lanes(steps, target, run_steps, source)
                    if deep:
                        min_lanes(first, target, run_first, source)
                        max_lanes(last, target, run_last, source)
                    if shared:
                        for lane in range(LANES):
                            at = target + lane
                            put(share, at, get(share, at) + gather(run_share, source, lane))
            clear(slot * width + low, slot * width + high, deep, shared,
                  run_steps, run_first, run_last, run_share)  # fmt: skip


@helper(error_model="numpy", fastmath={"contract", "reassoc", "nnan", "nsz"})
def tally(row, ch, at, low, high, steps, first, last, step_mm, depth0, counts, sums):  # type: ignore[no-untyped-def]
    """Take a class's pixels in one row, whose buffers begin at `at`, into the facts of a block of rows.

    Pixels are counted by words of bits. Depths and lengths are summed without branches and with leave to reorder sums
    of float64, so that the loop becomes vector code.
    """
    pixels, left, right, column_sum = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for u in range(low - low % WORD, high, WORD):
        hits = positive(steps, at + u)
        if hits == 0:
            continue
        left = left if pixels else u + lowest(hits)
        right = u + highest(hits)
        pixels += ones(hits)
        column_sum += u * ones(hits)
        # Bit n of the columns' numbers within the word.
        for n in range(len(ODD)):
            column_sum += ones(hits & ODD[n]) << n
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
