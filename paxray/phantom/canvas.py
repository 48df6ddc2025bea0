"""The voxel grid that a phantom is painted on, seen in the coordinates of a reference body.

Anatomy is written once, in millimetres of a reference man (`BodyFrame`). A patient differs from him by
three scales and a gentle bow of the trunk, both functions of z alone; the canvas evaluates every shape at
voxel centres taken back into the reference body, so no shape needs to know the patient's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paxray.phantom.patient import Patient

Float32 = NDArray[np.float32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class BodyFrame:
    """Maps patient world mm (LPS) to the reference body and back."""

    scale_xyz: tuple[float, float, float]
    bow_x_mm: float
    bow_y_mm: float

    @classmethod
    def of(cls, patient: Patient) -> BodyFrame:
        """Return the frame of ``patient``."""
        return cls(patient.scale_xyz, patient.scoliosis_mm, patient.kyphosis_mm)

    def bow(self, z_ref: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how far (reference mm) the trunk at level ``z_ref`` is shifted in x and in y."""
        z = np.asarray(z_ref, dtype=np.float64)
        wave = np.cos(np.pi * (z + 20.0) / 190.0) - np.cos(np.pi * 20.0 / 190.0)
        hump = np.square((z - 20.0) / 130.0)
        return self.bow_x_mm * wave, -self.bow_y_mm * np.minimum(hump, 1.6)

    def to_world(self, points_ref: ArrayLike) -> NDArray[np.float64]:
        """Map ``(..., 3)`` reference points to world mm."""
        points = np.array(points_ref, dtype=np.float64)
        dx, dy = self.bow(points[..., 2])
        points[..., 0] += dx
        points[..., 1] += dy
        return points * np.asarray(self.scale_xyz)


class Canvas:
    """CT numbers and labels under construction; later paint covers earlier paint.

    Parameters
    ----------
    axes_mm
        World coordinates of the voxel centres along x, y, z (1D each).
    frame
        The patient's `BodyFrame`.
    ids
        Label id of every name in the vocabulary.
    """

    def __init__(
        self,
        axes_mm: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
        frame: BodyFrame,
        ids: Mapping[str, int],
    ) -> None:
        world_x, world_y, world_z = axes_mm
        sx, sy, sz = frame.scale_xyz
        z = world_z / sz
        bow_x, bow_y = frame.bow(z)
        self.frame, self.ids = frame, ids
        self.x: Float32 = (world_x / sx - bow_x[:, None])[:, None, :].astype(np.float32)
        self.y: Float32 = (world_y / sy - bow_y[:, None])[:, :, None].astype(np.float32)
        self.z: Float32 = z[:, None, None].astype(np.float32)
        steps = [abs(float(axis[1] - axis[0])) for axis in axes_mm]
        # Width of the ramp from one tissue to the next: a voxel, in reference mm.
        self.edge_mm = float(np.mean(steps) / np.mean(frame.scale_xyz))
        shape = (world_z.size, world_y.size, world_x.size)
        self.hu: Float32 = np.full(shape, -1000.0, dtype=np.float32)
        self.labels: NDArray[np.uint8] = np.zeros(shape, dtype=np.uint8)

    def box(self, low: ArrayLike, high: ArrayLike, margin_mm: float = 0.0) -> Box | None:
        """Return the slices of voxels whose reference coordinates may lie in ``[low, high]``, or None."""
        lo = np.asarray(low, dtype=np.float64) - margin_mm - self.edge_mm
        hi = np.asarray(high, dtype=np.float64) + margin_mm + self.edge_mm
        k = _span(self.z[:, 0, 0], lo[2], hi[2])
        if k.stop <= k.start:
            return None
        # The bow moves rows from slice to slice: take what any of the box's slices needs.
        ends = [k.start, (k.start + k.stop) // 2, k.stop - 1]
        j = _union([_span(self.y[e, :, 0], lo[1], hi[1]) for e in ends])
        i = _union([_span(self.x[e, 0, :], lo[0], hi[0]) for e in ends])
        return None if j.stop <= j.start or i.stop <= i.start else (k, j, i)

    def coordinates(self, box: Box) -> tuple[Float32, Float32, Float32]:
        """Return x ``(nk, 1, ni)``, y ``(nk, nj, 1)``, z ``(nk, 1, 1)`` of a box, reference mm."""
        k, j, i = box
        return self.x[k, :, i], self.y[k, j], self.z[k]

    def paint(
        self,
        box: Box,
        distance_mm: Float32,
        name: str | None,
        hu: float | Float32,
        where: NDArray[np.bool_] | None = None,
    ) -> None:
        """Cover the inside of a shape.

        Parameters
        ----------
        box
            Where ``distance_mm`` is given.
        distance_mm
            Signed distance to the surface at voxel centres, negative inside; reference mm.
        name
            Label given to voxels whose centre is inside; None leaves the labels alone.
        hu
            CT number, one or per voxel; blended over one voxel at the surface (partial volume).
        where
            Voxels that may be touched; all by default.
        """
        cover = np.clip(0.5 - distance_mm / np.float32(self.edge_mm), 0.0, 1.0)
        if where is not None:
            cover *= where
        target = self.hu[box]
        target += cover * (hu - target)
        if name is not None:
            inside = distance_mm < 0
            if where is not None:
                inside &= where
            self.labels[box][inside] = self.ids[name]

    def name(self, box: Box, inside: NDArray[np.bool_], name: str) -> None:
        """Give a label to voxels without touching their CT numbers."""
        self.labels[box][inside] = self.ids[name]

    def mask(self, *names: str, box: Box | None = None) -> NDArray[np.bool_]:
        """Return where the labels are one of ``names``, in a box or everywhere."""
        lookup = np.zeros(256, dtype=bool)
        lookup[[self.ids[name] for name in names]] = True
        return lookup[self.labels if box is None else self.labels[box]]


def overlap(box: Box, other: Box) -> Box | None:
    """Return the voxels that two boxes share, or None."""
    k, j, i = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
    return None if min(k.stop - k.start, j.stop - j.start, i.stop - i.start) <= 0 else (k, j, i)


def within(box: Box, outer: Box) -> Box:
    """Return the slices that pick ``box`` from an array given on ``outer``."""
    k, j, i = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))
    return k, j, i


def _span(values: Float32, low: float, high: float) -> slice:
    """Return the range of an ascending axis that lies in ``[low, high]``."""
    return slice(int(values.searchsorted(low)), int(values.searchsorted(high, side="right")))


def _union(spans: list[slice]) -> slice:
    return slice(min(s.start for s in spans), max(s.stop for s in spans))
