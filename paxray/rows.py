"""A case's rows in the tables of a data set, from its projections."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.film import Film, film_status
from paxray.anatomy.labels import Status
from paxray.dataset.rle import encode_mask
from paxray.filmed import film_columns
from paxray.io.cases import Case
from paxray.projection.project import Projection
from paxray.projection.view import View
from paxray.radiography.signal import encode_signal
from paxray.segmentation.body import BODY, row_ends
from paxray.segmentation.combine import disputed_column
from paxray.subject import Shot, Subject


@dataclass(frozen=True, eq=False)
class Rows:
    """What a case adds to its shard."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    landmarks: list[dict[str, Any]] = field(default_factory=list)
    measures: list[dict[str, Any]] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


def png_bytes(image: NDArray[np.integer]) -> bytes:
    """A PNG of ``(rows, columns)``, 8 or 16 bits as the array, or of ``(rows, columns, 3)``."""
    import zlib

    from PIL import Image

    buffer = io.BytesIO()
    # A radiograph's grain holds no repeats worth searching for: runs alone give the same size in a fifth of the time.
    Image.fromarray(np.ascontiguousarray(image)).save(
        buffer, format="PNG", compress_level=3, compress_type=zlib.Z_RLE
    )
    return buffer.getvalue()


def sample_row(case: Case, shot: Shot) -> dict[str, Any]:
    """A sample's row but for its ids: pictures, geometry, appearance, and the case's own columns."""
    projection = shot.projection
    assert projection.image is not None
    assert projection.incomplete is not None
    signal = encode_signal(projection.image)
    name = f"{case.case_id}_{projection.view.name}"
    geometry = projection.view.to_dict()
    del geometry["view"]
    return {
        "source": case.source,
        "license": case.license,
        "image": {"bytes": png_bytes(shot.image), "path": f"{name}.png"},
        "signal": {"bytes": png_bytes(signal.values), "path": f"{name}_signal.png"},
        "signal_scale": signal.scale,
        "signal_offset": signal.offset,
        "incomplete": encode_mask(projection.incomplete),
        "incomplete_px": int(projection.incomplete.sum()),
        "body_px": int(projection.mask(BODY).sum()) if BODY in projection.names else None,
        **geometry,
        "appearance": json.dumps(shot.appearance),
        **case.extra,
    }


def finding_rows(subject: Subject) -> list[dict[str, Any]]:
    """What is implausible about a case's masks, a row each."""
    return [
        {
            "finding": finding.name,
            "severity": finding.severity,
            "action": action,
            "classes": list(finding.classes),
            "message": finding.message,
            "value": finding.value,
            "limit": finding.limit,
            "unit": finding.unit,
        }
        for finding, action in subject.findings
    ]


