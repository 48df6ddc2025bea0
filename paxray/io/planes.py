"""One class's mask, put together from planes of which only what is not empty was kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.io.lattice import EMPTY_BOX, Box, LatticeMatch


@dataclass(frozen=True, eq=False)
class ClassMask:
    """One class's voxels.

    Parameters
    ----------
    name
        The file's stem, or what a file calls its segment.
    box
        Tight box round the class in the CT's array (k, j, i); of size 0 for an empty mask.
    array
        bool, the shape of `box`.
    extent
        The part of the CT's array that the file covers.
    where
        How errors name the file.
    """

    name: str
    box: Box
    array: NDArray[np.bool_]
    extent: Box
    where: str


@dataclass(frozen=True, eq=False)
class Piece:
    """The part of a plane that is not empty: its plane's number, rows, columns and content, ``(rows, columns)``."""

    k: int
    rows: slice
    columns: slice
    content: NDArray[Any]


def is_blank(plane: NDArray[Any]) -> bool:
    """Whether every stored number is 0; by bytes, which is several times as fast as by numbers."""
    return not plane.reshape(-1).view(np.uint8).max(initial=0)


def tight_piece(k: int, plane: NDArray[Any]) -> Piece | None:
    """Return the smallest rectangle of a plane that holds all its nonzero numbers; None for none."""
    rows = np.flatnonzero(plane.any(axis=1))
    if not rows.size:
        return None
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(plane[span].any(axis=0))
    across = slice(int(columns[0]), int(columns[-1]) + 1)
    return Piece(k, span, across, plane[span, across].copy())  # a view would keep the whole plane


def stacked(pieces: Iterable[Piece]) -> tuple[Box, NDArray[np.bool_]]:
    """Put pieces of bool, one at least, into the smallest box that holds all; two of one plane add up."""
    pieces = list(pieces)
    box = (
        slice(min(piece.k for piece in pieces), max(piece.k for piece in pieces) + 1),
        slice(min(piece.rows.start for piece in pieces), max(piece.rows.stop for piece in pieces)),
        slice(min(piece.columns.start for piece in pieces), max(piece.columns.stop for piece in pieces)),
    )
    first_k, first_row, first_column = (part.start for part in box)
    array = np.zeros([part.stop - part.start for part in box], bool)
    for piece in pieces:
        rows = slice(piece.rows.start - first_row, piece.rows.stop - first_row)
        columns = slice(piece.columns.start - first_column, piece.columns.stop - first_column)
        array[piece.k - first_k, rows, columns] |= piece.content
    return box, array


def class_mask(name: str, pieces: Sequence[Piece], match: LatticeMatch, extent: Box, where: str) -> ClassMask:
    """Put the pieces of a mask's planes together and onto the CT; parameters as `placed_mask`."""
    box, array = stacked(pieces) if pieces else (EMPTY_BOX, np.zeros((0, 0, 0), bool))
    return placed_mask(name, box, array, match, extent, where)


def placed_mask(
    name: str, box: Box, array: NDArray[np.bool_], match: LatticeMatch, extent: Box, where: str
) -> ClassMask:
    """Put a part of a mask's array onto the CT.

    Parameters
    ----------
    box, array
        The part, and where it lies in the mask's own array; a tight box stays tight.
    match
        How that array lies in the CT's.
    extent
        The part of the CT that the file speaks of, which may be more than its array.
    """
    placed, inside = match.place(box, array) if array.size else (EMPTY_BOX, array)
    if inside.size < array.size:
        cut = tight_box(inside)
        inside = inside[cut]
        moved = [slice(p.start + c.start, p.start + c.stop) for p, c in zip(placed, cut, strict=True)]
        placed = (moved[0], moved[1], moved[2]) if inside.size else EMPTY_BOX
    return ClassMask(name, placed, np.ascontiguousarray(inside), extent, where)


def tight_box(array: NDArray[Any]) -> Box:
    """Return the smallest box that holds all nonzero voxels; of size 0 at 0 where there are none."""
    box: list[slice] = [slice(None)] * 3
    # Planes first (whole, contiguous reductions), then only what is left of rows and columns.
    for axis in sorted(range(3), key=lambda axis: -abs(array.strides[axis])):
        part = array[tuple(box)]
        rest = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(part.max(axis=rest, initial=0))
        if not hit.size:
            return EMPTY_BOX
        box[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
    return tuple(box)  # type: ignore[return-value]
