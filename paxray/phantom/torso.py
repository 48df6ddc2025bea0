"""The trunk, slice by slice: skin, fat, muscle, breasts, the body cavity, lungs and diaphragm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paxray.phantom.cage import PLEURA_MM, Cage, Section
from paxray.phantom.canvas import Canvas, Float32
from paxray.phantom.girdle import shoulder_points
from paxray.phantom.patient import Patient
from paxray.phantom.shapes import ellipse, smooth_union
from paxray.phantom.spine import Spine

DIAPHRAGM_MM = 3.5
SKIN_MM = 1.8
BREAST_MM = (-120.0, 90.0)  # levels between which breasts are looked for


@dataclass(frozen=True)
class Diaphragm:
    """Two domes that hug the chest wall: level of each top and depth of the recesses; reference mm."""

    top_right: float
    top_left: float
    lateral: float
    posterior: float
    anterior: float

    @classmethod
    def of(cls, patient: Patient) -> Diaphragm:
        """Return the diaphragm of a patient; a full breath lowers it by about five centimetres."""
        breath = patient.inspiration - 0.75
        right = -64.0 - 44.0 * breath + 8.0 * (patient.habitus - 0.35)
        rng = np.random.default_rng([patient.seed, 23])
        step = float(np.clip(rng.normal(13.0, 3.5), 5.0, 22.0))
        return cls(right, right - step, 50.0 - 30.0 * breath, 76.0 - 24.0 * breath, 26.0 - 10.0 * breath)

    def level(self, x: Float32, y: Float32, wall: Float32, section: Section) -> Float32:
        """Return the height of the diaphragm over a slice.

        Parameters
        ----------
        x, y
            Coordinates, ``(1, ni)`` and ``(nj, 1)``.
        wall
            Distance to the pleura on that slice, negative inside.
        section
            The cage at that level.
        """
        backness = np.clip((y - np.float32(section.center_y)) / np.float32(section.back), -1.0, 1.0)
        ends = np.where(backness > 0, np.float32(self.posterior), np.float32(self.anterior))
        weight = np.square(backness)
        drop = np.float32(self.lateral) * (1 - weight) + ends * weight
        to_wall = np.clip(1 + wall / np.float32(88.0), 0.0, 1.0)  # 0 deep inside .. 1 at the wall
        fall = drop * (0.5 * np.square(to_wall) + 0.5 * to_wall**4)
        side = 0.5 + 0.5 * np.tanh(x / np.float32(22.0))
        top = np.float32(self.top_right) * (1 - side) + np.float32(self.top_left) * side
        return top - fall


@dataclass(frozen=True, eq=False)
class Fields:
    """What later organs are fitted into; ``(nk, nj, ni)`` float32, reference mm.

    Parameters
    ----------
    cavity
        Distance to the pleura and, below, the inner face of the abdominal wall; negative inside.
    diaphragm
        Height above the diaphragm.
    """

    cavity: Float32
    diaphragm: Float32


class Torso:
    """The outer shapes of one patient, evaluated a slice at a time."""

    def __init__(self, patient: Patient, cage: Cage, spine: Spine) -> None:
        self.patient, self.cage, self.spine = patient, cage, spine
        self.diaphragm = Diaphragm.of(patient)
        self.fat_mm = 5.0 + 26.0 * patient.habitus**1.4
        self.muscle = 0.72 + 0.5 * patient.muscle
        self._shoulder = shoulder_points()

    def wall(self, x: Float32, y: Float32, z: float) -> tuple[Section, Float32, Float32, Float32]:
        """Return the section and the distances to cage, muscle and skin on the slice at level ``z``."""
        section = self.cage.section(z)
        ax = np.abs(x)
        cage = section.distance(ax, y)
        muscle = self._muscle(ax, y, z, section, cage)
        return section, cage, muscle, self._skin(ax, y, z, muscle)

    def _muscle(self, ax: Float32, y: Float32, z: float, section: Section, cage: Float32) -> Float32:
        m = self.muscle
        spine_y = self.spine.y(z)
        # Wall over the ribs: thin on the breastbone, thicker at the sides and behind.
        side = np.clip(ax / np.float32(section.half_width), 0.0, 1.0)
        thin = 1.0 - 0.6 * float(np.clip((z - 95.0) / 40.0, 0.0, 1.0))
        coat = np.float32(7.0 * thin) + np.float32(7.0 * m * thin) * side
        out = cage - coat
        back = ellipse(ax - 31.0, y - np.float32(spine_y + 40.0), 33.0, 24.0 * (0.8 + 0.2 * m))
        out = smooth_union(out, back, 26.0)
        if z > -190:
            out = smooth_union(out, self._girdle(ax, y, z), 24.0)
        if z > 50:
            neck = ellipse(ax, y + np.float32(48.0), 45.0 + 8.0 * m, 44.0 + 0.2 * max(0.0, 150.0 - z))
            out = smooth_union(out, neck + np.float32(max(0.0, 104.0 - z) * 0.8), 26.0)
        return out

    def _girdle(self, ax: Float32, y: Float32, z: float) -> Float32:
        """Return pectoral, latissimus, the muscles about the scapula, deltoid and upper arm, trapezius."""
        m = self.muscle
        head, axis = self._shoulder["head"], self._shoulder["axis"]
        at = (ax, y, np.float32(z))
        arm = _capsule(at, head + 2 * axis, head + 130 * axis, 40.0 * (0.8 + 0.2 * m), 33.0 * (0.8 + 0.2 * m))
        pectoral = _capsule(at, (58.0, -128.0, 38.0), (128.0, -58.0, 98.0), 17.0 * m, 24.0 * m)
        latissimus = _capsule(at, (124.0, -8.0, -50.0), (136.0, -8.0, 88.0), 14.0 * m, 30.0 * m)
        scapular = _capsule(at, (104.0, 18.0, -6.0), (100.0, 2.0, 104.0), 27.0 * m, 34.0 * m)
        dorsal = _capsule(at, (104.0, 16.0, -6.0), (84.0, 0.0, -150.0), 25.0 * m, 10.0 * m)
        trapezius = _capsule(at, (18.0, -12.0, 178.0), (128.0, -6.0, 124.0), 30.0 * m, 24.0 * m)
        collar = _capsule(at, (20.0, -112.0, 84.0), (122.0, -50.0, 106.0), 19.0, 27.0)
        out = arm
        for part in (pectoral, latissimus, scapular, dorsal, trapezius, collar):
            out = smooth_union(out, part, 36.0)
        return out

    def _skin(self, ax: Float32, y: Float32, z: float, muscle: Float32) -> Float32:
        p = self.patient
        belly = 1.0 / (1.0 + np.exp((z + 110.0) / 28.0))
        slim = 1.0 - 0.5 * float(np.clip((z - 80.0) / 60.0, 0.0, 1.0))  # little fat at the root of the neck
        thick = self.fat_mm * (0.75 + 0.65 * belly) * slim + 2.0
        front = np.clip(-(y - np.float32(self.spine.y(z) - 30.0)) / 90.0, 0.0, 1.0)
        paunch = np.float32(belly * 46.0 * max(0.0, p.habitus - 0.2)) * front
        out = muscle - np.float32(thick) - paunch
        if p.sex == "F" and BREAST_MM[0] < z < BREAST_MM[1]:
            out = smooth_union(out, self._breast(ax, y, z), 14.0)
        return out

    def breast_radius_mm(self) -> float:
        """Radius of a breast in the frontal plane."""
        return 50.0 + 20.0 * self.patient.habitus

    def _breast(self, ax: Float32, y: Float32, z: float) -> Float32:
        """Return a breast: rounder below than above, on the fat in front of the pectoral muscle."""
        r = self.breast_radius_mm()
        center_z, center_x = -53.0, 72.0 + 8.0 * self.patient.habitus
        dz = z - center_z
        rz = r * (0.75 if dz < 0 else 1.2)
        ground = self.cage.front(center_z)[1] + 10.0
        depth = 34.0 + 0.9 * self.fat_mm + 16.0 * self.patient.habitus
        dx, dy = (ax - np.float32(center_x)) / np.float32(r), (y - np.float32(ground)) / np.float32(depth)
        k = np.sqrt(dx * dx + dy * dy + np.float32((dz / rz) ** 2))
        return (k - 1) * np.float32(0.5 * (r + depth) * 0.9)

    def lung(self, x: Float32, y: Float32, z: float, cavity: Float32, above: Float32) -> Float32:
        """Return the distance to the lungs' surface before heart and vessels are laid over them."""
        spine_y = self.spine.y(z)
        ax = np.abs(x)
        # Paraspinal lines wave with the vertebrae; behind the heart the right lung comes nearer the midline.
        wave = float(np.sin(z / 11.0))
        column = ellipse(ax, y - np.float32(spine_y + 14.0), 20.0 + 0.8 * wave, 33.0)
        recess = np.float32(4.0 * np.exp(-(((z + 35.0) / 40.0) ** 2))) * (x < 0)
        # The mediastinum is thin behind the breastbone, wide at the great vessels, wide again at the inlet.
        depth = np.clip((np.float32(spine_y - 12.0) - y) / np.float32(85.0), 0.0, 1.0)
        inlet = float(np.clip((z - 60.0) / 70.0, 0.0, 1.0))
        half = (np.float32(17.0) - recess) * (1 - depth * (1 - 0.6 * inlet) * 0.68) + np.float32(3.0 * inlet)
        mid = np.where(y < spine_y + 10.0, ax - half, np.float32(50.0))
        column = smooth_union(column, mid.astype(np.float32), 12.0)
        return np.maximum(np.maximum(cavity, -above * np.float32(0.78)), -column)


