"""The long and the short axis of a lesion, as it is measured on axial slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.measure.voxel_set import VoxelSet

Float64 = NDArray[np.float64]


def axial_axes_mm(region: VoxelSet) -> tuple[float, float]:
    """Long and short axis in mm, by RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009).

    The long axis is the longest diameter in any axial slice; the short axis is the longest diameter perpendicular to
    it in the same slice. Both are taken on the convex hull of the slice; its outline runs through the middles of the
    outer pixel edges. Slices are those of the array that lie across the patient.
    """
    longest = (0.0, 0.0)
    for index, plane in region.slices_from_above():
        if plane.any():
            outline = _hull(_plane_mm(region, index, _edge_middles(plane)))
            found = _axes(outline)
            if found[0] > longest[0]:
                longest = found
    return longest


def _edge_middles(plane: NDArray[np.bool_]) -> Float64:
    """``(n, 2)`` places (row, column) of the middles of all pixel edges between inside and outside."""
    inside = np.pad(plane, 1)
    out = []
    for axis in (0, 1):
        for way in (-1, 1):
            edge = inside & ~np.roll(inside, -way, axis)
            place = np.argwhere(edge).astype(float) - 1
            place[:, axis] += way / 2
            out.append(place)
    return np.concatenate(out)


def _plane_mm(region: VoxelSet, index: int, places: Float64) -> Float64:
    """Places in a slice in an orthonormal frame of its plane, mm."""
    world = region.to_world(index, places)
    origin, row, column = region.to_world(index, np.array([[0, 0], [1, 0], [0, 1]]))
    first = (column - origin) / np.linalg.norm(column - origin)
    second = (row - origin) - ((row - origin) @ first) * first
    second /= np.linalg.norm(second)
    return np.column_stack([(world - origin) @ first, (world - origin) @ second])


def _hull(points: Float64) -> Float64:
    """The corners of the convex hull, in order."""
    from scipy.spatial import ConvexHull

    return np.asarray(points[ConvexHull(points).vertices])


def _axes(hull: Float64) -> tuple[float, float]:
    """The diameter of a convex polygon, and its longest chord perpendicular to the diameter."""
    apart = hull[:, None] - hull[None]
    length = np.hypot(apart[..., 0], apart[..., 1])
    a, b = np.unravel_index(int(np.argmax(length)), length.shape)
    along = apart[a, b] / length[a, b]
    s, t = hull @ along, hull @ np.array([-along[1], along[0]])
    # The chord's length is concave and linear between corners, so that the longest runs through one.
    chords = [_chord(s, t, at) for at in s]
    return float(length[a, b]), float(max(chords))


def _chord(s: Float64, t: Float64, at: float) -> float:
    """Length of the chord of a convex polygon ``(s, t)`` along t where s is `at`."""
    s0, s1, t0, t1 = s, np.roll(s, -1), t, np.roll(t, -1)
    span = s1 - s0
    crosses = (np.minimum(s0, s1) <= at) & (at <= np.maximum(s0, s1))
    share = np.divide(at - s0, span, out=np.zeros_like(span), where=span != 0)
    met = (t0 + share * (t1 - t0))[crosses]
    upright = crosses & (span == 0)
    met = np.concatenate([met, t1[upright]])
    return float(np.ptp(met))
