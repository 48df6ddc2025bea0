"""Lungs: air in the body that is neither airway nor gas in the bowel, parted into two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool, closed, dilate, distance_mm, fill_planes, pieces_of

#: Half way between inflated lung (-850) and soft tissue (40).
LUNG_HU = -450.0
#: Gas without tissue; even an emphysematous lung keeps its median above.
GAS_MEDIAN_HU = -970.0
#: Less is no lung, whoever it belongs to, and no piece of one.
MIN_LUNG_ML, MIN_PIECE_ML = 150.0, 8.0
#: Vessels of this diameter and less are part of the lung.
VESSEL_MM = 6.0
#: Erosions that are tried to part two lungs that touch in front of the aorta or behind the heart.
PARTING_MM = (1.5, 2.5, 3.5, 5.0, 7.0)


@dataclass(frozen=True, eq=False)
class Lungs:
    """Masks in blocks of the work lattice: vessels inside closed over, airways left out."""

    left: Bool
    right: Bool
    air: Bool


def find_lungs(field: Field, body: Bool, airways: Bool, midline_x: float | None) -> Lungs | str:
    """Find both lungs; a reason where that fails.

    Parameters
    ----------
    field
        The CT in patient order.
    body, airways
        Masks in blocks.
    midline_x
        Column of the body's midline in blocks (spine or trachea), to name a side where there is only one lung.
    """
    block_ml = float(np.prod(field.mm) / 1000)
    air = (field.hu < LUNG_HU) & body & ~dilate(airways, 1.2, field.mm)
    labels, sizes = pieces_of(air)
    order = np.argsort(-sizes)
    keep: list[int] = []
    for n in order[:40]:
        if sizes[n] * block_ml < MIN_PIECE_ML:
            break
        if float(np.median(field.hu[labels == n])) > GAS_MEDIAN_HU:
            keep.append(int(n))
    if not keep or sizes[keep[0]] * block_ml < MIN_LUNG_ML:
        return f"no air-filled space of {MIN_LUNG_ML:g} ml or more that has the density of lung"
    first = labels == keep[0]
    second = None
    if len(keep) > 1 and sizes[keep[1]] >= 0.15 * sizes[keep[0]] and sizes[keep[1]] * block_ml >= MIN_LUNG_ML:
        second = labels == keep[1]
    if second is None:
        parted = _part(first, field)
        if parted is not None:
            first, second = parted
    if second is None:
        if midline_x is None:
            return "one air-filled space only, and no midline to tell its side"
        x = float(np.nonzero(first)[2].mean())
        nothing = np.zeros_like(first)
        left, right = (first, nothing) if x > midline_x else (nothing, first)
    else:
        x1, x2 = (float(np.nonzero(mask)[2].mean()) for mask in (first, second))
        left, right = (first, second) if x1 > x2 else (second, first)
    # Pieces cut off by a fissure, a scar or a bulla's wall: of the lung within whose reach they lie.
    for n in keep[1:]:
        piece = labels == n
        if (piece & (left | right)).any():
            continue
        near = dilate(piece, 6.0, field.mm)
        shares = int((near & left).sum()), int((near & right).sum())
        if max(shares):
            if shares[0] >= shares[1]:
                left = left | piece
            else:
                right = right | piece
    left, right = (
        _with_vessels(side, other, body & ~airways, field) for side, other in ((left, right), (right, left))
    )
    right &= ~left
    return Lungs(left, right, air)


def _part(both: Bool, field: Field) -> tuple[Bool, Bool] | None:
    """Two lungs joined by a thin bridge; None if no erosion parts it into two halves of a lung's size."""
    distance = distance_mm(both, field.mm)
    for radius in PARTING_MM:
        labels, sizes = pieces_of(distance > radius)
        order = np.argsort(-sizes)
        if len(order) > 2 and sizes[order[1]] > 0.15 * sizes[order[0]]:
            from skimage.segmentation import watershed

            markers = np.where(labels == order[0], 1, np.where(labels == order[1], 2, 0)).astype(np.int32)
            x = [float(np.nonzero(markers == n)[2].mean()) for n in (1, 2)]
            z = [np.flatnonzero((markers == n).any(axis=(1, 2)))[[0, -1]] for n in (1, 2)]
            beside = min(z[0][1], z[1][1]) - max(z[0][0], z[1][0])
            if beside <= 0 or abs(x[0] - x[1]) * field.mm[2] < 60.0:
                continue
            split: NDArray[np.int32] = watershed(-distance, markers, mask=both)
            return split == 1, split == 2
    return None


def _with_vessels(lung: Bool, other: Bool, inside: Bool, field: Field) -> Bool:
    """Close over vessels, and over holes that a plane shows."""
    full = closed(lung, VESSEL_MM / 2, field.mm)
    return fill_planes(full) & ~other & inside if lung.any() else lung


def refine(field: Field, blocks: Bool, airways: Bool) -> Bool:
    """A lung's edge at full resolution: what its own voxels say, within a block of the border."""
    inner = field.fine(ndimage.binary_erosion(blocks, border_value=1))
    outer = field.fine(ndimage.binary_dilation(blocks))
    filled = field.fine(blocks)
    # Inside the border ring a voxel is lung if it is air, or closed over and no wall: darker than tissue.
    ring = outer & ~inner
    return (inner | (ring & (field.full < LUNG_HU)) | (filled & ring & (field.full < -200))) & ~airways


def lung_vessels(field: Field, lung: Bool, airways: Bool) -> Bool:
    """Vessels inside a lung: denser than -500 HU, off the pleura and the airways' walls, in pieces of 30 mm3."""
    mm = field.full_mm
    steps = max(1, round(2.5 / mm[1])), max(1, round(2.5 / mm[0]))
    cross = ndimage.generate_binary_structure(3, 1)
    flat = cross.copy()
    flat[0] = flat[2] = False
    inner = ndimage.binary_erosion(lung, flat, iterations=steps[0], border_value=1)
    dense = inner & (field.full > -500)
    if airways.any():
        dense &= ~ndimage.binary_dilation(airways, flat, iterations=steps[0])
    labels, sizes = pieces_of(dense, touching=3)
    return (sizes * float(np.prod(mm)) >= 30.0)[labels] & dense
