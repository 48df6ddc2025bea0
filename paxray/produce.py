"""One case through all rooms: read, derive, attenuate, project, picture; out come its rows."""

from __future__ import annotations

import io
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.film import Film, film_status
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.recipes.engine import derive
from paxray.anatomy.voxels import value_boxes
from paxray.config import Pipeline
from paxray.dataset.invariants import require_consistent
from paxray.dataset.rle import encode_mask
from paxray.errors import CaseError, ConfigError
from paxray.filmed import film_columns
from paxray.io.cases import Case
from paxray.io.volume import Volume
from paxray.parallel import at_most
from paxray.physics.attenuation import attenuate
from paxray.projection.pose import place
from paxray.projection.project import Device, Projection, project, resolve_device
from paxray.projection.view import View
from paxray.radiography.display import render_display
from paxray.radiography.signal import encode_signal
from paxray.reading import read_case
from paxray.segmentation.body import BODY, UNSCANNED, body_extent, body_faces, row_ends, with_body
from paxray.segmentation.instances import with_lesions
from paxray.warmup import warm_up

if TYPE_CHECKING:
    from paxray.measured import Measured
    from paxray.projection.cuda.resident import Resident

#: Versions of what decides an output; raised when a change would alter the bytes of a data set.
STAGE_VERSIONS = {
    "io": 1,
    "body": 2,
    "anatomy": 3,
    "measure": 2,
    "physics": 1,
    "projection": 2,
    "radiography": 1,
    "rows": 4,
}


@dataclass
class Clock:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def peak_memory_mib() -> float:
    """The largest resident size that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclass(frozen=True, eq=False)
class Subject:
    """A case made ready for projecting: attenuation and labels on one grid.

    Attributes
    ----------
    mu
        Attenuation per mm; the table removed.
    labels
        Sources, derived classes, `BODY`, and `UNSCANNED` where the scan has padding.
    classes
        What is to come out, in catalog order.
    cut_by_ct
        By class.
    measured
        Facts in 3D, landmarks, measures, lesions; None where that was not asked for.
    extent_mm
        Points whose hull is the body.
    faces_mm
        The body's points in the first and last slice along the patient.
    atom_boxes_ijk
        ``(n_atoms, 2, 3)``, see `atom_boxes`.
    films
        Those of `classes` that are of the film.
    """

    mu: Volume
    labels: LabelVolume
    classes: tuple[str, ...]
    cut_by_ct: dict[str, bool]
    measured: Measured | None
    extent_mm: NDArray[np.float64]
    faces_mm: tuple[NDArray[np.float64], NDArray[np.float64]]
    atom_boxes_ijk: NDArray[np.int64]
    films: Mapping[str, Film] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Shot:
    """One view of a subject: the projection and the pictures made of it."""

    projection: Projection
    image: NDArray[np.uint8]
    appearance: dict[str, Any]


def catalog_of(pipeline: Pipeline) -> Catalog:
    """The catalog that a pipeline names, or the built-in one."""
    return load_catalog(None if pipeline.labels.catalog is None else Path(pipeline.labels.catalog))


def classes_of(pipeline: Pipeline, catalog: Catalog) -> tuple[str, ...]:
    """The classes that a pipeline puts out, in catalog order."""
    wanted = (
        set(catalog)
        if pipeline.labels.classes == "all"
        else set(map(catalog.resolve, pipeline.labels.classes))
    )
    wanted -= set(map(catalog.resolve, pipeline.labels.exclude))
    if not wanted:
        raise ConfigError("the pipeline puts out no class", where="labels.classes")
    return tuple(name for name in catalog if name in wanted)


def _built_in_recipes(catalog: Catalog) -> list[str]:
    """Classes whose recipe is the built-in catalog's own."""
    built_in = load_catalog()
    return [name for name, item in catalog.items() if item.recipe is not None and item == built_in.get(name)]


def prepare(
    case: Case,
    pipeline: Pipeline,
    catalog: Catalog,
    clock: Clock,
    base: Path | None = None,
    threads: int | None = None,
    device: Device = "auto",
    *,
    full: bool = True,
) -> Subject:
    """Read a case and derive all that its views share.

    Without `full`, no recipe of the built-in catalog is followed and nothing but volumes is measured in 3D.

    Raises
    ------
    CaseError
        With the code that the case is then listed under.
    """
    classes = classes_of(pipeline, catalog)
    measured, needed = None, list(classes)
    with clock.stage("read"):
        ct, labels = read_case(case, pipeline, catalog, base, meanwhile=lambda: warm_up(device))
        labels, lesions = with_lesions(labels, case.instances, catalog)
    if not full:
        free = set(catalog.graph.free_of(_built_in_recipes(catalog)))
        classes = tuple(name for name in classes if name in free)
        needed = list(classes)
    else:
        # Loads compiled loops, which whoever only looks does not need.
        from paxray.measure.radiology import FOUND_IN
        from paxray.measured import measure

        needed += [name for name in FOUND_IN if name in catalog and name not in classes]
    with clock.stage("body"):
        labels, body = with_body(ct, labels)
    with clock.stage("derive"):
        films = {name: film for name in classes if (film := catalog[name].film) is not None}
        made = [name for name in needed if name not in films]
        needed = list(dict.fromkeys([*made, *(name for film in films.values() for name in film.inputs)]))
        labels = derive(labels, catalog, ct, needed, unscanned=UNSCANNED, threads=threads or 0)
        outside = labels.mask(UNSCANNED) if UNSCANNED in labels.names else None
        cut_by_ct = labels.cut_by_ct(outside)
        boxes = atom_boxes(labels)
    with clock.stage("measure"):
        if full:
            measured = measure(ct, labels, lesions, boxes, cut_by_ct, catalog)
    with clock.stage("attenuate"):
        mu = attenuate(
            ct, body, energy_kev=pipeline.physics.energy_kev, ct_energy_kev=pipeline.physics.ct_energy_kev
        )
    return Subject(
        mu=mu,
        labels=labels,
        classes=classes,
        cut_by_ct=cut_by_ct,
        measured=measured,
        extent_mm=body_extent(body, ct.grid),
        faces_mm=body_faces(body, ct.grid),
        atom_boxes_ijk=boxes,
        films=films,
    )


