"""Sternum and shoulder girdle: clavicles, scapulae, the upper ends of the raised humeri."""

from __future__ import annotations

import numpy as np

from paxray.phantom.cage import Cage, bone_hu, paint_bone
from paxray.phantom.canvas import Canvas, Float32
from paxray.phantom.shapes import (
    Ellipsoid,
    Float64,
    Tube,
    mirrored,
    smooth_union,
    spline,
    tube_distance,
)

# Points of the left shoulder, arms raised; reference mm.
HUMERAL_HEAD = (145.0, -21.0, 102.0)
HUMERUS_AXIS = (0.2, -0.3, 0.93)
GLENOID = (123.0, -16.0, 98.0)
SUPERIOR_ANGLE = (74.0, 6.0, 118.0)
INFERIOR_ANGLE = (116.0, 27.0, -24.0)
SPINE_ROOT = (82.0, 21.0, 84.0)
ACROMION = (139.0, 2.0, 131.0)
_CLAVICLE = (
    (17.0, -124.0, 91.0, 10.5),
    (34.0, -129.0, 96.0, 7.5),
    (58.0, -121.0, 100.0, 6.4),
    (84.0, -92.0, 107.0, 6.2),
    (108.0, -55.0, 116.0, 6.6),
    (124.0, -27.0, 125.0, 6.4),
)


def paint_sternum(canvas: Canvas, cage: Cage, marrow_hu: float) -> None:
    """Paint manubrium, body and xiphoid process: one bone that follows the front of the cage."""
    up = 40.0 * (1.0 - cage.lift)
    # Level, half width, half thickness.
    table = np.array(
        [
            (92.0, 22.0, 5.0),
            (82.0, 27.0, 6.5),
            (70.0, 19.0, 6.0),
            (60.0, 15.5, 6.0),
            (35.0, 14.5, 5.2),
            (0.0, 17.0, 5.2),
            (-25.0, 18.0, 5.0),
            (-38.0, 13.0, 4.6),
            (-48.0, 7.0, 3.6),
            (-66.0, 5.0, 3.2),
        ]
    )
    fine = spline(np.column_stack([np.zeros(len(table)), 0 * table[:, 0], table]), 4.0)
    points = np.array([cage.front(float(z) + up) for z in fine[:, 2]])
    normals = np.tile([0.0, -1.0, 0.0], (len(points), 1))
    shape = Tube(points, fine[:, 4], normals, fine[:, 3])
    paint_bone(canvas, shape, "sternum", cortex_mm=1.0, cortex_hu=620.0, marrow_hu=marrow_hu - 40)


def clavicle(side: int) -> Tube:
    """Return a clavicle: an S from the manubrium to the acromion."""
    fine = spline(np.asarray(_CLAVICLE), 5.0)
    return Tube(mirrored(fine[:, :3], side), fine[:, 3])


def paint_clavicles(canvas: Canvas, marrow_hu: float) -> None:
    """Paint both clavicles."""
    for side, name in ((1, "clavicula_left"), (-1, "clavicula_right")):
        paint_bone(canvas, clavicle(side), name, cortex_mm=1.9, cortex_hu=1000.0, marrow_hu=marrow_hu)


def paint_humeri(canvas: Canvas, marrow_hu: float) -> None:
    """Paint head and shaft of both humeri; the shaft leaves through the top of the scan."""
    head = np.asarray(HUMERAL_HEAD)
    axis = np.asarray(HUMERUS_AXIS) / np.linalg.norm(HUMERUS_AXIS)
    for side, name in ((1, "humerus_left"), (-1, "humerus_right")):
        nodes = np.array([head, head + 14 * axis, head + 38 * axis, head + 130 * axis])
        line = spline(np.column_stack([mirrored(nodes, side), [21.5, 19.0, 12.5, 11.5]]), 6.0)
        shape = Tube(line[:, :3], line[:, 3])
        paint_bone(canvas, shape, name, cortex_mm=2.4, cortex_hu=1050.0, marrow_hu=marrow_hu - 60)


def paint_scapulae(canvas: Canvas, marrow_hu: float) -> None:
    """Paint both scapulae: a thin blade with a thick outer border, spine, acromion, glenoid, coracoid."""
    for side, name in ((1, "scapula_left"), (-1, "scapula_right")):
        _paint_scapula(canvas, side, name, marrow_hu)


