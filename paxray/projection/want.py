"""What a projection returns: asked for by name, so that nobody pays for what they do not use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import ConfigError, suggest

#: Bits of an atom's flags: it belongs to the body; it was not scanned (outside the reconstruction circle).
BODY, PADDING = 1, 2


@dataclass(frozen=True)
class Want:
    """The outputs of a projection; each costs only when asked for.

    Parameters
    ----------
    image
        Line integral of attenuation.
    presence
        Where each class is met.
    path
        Path length in each class, mm.
    depth
        Where along the ray each class begins and ends, mm.
    share
        Each class's part of the line integral.
    incomplete
        Rays that leave the body where the scan ends.
    facts
        Per class: pixels, box, centroid, sums of path length and depth, reduced as the rays go.
    coverage
        The part of each pixel's rays that meet each class: soft masks, with supersampling.
    materials
        Line integral of each basis material.
    """

    image: bool = False
    presence: bool = False
    path: bool = False
    depth: bool = False
    share: bool = False
    incomplete: bool = False
    facts: bool = False
    coverage: bool = False
    materials: bool = False

    @classmethod
    def of(cls, names: Want | Iterable[str]) -> Want:
        """Make a request from words: ``Want.of(["image", "presence"])``."""
        if isinstance(names, Want):
            return names
        names = [names] if isinstance(names, str) else list(names)
        known = [f.name for f in fields(cls)]
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"a projection has no output '{name}'", expected=", ".join(known), do=suggest(name, known)
                )
        return replace(cls(), **dict.fromkeys(names, True))

    @property
    def any_class(self) -> bool:
        """Whether any output is per class."""
        return self.presence or self.path or self.depth or self.share or self.facts or self.coverage

    @property
    def labelled(self) -> bool:
        """Whether any output needs labels."""
        return self.any_class or self.incomplete


#: Columns of the per-class facts. Columns and rows are pixel numbers; sums run over the class's pixels;
#: path and depth in mm. Empty classes: pixels 0, minima of the largest integer, maxima -1.
FACTS = np.dtype(
    [
        ("pixels", np.int64),
        ("column_min", np.int64),
        ("column_max", np.int64),
        ("row_min", np.int64),
        ("row_max", np.int64),
        ("column_sum", np.int64),
        ("row_sum", np.int64),
        ("path_sum_mm", np.float64),
        ("path_max_mm", np.float64),
        ("entry_sum_mm", np.float64),
        ("exit_sum_mm", np.float64),
    ]
)
NO_PIXEL = np.iinfo(np.int64).max


def empty_facts(channels: int) -> NDArray[np.void]:
    """Facts of classes that no ray has met."""
    facts = np.zeros(channels, dtype=FACTS)
    facts["column_min"] = facts["row_min"] = NO_PIXEL
    facts["column_max"] = facts["row_max"] = -1
    return facts


def facts_of(counts: NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.void]:
    """Merge what parts of a view found, in their order.

    Parameters
    ----------
    counts, sums
        ``(parts, channels, 7)`` and ``(parts, channels, 4)``: the columns of `FACTS`, zero where a part has not met
        the channel.
    """
    facts = empty_facts(counts.shape[1])
    met = counts[..., 0] > 0
    for column, name in enumerate((FACTS.names or ())[:7]):
        values = counts[..., column]
        if name.endswith("_min"):
            facts[name] = np.where(met, values, NO_PIXEL).min(axis=0, initial=NO_PIXEL)
        elif name.endswith("_max"):
            facts[name] = np.where(met, values, -1).max(axis=0, initial=-1)
        else:
            facts[name] = values.sum(axis=0)
    for column, name in enumerate((FACTS.names or ())[7:]):
        reduce = np.max if "_max" in name else np.sum
        facts[name] = reduce(sums[..., column], axis=0, initial=0.0)
    return facts


def merge_facts(parts: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
    """Combine the facts of disjoint sets of rays (rows of a detector, parts of a fan), in the order given."""
    parts = list(parts)
    out = empty_facts(len(parts[0]))
    for part in parts:
        for name in FACTS.names or ():
            if name.endswith("_min"):
                out[name] = np.minimum(out[name], part[name])
            elif "_max" in name:
                out[name] = np.maximum(out[name], part[name])
            else:
                out[name] += part[name]
    return out


def shift_facts(facts: NDArray[np.void], rows: int) -> NDArray[np.void]:
    """Facts of a stretch of rows, with rows counted from the top of a detector that begins `rows` above it."""
    out = facts.copy()
    met = out["pixels"] > 0
    for name in ("row_min", "row_max"):
        out[name][met] += rows
    out["row_sum"] += rows * out["pixels"]
    return out


@dataclass(eq=False)
class Maps:
    """Dense maps while a backend fills them; channels first, None where not wanted.

    `entry` and `exit` are mm along the ray, NaN where a class is not met.
    """

    size: tuple[int, int]
    want: Want
    image: NDArray[np.floating] | None = None
    path: NDArray[np.floating] | None = None
    entry: NDArray[np.floating] | None = None
    exit: NDArray[np.floating] | None = None
    share: NDArray[np.floating] | None = None
    presence: NDArray[np.uint64] | None = None
    incomplete: NDArray[np.bool_] | None = None
    facts: NDArray[np.void] | None = None
    coverage: NDArray[np.floating] | None = None
    materials: NDArray[np.floating] | None = None

    @classmethod
    def empty(
        cls, size: tuple[int, int], channels: int, want: Want, dtype: type[np.floating], materials: int = 0
    ) -> Maps:
        """Zeroed maps with all that `facts` is later reduced from."""
        per_class = (channels, *size)
        deep = want.depth or want.facts
        return cls(
            size=size,
            want=want,
            image=np.zeros(size, dtype) if want.image else None,
            path=np.zeros(per_class, dtype) if want.path or want.facts or want.presence else None,
            entry=np.full(per_class, np.nan, dtype) if deep else None,
            exit=np.full(per_class, np.nan, dtype) if deep else None,
            share=np.zeros(per_class, dtype) if want.share else None,
            incomplete=np.zeros(size, bool) if want.incomplete else None,
            materials=np.zeros((materials, *size), dtype) if want.materials else None,
        )

    def add(
        self, channel: int, hit: NDArray[np.bool_], length: NDArray[np.float64], depth: NDArray[np.float64]
    ) -> None:
        """Credit one slab's sample to a channel; a sample stands for half a slab to either side."""
        if self.path is None:
            return
        self.path[channel] += np.where(hit, length, 0.0)
        if self.entry is not None and self.exit is not None:
            self.entry[channel] = np.where(
                hit, np.fmin(self.entry[channel], depth - length / 2), self.entry[channel]
            )
            self.exit[channel] = np.where(
                hit, np.fmax(self.exit[channel], depth + length / 2), self.exit[channel]
            )

    def mark_incomplete(self, where: NDArray[np.bool_]) -> None:
        """Flag rays that cross between the body and what was not scanned."""
        if self.incomplete is not None:
            self.incomplete |= where

    def finish(self) -> Maps:
        """Derive presence and facts from the dense maps, and drop what was not asked for."""
        if self.path is not None:
            met = self.path > 0
            if self.want.presence:
                self.presence = pack(met)
            if self.want.facts:
                self.facts = reduce_facts(met, self.path, self.entry, self.exit)
        if not self.want.path:
            self.path = None
        if not self.want.depth:
            self.entry = self.exit = None
        return self


