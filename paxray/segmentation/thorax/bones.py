"""Sternum, shoulder girdle and the skeleton as a whole: told from contrast by place and shape, not by HU."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from paxray.segmentation.thorax.cage import CONTRAST_HU, Cage
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import (
    Bool,
    closed,
    dilate,
    fill_planes,
    largest,
    opened,
    pieces_of,
)
from paxray.segmentation.thorax.spine import Spine, offsets_mm

#: The breastbone's marrow is fatty: what its cortex encloses counts, and spongy bone begins here.
STERNUM_HU = 120.0
#: Half the width of the manubrium and of the body; from the hull of the lungs to the front of the breastbone.
STERNUM_HALF_MM, STERNUM_OUT_MM = (28.0, 21.0), (-6.0, 30.0)
#: Half its thickness: calcified rims of rib cartilages are thinner.
STERNUM_BALL_MM = 3.8
#: A breastbone holds so much, and is so long.
STERNUM_ML, STERNUM_LENGTH_MM = 8.0, 70.0
#: Vessels and thyroid beside the windpipe, full of contrast: this far to the side and front of it is no bone.
NECK_MM = (48.0, 20.0)
#: A bone of the girdle is no smaller.
MIN_BONE_ML = 1.0


def find_sternum(field: Field, body: Bool, spine: Spine, cage: Cage, trachea: Bool) -> Bool | str:
    """The largest piece of bone in the middle of the front wall; a reason where none is long enough."""
    dy, dx = offsets_mm(field, spine.y, spine.x)
    away = cage.outside_mm
    levels = np.flatnonzero(cage.hull.any(axis=(1, 2)))
    # The front of the hull in each slice: the sternum lies before or beside it.
    front = np.where(cage.hull.any(axis=(1, 2)), cage.hull.any(axis=2).argmax(axis=1), 0)
    rows = np.arange(body.shape[1])[None, :, None]
    depth = (rows - front[:, None, None]) * field.mm[1]
    # The manubrium, in the upper third of what the lungs span, is wider than the body of the breastbone.
    half = np.full(len(body), STERNUM_HALF_MM[1])
    half[levels[0] + (2 * len(levels)) // 3 :] = STERNUM_HALF_MM[0]
    place = body & (np.abs(dx) < half[:, None, None]) & (dy < -40.0) & (depth < 12.0)
    place &= (away > STERNUM_OUT_MM[0]) & (away < STERNUM_OUT_MM[1])
    place[: levels[0]] = False
    place &= ~_beside_trachea(field, trachea)
    bone = place & (field.hu > STERNUM_HU) & (field.hu < CONTRAST_HU)
    solid = fill_planes(closed(bone, 4.0, field.mm) & place)
    piece = largest(opened(solid, STERNUM_BALL_MM, field.mm))
    if not piece.any():
        return "no bone in the middle of the front wall"
    tall = np.flatnonzero(piece.any(axis=(1, 2)))
    length = float(tall[-1] - tall[0] + 1) * field.mm[0]
    volume = float(piece.sum() * np.prod(field.mm) / 1000)
    if volume < STERNUM_ML or length < STERNUM_LENGTH_MM:
        return f"the bone in the middle of the front wall has {volume:.0f} ml and {length:.0f} mm: no whole breastbone"
    return piece


def find_girdle(field: Field, dense: Bool, spine: Spine, cage: Cage, trachea: Bool, taken: Bool) -> Bool:
    """Shoulder blades, collar bones and arms: dense, outside the cage, neither contrast nor beside the windpipe.

    Parameters
    ----------
    dense
        Everything of bone's HU or more in the body, in blocks.
    trachea
        In blocks.
    taken
        Bones known already, which these are not.
    """
    lowest = int(np.flatnonzero(cage.hull.any(axis=(1, 2)))[0])
    bone = dense & (cage.outside_mm > 2.0) & ~taken
    bone[:lowest] = False
    bone &= ~dilate(field.hu > CONTRAST_HU, 3.0, field.mm)
    bone &= ~_beside_trachea(field, trachea)
    solid = fill_planes(closed(bone, 2.5, field.mm)) & (cage.outside_mm > 0) & ~taken
    labels, sizes = pieces_of(solid)
    return (sizes * float(np.prod(field.mm)) / 1000 >= MIN_BONE_ML)[labels]


def _beside_trachea(field: Field, trachea: Bool) -> Bool:
    """Boxes around the windpipe, from its own row and column in each slice, kept on above its top."""
    out = np.zeros_like(trachea)
    levels = np.flatnonzero(trachea.any(axis=(1, 2)))
    if not levels.size:
        return out
    half_y, half_x = round(NECK_MM[1] / field.mm[1]), round(NECK_MM[0] / field.mm[2])
    for z in range(levels[0], len(trachea)):
        y, x = ndimage.center_of_mass(trachea[min(z, int(levels[-1]))])
        out[
            z, max(0, round(y) - half_y) : round(y) + half_y, max(0, round(x) - half_x) : round(x) + half_x
        ] = True
    return out


def rib_marrow(labels: np.ndarray, field: Field) -> np.ndarray:
    """Ribs closed over their marrow: each block within 2 mm between two blocks of one rib becomes that rib's."""
    whole = closed(labels > 0, 2.0, field.mm)
    gap = whole & (labels == 0)
    if gap.any():
        near = ndimage.distance_transform_edt(
            labels == 0, sampling=field.mm, return_distances=False, return_indices=True
        )
        labels = labels.copy()
        labels[gap] = labels[tuple(axis[gap] for axis in near)]
    return labels
