"""The rib cage: one smooth surface, and the ribs and costal cartilages as curves that run on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paxray.phantom.canvas import Canvas, Float32
from paxray.phantom.patient import Patient
from paxray.phantom.shapes import Float64, Tube, paint_tube, spline, tube_distance
from paxray.phantom.spine import Spine

EXPONENT = 2.35  # of the superelliptic cross-section: fuller than an ellipse
PLEURA_MM = 5.0  # from the ribs' centre lines inwards to the lung

# Level z, half width, front y and back y of the surface through the ribs' centre lines; reference mm.
_SECTIONS = np.array(
    [
        (142.0, 22.0, -66.0, -32.0),
        (137.0, 43.0, -78.0, -22.0),
        (128.0, 59.0, -90.0, -13.0),
        (115.0, 73.0, -101.0, -3.0),
        (99.0, 88.0, -112.0, 8.0),
        (82.0, 101.0, -120.0, 17.0),
        (62.0, 114.0, -129.0, 24.0),
        (40.0, 124.0, -138.0, 30.0),
        (15.0, 130.0, -146.0, 33.0),
        (-20.0, 136.0, -155.0, 35.0),
        (-85.0, 141.0, -161.0, 28.0),
        (-130.0, 139.0, -155.0, 18.0),
        (-165.0, 135.0, -147.0, 9.0),
        (-240.0, 128.0, -140.0, -4.0),
    ]
)

# Per rib 1..12: polar angle of the anterior end (0 behind, 180 in front; degrees), drop of that end below
# the head (mm), exponent of the descent, half height and half thickness of the section (mm).
_RIBS = (
    (158.0, 38.0, 1.1, 3.2, 6.5),
    (157.0, 46.0, 1.25, 4.8, 4.0),
    (155.0, 66.0, 1.45, 5.6, 3.2),
    (152.0, 76.0, 1.65, 6.1, 3.2),
    (149.0, 88.0, 1.75, 6.4, 3.3),
    (146.0, 99.0, 1.8, 6.6, 3.4),
    (142.0, 107.0, 1.8, 6.7, 3.5),
    (135.0, 112.0, 1.75, 6.6, 3.4),
    (124.0, 110.0, 1.65, 6.4, 3.3),
    (110.0, 99.0, 1.5, 6.2, 3.2),
    (86.0, 73.0, 1.3, 5.6, 3.0),
    (56.0, 44.0, 1.15, 4.8, 2.8),
)
# Level on the sternum at which the cartilages of ribs 1..7 end.
STERNAL_NOTCHES_MM = (80.0, 60.0, 34.0, 11.0, -8.0, -24.0, -36.0)
# How far along the cartilage above, from the rib, the cartilages of false ribs join it.
_FALSE_JOINTS = {8: 0.42, 9: 0.35, 10: 0.3}


@dataclass(frozen=True)
class Section:
    """The cage at one level: a superellipse with its own front and back half; reference mm."""

    half_width: float
    center_y: float
    front: float
    back: float
    slope: float  # horizontal to true distance, for a surface that narrows upwards
    above: float  # mm above the top of the cage

    def distance(self, ax: Float32, y: Float32) -> Float32:
        """Return the distance to the surface at ``|x|`` ``(1, ni)`` and ``y`` ``(nj, 1)``."""
        p = EXPONENT
        dy = y - np.float32(self.center_y)
        half = np.where(dy > 0, np.float32(self.back), np.float32(self.front))
        qx, qy = ax / np.float32(self.half_width), np.abs(dy) / half
        px, py = np.power(qx, np.float32(p)), np.power(qy, np.float32(p))
        q = np.maximum(np.power(px + py, np.float32(1.0 / p)), np.float32(1e-3))
        gx = px / np.maximum(qx, np.float32(1e-4)) / np.float32(self.half_width)
        gy = py / np.maximum(qy, np.float32(1e-4)) / half
        gradient = np.power(q, np.float32(1.0 - p)) * np.sqrt(gx * gx + gy * gy)
        distance = (q - 1) / np.maximum(gradient, np.float32(1e-4)) * np.float32(self.slope)
        if self.above > 0:
            distance = np.hypot(np.maximum(distance, 0.0), np.float32(self.above))
        return distance.astype(np.float32)


class Cage:
    """Surface through the centre lines of a patient's ribs.

    Parameters
    ----------
    patient
        Inspiration lifts and widens the cage, as the ribs turn about their necks.
    """

    def __init__(self, patient: Patient) -> None:
        from scipy.interpolate import PchipInterpolator

        breath = patient.inspiration - 0.75
        table = _SECTIONS[::-1].copy()
        table[:, 1] *= 1.0 + 0.035 * breath
        table[:, 2] *= 1.0 + 0.05 * breath
        self._curve = PchipInterpolator(table[:, 0], table[:, 1:])
        self._rate = self._curve.derivative()
        self.top_mm = float(table[-1, 0])
        self.bottom_mm = float(table[0, 0])
        self.lift = 1.0 - 0.18 * breath  # of the ribs' descent

    def section(self, z: float) -> Section:
        """Return the cross-section at level ``z`` (frozen beyond the ends of the cage)."""
        at = float(np.clip(z, self.bottom_mm, self.top_mm))
        half, front, back = (float(v) for v in self._curve(at))
        center = 0.35 * front + 0.65 * back - 0.2 * (back - front)
        # Steeper than this the first-order correction would overshoot at the crown of the cage.
        slope = max(0.62, float(1.0 / np.hypot(1.0, 0.8 * float(self._rate(at)[0]))))
        return Section(half, center, center - front, back - center, slope, max(0.0, z - self.top_mm))

    def point(self, theta_deg: float, z: float, side: int) -> Float64:
        """Return the point of the surface at a level, in direction ``theta`` from the section's centre."""
        s = self.section(z)
        sin, cos = np.sin(np.radians(theta_deg)), np.cos(np.radians(theta_deg))
        half = s.back if cos > 0 else s.front
        r = (abs(sin / s.half_width) ** EXPONENT + abs(cos / half) ** EXPONENT) ** (-1.0 / EXPONENT)
        return np.array([side * r * sin, s.center_y + r * cos, z])

    def normal(self, point: ArrayLike) -> Float64:
        """Return the outward horizontal unit normal of the surface near ``point``."""
        x, y, z = np.asarray(point, dtype=np.float64)
        s = self.section(float(z))
        half = s.back if y > s.center_y else s.front
        gx = np.sign(x) * abs(x / s.half_width) ** (EXPONENT - 1) / s.half_width
        gy = np.sign(y - s.center_y) * abs((y - s.center_y) / half) ** (EXPONENT - 1) / half
        n = np.array([gx, gy, 0.0])
        return n / max(float(np.linalg.norm(n)), 1e-9)

    def front(self, z: float) -> Float64:
        """Return the point of the surface in front, on the midline."""
        s = self.section(z)
        return np.array([0.0, s.center_y - s.front, z])