def _capsule(
    at: tuple[Float32, Float32, np.float32], a: object, b: object, radius_a: float, radius_b: float
) -> Float32:
    start = np.asarray(a, dtype=np.float32)
    along = np.asarray(b, dtype=np.float32) - start
    d = [q - p for q, p in zip(at, start, strict=True)]
    t = np.clip((d[0] * along[0] + d[1] * along[1] + d[2] * along[2]) / (along @ along), 0.0, 1.0)
    rest = [p - t * step for p, step in zip(d, along, strict=True)]
    return np.sqrt(rest[0] ** 2 + rest[1] ** 2 + rest[2] ** 2) - (
        radius_a + t * (radius_b - radius_a)
    ).astype(np.float32)


def paint_torso(canvas: Canvas, torso: Torso, texture: Float32) -> Fields:
    """Paint everything that has no shape of its own but lies between such: the wall, the lungs, the fat.

    Parameters
    ----------
    canvas
        Empty canvas.
    torso
        The patient's shapes.
    texture
        ``(nk, nj, ni)`` smooth noise of unit variance: fat lobules, gland, lung parenchyma.
    """
    cavity = np.empty_like(canvas.hu)
    diaphragm = np.empty_like(canvas.hu)
    for k in range(canvas.hu.shape[0]):
        box = (slice(k, k + 1), slice(None), slice(None))
        z = float(canvas.z[k, 0, 0])
        x, y = canvas.x[k], canvas.y[k]
        section, cage, muscle, skin = torso.wall(x, y, z)
        inner = cage + np.float32(PLEURA_MM)
        above = np.float32(z) - torso.diaphragm.level(x, y, inner, section)
        cavity[k], diaphragm[k] = inner, above
        grain = texture[k]
        canvas.paint(box, skin[None], "subcutaneous_fat", (-103.0 + 9.0 * grain)[None])
        rind = np.maximum(skin, -(skin + np.float32(SKIN_MM)))
        canvas.paint(box, rind[None], None, 25.0)
        if torso.patient.sex == "F" and BREAST_MM[0] < z < BREAST_MM[1]:
            _paint_breasts(
                canvas, torso, box, (x, y, z), np.maximum(skin + np.float32(SKIN_MM), -muscle), grain
            )
        # Fat planes between the layers of muscle.
        plane = np.clip(
            1.3 - np.abs(np.abs(cage - np.float32(20.0)) - np.float32(7.0) + 2.5 * grain), 0.0, 1.0
        )
        canvas.paint(box, muscle[None], "skeletal_muscle", (50.0 + 9.0 * grain - 95.0 * plane)[None])
        _paint_cavity(canvas, torso, box, (x, y, z), inner, above, grain)
    return Fields(cavity, diaphragm)


