"""The spinal canal followed through the scan, and the column of vertebrae around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool, closed, fill_planes

#: Trabecular bone begins about here; contrast is told from it by place, not by HU.
BONE_HU = 150.0
#: The canal is 15 to 25 mm across: a disc without bone inside a ring of bone.
CANAL_RADIUS_MM, RING_MM = 6.0, (9.0, 16.0)
#: The body of the vertebra lies in front of the canal, this far from the middle to the middle.
BODY_OFFSET_MM, BODY_RADIUS_MM = 26.0, 12.0
#: The canal bends no more than this, per mm along the patient.
MAX_SLOPE = 0.9
#: Height of a vertebra with its disc.
LEVEL_MM = 25.0
#: The lattice on which the path is searched.
PATH_MM = 2.8
#: Mean evidence along the path (1 is a perfect ring and vertebra) below which there is no spine to speak of.
MIN_EVIDENCE = 0.25
#: Half the width over the tips of the transverse processes; ribs are named from there outwards.
HALF_WIDTH_MM = 34.0
#: From the canal's middle to the front of a vertebral body (T1 to L4), and to the tip of a spinous process.
FRONT_MM, BACK_MM = (24.0, 46.0), 58.0


@dataclass(frozen=True, eq=False)
class Spine:
    """The canal's course and the column, on the work lattice.

    Parameters
    ----------
    column, canal
        Masks in blocks.
    y, x
        ``(nz,)`` the canal's middle in every slice.
    evidence
        ``(nz,)`` 0..1, how much of a ring of bone with a vertebra in front of it is there.
    """

    column: Bool
    canal: Bool
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    evidence: NDArray[np.float64]


def find_spine(field: Field, body: Bool) -> Spine | str:
    """Find the path through all slices that has most bone around and least inside; a reason where there is none."""
    bone = (field.hu > BONE_HU) & body
    path = _canal_path(field, bone, body)
    if isinstance(path, str):
        return path
    y, x, evidence = path
    canal = _canal(field, bone, y, x)
    return Spine(_column(field, bone, canal, y, x), canal, y, x, evidence)


def _canal_path(field: Field, bone: Bool, body: Bool) -> tuple[NDArray[np.float64], ...] | str:
    zmm, ymm, xmm = field.mm
    step = max(1, round(PATH_MM / ymm)), max(1, round(PATH_MM / xmm))
    py, px = ymm * step[0], xmm * step[1]
    small = ndimage.uniform_filter(bone.astype(np.float32), (1, step[0], step[1]))[:, :: step[0], :: step[1]]
    # A vertebra's height is looked at together: between two arches and at a disc there is no bone.
    level = ndimage.uniform_filter1d(small, max(1, round(LEVEL_MM / zmm)), axis=0, mode="nearest")
    left, right, disc, front = _kernels(py, px)
    score = np.empty(small.shape, np.float32)
    for z, plane in enumerate(small):
        inside = ndimage.convolve(plane, disc, mode="constant")
        # The gutter beside a spinous process has bone on one side only.
        around = np.minimum(*(ndimage.convolve(level[z], side, mode="constant") for side in (left, right)))
        vertebra = ndimage.convolve(level[z], front, mode="constant")
        score[z] = np.minimum(around / 0.4, 1.0) * np.minimum(vertebra / 0.6, 1.0) - 1.5 * inside
    # The canal holds soft tissue; and it lies behind the middle of the body's own section and near its midline.
    tissue = field.hu[:, :: step[0], :: step[1]]
    score[(tissue < -150)] = -1.0
    part = body[:, :: step[0], :: step[1]]
    columns = np.arange(part.shape[2])
    for z, plane in enumerate(part):
        if plane.any():
            rows = np.flatnonzero(plane.any(axis=1))
            middle = float((plane.sum(axis=0) * columns).sum() / plane.sum())
            score[z, : int(rows[0] + 0.35 * (rows[-1] - rows[0]))] = -1.0
            score[z, :, np.abs(columns - middle) * px > 70.0] = -1.0
    # Dynamic programming: the best way to every pixel of every slice, moving no more than the slope allows.
    reach = max(1, int(np.ceil(MAX_SLOPE * zmm / py))), max(1, int(np.ceil(MAX_SLOPE * zmm / px)))
    total = score[0].copy()
    index = np.arange(total.size).reshape(total.shape)
    shifts = sorted(
        ((dy, dx) for dy in range(-reach[0], reach[0] + 1) for dx in range(-reach[1], reach[1] + 1)),
        key=lambda s: abs(s[0]) + abs(s[1]),
    )
    back = np.zeros((len(score), *total.shape), np.int32)
    for z in range(1, len(score)):
        best = np.full(total.shape, -np.inf, np.float32)
        for dy, dx in shifts:
            moved = _shifted(total, dy, dx, -np.inf) - 0.06 * np.float32(np.hypot(dy * py, dx * px))
            better = moved > best
            best[better] = moved[better]
            back[z][better] = _shifted(index, dy, dx, -1)[better]
        total = best + score[z]
    at = int(total.argmax())
    places = np.empty((len(score), 2))
    for z in range(len(score) - 1, -1, -1):
        places[z] = np.unravel_index(at, total.shape)
        at = int(back[z].flat[at])
    evidence = np.clip(score[np.arange(len(score)), places[:, 0].astype(int), places[:, 1].astype(int)], 0, 1)
    if float(np.mean(evidence)) < MIN_EVIDENCE:
        return f"no spinal canal: the best path has {np.mean(evidence):.2f} of the bone around that it needs"
    smooth = ndimage.gaussian_filter1d(places, max(1.0, 6.0 / zmm), axis=0, mode="nearest")
    return smooth[:, 0] * step[0], smooth[:, 1] * step[1], evidence


def _kernels(py: float, px: float) -> tuple[NDArray[np.float32], ...]:
    """Both halves of the ring, disc and the vertebral body in front, each summing to 1 (for convolution: mirrored)."""
    half = int(np.ceil((BODY_OFFSET_MM + BODY_RADIUS_MM) / py)), int(np.ceil(RING_MM[1] / px))
    y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    away = np.hypot(y * py, x * px)
    left, right = ((away >= RING_MM[0]) & (away <= RING_MM[1]) & side for side in (x < 0, x > 0))
    disc = away <= CANAL_RADIUS_MM
    front = np.hypot(y * py - BODY_OFFSET_MM, x * px) <= BODY_RADIUS_MM  # convolution turns it to the front
    return tuple((k / k.sum()).astype(np.float32) for k in (left, right, disc, front))


def _shifted(array: NDArray[Any], dy: int, dx: int, fill: float) -> NDArray[Any]:
    """``out[y, x] = array[y + dy, x + dx]``."""
    out = np.full_like(array, fill)
    ny, nx = array.shape
    out[max(0, -dy) : ny - max(0, dy), max(0, -dx) : nx - max(0, dx)] = array[
        max(0, dy) : ny - max(0, -dy), max(0, dx) : nx - max(0, -dx)
    ]
    return out


def offsets_mm(
    field: Field, y: NDArray[np.float64], x: NDArray[np.float64]
) -> tuple[NDArray[np.float32], ...]:
    """How far each block lies behind (+) the canal, ``(nz, ny, 1)``, and to the left (+) of it, ``(nz, 1, nx)``."""
    _, ny, nx = field.hu.shape
    dy = (np.arange(ny)[None, :, None] - y[:, None, None]) * field.mm[1]
    dx = (np.arange(nx)[None, None, :] - x[:, None, None]) * field.mm[2]
    return dy.astype(np.float32), dx.astype(np.float32)


def _canal(field: Field, bone: Bool, y: NDArray[np.float64], x: NDArray[np.float64]) -> Bool:
    """What is not bone within the canal's reach: a lens that bone cuts to shape."""
    dy, dx = offsets_mm(field, y, x)
    inside = np.hypot(dy, dx) <= 11.0
    soft = inside & ~bone & (field.hu > -150)
    core = np.hypot(dy, dx) <= CANAL_RADIUS_MM
    labels, _ = ndimage.label(soft, ndimage.generate_binary_structure(3, 1))
    hit = np.unique(labels[core & soft])
    return np.isin(labels, hit[hit > 0])


