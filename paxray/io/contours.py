"""Polygons to pixels: inside is where an odd number of edges lies to the left of a pixel's centre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fill(
    polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]
) -> tuple[slice, slice, NDArray[np.bool_]] | None:
    """Fill closed polygons by the even-odd rule, all together.

    A centre that lies on an edge belongs to the side towards larger rows and columns, so that polygons that share an
    edge share no pixel and leave none out. Edges that run to and fro, as a keyhole's do, cancel exactly.

    Parameters
    ----------
    polygons
        ``(points, 2)`` each: column and row of the corners, pixel centres at whole numbers. They need not be closed.
    shape
        Rows and columns of the picture; what lies beyond is cut off.

    Returns
    -------
    rows, columns, inside
        The part of the picture that the polygons reach, and bool of its shape; None where that is nothing.
    """
    corners = np.concatenate([np.asarray(points, np.float64) for points in polygons])
    after = np.concatenate([np.roll(np.asarray(points, np.float64), -1, axis=0) for points in polygons])
    low = np.maximum(np.ceil(corners.min(axis=0)), 0).astype(np.int64)
    high = np.minimum(np.ceil(corners.max(axis=0)), shape[::-1]).astype(np.int64)
    if (low >= high).any():
        return None
    # From the upper corner to the lower one, whichever way the edge is drawn: the same crossings to the last bit.
    swap = corners[:, 1] > after[:, 1]
    top = np.where(swap[:, None], after, corners)
    bottom = np.where(swap[:, None], corners, after)
    first = np.clip(np.ceil(top[:, 1]), low[1], high[1]).astype(np.int64)
    count = np.clip(np.ceil(bottom[:, 1]), low[1], high[1]).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (bottom[edge, 0] - top[edge, 0]) / (bottom[edge, 1] - top[edge, 1])
    crossing = np.ceil(top[edge, 0] + (row - top[edge, 1]) * slope)
    column = np.clip(crossing, low[0], high[0]).astype(np.int64) - low[0]
    rows, columns = int(high[1] - low[1]), int(high[0] - low[0])
    crossings = np.bincount((row - low[1]) * (columns + 1) + column, minlength=rows * (columns + 1))
    inside = (np.cumsum(crossings.reshape(rows, columns + 1), axis=1) % 2).astype(bool)[:, :columns]
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])), inside