def shoot(
    subject: Subject,
    view: View,
    pipeline: Pipeline,
    clock: Clock,
    device: Device = "auto",
    threads: int | None = None,
    resident: Resident | None = None,
) -> Shot:
    """Project a subject in one view and draw the picture; `resident` is the subject as it lies on a GPU."""
    if subject.measured is None:
        voxels = subject.labels.voxel_counts()
        asked = set(subject.classes).union(*(film.inputs for film in subject.films.values()))
        shown = [name for name in subject.labels.names if name in asked and voxels[name]]
    else:
        from paxray.measured import channels

        shown = channels(subject.measured, subject.labels, subject.classes)
    with clock.stage("project"):
        projection = project(
            subject.mu,
            subject.labels,
            view,
            ("image", "presence", "facts", "incomplete"),
            classes=shown,
            device=device,
            threads=threads,
            resident=resident,
            unscanned=UNSCANNED,
        )
    assert projection.image is not None  # asked for above
    with clock.stage("picture"):
        image, appearance = render_display(
            projection.image, pipeline.display.display(), projection.incomplete
        )
    appearance |= {"energy_kev": pipeline.physics.energy_kev, "ct_energy_kev": pipeline.physics.ct_energy_kev}
    return Shot(projection, image, appearance)


def views_of(subject: Subject, pipeline: Pipeline) -> list[View]:
    """The pipeline's views, placed at the subject."""
    setup = pipeline.geometry.setup()
    try:
        return [place(view.pose(), setup, subject.extent_mm, subject.faces_mm) for view in pipeline.views]
    except ConfigError as error:
        # The pipeline is sound; this patient does not fit into its geometry.
        raise CaseError(
            error.what,
            where="geometry",
            expected=error.expected,
            found=error.found,
            do=error.do,
            code="geometry",
        ) from error


@dataclass(frozen=True, eq=False)
class Rows:
    """What a case adds to its shard."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    landmarks: list[dict[str, Any]] = field(default_factory=list)
    measures: list[dict[str, Any]] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)


def produce(
    case: Case,
    split: str,
    pipeline: Pipeline,
    catalog: Catalog,
    categories: dict[str, int],
    *,
    device: Device = "auto",
    threads: int | None = None,
    base: Path | None = None,
    clock: Clock | None = None,
) -> Rows:
    """Make all samples and labels of a case.

    Parameters
    ----------
    case, split
        The case and the split it is planned for.
    pipeline, catalog, categories
        What to make, the classes known, and the id of each class.
    device, threads
        How to compute.
    base
        Folder that vocabulary files in the case table are relative to.
    clock
        Collects seconds by stage.

    Raises
    ------
    CaseError
        Where the case cannot be used; ``inconsistent_masks`` where what would be written contradicts itself.
    """
    clock = clock or Clock()
    with at_most(threads):
        subject = prepare(case, pipeline, catalog, clock, base, threads, device)
    rows = Rows()
    parts = {name: catalog[name].parts for name in subject.classes}
    views = views_of(subject, pipeline)
    with clock.stage("project"):
        resident = _on_gpu(subject, device)
    for view in views:
        shot = shoot(subject, view, pipeline, clock, device, threads, resident)
        with clock.stage("encode"):
            common = {
                "sample_id": f"{case.case_id}/{view.name}",
                "case_id": case.case_id,
                "patient_id": case.patient_id,
                "split": split,
                "view": view.name,
            }
            rows.samples.append(common | _sample_row(case, subject, shot))
            tables = rows_of_view(subject, shot.projection, categories)
            require_consistent(common["sample_id"], tables["labels"], (view.rows, view.columns), parts)
            for kind, found in tables.items():
                getattr(rows, kind).extend(common | row for row in found)
    return rows


def _on_gpu(subject: Subject, device: Device) -> Resident | None:
    """Send a subject to the GPU once for all its views; None where the CPU projects."""
    if resolve_device(device) != "cuda":
        return None
    from paxray.projection.cuda.resident import hold

    return hold(subject.mu, subject.labels)


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


def _sample_row(case: Case, subject: Subject, shot: Shot) -> dict[str, Any]:
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
            row["added_voxels"] = subject.labels.added_voxels[name]
            row["cut_by_ct"] = subject.cut_by_ct[name]
            row |= _in_3d(subject, name)
            row |= _seen(subject, projection, name, unhidden)
        rows.append(row)
    return rows


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


def atom_boxes(labels: LabelVolume) -> NDArray[np.int64]:
    """``(n_atoms, 2, 3)`` first and last voxel ``(i, j, k)`` of each atom's bounding box; the background's is empty."""
    boxes = value_boxes(labels.atoms, len(labels.membership))
    boxes[0] = 0
    return boxes
