"""The build: plan -> shards on Dask -> commit. Resumable, deterministic, one bad case harms no other."""

from __future__ import annotations

import fcntl
import os
import platform
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from paxray._version import __version__
from paxray.anatomy.catalog import Catalog
from paxray.config import Pipeline, flatten
from paxray.dataset.card import write_card
from paxray.dataset.checksums import write_checksums
from paxray.dataset.files import digest, read_json, write_json
from paxray.dataset.layout import SCHEMA_VERSION, Layout
from paxray.dataset.plan import Planned, extend_plan, read_plan, write_plan
from paxray.dataset.schema import label_schema, sample_schema, write_table
from paxray.dataset.shard import (
    FAILED,
    OK,
    CaseRecord,
    CaseTables,
    read_case_tables,
    read_commit,
    records_of,
    write_shard,
)
from paxray.errors import CaseError, ConfigError, DamageError, PaxrayError
from paxray.inputs import InputHashes
from paxray.io.cases import Case
from paxray.produce import STAGE_VERSIONS, Clock, catalog_of, classes_of, peak_memory_mib, produce
from paxray.projection.project import Device, resolve_device

#: Packages whose versions decide the bytes of a data set.
ENVIRONMENT_PACKAGES = ("numpy", "scipy", "numba", "pillow", "pyarrow", "pycocotools", "nibabel", "SimpleITK", "pydicom")


@dataclass(frozen=True)
class Event:
    """Something that happened during a build, for progress and log."""

    kind: str  # case | shard
    name: str
    status: str
    message: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mib: float = 0.0


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to make one shard."""

    root: Path
    shard: str
    split: str
    todo: tuple[Case, ...]
    keep: tuple[CaseRecord, ...]
    order: tuple[str, ...]
    fingerprints: dict[str, str]
    inputs: dict[str, dict[str, str]]
    pipeline: Pipeline
    categories: dict[str, int]
    extra: tuple[str, ...]
    base: Path
    device: Device
    threads: int | None


@dataclass(frozen=True)
class BuildResult:
    """What a build did and what stands now.

    Attributes
    ----------
    cases
        Number of planned cases by status.
    made, failed
        Cases processed in this call that ended well, and records of all cases that stand as failed.
    samples
        Samples in the whole data set.
    shards_done
        Shards written in this call.
    log
        The log file of this call; None where nothing was to be done.
    """

    root: Path
    cases: dict[str, int]
    made: int
    failed: tuple[CaseRecord, ...]
    samples: int
    shards_done: int
    duplicates: tuple[str, ...]
    log: Path | None


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do."""

    jobs: tuple[ShardJob, ...]
    plan: tuple[Planned, ...]
    standing: int
    failed_standing: int
    views: int

    @property
    def cases(self) -> int:
        """Cases to process."""
        return sum(len(job.todo) for job in self.jobs)


