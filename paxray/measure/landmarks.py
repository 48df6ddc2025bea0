"""Anatomical landmarks: points found in the classes by a stated rule, and where each falls in a view.

Each is known, or unknown with a reason: a landmark whose classes nothing looked for is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.division import carina_mm, first_division, limb_mm2
from paxray.anatomy.labels import LabelVolume, Status
from paxray.measure.solids import Solid
from paxray.measure.voxel_set import VoxelSet
from paxray.projection.view import View
from paxray.segmentation.body import UNSCANNED

Float64 = NDArray[np.float64]

#: Between the lung's base and an abdominal organ lie the diaphragm and no more than this, mm.
DIAPHRAGM_MM = 12.0
#: What lies beneath each half of the diaphragm.
BENEATH = {"right": ("liver",), "left": ("stomach", "spleen", "liver")}

#: Every name, in order, with the rule by which it is found.
RULES: dict[str, str] = {
    "carina": "the uppermost axial slice in which the airway has two parts: half way between them",
    **{f"lung_apex_{side}": "the uppermost voxels of the lung" for side in ("left", "right")},
    **{
        f"costophrenic_angle_{side}": "the lung's farthest voxel at 45 degrees down and outward in the frontal plane"
        for side in ("left", "right")
    },
    **{
        f"hemidiaphragm_dome_{side}": "the highest place of the lung's base above an abdominal organ"
        for side in ("left", "right")
    },
    "aortic_knob": "the leftmost voxel of the aortic arch: of the slices above its division in two",
    **{
        f"vertebra_{level}": "the centroid of the whole vertebra, arch included"
        for level in (
            *(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 14)), *(f"L{n}" for n in range(1, 7)),
        )
    },
}  # fmt: skip
#: Vertebrae that few people have: listed only where somebody drew them.
RARE = ("vertebra_T13", "vertebra_L6")


@dataclass(frozen=True, eq=False)
class Landmark:
    """A named point.

    Attributes
    ----------
    name
        One of `RULES`.
    status
        ``present``; ``cut`` where the scan ends at it, so that it may lie farther; ``absent`` where its class
        was looked for and not found; ``partial`` where its class was looked for in part of the scan; ``unknown``.
    reason
        Why it is not simply present.
    position_mm
        ``(3,)`` LPS mm, None unless it has a place.
    """

    name: str
    status: str
    reason: str = ""
    position_mm: Float64 | None = None

    def __post_init__(self) -> None:
        assert (self.position_mm is None) == (self.status in ("absent", "unknown"))


class _Missing(Exception):  # noqa: N818
    """A landmark cannot be found: its status and the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What landmarks are found in.

    Attributes
    ----------
    boxes_ijk
        ``(n_atoms, 2, 3)`` first and last voxel of each atom.
    solids, cut_by_ct
        By class; of classes with voxels.
    """

    labels: LabelVolume
    boxes_ijk: NDArray[np.int64]
    solids: Mapping[str, Solid]
    cut_by_ct: Mapping[str, bool]

    def status(self, name: str) -> Status:
        """What is known of a class; unknown where the volume lacks it."""
        return self.labels.status.get(name, Status.UNKNOWN)

    def region(self, *names: str) -> VoxelSet:
        """The union of classes, all of which must be known and one of which must have voxels."""
        unknown = [name for name in names if self.status(name) is Status.UNKNOWN]
        if unknown:
            raise _Missing("unknown", f"nothing is known of {_and(unknown)}")
        found = VoxelSet.of(self.labels, self.boxes_ijk, names)
        if found is None:
            raise _Missing("absent", f"no {_or(names)} was found")
        return found

    def at_end_of_scan(self, position_mm: Float64, *names: str) -> bool:
        """Whether a class is cut, and the array or what was reconstructed ends within a voxel of a place."""
        if not any(self.cut_by_ct.get(name, False) for name in names):
            return False
        index = self.labels.grid.to_index(position_mm)
        size = np.array(self.labels.shape[::-1])
        if (index < 1).any() or (index > size - 2).any():
            return True
        if UNSCANNED not in self.labels.names:
            return False
        beyond = self.labels.membership[:, self.labels.index(UNSCANNED)]
        i, j, k = (
            slice(max(0, a), b + 1)
            for a, b in zip(
                np.floor(index - 1 + 1e-6).astype(int), np.ceil(index + 1 - 1e-6).astype(int), strict=True
            )
        )
        return bool(beyond[self.labels.atoms[k, j, i]].any())


def find_landmarks(anatomy: Anatomy) -> tuple[Landmark, ...]:
    """Find every landmark of `RULES`, in order."""
    out = []
    for name in RULES:
        if name in RARE and anatomy.status(_vertebra(name)) not in (Status.PRESENT, Status.PARTIAL):
            continue
        out.append(_find(name, anatomy))
    return tuple(out)


def project_landmark(landmark: Landmark, view: View) -> tuple[tuple[float, float] | None, bool]:
    """The pixel ``(column, row)`` of a landmark, which may be fractional, and whether it lies on the detector.

    Exact: the view's own matrix. There is no pixel for a landmark without a place, nor for one that a cone's source
    does not see.
    """
    if landmark.position_mm is None:
        return None, False
    column, row = view.project_points(landmark.position_mm)
    if not (np.isfinite(column) and np.isfinite(row)):
        return None, False
    inside = -0.5 <= column <= view.columns - 0.5 and -0.5 <= row <= view.rows - 0.5
    return (float(column), float(row)), bool(inside)


def _find(name: str, anatomy: Anatomy) -> Landmark:
    side = name.rsplit("_", 1)[-1]
    finders: dict[str, tuple[Callable[[], Float64], tuple[str, ...]]] = {
        "carina": (lambda: _carina(anatomy), ()),
        "aortic_knob": (lambda: _aortic_knob(anatomy), ("aorta",)),
        f"lung_apex_{side}": (
            lambda: anatomy.region(f"lung_{side}").extreme_mm((0, 0, 1)),
            (f"lung_{side}",),
        ),
        f"costophrenic_angle_{side}": (
            lambda: anatomy.region(f"lung_{side}").extreme_mm((1 if side == "left" else -1, 0, -1)),
            (f"lung_{side}",),
        ),
        f"hemidiaphragm_dome_{side}": (
            lambda: _dome(anatomy, side),
            (f"lung_{side}", *BENEATH.get(side, ())),
        ),
    }
    try:
        if name in finders:
            find, classes = finders[name]
            position = find()
            cut = anatomy.at_end_of_scan(position, *classes)
        else:
            classes = (_vertebra(name),)
            anatomy.region(*classes)
            position = anatomy.solids[classes[0]].centroid_mm
            cut = anatomy.cut_by_ct[classes[0]]
    except _Missing as missing:
        return Landmark(name, missing.status, missing.reason)
    if cut:
        return Landmark(name, "cut", "the scan ends there", position)
    partial = [c for c in classes if anatomy.status(c) is Status.PARTIAL]
    if partial:
        return Landmark(name, "partial", f"{_and(partial)} is known in part only", position)
    return Landmark(name, "present", "", position)


def _vertebra(landmark: str) -> str:
    """The class of a vertebra's landmark."""
    return landmark.replace("vertebra_", "vertebrae_")


