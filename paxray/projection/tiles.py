"""Stretches of detector rows, so that maps of every class never have to exist for a whole detector."""

from __future__ import annotations

from paxray.errors import ResourceError

#: Rows whose facts are reduced together. A tile is whole blocks, so that sums run in the same order whatever its
#: height; but those of parallel rays along an axis (`aligned`), whose sums of mm differ in the last bits of float64.
ROWS_PER_BLOCK = 8


def tile_rows(bytes_per_row: float, rows: int, max_bytes: int, *, strict: bool = False) -> int:
    """Rows of a tile whose maps fit into a budget: whole blocks, at least one, at most the detector.

    Parameters
    ----------
    bytes_per_row
        What the maps of one row take.
    rows
        Of the whole detector.
    max_bytes
        The budget.
    strict
        Raise `ResourceError` (code ``tile_memory``) where one block does not fit, instead of going beyond the budget.
    """
    fit = int(max_bytes / max(bytes_per_row, 1.0)) // ROWS_PER_BLOCK * ROWS_PER_BLOCK
    least = min(ROWS_PER_BLOCK, rows)
    if strict and bytes_per_row * least > max_bytes:
        raise ResourceError(
            f"{least} rows of maps do not fit into the budget",
            expected=f"max_bytes of {int(bytes_per_row * least) + 1} or more",
            found=f"{max_bytes}",
            do="ask for fewer classes or outputs, or allow more",
            code="tile_memory",
        )
    return min(max(fit, ROWS_PER_BLOCK), rows)


def row_bytes(
    *, columns: int, channels: int, words: int, maps: int, planes: int, bits: bool, itemsize: int = 4
) -> int:
    """Bytes of one row of `maps` per class, `planes` of one value per pixel, and presence bits where wanted."""
    return columns * (itemsize * (maps * channels + planes) + 8 * words * bits)
