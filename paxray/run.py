"""The build: plan -> shards on Dask -> commit. Resumable, deterministic, one bad case harms no other."""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.buildlog import Event, log_event, only_build, open_log
from paxray.config import Pipeline
from paxray.dataset.card import write_card
from paxray.dataset.checksums import write_checksums
from paxray.dataset.layout import TABLES, Layout
from paxray.dataset.schema import schema_of, write_table
from paxray.dataset.shard import (
    FAILED,
    OK,
    CaseRecord,
    CaseTables,
    read_case_tables,
    read_commit,
    records_of,
    recover,
    write_shard,
)
from paxray.errors import CaseError, PaxrayError, ResourceError
from paxray.files import read_json, write_json
from paxray.io.cases import Case
from paxray.io.volume import Volume
from paxray.produce import Clock, catalog_of, peak_memory_mib, produce
from paxray.projection.project import Device
from paxray.segmenting import is_segmented
from paxray.todo import BuildPlan, ShardJob, plan_build, require_usable_folder


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
    limit: int | None = None,
    segmentations: Path | None = None,
    on_input: Callable[[str], None] | None = None,
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
    limit
        Process this many cases at most in this call; all are planned.
    segmentations
        Folder where segmentations are kept; beside `out` by default.
    on_input, on_plan, on_event
        Told each case whose inputs were read, what is to be done, and each case and shard when it is done.

    Raises
    ------
    ConfigError, ResourceError, DamageError
        A bad case raises nothing: it becomes a record with a code.
    """
    require_usable_folder(out)
    layout = Layout(out)
    with only_build(layout):
        recover(layout)
        todo = plan_build(
            pipeline,
            cases,
            out,
            table=table,
            device=device,
            workers=workers,
            update=update,
            retry_failed=retry_failed,
            limit=limit,
            segmentations=segmentations,
            on_input=on_input,
        )
        if on_plan is not None:
            on_plan(todo)
        made = [0]
        log = open_log(layout, workers) if todo.jobs else None

        def event(what: Event) -> None:
            if what.kind == "case" and what.status == OK:
                made[0] += 1
            if log is not None:
                log_event(log, what)
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
        tables = _build_case(case, job, catalog, clock, on_event)
        done[case.case_id] = tables
        on_event(_case_event(tables, clock))
    write_shard(layout, job.shard, job.split, [done[c] for c in job.order if c in done], list(job.extra))
    on_event(Event("shard", job.shard, OK))


def _case_event(tables: CaseTables, clock: Clock) -> Event:
    record = tables.record
    findings = [] if tables.findings is None else tables.findings.to_pylist()
    return Event(
        "case",
        record.case_id,
        record.status,
        record.message,
        clock.seconds,
        peak_memory_mib(),
        tuple(f"{row['severity']} {row['finding']}: {row['message']} ({row['action']})" for row in findings),
    )


def _kept(layout: Layout, job: ShardJob) -> dict[str, CaseTables]:
    """The cases of a shard that stand, taken from its tables."""
    well = [record for record in job.keep if record.status == OK]
    kept = {t.record.case_id: t for t in read_case_tables(layout, job.shard, well)} if well else {}
    return kept | {record.case_id: CaseTables(record) for record in job.keep if record.status != OK}


def _build_case(
    case: Case, job: ShardJob, catalog: Catalog, clock: Clock, on_event: Callable[[Event], None]
) -> CaseTables:
    """Make a case's rows, or a record of why not."""
    common: dict[str, Any] = {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "basis": job.basis,
        "identity": job.identities[case.case_id],
        "inputs": job.inputs[case.case_id],
    }
    try:
        rows = produce(
            case, job.split, job.pipeline, catalog, job.categories,
            device=job.device, threads=job.threads, base=job.base, clock=clock,
            segment=_segmentation_of(case, job, catalog, on_event),
        )  # fmt: skip
    except CaseError as error:
        return CaseTables(CaseRecord(**common, status=FAILED, code=error.code, message=str(error)))
    except PaxrayError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{type(error).__name__}: {error.strerror}"
        return CaseTables(CaseRecord(**common, status=FAILED, code="unreadable", message=message))
    except ImportError as error:
        # A package is missing on this machine: no case's fault, and every case would fail alike.
        raise ResourceError(
            f"a package is missing: {error.name}",
            found=str(error),
            do="install paxray again with its dependencies",
        ) from error
    except MemoryError as error:
        message = f"out of memory: {error}"
        return CaseTables(CaseRecord(**common, status=FAILED, code="out_of_memory", message=message))
    except Exception as error:
        # A bug, or an input that broke a library: the case says where, the others go on.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        return CaseTables(CaseRecord(**common, status=FAILED, code="internal", message=message))
    tables = {
        kind: pa.Table.from_pylist(getattr(rows, kind), schema=schema_of(kind, job.extra)) for kind in TABLES
    }
    record = CaseRecord(
        **common, status=OK, samples=tables["samples"].num_rows, labels=tables["labels"].num_rows
    )
    return CaseTables(record, **tables)


