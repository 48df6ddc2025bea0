"""Radiological measures, each by a published rule; see `RULES`. Lengths are in mm of the patient, not of the film."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.division import BRONCHUS_MM2, first_division
from paxray.anatomy.labels import Status
from paxray.measure.landmarks import (
    BENEATH,
    Anatomy,
    Landmark,
    airway,
)
from paxray.measure.voxel_set import VoxelSet
from paxray.projection.project import Projection
from paxray.projection.view import View

Float64 = NDArray[np.float64]

#: The main bronchi's axes are fitted over this length below the carina, mm; over less, down to the second, the angle is
#: that of what is known of them.
BRONCHI_MM, BRONCHI_AT_LEAST_MM = 20.0, 8.0
#: Vertebrae needed for the spine's line.
LINE_NEEDS = 4
#: A view is frontal where its rows run along the patient's left-right axis and its columns along the body.
FRONTAL_COSINE = 0.99

#: Name, unit and rule with its source.
RULES: dict[str, tuple[str, str]] = {
    "cardiothoracic_ratio": (
        "1",
        "on the frontal projection, the heart's greatest width over the thorax's greatest inner width, taken from the "
        "outer borders of both lungs (Danzer, Am J Med Sci 1919)",
    ),
    **{
        f"lung_height_{side}": (
            "mm",
            "from the apex of the lung down to the dome of its hemidiaphragm, along the body",
        )
        for side in ("left", "right")
    },
    "kyphosis_angle": (
        "degree",
        "centroid angle T4-T12: between the line through the centroids of T4 and T5 and that through those of T11 and "
        "T12, in the sagittal plane; smaller than Cobb's, which reaches from endplate to endplate (Harrison et al., "
        "Spine 2001; Briggs et al., Skeletal Radiol 2007). Centroids are those of whole vertebrae",
    ),
    "spine_centre_distance": (
        "mm",
        "mean distance of the vertebrae's centroids from the straight line fitted through them, in the frontal plane "
        "(as in CXAS, Seibold et al. 2023)",
    ),
    "carinal_angle": (
        "degree",
        "between the axes of the main bronchi, in the frontal plane: lines fitted to the centres of their slices over "
        "20 mm below the carina (interbronchial angle); partial where the bronchi are known over less, down to 8 mm",
    ),
    "aortic_width": (
        "mm",
        "aortic knob: from the left border of the trachea to the left border of the knob, at the knob's level, as knob "
        "width is usually read on films; taken in 3D it is a convention of this project; unknown where the knob does "
        "not lie to the left of the trachea",
    ),
}


@dataclass(frozen=True)
class Measure:
    """A measure of a case, or of one of its views.

    Attributes
    ----------
    status
        The worst of what it was measured on: ``present``, ``partial``, ``cut``; ``absent`` and ``unknown`` have no
        value.
    reason
        Why it is not simply present.
    """

    name: str
    value: float | None
    status: str
    reason: str = ""

    @property
    def unit(self) -> str:
        """``mm``, ``degree`` or ``1``."""
        return RULES[self.name][0]


#: What the measures of a view are taken on.
ON_VIEW = ("heart", "lung_left", "lung_right")
#: Classes that landmarks and measures are found in and that may have to be derived for them.
FOUND_IN = (
    "trachea",
    "airways",
    "aorta",
    *ON_VIEW,
    *sorted({name for names in BENEATH.values() for name in names}),
)
_WORSE = ("present", "partial", "cut", "absent", "unknown")


def measure_case(anatomy: Anatomy, landmarks: Iterable[Landmark]) -> tuple[Measure, ...]:
    """All measures that are taken in 3D, in the order of `RULES`."""
    points = {landmark.name: landmark for landmark in landmarks}
    return (
        *(_lung_height(points, side) for side in ("left", "right")),
        _kyphosis(points),
        _spine_centre_distance(points),
        _carinal_angle(anatomy),
        _aortic_width(anatomy, points),
    )


def measure_view(projection: Projection, view_status: Mapping[str, str]) -> tuple[Measure, ...]:
    """All measures that are taken on a projection; none where it is not frontal.

    Parameters
    ----------
    projection
        With ``presence``.
    view_status
        By class: a `Status`, or ``cut`` where the scan or the picture's border cuts it off.
    """
    if not is_frontal(projection.view):
        return ()
    return (_cardiothoracic_ratio(projection, view_status),)


def is_frontal(view: View) -> bool:
    """Whether rows run along the patient's left-right axis and columns along the body."""
    return bool(abs(view.u[0]) > FRONTAL_COSINE and abs(view.v[2]) > FRONTAL_COSINE)


