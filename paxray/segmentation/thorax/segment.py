"""The built-in segmenter: a bare CT of a chest to named masks, by classical image analysis."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from paxray.io.volume import Volume
from paxray.segmentation.body import body_mask, unscanned_mask
from paxray.segmentation.thorax.airways import MIN_LUNG_MM2, Airways, find_airways
from paxray.segmentation.thorax.bones import find_girdle, find_sternum, rib_marrow
from paxray.segmentation.thorax.cage import Cage, find_cage, rib_bone
from paxray.segmentation.thorax.diaphragm import below_floor, find_floor
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.lungs import Lungs, find_lungs, lung_vessels, refine
from paxray.segmentation.thorax.mediastinum import (
    ASCENDING,
    DESCENDING,
    WALL_STEP,
    find_heart,
    find_mediastinum,
    trace_vessel,
)
from paxray.segmentation.thorax.morphology import Bool
from paxray.segmentation.thorax.result import Found, ThoraxResult
from paxray.segmentation.thorax.ribs import MASK_GOOD, TOUCHED, count_ribs, follow_ribs, touched_share
from paxray.segmentation.thorax.spine import BONE_HU, Spine, find_spine
from paxray.segmentation.thorax.tissues import (
    find_breasts,
    find_muscle,
    find_skin,
    find_subcutaneous_fat,
    wall_envelope,
)

SIDES = ("left", "right")
RIBS = tuple(f"rib_{side}_{number}" for side in SIDES for number in range(1, 13))
#: Every class that `segment_thorax` names, found or unknown.
CLASSES = (
    "body",
    "lung_left",
    "lung_right",
    "lung_vessels_left",
    "lung_vessels_right",
    "trachea",
    "bronchus_main_left",
    "bronchus_main_right",
    "spine",
    "spinal_canal",
    "bones",
    "ribs_left",
    "ribs_right",
    *RIBS,
    "sternum",
    "mediastinum",
    "heart",
    "aorta_descending",
    "subdiaphragm",
    "skin",
    "subcutaneous_fat",
    "skeletal_muscle",
    "breast_left",
    "breast_right",
)
#: Edge of bone at full resolution: in the outermost blocks of a bone, and in the blocks beside them.
BONE_EDGE_HU = (130.0, 300.0)
#: A rib over its twin, in volume; beyond, one of both holds too little or something else.
TWINS = (0.65, 1.55)


def segment_thorax(ct: Volume) -> ThoraxResult:
    """Find what can be found in a chest CT without weights, and say of the rest why not.

    Rules are anatomical and stand, with their figures, at the head of each module of this package; HU alone never
    make bone, since a vein full of contrast is brighter. Any orientation and spacing; the patient may lie prone or
    feet first, as the affine says. Slices thicker than 5 mm lose small structures.

    Parameters
    ----------
    ct
        HU. Padding below -1200 HU is taken for not scanned.

    Returns
    -------
    ThoraxResult
        Masks on the CT's own lattice. `CLASSES` are each found or unknown.

    Raises
    ------
    CaseError
        ``no_body`` where there is no patient, ``oblique`` where no array axis is near the patient's.
    """
    return _Search(ct).run()


def _twin(name: str) -> str:
    """The rib of the same number on the other side."""
    bone, side, number = name.split("_")
    return f"{bone}_{'left' if side == 'right' else 'right'}_{number}"


class _Search:
    """One case: each step takes what the steps before found, and keeps masks or reasons."""

    def __init__(self, ct: Volume) -> None:
        whole = body_mask(ct) & ~unscanned_mask(ct)
        self.ct = ct
        self.field = Field.of(ct, whole)
        self.full_body: Bool = np.ascontiguousarray(self.field.turn(whole))
        self.body = self.field.coarse(self.full_body)
        self.found: dict[str, Found] = {}
        self.unknown: dict[str, str] = {}
        self.carina_mm: tuple[float, float, float] | None = None
        self.carina_z: float | None = None

    def run(self) -> ThoraxResult:
        self._keep("body", self.full_body, 0.99)
        airways = find_airways(self.field, self.full_body)
        spine = self._spine()
        lungs = self._lungs(airways, spine)
        if not isinstance(airways, str) and not self._between_lungs(airways, lungs):
            # A loop of bowel with gas: nothing may rest on it.
            airways = "the tube of air that was found does not end between two lungs"
            lungs = self._lungs(airways, spine)
        tubes = self._keep_airways(airways)
        self._keep_lungs(lungs, tubes)
        self._skin()
        if isinstance(spine, str) or isinstance(lungs, str):
            reason = spine if isinstance(spine, str) else str(lungs)
            self._all_unknown(f"needs spine and lungs: {reason}")
            return self._result()
        cage = find_cage(self.field, lungs.left | lungs.right)
        bones = self._bones(tubes, spine, cage)
        self._between(tubes, spine, lungs, cage, bones)
        self._tissues(spine, cage, bones)
        return self._result()

    def _result(self) -> ThoraxResult:
        self._all_unknown("not looked for")
        return ThoraxResult(self.ct.shape, self.found, self.unknown, self.carina_mm)

    def _all_unknown(self, reason: str) -> None:
        for name in CLASSES:
            if name not in self.found:
                self.unknown.setdefault(name, reason)

    def _keep(self, name: str, full: Bool, confidence: float, note: str = "") -> None:
        if full.any():
            box, array = self.field.back(full)
            self.found[name] = Found(box, array, round(float(confidence), 3), note)
        else:
            self.unknown[name] = "nothing of it was found"

    def _keep_blocks(self, name: str, blocks: Bool, confidence: float, note: str = "") -> None:
        self._keep(name, self.field.fine(blocks) & self.full_body, confidence, note)

    def _between_lungs(self, airways: Airways, lungs: Lungs | str) -> bool:
        """Whether both lungs lie beside the lower end of the windpipe."""
        if isinstance(lungs, str):
            return False
        lowest = int(np.flatnonzero(airways.trachea.any(axis=(1, 2)))[0]) // self.field.factor[0]
        block_mm2 = self.field.mm[1] * self.field.mm[2]
        return all(side[lowest].sum() * block_mm2 >= MIN_LUNG_MM2 for side in (lungs.left, lungs.right))

    def _keep_airways(self, found: Airways | str) -> Airways | None:
        names = ("trachea", "bronchus_main_left", "bronchus_main_right")
        if isinstance(found, str):
            self.unknown.update(dict.fromkeys(names, found))
            return None
        self._keep("trachea", found.trachea, 0.9 if found.carina_zyx else 0.7, found.why_no_carina)
        if found.carina_zyx is None:
            self.unknown.update(dict.fromkeys(names[1:], found.why_no_carina))
            return found
        self._keep(names[1], found.bronchus_left, 0.75)
        self._keep(names[2], found.bronchus_right, 0.75)
        at = (np.array(found.carina_zyx) + 0.5) / self.field.factor - 0.5
        self.carina_z = float(at[0])
        x, y, z = (float(n) for n in self.field.world_mm(at))
        self.carina_mm = (x, y, z)
        return found

    def _spine(self) -> Spine | str:
        spine = find_spine(self.field, self.body)
        if isinstance(spine, str):
            self.unknown.update({"spine": spine, "spinal_canal": spine})
            return spine
        evidence = min(1.0, float(spine.evidence.mean()) / 0.7)
        self._keep("spine", self._bone_edge(spine.column), 0.85 * evidence)
        self._keep_blocks("spinal_canal", spine.canal, 0.8 * evidence)
        return spine

    def _lungs(self, airways: Airways | str, spine: Spine | str) -> Lungs | str:
        midline = None if isinstance(spine, str) else float(np.median(spine.x))
        return find_lungs(self.field, self.body, self.field.coarse(self._air(airways)), midline)

    def _air(self, airways: Airways | str | None) -> Bool:
        """The airways at full resolution; empty where they were not found."""
        if airways is None or isinstance(airways, str):
            return np.zeros_like(self.full_body)
        return airways.trachea | airways.bronchus_left | airways.bronchus_right

    def _keep_lungs(self, lungs: Lungs | str, airways: Airways | None) -> None:
        names = [(f"lung_{side}", f"lung_vessels_{side}") for side in SIDES]
        if isinstance(lungs, str):
            self.unknown.update({name: lungs for pair in names for name in pair})
            return
        # Where the lungs touch, the edges of both take in the same voxels: they stay with the first.
        taken = self._air(airways)
        air = taken.copy()
        for (name, vessels), blocks in zip(names, (lungs.left, lungs.right), strict=True):
            if not blocks.any():
                reason = "one lung only was found, on the other side"
                self.unknown.update({name: reason, vessels: reason})
                continue
            full = refine(self.field, blocks, taken)
            taken |= full
            self._keep(name, full, 0.97 if airways is not None else 0.8)
            self._keep(vessels, lung_vessels(self.field, full, air), 0.6)

    def _bone_edge(self, blocks: Bool) -> Bool:
        """Bone with its edge at full resolution: within a block of the border each voxel speaks for itself."""
        inner = self.field.fine(ndimage.binary_erosion(blocks, border_value=1))
        own, beside = self.field.fine(blocks), self.field.fine(ndimage.binary_dilation(blocks))
        full = self.field.full
        return (
            inner | (own & (full > BONE_EDGE_HU[0])) | (beside & (full > BONE_EDGE_HU[1]))
        ) & self.full_body

    def _bones(self, airways: Airways | None, spine: Spine, cage: Cage) -> Bool:
        field = self.field
        dense = (field.hu > BONE_HU) & self.body
        labels, ribs = follow_ribs(field, rib_bone(field, dense, spine, cage), spine, cage)
        ladder = count_ribs(field, ribs, spine)
        labels = rib_marrow(labels, field)
        full = np.where(field.full > BONE_EDGE_HU[0], field.fine(labels), 0)
        for side in SIDES:
            own = [rib.label for rib in ribs if rib.side == side]
            self._keep(f"ribs_{side}", np.isin(full, own), MASK_GOOD)
        numbered = {}
        if ladder.first_number is not None:
            for step, rung in enumerate(ladder.rungs):
                for side, label in rung.items():
                    numbered[f"rib_{side}_{ladder.first_number + step}"] = label
        sizes = np.bincount(full.ravel())
        touched = touched_share(labels, dense, field, spine)
        for name in RIBS:
            if name in numbered:
                share = touched[numbered[name]]
                sure, note = ladder.confidence * MASK_GOOD * (1.0 - TOUCHED * share), ladder.reason
                against = f"{share:.0%} of its outline lies against other bone or contrast"
                if sure <= 0:
                    self.unknown[name] = against
                    continue
                note += f"; {against}" if share >= 0.01 else ""
                twin = numbered.get(_twin(name))
                if twin is not None and not TWINS[0] < sizes[numbered[name]] / max(1, sizes[twin]) < TWINS[1]:
                    sure, note = 0.6 * sure, f"{note}; its twin is of another size"
                self._keep(name, full == numbered[name], sure, note)
            elif ladder.first_number is None:
                self.unknown[name] = f"ribs cannot be numbered: {ladder.reason}"
            else:
                self.unknown[name] = "no rib was followed from its level of the spine"
        bones = spine.column | (labels > 0)
        trachea = np.zeros_like(bones) if airways is None else field.coarse(airways.trachea)
        sternum = find_sternum(field, self.body, spine, cage, trachea)
        if isinstance(sternum, str):
            self.unknown["sternum"] = sternum
        else:
            self._keep_blocks("sternum", sternum, 0.7)
            bones = bones | sternum
        bones = bones | find_girdle(field, dense, spine, cage, trachea, bones | spine.canal)
        self._keep("bones", self._bone_edge(bones), 0.8)
        return bones

    def _between(self, airways: Airways | None, spine: Spine, lungs: Lungs, cage: Cage, bones: Bool) -> None:
        field = self.field
        names = ("mediastinum", "heart", "subdiaphragm")
        floor = find_floor(field, lungs.left, lungs.right, spine, cage)
        if isinstance(floor, str):
            self.unknown.update(dict.fromkeys(names, f"the diaphragm was not found: {floor}"))
            above = np.ones_like(self.body)
        else:
            below = below_floor(floor, self.body.shape) & self.body & ~(lungs.left | lungs.right)
            self._keep_blocks("subdiaphragm", below, 0.7)
            above = ~below
        arch = len(self.body) if self.carina_z is None else int(self.carina_z + 5.0 / field.mm[0])
        aorta = np.zeros_like(self.body)
        if self.carina_z is None:
            self.unknown["aorta_descending"] = (
                "where the arch begins is told by the carina, which was not found"
            )
        else:
            traced = trace_vessel(field, self.body, spine, DESCENDING, range(arch))
            if isinstance(traced, str):
                self.unknown["aorta_descending"] = traced
            else:
                aorta |= traced[0]
                sure = min(1.0, traced[1] / (3 * WALL_STEP))
                self._keep_blocks("aorta_descending", traced[0], 0.85 * sure, "its wall's contrast")
            root = trace_vessel(
                field, self.body, spine, ASCENDING, range(arch - round(50.0 / field.mm[0]), arch)
            )
            if not isinstance(root, str):
                aorta |= root[0]
        if isinstance(floor, str):
            return
        if not (lungs.left.any() and lungs.right.any()):
            self.unknown.update(dict.fromkeys(names[:2], "it lies between two lungs, of which one was found"))
            return
        air = field.coarse(self._air(airways))
        both = lungs.left | lungs.right
        middle = find_mediastinum(field, self.body, both, air, bones, spine, cage, above)
        self._keep_blocks("mediastinum", middle, 0.75)
        if self.carina_z is None:
            self.unknown["heart"] = "its roof is told by the carina, which was not found"
            return
        heart = find_heart(field, middle, aorta, air, spine, self.carina_z)
        if isinstance(heart, str):
            self.unknown["heart"] = heart
        else:
            self._keep_blocks("heart", heart, 0.7)

    def _skin(self) -> None:
        self._keep("skin", find_skin(self.field, self.full_body), 0.8)

    def _tissues(self, spine: Spine, cage: Cage, bones: Bool) -> None:
        field = self.field
        envelope = wall_envelope(field, self.body, cage)
        self._keep_blocks("subcutaneous_fat", find_subcutaneous_fat(field, self.body, envelope), 0.8)
        self._keep_blocks("skeletal_muscle", find_muscle(field, envelope, bones, spine, cage), 0.65)
        breasts = find_breasts(field, self.body, spine, cage)
        if isinstance(breasts, str):
            self.unknown.update(dict.fromkeys(("breast_left", "breast_right"), breasts))
        else:
            self._keep_blocks("breast_left", breasts[0], 0.4, "by thickness alone")
            self._keep_blocks("breast_right", breasts[1], 0.4, "by thickness alone")
