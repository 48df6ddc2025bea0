"""One case through all rooms: read, derive, attenuate, project, picture; out come its rows."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume
from paxray.anatomy.recipes.engine import derive
from paxray.anatomy.voxels import value_boxes
from paxray.config import Pipeline
from paxray.dataset.invariants import require_consistent
from paxray.errors import CaseError, ConfigError, suggest
from paxray.io.cases import Case
from paxray.io.volume import Volume
from paxray.parallel import at_most, beside, together
from paxray.physics.attenuation import attenuate
from paxray.plausibility.rules import Action, Finding
from paxray.projection.pose import place
from paxray.projection.project import Device, Projection, project, resolve_device
from paxray.projection.view import View
from paxray.radiography.display import render_display
from paxray.reading import read_case
from paxray.rows import Rows, finding_rows, rows_of_view, sample_row
from paxray.segmentation.body import UNSCANNED, body_extent, body_faces, with_body
from paxray.segmentation.instances import with_lesions
from paxray.subject import Shot, Subject
from paxray.warmup import warm_up

if TYPE_CHECKING:
    from paxray.projection.cuda.resident import Resident

#: In a list of classes, stands before the name of a vocabulary.
SET = "set:"


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


def catalog_of(pipeline: Pipeline) -> Catalog:
    """The catalog that a pipeline names, or the built-in one."""
    return load_catalog(None if pipeline.labels.catalog is None else Path(pipeline.labels.catalog))


def classes_of(pipeline: Pipeline, catalog: Catalog) -> tuple[str, ...]:
    """The classes that a pipeline puts out, in catalog order."""
    asked = pipeline.labels.classes
    if asked == "all":
        wanted = set(catalog)
    else:
        listed = [f"{SET}{asked}"] if isinstance(asked, str) else asked
        wanted = _named(listed, catalog, "labels.classes")
    wanted -= _named(pipeline.labels.exclude, catalog, "labels.exclude")
    if not wanted:
        raise ConfigError("the pipeline puts out no class", where="labels.classes")
    return tuple(name for name in catalog if name in wanted)


def _named(words: Iterable[str], catalog: Catalog, where: str) -> set[str]:
    """The classes that a list names: one by one, or as those of a built-in vocabulary behind `SET`."""
    from paxray.anatomy.channels import load_channels
    from paxray.anatomy.vocabulary import vocabulary_names

    out: set[str] = set()
    for word in words:
        if not word.startswith(SET):
            out.add(catalog.resolve(word))
            continue
        name = word.removeprefix(SET)
        if name not in vocabulary_names():
            raise ConfigError(
                f"there is no set of classes '{name}'",
                where=where,
                expected="all, a list of classes, or a vocabulary: " + ", ".join(vocabulary_names()),
                do=f"a class stands in a list: [{name}]"
                if name in catalog
                else suggest(name, vocabulary_names()),
            )
        out.update(load_channels(name, catalog=catalog).classes)
    return out


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
    segment: Callable[[LabelVolume, Volume], LabelVolume] | None = None,
    read: Callable[[], Volume] | None = None,
) -> Subject:
    """Read a case and derive all that its views share, while what its projection needs is loaded (`warm_up`).

    Without `full`, no recipe of the built-in catalog is followed unless the pipeline names its class, nothing but
    volumes is measured in 3D, and of masks is only asked whether they fit the CT; nothing is dropped where they do not.
    `segment` adds what segmenters find in the CT to the case's own masks; `read` gives the CT where something reads it
    already.

    Raises
    ------
    CaseError
        With the code that the case is then listed under; ``implausible`` for a finding that drops the case.
    """
    with beside(lambda: warm_up(device)):
        return _prepare(case, pipeline, catalog, clock, base, threads, full, segment, read)


def _prepare(
    case: Case,
    pipeline: Pipeline,
    catalog: Catalog,
    clock: Clock,
    base: Path | None,
    threads: int | None,
    full: bool,
    segment: Callable[[LabelVolume, Volume], LabelVolume] | None,
    read: Callable[[], Volume] | None,
) -> Subject:
    classes = classes_of(pipeline, catalog)
    measured, needed = None, list(classes)
    findings: tuple[tuple[Finding, Action], ...] = ()
    withheld: Mapping[str, str] = {}
    with clock.stage("read"):
        ct, labels = read_case(case, pipeline, catalog, base, read)
    if segment is not None:
        with clock.stage("segment"):
            labels = segment(labels, ct)
    with clock.stage("read"):
        labels, lesions = with_lesions(labels, case.instances, catalog)
    if full:
        # Loads compiled loops, which whoever only looks does not need.
        from paxray.measure.radiology import FOUND_IN
        from paxray.measure.stations import BORDERS, NODES
        from paxray.measured import measure
        from paxray.plausibility.judge import explain, judge

        found_in = (*FOUND_IN, *(BORDERS if any(lesion.name == NODES for lesion in lesions) else ()))
        needed += [name for name in found_in if name in catalog and name not in needed]
    with clock.stage("body"):
        labels, body = with_body(ct, labels)
    if full:
        # What sources drew is judged, before anything is derived from it.
        with clock.stage("judge"):
            verdict = judge(labels, catalog, pipeline.plausibility.model_dump(), ct)
        findings, labels, withheld = verdict.findings, verdict.labels, verdict.withheld
        lesions = tuple(lesion for lesion in lesions if lesion.name not in withheld)
    else:
        from paxray.plausibility.density import judge_at_a_glance

        with clock.stage("judge"):
            findings = tuple((finding, "warn") for finding in judge_at_a_glance(labels, catalog, ct))
        if pipeline.labels.classes == "all":
            # Asked not before the body was made: meanwhile `warm_up` has found out what depends on what.
            built_in = load_catalog()
            free = set(catalog.graph.free_of(_built_in_recipes(catalog)))
            # Classes of one's own come out, by recipes of the built-in catalog if need be.
            classes = tuple(name for name in classes if name in free or catalog[name] != built_in.get(name))
            needed = list(classes)
    with clock.stage("derive"):
        films = {name: film for name in classes if (film := catalog[name].film) is not None}
        made = [name for name in needed if name not in films]
        needed = list(dict.fromkeys([*made, *(name for film in films.values() for name in film.inputs)]))
        labels = derive(
            labels, catalog, ct, needed, unscanned=UNSCANNED, threads=threads or 0, withheld=withheld
        )
        if withheld:
            labels = explain(labels, catalog, withheld)
        cut_by_ct = labels.cut_by_ct(UNSCANNED if UNSCANNED in labels.names else None)
        boxes = atom_boxes(labels)
    with clock.stage("measure"):
        if full:
            measured = measure(ct, labels, lesions, boxes, cut_by_ct, catalog)
    physics = pipeline.physics
    with clock.stage("attenuate"):
        mu, (extent, faces) = together(
            lambda: attenuate(ct, body, energy_kev=physics.energy_kev, ct_energy_kev=physics.ct_energy_kev),
            lambda: (body_extent(body, ct.grid), body_faces(body, ct.grid)),
        )
    return Subject(
        mu=mu,
        labels=labels,
        classes=classes,
        cut_by_ct=cut_by_ct,
        measured=measured,
        extent_mm=extent,
        faces_mm=faces,
        atom_boxes_ijk=boxes,
        films=films,
        findings=findings,
    )


def expose(
    subject: Subject,
    view: View,
    clock: Clock,
    device: Device = "auto",
    threads: int | None = None,
    resident: Resident | None = None,
) -> Projection:
    """Project a subject in one view; `resident` is the subject as it lies on a GPU."""
    if subject.measured is None:
        voxels = subject.labels.voxel_counts()
        asked = set(subject.classes).union(*(film.inputs for film in subject.films.values()))
        shown = [name for name in subject.labels.names if name in asked and voxels[name]]
    else:
        from paxray.measured import channels

        shown = channels(subject.measured, subject.labels, subject.classes)
    with clock.stage("project"):
        return project(
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


def develop(projection: Projection, pipeline: Pipeline, clock: Clock) -> Shot:
    """Draw the picture of what `expose` gives."""
    assert projection.image is not None  # asked for there
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
    segment: Callable[[LabelVolume, Volume], LabelVolume] | None = None,
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
    segment
        Adds what segmenters find in the CT to the case's own masks.

    Raises
    ------
    CaseError
        Where the case cannot be used; ``inconsistent_masks`` where what would be written contradicts itself.
    """
    clock = clock or Clock()
    with at_most(threads):
        subject = prepare(case, pipeline, catalog, clock, base, threads, device, segment=segment)
    whose = {"case_id": case.case_id, "patient_id": case.patient_id, "split": split}
    rows = Rows(findings=[whose | row for row in finding_rows(subject)])
    parts = {name: catalog[name].parts for name in subject.classes}
    views = views_of(subject, pipeline)
    with clock.stage("project"):
        resident = _on_gpu(subject, device)
    for view in views:
        shot = develop(expose(subject, view, clock, device, threads, resident), pipeline, clock)
        with clock.stage("encode"):
            common = {
                "sample_id": f"{case.case_id}/{view.name}",
                **whose,
                "view": view.name,
            }
            rows.samples.append(common | sample_row(case, shot))
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


def atom_boxes(labels: LabelVolume) -> NDArray[np.int64]:
    """``(n_atoms, 2, 3)`` first and last voxel ``(i, j, k)`` of each atom's bounding box; the background's is empty."""
    boxes = value_boxes(labels.atoms, len(labels.membership))
    boxes[0] = 0
    return boxes
