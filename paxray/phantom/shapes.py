"""Signed distances (negative inside, first order near the surface) and the swept tube."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paxray.phantom.canvas import Box, Canvas, Float32, overlap, within

Float64 = NDArray[np.float64]
FAR_MM = np.float32(1e3)


def smooth_union(first: Float32, second: Float32, blend_mm: float) -> Float32:
    """Return the union of two shapes with the crease between them rounded over ``blend_mm``.

    Polynomial smooth minimum (I. Quilez); equal to the plain union where the distances differ by more.
    """
    h = np.clip(np.float32(blend_mm) - np.abs(first - second), 0.0, None)
    return np.minimum(first, second) - h * h * np.float32(0.25 / blend_mm)


def smooth_intersection(first: Float32, second: Float32, blend_mm: float) -> Float32:
    """Return the intersection of two shapes with its edge rounded over ``blend_mm``."""
    return -smooth_union(-first, -second, blend_mm)


def ellipse(u: Float32, v: Float32, radius_u: float, radius_v: float) -> Float32:
    """Return the first-order distance to an axis-parallel ellipse."""
    return _ratio(np.square(u / radius_u), np.square(v / radius_v), radius_u, radius_v)


def _ratio(uu: Float32, vv: Float32, radius_u: float, radius_v: float) -> Float32:
    k1 = np.sqrt(uu + vv)
    k2 = np.sqrt(uu / radius_u**2 + vv / radius_v**2)
    return k1 * (k1 - 1) / np.maximum(k2, np.float32(1e-6))


def capsule(
    at: tuple[ArrayLike, ArrayLike, ArrayLike],
    a: ArrayLike,
    b: ArrayLike,
    radius_a: float,
    radius_b: float | None = None,
) -> Float32:
    """Return the distance to a segment from ``a`` to ``b`` less a radius that runs from one to the other."""
    start = np.asarray(a, dtype=np.float32)
    along = np.asarray(b, dtype=np.float32) - start
    dx, dy, dz = (np.asarray(q, dtype=np.float32) - p for q, p in zip(at, start, strict=True))
    t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / (along @ along), 0.0, 1.0)
    rest = (dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2
    step = np.float32(0.0 if radius_b is None else radius_b - radius_a)
    return np.sqrt(rest) - (np.float32(radius_a) + t * step)


def rotation(long_axis: ArrayLike) -> Float64:
    """Return a ``(3, 3)`` rotation whose first row is ``long_axis``; the third row leans upwards."""
    a = np.asarray(long_axis, dtype=np.float64)
    a = a / np.linalg.norm(a)
    b = np.cross([0.0, 0.0, 1.0], a)
    if np.linalg.norm(b) < 1e-6:
        b = np.array([0.0, 1.0, 0.0])
    b /= np.linalg.norm(b)
    return np.stack([a, b, np.cross(a, b)])


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid: centre, radii, and the rows of ``axes`` along which the radii lie."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    axes: Float64 | None = None

    def grown(self, by_mm: float) -> Ellipsoid:
        """Return the ellipsoid with all radii longer by ``by_mm``."""
        a, b, c = self.radii
        return Ellipsoid(self.center, (a + by_mm, b + by_mm, c + by_mm), self.axes)

    @property
    def bounds(self) -> tuple[Float64, Float64]:
        """Low and high corner of the tight axis-parallel box."""
        axes = np.eye(3) if self.axes is None else self.axes
        half = np.sqrt(np.square(axes.T * np.asarray(self.radii)).sum(axis=1))
        return np.asarray(self.center) - half, np.asarray(self.center) + half

    def distance(self, x: Float32, y: Float32, z: Float32) -> Float32:
        """Return the first-order distance at broadcastable coordinates."""
        dx, dy, dz = (q - np.float32(c) for q, c in zip((x, y, z), self.center, strict=True))
        if self.axes is None:
            parts = [
                dx / np.float32(self.radii[0]),
                dy / np.float32(self.radii[1]),
                dz / np.float32(self.radii[2]),
            ]
        else:
            m = self.axes.astype(np.float32)
            parts = [
                (m[n, 0] * dx + m[n, 1] * dy + m[n, 2] * dz) / np.float32(self.radii[n]) for n in range(3)
            ]
        squares = [np.square(part) for part in parts]
        k1 = np.sqrt(squares[0] + squares[1] + squares[2])
        inverse = [np.float32(1.0 / r**2) for r in self.radii]
        k2 = np.sqrt(sum(s * w for s, w in zip(squares, inverse, strict=True)))
        return k1 * (k1 - 1) / np.maximum(k2, np.float32(1e-6))


@dataclass(frozen=True, eq=False)
class Tube:
    """A section swept along a polyline, with rounded ends.

    Parameters
    ----------
    points
        ``(n, 3)`` centre line, reference mm.
    radius
        ``(n,)`` radius; with ``normals``, the radius along the normal.
    normals, radius_across
        ``(n, 3)`` unit normals and ``(n,)`` radii across them, for an elliptic section.
    """

    points: Float64
    radius: Float64
    normals: Float64 | None = None
    radius_across: Float64 | None = None

    @property
    def reach(self) -> Float64:
        """``(n,)`` larger radius of the section."""
        return self.radius if self.radius_across is None else np.maximum(self.radius, self.radius_across)

    @property
    def bounds(self) -> tuple[Float64, Float64]:
        """Low and high corner of a box that holds the tube."""
        reach = self.reach[:, None]
        return (self.points - reach).min(axis=0), (self.points + reach).max(axis=0)


def tube(points: ArrayLike, radius: ArrayLike, step_mm: float = 6.0) -> Tube:
    """Return a round tube along a smooth curve through ``points``; ``radius`` is one or one per point."""
    line = np.asarray(points, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(line),))
    fine = spline(np.column_stack([line, radii]), step_mm)
    return Tube(fine[:, :3], fine[:, 3])


def spline(points: ArrayLike, step_mm: float) -> Float64:
    """Resample a curve through ``(n, 3 or more)`` points (first three columns mm) at about ``step_mm``."""
    from scipy.interpolate import PchipInterpolator

    nodes = np.asarray(points, dtype=np.float64)
    at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(nodes[:, :3], axis=0), axis=1))])
    count = max(2, int(np.ceil(at[-1] / step_mm)) + 1)
    return np.asarray(PchipInterpolator(at, nodes)(np.linspace(0.0, at[-1], count)))


def tube_distance(canvas: Canvas, shape: Tube, box: Box, clearance_mm: float | None = None) -> Float32:
    """Return the distance to a tube on a box: exact near it, `FAR_MM` elsewhere.

    Each segment is evaluated only on the voxels within ``clearance_mm`` (two voxels by default) of it.
    """
    out = np.full(tuple(s.stop - s.start for s in box), FAR_MM, dtype=np.float32)
    near = 2.0 * canvas.edge_mm if clearance_mm is None else clearance_mm
    for n in range(len(shape.points) - 1):
        ends = shape.points[n : n + 2]
        reach = float(shape.reach[n : n + 2].max())
        part = canvas.box(ends.min(axis=0), ends.max(axis=0), reach + near)
        part = None if part is None else overlap(part, box)
        if part is not None:
            view = out[within(part, box)]
            np.minimum(view, _segment(canvas.coordinates(part), shape, n), out=view)
    return out


def _segment(at: tuple[Float32, Float32, Float32], shape: Tube, n: int) -> Float32:
    """Return the distance to the part of a tube between its points n and n + 1."""
    start = shape.points[n].astype(np.float32)
    along = (shape.points[n + 1] - shape.points[n]).astype(np.float32)
    length2 = np.float32(max(float(along @ along), 1e-9))
    dx, dy, dz = at[0] - start[0], at[1] - start[1], at[2] - start[2]
    t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / length2, 0.0, 1.0)
    qx, qy, qz = dx - t * along[0], dy - t * along[1], dz - t * along[2]
    square = qx * qx + qy * qy + qz * qz
    r0, r1 = shape.radius[n : n + 2].astype(np.float32)
    radius = r0 + t * (r1 - r0)
    if shape.normals is None or shape.radius_across is None:
        return np.sqrt(square) - radius
    m0, m1 = shape.normals[n : n + 2].astype(np.float32)
    across0, across1 = shape.radius_across[n : n + 2].astype(np.float32)
    across = across0 + t * (across1 - across0)
    m = m1 - m0
    un = qx * (m0[0] + t * m[0]) + qy * (m0[1] + t * m[1]) + qz * (m0[2] + t * m[2])
    un2 = un * un
    # Beyond its ends a flat section closes over its smaller radius, not over its width.
    ua = (qx * along[0] + qy * along[1] + qz * along[2]) / np.sqrt(length2)
    ua2 = ua * ua
    ub2 = np.maximum(square - un2 - ua2, 0.0)
    rn2, rb2 = np.square(radius), np.square(across)
    ra2 = np.minimum(rn2, rb2)
    k1 = np.sqrt(un2 / rn2 + ub2 / rb2 + ua2 / ra2)
    k2 = np.sqrt(un2 / rn2**2 + ub2 / rb2**2 + ua2 / ra2**2)
    return k1 * (k1 - 1) / np.maximum(k2, np.float32(1e-6))


def paint_tube(canvas: Canvas, shape: Tube, name: str | None, hu: float) -> None:
    """Paint a whole tube with one CT number."""
    box = canvas.box(*shape.bounds, margin_mm=canvas.edge_mm)
    if box is not None:
        canvas.paint(box, tube_distance(canvas, shape, box), name, hu)


def paint_ellipsoid(canvas: Canvas, shape: Ellipsoid, name: str | None, hu: float) -> None:
    """Paint an ellipsoid with one CT number."""
    box = canvas.box(*shape.bounds, margin_mm=canvas.edge_mm)
    if box is not None:
        canvas.paint(box, shape.distance(*canvas.coordinates(box)), name, hu)


def mirrored(points: ArrayLike, side: int) -> Float64:
    """Return points written for the left (+x) on the side asked for: +1 left, -1 right."""
    out = np.array(points, dtype=np.float64)
    out[..., 0] *= side
    return out
