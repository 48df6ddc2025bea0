"""What one thread writes to while it follows rows of rays: made by numpy, so that the compiled march allocates nothing.

Compiled code that owns no arrays counts no references to them: it is faster, and compiled in less time.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from paxray.projection.cpu_runs import FREE, NO_ATOMS, WORD
from paxray.projection.cpu_slab import BEYOND, TILE
from paxray.projection.lanes import LANES

#: Pixels that go through a slab the same way.
CHUNK = 16
#: Atoms whose runs are added up apart before they are folded into their classes.
SLOTS = 256

#: Bytes of a cache line, and of the widest vectors.
LINE = 64

F32, F64, I16, I32, U64 = np.float32, np.float64, np.int16, np.int32, np.uint64
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Words: TypeAlias = NDArray[np.uint64]
Steps: TypeAlias = NDArray[np.int32]


class Rays(NamedTuple):
    """The rays of a row, as `paxray.projection.cpu_rays.set_up_row` says; per column, some up to the row's width."""

    b0: Doubles
    c0: Doubles
    db: Doubles
    dc: Doubles
    step_mm: Doubles
    depth0: Doubles
    b_mid: Floats
    b_slope: Floats
    c_mid: Floats
    c_slope: Floats
    s_first: Steps
    s_last: Steps
    meets_first: Steps
    meets_last: Steps
    inside_first: Steps
    inside_last: Steps


class Parts(NamedTuple):
    """What is known of chunks of a row, and the parts that a slab divides it into."""

    chunk_first: Steps
    chunk_last: Steps
    surely_first: Steps
    surely_last: Steps
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    sure: NDArray[np.bool_]


class Samples(NamedTuple):
    """Where each ray of a row stands, and the lines of voxels that it is read from."""

    value: Floats
    total: Floats
    segment: Floats
    near: Steps
    current: Steps
    run_start: Steps
    line: Floats
    atom_line: Steps
    tile_low: Steps
    tile_near: Steps
    tile_fc: Floats


class Runs(NamedTuple):
    """Runs by slots of atoms, and atoms by classes, as `paxray.projection.cpu_runs` says."""

    slot_of: Steps
    atom_of: Steps
    run_steps: NDArray[np.int16]
    run_first: NDArray[np.int16]
    run_last: NDArray[np.int16]
    run_share: Floats
    touched: Words
    slot_ready: NDArray[np.uint8]
    met: Words
    ready: NDArray[np.uint8]
    steps: NDArray[np.int16]
    first: NDArray[np.int16]
    last: NDArray[np.int16]
    share: Floats
    bits: Words


class Buffers(NamedTuple):
    """All of a thread's, for rows of `width` columns and `slots` atoms."""

    rays: Rays
    parts: Parts
    samples: Samples
    runs: Runs
    width: int
    slots: int
    shift: int


def make_buffers(
    shape: tuple[int, ...],
    columns: int,
    start: NDArray[np.int32],
    count: int,
    words: int,
    deep: bool,
    shared: bool,
) -> Buffers:
    """Buffers of a thread.

    Parameters
    ----------
    shape
        Of the volume.
    columns
        Of the detector.
    start
        Where each atom's classes begin among the members, one more than atoms.
    count, words
        Classes, and words of their presence bits; 0 where not wanted.
    deep, shared
        Whether first and last steps are wanted; and shares of the line integral.
    """
    width = -(-columns // WORD) * WORD
    chunks = -(-columns // CHUNK)
    slots = min(len(start) - 1, SLOTS) if count else 0
    shift = 0
    while 1 << shift < LANES or 64 << shift < width:
        shift += 1

    reach = max(shape) * TILE
    # Beyond the last column are rays that meet nothing.
    rays = Rays(
        b0=_filled(F64, columns), c0=_filled(F64, columns), db=_filled(F64, columns), dc=_filled(F64, columns),
        step_mm=_filled(F64, width, 0), depth0=_filled(F64, width, 0),
        b_mid=_filled(F32, width, -10), b_slope=_filled(F32, width, 0),
        c_mid=_filled(F32, width, -10), c_slope=_filled(F32, width, 0),
        s_first=_filled(I32, width, 1), s_last=_filled(I32, width, 0),
        meets_first=_filled(I32, columns), meets_last=_filled(I32, columns),
        inside_first=_filled(I32, columns), inside_last=_filled(I32, columns),
    )  # fmt: skip
    parts = Parts(
        chunk_first=_filled(I32, chunks), chunk_last=_filled(I32, chunks),
        surely_first=_filled(I32, chunks), surely_last=_filled(I32, chunks),
        begin=_filled(np.int64, chunks), end=_filled(np.int64, chunks), sure=_filled(np.bool_, chunks),
    )  # fmt: skip
    samples = Samples(
        value=_filled(F32, width, 0), total=_filled(F32, width, 0), segment=_filled(F32, width, 0),
        near=_filled(I32, width, BEYOND), current=_filled(I32, width, BEYOND), run_start=_filled(I32, width, 0),
        line=_filled(F32, reach), atom_line=_filled(I32, reach),
        tile_low=_filled(I32, TILE), tile_near=_filled(I32, TILE), tile_fc=_filled(F32, TILE),
    )  # fmt: skip
    slot_of = _filled(I32, len(start) - 1 + NO_ATOMS, slots)
    slot_of[NO_ATOMS:][start[:-1] < start[1:]] = FREE
    by_slot, by_class = (slots + 1) * width, count * width
    runs = Runs(
        slot_of=slot_of, atom_of=_filled(I32, slots),
        run_steps=_filled(I16, by_slot), run_first=_filled(I16, by_slot * deep), run_last=_filled(I16, by_slot * deep),
        run_share=_filled(F32, by_slot * shared),
        touched=_filled(U64, slots + 1, 0), slot_ready=_filled(np.uint8, slots, 0),
        met=_filled(U64, count, 0), ready=_filled(np.uint8, count, 0),
        steps=_filled(I16, by_class), first=_filled(I16, by_class * deep), last=_filled(I16, by_class * deep),
        share=_filled(F32, by_class * shared),
        bits=_filled(U64, words * width, 0),
    )  # fmt: skip
    return Buffers(rays, parts, samples, runs, width, slots, shift)


def _filled(kind: Any, size: int, value: Any = None) -> Any:
    """``(size,)`` of one value, or not filled, on a cache line's border: vectors that lie across two cost more."""
    item = np.dtype(kind).itemsize
    held = np.empty(size * item + LINE, np.uint8)
    first = -held.ctypes.data % LINE
    out = held[first : first + size * item].view(kind)
    if value is not None:
        out[:] = value
    return out