def _paint_breasts(
    canvas: Canvas,
    torso: Torso,
    box: tuple[slice, slice, slice],
    at: tuple[Float32, Float32, float],
    layer: Float32,
    grain: Float32,
) -> None:
    x, y, z = at
    breast = torso._breast(np.abs(x), y, z)
    gland = np.clip(0.7 + 0.4 * grain + 0.03 * (breast + 14), 0.0, 1.0) * np.clip(-breast / 12.0, 0.0, 1.0)
    share = 1.0 - 0.45 * torso.patient.habitus
    hu = (-98.0 + 150.0 * share * gland).astype(np.float32)
    for name, half in (("breast_left", -x), ("breast_right", x)):
        canvas.paint(box, np.maximum(np.maximum(breast, layer), half)[None], name, hu[None])


def _paint_cavity(
    canvas: Canvas,
    torso: Torso,
    box: tuple[slice, slice, slice],
    at: tuple[Float32, Float32, float],
    inner: Float32,
    above: Float32,
    grain: Float32,
) -> None:
    x, y, z = at
    if inner.min() > 0:
        return
    fat = (-92.0 + 8.0 * grain)[None]
    chest = np.maximum(inner, -above)
    canvas.paint(box, inner[None], "torso_fat", fat)
    if chest.min() < 0:
        canvas.paint(box, chest[None], "mediastinal_fat", fat)
        lung = torso.lung(x, y, z, inner, above)
        canvas.paint(box, lung[None], None, (lung_hu(y, torso.spine.y(z), z) + 24.0 * grain)[None])
        for name, part in lobes(x, y, z):
            canvas.name(box, ((lung < 0) & part)[None], name)
        canvas.paint(box, np.maximum(lung, fissures(x, y, z))[None], None, -690.0)
        sheet = np.maximum(inner, np.maximum(above, -(above + np.float32(DIAPHRAGM_MM))))
        canvas.paint(box, sheet[None], "skeletal_muscle", 50.0)


