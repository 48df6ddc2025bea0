"""The mediastinum: heart, great vessels, airways, oesophagus, thyroid gland."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paxray.phantom.canvas import Canvas, Float32
from paxray.phantom.patient import Patient
from paxray.phantom.shapes import (
    Ellipsoid,
    Float64,
    paint_ellipsoid,
    paint_tube,
    rotation,
    smooth_intersection,
    smooth_union,
    tube,
)
from paxray.phantom.torso import Fields

BLOOD_HU = 42.0
MUSCLE_HU = 52.0
_LONG_AXIS = (0.70, -0.44, -0.56)  # base to apex
# The point that stays when the heart grows: where the great vessels hold it.
_ANCHOR = np.array([4.0, -84.0, 8.0])
_CHAMBERS = {
    # name: centre, radii of the cavity (along the long axis, across, upwards), wall
    "heart_ventricle_left": ((39.0, -102.0, -30.0), (39.0, 21.0, 22.0), 10.5),
    "heart_ventricle_right": ((18.0, -124.0, -34.0), (46.0, 17.0, 31.0), 4.5),
    "heart_atrium_right": ((-20.0, -99.0, -20.0), (19.0, 25.0, 33.0), 3.5),
    "heart_atrium_left": ((8.0, -67.0, -2.0), (31.0, 19.0, 20.0), 3.5),
}


class Mediastinum:
    """Places of the heart and vessels for one patient; reference mm.

    Parameters
    ----------
    patient
        A full breath pulls the heart down and stretches it; age unfolds the aorta.
    dome_left
        Level of the left dome of the diaphragm, on which the heart lies.
    """

    def __init__(self, patient: Patient, dome_left: float) -> None:
        self.size = patient.heart_scale
        self.sink = float(np.clip(0.75 * (-74.0 - dome_left), -24.0, 30.0))
        self.slim = 1.0 - 0.10 * (patient.inspiration - 0.75)
        self.airway = 0.96 if patient.sex == "M" else 0.86
        self.unfold = (patient.age_years - 50.0) / 35.0

    def heart(self, point: ArrayLike) -> Float64:
        """Take a point of the mean heart to the patient's."""
        p = _ANCHOR + (np.asarray(point, dtype=np.float64) - _ANCHOR) * self.size
        p[..., 0] *= self.slim
        p[..., 2] -= self.sink
        return p

    def vessel(self, points: ArrayLike) -> Float64:
        """Move points of a great vessel with the heart: fully at its base, not at all above the arch."""
        p = np.array(points, dtype=np.float64)
        share = np.clip((95.0 - p[..., 2]) / 85.0, 0.0, 1.0)
        p[..., 2] -= share * self.sink
        return p

    def chamber(self, name: str, extra_mm: float = 0.0) -> Ellipsoid:
        """Return the cavity of a chamber, grown by ``extra_mm``."""
        center, radii, _ = _CHAMBERS[name]
        # The atria stand upright; the ventricles lie along the heart's axis.
        axes = rotation(_LONG_AXIS) if "ventricle" in name else rotation((1.0, 0.1, 0.0))
        a, b, c = (r * self.size + extra_mm for r in radii)
        x, y, z = self.heart(center)
        return Ellipsoid((float(x), float(y), float(z)), (a, b, c), axes)


def paint_mediastinum(canvas: Canvas, fields: Fields, media: Mediastinum) -> None:
    """Paint everything between the lungs, back to front of the painter's order."""
    _paint_hila(canvas, media)
    _paint_heart(canvas, fields, media)
    _paint_vessels(canvas, media)
    _paint_airways(canvas, media)


def _outer_heart(canvas: Canvas, media: Mediastinum, box: tuple[slice, slice, slice]) -> Float32:
    at = canvas.coordinates(box)
    walls = [media.chamber(name, wall * media.size).distance(*at) for name, (_, _, wall) in _CHAMBERS.items()]
    out = walls[0]
    for part in walls[1:]:
        out = smooth_union(out, part, 18.0)
    # The outflow tract carries the right ventricle up to the pulmonary valve; the appendage lies beside it.
    for center, radii in (
        ((17.0, -116.0, -4.0), (19.0, 19.0, 22.0)),
        ((36.0, -84.0, 4.0), (15.0, 20.0, 13.0)),
    ):
        x, y, z = media.heart(center)
        part = Ellipsoid((float(x), float(y), float(z)), radii).distance(*at)
        out = smooth_union(out, part, 14.0)
    return out


