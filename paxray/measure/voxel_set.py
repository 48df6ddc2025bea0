"""The voxels of some classes, cut out of a label volume by their bounding box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.division import Slices
from paxray.anatomy.labels import LabelVolume
from paxray.anatomy.voxels import look_up

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VoxelSet(Slices):
    """A mask in its bounding box, with what is measured on it."""

    @classmethod
    def of(cls, labels: LabelVolume, boxes_ijk: NDArray[np.int64], names: Iterable[str]) -> VoxelSet | None:
        """The union of classes, or None where it is empty.

        Parameters
        ----------
        labels
            The volume.
        boxes_ijk
            ``(n_atoms, 2, 3)`` first and last voxel of each atom's bounding box.
        names
            Classes; those that the volume lacks are passed over.
        """
        columns = [labels.index(name) for name in names if name in labels.names]
        column = np.asarray(labels.membership[:, columns].any(axis=1))
        used = np.flatnonzero(column & (labels.atom_counts() > 0))
        if not len(used):
            return None
        first, last = boxes_ijk[used, 0].min(axis=0), boxes_ijk[used, 1].max(axis=0)
        i, j, k = (slice(a, b + 1) for a, b in zip(first.tolist(), last.tolist(), strict=True))
        return cls(look_up(np.ascontiguousarray(column), labels.atoms[k, j, i]), first, labels.grid)

    @cached_property
    def voxels_mm(self) -> Float64:
        """``(n, 3)`` LPS mm of every voxel's centre; for small regions."""
        return self.grid.to_world(np.argwhere(self.mask)[:, ::-1] + self.first_ijk)

    @cached_property
    def ends_mm(self) -> Float64:
        """``(n, 3)`` LPS mm: first and last voxel of each row along i; every extreme of the region is among them."""
        k, j = np.nonzero(self.mask.any(axis=2))
        rows = self.mask[k, j]
        first = rows.argmax(axis=1)
        last = self.mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
        ends = np.concatenate([np.column_stack([i, j, k]) for i in (first, last)])
        return self.grid.to_world(ends + self.first_ijk)

    def extreme_mm(self, direction: Iterable[float]) -> Float64:
        """``(3,)`` LPS mm of the voxel farthest along a direction: the mean of those within half a voxel of it."""
        toward = np.asarray(list(direction), float)
        toward /= np.linalg.norm(toward)
        along = self.ends_mm @ toward
        least = along.max() - np.abs(toward @ self.grid.affine[:3, :3]).max() / 2 + 1e-6
        # Only rows of which an end reaches so far, but all of their voxels: the array's layout must not show.
        rows = along.reshape(2, -1).max(axis=0) > least
        k, j = (index[rows] for index in np.nonzero(self.mask.any(axis=2)))
        row, i = np.nonzero(self.mask[k, j])
        world = self.grid.to_world(np.column_stack([i, j[row], k[row]]) + self.first_ijk)
        return np.asarray(world[world @ toward > least].mean(axis=0))
