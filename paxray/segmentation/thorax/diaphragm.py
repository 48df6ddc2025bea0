"""The diaphragm as a surface: the floor of the lungs, drawn on beneath the heart and out to the wall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.segmentation.thorax.cage import Cage
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool
from paxray.segmentation.thorax.spine import Spine

#: The heart does not reach further to the right than this from the spine; there the floor of the lung is the diaphragm.
BESIDE_HEART_MM = 45.0
#: Under the heart the diaphragm lies at least so much lower than the right dome, reached so far from the right lung.
TENDON_MM, FALL_MM = 12.0, 12.0
#: So much of the lungs' footprint must have its floor in the scan.
MIN_SHARE = 0.5


def find_floor(field: Field, left: Bool, right: Bool, spine: Spine, cage: Cage) -> NDArray[np.float32] | str:
    """Height of the diaphragm in every column, ``(ny, nx)`` in blocks from below; a reason where it is not in the scan.

    In the wall, and where a column has no floor, it is a straight bridge between those with one.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    lungs = left | right
    cage_footprint = cage.hull.any(axis=0)
    if not right.any():
        return "without a right lung its dome cannot be told"
    footprint = lungs.any(axis=0)
    lowest = lungs.argmax(axis=0).astype(np.float32)
    cut = footprint & (lowest < 1)
    if cut.sum() > (1 - MIN_SHARE) * footprint.sum():
        return "the scan ends above the floor of the lungs"
    known = footprint & ~cut
    x = np.arange(lungs.shape[2])[None, :]
    midline = float(np.median(spine.x))
    side = right.any(axis=0) & ((midline - x) * field.mm[2] > BESIDE_HEART_MM) & known
    if side.sum() < 20:
        return "too little of the right lung beside the heart"
    dome = float(np.percentile(ndimage.median_filter(lowest, 5)[side], 95))
    # Lung that lies above the dome's level lies on the heart or the hilum and not on the diaphragm.
    known &= lowest <= dome + 4.0 / field.mm[0]
    known = ndimage.binary_erosion(known, iterations=1)
    at = np.argwhere(known)
    if len(at) < 20:
        return "too little of the lungs' floor in the scan"
    values = ndimage.median_filter(lowest, 5)[known]
    step = max(1, len(at) // 4000)
    ny, nx = footprint.shape
    grid = np.indices((ny, nx)).reshape(2, -1).T
    linear = LinearNDInterpolator(at[::step], values[::step])(grid).reshape(ny, nx)
    nearest = NearestNDInterpolator(at[::step], values[::step])(grid).reshape(ny, nx)
    floor = np.where(np.isfinite(linear), linear, nearest)
    floor[known] = values
    # Under the heart the tendon falls from the right dome to the level of the left lung's floor beside the heart.
    gap = cage_footprint & ~ndimage.binary_dilation(known, iterations=3) & ~cut
    depth = ndimage.distance_transform_edt(~(known & right.any(axis=0)), sampling=field.mm[1:])
    beside = known & left.any(axis=0) & (ndimage.distance_transform_edt(~gap, sampling=field.mm[1:]) < 20.0)
    tendon = dome - TENDON_MM / field.mm[0]
    if beside.sum() >= 20:
        tendon = min(tendon, float(np.percentile(lowest[beside], 25)))
    weight = np.clip(depth / FALL_MM, 0, 1)
    floor = np.where(gap, np.minimum(floor, (1 - weight) * floor + weight * tendon), floor)
    return ndimage.gaussian_filter(floor, 3.0 / field.mm[1]).astype(np.float32)


def below_floor(floor: NDArray[np.float32], shape: tuple[int, ...]) -> Bool:
    """Blocks under the surface."""
    return np.arange(shape[0])[:, None, None] < floor[None]
