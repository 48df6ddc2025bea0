"""The floor of the chest: two domes and the recesses around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paxray.phantom.cage import Section
from paxray.phantom.canvas import Float32
from paxray.phantom.patient import Patient

THICKNESS_MM = 3.5


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
