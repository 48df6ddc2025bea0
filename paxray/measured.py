"""What is measured of a case, and the rows that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Volume
from paxray.measure.landmarks import Anatomy, Landmark, find_landmarks, project_landmark
from paxray.measure.lesions import axial_axes_mm
from paxray.measure.occlusion import hiders, unhidden_pixels
from paxray.measure.radiology import Measure, measure_case, measure_view
from paxray.measure.solids import Solid, solids
from paxray.measure.stations import NODES, Station, StationMap
from paxray.measure.voxel_set import VoxelSet
from paxray.projection.project import Projection
from paxray.projection.view import View
from paxray.segmentation.combine import disputed_column
from paxray.segmentation.instances import Lesion


@dataclass(frozen=True, eq=False)
class Measured:
    """What all views of a case share.

    Attributes
    ----------
    solids
        By class, of those with voxels.
    axes_mm
        Long and short axis of each lesion, by its column.
    stations
        By the column of each lymph node whose source gives no station: what can be derived.
    groups
        Class to group, for who hides whom.
    """

    solids: Mapping[str, Solid]
    landmarks: tuple[Landmark, ...]
    measures: tuple[Measure, ...]
    lesions: tuple[Lesion, ...]
    axes_mm: Mapping[str, tuple[float, float]]
    stations: Mapping[str, Station]
    groups: Mapping[str, str]


def measure(
    ct: Volume,
    labels: LabelVolume,
    lesions: tuple[Lesion, ...],
    boxes_ijk: NDArray[np.int64],
    cut_by_ct: Mapping[str, bool],
    catalog: Catalog,
) -> Measured:
    """Measure a case in 3D.

    Parameters
    ----------
    ct
        HU.
    labels
        With all derived classes, and a column for each lesion.
    boxes_ijk
        ``(n_atoms, 2, 3)`` first and last voxel (i, j, k) of each atom.
    """
    found = solids(labels, ct)
    anatomy = Anatomy(labels, boxes_ijk, found, cut_by_ct)
    landmarks = find_landmarks(anatomy)
    axes = {}
    for lesion in lesions:
        region = VoxelSet.of(labels, boxes_ijk, [lesion.column])
        assert region is not None  # a lesion is an id that has voxels
        axes[lesion.column] = axial_axes_mm(region)
    stations = {}
    nodes = [lesion.column for lesion in lesions if lesion.name == NODES and not lesion.station]
    if nodes:
        carina = next(landmark for landmark in landmarks if landmark.name == "carina")
        borders = StationMap(anatomy, carina)
        stations = {column: borders.station(found[column].centroid_mm) for column in nodes}
    return Measured(
        solids=found,
        landmarks=landmarks,
        measures=measure_case(anatomy, landmarks),
        lesions=lesions,
        axes_mm=axes,
        stations=stations,
        groups={name: item.group for name, item in catalog.items()},
    )


def channels(measured: Measured, labels: LabelVolume, classes: tuple[str, ...]) -> list[str]:
    """What a view is projected for: classes put out, their lesions and disputed voxels, and all that may hide them."""
    known = {lesion.column for lesion in measured.lesions if lesion.name in classes}
    disputed = {disputed_column(name) for name in classes}
    wanted = set(classes) | known | disputed | measured.groups.keys()
    return [name for name in labels.names if name in wanted and name in measured.solids]


def unhidden_shares(measured: Measured, labels: LabelVolume, projection: Projection) -> dict[str, float]:
    """Of each class with pixels, the share of them whose ray meets nothing denser; see `paxray.measure.occlusion`."""
    assert projection.presence is not None
    assert projection.facts is not None
    hides = hiders(projection.names, labels, measured.solids, measured.groups)
    free = unhidden_pixels(projection.presence, hides)
    return {
        name: float(count / pixels)
        for name, count, pixels in zip(projection.names, free, projection.facts["pixels"], strict=True)
        if pixels
    }


def solid_columns(solid: Solid) -> dict[str, Any]:
    """A class's facts in 3D."""
    return {
        "volume_mm3": solid.volume_mm3,
        "surface_mm2": solid.surface_mm2,
        "hu_mean": solid.hu_mean,
        "hu_sd": solid.hu_sd,
        "centroid_mm": solid.centroid_mm.tolist(),
        "extent_mm": solid.extent_mm.tolist(),
    }


def lesion_columns(measured: Measured, lesion: Lesion, category: int) -> dict[str, Any]:
    """What is known of a lesion, in 3D."""
    long_axis, short_axis = measured.axes_mm[lesion.column]
    derived = measured.stations.get(lesion.column, Station(""))
    source = "given" if lesion.station else "derived" if derived.name else None
    return {
        "instance_id": lesion.number,
        "class": lesion.name,
        "category_id": category,
        "station": lesion.station or derived.name or None,
        "station_source": source,
        "note": derived.note or None,
        "long_axis_mm": long_axis,
        "short_axis_mm": short_axis,
        **solid_columns(measured.solids[lesion.column]),
    }


def landmark_rows(measured: Measured, view: View) -> list[dict[str, Any]]:
    """One row per landmark."""
    rows = []
    for landmark in measured.landmarks:
        pixel, in_field = project_landmark(landmark, view)
        rows.append(
            {
                "landmark": landmark.name,
                "status": landmark.status,
                "reason": landmark.reason or None,
                "position_mm": None if landmark.position_mm is None else landmark.position_mm.tolist(),
                "pixel": None if pixel is None else list(pixel),
                "in_field": in_field,
            }
        )
    return rows


def measure_rows(
    measured: Measured, projection: Projection, status: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row per measure: those of the case, and those of this view; `status` as in `measure_view`."""
    found = (*measured.measures, *measure_view(projection, status))
    return [
        {"measure": m.name, "value": m.value, "unit": m.unit, "status": m.status, "reason": m.reason or None}
        for m in found
    ]
