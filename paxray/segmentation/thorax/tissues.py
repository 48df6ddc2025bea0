"""Skin, fat under it, muscle of the wall, breasts."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from paxray.segmentation.thorax.cage import VISCERA_MM, Cage
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool, closed, dilate, fill_planes, opened, pieces_of
from paxray.segmentation.thorax.spine import Spine, offsets_mm

#: Fat and muscle, as usual in body composition work (Mitsiopoulos et al. 1998, Aubrey et al. 2014).
FAT_HU, MUSCLE_HU = (-190.0, -30.0), (-29.0, 150.0)
SKIN_MM = 2.0
#: Fat inside the wall lies between muscles nearer than twice this.
WALL_CLOSING_MM = 10.0
#: Breast tissue is so thick in front of the ribs' outer face, so far from the midline, and holds so much.
BREAST_THICK_MM, BREAST_SIDE_MM, BREAST_ML = 28.0, (20.0, 140.0), 60.0
#: A breast stands out from what covers the breastbone; the fat of an obese man covers both alike.
BREAST_BULGE_MM = 18.0
#: Ribs and pectoral muscles in front of the lungs' hull.
BREAST_WALL_MM = 20.0


def find_skin(field: Field, body: Bool) -> Bool:
    """The outermost 2 mm at full resolution; where the scan cuts the body there is no skin.

    `body` is at full resolution.
    """
    mm = field.full_mm
    steps = [max(1, round(SKIN_MM / s)) for s in mm[1:]]
    inner = ndimage.binary_erosion(body, np.ones((1, 2 * steps[0] + 1, 1), bool), border_value=1)
    inner = ndimage.binary_erosion(inner, np.ones((1, 1, 2 * steps[1] + 1), bool), border_value=1)
    return body & ~inner


def wall_envelope(field: Field, body: Bool, cage: Cage) -> Bool:
    """Everything within the outermost muscles: what is no fat, small strands left out, closed and filled."""
    skin = body & ~ndimage.binary_erosion(
        body, ndimage.generate_binary_structure(3, 1), iterations=3, border_value=1
    )
    dense = body & (field.hu > -20) & ~skin
    core = opened(dense, 3.0, field.mm) | (cage.outside_mm < 0) & body
    labels, sizes = pieces_of(core)
    core = labels == sizes.argmax()
    return fill_planes(closed(core, WALL_CLOSING_MM, field.mm)) & body


def find_subcutaneous_fat(field: Field, body: Bool, envelope: Bool) -> Bool:
    """Fat between skin and wall."""
    return body & ~envelope & (field.hu >= FAT_HU[0]) & (field.hu <= FAT_HU[1])


def find_muscle(field: Field, envelope: Bool, bones: Bool, spine: Spine, cage: Cage) -> Bool:
    """Muscle of wall, back and shoulders: outside the girth of the cage, and behind the viscera below it."""
    dy, _ = offsets_mm(field, spine.y, spine.x)
    soft = envelope & (field.hu >= MUSCLE_HU[0]) & (field.hu <= MUSCLE_HU[1])
    soft &= ~dilate(bones, 1.0, field.mm) & ~spine.canal & ~spine.column
    wall = (cage.outside_mm > 2.0) | (dy > VISCERA_MM)
    return opened(soft & wall, 1.5, field.mm)


def find_breasts(field: Field, body: Bool, spine: Spine, cage: Cage) -> tuple[Bool, Bool] | str:
    """What bulges in front of ribs and pectoral muscles, left and right; a reason where it is too thin to be told."""
    dy, dx = offsets_mm(field, spine.y, spine.x)
    side = np.abs(dx)
    levels = np.flatnonzero(cage.hull.any(axis=(1, 2)))
    front = body & (dy < -50.0) & (cage.outside_mm > BREAST_WALL_MM)
    front &= (side > BREAST_SIDE_MM[0]) & (side < BREAST_SIDE_MM[1])
    # From the second rib's front, a third of the lungs' height down, to their floor.
    front[: levels[0]] = False
    front[levels[0] + int(0.75 * len(levels)) :] = False
    thick = opened(front, (BREAST_THICK_MM - 8.0) / 2, field.mm)
    levels = np.flatnonzero(front.any(axis=(1, 2)))
    if not levels.size:
        return "nothing lies in front of the ribs"
    over_sternum = np.where(body & (dy < -50.0) & (side < 12.0), cage.outside_mm, 0)[levels].max(axis=(1, 2))
    found = []
    for half in (dx > 0, dx < 0):
        labels, sizes = pieces_of(thick & half)
        if sizes.max() * float(np.prod(field.mm)) / 1000 < BREAST_ML:
            return f"in front of the ribs it is not {BREAST_THICK_MM:g} mm thick, or under {BREAST_ML:g} ml a side"
        height = np.where(front & half, cage.outside_mm, 0)[levels].max(axis=(1, 2))
        bulge = float(np.percentile(height, 75) - np.median(over_sternum))
        if bulge < BREAST_BULGE_MM:
            return f"it bulges {bulge:.0f} mm over the front of the breastbone, and a breast {BREAST_BULGE_MM:g} mm"
        found.append(labels == sizes.argmax())
    return found[0], found[1]
