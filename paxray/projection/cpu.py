"""The compiled CPU projector: the same march as `reference`, one pass for the image and every class.

Detector rows are shared out among threads in fixed blocks, so results do not depend on the thread count. In a
row the slab loop stands outside the pixel loop, which the compiler turns into vector gathers. The state of
each ray is a run (atom, first step); classes are touched only where the atom changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import ResourceError
from paxray.projection import aligned
from paxray.projection.channels import Channels
from paxray.projection.cpu_buffers import make_buffers
from paxray.projection.cpu_rows import march_rows
from paxray.projection.cpu_runs import NEVER
from paxray.projection.pages import sparse_zeros
from paxray.projection.rays import IndexRays
from paxray.projection.threads import in_all_threads
from paxray.projection.tiles import ROWS_PER_BLOCK
from paxray.projection.want import Maps, Want, facts_of, merge_facts, words_for

#: Slabs that a ray may be taken through.
MOST_STEPS = int(NEVER)
F32 = np.float32


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
        At most this many; all processors by default.
    """
    size, count = rays.size, channels.count if want.any_class else 0
    maps = Maps(size=size, want=want)
    per_class = (count, *size)
    none3, none2 = np.empty((0, 0, 0), F32), np.empty((0, 0), F32)
    maps.image = np.zeros(size, F32) if want.image else None
    maps.path = sparse_zeros(per_class, F32) if want.path else None
    maps.entry = np.full(per_class, np.nan, F32) if want.depth else None
    maps.exit = np.full(per_class, np.nan, F32) if want.depth else None
    maps.share = sparse_zeros(per_class, F32) if want.share else None
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
    if max(mu.shape) > MOST_STEPS:
        raise ResourceError(
            "the volume is too long for the CPU projector",
            expected=f"at most {MOST_STEPS} voxels along each axis",
            found=f"shape {mu.shape}",
            do="crop the CT, or resample it to larger voxels",
        )
    ids, words = _by_width(atoms)
    start = channels.start if count else np.zeros(len(flags) + 1, np.int32)
    deep = want.depth or want.facts

    passes = sorted({int(a) for a in np.unique(axes)})
    if aligned.applies(rays, axes, mu.shape, want):
        facts.append(aligned.fill(mu, atoms, channels, flags, rays, axes, maps, bits, incomplete, threads))
        passes = []
    for axis in passes:
        if want.facts:
            counts = np.zeros((blocks, count, 7), np.int64)
            sums = np.zeros((blocks, count, 4), np.float64)
        else:
            counts, sums = np.zeros((0, 0, 0), np.int64), np.zeros((0, 0, 0))
        arguments = (
            mu.reshape(-1), ids, words, ids.size > 0, np.array(mu.shape[::-1], np.int64), axis, axes,
            rays.cone, rays.pixel, rays.du, rays.dv, rays.source, rays.direction, rays.pixel_depth_mm,
            rays.metric, size,
            start, channels.members if count else np.zeros(0, np.int32), flags, count, labelled, deep,
            maps.image if maps.image is not None else none2,
            bits,
            maps.path if maps.path is not None else none3,
            maps.entry if maps.entry is not None else none3,
            maps.exit if maps.exit is not None else none3,
            maps.share if maps.share is not None else none3,
            incomplete, counts, sums,
        )  # fmt: skip

        def work(turn: NDArray[np.int64], arguments: tuple[Any, ...] = arguments) -> None:
            buffers = make_buffers(mu.shape, size[1], start, count, bits.shape[2], deep, want.share)
            march_rows(turn, buffers, *arguments)

        in_all_threads(work, blocks, threads)
        if want.facts:
            facts.append(facts_of(counts, sums))
    maps.presence = bits if want.presence else None
    maps.incomplete = incomplete if want.incomplete else None
    maps.facts = merge_facts(facts) if want.facts else None
    return maps


def _by_width(atoms: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Flat atoms of 16 bits, or as 32 bits, and nothing of the other: the march is compiled once for both."""
    flat = atoms.reshape(-1)
    if flat.dtype == np.uint16:
        return flat, np.empty(0, np.uint32)
    return np.empty(0, np.uint16), flat.astype(np.uint32, copy=False)
