"""Supersampling: several rays a pixel, reduced to what the pixel shows.

A pixel of the detector is an area. With one ray through its centre a class's edge is a staircase, and a structure
thinner than the pitch is met or missed by chance; with n x n rays, spread evenly over the pixel, the share of them
that meet a class is its coverage.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.compiling import loop
from paxray.projection.tiles import ROWS_PER_BLOCK
from paxray.projection.want import Maps, Want, reduce_facts, shift_facts, unpack

#: Rays along each side of a pixel. Powers of two: their shares add up to exactly 1.
FACTORS = (1, 2, 4, 8)


def needed(want: Want, factor: int) -> Want:
    """What the fine rays must yield, so that `reduce_maps` can make what is wanted."""
    if factor == 1:
        return replace(want, coverage=False, presence=want.presence or want.coverage)
    return replace(
        want,
        coverage=False,
        presence=want.presence or want.coverage or want.facts,
        path=want.path or want.facts,
        depth=want.depth or want.facts,
        facts=False,
    )


def reduce_maps(maps: Maps, factor: int, channels: int, want: Want) -> tuple[Maps, list[NDArray[np.void]]]:
    """Reduce the maps of ``factor x factor`` rays a pixel.

    Returns
    -------
    maps
        Of the pixels: means of image, path, share and materials; any of presence and incomplete; the least entry and
        the greatest exit; coverage.
    facts
        Of each block of rows, of the reduced maps: a pixel counts where any of its rays meets the class, with the
        mean path length and the outermost depths. Empty unless wanted and ``factor > 1``.
    """
    n = factor
    out = Maps(size=(maps.size[0] // n, maps.size[1] // n), want=want, facts=maps.facts)
    for name in ("image", "path", "share", "materials"):
        fine = getattr(maps, name)
        setattr(out, name, fine if fine is None or n == 1 else _mean(fine, n))
    for name, least in (("entry", np.fmin), ("exit", np.fmax), ("incomplete", np.logical_or)):
        fine = getattr(maps, name)
        setattr(out, name, fine if fine is None or n == 1 else _fold(fine, n, least))
    if maps.presence is not None:
        out.presence = maps.presence if n == 1 else _any_bits(maps.presence, n)
        if want.coverage:
            out.coverage = _coverage(np.ascontiguousarray(maps.presence), n, channels)
    blocks = []
    if want.facts and n > 1:
        assert out.presence is not None  # `needed` asks for it, and for the two below
        assert out.path is not None
        met = np.array([unpack(out.presence, c) for c in range(channels)], bool).reshape(channels, *out.size)
        deep: list[Any] = [met, out.path, out.entry, out.exit]
        for top in range(0, out.size[0], ROWS_PER_BLOCK):
            rows = slice(top, top + ROWS_PER_BLOCK)
            blocks.append(shift_facts(reduce_facts(*(part[:, rows] for part in deep)), top))
    _drop(out, want)
    return out, blocks


def _drop(maps: Maps, want: Want) -> None:
    """Forget what only served another output."""
    if not want.presence:
        maps.presence = None
    if not want.path:
        maps.path = None
    if not want.depth:
        maps.entry = maps.exit = None


def _fold(fine: NDArray[Any], n: int, combine: np.ufunc) -> NDArray[Any]:
    """Combine the n x n values of each pixel, in a fixed order."""
    out = fine[..., ::n, ::n].copy()
    for row in range(n):
        for column in range(n):
            if row or column:
                combine(out, fine[..., row::n, column::n], out=out)
    return out


def _mean(fine: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    out = _fold(fine, n, np.add)
    out *= out.dtype.type(1.0 / n**2)
    return out


def _any_bits(bits: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    return np.ascontiguousarray(np.moveaxis(_fold(np.moveaxis(bits, -1, 0), n, np.bitwise_or), 0, -1))


@loop()
def _coverage(bits, n, channels):  # type: ignore[no-untyped-def]
    """``(channels, rows, columns)`` float32: share of the n x n rays of a pixel that meet a class."""
    rows, columns, words = bits.shape[0] // n, bits.shape[1] // n, bits.shape[2]
    out = np.zeros((channels, rows, columns), np.float32)
    part = np.float32(1.0 / (n * n))
    for row in range(rows):
        for word in range(words):
            for column in range(columns):
                for y in range(n):
                    for x in range(n):
                        rest = bits[row * n + y, column * n + x, word]
                        channel = word * 64
                        # Few classes are met: walk the bits that are set.
                        while rest != np.uint64(0):
                            while rest & np.uint64(0xFF) == np.uint64(0):
                                rest >>= np.uint64(8)
                                channel += 8
                            if rest & np.uint64(1):
                                out[channel, row, column] += part
                            rest >>= np.uint64(1)
                            channel += 1
    return out