def _paint_heart(canvas: Canvas, fields: Fields, media: Mediastinum) -> None:
    bounds = [media.chamber(name, 26.0).bounds for name in _CHAMBERS]
    box = canvas.box(np.min([b[0] for b in bounds], axis=0), np.max([b[1] for b in bounds], axis=0))
    if box is None:
        return
    # The heart lies on the diaphragm and is flattened by it; fat fills the angles between the two.
    above = fields.above_diaphragm[box]
    chest = np.maximum(fields.cavity[box], -above)
    outer = smooth_intersection(_outer_heart(canvas, media, box), np.float32(2.5) - above, 10.0)
    outer = smooth_intersection(outer, fields.cavity[box] + np.float32(3.0), 6.0)
    fat = smooth_union(outer - np.float32(2.5), above - np.float32(0.5), 26.0)
    canvas.paint(box, np.maximum(fat, chest), "mediastinal_fat", -85.0)
    canvas.paint(box, outer, "heart_myocardium", MUSCLE_HU)
    for name in ("heart_atrium_left", "heart_atrium_right", "heart_ventricle_right", "heart_ventricle_left"):
        shape = media.chamber(name)
        distance = np.maximum(shape.distance(*canvas.coordinates(box)), outer + np.float32(2.5))
        if name != "heart_ventricle_left":
            # A wall of muscle stays between the left ventricle and its neighbours.
            left = media.chamber(
                "heart_ventricle_left", 0.9 * _CHAMBERS["heart_ventricle_left"][2] * media.size
            )
            distance = np.maximum(distance, -left.distance(*canvas.coordinates(box)))
        canvas.paint(box, distance, name, BLOOD_HU)


def _sheathed(
    canvas: Canvas, points: Float64, radius: ArrayLike, name: str, hu: float, sheath: float
) -> None:
    """Paint a tube inside a sleeve of mediastinal fat."""
    radii = np.asarray(radius, dtype=np.float64)
    paint_tube(canvas, tube(points, radii + sheath), "mediastinal_fat", -85.0)
    paint_tube(canvas, tube(points, radii), name, hu)


def _paint_hila(canvas: Canvas, media: Mediastinum) -> None:
    """Paint interlobar arteries and veins, the larger part of a hilum's shadow."""
    arteries = (
        ([(44, -54, 36), (50, -48, 20), (53, -44, 2), (56, -40, -12)], [9.5, 8.5, 6.0, 3.5]),
        ([(42, -56, 36), (48, -60, 44), (53, -66, 54)], [7.0, 5.0, 3.0]),
        ([(-38, -63, 25), (-47, -54, 12), (-51, -47, -4), (-55, -42, -22)], [9.5, 8.6, 6.4, 3.5]),
        ([(-36, -64, 26), (-44, -68, 36), (-51, -72, 46)], [7.0, 5.0, 3.0]),
    )
    veins = (
        ([(24, -66, 2), (40, -74, 13), (54, -86, 26)], [8.0, 6.0, 3.0]),
        ([(26, -60, -6), (42, -50, -16), (56, -42, -28)], [8.0, 6.2, 3.0]),
        ([(-16, -68, 0), (-36, -78, 8), (-52, -90, 22)], [8.0, 6.2, 3.0]),
        ([(-16, -62, -8), (-36, -52, -20), (-52, -42, -34)], [8.0, 6.2, 3.0]),
    )
    # Fat and nodes that hold the hila together and fill the window between aorta and pulmonary artery.
    for middle, radii in (
        ((34.0, -60.0, 20.0), (15.0, 24.0, 27.0)),
        ((-34.0, -60.0, 10.0), (15.0, 24.0, 27.0)),
        ((17.0, -64.0, 52.0), (17.0, 24.0, 17.0)),
    ):
        x, y, z = media.vessel(middle).tolist()
        paint_ellipsoid(canvas, Ellipsoid((x, y, z), radii), "mediastinal_fat", -55.0)
    for points, radius in veins:
        paint_tube(canvas, tube(media.vessel(points), radius), "pulmonary_vein", BLOOD_HU)
    for points, radius in arteries:
        paint_tube(canvas, tube(media.vessel(points), radius), "pulmonary_artery", BLOOD_HU)