def _paint_scapula(canvas: Canvas, side: int, name: str, marrow_hu: float) -> None:
    low = mirrored([66.0, -70.0, -36.0], side)
    high = mirrored([160.0, 56.0, 152.0], side)
    box = canvas.box(np.minimum(low, high), np.maximum(low, high))
    if box is None:
        return
    distance = _blade(canvas, box, side)
    glenoid = Ellipsoid(tuple(mirrored(GLENOID, side)), (8.0, 15.0, 19.0))
    distance = smooth_union(distance, glenoid.distance(*canvas.coordinates(box)), 6.0)
    ridge = spline(np.array([(*SPINE_ROOT, 3.2), (110.0, 17.0, 108.0, 4.4), (*ACROMION, 7.0)]), 5.0)
    acromion = np.array([(*ACROMION, 7.0), (147.0, -13.0, 134.0, 6.5), (144.0, -25.0, 134.0, 5.0)])
    coracoid = np.array([(119.0, -26.0, 113.0, 7.5), (117.0, -46.0, 118.0, 6.0), (122.0, -60.0, 108.0, 5.0)])
    lateral = np.array([(*INFERIOR_ANGLE, 4.5), (126.0, 8.0, 40.0, 5.0), (124.0, -10.0, 88.0, 7.0)])
    medial = np.array([(*INFERIOR_ANGLE, 3.6), (92.0, 25.0, 50.0, 2.6), (*SUPERIOR_ANGLE, 2.6)])
    for nodes in (
        ridge,
        spline(acromion, 5.0),
        spline(coracoid, 5.0),
        spline(lateral, 6.0),
        spline(medial, 6.0),
    ):
        part = Tube(mirrored(nodes[:, :3], side), nodes[:, 3])
        distance = smooth_union(distance, tube_distance(canvas, part, box, clearance_mm=12.0), 3.0)
    canvas.paint(box, distance, name, bone_hu(distance, 1.3, 880.0, marrow_hu, canvas.edge_mm))


def _blade(canvas: Canvas, box: tuple[slice, slice, slice], side: int) -> Float32:
    """Return the distance to a triangular plate through the three angles, bulging backwards."""
    corners = np.array([SUPERIOR_ANGLE, INFERIOR_ANGLE, (124.0, -8.0, 92.0)])
    x, y, z = canvas.coordinates(box)
    ax = x * np.float32(side)
    plane = np.linalg.solve(np.column_stack([np.ones(3), corners[:, 0], corners[:, 2]]), corners[:, 1])
    inside = np.full(np.broadcast_shapes(ax.shape, z.shape), -1e3, dtype=np.float32)
    middle = corners[:, [0, 2]].mean(axis=0)
    reach = np.ones_like(inside)
    for n in range(3):
        a, b = corners[n, [0, 2]], corners[(n + 1) % 3, [0, 2]]
        out = np.array([b[1] - a[1], a[0] - b[0]])
        out /= np.linalg.norm(out)
        if out @ (middle - a) > 0:
            out = -out
        edge = (ax - a[0]) * np.float32(out[0]) + (z - a[1]) * np.float32(out[1])
        np.maximum(inside, edge, out=inside)
        reach *= np.clip(-edge / np.float32(-(out @ (middle - a))), 0.0, 1.3)
    bulge = np.float32(13.0) * np.sqrt(np.clip(reach, 0.0, 1.0))
    surface = np.float32(plane[0]) + np.float32(plane[1]) * ax + np.float32(plane[2]) * z + bulge
    tilt = np.float32(1.0 / np.sqrt(1.0 + plane[1] ** 2 + plane[2] ** 2))
    return np.maximum(np.abs(y - surface) * tilt - np.float32(1.9), inside).astype(np.float32)


def shoulder_points() -> dict[str, Float64]:
    """Return the landmarks of the left shoulder that the soft tissue is laid around."""
    return {
        "head": np.asarray(HUMERAL_HEAD),
        "axis": np.asarray(HUMERUS_AXIS) / np.linalg.norm(HUMERUS_AXIS),
        "acromion": np.asarray(ACROMION),
    }
