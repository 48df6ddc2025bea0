"""Trachea, carina and main bronchi: a tube of air followed slice by slice until it has two parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool

#: Cross-section of a trachea: 10 to 30 mm across.
AREA_MM2 = (50.0, 750.0)
#: It is round: its box is not longer than this times its width, and it fills so much of the box.
MAX_ASPECT, MIN_FILL = 2.3, 0.5
#: A slice below that no such tube is followed: neck to carina are 10 to 15 cm.
MIN_LENGTH_MM = 20.0
#: Air to wall. A leak into the lung through a thin wall is stopped by the next, lower one.
THRESHOLDS_HU = (-700, -800, -860, -900, -940)
#: Half way between air and tissue: where the wall begins.
EDGE_HU = -480.0
#: The wall belongs to the airway.
WALL_MM = 1.0
#: A main bronchus in the slice where it begins, and how far it is followed: to the upper lobe's branch (Gray).
MIN_BRONCHUS_MM2 = 25.0
BRONCHUS_MM = {"right": 25.0, "left": 50.0}
#: On both sides of a trachea at its lower end lies so much lung in the slice.
MIN_LUNG_MM2 = 800.0


@dataclass(frozen=True, eq=False)
class Airways:
    """What was found, at full resolution in patient order.

    Parameters
    ----------
    trachea, bronchus_left, bronchus_right
        Lumen and wall; bronchi are empty where no carina was found.
    carina_zyx
        The full-resolution index of the airway's middle in the first slice with two parts, from above.
    why_no_carina
        The reason, where there is none.
    """

    trachea: Bool
    bronchus_left: Bool
    bronchus_right: Bool
    carina_zyx: tuple[int, int, int] | None
    why_no_carina: str = ""


def find_airways(field: Field, body: Bool) -> Airways | str:
    """Follow the trachea from the top down; a reason where none is found.

    Parameters
    ----------
    field
        The CT in patient order.
    body
        Its body at full resolution.
    """
    pixel_mm2 = field.full_mm[1] * field.full_mm[2]
    air = (field.full < THRESHOLDS_HU[0]) & body
    chain = _best_chain(field, air, pixel_mm2)
    if chain is None:
        return "no tube of air between two lungs was found"
    (top, start), typical = chain
    trachea = np.zeros(field.full.shape, bool)
    trachea[top] = start
    above = start
    why = "the trachea reaches the bottom of the scan, or was lost, before it had two parts"
    split: tuple[int, list[Bool]] | None = None
    for z in range(top - 1, -1, -1):
        parts = _follow(field.full[z], body[z], above, 2.4 * typical, pixel_mm2)
        if parts is None:
            break
        if len(parts) == 2:
            split = z, parts
            break
        trachea[z] = above = parts[0]
    bronchi = {"left": np.zeros_like(trachea), "right": np.zeros_like(trachea)}
    carina = None
    if split is not None:
        z, parts = split
        parts.sort(key=lambda part: float(np.nonzero(part)[1].mean()))  # the patient's right first
        for side, part in zip(("right", "left"), parts, strict=True):
            _follow_bronchus(field, body, bronchi[side], z, part, BRONCHUS_MM[side], pixel_mm2)
        y, x = (float(n.mean()) for n in np.nonzero(parts[0] | parts[1]))
        carina, why = (z, round(y), round(x)), ""
    edge = field.full < EDGE_HU
    lumen = [_to_edge(mask, edge, field) for mask in (trachea, bronchi["left"], bronchi["right"])]
    lumen[1] &= ~lumen[0]
    lumen[2] &= ~(lumen[0] | lumen[1])
    return Airways(lumen[0], lumen[1], lumen[2], carina, why)


def _best_chain(field: Field, air: Bool, pixel_mm2: float) -> tuple[tuple[int, Bool], float] | None:
    """The longest run of round cross-sections that ends between two lungs: its topmost slice and typical area."""
    running: list[list[tuple[int, Bool, float]]] = []
    done: list[list[tuple[int, Bool, float]]] = []
    for z in range(air.shape[0] - 1, -1, -1):
        found = _round_parts(air[z], field.full_mm, pixel_mm2)
        kept = []
        for chain in running:
            last_z, last, _ = chain[-1]
            match = [n for n, (part, _) in enumerate(found) if (part & last).any()]
            if match:
                part, area = found.pop(match[0])
                chain.append((z, part, area))
                kept.append(chain)
            elif last_z - z <= 1:
                kept.append(chain)
            else:
                done.append(chain)
        running = kept + [[(z, part, area)] for part, area in found]
    best = None
    for chain in done + running:
        length = (chain[0][0] - chain[-1][0]) * field.full_mm[0]
        longest = length >= MIN_LENGTH_MM and (best is None or length > best[0])
        if longest and _between_lungs(air[chain[-1][0]], chain[-1][1], pixel_mm2):
            best = length, chain
    if best is None:
        return None
    chain = best[1]
    return (chain[0][0], chain[0][1]), float(np.median([area for _, _, area in chain]))


def _round_parts(air: Bool, mm: tuple[float, float, float], pixel_mm2: float) -> list[tuple[Bool, float]]:
    labels, count = ndimage.label(air)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * pixel_mm2
    found = []
    for n, box in enumerate(ndimage.find_objects(labels), start=1):
        if not AREA_MM2[0] <= areas[n] <= AREA_MM2[1]:
            continue
        high, wide = (box[0].stop - box[0].start) * mm[1], (box[1].stop - box[1].start) * mm[2]
        if max(high, wide) <= MAX_ASPECT * min(high, wide) and areas[n] >= MIN_FILL * high * wide:
            found.append((labels == n, float(areas[n])))
    return found


def _between_lungs(air: Bool, part: Bool, pixel_mm2: float) -> bool:
    column = round(float(np.nonzero(part)[1].mean()))
    rest = air & ~part
    return bool(min(rest[:, :column].sum(), rest[:, column:].sum()) * pixel_mm2 >= MIN_LUNG_MM2)


def _follow(
    hu: NDArray[np.number], body: Bool, above: Bool, max_mm2: float, pixel_mm2: float
) -> list[Bool] | None:
    """The parts of the airway below a cross-section: one or two; None where it is lost or leaks at any threshold."""
    for threshold in THRESHOLDS_HU:
        labels, _ = ndimage.label((hu < threshold) & body)
        hit = np.unique(labels[above])
        parts = [labels == n for n in hit if n]
        parts = [part for part in parts if part.sum() * pixel_mm2 >= MIN_BRONCHUS_MM2]
        total = sum(int(part.sum()) for part in parts) * pixel_mm2
        if parts and total <= max_mm2:
            parts.sort(key=lambda part: -int(part.sum()))
            return parts[:2]
    return None


def _follow_bronchus(
    field: Field, body: Bool, out: Bool, z: int, part: Bool, length_mm: float, pixel_mm2: float
) -> None:
    start = np.array(ndimage.center_of_mass(part)) * field.full_mm[1:]
    limit = 1.8 * max(float(part.sum()) * pixel_mm2, 80.0)
    for below in range(z, -1, -1):
        at = np.array(ndimage.center_of_mass(part)) * field.full_mm[1:]
        if np.hypot(np.linalg.norm(at - start), (z - below) * field.full_mm[0]) > length_mm:
            return
        out[below] = part
        if below == 0:
            return
        parts = _follow(field.full[below - 1], body[below - 1], part, limit, pixel_mm2)
        if parts is None:
            return
        part = parts[0]


def _to_edge(mask: Bool, edge: Bool, field: Field) -> Bool:
    """Grow within the slice by 2 mm, as far as the edge goes, and add the wall."""
    steps = max(1, round(2.0 / min(field.full_mm[1:])))
    cross = ndimage.generate_binary_structure(2, 1)[None]
    zs = np.flatnonzero(mask.any(axis=(1, 2)))
    if zs.size:
        part = slice(int(zs[0]), int(zs[-1]) + 1)
        mask = mask.copy()
        lumen = ndimage.binary_dilation(mask[part], cross, iterations=steps, mask=edge[part] | mask[part])
        mask[part] = ndimage.binary_dilation(
            lumen, cross, iterations=max(1, round(WALL_MM / min(field.full_mm[1:])))
        )
    return mask
