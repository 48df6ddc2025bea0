"""What a build has to do: what is asked for against what stands, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.config import Pipeline
from paxray.dataset.checksums import forget_checksums, require_untouched
from paxray.dataset.layout import Layout
from paxray.dataset.plan import Planned, extend_plan, read_plan, write_plan
from paxray.dataset.shard import FAILED, OK, CaseRecord, read_commit, records_of
from paxray.errors import ConfigError, DamageError, suggest
from paxray.files import digest, read_json, write_json
from paxray.inputs import MISSING, InputHashes, Vocabularies
from paxray.io.cases import Case
from paxray.parallel import processors
from paxray.produce import catalog_of, classes_of
from paxray.projection.project import Device, resolve_device
from paxray.segmentation.checked import device_of
from paxray.segmenting import FOLDER, Segmentations, is_segmented, segmenters_of
from paxray.standing import (
    SEGMENTATION,
    basis_of,
    case_identity,
    categories_of,
    category_rows,
    changed,
    differences_of,
    extra_columns_of,
    manifest_of,
    what_moved,
)


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to make one shard."""

    root: Path
    shard: str
    split: str
    todo: tuple[Case, ...]
    keep: tuple[CaseRecord, ...]
    order: tuple[str, ...]
    basis: str
    identities: dict[str, str]
    inputs: dict[str, dict[str, str]]
    pipeline: Pipeline
    categories: dict[str, int]
    extra: tuple[str, ...]
    base: Path
    device: Device
    threads: int | None
    segmentations: Segmentations | None = None


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do.

    `waiting` cases are left for a later call by a limit; `failed_standing` wait for a retry; `segmented` of those to
    process are looked at by segmenters.
    """

    jobs: tuple[ShardJob, ...]
    plan: tuple[Planned, ...]
    standing: int
    failed_standing: int
    waiting: int
    views: int
    segmented: int = 0

    @property
    def cases(self) -> int:
        """Cases to process."""
        return sum(len(job.todo) for job in self.jobs)


def require_usable_folder(out: Path) -> None:
    """Refuse a folder that holds something else than a data set."""
    if (out / "dataset.json").exists() or not out.exists():
        return
    if not out.is_dir() or any(path.name != "logs" for path in out.iterdir()):
        raise ConfigError(
            "the output folder is not empty and holds no data set",
            where=out.name,
            expected="an empty or new folder, or one with dataset.json",
            do="choose another --out",
        )


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
    limit: int | None = None,
    segmentations: Path | None = None,
    write: bool = True,
    on_input: Callable[[str], None] | None = None,
) -> BuildPlan:
    """Compare what is asked for with what stands, and say what is to be done.

    Parameters
    ----------
    limit
        Process this many cases at most, in the table's order; all are planned, so that splits do not depend on it.
    segmentations
        Folder where segmentations are kept; `paxray.segmenting.FOLDER` beside `out` by default.
    write
        Write plan and manifest, as a build that goes ahead does.
    on_input
        Told each case when its inputs have been read.

    Raises
    ------
    ConfigError
        ``pipeline_changed`` where pipeline, catalog, inputs or numerics differ from what stands and `update` is not
        given, with the differences; ``input_gone`` where an input of a case that stands cannot be found, so that
        redoing it would lose what stands; a segmenter's name or setting that is not known.
    ResourceError
        A segmenter that has work to do cannot run here (`Segmenter.preflight`).
    """
    require_usable_folder(out)
    if not cases:
        raise ConfigError("the case table has no cases", where=table.name, do="add a row for each CT")
    layout = Layout(out)
    catalog = catalog_of(pipeline)
    classes = classes_of(pipeline, catalog)
    numerics = resolve_device(device)
    segmented = {case.case_id for case in cases if is_segmented(case, pipeline)}
    folder = segmentations or out.absolute().parent / FOLDER
    segmenters = segmenters_of(pipeline)
    step = Segmentations.of(pipeline, catalog, numerics, folder) if segmented else None
    _require_used_vocabularies(pipeline, cases, catalog, table.parent)
    manifest = read_json(layout.manifest) if layout.manifest.exists() else None
    require_untouched(layout, unfinished=manifest is None or manifest["counts"] is None)
    extra = extra_columns_of(cases, manifest)
    basis = basis_of(pipeline, catalog, classes, numerics, extra)
    categories = categories_of(classes, manifest)
    hashes = InputHashes(layout.logs, table.parent, read_only=not write)
    differences = differences_of(manifest, basis, pipeline)
    if differences and not update:
        raise changed(differences)

    old_plan = read_plan(layout.plan)
    plan = extend_plan(
        old_plan,
        [(case.case_id, case.patient_id) for case in cases],
        pipeline.splits.shares,
        pipeline.splits.seed,
        pipeline.shard_cases,
    )
    by_id = {case.case_id: case for case in cases}
    done = _standing(layout, plan)
    basis_digest = digest(basis)
    _require_all_can_be_redone(done, by_id, basis_digest)
    vocabularies = Vocabularies(catalog, table.parent)
    inputs = {}
    try:
        for case in cases:
            inputs[case.case_id] = hashes.of(case)
            if step is not None and case.case_id in segmented:
                inputs[case.case_id][SEGMENTATION] = step.identity
            if on_input is not None:
                on_input(case.case_id)
    finally:
        hashes.save()  # reading a terabyte of inputs should not be lost to an interrupt
    identities = {
        case.case_id: digest(case_identity(case, inputs[case.case_id], vocabularies)) for case in cases
    }
    wanted, moved, gone = [], [], []
    for case in cases:
        old = done.get(case.case_id)
        if old is None:
            wanted.append(case)
        elif (old.basis, old.identity) != (basis_digest, identities[case.case_id]):
            wanted.append(case)
            if old.status == OK and MISSING in inputs[case.case_id].values():
                gone.append(case)
            elif old.status == OK and old.identity != identities[case.case_id]:
                moved.append(f"case '{case.case_id}': {what_moved(old, inputs[case.case_id])}")
        elif old.status == FAILED and retry_failed:
            wanted.append(case)
    if gone:
        raise ConfigError(
            f"inputs of {len(gone)} cases that stand cannot be found, beginning with '{gone[0].case_id}'",
            where=gone[0].ct_where,
            expected="the files that the samples were made of",
            do="make them reachable again, or take the rows out of the table: what stands then stays",
            code="input_gone",
        )
    if moved and not update:
        raise changed(moved)
    now = {case.case_id for case in wanted[:limit]}

    jobs = []
    per_worker = max(1, processors() // max(1, workers))
    shards: dict[str, list[Planned]] = {}
    for row in plan:
        shards.setdefault(row.shard, []).append(row)
    for shard, rows in shards.items():
        ids = [row.case_id for row in rows]
        todo = tuple(by_id[case_id] for case_id in ids if case_id in now)
        keep = tuple(done[case_id] for case_id in ids if case_id in done and case_id not in now)
        if todo:
            jobs.append(
                ShardJob(
                    root=out,
                    shard=shard,
                    split=rows[0].split,
                    todo=todo,
                    keep=keep,
                    order=tuple(ids),
                    basis=basis_digest,
                    identities={case.case_id: identities[case.case_id] for case in todo},
                    inputs={case.case_id: inputs[case.case_id] for case in todo},
                    pipeline=pipeline,
                    categories=categories,
                    extra=tuple(extra),
                    base=table.parent,
                    device=numerics,
                    threads=per_worker,
                    segmentations=step,
                )
            )
    busy = now & segmented
    if step is not None:
        missing = step.missing(inputs[case_id]["ct"] for case_id in busy)
        for n in missing:
            segmenters[n].preflight(device_of(segmenters[n], numerics))
        if missing and write:
            step.require_writable()
    if write:
        layout.root.mkdir(parents=True, exist_ok=True)
        forget_checksums(layout, [job.shard for job in jobs], plan=plan != old_plan)
        # The manifest first: it is what makes the folder a data set, whatever a kill leaves.
        made_by = () if step is None else step.made_by
        if jobs or manifest is None or manifest["categories"] != category_rows(categories, catalog):
            write_json(layout.manifest, manifest_of(pipeline, basis, categories, catalog, made_by))
        if plan != old_plan:
            write_plan(layout.plan, plan)
    standing = [record for case_id, record in done.items() if case_id not in now]
    return BuildPlan(
        jobs=tuple(jobs),
        plan=tuple(plan),
        standing=len(standing),
        failed_standing=sum(record.status == FAILED for record in standing),
        waiting=len(wanted) - len(now),
        views=len(pipeline.views),
        segmented=len(busy),
    )


def _standing(layout: Layout, plan: list[Planned]) -> dict[str, CaseRecord]:
    """The records of all committed cases; their tables must be there, of the size that was committed."""
    done: dict[str, CaseRecord] = {}
    for shard in dict.fromkeys(row.shard for row in plan):
        if not layout.commit(shard).exists():
            continue
        commit = read_commit(layout.commit(shard))
        for name, facts in commit["files"].items():
            path = layout.root / name
            if not path.exists() or path.stat().st_size != facts["bytes"]:
                raise DamageError(
                    "a committed shard's table is " + ("damaged" if path.exists() else "missing"),
                    where=name,
                    do=f"delete commits/{shard}.json to build the shard again; paxray verify lists all damage",
                )
        done |= {record.case_id: record for record in records_of(commit)}
    return done


def _require_all_can_be_redone(done: dict[str, CaseRecord], by_id: dict[str, Case], basis: str) -> None:
    """With another pipeline every case must be made anew: one that left the table cannot be."""
    left = [
        c for c, record in done.items() if record.status == OK and record.basis != basis and c not in by_id
    ]
    if left:
        raise ConfigError(
            f"{len(left)} cases that stand are not in the table, so they cannot be redone: '{left[0]}' ...",
            expected="every case that stands, since the pipeline changed",
            do="put their rows back, or build into another --out",
            code="pipeline_changed",
        )


def _require_used_vocabularies(pipeline: Pipeline, cases: list[Case], catalog: Catalog, base: Path) -> None:
    """Further labels must be for a vocabulary that some case uses, and name known classes."""
    used = {source.vocabulary for case in cases for source in case.masks}
    for name, labels in pipeline.labels.vocabularies.items():
        if name not in used:
            raise ConfigError(
                f"no case uses the vocabulary '{name}'",
                where="labels.vocabularies",
                expected=", ".join(sorted(used)) or "no vocabulary: no case has masks",
                do=suggest(name, used),
            )
        load_vocabulary(name, base=base, catalog=catalog)
        for word in labels.values():
            catalog.resolve(word)
