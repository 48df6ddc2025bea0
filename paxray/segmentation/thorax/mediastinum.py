"""What lies between the lungs: the compartment, the heart's region and the descending aorta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.segmentation.thorax.cage import Cage
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool, dilate, largest, opened
from paxray.segmentation.thorax.spine import BODY_OFFSET_MM, Spine, offsets_mm

#: Fat is darker, blood and muscle are brighter.
FAT_HU = 0.0
#: The roof of the heart (left atrium, roots of the great vessels) lies this far below the carina.
HEART_BELOW_CARINA_MM = 5.0
#: Chambers hold a ball of this radius; the oesophagus, veins and the lung's roots do not.
HEART_BALL_MM = 11.0
#: A heart with its blood holds so much.
HEART_ML = (250.0, 1800.0)
#: Steps in HU per mm across a vessel's wall, all around but for a quarter (spine, oesophagus, lung root), that a traced
#: vessel has on average.
WALL_STEP = 6.0


@dataclass(frozen=True)
class Course:
    """Where a round vessel is looked for: offsets from the canal (to the left, behind), radii, all in mm."""

    left_mm: tuple[float, float]
    behind_mm: tuple[float, float]
    radii_mm: tuple[float, ...]
    max_slope: float = 0.8


DESCENDING = Course((-12.0, 45.0), (-75.0, -12.0), (8.0, 10.0, 12.0, 14.0, 17.0))
ASCENDING = Course((-45.0, 30.0), (-130.0, -55.0), (12.0, 14.0, 16.0, 18.0, 21.0))


def find_mediastinum(
    field: Field, body: Bool, lungs: Bool, airways: Bool, bones: Bool, spine: Spine, cage: Cage, above: Bool
) -> Bool:
    """Between the lungs in their common hull, above the diaphragm, without bones, canal and what lies behind it.

    Parameters
    ----------
    above
        Blocks above the diaphragm.
    """
    dy, _ = offsets_mm(field, spine.y, spine.x)
    inside = cage.hull & body & above & ~lungs & ~bones & ~spine.canal & (dy < 0)
    return largest(opened(inside | airways & cage.hull & above, 3.0, field.mm))


def find_heart(
    field: Field, mediastinum: Bool, aorta: Bool, airways: Bool, spine: Spine, carina_z: float
) -> Bool | str:
    """The largest mass between lungs, diaphragm and spine, below the carina; a reason where it is no heart."""
    top = carina_z - HEART_BELOW_CARINA_MM / field.mm[0]
    dy, _ = offsets_mm(field, spine.y, spine.x)
    smooth = ndimage.uniform_filter(field.hu, (1, 3, 3))
    soft = mediastinum & (smooth > FAT_HU) & ~aorta & ~airways & (dy < -BODY_OFFSET_MM)
    soft[max(0, int(top)) :] = False
    core = largest(opened(soft, HEART_BALL_MM, field.mm))
    mass = dilate(core, 5.0, field.mm) & soft
    ml = float(mass.sum() * np.prod(field.mm) / 1000)
    if not HEART_ML[0] <= ml <= HEART_ML[1]:
        return f"the mass below the carina holds {ml:.0f} ml, and a heart {HEART_ML[0]:g} to {HEART_ML[1]:g}"
    return mass


def trace_vessel(
    field: Field, body: Bool, spine: Spine, course: Course, levels: range
) -> tuple[Bool, float] | str:
    """Follow a round vessel through the slices of `levels`.

    Returns
    -------
    mask, step
        In blocks, and the mean step across its wall in HU per mm; or a reason.
    """
    levels = range(max(0, levels.start), min(len(body), levels.stop))
    zmm, ymm, xmm = field.mm
    if len(levels) * zmm < 20.0:
        return "the scan does not reach along it"
    (x_low, x_high), (y_low, y_high) = course.left_mm, course.behind_mm
    ny, nx = round((y_high - y_low) / ymm) + 1, round((x_high - x_low) / xmm) + 1
    y0 = np.rint(spine.y[levels.start : levels.stop] + y_low / ymm).astype(int)
    x0 = np.rint(spine.x[levels.start : levels.stop] + x_low / xmm).astype(int)
    score = np.full((len(levels), ny, nx), -50.0, np.float32)
    radius = np.zeros((len(levels), ny, nx), np.float32)
    angles = np.arange(24) * (2 * np.pi / 24)
    yy, xx = np.mgrid[:ny, :nx].astype(np.float32)
    for z, level in enumerate(levels):
        plane = ndimage.gaussian_filter(np.clip(field.hu[level], -150.0, 500.0), 1.0 / ymm)
        for r in course.radii_mm:
            steps = (
                np.stack(
                    [
                        _sample(
                            plane,
                            yy + y0[z] + (r - 2.0) * np.sin(a) / ymm,
                            xx + x0[z] + (r - 2.0) * np.cos(a) / xmm,
                        )
                        - _sample(
                            plane,
                            yy + y0[z] + (r + 2.0) * np.sin(a) / ymm,
                            xx + x0[z] + (r + 2.0) * np.cos(a) / xmm,
                        )
                        for a in angles
                    ]
                )
                / 4.0
            )
            # Three quarters of the wall show.
            edge = np.mean(np.sort(np.clip(steps, -30.0, 30.0), axis=0)[6:], axis=0)
            better = edge > score[z]
            score[z][better], radius[z][better] = edge[better], r
        here = _sample(plane, yy + y0[z], xx + x0[z])
        score[z][(here < 0)] = -50.0
        column = spine.column[level][
            np.clip(yy + y0[z], 0, plane.shape[0] - 1).astype(int),
            np.clip(xx + x0[z], 0, plane.shape[1] - 1).astype(int),
        ]
        score[z][column] = -50.0
    path = _best_path(score, max(1, round(course.max_slope * zmm / ymm)))
    found = score[np.arange(len(levels)), path[:, 0], path[:, 1]]
    if float(found.mean()) < WALL_STEP:
        return f"no round vessel can be followed (a step of {found.mean():.0f} HU/mm across its wall)"
    r = ndimage.median_filter(
        radius[np.arange(len(levels)), path[:, 0], path[:, 1]], max(3, round(25 / zmm)), mode="nearest"
    )
    centre = ndimage.gaussian_filter1d(
        path.astype(float) + np.column_stack([y0, x0]), 3.0 / zmm, axis=0, mode="nearest"
    )
    rows, columns = np.indices(body.shape[1:])
    mask = np.zeros_like(body)
    for z, level in enumerate(levels):
        away = np.hypot((rows - centre[z, 0]) * ymm, (columns - centre[z, 1]) * xmm)
        mask[level] = away <= r[z] + 1.0  # out to the foot of the step
    return mask & body & ~spine.column & (field.hu > -100), float(found.mean())


def _sample(
    plane: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    return ndimage.map_coordinates(plane, [y, x], order=1, mode="nearest")


def _best_path(score: NDArray[np.float32], reach: int) -> NDArray[np.int64]:
    """``(nz, 2)``: the way through all planes with the largest sum, moving `reach` pixels at most."""
    total = score[0]
    size = 2 * reach + 1
    back = np.zeros(score.shape, np.int32)
    index = np.arange(total.size).reshape(total.shape)
    for z in range(1, len(score)):
        best = np.full(total.shape, -np.inf, np.float32)
        padded, ids = np.pad(total, reach, constant_values=-np.inf), np.pad(index, reach)
        for dy in range(size):
            for dx in range(size):
                cost = 0.3 * np.hypot(dy - reach, dx - reach)
                moved = padded[dy : dy + total.shape[0], dx : dx + total.shape[1]] - cost
                better = moved > best
                best[better] = moved[better]
                back[z][better] = ids[dy : dy + total.shape[0], dx : dx + total.shape[1]][better]
        total = best + score[z]
    at = int(total.argmax())
    path = np.empty((len(score), 2), np.int64)
    for z in range(len(score) - 1, -1, -1):
        path[z] = np.unravel_index(at, total.shape)
        at = int(back[z].flat[at])
    return path
