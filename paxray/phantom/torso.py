"""The trunk painted slice by slice: what has no shape of its own but lies between such."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paxray.phantom.cage import PLEURA_MM
from paxray.phantom.canvas import Box, Canvas, Float32
from paxray.phantom.diaphragm import THICKNESS_MM, Diaphragm
from paxray.phantom.lobes import fissures, lobes, lung_hu, lung_surface
from paxray.phantom.wall import Wall

SKIN_MM = 1.8
SKIN_HU, MUSCLE_HU, SUBCUTANEOUS_HU, VISCERAL_FAT_HU, FISSURE_HU = 25.0, 50.0, -103.0, -92.0, -690.0


@dataclass(frozen=True, eq=False)
class Fields:
    """What later organs are fitted into; ``(nk, nj, ni)`` float32, reference mm.

    Parameters
    ----------
    cavity
        Distance to the pleura and, below, the inner face of the abdominal wall; negative inside.
    above_diaphragm
        Height above the diaphragm.
    """

    cavity: Float32
    above_diaphragm: Float32


@dataclass(frozen=True, eq=False)
class _Slice:
    """One axial slice: its voxels, its coordinates (``(1, ni)``, ``(nj, 1)``, level), its grain."""

    box: Box
    x: Float32
    y: Float32
    z: float
    grain: Float32


def paint_torso(canvas: Canvas, wall: Wall, diaphragm: Diaphragm, texture: Float32) -> Fields:
    """Paint skin, fat, breasts, muscle, the fat of the body cavity, lungs and diaphragm.

    Parameters
    ----------
    canvas
        Empty but for the table.
    wall, diaphragm
        The patient's shapes.
    texture
        ``(nk, nj, ni)`` smooth noise, about unit variance: fat lobules, gland, lung parenchyma.
    """
    cavity = np.empty_like(canvas.hu)
    above_diaphragm = np.empty_like(canvas.hu)
    for k in range(canvas.hu.shape[0]):
        box = (slice(k, k + 1), slice(None), slice(None))
        at = _Slice(box, canvas.x[k], canvas.y[k], float(canvas.z[k, 0, 0]), texture[k])
        section, cage, muscle, skin = wall.layers(at.x, at.y, at.z)
        inner = cage + np.float32(PLEURA_MM)
        above = np.float32(at.z) - diaphragm.level(at.x, at.y, inner, section)
        cavity[k], above_diaphragm[k] = inner, above
        _paint_wall(canvas, wall, at, cage, muscle, skin)
        if inner.min() < 0:
            _paint_cavity(canvas, wall.spine.y(at.z), at, inner, above)
    return Fields(cavity, above_diaphragm)


def _paint_wall(
    canvas: Canvas, wall: Wall, at: _Slice, cage: Float32, muscle: Float32, skin: Float32
) -> None:
    canvas.paint(at.box, skin[None], "subcutaneous_fat", (SUBCUTANEOUS_HU + 9.0 * at.grain)[None])
    under_skin = skin + np.float32(SKIN_MM)
    canvas.paint(at.box, np.maximum(skin, -under_skin)[None], None, SKIN_HU)
    if wall.has_breasts(at.z):
        _paint_breasts(canvas, wall, at, np.maximum(under_skin, -muscle))
    # Planes of fat between the layers of muscle, parallel to the ribs.
    layer = np.abs(np.abs(cage - np.float32(20.0)) - np.float32(7.0) + 2.5 * at.grain)
    plane = np.clip(1.3 - layer, 0.0, 1.0)
    hu = MUSCLE_HU + 9.0 * at.grain - 95.0 * plane
    canvas.paint(at.box, muscle[None], "skeletal_muscle", hu[None].astype(np.float32))


def _paint_breasts(canvas: Canvas, wall: Wall, at: _Slice, between: Float32) -> None:
    """Paint gland in fat, limited to the layer between skin and muscle."""
    breast = wall.breast(np.abs(at.x), at.y, at.z)
    gland = np.clip(0.7 + 0.4 * at.grain + 0.03 * (breast + 14), 0.0, 1.0) * np.clip(-breast / 12.0, 0.0, 1.0)
    share = 1.0 - 0.45 * wall.patient.habitus
    hu = (-98.0 + 150.0 * share * gland).astype(np.float32)
    for name, half in (("breast_left", -at.x), ("breast_right", at.x)):
        canvas.paint(at.box, np.maximum(np.maximum(breast, between), half)[None], name, hu[None])


def _paint_cavity(canvas: Canvas, spine_y: float, at: _Slice, inner: Float32, above: Float32) -> None:
    fat = (VISCERAL_FAT_HU + 8.0 * at.grain)[None]
    canvas.paint(at.box, inner[None], "torso_fat", fat)
    chest = np.maximum(inner, -above)
    if chest.min() >= 0:
        return
    canvas.paint(at.box, chest[None], "mediastinal_fat", fat)
    lung = lung_surface(at.x, at.y, at.z, spine_y, inner, above)
    canvas.paint(at.box, lung[None], None, (lung_hu(at.y, spine_y, at.z) + 24.0 * at.grain)[None])
    for name, part in lobes(at.x, at.y, at.z):
        canvas.name(at.box, ((lung < 0) & part)[None], name)
    canvas.paint(at.box, np.maximum(lung, fissures(at.x, at.y, at.z))[None], None, FISSURE_HU)
    sheet = np.maximum(inner, np.maximum(above, -(above + np.float32(THICKNESS_MM))))
    canvas.paint(at.box, sheet[None], "skeletal_muscle", MUSCLE_HU)
