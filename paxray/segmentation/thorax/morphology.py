"""Morphology in millimetres, whatever the voxels' shape, by distance transforms in a mask's own box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.io.lattice import Box

Bool = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def box_around(mask: Bool, margin: tuple[int, int, int] = (0, 0, 0)) -> Box | None:
    """The smallest box around a mask, wider by `margin` voxels where the array goes on; None for an empty one."""
    found = ndimage.find_objects(mask.view(np.uint8), max_label=1)[0]
    if found is None:
        return None
    z, y, x = (
        slice(max(0, s.start - m), min(n, s.stop + m))
        for s, m, n in zip(found, margin, mask.shape, strict=True)
    )
    return z, y, x


def distance_mm(mask: Bool, mm: Spacing) -> NDArray[np.float32]:
    """Distance of every voxel in the mask to the nearest one outside; infinite where there is none."""
    import edt

    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    # Distances do not depend on the number of threads.
    out: NDArray[np.float32] = edt.edt(
        np.ascontiguousarray(mask), anisotropy=mm, black_border=False, parallel=2
    )
    return out


def dilate(mask: Bool, radius_mm: float, mm: Spacing) -> Bool:
    """All voxels within `radius_mm` of the mask."""
    box = box_around(mask, tuple(int(radius_mm / s) + 1 for s in mm))  # type: ignore[arg-type]
    out = np.zeros_like(mask)
    if box is not None:
        out[box] = distance_mm(~mask[box], mm) <= radius_mm
    return out


def erode(mask: Bool, radius_mm: float, mm: Spacing) -> Bool:
    """Voxels of the mask further than `radius_mm` from all others; beyond the array the mask goes on."""
    box = box_around(mask, (1, 1, 1))
    out = np.zeros_like(mask)
    if box is not None:
        out[box] = distance_mm(mask[box], mm) > radius_mm
    return out


def opened(mask: Bool, radius_mm: float, mm: Spacing) -> Bool:
    """What a ball of `radius_mm` can reach inside the mask."""
    return dilate(erode(mask, radius_mm, mm), radius_mm, mm) & mask


def closed(mask: Bool, radius_mm: float, mm: Spacing) -> Bool:
    """The mask and what a ball of `radius_mm` cannot reach outside it."""
    box = box_around(mask, tuple(int(2 * radius_mm / s) + 2 for s in mm))  # type: ignore[arg-type]
    out = mask.copy()
    if box is not None:
        wide = distance_mm(~mask[box], mm) <= radius_mm
        out[box] |= erode(np.pad(wide, 1, mode="edge"), radius_mm, mm)[1:-1, 1:-1, 1:-1]
    return out


def fill_planes(mask: Bool, axis: int = 0) -> Bool:
    """Fill holes in every plane across an axis."""
    out = mask.copy()
    for plane, filled in zip(np.moveaxis(mask, axis, 0), np.moveaxis(out, axis, 0), strict=True):
        if plane.any():
            filled |= ndimage.binary_fill_holes(plane)
    return out


def pieces_of(mask: Bool, touching: int = 1) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Connected pieces: labels from 1, and the size of each label (label 0 counts as 0).

    `touching` is 1 for voxels that share a face, 3 for those that share at least a corner.
    """
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, touching))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def largest(mask: Bool) -> Bool:
    """The largest connected piece; an empty mask stays empty."""
    labels, sizes = pieces_of(mask)
    return labels == sizes.argmax() if sizes.max() else mask


def volume_ml(mask: Bool, mm: Spacing) -> float:
    """Volume in ml."""
    return float(mask.sum() * np.prod(mm) / 1000)
