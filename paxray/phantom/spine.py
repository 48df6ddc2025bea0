"""The spinal column: its curve, the vertebrae C7 to L2 with their discs, and the canal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paxray.phantom.canvas import Canvas, Float32
from paxray.phantom.shapes import Float64, capsule, ellipse, paint_tube, smooth_union, tube

# Name, height with the disc below, disc, width and depth of the body, tilt of the spinous process (0 level ..
# 1 steep), half span of the transverse processes; reference mm. L3 stands below the scan.
_TABLE = (
    ("C7", 17.5, 4.5, 30.0, 17.0, 0.25, 33.0),
    ("T1", 19.0, 4.0, 32.0, 18.5, 0.3, 38.0),
    ("T2", 20.0, 3.8, 31.0, 20.0, 0.45, 35.0),
    ("T3", 20.5, 3.6, 29.5, 22.0, 0.6, 33.0),
    ("T4", 21.0, 3.6, 29.0, 24.0, 0.75, 32.0),
    ("T5", 21.5, 3.8, 29.0, 26.0, 0.9, 32.0),
    ("T6", 22.0, 4.2, 29.5, 27.5, 1.0, 32.0),
    ("T7", 22.5, 4.4, 30.5, 28.5, 1.0, 32.0),
    ("T8", 23.0, 4.6, 31.5, 29.5, 0.95, 31.5),
    ("T9", 23.5, 5.0, 33.0, 30.0, 0.8, 31.0),
    ("T10", 25.0, 5.4, 35.0, 30.5, 0.6, 29.0),
    ("T11", 27.0, 6.0, 38.0, 31.0, 0.35, 24.0),
    ("T12", 29.0, 7.0, 41.0, 31.5, 0.2, 22.0),
    ("L1", 32.0, 8.0, 42.5, 32.0, 0.1, 37.0),
    ("L2", 34.0, 9.0, 44.0, 33.0, 0.1, 40.0),
    ("L3", 35.0, 9.5, 46.0, 34.0, 0.1, 42.0),
)
# The sagittal curve: y of the bodies' centres at levels z.
_CURVE = np.array(
    [
        (-290.0, -36.0),
        (-224.0, -33.0),
        (-188.0, -29.0),
        (-155.0, -23.0),
        (-124.0, -15.5),
        (-96.0, -9.0),
        (-70.0, -4.0),
        (-46.0, -1.0),
        (-10.0, 0.0),
        (22.0, -1.5),
        (44.0, -4.0),
        (65.0, -8.0),
        (86.0, -13.5),
        (106.0, -20.0),
        (126.0, -26.5),
        (144.0, -32.0),
        (165.0, -36.0),
        (230.0, -38.0),
    ]
)


@dataclass(frozen=True)
class Level:
    """One vertebra: its place, its tilt in the sagittal plane and its measures; reference mm."""

    name: str
    center: tuple[float, float, float]
    tilt_rad: float
    height: float
    disc: float
    width: float
    depth: float
    steepness: float
    span: float

    @property
    def canal_mm(self) -> float:
        """How far the centre of the canal lies behind the centre of the body."""
        return self.depth / 2 + 8.0

    def place(self, u: float, v: float, w: float) -> Float64:
        """Take a point from the vertebra (left, behind, up) to the reference body."""
        cos, sin = np.cos(self.tilt_rad), np.sin(self.tilt_rad)
        _, y, z = self.center
        return np.array([u, y + cos * v + sin * w, z - sin * v + cos * w])

    def rib_head(self, side: int) -> Float64:
        """Return where the rib of this number meets the body."""
        low = self.name in ("T11", "T12")
        w = 0.0 if low else 0.3 * self.height
        return self.place(side * (self.width / 2 + 2.5), self.depth / 2 - 4.0, w)

    def rib_tubercle(self, side: int) -> Float64:
        """Return where the rib passes in front of the transverse process."""
        w = -2.0 if self.name in ("T11", "T12") else 0.22 * self.height
        return self.place(side * 37.0, self.canal_mm + 3.0, w)


class Spine:
    """The column of a reference body; `BodyFrame` bows it for a patient."""

    def __init__(self) -> None:
        from scipy.interpolate import PchipInterpolator

        self._curve = PchipInterpolator(_CURVE[:, 0], _CURVE[:, 1])
        self._rate = self._curve.derivative()
        bodies = [row[1] - row[2] for row in _TABLE]
        anchor = [row[0] for row in _TABLE].index("T7")
        z = np.zeros(len(_TABLE))
        for n in range(anchor, 0, -1):
            z[n - 1] = z[n] + bodies[n] / 2 + _TABLE[n - 1][2] + bodies[n - 1] / 2
        for n in range(anchor, len(_TABLE) - 1):
            z[n + 1] = z[n] - bodies[n] / 2 - _TABLE[n][2] - bodies[n + 1] / 2
        self.levels = {
            row[0]: Level(
                row[0],
                (0.0, self.y(float(at)), float(at)),
                float(np.arctan(float(self._rate(at)))),
                body,
                *row[2:],
            )
            for row, at, body in zip(_TABLE, z, bodies, strict=True)
        }

    def y(self, z: float) -> float:
        """Return y of the vertebral bodies' centre line at level ``z``."""
        return float(self._curve(np.clip(z, _CURVE[0, 0], _CURVE[-1, 0])))

    def level(self, name: str) -> Level:
        """Return a vertebra by its short name, e.g. ``"T7"``."""
        return self.levels[name]