def _segmentation_of(
    case: Case, job: ShardJob, catalog: Catalog, on_event: Callable[[Event], None]
) -> Callable[[LabelVolume, Volume], LabelVolume] | None:
    """What adds segmenters' masks to a case's own; None where no segmenter looks at it."""
    step = job.segmentations
    if step is None or not is_segmented(case, job.pipeline):
        return None

    def tell(kind: str, message: str) -> None:
        on_event(Event(kind, case.case_id, OK, message))

    ct_hash = job.inputs[case.case_id]["ct"]
    return lambda labels, ct: step.add_to(labels, ct, case, ct_hash, job.pipeline, catalog, job.base, tell)


_TOPIC = "paxray"


def _on_dask(jobs: list[ShardJob], workers: int, on_event: Callable[[Event], None]) -> None:
    """Run shards on worker processes."""
    import dask
    from distributed import Client, LocalCluster, as_completed
    from distributed.scheduler import KilledWorker

    settings = {
        "distributed.worker.daemon": False,
        "distributed.scheduler.allowed-failures": 1,
        # A worker that died is started again, however long that takes on a busy machine. The cluster would give it up
        # where it is not back in 15 s, and a build without workers waits for ever.
        "distributed.deploy.lost-worker-timeout": "1000 days",
        "distributed.admin.log-format": "%(message)s",
        "distributed.logging": {"distributed": "error"},
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=min(workers, len(jobs)),
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=60,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        # Events come as they happen; what a shard returns makes up for any that were lost at the end.
        seen: set[tuple[str, str, str]] = set()
        lock = threading.Lock()

        def once(event: Event) -> None:
            with lock:
                if (event.kind, event.name, event.message) not in seen:
                    seen.add((event.kind, event.name, event.message))
                    on_event(event)

        client.subscribe_topic(_TOPIC, lambda stamped: once(_event_of(stamped[1]["event"])))
        waiting = {client.submit(_shard_on_worker, job, pure=False): job for job in jobs}
        for future in as_completed(waiting):
            error = future.exception()
            if error is None:
                for event in future.result():
                    once(event)
            elif isinstance(error, KilledWorker):
                # One of its cases killed the worker. Alone in a process each shows whether it is the one.
                _case_by_case(client, waiting[future], once)
            else:
                raise error


def _case_by_case(client: Any, job: ShardJob, on_event: Callable[[Event], None]) -> None:
    """Make a shard's cases one by one on workers, so that one that kills its worker fails alone."""
    from distributed.scheduler import KilledWorker

    layout = Layout(job.root)
    tables = _kept(layout, job)
    for case in job.todo:
        future = client.submit(_case_on_worker, job, case, pure=False)
        error = future.exception()
        if error is None:
            tables[case.case_id], events = future.result()
            for event in events:
                on_event(event)
        elif isinstance(error, KilledWorker):
            record = CaseRecord(
                case_id=case.case_id,
                patient_id=case.patient_id,
                status=FAILED,
                code="worker_died",
                message="the worker process died twice while it made this case\n"
                "  do: look for a lack of memory, then build with --retry-failed and fewer --workers",
                basis=job.basis,
                identity=job.identities[case.case_id],
                inputs=job.inputs[case.case_id],
            )
            tables[case.case_id] = CaseTables(record)
            on_event(Event("case", case.case_id, FAILED, record.message))
        else:
            raise error
    write_shard(layout, job.shard, job.split, [tables[c] for c in job.order if c in tables], list(job.extra))
    on_event(Event("shard", job.shard, OK))


def _case_on_worker(job: ShardJob, case: Case) -> tuple[CaseTables, list[Event]]:
    clock = Clock()
    events: list[Event] = []
    tables = _build_case(case, job, catalog_of(job.pipeline), clock, events.append)
    return tables, [*events, _case_event(tables, clock)]


def _event_of(content: dict[str, Any]) -> Event:
    """An event as it comes from a worker, where tuples have become lists."""
    return Event(**{**content, "findings": tuple(content["findings"])})


def _shard_on_worker(job: ShardJob) -> list[Event]:
    from distributed import get_worker

    worker = get_worker()
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        worker.log_event(_TOPIC, {"event": asdict(event)})

    build_shard(job, tell)
    return events


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
    schema = (
        pa.schema([*((n, pa.string()) for n in rows[0] if n != "samples"), ("samples", pa.int64())])
        if rows
        else None
    )
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
            split: sum(r["samples"] for r in rows if r["split"] == split) for split in pipeline.splits.shares
        },
        "shards": len({row.shard for row in todo.plan}),
        **{kind: _rows_in(layout, kind) for kind in TABLES if kind not in ("samples", "labels")},
    }
    manifest["duplicates"] = duplicates = _duplicates(records.values())
    write_json(layout.manifest, manifest)
    write_card(layout)
    write_checksums(layout)
    failed = tuple(r for row in todo.plan if (r := records.get(row.case_id)) and r.status == FAILED)
    samples = sum(manifest["counts"]["samples"].values())
    return BuildResult(layout.root, cases, made, failed, samples, len(todo.jobs), tuple(duplicates), log)


def _rows_in(layout: Layout, kind: str) -> int:
    """Rows of a table in all committed shards."""
    files = [read_commit(path)["files"] for path in layout.commits()]
    return sum(facts["rows"] for of in files for name, facts in of.items() if name.startswith(f"{kind}/"))


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
