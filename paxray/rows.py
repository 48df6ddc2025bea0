"""A case's rows in the tables of a data set, from its projections."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from functools import cached_property
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


@dataclass(frozen=True, eq=False)
class _Field:
    """What of a subject lands on a view's detector."""

    subject: Subject
    view: View

    def holds(self, name: str) -> bool:
        """Whether no voxel centre of a class lies beyond the field.

        The body's hull tells of a class within the body, atoms' bounding boxes where they fit, else a hull of the class
        itself. Both a picture and a hull are convex, so that points suffice.
        """
        labels = self.subject.labels
        column = labels.membership[:, labels.index(name)]
        # Recipes can lead out of the body.
        within = labels.membership[column, labels.index(BODY)].all()
        if (within and self._body_fits) or self._boxes_fit[column].all():
            return True
        return bool(self.lands(np.concatenate(row_ends(labels.atoms, column))).all())

    @cached_property
    def _body_fits(self) -> bool:
        """Whether the whole body lands in the field."""
        return bool(self._in_field(self.subject.extent_mm).all())

    @cached_property
    def _boxes_fit(self) -> NDArray[np.bool_]:
        """Whether all corners of an atom's bounding box land in the field, ``(n_atoms,)``."""
        boxes = self.subject.atom_boxes_ijk
        corner = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        corners = np.where(corner[None], boxes[:, None, 1], boxes[:, None, 0])
        return np.logical_and.reduce(self.lands(corners.reshape(-1, 3)).reshape(len(boxes), 8), axis=1)

    def lands(self, index_ijk: NDArray[Any]) -> NDArray[np.bool_]:
        """Which voxel centres project onto the detector."""
        return self._in_field(self.subject.mu.grid.to_world(index_ijk))

    def _in_field(self, points_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which world points project onto the detector."""
        view = self.view
        pixel = view.project_points(points_mm)
        middle, half = (
            np.array([view.columns - 1, view.rows - 1]) / 2,
            np.array([view.columns, view.rows]) / 2,
        )
        return np.asarray((np.abs(pixel - middle) <= half).all(axis=1))


def png_bytes(image: NDArray[np.integer | np.bool_]) -> bytes:
    """A PNG of ``(rows, columns)``, 1, 8 or 16 bits as the array, or of ``(rows, columns, 3)``."""
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
    sight = _Field(subject, projection.view)
    if measured is None:
        return {"labels": label_rows(sight, projection, categories, {})}
    from paxray.measured import landmark_rows, lesion_columns, measure_rows, unhidden_shares

    unhidden = unhidden_shares(measured, subject.labels, projection)
    return {
        "labels": label_rows(sight, projection, categories, unhidden),
        "landmarks": landmark_rows(measured, projection.view),
        "measures": measure_rows(measured, projection, _status_on_view(sight)),
        "instances": [
            lesion_columns(measured, lesion, categories[lesion.name])
            | {"cut_by_ct": subject.cut_by_ct[lesion.column]}
            | _seen(sight, projection, lesion.column, unhidden)
            for lesion in measured.lesions
            if lesion.name in subject.classes
        ],
    }


def label_rows(
    sight: _Field, projection: Projection, categories: dict[str, int], unhidden: dict[str, float]
) -> list[dict[str, Any]]:
    """One row for each class that is to come out, in catalog order: status, mask and facts."""
    subject, rows = sight.subject, []
    voxels = subject.labels.voxel_counts()
    for name in subject.classes:
        if name in subject.films:
            common = {"class": name, "category_id": categories[name]}
            rows.append(common | _film_row(sight, projection, subject.films[name]))
            continue
        known = name in subject.labels.names
        status = subject.labels.status[name] if known else Status.UNKNOWN
        row: dict[str, Any] = {"class": name, "category_id": categories[name], "status": status.value}
        row["note"] = subject.labels.notes.get(name)
        if known and status in (Status.PRESENT, Status.PARTIAL):
            row["confidence"] = subject.labels.confidence.get(name)
            row["added_voxels"] = subject.labels.added_voxels[name]
            row["cut_by_ct"] = subject.cut_by_ct[name]
            row |= _in_3d(subject, name, voxels[name])
            row |= _seen(sight, projection, name, unhidden)
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


def _film_row(sight: _Field, projection: Projection, film: Film) -> dict[str, Any]:
    """A class of the film; the scan and the picture's border cut it where they cut the class looked at."""
    status, note = film_status(film, sight.subject.labels)
    row: dict[str, Any] = {"status": status.value, "note": note}
    if status not in (Status.PRESENT, Status.PARTIAL):
        return row
    row["cut_by_ct"] = sight.subject.cut_by_ct[film.of]
    return row | film_columns(film, projection, _view_status(sight, projection, film.of))


def _in_3d(subject: Subject, name: str, voxels: int) -> dict[str, Any]:
    if subject.measured is not None:
        from paxray.measured import solid_columns

        return solid_columns(subject.measured.solids[name])
    return {"volume_mm3": voxels * subject.mu.grid.voxel_volume_mm3}


def _status_on_view(sight: _Field) -> dict[str, str]:
    """Status of what is measured on a view; ``cut`` where the scan or the picture's border cuts it off."""
    from paxray.measure.radiology import ON_VIEW, is_frontal

    subject, out = sight.subject, dict[str, str]()
    for name in ON_VIEW if is_frontal(sight.view) else ():
        status = subject.labels.status.get(name, Status.UNKNOWN)
        has_voxels = status in (Status.PRESENT, Status.PARTIAL)
        cut = has_voxels and (subject.cut_by_ct[name] or not sight.holds(name))
        out[name] = "cut" if cut else status.value
    return out


def _seen(sight: _Field, projection: Projection, name: str, unhidden: dict[str, float]) -> dict[str, Any]:
    """A present class, or a lesion, in one view."""
    assert projection.facts is not None
    fact = projection.facts[projection.index(name)]
    pixels = int(fact["pixels"])
    view_status = _view_status(sight, projection, name)
    if pixels == 0:
        return {"view_status": view_status, "area_px": 0, "area_mm2": 0.0}
    left, right, top, bottom = (int(fact[k]) for k in ("column_min", "column_max", "row_min", "row_max"))
    return {
        "view_status": view_status,
        # Whoever only looks keeps masks as pictures.
        **({"mask": encode_mask(projection.mask(name))} if sight.subject.measured is not None else {}),
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


def _view_status(sight: _Field, projection: Projection, name: str) -> str:
    """How much of a class a view shows."""
    assert projection.facts is not None
    if not projection.facts[projection.index(name)]["pixels"]:
        return _why_unseen(sight, name)
    return "whole" if sight.holds(name) else "cut"


def _why_unseen(sight: _Field, name: str) -> str:
    """``below_pixel`` where a voxel centre lands in the field though no ray met the class, else ``outside``."""
    k, j, i = np.nonzero(sight.subject.labels.mask(name))
    return "below_pixel" if sight.lands(np.column_stack([i, j, k])).any() else "outside"