@dataclass(frozen=True, eq=False)
class Rib:
    """A rib and, for ribs 1 to 10, its cartilage."""

    side: int
    number: int
    bone: Tube
    cartilage: Tube | None


def make_ribs(patient: Patient, cage: Cage, spine: Spine) -> list[Rib]:
    """Return the 24 ribs, left (+1) and right (-1) with small differences drawn from the patient's seed."""
    rng = np.random.default_rng([patient.seed, 11])
    return [rib for side in (1, -1) for rib in _side(cage, spine, side, rng)]


def _side(cage: Cage, spine: Spine, side: int, rng: np.random.Generator) -> list[Rib]:
    ribs: list[Rib] = []
    lines: dict[int, Float64] = {}  # of the cartilages
    for number, (theta_end, drop, power, half_height, half_thick) in enumerate(_RIBS, start=1):
        theta_end += rng.normal(0.0, 1.2)
        drop = drop * cage.lift + rng.normal(0.0, 2.0)
        power += rng.normal(0.0, 0.04)
        line = _bone_line(cage, spine, side, number, theta_end, drop, power)
        bone = _tube(cage, line, number, half_height, half_thick)
        cartilage = None
        if number <= 10:
            above = lines.get(number - 1)
            share = _FALSE_JOINTS.get(number)
            if share is None or above is None:
                join = _notch(cage, side, number)
            else:
                join = above[round(share * (len(above) - 1))]
            lines[number] = _gristle_line(cage, bone.points[-1], join)
            radius = 5.0 if number <= 7 else 4.2
            cartilage = Tube(lines[number], np.full(len(lines[number]), radius))
        ribs.append(Rib(side, number, bone, cartilage))
    return ribs


