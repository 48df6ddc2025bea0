"""What operators take and give: a set of voxels kept as a mask in its bounding box."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import Status
from paxray.anatomy.voxels import BoolArray

#: Slices along k, j, i with plain start and stop.
Box = tuple[slice, slice, slice]

EMPTY_BOX: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


class Underivable(Exception):  # noqa: N818 (an answer, not a fault)
    """Raised by an operator that cannot say what is asked for; the class is then `unknown`, for this reason."""


@dataclass(frozen=True, eq=False)
class Region:
    """A set of voxels of the CT's lattice.

    Parameters
    ----------
    box
        Where ``mask`` lies, slices along k, j, i.
    mask
        Bool of the box's shape; not to be written to.
    status
        What is known of it; what operators return is judged by the engine.
    notes
        What a reader of the class should know: a landmark taken from a stand-in, why it is unknown.
    """

    box: Box
    mask: BoolArray
    status: Status = Status.PRESENT
    notes: tuple[str, ...] = ()

    @classmethod
    def nothing(cls, status: Status = Status.ABSENT, *notes: str) -> Region:
        """A region without voxels."""
        return cls(EMPTY_BOX, np.zeros((0, 0, 0), np.bool_), status, notes)

    @classmethod
    def of_mask(cls, mask: BoolArray, box: Box | None = None, notes: Iterable[str] = ()) -> Region:
        """The region of a mask that lies in ``box`` (by default at the array's corner), cut to what it needs."""
        tight = bounding_box(mask)
        if tight is None:
            return replace(cls.nothing(), notes=tuple(notes))
        at = box or whole(mask.shape)
        moved = tuple(
            slice(part.start + inner.start, part.start + inner.stop)
            for part, inner in zip(at, tight, strict=True)
        )
        return cls((moved[0], moved[1], moved[2]), np.ascontiguousarray(mask[tight]), notes=tuple(notes))

    @property
    def empty(self) -> bool:
        """Whether it has no voxel."""
        return not self.mask.size or not self.mask.any()

    @property
    def known(self) -> bool:
        """Whether somebody looked for it."""
        return self.status is not Status.UNKNOWN

    @cached_property
    def identity(self) -> str:
        """A digest of its voxels: equal for equal regions."""
        digest = hashlib.blake2b(np.packbits(self.mask).tobytes(), digest_size=16)
        digest.update(repr(self.box).encode())
        return digest.hexdigest()

    def count(self) -> int:
        """The number of voxels."""
        return int(np.count_nonzero(self.mask))

    def inside(self, box: Box) -> BoolArray:
        """The mask as seen in another box, a new array of that box's shape."""
        out = np.zeros(shape_of(box), np.bool_)
        common = overlap(self.box, box)
        if common is not None:
            out[within(common, box)] = self.mask[within(common, self.box)]
        return out

    def indices(self) -> NDArray[np.int64]:
        """``(n, 3)`` voxel indices ``(i, j, k)`` of its voxels."""
        k, j, i = np.nonzero(self.mask)
        return np.column_stack([i + self.box[2].start, j + self.box[1].start, k + self.box[0].start])


@dataclass(frozen=True)
class Level:
    """A position along the patient for a cut.

    Parameters
    ----------
    kind
        ``top_of``, ``bottom_of``, ``front_of``, ``back_of``, ``left_of``, ``right_of``, ``centre_of``, ``carina_of``,
        or ``at_mm`` for a bare coordinate.
    of
        The region whose end, centre or carina it is; None for a coordinate.
    offset_mm
        Added; positive is up, to the back, to the patient's left.
    """

    kind: str
    of: Region | None = None
    offset_mm: float = 0.0


def whole(shape: Sequence[int]) -> Box:
    """The box of a whole array."""
    nk, nj, ni = shape
    return slice(0, nk), slice(0, nj), slice(0, ni)


def shape_of(box: Box) -> tuple[int, int, int]:
    """The shape of an array that fills a box."""
    k, j, i = (part.stop - part.start for part in box)
    return k, j, i


def within(inner: Box, outer: Box) -> Box:
    """``inner``, which lies in ``outer``, as slices into an array that fills ``outer``."""
    k, j, i = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return k, j, i


def overlap(a: Box, b: Box) -> Box | None:
    """What two boxes have in common, or None."""
    k, j, i = (slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return (k, j, i) if all(part.stop > part.start for part in (k, j, i)) else None


def join(boxes: Iterable[Box]) -> Box:
    """The smallest box around all that are not empty."""
    filled = [box for box in boxes if all(part.stop > part.start for part in box)]
    if not filled:
        return EMPTY_BOX
    k, j, i = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*filled, strict=True)
    )
    return k, j, i


def grow(box: Box, voxels: Sequence[int], shape: Sequence[int]) -> Box:
    """The box widened by so many voxels along k, j, i, as far as the array goes."""
    k, j, i = (
        slice(max(0, part.start - int(n)), min(int(size), part.stop + int(n)))
        for part, n, size in zip(box, voxels, shape, strict=True)
    )
    return k, j, i


def bounding_box(mask: BoolArray) -> Box | None:
    """The smallest box around the mask's voxels; None without any."""
    if not mask.size:
        return None
    plane = np.logical_or.reduce(mask, axis=0)
    j, i = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not j.size:
        return None
    rows = slice(int(j[0]), int(j[-1]) + 1), slice(int(i[0]), int(i[-1]) + 1)
    k = np.flatnonzero(mask[:, rows[0], rows[1]].any(axis=(1, 2)))
    return slice(int(k[0]), int(k[-1]) + 1), rows[0], rows[1]


def union_of(regions: Sequence[Region]) -> Region:
    """The voxels of all regions, with their notes; the status is the caller's to judge."""
    notes = tuple(dict.fromkeys(note for region in regions for note in region.notes))
    filled = [region for region in regions if region.mask.size]
    if not filled:
        return replace(Region.nothing(), notes=notes)
    box = join(region.box for region in filled)
    mask = np.zeros(shape_of(box), np.bool_)
    for region in filled:
        mask[within(region.box, box)] |= region.mask
    return Region(box, mask, notes=notes)