def paint_spine(canvas: Canvas, spine: Spine, marrow_hu: float) -> None:
    """Paint discs, vertebrae and, through all of them, the contents of the canal."""
    for level in spine.levels.values():
        _paint_disc(canvas, level)
    for level in spine.levels.values():
        if level.name != "L3":
            _paint_vertebra(canvas, level, marrow_hu)
    line = [level.place(0.0, level.canal_mm, 0.0) for level in spine.levels.values()]
    top, bottom = line[0] + (line[0] - line[1]) * 3, line[-1] + (line[-1] - line[-2]) * 2
    paint_tube(canvas, tube([top, *line, bottom], 7.2, step_mm=10.0), "spinal_cord", 12.0)
    paint_tube(canvas, tube([top, *line, bottom], 4.8, step_mm=10.0), "spinal_cord", 36.0)


def _local(canvas: Canvas, level: Level, box: tuple[slice, slice, slice]) -> tuple[Float32, Float32, Float32]:
    x, y, z = canvas.coordinates(box)
    cos, sin = np.float32(np.cos(level.tilt_rad)), np.float32(np.sin(level.tilt_rad))
    dy, dz = y - np.float32(level.center[1]), z - np.float32(level.center[2])
    return x, cos * dy - sin * dz, sin * dy + cos * dz


def _paint_disc(canvas: Canvas, level: Level) -> None:
    """Paint the disc below a vertebra (and above C7, the one that the scan still shows)."""
    gaps = [-(level.height + level.disc) / 2]
    if level.name == "C7":
        gaps.append((level.height + level.disc) / 2)
    for w0 in gaps:
        middle = level.place(0.0, 0.0, w0)
        half = np.array([level.width / 2 + 2, level.depth / 2 + 4, level.disc / 2 + 9])
        box = canvas.box(middle - half, middle + half)
        if box is None:
            continue
        u, v, w = _local(canvas, level, box)
        ring = ellipse(u, v, level.width / 2 + 0.5, level.depth / 2 + 0.5)
        distance = np.maximum(ring, np.abs(w - np.float32(w0)) - np.float32(level.disc / 2 + 1.5))
        canvas.paint(box, distance.astype(np.float32), "intervertebral_discs", 85.0)


def _paint_vertebra(canvas: Canvas, level: Level, marrow_hu: float) -> None:
    _, y, z = level.center
    wide = level.span + 8.0
    box = canvas.box((-wide, y - level.depth / 2 - 6.0, z - 46.0), (wide, y + 62.0, z + 26.0))
    if box is None:
        return
    u, v, w = _local(canvas, level, box)
    au = np.abs(u)
    h, cc = level.height, level.canal_mm
    waist = np.float32(1.0) - np.float32(0.09) * (1 - np.minimum(np.square(2 * w / h), 1))
    body = np.maximum(
        ellipse(au / waist, v / waist, level.width / 2, level.depth / 2), np.abs(w) - np.float32(h / 2)
    )
    canal = ellipse(au, v - np.float32(cc), 10.5, 8.5)
    # Pedicles and laminae: a ring about the canal, higher in front than behind.
    sink = np.clip((v - np.float32(cc - 6)) / 16, 0.0, 1.0)
    ring = np.maximum(
        np.abs(canal - 2.8) - np.float32(2.8),
        np.abs(w - (np.float32(0.12 * h) - sink * np.float32(0.28 * h)))
        - (np.float32(0.24 * h) + 3.5 * sink),
    )
    lumbar = level.name.startswith("L")
    tip_v = cc + (42.0 if lumbar else 34.0 - 6.0 * level.steepness)
    tip_w = -0.2 * h - (22.0 * level.steepness + (3.0 if lumbar else 5.0))
    spinous = capsule((u * 1.6, v, w), (0.0, cc + 11.0, -0.12 * h), (0.0, tip_v, tip_w), 4.6)
    if lumbar:
        spinous = np.minimum(
            spinous, capsule((u * 1.8, v, w), (0.0, cc + 12.0, -0.4 * h), (0.0, tip_v, tip_w - 8), 5.5)
        )
    if lumbar:
        wing = capsule((au, v, w), (13.0, cc - 4.0, 0.1 * h), (level.span, cc, 0.1 * h), 4.0)
    else:
        back = 13.0 if level.name != "C7" else 0.0
        wing = capsule((au, v, w), (14.0, cc + 3.0, 0.1 * h), (level.span, cc + back, 0.18 * h), 3.0)
    facet = capsule((au, v, w), (14.0, cc + 5.0, 0.42 * h), (14.0, cc + 7.0, -0.5 * h), 4.2)
    parts = smooth_union(body, ring, 2.5)
    for part in (spinous, wing, facet):
        parts = smooth_union(parts, part, 2.0)
    hu = _vertebra_hu(parts, np.maximum(body, np.float32(-3.0)), marrow_hu, canvas.edge_mm)
    canvas.paint(box, parts.astype(np.float32), f"vertebrae_{level.name}", hu)


def _vertebra_hu(distance: Float32, body: Float32, marrow_hu: float, edge_mm: float) -> Float32:
    """Return the CT number: spongy body in a thin shell, denser arch."""
    shell = np.clip(0.5 + (distance + np.float32(1.1)) / np.float32(edge_mm), 0.0, 1.0)
    core = np.where(body < 0, np.float32(marrow_hu), np.float32(marrow_hu + 60))
    return core + (np.where(body < 0, np.float32(820.0), np.float32(480.0)) - core) * shell