def _bone_line(
    cage: Cage, spine: Spine, side: int, number: int, theta_end: float, drop: float, power: float
) -> Float64:
    level = spine.level(f"T{number}")
    head = level.rib_head(side)
    tubercle = level.rib_tubercle(side)
    top = float(head[2]) - (1.0 if number > 1 else 0.0)
    start = {1: 62.0, 2: 44.0, 11: 27.0, 12: 25.0}.get(number, 32.0)
    nodes = [head, tubercle]
    for s in np.linspace(0.0, 1.0, 22 if number < 11 else 12):
        theta = start + s * (theta_end - start)
        z = top - 2.0 - (drop - 2.0) * s**power
        nodes.append(cage.point(theta, z, side))
    return _smoothed(spline(np.array(nodes), 2.5))


def _smoothed(line: Float64, sweeps: int = 14) -> Float64:
    """Relax a polyline with fixed ends: takes the corners out of neck and angle of a rib."""
    out = line.copy()
    for _ in range(sweeps):
        out[1:-1] = 0.5 * out[1:-1] + 0.25 * (out[:-2] + out[2:])
    return out


def _tube(cage: Cage, line: Float64, number: int, half_height: float, half_thick: float) -> Tube:
    count = max(12, int(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() / 6.0))
    points = spline(line, float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()) / count)
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normals = np.array([cage.normal(p) for p in points])
    normals -= (normals * tangent).sum(axis=1, keepdims=True) * tangent
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    at = np.linspace(0.0, 1.0, len(points))
    neck = np.clip(at / (0.16 if number < 11 else 0.3), 0.0, 1.0)
    height = 3.8 + neck * (half_height - 3.8)
    thick = 3.5 + neck * (half_thick - 3.5)
    if number <= 10:
        height = height * (1.0 + 0.12 * np.clip((at - 0.8) / 0.2, 0.0, 1.0))  # the flared sternal end
    else:
        height = height * (1.0 - 0.45 * np.clip((at - 0.7) / 0.3, 0.0, 1.0))  # floating ribs taper
    return Tube(points, thick, normals, height)


def _notch(cage: Cage, side: int, number: int) -> Float64:
    z = STERNAL_NOTCHES_MM[number - 1] + 40.0 * (1.0 - cage.lift)
    x = {1: 24.0, 2: 17.0}.get(number, 15.0)
    return cage.front(z) + np.array([side * x, 1.0, 0.0])


def _gristle_line(cage: Cage, start: Float64, end: Float64) -> Float64:
    """Run from a rib's end to the sternum or the cartilage above, staying on the cage."""

    def polar(p: NDArray[np.float64]) -> float:
        s = cage.section(float(p[2]))
        return float(np.degrees(np.arctan2(abs(p[0]), p[1] - s.center_y)))

    side = int(np.sign(start[0]))
    theta0, theta1 = polar(start), polar(end)
    nodes = []
    for s in np.linspace(0.0, 1.0, 14):
        z = start[2] + (end[2] - start[2]) * s**1.5  # leaves along the rib, then turns up
        nodes.append(cage.point(theta0 + s * (theta1 - theta0), float(z), side))
    nodes[0], nodes[-1] = start, end
    return spline(_smoothed(np.array(nodes), 4), 5.0)


def paint_ribs(canvas: Canvas, ribs: list[Rib], marrow_hu: float) -> None:
    """Paint cartilages, then bones over their ends."""
    for rib in ribs:
        if rib.cartilage is not None:
            paint_tube(canvas, rib.cartilage, "costal_cartilages", 105.0)
    for rib in ribs:
        name = f"rib_{'left' if rib.side > 0 else 'right'}_{rib.number}"
        paint_bone(canvas, rib.bone, name, cortex_mm=1.2, cortex_hu=1000.0, marrow_hu=marrow_hu)


def paint_bone(
    canvas: Canvas, shape: Tube, name: str, *, cortex_mm: float, cortex_hu: float, marrow_hu: float
) -> None:
    """Paint a tube of marrow inside a shell of cortical bone."""
    box = canvas.box(*shape.bounds, margin_mm=canvas.edge_mm)
    if box is None:
        return
    distance = tube_distance(canvas, shape, box)
    canvas.paint(box, distance, name, bone_hu(distance, cortex_mm, cortex_hu, marrow_hu, canvas.edge_mm))


def bone_hu(
    distance_mm: Float32, cortex_mm: float, cortex_hu: float, marrow_hu: float, edge_mm: float
) -> Float32:
    """Return the CT number of a bone at a signed distance from its surface: a shell around marrow.

    The ramp between the two is a voxel wide, so a shell thinner than a voxel keeps its mass.
    """
    shell = np.clip(0.5 + (distance_mm + np.float32(cortex_mm)) / np.float32(edge_mm), 0.0, 1.0)
    return (marrow_hu + (cortex_hu - marrow_hu) * shell).astype(np.float32)
