"""The upper abdomen, as far as a chest scan shows it."""

from __future__ import annotations

import numpy as np

from paxray.phantom.canvas import Box, Canvas, Float32, overlap, within
from paxray.phantom.diaphragm import THICKNESS_MM, Diaphragm
from paxray.phantom.shapes import (
    Ellipsoid,
    rotation,
    smooth_intersection,
    smooth_union,
    tube,
    tube_distance,
)
from paxray.phantom.spine import Spine
from paxray.phantom.torso import Fields


def paint_abdomen(canvas: Canvas, fields: Fields, spine: Spine, diaphragm: Diaphragm, seed: int) -> None:
    """Paint psoas, kidneys, bowel, spleen, stomach and liver, kept below the diaphragm."""
    rng = np.random.default_rng([seed, 41])
    drop_left, drop_right = diaphragm.top_left + 77.0, diaphragm.top_right + 64.0
    _paint_psoas(canvas, spine)
    _paint_bowel(canvas, fields, rng, drop_left)
    for side, name, z in ((1, "kidney_left", -150.0), (-1, "kidney_right", -163.0)):
        axes = rotation((0.25 * side, 0.2, -1.0))
        shape = Ellipsoid((side * 56.0, -14.0, z + 0.4 * drop_left), (54.0, 25.0, 25.0), axes)
        _paint_inside(canvas, fields, shape, name, 34.0)
    _paint_stomach(canvas, fields, diaphragm, rng)
    spleen = Ellipsoid(
        (98.0, -24.0, diaphragm.top_left - 41.0), (58.0, 32.0, 45.0), rotation((0.35, -0.45, -0.8))
    )
    _paint_inside(canvas, fields, spleen, "spleen", 50.0)
    _paint_liver(canvas, fields, drop_right)


def _room(canvas: Canvas, fields: Fields, box: Box, gap_mm: float = 1.0) -> Float32:
    """Return the distance to the abdominal cavity under the diaphragm."""
    roof = (fields.above_diaphragm[box] + np.float32(THICKNESS_MM + gap_mm)) * np.float32(0.85)
    return np.maximum(fields.cavity[box] + np.float32(gap_mm + 0.5), roof)


def _paint_inside(canvas: Canvas, fields: Fields, shape: Ellipsoid, name: str, hu: float) -> None:
    box = canvas.box(*shape.bounds, margin_mm=canvas.edge_mm)
    if box is not None:
        distance = smooth_intersection(
            shape.distance(*canvas.coordinates(box)), _room(canvas, fields, box), 4.0
        )
        canvas.paint(box, distance, name, hu)


def _paint_psoas(canvas: Canvas, spine: Spine) -> None:
    for side in (1, -1):
        line = [
            (side * x, spine.y(z) + y, z)
            for z, x, y in ((-128, 22, 4), (-160, 30, 2), (-200, 37, 0), (-270, 44, -4))
        ]
        shape = tube(np.array(line), [6.0, 12.0, 18.0, 22.0])
        box = canvas.box(*shape.bounds, margin_mm=canvas.edge_mm)
        if box is not None:
            canvas.paint(box, tube_distance(canvas, shape, box), "skeletal_muscle", 55.0)


def _paint_liver(canvas: Canvas, fields: Fields, drop: float) -> None:
    box = canvas.box((-145.0, -175.0, -235.0), (75.0, 40.0, -20.0))
    if box is None:
        return
    x, y, z = canvas.coordinates(box)
    # Lower edge: from the right flank up to the left; the left lobe lies in front.
    edge = np.float32(-186.0 + 0.5 * drop) + np.float32(0.52) * (x + 115) - np.float32(0.16) * (y + 80)
    low = (edge - z) * np.float32(0.86)
    left = (x - np.float32(66.0) - np.float32(0.25) * (y + 90)) * np.float32(0.9)
    behind = (y + 66.0) + np.float32(0.9) * (x + np.float32(16.0))  # only the right lobe reaches the back
    cut = smooth_intersection(low, np.maximum(left, behind * np.float32(0.6)), 18.0)
    distance = smooth_intersection(_room(canvas, fields, box), cut, 10.0)
    canvas.paint(box, distance, "liver", 58.0)


