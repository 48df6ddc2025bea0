"""The space inside the rib cage, and the bone that lies around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paxray.segmentation.thorax.lattice import Field, Float32
from paxray.segmentation.thorax.morphology import Bool, closed, dilate, distance_mm, opened, pieces_of
from paxray.segmentation.thorax.spine import Spine, offsets_mm

#: Ribs are flat: a ball of this radius does not fit into one, but does into an enhanced vessel, spleen or kidney.
BULK_MM = 7.5
#: Outer face of the ribs, from the pleura: the shoulder blades lie beyond, behind a muscle.
SHELL_MM = 14.0
#: Over the apex the first rib may lie further off, and no further out from the midline. On a real chest both lie within
#: 14 mm; the collar bones begin there.
APEX_MM = (18.0, 60.0)
#: The wall's depth inwards from the hull of the lungs; below them the cage narrows by up to the second figure.
WALL_MM, LOW_WALL_MM = 8.0, 20.0
#: No rib has so much in a block of 1.4 mm; undiluted contrast and metal do.
CONTRAST_HU = 1400.0
#: In front of this plane, behind the canal's middle, lie the viscera of the abdomen.
VISCERA_MM = -10.0


@dataclass(frozen=True, eq=False)
class Cage:
    """The girth of the rib cage in blocks.

    Parameters
    ----------
    hull
        Convex hull of both lungs, slice by slice.
    outside_mm
        Distance from the girth: positive outside, negative inside. The girth is the hull, and below the lungs the
        widest hull above.
    """

    hull: Bool
    outside_mm: Float32


def find_cage(field: Field, lungs: Bool) -> Cage:
    """Hull and girth of lungs that are not empty."""
    from skimage.morphology import convex_hull_image

    hull = np.zeros_like(lungs)
    for plane, out in zip(lungs, hull, strict=True):
        if plane.sum() > 3:
            out[:] = convex_hull_image(plane)
    levels = np.flatnonzero(hull.any(axis=(1, 2)))
    girth = hull.copy()
    for z in range(levels[-1] - 1, -1, -1):
        girth[z] |= girth[z + 1]
    return Cage(hull, distance_mm(~girth, field.mm) - distance_mm(girth, field.mm))


def organs_with_contrast(field: Field, dense: Bool, cage: Cage) -> Bool:
    """Dense masses inside the cage that are too thick for ribs, their unenhanced middle (a kidney's) closed over."""
    core = opened(closed(dense & (cage.outside_mm < -2.0), 4.0, field.mm), BULK_MM, field.mm)
    return dilate(core, 3.0, field.mm) & dense if core.any() else core


def rib_bone(field: Field, dense: Bool, spine: Spine, cage: Cage) -> Bool:
    """Bone of a rib's place and thickness.

    Parameters
    ----------
    dense
        Everything of bone's HU or more in the body, in blocks.
    spine, cage
        The vertebrae are none of it; the girth says where the wall is.
    """
    dense = dense & ~(spine.column | spine.canal)
    away = cage.outside_mm
    inside = away < -WALL_MM
    dy, dx = offsets_mm(field, spine.y, spine.x)
    # Where liver and bowel fill the girth, ribs lie nearer to the middle; beside the spine they lie anywhere.
    low = _below_domes(cage)
    inside[:low] = (away[:low] < -LOW_WALL_MM) & (dy[:low] < VISCERA_MM)
    # The first rib arches over the apex.
    shell = away <= SHELL_MM
    highest = int(np.flatnonzero(cage.hull.any(axis=(1, 2)))[-1]) - round(10.0 / field.mm[0])
    shell[highest:] |= (away[highest:] <= APEX_MM[0]) & (np.abs(dx[highest:]) <= APEX_MM[1])
    bone = dense & ~inside & shell
    bone &= ~organs_with_contrast(field, dense, cage)
    contrast = field.hu > CONTRAST_HU
    if contrast.any():
        bone &= ~dilate(contrast, 2.0, field.mm)
    labels, sizes = pieces_of(bone, touching=3)
    return (sizes * float(np.prod(field.mm)) >= 60.0)[labels]


def _below_domes(cage: Cage) -> int:
    """The first slice, from below, where the hull has nine tenths of its largest section: the lungs fill the girth."""
    area = cage.hull.sum(axis=(1, 2))
    return int(np.flatnonzero(area >= 0.9 * area.max())[0])
