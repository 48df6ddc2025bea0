"""Ribs one by one: each is what hangs together with its root beside the spine; numbers come from counting."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from paxray.segmentation.thorax.cage import Cage
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import Bool, distance_mm
from paxray.segmentation.thorax.spine import HALF_WIDTH_MM, Spine, offsets_mm

Labels = NDArray[np.int32]

#: Where the roots are looked for: beside the transverse processes, at the height of the arch.
ROOT_OUT_MM, ROOT_AP_MM = (HALF_WIDTH_MM, HALF_WIDTH_MM + 12.0), (-28.0, 32.0)
#: Two roots on one side are at least so far apart along the patient; nearer ones are one rib's.
MIN_STEP_MM = 9.0
#: Less bone in the slab is no root.
MIN_ROOT_MM3 = 60.0
#: A rib reaches so far out from the midline; transverse processes of neck and loin do not.
MIN_REACH_MM = 56.0
#: Left and right roots of one vertebra differ in height by no more than this.
PAIR_MM = 11.0
#: A gap in a rib (a fracture, thin bone) that is bridged.
GAP_MM = 12.0
#: A piece beyond the gap lies as near to the pleura as a rib's middle; what is further out is shoulder blade.
GAP_OUT_MM = 8.0
#: Half the thickness of a rib: what joins two of them (a vessel, the collar bone's edge) is mostly thinner.
HALF_THICK_MM = 4.0
#: Dice that ribs reach of which nothing dense lies close: 0.74 to 0.85 on a real chest, 0.71 to 0.85 on phantoms.
MASK_GOOD = 0.8
#: Where other bone or contrast lies against it a rule draws a rib's outline. Dice falls by about twice the share of the
#: outline that this concerns (correlation -0.8 over the 24 ribs of the real chest); from a half on the rib is unknown.
TOUCHED = 2.0
#: The first rib's middle lies about 0.6 times as far out as the third's; the second's 0.8 times the fourth's.
FIRST_OUT = 0.7
#: So much spine without a rib must be seen above the first, or below the last, to call it the first or last.
FREE_ABOVE_MM, FREE_BELOW_MM = 10.0, 30.0
#: In thicker slices neighbouring ribs run together. Of a phantom's ribs 22 of 22 came out right at 5 mm, 19 of 20 at 6,
#: none at 9.
THICKEST_MM = 5.0
#: Pairs that a patient may have, where the first and the last are in sight; other counts are of ribs missed or split.
PAIRS = (11, 12, 13)


@dataclass(frozen=True)
class Rib:
    """One rib as found.

    Parameters
    ----------
    label, side
        Its number in the label array, ``left`` or ``right``.
    root_mm
        Level of its root above the bottom of the body's box, where the plane across the spine meets the canal.
    out_mm
        How far out from the canal its middle lies: the median of its blocks.
    """

    label: int
    side: str
    root_mm: float
    out_mm: float


@dataclass(frozen=True)
class Ladder:
    """Pairs of ribs by level, the uppermost first.

    Parameters
    ----------
    rungs
        ``{side: label}`` per level; a side that was not found is missing. An empty rung stands for a level that the
        distance of its neighbours tells.
    first_number
        The number of the first rung; None where neither the first nor the last rib can be told.
    confidence
        0..1, that the numbers are right.
    reason
        What the number rests on, or why there is none.
    """

    rungs: tuple[dict[str, int], ...]
    first_number: int | None
    confidence: float
    reason: str


def follow_ribs(field: Field, bone: Bool, spine: Spine, cage: Cage) -> tuple[Labels, list[Rib]]:
    """Part the bone of the rib cage into ribs.

    Returns
    -------
    labels, ribs
        ``(nz, ny, nx)`` int32, and what each label is.
    """
    dy, dx = offsets_mm(field, spine.y, spine.x)
    across = np.abs(dx)
    bone = bone & (across >= ROOT_OUT_MM[0])
    slab = bone & (across <= ROOT_OUT_MM[1]) & (dy >= ROOT_AP_MM[0]) & (dy <= ROOT_AP_MM[1])
    markers = np.zeros(bone.shape, np.int32)
    roots: list[Rib] = []
    for side, half in (("left", dx > 0), ("right", dx < 0)):
        for level, at in _roots(field, slab & half, spine):
            markers[tuple(at.T)] = len(roots) + 1
            roots.append(Rib(len(roots) + 1, side, level, 0.0))
    labels = _flood(field, bone, markers, dx, cage)
    kept = []
    for rib, box in zip(roots, ndimage.find_objects(labels, max_label=len(roots)), strict=True):
        if box is None:
            continue
        own = labels[box] == rib.label
        out = np.broadcast_to(across, bone.shape)[box][own]
        if float(out.max()) >= MIN_REACH_MM:
            kept.append(replace(rib, out_mm=float(np.median(out))))
        else:
            labels[box][own] = 0
    return labels, kept


def _roots(field: Field, slab: Bool, spine: Spine) -> list[tuple[float, NDArray[np.int64]]]:
    """Pieces of bone in the root slab, from above, as level and voxels; pieces nearer than a step are one."""
    mm = np.asarray(field.mm)
    # Roots of one vertebra share a plane across the spine, which leans and bows.
    width = 20.0 / mm[0]
    lean_y, lean_x = (
        np.gradient(ndimage.gaussian_filter1d(at * step, width, mode="nearest"), mm[0])
        for at, step in ((spine.y, mm[1]), (spine.x, mm[2]))
    )
    pieces, _ = ndimage.label(slab, ndimage.generate_binary_structure(3, 3))
    found: list[tuple[float, NDArray[np.int64]]] = []
    for n, box in enumerate(ndimage.find_objects(pieces), start=1):
        at = np.argwhere(pieces[box] == n) + [s.start for s in box]
        if len(at) * np.prod(mm) >= MIN_ROOT_MM3:
            z, y, x = at.mean(axis=0)
            k = round(z)
            offset = lean_y[k] * (y - spine.y[k]) * mm[1] + lean_x[k] * (x - spine.x[k]) * mm[2]
            found.append((float(z * mm[0] + offset), at))
    found.sort(key=lambda item: -item[0])
    merged: list[tuple[float, NDArray[np.int64]]] = []
    for level, at in found:
        if merged and np.linalg.norm((merged[-1][1].mean(axis=0) - at.mean(axis=0)) * mm) < MIN_STEP_MM:
            other, whole = merged[-1]
            mean = (other * len(whole) + level * len(at)) / (len(whole) + len(at))
            merged[-1] = (mean, np.concatenate([whole, at]))
        else:
            merged.append((level, at))
    return merged


def _flood(field: Field, bone: Bool, markers: Labels, dx: NDArray[np.float32], cage: Cage) -> Labels:
    """Bone to the root that it hangs together with, through thick bone before thin; then pieces across a gap."""
    from skimage.segmentation import watershed

    level = -np.minimum(distance_mm(bone, field.mm), HALF_THICK_MM)
    labels: Labels = watershed(level, markers, mask=bone).astype(np.int32)
    for _ in range(3):
        rest = bone & (labels == 0)
        pieces, count = ndimage.label(rest, ndimage.generate_binary_structure(3, 3))
        if not count:
            break
        distance, nearest = ndimage.distance_transform_edt(
            labels == 0, sampling=field.mm, return_indices=True
        )
        joined = False
        for n, box in enumerate(ndimage.find_objects(pieces), start=1):
            own = pieces[box] == n
            away = np.where(own, distance[box], np.inf)
            if away.min() > GAP_MM or float(np.median(cage.outside_mm[box][own])) > GAP_OUT_MM:
                continue
            at = np.unravel_index(int(away.argmin()), away.shape)
            source = tuple(int(axis[box][at]) for axis in nearest)
            if (dx[source[0], 0, source[2]] > 0) == bool(
                dx[box[0].start + at[0], 0, box[2].start + at[2]] > 0
            ):
                labels[box][own] = labels[source]
                joined = True
        if not joined:
            break
    return labels


def touched_share(labels: Labels, dense: Bool, field: Field, spine: Spine) -> dict[int, float]:
    """Which share of each rib's outline lies against dense blocks that are none of it.

    Parameters
    ----------
    labels
        ``(nz, ny, nx)`` int32, as `follow_ribs` gives them.
    dense
        Everything of bone's HU or more in the body, in blocks.
    spine
        What lies beside it, where every rib ends, is not counted.
    """
    _, dx = offsets_mm(field, spine.y, spine.x)
    counted = dense & (np.abs(dx) > ROOT_OUT_MM[0])
    shares = {}
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            around = tuple(
                slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, labels.shape, strict=True)
            )
            own = labels[around] == label
            outline = ndimage.binary_dilation(own) & ~own
            shares[label] = float((outline & counted[around]).sum() / max(1, outline.sum()))
    return shares


def count_ribs(field: Field, ribs: list[Rib], spine: Spine) -> Ladder:
    """Pair left and right by level, and number the pairs from whichever end is seen."""
    rungs = _pairs(ribs)
    if not rungs:
        return Ladder((), None, 0.0, "no rib was found")
    if field.mm[0] > THICKEST_MM + 0.01:
        why = f"neighbouring ribs run together in slices {field.mm[0]:.1f} mm apart; {THICKEST_MM:g} mm are needed"
        return Ladder(tuple(sides for _, sides in rungs), None, 0.0, why)
    levels = [level for level, _ in rungs]
    steps = -np.diff(levels)
    filled: list[tuple[float, dict[str, int]]] = [rungs[0]]
    for n, step in enumerate(steps):
        near = np.median(steps[max(0, n - 2) : n + 3]) if len(steps) > 2 else step
        for extra in range(1, max(1, round(float(step / near)))):
            filled.append((levels[n] - extra * near, {}))
        filled.append(rungs[n + 1])
    whole = tuple(sides for _, sides in filled)
    out = {rib.label: rib.out_mm for rib in ribs}
    zs = np.flatnonzero(spine.evidence > 0.2) * field.mm[0]
    free_above, free_below = float(zs.max() - levels[0]), float(levels[-1] - zs.min())
    short = _is_short(whole, out)
    top = short is not False and (short or free_above >= FREE_ABOVE_MM)
    bottom = free_below >= FREE_BELOW_MM
    number = len(whole)
    holes = sum(2 - len(sides) for sides in whole[:10])
    sure = max(0.3, 1.0 - 0.05 * holes) * (0.9 if short is None else 1.0)
    if top and bottom and number not in PAIRS:
        return Ladder(
            whole, None, 0.0, f"{number} pairs from the first to the last: some were missed or split"
        )
    if top and number <= 13:
        if bottom and number == 12:
            return Ladder(whole, 1, 0.95 * sure, "counted from the first to the last of twelve pairs")
        if bottom:
            return Ladder(whole, 1, 0.6 * sure, f"counted from the first; {number} pairs in all")
        return Ladder(whole, 1, 0.8 * sure, "counted from the first; the last is below the scan")
    if bottom and number == 12:
        return Ladder(whole, 1, 0.85 * sure, "twelve pairs down to the last")
    if bottom and number < 12:
        return Ladder(whole, 13 - number, 0.6 * sure, "counted from the last, taken for the twelfth")
    return Ladder(
        whole, None, 0.0, f"{number} levels in sight, but neither the first nor the last can be told"
    )


def _is_short(rungs: tuple[dict[str, int], ...], out: dict[int, float]) -> bool | None:
    """Whether the uppermost pair lies as near to the midline as first ribs do; None where that cannot be compared."""
    if len(rungs) < 3:
        return None
    ratios = [
        out[rungs[0][side]] / out[rungs[2][side]]
        for side in ("left", "right")
        if side in rungs[0] and side in rungs[2]
    ]
    return bool(np.mean(ratios) < FIRST_OUT) if ratios else None


def _pairs(ribs: list[Rib]) -> list[tuple[float, dict[str, int]]]:
    """Ribs of both sides in one order from above; those of nearly one level share a rung."""
    left = sorted((r for r in ribs if r.side == "left"), key=lambda r: -r.root_mm)
    right = sorted((r for r in ribs if r.side == "right"), key=lambda r: -r.root_mm)
    # The cheapest matching in order: a pair costs its difference, a rib alone as much as the largest one allowed.
    cost = np.zeros((len(left) + 1, len(right) + 1))
    cost[:, 0], cost[0, :] = PAIR_MM * np.arange(len(left) + 1), PAIR_MM * np.arange(len(right) + 1)
    for a in range(1, len(left) + 1):
        for b in range(1, len(right) + 1):
            apart = abs(left[a - 1].root_mm - right[b - 1].root_mm)
            cost[a, b] = min(cost[a - 1, b] + PAIR_MM, cost[a, b - 1] + PAIR_MM, cost[a - 1, b - 1] + apart)
    rungs: list[tuple[float, dict[str, int]]] = []
    a, b = len(left), len(right)
    while a or b:
        if (
            a
            and b
            and np.isclose(cost[a, b], cost[a - 1, b - 1] + abs(left[a - 1].root_mm - right[b - 1].root_mm))
        ):
            a, b = a - 1, b - 1
            level = (left[a].root_mm + right[b].root_mm) / 2
            rungs.append((level, {"left": left[a].label, "right": right[b].label}))
        elif a and np.isclose(cost[a, b], cost[a - 1, b] + PAIR_MM):
            a -= 1
            rungs.append((left[a].root_mm, {"left": left[a].label}))
        else:
            b -= 1
            rungs.append((right[b].root_mm, {"right": right[b].label}))
    return sorted(rungs, key=lambda rung: -rung[0])