def reduce_facts(
    met: NDArray[np.bool_],
    path: NDArray[np.floating],
    entry: NDArray[np.floating] | None,
    exit_: NDArray[np.floating] | None,
) -> NDArray[np.void]:
    """Reduce dense maps ``(channels, rows, columns)`` to facts."""
    facts = empty_facts(len(met))
    rows, columns = np.arange(met.shape[1]), np.arange(met.shape[2])
    for fact, hit, length, first, last in zip(
        facts,
        met,
        path,
        entry if entry is not None else path,
        exit_ if exit_ is not None else path,
        strict=True,
    ):
        in_row, in_column = hit.sum(axis=1), hit.sum(axis=0)
        n = int(in_row.sum())
        if n == 0:
            continue
        fact["pixels"] = n
        fact["row_min"], fact["row_max"] = rows[in_row > 0][[0, -1]]
        fact["column_min"], fact["column_max"] = columns[in_column > 0][[0, -1]]
        fact["row_sum"], fact["column_sum"] = rows @ in_row, columns @ in_column
        fact["path_sum_mm"], fact["path_max_mm"] = length[hit].sum(dtype=float), length[hit].max()
        fact["entry_sum_mm"], fact["exit_sum_mm"] = first[hit].sum(dtype=float), last[hit].sum(dtype=float)
    return facts


def words_for(channels: int) -> int:
    """Number of 64-bit words that hold one bit per channel."""
    return max(1, -(-channels // 64))


def pack(met: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack ``(channels, rows, columns)`` bool into ``(rows, columns, words)`` bits, channel c in word c // 64."""
    channels, rows, columns = met.shape
    out = np.zeros((rows, columns, words_for(channels)), dtype=np.uint64)
    for channel in range(channels):
        out[..., channel // 64] |= met[channel].astype(np.uint64) << np.uint64(channel % 64)
    return out


def unpack(bits: Any, channel: int) -> Any:
    """``(rows, columns)`` bool of one channel, numpy or torch as the bits."""
    if not isinstance(bits, np.ndarray):
        # torch computes with few unsigned types; the same bits as int64 do.
        import torch

        return (bits.view(torch.int64)[..., channel // 64] >> (channel % 64)) & 1 > 0
    # By bytes, least significant first, which leaves a fraction of the memory to be read.
    octets = np.ascontiguousarray(bits, "<u8").view(np.uint8)
    return octets[..., channel // 8] & np.uint8(1 << channel % 8) != 0