def airway(anatomy: Anatomy) -> VoxelSet:
    """Trachea and whatever is known of the bronchi."""
    anatomy.region("trachea")
    found = VoxelSet.of(anatomy.labels, anatomy.boxes_ijk, ("airways", "trachea"))
    assert found is not None  # the trachea has voxels
    return found


def _carina(anatomy: Anatomy) -> Float64:
    found = carina_mm(airway(anatomy))
    if found is None:
        raise _Missing("unknown", "the airway does not divide in the scan")
    return found


def _aortic_knob(anatomy: Anatomy) -> Float64:
    region = anatomy.region("aorta")
    n = first_division(region, limb_mm2(region))
    if n is None:
        raise _Missing("unknown", "the aorta does not divide into its two limbs in the scan")
    arch = region.mask.copy()
    planes = np.moveaxis(arch, region.slice_axis, 0)
    for index, _ in region.slices_from_above()[n:]:
        planes[index] = False
    return VoxelSet(arch, region.first_ijk, region.grid).extreme_mm((1, 0, 0))


def _dome(anatomy: Anatomy, side: str) -> Float64:
    """The place, on the lung's lowest voxels, that lies highest of those with an organ right beneath."""
    lung, organs = anatomy.region(f"lung_{side}"), anatomy.region(*BENEATH[side])
    axis, grid = lung.slice_axis, lung.grid
    upward = grid.affine[2, 2 - axis] > 0
    first = np.minimum(lung.first_ijk, organs.first_ijk)[::-1]
    shape = np.max([r.first_ijk[::-1] + r.mask.shape for r in (lung, organs)], axis=0) - first
    lowest = _column_end(lung, first, shape, axis, low=upward)
    highest = _column_end(organs, first, shape, axis, low=not upward)
    gap = (lowest - highest) * (1 if upward else -1) * lung.step_mm
    beneath = (lowest >= 0) & (highest >= 0) & (gap > 0) & (gap <= DIAPHRAGM_MM)
    if not beneath.any():
        raise _Missing("unknown", f"no {_or(BENEATH[side])} lies beneath the lung in the scan")
    places = np.argwhere(beneath)
    index = np.insert(places, axis, lowest[beneath], axis=1) + first
    world = grid.to_world(index[:, ::-1])
    half = lung.step_mm / 2
    return np.asarray(world[world[:, 2] > world[:, 2].max() - half].mean(axis=0))


def _column_end(
    region: VoxelSet, first: NDArray[Any], shape: NDArray[Any], axis: int, *, low: bool
) -> NDArray[np.int64]:
    """Lowest or highest index (from `first`) of a region's voxels in each column along an axis; -1 for none."""
    across = [a for a in range(3) if a != axis]
    offset = region.first_ijk[::-1] - first
    mask = region.mask
    found = mask.argmax(axis=axis) if low else mask.shape[axis] - 1 - np.flip(mask, axis).argmax(axis=axis)
    out = np.full([shape[a] for a in across], -1, np.int64)
    box = tuple(slice(offset[a], offset[a] + mask.shape[a]) for a in across)
    out[box] = np.where(mask.any(axis=axis), found + offset[axis], -1)
    return out


def _and(names: list[str] | tuple[str, ...]) -> str:
    return " and ".join(name.replace("_", " ") for name in names)


def _or(names: list[str] | tuple[str, ...]) -> str:
    return " or ".join(name.replace("_", " ") for name in names)