def _lung_height(points: Mapping[str, Landmark], side: str) -> Measure:
    apex, dome = points[f"lung_apex_{side}"], points[f"hemidiaphragm_dome_{side}"]

    def height() -> float:
        assert apex.position_mm is not None
        assert dome.position_mm is not None
        return float(apex.position_mm[2] - dome.position_mm[2])

    status, reason = _worst([apex, dome])
    return Measure(f"lung_height_{side}", height() if _has_value(status) else None, status, reason)


def _kyphosis(points: Mapping[str, Landmark]) -> Measure:
    levels = [points[f"vertebra_{level}"] for level in ("T4", "T5", "T11", "T12")]
    status, reason = _worst(levels)
    if not _has_value(status):
        return Measure("kyphosis_angle", None, status, reason)
    t4, t5, t11, t12 = (np.asarray(level.position_mm) for level in levels)
    # Downward, a kyphotic spine first runs backward and then forward.
    upper, lower = (np.arctan2(b[1] - a[1], a[2] - b[2]) for a, b in ((t4, t5), (t11, t12)))
    return Measure("kyphosis_angle", float(np.degrees(upper - lower)), status, reason)


def _spine_centre_distance(points: Mapping[str, Landmark]) -> Measure:
    name = "spine_centre_distance"
    whole = [p for n, p in points.items() if n.startswith("vertebra_") and p.status == "present"]
    if len(whole) < LINE_NEEDS:
        return Measure(
            name, None, "unknown", f"{len(whole)} whole vertebrae are known, {LINE_NEEDS} are needed"
        )
    x, _, z = np.stack([np.asarray(p.position_mm) for p in whole]).T
    slope, start = np.polyfit(z, x, 1)
    off = np.abs(x - start - slope * z) / np.hypot(1, slope)
    return Measure(name, float(off.mean()), "present")


def _carinal_angle(anatomy: Anatomy) -> Measure:
    name = "carinal_angle"
    status = anatomy.status("trachea")
    if status in (Status.UNKNOWN, Status.ABSENT):
        reason = "nothing is known of the trachea" if status is Status.UNKNOWN else "no trachea was found"
        return Measure(name, None, status.value, reason)
    region = airway(anatomy)
    first = first_division(region, BRONCHUS_MM2)
    if first is None:
        return Measure(name, None, "unknown", "the airway does not divide in the scan")
    left, right = bronchi_centres_mm(region, first)
    reach = min((abs(side[0, 2] - side[-1, 2]) for side in (left, right) if len(side)), default=0.0)
    if min(len(left), len(right)) < 3 or reach < BRONCHI_AT_LEAST_MM:
        return Measure(
            name,
            None,
            "unknown",
            f"the bronchi are known over {reach:.0f} mm, {BRONCHI_AT_LEAST_MM:.0f} mm are needed",
        )
    # Frontal plane: how far each axis runs outward for each mm downward.
    outward = [np.polyfit(-side[:, 2], side[:, 0], 1)[0] for side in (left, right)]
    angle = float(np.degrees(np.arctan(outward[0]) - np.arctan(outward[1])))
    if status is Status.PARTIAL:
        return Measure(name, angle, "partial", "trachea is known in part only")
    if reach < BRONCHI_MM - region.step_mm - 1e-6:
        short = f"the bronchi are known over {reach:.0f} mm of {BRONCHI_MM:.0f} mm: the angle may be that of stumps"
        return Measure(name, angle, "partial", short)
    return Measure(name, angle, "present")


