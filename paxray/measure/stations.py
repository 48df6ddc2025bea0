"""The lymph node station of the IASLC map in which a node's centroid lies, told from drawn and derived classes.

The map and its borders: Rusch et al., "The IASLC Lung Cancer Staging Project: a proposal for a new international lymph
node map", J Thorac Oncol 2009;4:568-577. A station is told only where all borders that part it from its neighbours are
known; `StationMap` says what is missing otherwise. Borders that no class draws, and what stands in for them:

* *Azygos vein* (4R ends at its lower border): a class ``azygos_vein`` of the user's own where there is one; else the
  carina's level, since the vein arches over the right main bronchus. This stand-in is a convention of this project.
* *Ligamentum arteriosum* (5 lies lateral to it, 4L medial): the line, in the axial plane, from the centre of the
  ascending to that of the descending aorta right below the arch. A convention of this project.
* *"Adjacent"* (10 to the main bronchus, 8 to the oesophagus, 3P to trachea or oesophagus, 7 between the bronchi
  from front to back): within `ADJACENT_MM`. A convention of this project.
* *Lower lobe bronchus, left* (7 ends at its upper border, 8 begins there): where the left main bronchus ends.
* *Bronchus intermedius* (7 and 8 on the right), *pulmonary ligament* (9), *bronchi of lobes and segments* (11 to 14):
  nothing stands in, so that these stations are not told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import Status
from paxray.measure.landmarks import Anatomy, Landmark
from paxray.measure.voxel_set import VoxelSet

Float64 = NDArray[np.float64]

#: A node is adjacent to a structure whose nearest voxel centre is no farther.
ADJACENT_MM = 10.0
#: The aorta's two limbs are taken over this length below the arch.
LIMBS_MM = 10.0
#: The class whose instances have stations.
NODES = "lymph_nodes"
#: Classes that borders are taken from.
BORDERS = (
    "mediastinum",
    "lung_left",
    "lung_right",
    "sternum",
    "trachea",
    "bronchus_main_left",
    "bronchus_main_right",
    "esophagus",
    "aorta_ascending",
    "aorta_arch",
    "aorta_descending",
    "pulmonary_artery",
    "superior_vena_cava",
    "brachiocephalic_vein_left",
    "brachiocephalic_vein_right",
    "common_carotid_artery_left",
    "cricoid_cartilage",
    "azygos_vein",
)


@dataclass(frozen=True)
class Station:
    """What can be told of a node.

    Attributes
    ----------
    name
        ``4R``, ``7``, ...; empty where it cannot be told.
    note
        Why not, or what stood in for a border.
    """

    name: str
    note: str = ""


class _Untold(Exception):  # noqa: N818 (an answer, not a fault)
    """The station cannot be told, for this reason."""


class StationMap:
    """The borders of one case, each worked out when it is first needed.

    Parameters
    ----------
    anatomy
        The case's classes.
    carina
        The landmark.
    """

    def __init__(self, anatomy: Anatomy, carina: Landmark) -> None:
        self._anatomy, self._carina = anatomy, carina
        self._points: dict[str, Float64] = {}
        affine = anatomy.labels.grid.affine
        #: Half a slice: voxels this near to a height are of its slice.
        self._half_mm = float(np.abs(affine[2, :3]).max()) / 2 + 1e-6
        #: Half a voxel along x and along y: voxels this near to a place are of its column and of its row.
        self._half_x_mm, self._half_y_mm = (float(np.abs(affine[n, :3]).max()) / 2 + 1e-6 for n in (0, 1))

    def station(self, at_mm: Float64) -> Station:
        """The station of a node by its centroid, ``(3,)`` LPS mm."""
        try:
            return self._find(*(float(v) for v in at_mm))
        except _Untold as reason:
            return Station("", str(reason))

    # Classes

    def _of(self, name: str) -> Float64:
        """``(n, 3)`` voxel centres of a class, which must be known and have some."""
        if name not in self._points:
            status = self._anatomy.status(name)
            if status not in (Status.PRESENT, Status.PARTIAL):
                word = "nothing is known of" if status is Status.UNKNOWN else "the scan shows no"
                raise _Untold(f"{word} {name.replace('_', ' ')}")
            found = VoxelSet.of(self._anatomy.labels, self._anatomy.boxes_ijk, (name,))
            assert found is not None  # present and partial classes have voxels
            self._points[name] = found.voxels_mm
        return self._points[name]

    def _slice(self, name: str, z: float) -> Float64:
        """Those of a class at a height; it must reach it."""
        points = self._of(name)
        here = points[np.abs(points[:, 2] - z) <= self._half_mm]
        if not len(here):
            raise _Untold(f"the {name.replace('_', ' ')} does not reach the node's level")
        return here

    def _is_known(self, name: str) -> bool:
        return self._anatomy.status(name) in (Status.PRESENT, Status.PARTIAL)

    def _holds(self, name: str, at: Float64) -> bool:
        """Whether a place lies in a class."""
        labels = self._anatomy.labels
        if not self._is_known(name):
            return False
        i, j, k = np.floor(labels.grid.to_index(at) + 0.5).astype(int)
        inside = all(0 <= n < size for n, size in zip((k, j, i), labels.shape, strict=True))
        return inside and bool(labels.membership[labels.atoms[k, j, i], labels.index(name)])

    def _is_near(self, name: str, at: Float64) -> bool:
        return bool(np.linalg.norm(self._of(name) - at, axis=1).min() <= ADJACENT_MM)

    # Levels

    def _arch_mm(self) -> tuple[float, float]:
        """Lower and upper border of the aortic arch."""
        z = self._of("aorta_arch")[:, 2]
        return float(z.min()) - self._half_mm, float(z.max()) + self._half_mm

    def _vein_crossing_mm(self) -> float:
        """The lower border of the left brachiocephalic vein where it crosses the trachea."""
        vein, trachea = self._of("brachiocephalic_vein_left"), self._of("trachea")
        beside = trachea[(trachea[:, 2] >= vein[:, 2].min()) & (trachea[:, 2] <= vein[:, 2].max())]
        if len(beside):
            vein = vein[(vein[:, 0] >= beside[:, 0].min()) & (vein[:, 0] <= beside[:, 0].max())]
        if not len(beside) or not len(vein):
            raise _Untold("the left brachiocephalic vein, which parts 2R and 4R, does not cross the trachea")
        return float(vein[:, 2].min()) - self._half_mm

    def _left_pulmonary_artery_mm(self, carina: Float64) -> float:
        """The upper rim of the left pulmonary artery: of the artery to the left of the carina."""
        artery = self._of("pulmonary_artery")
        left = artery[artery[:, 0] > carina[0]]
        if not len(left):
            raise _Untold("no pulmonary artery lies to the left of the carina")
        return float(left[:, 2].max()) + self._half_mm

    def _azygos_mm(self, carina: Float64) -> tuple[float, str]:
        """Where 4R ends, and what stood in for it."""
        if self._is_known("azygos_vein"):
            return float(self._of("azygos_vein")[:, 2].min()) - self._half_mm, ""
        return float(carina[2]), "the carina's level stood in for the lower border of the azygos vein"

    # The map

    def _find(self, x: float, y: float, z: float) -> Station:
        at = np.array([x, y, z])
        carina = self._carina.position_mm
        if carina is None:
            raise _Untold(f"the carina is {self._carina.status}: {self._carina.reason}")
        for side in ("left", "right"):
            if self._holds(f"lung_{side}", at):
                raise _Untold("it lies in a lung; no class draws the bronchi that part stations 11 to 14")
        self._of("mediastinum")
        if not self._holds("mediastinum", at):
            raise _Untold("it lies outside the mediastinum")
        if z < carina[2]:
            return self._below_carina(at, carina)
        if z > float(self._of("sternum")[:, 2].max()) + self._half_mm:
            return self._above_manubrium(at)
        return self._beside_trachea(at, carina)

    def _above_manubrium(self, at: Float64) -> Station:
        x, _, z = at
        trachea = self._slice("trachea", z)
        side = "L" if x > trachea[:, 0].mean() else "R"
        lung = self._of("lung_left" if side == "L" else "lung_right")
        if z <= float(lung[:, 2].max()) + self._half_mm:
            raise _Untold(
                f"1{side} or 2{side}: it lies between the manubrium's upper border and the lung's apex"
            )
        if z >= float(self._of("cricoid_cartilage")[:, 2].min()):
            raise _Untold("it lies above the lower border of the cricoid cartilage: no station of the map")
        return Station(f"1{side}")

    def _beside_trachea(self, at: Float64, carina: Float64) -> Station:
        """From the manubrium's upper border down to the carina."""
        x, y, z = at
        low, high = self._arch_mm()
        if low <= z <= high and self._beyond_aorta(at):
            return Station("6")
        trachea = self._slice("trachea", z)
        left_border = float(trachea[:, 0].max()) + self._half_x_mm
        if y > trachea[:, 1].max():
            if self._is_near("trachea", at) or self._is_near("esophagus", at):
                return Station("3P")
            raise _Untold("it lies behind the trachea, and is adjacent to neither trachea nor oesophagus")
        if x <= left_border:
            return self._right_of_border(at, carina)
        return self._left_of_border(at, carina, low, high)

    def _beyond_aorta(self, at: Float64) -> bool:
        """In front of the ascending aorta and the arch, or lateral to them, in their axial slice."""
        limbs = [self._of(name) for name in ("aorta_ascending", "aorta_arch")]
        points = np.concatenate(limbs)
        here = points[np.abs(points[:, 2] - at[2]) <= self._half_mm]
        behind = here[np.abs(here[:, 0] - at[0]) <= self._half_x_mm]
        beside = here[np.abs(here[:, 1] - at[1]) <= self._half_y_mm]
        in_front = len(behind) > 0 and at[1] < behind[:, 1].min()
        lateral = len(beside) > 0 and at[0] > beside[:, 0].max()
        return bool(in_front or lateral)

    def _right_of_border(self, at: Float64, carina: Float64) -> Station:
        _, y, z = at
        vein = next(
            (
                name
                for name in ("superior_vena_cava", "brachiocephalic_vein_right")
                if self._is_known(name) and (np.abs(self._of(name)[:, 2] - z) <= self._half_mm).any()
            ),
            None,
        )
        if vein is None:
            raise _Untold(
                "neither superior vena cava nor right brachiocephalic vein is known at the node's level"
            )
        if y < self._slice(vein, z)[:, 1].min():
            return Station("3A")
        if z >= self._vein_crossing_mm():
            return Station("2R")
        # Above the carina; an azygos vein of the user's own may end higher.
        azygos, note = self._azygos_mm(carina)
        if z >= azygos:
            return Station("4R", note)
        if self._is_near("bronchus_main_right", at):
            return Station("10R", note)
        raise _Untold("it lies below the azygos vein and is not adjacent to the right main bronchus")

    def _left_of_border(self, at: Float64, carina: Float64, low: float, high: float) -> Station:
        _, y, z = at
        if z > high:
            carotid = self._slice("common_carotid_artery_left", z)
            return Station("3A" if y < carotid[:, 1].min() else "2L")
        if z >= low:
            return Station("4L")  # what is lateral to the arch has been told
        if z <= self._left_pulmonary_artery_mm(carina):
            if self._is_near("bronchus_main_left", at):
                return Station("10L")
            raise _Untold(
                "it lies below the upper rim of the left pulmonary artery and is not adjacent to the left main bronchus"
            )
        ascending, descending = (self._limb(name, low) for name in ("aorta_ascending", "aorta_descending"))
        along, to = descending - ascending, at[:2] - ascending
        if not 0 <= to @ along <= along @ along:
            raise _Untold("it lies under the arch's level, in front of or behind both limbs of the aorta")
        # Left of the way from front to back: x runs to the left, y to the back.
        lateral = along[0] * to[1] - along[1] * to[0] < 0
        return Station(
            "5" if lateral else "4L",
            "the line between the aorta's two limbs stood in for the ligamentum arteriosum",
        )

    def _limb(self, name: str, arch_low: float) -> Float64:
        """``(2,)`` x, y of the middle of one of the aorta's limbs right below the arch."""
        points = self._of(name)
        near = points[points[:, 2] > arch_low - LIMBS_MM]
        if not len(near):
            raise _Untold(f"the {name.replace('_', ' ')} does not reach the arch")
        return np.asarray(near[:, :2].mean(axis=0))

    def _below_carina(self, at: Float64, carina: Float64) -> Station:
        x, _, z = at
        left, right = self._of("bronchus_main_left"), self._of("bronchus_main_right")
        if z >= float(left[:, 2].min()) - self._half_mm:
            here = self._slice("bronchus_main_left", z)
            # The right bronchus is shorter: where it has ended, its last slice.
            away = np.abs(right[:, 2] - z)
            there = right[away <= away.min() + 1e-6]
            middle = float(here[:, 0].mean())
            if there[:, 0].mean() < x < middle:
                y = np.concatenate([here, there])[:, 1]
                if y.min() - ADJACENT_MM <= at[1] <= y.max() + ADJACENT_MM:
                    return Station("7")
                raise _Untold("it lies in front of the space between the main bronchi, or behind it")
            side, name = ("L", "bronchus_main_left") if x >= middle else ("R", "bronchus_main_right")
            if not self._is_near(name, at):
                raise _Untold(f"it lies beside the {name.replace('_', ' ')}, and is not adjacent to it")
            if side == "R":
                return Station("10R", self._azygos_mm(carina)[1])
            if z > self._left_pulmonary_artery_mm(carina):
                raise _Untold("it lies above the left pulmonary artery and below the carina")
            return Station("10L")
        if not self._is_near("esophagus", at):
            raise _Untold("below the left main bronchus, and not adjacent to the oesophagus: 9, or none")
        if x <= carina[0]:
            raise _Untold("7 or 8R: no class draws the bronchus intermedius, whose lower border parts them")
        return Station("8L")