def _front_mm(
    field: Field, bone: Bool, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    """``(nz,)`` from the canal's middle to the front of the vertebral body.

    Looked for on both sides of the midline, and the smaller taken: an aorta full of contrast touches one of them.
    """
    zmm, ymm, xmm = field.mm
    # Cortex closes around marrow; what then is bone in an eighth of a level is vertebra, and in front is fat.
    disc = np.hypot(*np.meshgrid(np.arange(-4, 5) * ymm, np.arange(-4, 5) * xmm, indexing="ij")) <= 4.0
    solid = ndimage.binary_closing(bone, disc[None])
    level = ndimage.uniform_filter1d(
        solid.astype(np.float32), max(1, round(LEVEL_MM / zmm)), axis=0, mode="nearest"
    )
    depth = np.zeros((2, len(y)))
    for z in range(len(y)):
        for n, side in enumerate((-1, 1)):
            columns = np.rint(x[z] + side * np.arange(3.0, 14.0, xmm) / xmm).astype(int)
            columns = columns[(columns >= 0) & (columns < bone.shape[2])]
            start = int(y[z] - 14.0 / ymm)
            ahead = level[z, max(0, start) :: -1, :][:, columns] > 0.12
            ahead = ahead if start >= 0 and ahead.size else np.zeros((1, 1), bool)
            ahead[: round(6.0 / ymm)] = True
            ahead = ndimage.binary_closing(ahead, np.ones((round(7.0 / ymm), 1), bool)) | ahead
            run = np.where(ahead.all(axis=0), len(ahead), ahead.argmin(axis=0))
            depth[n, z] = 14.0 + float(np.median(run)) * ymm
    least = np.clip(depth.min(axis=0), *FRONT_MM)
    return ndimage.median_filter(least, max(1, round(2 * LEVEL_MM / zmm)), mode="nearest").astype(np.float32)


def _column(field: Field, bone: Bool, canal: Bool, y: NDArray[np.float64], x: NDArray[np.float64]) -> Bool:
    """Bone around the canal, with marrow and the canal's walls closed over, the canal itself left out."""
    dy, dx = offsets_mm(field, y, x)
    across = np.abs(dx)
    # In front the rounded body; beside the canal the transverse processes; behind a wedge that ends in the spinous one.
    front = _front_mm(field, bone & (across < 40.0) & (dy > -60.0) & (dy < BACK_MM), y, x)[
        :, None, None
    ] * np.sqrt(np.clip(1 - (across / 32.0) ** 2, 0, 1))
    body = (dy < -8.0) & (dy > -front - 2.0) & (across < 27.0)
    arch = (
        (dy >= -8.0) & (dy < BACK_MM) & (across < np.maximum(HALF_WIDTH_MM - np.maximum(dy - 14.0, 0), 9.0))
    )
    near = bone & (body | arch)
    # The cortex of a vertebra that marrow below 150 HU fills is closed by holes in planes.
    solid = fill_planes(closed(near, 2.0, field.mm) | canal) & (body | arch)
    pieces, _ = ndimage.label(solid)
    hit = np.bincount(pieces[canal | (near & (np.hypot(dy, dx) < 20.0))], minlength=pieces.max() + 1)
    hit[0] = 0
    return (hit > 0)[pieces] & ~canal
