"""The body wall: muscle around the rib cage and shoulders, fat and breasts over it, the skin."""

from __future__ import annotations

import numpy as np

from paxray.phantom.cage import Cage, Section
from paxray.phantom.canvas import Float32
from paxray.phantom.girdle import shoulder_points
from paxray.phantom.patient import Patient
from paxray.phantom.shapes import capsule, ellipse, smooth_union
from paxray.phantom.spine import Spine

BREAST_MM = (-120.0, 90.0)  # levels between which breasts are looked for


class Wall:
    """Muscle, fat, breasts and skin of one patient, evaluated a slice at a time; reference mm."""

    def __init__(self, patient: Patient, cage: Cage, spine: Spine) -> None:
        self.patient, self.cage, self.spine = patient, cage, spine
        self.fat_mm = 5.0 + 26.0 * patient.habitus**1.4
        self.muscle = 0.72 + 0.5 * patient.muscle
        self._shoulder = shoulder_points()

    def layers(self, x: Float32, y: Float32, z: float) -> tuple[Section, Float32, Float32, Float32]:
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
        arm = capsule(at, head + 2 * axis, head + 130 * axis, 40.0 * (0.8 + 0.2 * m), 33.0 * (0.8 + 0.2 * m))
        pectoral = capsule(at, (58.0, -128.0, 38.0), (128.0, -58.0, 98.0), 17.0 * m, 24.0 * m)
        latissimus = capsule(at, (124.0, -8.0, -50.0), (136.0, -8.0, 88.0), 14.0 * m, 30.0 * m)
        scapular = capsule(at, (104.0, 18.0, -6.0), (100.0, 2.0, 104.0), 27.0 * m, 34.0 * m)
        dorsal = capsule(at, (104.0, 16.0, -6.0), (84.0, 0.0, -150.0), 25.0 * m, 10.0 * m)
        trapezius = capsule(at, (18.0, -12.0, 178.0), (128.0, -6.0, 124.0), 30.0 * m, 24.0 * m)
        collar = capsule(at, (20.0, -112.0, 84.0), (122.0, -50.0, 106.0), 19.0, 27.0)
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
        if self.has_breasts(z):
            out = smooth_union(out, self.breast(ax, y, z), 14.0)
        return out

    def has_breasts(self, z: float) -> bool:
        """Return whether breasts may reach level ``z``."""
        return self.patient.sex == "F" and BREAST_MM[0] < z < BREAST_MM[1]

    def breast(self, ax: Float32, y: Float32, z: float) -> Float32:
        """Return a breast: rounder below than above, on the fat in front of the pectoral muscle."""
        r = 50.0 + 20.0 * self.patient.habitus
        center_z, center_x = -53.0, 72.0 + 8.0 * self.patient.habitus
        dz = z - center_z
        rz = r * (0.75 if dz < 0 else 1.2)
        ground = self.cage.front(center_z)[1] + 10.0
        depth = 34.0 + 0.9 * self.fat_mm + 16.0 * self.patient.habitus
        dx, dy = (ax - np.float32(center_x)) / np.float32(r), (y - np.float32(ground)) / np.float32(depth)
        k = np.sqrt(dx * dx + dy * dy + np.float32((dz / rz) ** 2))
        return (k - 1) * np.float32(0.5 * (r + depth) * 0.9)

    def extent_mm(self, low_z: float, high_z: float) -> tuple[float, float, float]:
        """Return the largest ``|x|``, smallest and largest y of the skin over levels; reference mm."""
        x = np.arange(0.0, 330.0, 4.0, dtype=np.float32)[None, :]
        y = np.arange(-340.0, 160.0, 4.0, dtype=np.float32)[:, None]
        wide, front, back = 0.0, 0.0, 0.0
        for z in np.arange(low_z, high_z, 8.0):
            inside = self.layers(x, y, float(z))[3] < 0
            wide = max(wide, float(x[0, inside.any(axis=0)].max()))
            rows = y[inside.any(axis=1), 0]
            front, back = min(front, float(rows.min())), max(back, float(rows.max()))
        return wide, front, back