def rows_of_view(
    subject: Subject, projection: Projection, categories: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one view, by table: labels (each class put out, in catalog order), landmarks, measures, instances."""
    measured = subject.measured
    if measured is None:
        return {"labels": label_rows(subject, projection, categories, {})}
    from paxray.measured import landmark_rows, lesion_columns, measure_rows, unhidden_shares

    unhidden = unhidden_shares(measured, subject.labels, projection)
    return {
        "labels": label_rows(subject, projection, categories, unhidden),
        "landmarks": landmark_rows(measured, projection.view),
        "measures": measure_rows(measured, projection, _status_on_view(subject, projection.view)),
        "instances": [
            lesion_columns(measured, lesion, categories[lesion.name])
            | {"cut_by_ct": subject.cut_by_ct[lesion.column]}
            | _seen(subject, projection, lesion.column, unhidden)
            for lesion in measured.lesions
            if lesion.name in subject.classes
        ],
    }


def label_rows(
    subject: Subject, projection: Projection, categories: dict[str, int], unhidden: dict[str, float]
) -> list[dict[str, Any]]:
    """One row for each class that is to come out, in catalog order: status, mask and facts."""
    rows = []
    for name in subject.classes:
        if name in subject.films:
            common = {"class": name, "category_id": categories[name]}
            rows.append(common | _film_row(subject, projection, subject.films[name]))
            continue
        known = name in subject.labels.names
        status = subject.labels.status[name] if known else Status.UNKNOWN
        row: dict[str, Any] = {"class": name, "category_id": categories[name], "status": status.value}
        row["note"] = subject.labels.notes.get(name)
        if known and status in (Status.PRESENT, Status.PARTIAL):
            row["confidence"] = subject.labels.confidence.get(name)
            row["added_voxels"] = subject.labels.added_voxels[name]
            row["cut_by_ct"] = subject.cut_by_ct[name]
            row |= _in_3d(subject, name)
            row |= _seen(subject, projection, name, unhidden)
        rows.append(row | _disputed(subject, projection, disputed_column(name)))
    return rows


def _disputed(subject: Subject, projection: Projection, column: str) -> dict[str, Any]:
    """Where segmenters that know of a class disagree; nothing where fewer than two do."""
    if column not in subject.labels.names or subject.measured is None:
        return {}
    voxels = subject.labels.voxel_counts()[column]
    row: dict[str, Any] = {"disputed_mm3": voxels * subject.mu.grid.voxel_volume_mm3, "disputed_px": 0}
    if not voxels:
        return row
    mask = projection.mask(column)
    return row | {"disputed_px": int(mask.sum()), "disputed": encode_mask(mask) if mask.any() else None}


def _film_row(subject: Subject, projection: Projection, film: Film) -> dict[str, Any]:
    """A class of the film; the scan and the picture's border cut it where they cut the class looked at."""
    status, note = film_status(film, subject.labels)
    row: dict[str, Any] = {"status": status.value, "note": note}
    if status not in (Status.PRESENT, Status.PARTIAL):
        return row
    row["cut_by_ct"] = subject.cut_by_ct[film.of]
    return row | film_columns(film, projection, _view_status(subject, projection, film.of))


def _in_3d(subject: Subject, name: str) -> dict[str, Any]:
    if subject.measured is not None:
        from paxray.measured import solid_columns

        return solid_columns(subject.measured.solids[name])
    return {"volume_mm3": subject.labels.voxel_counts()[name] * subject.mu.grid.voxel_volume_mm3}


def _status_on_view(subject: Subject, view: View) -> dict[str, str]:
    """Status of what is measured on a view; ``cut`` where the scan or the picture's border cuts it off."""
    from paxray.measure.radiology import ON_VIEW, is_frontal

    out: dict[str, str] = {}
    for name in ON_VIEW if is_frontal(view) else ():
        status = subject.labels.status.get(name, Status.UNKNOWN)
        has_voxels = status in (Status.PRESENT, Status.PARTIAL)
        cut = has_voxels and (subject.cut_by_ct[name] or not _in_field(subject, view, name).all())
        out[name] = "cut" if cut else status.value
    return out


def _seen(subject: Subject, projection: Projection, name: str, unhidden: dict[str, float]) -> dict[str, Any]:
    """A present class, or a lesion, in one view."""
    assert projection.facts is not None
    fact = projection.facts[projection.index(name)]
    pixels = int(fact["pixels"])
    view_status = _view_status(subject, projection, name)
    if pixels == 0:
        return {"view_status": view_status, "area_px": 0, "area_mm2": 0.0}
    left, right, top, bottom = (int(fact[k]) for k in ("column_min", "column_max", "row_min", "row_max"))
    return {
        "view_status": view_status,
        # Whoever only looks keeps masks as pictures.
        **({"mask": encode_mask(projection.mask(name))} if subject.measured is not None else {}),
        "area_px": pixels,
        "area_mm2": pixels * projection.view.pixel_area_mm2,
        "bbox": [left, top, right - left + 1, bottom - top + 1],
        "centroid_px": [float(fact["column_sum"] / pixels), float(fact["row_sum"] / pixels)],
        "path_mean_mm": float(fact["path_sum_mm"] / pixels),
        "path_max_mm": float(fact["path_max_mm"]),
        "entry_mean_mm": float(fact["entry_sum_mm"] / pixels),
        "exit_mean_mm": float(fact["exit_sum_mm"] / pixels),
        **({"unhidden_share": unhidden[name]} if unhidden else {}),
    }


def _view_status(subject: Subject, projection: Projection, name: str) -> str:
    """How much of a class a view shows."""
    assert projection.facts is not None
    if not projection.facts[projection.index(name)]["pixels"]:
        return _why_unseen(subject, projection.view, name)
    return "whole" if _in_field(subject, projection.view, name).all() else "cut"


def _why_unseen(subject: Subject, view: View, name: str) -> str:
    """``below_pixel`` where a voxel centre lands in the field though no ray met the class, else ``outside``."""
    k, j, i = np.nonzero(subject.labels.mask(name))
    return "below_pixel" if _lands(subject, view, np.column_stack([i, j, k])).any() else "outside"


def _in_field(subject: Subject, view: View, name: str) -> NDArray[np.bool_]:
    """Which points of a hull of the class land on the detector; all of them: no voxel centre lies beyond it.

    The hull is that of the atoms' bounding boxes where these fit, else of the class itself: both a picture and a
    hull are convex, so that points suffice.
    """
    column = subject.labels.membership[:, subject.labels.index(name)]
    boxes = subject.atom_boxes_ijk[np.flatnonzero(column)]
    corner = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners = np.where(corner[None], boxes[:, None, 1], boxes[:, None, 0]).reshape(-1, 3)
    fits = _lands(subject, view, corners)
    return fits if fits.all() else _lands(subject, view, np.concatenate(row_ends(subject.labels.mask(name))))


def _lands(subject: Subject, view: View, index_ijk: NDArray[Any]) -> NDArray[np.bool_]:
    """Which voxel centres project onto the detector."""
    pixel = view.project_points(subject.mu.grid.to_world(index_ijk))
    middle, half = np.array([view.columns - 1, view.rows - 1]) / 2, np.array([view.columns, view.rows]) / 2
    return np.asarray((np.abs(pixel - middle) <= half).all(axis=1))