def _paint_vessels(canvas: Canvas, media: Mediastinum) -> None:
    old = media.unfold
    wide = 1.0 + 0.10 * old
    vena_cava = media.vessel([(-23, -94, 74), (-25, -92, 45), (-25, -92, 12), (-22, -94, -4)])
    _sheathed(canvas, vena_cava, 9.2, "superior_vena_cava", BLOOD_HU, 1.5)
    vein_left = [(38, -88, 118), (28, -100, 98), (4, -106, 84), (-20, -97, 75)]
    _sheathed(canvas, np.array(vein_left), 6.5, "brachiocephalic_vein_left", BLOOD_HU, 1.0)
    vein_right = [(-36, -86, 118), (-30, -94, 98), (-24, -95, 76)]
    _sheathed(canvas, np.array(vein_right), 7.0, "brachiocephalic_vein_right", BLOOD_HU, 1.0)
    inferior = [(-21, -84, -44), (-22, -70, -72), (-22, -60, -100), (-20, -58, -140), (-20, -62, -260)]
    paint_tube(
        canvas, tube(media.vessel(inferior), [10.5, 11, 11.5, 11, 10.5]), "inferior_vena_cava", BLOOD_HU
    )

    trunk = media.vessel([(16, -118, 4), (20, -106, 24), (26, -88, 36), (34, -70, 38), (44, -54, 36)])
    _sheathed(canvas, trunk, [13.5, 14.0, 13.0, 11.0, 9.0], "pulmonary_artery", BLOOD_HU, 1.5)
    right = media.vessel([(24, -90, 34), (6, -74, 30), (-18, -68, 27), (-40, -62, 24)])
    _sheathed(canvas, right, [11.5, 10.5, 10.0, 8.5], "pulmonary_artery", BLOOD_HU, 1.0)

    # Ascending aorta, arch, descending aorta; with age it lengthens: further right, higher, further left.
    knob, far = 27.0 + 3.5 * old, 24.0 + 3.0 * old
    rise = 3.0 * old
    aorta = media.vessel(
        [
            (8, -92, -2),
            (-2, -102, 18),
            (-8 - 3 * old, -102, 42),
            (-3, -93, 62 + rise),
            (12, -72, 72 + rise),
            (knob - 3, -46, 68 + rise),
            (knob, -27, 52),
            (far + 1, -20, 30),
            (far, -18, -20),
            (far - 3, -21, -60),
            (12, -33, -110),
            (5, -44, -150),
            (3, -52, -190),
            (3, -55, -260),
        ]
    )
    radius = np.array([15, 16, 15.5, 14.5, 13.5, 13, 12.5, 12, 11.5, 11.2, 10.5, 10, 9.5, 9.2]) * wide
    branches = {
        "brachiocephalic_trunk": [(0, -90, 72), (-6, -90, 92), (-18, -82, 116), (-24, -74, 190)],
        "common_carotid_artery_left": [(10, -78, 78), (14, -78, 104), (22, -72, 130), (24, -74, 190)],
        "subclavian_artery_left": [(20, -58, 78), (26, -60, 104), (34, -68, 124), (58, -66, 130)],
    }
    for name, points in branches.items():
        paint_tube(canvas, tube(media.vessel(points), 5.5 if "trunk" in name else 4.4), name, BLOOD_HU)
    _sheathed(canvas, aorta, radius, "aorta", BLOOD_HU, 1.5)


def _paint_airways(canvas: Canvas, media: Mediastinum) -> None:
    gullet = [
        (3, -49, 230),
        (3, -50, 165),
        (5, -46, 126),
        (6, -40, 100),
        (6, -34, 60),
        (6, -34, 20),
        (9, -37, -30),
        (16, -48, -72),
        (26, -62, -100),
    ]
    paint_tube(canvas, tube(np.array(gullet), 7.0), "esophagus", 38.0)
    paint_tube(canvas, tube(np.array(gullet), 1.6), "esophagus", -250.0)
    for side in (1, -1):
        lobe = Ellipsoid((side * 17.0, -68.0, 150.0), (8.5, 9.5, 20.0))
        paint_ellipsoid(canvas, lobe, "thyroid_gland", 95.0)
    paint_ellipsoid(canvas, Ellipsoid((0.0, -76.0, 142.0), (14.0, 5.0, 7.0)), "thyroid_gland", 95.0)
    trachea = media.vessel(
        [(0, -68, 230), (0, -68, 165), (0, -66, 140), (1, -60, 108), (0, -53, 78), (-1, -50, 50)]
    )
    left = media.vessel([(-1, -50, 51), (14, -49, 40), (28, -47, 32), (40, -45, 25)])
    right = media.vessel([(-1, -50, 51), (-12, -49, 38), (-24, -48, 26), (-34, -47, 14)])
    inner = (
        ("bronchus_main_left", left, [6.8, 6.4, 6.0, 4.6]),
        ("bronchus_main_right", right, [7.6, 7.4, 7.0, 6.4]),
        ("trachea", trachea, [9.0, 9.0, 9.2, 9.2, 9.2, 8.6]),
    )
    for name, points, radius in inner:
        paint_tube(canvas, tube(points, media.airway * np.array(radius) + 1.4), name, 40.0)
    for name, points, radius in inner:
        paint_tube(canvas, tube(points, media.airway * np.array(radius)), name, -995.0)
