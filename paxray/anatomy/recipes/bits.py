"""Which voxels lie within a small distance of a mask: a ball's rows laid over rows of bits, 64 voxels at a time.

For the millimetres of anatomy this takes a tenth of the time of a distance transform, and it asks the same of every
pair of voxels, whatever the affine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.voxels import BoolArray
from paxray.io.volume import Float64

Words = NDArray[np.uint64]
_WORD = 64


def ball_rows(linear: Float64, radius_mm: float, margin: tuple[int, int, int]) -> NDArray[np.int64]:
    """The rows along i of a ball.

    Parameters
    ----------
    linear
        ``(3, 3)`` mm per i, j, k.
    radius_mm
        A voxel centre at this distance belongs to the ball.
    margin
        Voxels along k, j, i that the ball can reach across.

    Returns
    -------
    ``(n, 4)``: dk, dj, and the first and the last di; rows without a voxel are left out.
    """
    reach_k, reach_j, reach_i = margin
    dk, dj, di = np.meshgrid(
        np.arange(-reach_k, reach_k + 1),
        np.arange(-reach_j, reach_j + 1),
        np.arange(-reach_i, reach_i + 1),
        indexing="ij",
    )
    away_mm = np.linalg.norm(np.stack([di, dj, dk], axis=-1) @ linear.T, axis=-1)
    inside = away_mm <= radius_mm
    k, j = np.nonzero(inside.any(axis=2))
    # A ball is convex: its voxels of a row are an interval.
    first = inside[k, j].argmax(axis=1) - reach_i
    last = reach_i - inside[k, j][:, ::-1].argmax(axis=1)
    return np.column_stack([k - reach_k, j - reach_j, first, last])


def dilate_by_rows(mask: BoolArray, rows: NDArray[np.int64]) -> BoolArray:
    """The mask with every voxel replaced by a ball (`ball_rows`), cut to the array."""
    size = mask.shape[2]
    # What is moved back down has to come from somewhere.
    room = max(0, -int(rows[:, 2].min()))
    start = _pack(mask, size + room)
    out = np.zeros_like(start)
    for first, last in sorted({(int(a), int(b)) for a, b in rows[:, 2:]}, key=lambda ends: ends[1] - ends[0]):
        length = last - first
        # Widening is cumulative: from shortest to longest.
        widened = _widen(start, length) if length else start
        moved = _moved(widened, first)
        for dk, dj in rows[(rows[:, 2] == first) & (rows[:, 3] == last), :2].tolist():
            to_k, from_k = _parts(dk, len(out))
            to_j, from_j = _parts(dj, out.shape[1])
            out[to_k, to_j] |= moved[from_k, from_j]
    return _unpack(out, size)


def _widen(words: Words, by: int) -> Words:
    """Each bit also at the ``by`` places above it."""
    out, done = words, 0
    while done < by:
        step = min(done + 1, by - done)
        out = out | _moved(out, step)
        done += step
    return out


def _moved(words: Words, by: int) -> Words:
    """Rows of bits moved up by so many places, down where negative; what leaves a row is lost."""
    if by == 0:
        return words
    whole, bits = divmod(abs(by), _WORD)
    out = np.zeros_like(words)
    kept = words.shape[2] - whole
    if kept <= 0:
        return out
    up, rest = np.uint64(bits), np.uint64(_WORD - bits)
    if by > 0:
        out[..., whole:] = words[..., :kept] << up
        if bits:
            out[..., whole + 1 :] |= words[..., : kept - 1] >> rest
    else:
        out[..., :kept] = words[..., whole:] >> up
        if bits:
            out[..., : kept - 1] |= words[..., whole + 1 :] << rest
    return out


def _parts(by: int, size: int) -> tuple[slice, slice]:
    """Where what is moved by so many planes goes, and where it comes from."""
    by = max(-size, min(size, by))
    return slice(max(0, by), size + min(0, by)), slice(max(0, -by), size - max(0, by))


def _pack(mask: BoolArray, bits: int) -> Words:
    """``(nk, nj, words)``: voxel i of a row is bit ``i % 64`` of word ``i // 64``."""
    packed = np.packbits(mask, axis=2, bitorder="little")
    out = np.zeros((*mask.shape[:2], 8 * -(-bits // _WORD)), np.uint8)
    out[..., : packed.shape[2]] = packed
    return out.view("<u8").astype(np.uint64, copy=False)


def _unpack(words: Words, size: int) -> BoolArray:
    """The reverse of `_pack`."""
    packed = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(packed, axis=2, count=size, bitorder="little").view(np.bool_)