def lung_hu(y: Float32, spine_y: float, z: float) -> Float32:
    """Return the parenchyma's CT number: denser behind (supine) and a little towards the bases."""
    behind = np.clip((y - np.float32(spine_y - 130.0)) / np.float32(160.0), 0.0, 1.0)
    return np.float32(-878.0) + 58.0 * np.square(behind) - np.float32(0.08 * min(z, 60.0))


def oblique_level(x: Float32, y: Float32) -> Float32:
    """Return the height of the oblique fissures: from T4 behind to the front of the diaphragm."""
    left = np.where(x > 0, np.float32(7.0), np.float32(0.0))
    ahead = np.float32(20.0) - y
    wave = np.float32(3.0) * np.sin(x / np.float32(19.0) + left) + np.float32(2.5) * np.sin(
        y / np.float32(23.0)
    )
    return np.float32(60.0) + left + wave - np.float32(0.66) * ahead - np.float32(0.0009) * np.square(ahead)


def horizontal_level(x: Float32, y: Float32) -> Float32:
    """Return the height of the right lung's horizontal fissure."""
    wave = np.float32(2.5) * np.sin(x / np.float32(21.0) + y / np.float32(17.0))
    return np.float32(1.0) + wave - np.float32(0.05) * (y + 100) - np.float32(0.0012) * np.square(x + 60)


def lobes(x: Float32, y: Float32, z: float) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return name and half-space (not limited to the lung) of each lobe on a slice."""
    low = np.float32(z) <= oblique_level(x, y)
    below = np.float32(z) <= horizontal_level(x, y)
    left = x > 0
    return [
        ("lung_upper_lobe_left", left & ~low),
        ("lung_lower_lobe_left", left & low),
        ("lung_upper_lobe_right", ~left & ~low & ~below),
        ("lung_middle_lobe_right", ~left & ~low & below),
        ("lung_lower_lobe_right", ~left & low),
    ]


def fissures(x: Float32, y: Float32, z: float) -> Float32:
    """Return the distance to the fissures: sheets of two layers of pleura."""
    oblique = (np.float32(z) - oblique_level(x, y)) * np.float32(0.8)
    level = np.where(
        (x < 0) & (oblique > 0), np.abs(np.float32(z) - horizontal_level(x, y)), np.float32(99.0)
    )
    return np.minimum(np.abs(oblique), level) - np.float32(0.45)


def body_extent_mm(torso: Torso, frame_span: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the largest ``|x|``, smallest and largest y of the skin over levels; reference mm."""
    x = np.arange(0.0, 330.0, 4.0, dtype=np.float32)[None, :]
    y = np.arange(-340.0, 160.0, 4.0, dtype=np.float32)[:, None]
    wide, front, back = 0.0, 0.0, 0.0
    for z in np.arange(frame_span[0], frame_span[1], 8.0):
        inside = torso.wall(x, y, float(z))[3] < 0
        wide = max(wide, float(x[0, inside.any(axis=0)].max()))
        rows = y[inside.any(axis=1), 0]
        front, back = min(front, float(rows.min())), max(back, float(rows.max()))
    return wide, front, back