def _paint_stomach(canvas: Canvas, fields: Fields, diaphragm: Diaphragm, rng: np.random.Generator) -> None:
    top = diaphragm.top_left
    fundus = Ellipsoid((60.0, -66.0, top - 38.0), (37.0, 40.0, 40.0))
    body = Ellipsoid((50.0, -108.0, top - 74.0), (58.0, 27.0, 29.0), rotation((-0.35, -0.45, -0.8)))
    lows, highs = zip(fundus.bounds, body.bounds, strict=True)
    box = canvas.box(np.min(lows, axis=0), np.max(highs, axis=0), margin_mm=canvas.edge_mm)
    if box is None:
        return
    at = canvas.coordinates(box)
    shape = smooth_union(fundus.distance(*at), body.distance(*at), 24.0)
    distance = smooth_intersection(shape, _room(canvas, fields, box), 6.0)
    canvas.paint(box, distance, "stomach", 40.0)
    # Gas gathers under the dome, in front: two bubbles that the wall shapes.
    size = float(rng.uniform(0.8, 1.15))
    high = Ellipsoid(
        (66.0, -76.0, top - 25.0), (30.0 * size, 34.0 * size, 19.0 * size), rotation((1.0, 0.3, -0.25))
    )
    low = Ellipsoid((48.0, -88.0, top - 34.0), (19.0 * size, 25.0 * size, 15.0 * size))
    bubble = smooth_union(high.distance(*at), low.distance(*at), 12.0)
    gas = smooth_intersection(bubble, distance + np.float32(4.5), 8.0)
    canvas.paint(box, gas, None, -985.0)


def _paint_bowel(canvas: Canvas, fields: Fields, rng: np.random.Generator, drop: float) -> None:
    """Paint colon with gas in places, and a filling of small-bowel loops below it."""
    loops = Ellipsoid((16.0, -92.0, -222.0), (94.0, 52.0, 58.0))
    box = canvas.box(*loops.bounds, margin_mm=canvas.edge_mm)
    if box is not None:
        x, y, z = canvas.coordinates(box)
        folds = np.sin(x / 9.0) + np.sin(y / 9.0 + 1.0) + np.sin(z / 9.0)
        distance = (
            np.maximum(loops.distance(x, y, z), _room(canvas, fields, box, 3.0)) - np.float32(2.5) * folds
        )
        canvas.paint(box, np.maximum(distance, _room(canvas, fields, box)), "small_bowel", 35.0)
    line = np.array(
        [
            (108, -50, -270),
            (112, -52, -200),
            (113, -66, -146),
            (98, -96, -140),
            (70, -132, -168),
            (20, -136, -188),
            (-40, -132, -194),
            (-88, -104, -188),
            (-106, -66, -200),
            (-108, -56, -270),
        ],
        dtype=np.float64,
    )
    line[:, 2] += 0.35 * drop
    radius = 17.0 + 4.0 * np.sin(np.arange(len(line)) * 2.1 + rng.uniform(0, 6))
    shape = tube(line, radius, step_mm=8.0)
    # Haustra: the wall is drawn in every two and a half centimetres.
    pinch = 1.0 - 0.14 * np.square(np.sin(np.arange(len(shape.points)) * 8.0 / 25.0 * np.pi))
    shape = type(shape)(shape.points, shape.radius * pinch)
    box = canvas.box(*shape.bounds, margin_mm=canvas.edge_mm)
    if box is None:
        return
    distance = np.maximum(tube_distance(canvas, shape, box), _room(canvas, fields, box))
    canvas.paint(box, distance, "colon", 30.0)
    # Gas in runs of bubbles, as between the haustra.
    lumen = distance + np.float32(3.0)
    for start in rng.integers(4, len(shape.points) - 8, 4):
        for n in range(int(start), int(start) + int(rng.integers(2, 6))):
            size = float(shape.radius[n]) * float(rng.uniform(0.65, 0.95))
            left, back, up = shape.points[n].tolist()
            bubble = Ellipsoid((left, back - 4.0, up), (size, size, size))
            part = canvas.box(*bubble.bounds, margin_mm=canvas.edge_mm)
            part = None if part is None else overlap(part, box)
            if part is not None:
                ball = bubble.distance(*canvas.coordinates(part))
                gas = smooth_intersection(ball, lumen[within(part, box)], 4.0)
                canvas.paint(part, gas, None, -970.0)