def bronchi_centres_mm(region: VoxelSet, first: int) -> tuple[Float64, Float64]:
    """``(n, 3)`` centres, slice by slice down from slice `first`, of the left and of the right main bronchus.

    In each slice the airway's largest part on either side of the middle of the first slice's two; it ends where one
    side has none.
    """
    slices = region.slices_from_above()

    def centres(n: int) -> list[Float64]:
        index, plane = slices[n]
        parts = region.parts(plane, BRONCHUS_MM2)
        return [region.to_world(index, part).mean(axis=0) for part in parts]

    top = centres(first)[:2]
    middle = (top[0] + top[1]) / 2
    left: list[Float64] = []
    right: list[Float64] = []
    for n in range(first, len(slices)):
        here = centres(n)
        on_left = [c for c in here if c[0] > middle[0]]
        on_right = [c for c in here if c[0] <= middle[0]]
        if not on_left or not on_right or middle[2] - here[0][2] > BRONCHI_MM:
            break
        left.append(on_left[0])
        right.append(on_right[0])
    return np.reshape(left, (-1, 3)), np.reshape(right, (-1, 3))


def _aortic_width(anatomy: Anatomy, points: Mapping[str, Landmark]) -> Measure:
    name = "aortic_width"
    knob = points["aortic_knob"]
    status, reason = _worst([knob])
    if not _has_value(status):
        return Measure(name, None, status, reason)
    assert knob.position_mm is not None
    known = anatomy.status("trachea")
    if known is Status.UNKNOWN:
        return Measure(name, None, "unknown", "nothing is known of the trachea")
    trachea = VoxelSet.of(anatomy.labels, anatomy.boxes_ijk, ("trachea",))
    if trachea is None:
        return Measure(name, None, "absent", "no trachea was found")
    every = trachea.voxels_mm
    level = np.abs(every[:, 2] - knob.position_mm[2])
    near = every[level <= np.abs(trachea.grid.affine[2, :3]).max() / 2 + 1e-6]
    if not len(near):
        return Measure(name, None, "unknown", "the trachea does not reach the aortic knob's level")
    # Both ends are voxel centres, so the half voxels beyond them cancel.
    value = float(knob.position_mm[0] - near[:, 0].max())
    if value <= 0:
        return Measure(name, None, "unknown", "the aortic knob does not lie to the left of the trachea")
    if known is Status.PARTIAL and status == "present":
        return Measure(name, value, "partial", "trachea is known in part only")
    return Measure(name, value, status, reason)


def _cardiothoracic_ratio(projection: Projection, view_status: Mapping[str, str]) -> Measure:
    name = "cardiothoracic_ratio"
    needs = ON_VIEW
    for status, reason in (("unknown", "nothing is known of {}"), ("absent", "no {} was found")):
        missing = [n for n in needs if view_status.get(n, "unknown") == status]
        if missing:
            return Measure(name, None, status, reason.format(missing[0].replace("_", " ")))
    unseen = [n for n in needs if n not in projection.names or not projection.mask(n).any()]
    if unseen:
        return Measure(name, None, "cut", f"no ray meets {unseen[0].replace('_', ' ')}")
    heart = projection.mask("heart")
    lungs = projection.mask("lung_left") | projection.mask("lung_right")
    value = width_px(heart) / widest_row_px(lungs)
    for status, reason in (("cut", "{} is cut off"), ("partial", "{} is known in part only")):
        found = [n for n in needs if view_status[n] == status]
        if found:
            return Measure(name, value, status, reason.format(found[0].replace("_", " ")))
    return Measure(name, value, "present")


def width_px(mask: NDArray[np.bool_]) -> int:
    """Columns from the first to the last that a mask has pixels in: both borders may lie in different rows."""
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def widest_row_px(mask: NDArray[np.bool_]) -> int:
    """The largest distance between a mask's first and last pixel in one row."""
    rows = mask[mask.any(axis=1)]
    first = rows.argmax(axis=1)
    last = mask.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    return int((last - first).max() + 1)


def _worst(points: Sequence[Landmark]) -> tuple[str, str]:
    """The worst status of some landmarks, and its reason."""
    worst = max(points, key=lambda point: _WORSE.index(point.status))
    name = worst.name.replace("_", " ")
    return worst.status, f"{name}: {worst.reason}" if worst.reason else ""


def _has_value(status: str) -> bool:
    return status not in ("absent", "unknown")