def plan_build(
    pipeline: Pipeline,
    cases: list[Case],
    out: Path,
    *,
    table: Path,
    device: Device = "auto",
    workers: int = 0,
    update: bool = False,
    retry_failed: bool = False,
    write: bool = True,
    on_hash: Callable[[str], None] | None = None,
) -> BuildPlan:
    """Compare what is asked for with what stands, and say what is to be done.

    Raises
    ------
    ConfigError
        ``pipeline_changed`` where pipeline, catalog, inputs or numerics differ from what stands and `update` is
        not given, with the differences.
    """
    layout = Layout(out)
    catalog = catalog_of(pipeline)
    classes = classes_of(pipeline, catalog)
    numerics = resolve_device(device)
    manifest = read_json(layout.manifest) if layout.manifest.exists() else None
    if manifest is None and out.exists() and any(path.name != "logs" for path in out.iterdir()):
        raise ConfigError(
            "the output folder is not empty and holds no data set",
            where=out.name,
            expected="an empty or new folder, or one with dataset.json",
            do="choose another --out",
        )
    extra = _extra_columns(cases, manifest)
    basis = _basis(pipeline, catalog, classes, numerics, extra)
    categories = _categories(classes, manifest)
    hashes = InputHashes(layout.logs, table.parent, read_only=not write)
    differences = _differences(manifest, basis)
    if differences and not update:
        raise _changed(differences)

    old_plan = read_plan(layout.plan)
    plan = extend_plan(
        old_plan,
        [(case.case_id, case.patient_id) for case in cases],
        pipeline.splits.shares,
        pipeline.splits.seed,
        pipeline.shard_cases,
    )
    by_id = {case.case_id: case for case in cases}
    fingerprint_basis = digest(basis)
    per_worker = max(1, (os.cpu_count() or 1) // max(1, workers))
    jobs, standing, failed_standing, moved = [], 0, 0, []
    shards: dict[str, list[Planned]] = {}
    for row in plan:
        shards.setdefault(row.shard, []).append(row)
    for shard, rows in shards.items():
        commit = layout.commit(shard)
        done = {r.case_id: r for r in records_of(read_commit(commit))} if commit.exists() else {}
        if done and not (layout.samples(shard).exists() and layout.labels(shard).exists()):
            raise DamageError(
                "a committed shard lacks its tables", where=f"commits/{shard}.json",
                do="paxray verify lists the damage; delete the commit to build the shard again",
            )  # fmt: skip
        todo, keep, fingerprints, inputs = [], [], {}, {}
        for row in rows:
            case, old = by_id.get(row.case_id), done.get(row.case_id)
            if case is None:
                # Planned in an earlier call, not in this table: what stands of it stays.
                if old is not None:
                    keep.append(old)
                continue
            if on_hash is not None:
                on_hash(case.case_id)
            inputs[case.case_id] = hashes.of(case)
            fingerprints[case.case_id] = digest([fingerprint_basis, _case_identity(case), inputs[case.case_id]])
            if old is None:
                todo.append(case)
            elif old.fingerprint != fingerprints[case.case_id]:
                if old.inputs != inputs[case.case_id]:
                    moved.append((case, old))
                elif not differences:
                    moved.append((case, old))
                todo.append(case)
            elif old.status == FAILED and retry_failed:
                todo.append(case)
            else:
                keep.append(old)
                standing += 1
                failed_standing += old.status == FAILED
        if todo:
            jobs.append(
                ShardJob(
                    out, shard, rows[0].split, tuple(todo), tuple(keep), tuple(r.case_id for r in rows),
                    fingerprints, inputs, pipeline, categories, tuple(extra), table.parent, numerics, per_worker,
                )
            )  # fmt: skip
    changed_inputs = [(c, r) for c, r in moved if r.status == OK]
    if changed_inputs and not update:
        raise _changed(
            [f"case '{case.case_id}': {_what_moved(case, record, hashes)}" for case, record in changed_inputs]
        )
    if write:
        layout.root.mkdir(parents=True, exist_ok=True)
        hashes.save()
        if plan != old_plan:
            write_plan(layout.plan, plan)
        if jobs or manifest is None or manifest["categories"] != _category_rows(categories, catalog):
            layout.checksums.unlink(missing_ok=True)
            write_json(layout.manifest, _manifest(pipeline, basis, categories, catalog))
    return BuildPlan(tuple(jobs), tuple(plan), standing, failed_standing, len(pipeline.views))


def build(
    pipeline: Pipeline,
    cases: list[Case],
    out: Path,
    *,
    table: Path,
    workers: int = 0,
    device: Device = "auto",
    update: bool = False,
    retry_failed: bool = False,
    on_plan: Callable[[BuildPlan], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> BuildResult:
    """Build a data set, or complete one.

    Parameters
    ----------
    pipeline, cases, out
        What to make, of what, and where.
    table
        The case table's path: messages and identities name files relative to its folder.
    workers
        Dask worker processes; 0 runs in this process.
    device
        ``auto``, ``cpu`` or ``cuda``.
    update
        Redo what a changed pipeline or input touches.
    retry_failed
        Try failed cases again.
    on_plan, on_event
        Told what is to be done, and each case and shard when it is done.

    Raises
    ------
    ConfigError, ResourceError, DamageError
        A bad case raises nothing: it becomes a record with a code.
    """
    layout = Layout(out)
    with _only_build(layout):
        todo = plan_build(
            pipeline, cases, out, table=table, device=device, workers=workers, update=update, retry_failed=retry_failed
        )
        if on_plan is not None:
            on_plan(todo)
        made = [0]
        log = _open_log(layout, workers) if todo.jobs else None

        def event(what: Event) -> None:
            if what.kind == "case" and what.status == OK:
                made[0] += 1
            if log is not None:
                _log_event(log, what)
            if on_event is not None:
                on_event(what)

        try:
            if todo.jobs:
                if workers == 0:
                    for job in todo.jobs:
                        build_shard(job, event)
                else:
                    _on_dask(list(todo.jobs), workers, event)
        finally:
            if log is not None:
                log.close()
        return _finish(layout, pipeline, todo, made[0], Path(log.name) if log is not None else None)


def build_shard(job: ShardJob, on_event: Callable[[Event], None]) -> None:
    """Make one shard: its new cases, beside those that stand, in the plan's order."""
    layout = Layout(job.root)
    catalog = catalog_of(job.pipeline)
    done = _kept(layout, job)
    for case in job.todo:
        clock = Clock()
        tables = _build_case(case, job, catalog, clock)
        done[case.case_id] = tables
        record = tables.record
        on_event(Event("case", case.case_id, record.status, record.message, clock.seconds, peak_memory_mib()))
    write_shard(layout, job.shard, job.split, [done[c] for c in job.order if c in done], list(job.extra))
    on_event(Event("shard", job.shard, OK))


def _kept(layout: Layout, job: ShardJob) -> dict[str, CaseTables]:
    """The cases of a shard that stand, taken from its tables."""
    well = [record for record in job.keep if record.status == OK]
    kept = {t.record.case_id: t for t in read_case_tables(layout, job.shard, well)} if well else {}
    return kept | {record.case_id: CaseTables(record) for record in job.keep if record.status != OK}


def _build_case(case: Case, job: ShardJob, catalog: Catalog, clock: Clock) -> CaseTables:
    """Make a case's rows, or a record of why not."""
    common: dict[str, Any] = {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "fingerprint": job.fingerprints[case.case_id],
        "inputs": job.inputs[case.case_id],
    }
    try:
        rows = produce(
            case, job.split, job.pipeline, catalog, job.categories,
            device=job.device, threads=job.threads, base=job.base, clock=clock,
        )  # fmt: skip
    except CaseError as error:
        return CaseTables(CaseRecord(**common, status=FAILED, code=error.code, message=str(error)))
    except PaxrayError:
        raise
    except MemoryError as error:
        message = f"out of memory: {error}"
        return CaseTables(CaseRecord(**common, status=FAILED, code="out_of_memory", message=message))
    except Exception as error:
        # A bug, or an input that broke a library: the case says where, the others go on.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        return CaseTables(CaseRecord(**common, status=FAILED, code="internal", message=message))
    samples = pa.Table.from_pylist(rows.samples, schema=sample_schema(job.extra))
    labels = pa.Table.from_pylist(rows.labels, schema=label_schema())
    record = CaseRecord(**common, status=OK, samples=samples.num_rows, labels=labels.num_rows)
    return CaseTables(record, samples, labels)


_TOPIC = "paxray"


def _on_dask(jobs: list[ShardJob], workers: int, on_event: Callable[[Event], None]) -> None:
    """Run shards on worker processes; a shard whose worker keeps dying fails as a whole and harms no other."""
    import dask
    from distributed import Client, LocalCluster, as_completed
    from distributed.scheduler import KilledWorker

    settings = {
        "distributed.worker.daemon": False,
        "distributed.scheduler.allowed-failures": 1,
        "distributed.admin.log-format": "%(message)s",
        "distributed.logging": {"distributed": "error"},
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=min(workers, len(jobs)),
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=40,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        # Events come as they happen; what a shard returns makes up for any that were lost at the end.
        seen: set[tuple[str, str]] = set()
        lock = threading.Lock()

        def once(event: Event) -> None:
            with lock:
                if (event.kind, event.name) not in seen:
                    seen.add((event.kind, event.name))
                    on_event(event)

        client.subscribe_topic(_TOPIC, lambda stamped: once(Event(**stamped[1])))
        waiting = {client.submit(_shard_on_worker, job, pure=False): job for job in jobs}
        for future in as_completed(waiting):
            error = future.exception()
            if error is None:
                for event in future.result():
                    once(event)
            elif isinstance(error, KilledWorker):
                _fail_shard(waiting[future], once)
            else:
                raise error


def _shard_on_worker(job: ShardJob) -> list[Event]:
    from distributed import get_worker

    worker = get_worker()
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        worker.log_event(_TOPIC, asdict(event))

    build_shard(job, tell)
    return events


def _fail_shard(job: ShardJob, on_event: Callable[[Event], None]) -> None:
    """Record that a shard's worker died: which case it was cannot be told, so none is called done."""
    layout = Layout(job.root)
    tables = _kept(layout, job)
    message = (
        "the worker process died twice while it made this case's shard\n"
        "  do: look for a lack of memory, then build with --retry-failed and fewer --workers"
    )
    for case in job.todo:
        record = CaseRecord(
            case.case_id, case.patient_id, FAILED, "worker_died", message,
            job.fingerprints[case.case_id], job.inputs[case.case_id],
        )  # fmt: skip
        tables[case.case_id] = CaseTables(record)
        on_event(Event("case", case.case_id, FAILED, message))
    write_shard(layout, job.shard, job.split, [tables[c] for c in job.order if c in tables], list(job.extra))
    on_event(Event("shard", job.shard, FAILED))


def _finish(layout: Layout, pipeline: Pipeline, todo: BuildPlan, made: int, log: Path | None) -> BuildResult:
    """Gather the commits into cases.parquet, the manifest's counts and the card."""
    records = {r.case_id: r for path in layout.commits() for r in records_of(read_commit(path))}
    rows = []
    for row in todo.plan:
        record = records.get(row.case_id)
        rows.append(
            {
                **asdict(row),
                "status": record.status if record else "pending",
                "code": record.code if record else "",
                "message": record.message if record else "planned, not built yet",
                "samples": record.samples if record else 0,
            }
        )
    schema = pa.schema([(n, pa.string()) for n in rows[0]][:-1] + [("samples", pa.int64())]) if rows else None
    if rows:
        write_table(layout.cases, pa.Table.from_pylist(rows, schema=schema), 4096)
    cases: dict[str, int] = {}
    for case in rows:
        cases[case["status"]] = cases.get(case["status"], 0) + 1
    manifest = read_json(layout.manifest)
    manifest["counts"] = {
        "patients": len({row.patient_id for row in todo.plan}),
        "cases": cases,
        "samples": {
            split: sum(r["samples"] for r in rows if r["split"] == split)
            for split in pipeline.splits.shares
        },
        "shards": len({row.shard for row in todo.plan}),
    }
    manifest["duplicates"] = duplicates = _duplicates(records.values())
    write_json(layout.manifest, manifest)
    write_card(layout)
    write_checksums(layout)
    failed = tuple(r for row in todo.plan if (r := records.get(row.case_id)) and r.status == FAILED)
    samples = sum(manifest["counts"]["samples"].values())
    return BuildResult(layout.root, cases, made, failed, samples, len(todo.jobs), tuple(duplicates), log)


def _duplicates(records: Any) -> list[str]:
    """One sentence for each CT that stands under several patients."""
    owners: dict[str, dict[str, str]] = {}
    for record in records:
        if "ct" in record.inputs and record.status == OK:
            owners.setdefault(record.inputs["ct"], {})[record.patient_id] = record.case_id
    return [
        "the same CT stands under several patients: "
        + ", ".join(f"{patient} (case {case})" for patient, case in sorted(found.items()))
        for found in owners.values()
        if len(found) > 1
    ]


# --- what stands, what is asked for, and how they differ -----------------------------------------------


def _basis(
    pipeline: Pipeline, catalog: Catalog, classes: tuple[str, ...], numerics: str, extra: list[str]
) -> dict[str, Any]:
    """All that every case's outcome depends on."""
    content = pipeline.content()
    del content["splits"], content["shard_cases"]
    content["labels"].pop("catalog")
    return {
        "schema": SCHEMA_VERSION,
        "stages": STAGE_VERSIONS,
        "numerics": numerics,
        "catalog": catalog.fingerprint(classes),
        "extra_columns": extra,
        "pipeline": content,
    }


def _case_identity(case: Case) -> dict[str, Any]:
    """What of a case's row reaches its samples, or says how its masks are read."""
    return {
        "patient_id": case.patient_id,
        "masks": [[source.where, source.vocabulary] for source in case.masks],
        "source": case.source,
        "license": case.license,
        "extra": case.extra,
    }


def _differences(manifest: dict[str, Any] | None, basis: dict[str, Any]) -> list[str]:
    if manifest is None:
        return []
    old, new = flatten(manifest["basis"]), flatten(basis)
    out = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "(not set)"), new.get(key, "(not set)")
        if before != after:
            if key == "catalog":
                before, after = f"definitions {str(before)[:8]}", f"definitions {str(after)[:8]}"
            out.append(f"{key}: stands {_brief(before)}, asked for {_brief(after)}")
    return out


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _changed(differences: list[str]) -> ConfigError:
    shown = differences[:12] + ([f"and {len(differences) - 12} more"] if len(differences) > 12 else [])
    return ConfigError(
        "what is asked for differs from what stands:\n    " + "\n    ".join(shown),
        do="--update to redo exactly what depends on it, or another --out to keep both",
        code="pipeline_changed",
    )


def _what_moved(case: Case, record: CaseRecord, hashes: InputHashes) -> str:
    new = hashes.of(case)
    names = [n for n in sorted(new.keys() | record.inputs.keys()) if new.get(n) != record.inputs.get(n)]
    return f"other content in {', '.join(names)}" if names else "its row in the case table changed"


def _extra_columns(cases: list[Case], manifest: dict[str, Any] | None) -> list[str]:
    """Columns of the case table that reach the samples; a standing data set keeps those it has."""
    here = list(dict.fromkeys(name for case in cases for name in case.extra))
    if manifest is None:
        sample_schema(here)  # refuses names that are taken
        return here
    old: list[str] = manifest["basis"]["extra_columns"]
    return old + [name for name in here if name not in old]


def _categories(classes: tuple[str, ...], manifest: dict[str, Any] | None) -> dict[str, int]:
    """Class to id from 1; ids once given stay."""
    ids = {row["name"]: row["id"] for row in manifest["categories"]} if manifest else {}
    for name in classes:
        if name not in ids:
            ids[name] = max(ids.values(), default=0) + 1
    return ids


def _category_rows(categories: dict[str, int], catalog: Catalog) -> list[dict[str, Any]]:
    rows = []
    for name, number in categories.items():
        known = catalog.get(name)
        rows.append(
            {
                "id": number,
                "name": name,
                "supercategory": known.group if known else "",
                "parts": list(known.parts) if known else [],
                "laterality": known.laterality if known else "",
                "snomed_ct": known.snomed_ct if known else "",
                "snomed_laterality": known.snomed_laterality if known else "",
                "colour": list(known.colour) if known else [128, 128, 128],
                "rule": known.rule if known else "",
            }
        )
    return rows


def _manifest(
    pipeline: Pipeline,
    basis: dict[str, Any],
    categories: dict[str, int],
    catalog: Catalog,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "name": pipeline.name,
        "description": pipeline.description,
        "notice": "A research data set, not for clinical use.",
        "counts": None,  # until a build has come to its end
        "duplicates": [],
        "pipeline": pipeline.effective(),
        "basis": basis,
        "environment": {
            "paxray": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ENVIRONMENT_PACKAGES},
        },
        "categories": _category_rows(categories, catalog),
    }


# --- one build at a time, and its log ------------------------------------------------------------------


@contextmanager
def _only_build(layout: Layout) -> Iterator[None]:
    """Hold the data set's lock; the system releases it however the process ends."""
    existed = layout.root.exists()
    layout.logs.mkdir(parents=True, exist_ok=True)
    with (layout.logs / "build.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "another build is at work on this data set", where=layout.root.name, do="wait for it to end"
            ) from None
        try:
            yield
        except ConfigError:
            if not existed:
                # Nothing was begun: leave no folder behind that looks like a data set.
                (layout.logs / "build.lock").unlink(missing_ok=True)
                for folder in (layout.logs, layout.root):
                    if folder.exists() and not any(folder.iterdir()):
                        folder.rmdir()
            raise


def _open_log(layout: Layout, workers: int) -> Any:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    log = (layout.logs / f"build-{now:%Y%m%dT%H%M%S}.log").open("a", encoding="utf-8", buffering=1)
    log.write(f"{now.isoformat(timespec='seconds')} build on {platform.node()}, {workers} workers\n")
    return log


def _log_event(log: Any, event: Event) -> None:
    from datetime import UTC, datetime

    stages = " ".join(f"{name}={seconds:.2f}s" for name, seconds in event.seconds.items())
    memory = f" peak={event.memory_mib:.0f}MiB" if event.memory_mib else ""
    line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {event.kind} {event.name} {event.status} {stages}{memory}"
    log.write(line.rstrip() + "\n")
    if event.message:
        log.write("    " + event.message.replace("\n", "\n    ") + "\n")
