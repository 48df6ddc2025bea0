"""From CTs to a data set: scan, phantom, build, project."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.markup import escape

from paxray.cli.common import (
    BeamName,
    ClassesFile,
    DeviceName,
    Json,
    err,
    further_labels,
    guarded,
    one_case,
    out,
    print_json,
    progress_bar,
)
from paxray.errors import EXIT_FAILED_CASES, ConfigError, counted

if TYPE_CHECKING:
    from paxray.buildlog import Event
    from paxray.config import Pipeline, SegmentationConfig
    from paxray.io.cases import Case
    from paxray.io.pairing import Note
    from paxray.run import BuildResult
    from paxray.todo import BuildPlan


@guarded
def scan(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the CTs are, at any depth.")],
    table: Annotated[Path, typer.Option("-o", "--out", help="The case table to write.")] = Path("cases.csv"),
    vocabulary: Annotated[
        str, typer.Option(help="What the values of multilabel files mean.")
    ] = "totalsegmentator_v2",
    key: Annotated[
        str,
        typer.Option(
            help="Key of the hash that replaces DICOM patient ids. Default: one kept beside the table."
        ),
    ] = "",
    classes: ClassesFile = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing table.")] = False,
    as_json: Json = False,
) -> None:
    """Find CTs and the masks that go with them, and write the case table.

    Reads NIfTI, NRRD, MHA and DICOM series. The table is plain CSV: correct it by hand where needed.
    """
    from paxray.anatomy.catalog import load_catalog
    from paxray.anatomy.vocabulary import is_vocabulary
    from paxray.io.cases import write_case_table
    from paxray.io.scan import UNUSED_MASK
    from paxray.io.scan import scan as scan_folder
    from paxray.segmentation.named import recogniser

    if table.exists() and not force:
        raise ConfigError(
            "the table exists already", where=str(table), do="--force to overwrite it, or another -o"
        )
    catalog = load_catalog(classes)
    key_file = table.with_suffix(".key")
    stored = key_file.read_text(encoding="ascii").strip() if key_file.exists() else ""
    chosen = key or stored or secrets.token_hex(16)
    found = scan_folder(
        folder,
        known_segment=recogniser(catalog),
        default_vocabulary=vocabulary,
        is_vocabulary=lambda file: is_vocabulary(file, catalog),
        table_folder=table.parent,
        key=chosen,
    )
    if not found.cases:
        for note in found.notes:
            err.print(f"  [yellow]note[/] {escape(f'{note.where}: {note.message}')}", soft_wrap=True)
        _refuse_no_cases(folder, found.notes)
    write_case_table(table, found.cases)
    if not key and not stored and any(case.ct.is_dir() for case in found.cases):
        key_file.touch(mode=0o600)
        key_file.write_text(chosen + "\n", encoding="ascii")
        err.print(
            f"DICOM patient ids were replaced by keyed hashes; the key is in {escape(str(key_file))}: keep it "
            "private, and keep it, so that the next scan gives a patient the same id",
            soft_wrap=True,
        )
    if as_json:
        rows = [{"case_id": c.case_id, "patient_id": c.patient_id, "ct": c.ct_where} for c in found.cases]
        print_json(
            {
                "table": str(table),
                "cases": rows,
                "notes": [[n.where, n.code, n.message] for n in found.notes],
            }
        )
        return
    patients = len({case.patient_id for case in found.cases})
    masked = sum(bool(case.masks) for case in found.cases)
    out.print(
        f"{counted(len(found.cases), 'CT')} of {counted(patients, 'patient')}, {masked} with masks: "
        f"[bold]{escape(str(table))}[/]"
    )
    for note in found.notes:
        out.print(f"  [yellow]note[/] {escape(f'{note.where}: {note.message}')}", soft_wrap=True)
    unused = len({note.where for note in found.notes if note.code in UNUSED_MASK})
    if unused:
        bare = len(found.cases) - masked
        out.print(
            f"[yellow]beware[/] masks that were not used, for the reasons above: {unused}"
            + (
                f"; CTs without masks, which a build segments if its pipeline says so: {bare}" if bare else ""
            ),
            soft_wrap=True,
        )


def _refuse_no_cases(folder: Path, notes: Sequence[Note]) -> NoReturn:
    from paxray.io.scan import UNNAMABLE_CT

    left_out = [note for note in notes if note.code == UNNAMABLE_CT]
    if not left_out:
        raise ConfigError("no CT found", where=str(folder), expected="NIfTI, NRRD, MHA or DICOM CTs in HU")
    more = f"; and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    raise ConfigError(
        "no CT is left: none of those found has a path that a case table can name",
        where=str(folder),
        found=f"{left_out[0].where}: {left_out[0].message}{more}",
        do="rename what the notes name, and scan again",
        code=UNNAMABLE_CT,
    )


@guarded
def phantom(
    folder: Annotated[Path, typer.Option("--out", help="Where to write.")],
    cases: Annotated[int, typer.Option(min=1, help="How many patients.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other patients.")] = 1,
) -> None:
    """Make procedural thorax phantoms: CT, exact masks and a case table."""
    from paxray.phantom.write import write_phantoms

    with progress_bar() as progress:
        task = progress.add_task("phantoms", total=cases)

        def made(name: str) -> None:
            progress.update(task, advance=1, description=f"phantoms: {name}")

        table = write_phantoms(folder, cases, seed, progress=made)
    out.print(f"{counted(cases, 'phantom')}: [bold]{escape(str(table))}[/]")


@guarded
def build(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="What to build; see pipelines/.")],
    cases: Annotated[Path, typer.Option("--cases", metavar="CASES.csv", help="The case table.")],
    dataset: Annotated[Path, typer.Option("--out", metavar="DATASET", help="The data set's folder.")],
    workers: Annotated[int, typer.Option(min=0, help="Dask worker processes; 0 runs in this process.")] = 0,
    device: Annotated[
        DeviceName, typer.Option(help="Where to project; auto takes CUDA where there is one.")
    ] = DeviceName.AUTO,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting of the pipeline.")
    ] = None,
    classes: ClassesFile = None,
    update: Annotated[
        bool, typer.Option("--update", help="Redo what a changed pipeline or input touches.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed cases again.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Process N cases at most in this call.")] = None,
    segmentations: Annotated[
        Path | None,
        typer.Option(
            "--segmentations",
            metavar="DIR",
            help="Where segmentations are kept. Default: paxray_segmentations beside DATASET.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="A line per case, with seconds per stage, and one per finding."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a data set, or complete one.

    A second call does what is missing and otherwise nothing. Failed cases are listed, never stop the others, and wait
    for [bold]--retry-failed[/]; the exit code is then 3.
    """
    from paxray.config import load_pipeline
    from paxray.io.cases import read_case_table
    from paxray.run import build as run_build
    from paxray.todo import plan_build

    overrides = list(settings or [])
    if classes is not None:
        overrides.append(f"labels.catalog={json.dumps(str(classes.resolve()))}")
    chosen = load_pipeline(pipeline, overrides)
    rows = read_case_table(cases)
    if not as_json:
        _print_notes(rows, chosen, classes)
    if dry_run:
        todo = plan_build(
            chosen, rows, dataset, table=cases, device=device.value, workers=workers,
            update=update, retry_failed=retry_failed, limit=limit, segmentations=segmentations,
            write=False,
        )  # fmt: skip
        _print_plan(todo, dataset, as_json)
        return
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("reading inputs", total=len(rows))

        def planned(todo: BuildPlan) -> None:
            progress.update(task, description="building", total=todo.cases, completed=0)
            if not as_json and todo.cases:
                progress.console.print(_plan_line(todo))

        def happened(event: Event) -> None:
            if event.kind == "segmenting":
                progress.update(task, description=f"segmenting {event.name} by {event.message}")
            elif event.kind == "note":
                words = f"{event.name}: {event.message}"
                progress.console.print(f"[yellow]note[/] {escape(words)}", soft_wrap=True)
            if event.kind != "case":
                return
            progress.update(task, advance=1, description=f"built {event.name}")
            if event.status == "failed":
                first = event.message.splitlines()[0] if event.message else ""
                progress.console.print(
                    f"[red]failed[/] {escape(event.name)}: {escape(first)}", soft_wrap=True
                )
            elif verbose and not as_json:
                spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in event.seconds.items())
                progress.console.print(f"{escape(event.name)}: {spent}; peak {event.memory_mib:.0f} MiB")
                for finding in event.findings:
                    progress.console.print(f"  {escape(finding)}", soft_wrap=True)

        result = run_build(
            chosen, rows, dataset, table=cases, workers=workers, device=device.value, update=update,
            retry_failed=retry_failed, limit=limit, segmentations=segmentations,
            on_input=lambda _: progress.update(task, advance=1),
            on_plan=planned, on_event=happened,
        )  # fmt: skip
    _print_result(result, as_json)
    if result.failed:
        raise typer.Exit(EXIT_FAILED_CASES)


def _print_notes(rows: list[Case], pipeline: Pipeline, classes: Path | None) -> None:
    """What is legal and may not be meant."""
    alone = sum(case.patient_assumed for case in rows)
    if alone > 1:
        out.print(
            f"[yellow]note[/] {alone} cases name no patient: each counts as a patient of its own, and two scans of"
            " one person may come into different splits"
        )
    if segmented := _segmented_note(rows, pipeline.segmentation):
        out.print(f"[yellow]note[/] {escape(segmented)}", soft_wrap=True)
    if classes is not None:
        from paxray.anatomy.catalog import load_catalog

        standard, own = load_catalog(), load_catalog(classes)
        redefined = [name for name in standard if own[name] != standard[name]]
        if redefined:
            out.print(f"[yellow]note[/] {escape(classes.name)} redefines {', '.join(redefined)}")


def _segmented_note(rows: list[Case], chosen: SegmentationConfig) -> str:
    """What is segmented that brings no masks, or although it does; empty where all is as given."""
    count, bare = len(rows), sum(not case.masks for case in rows)
    names = " and ".join(one.name for one in chosen.segmenter)
    if names and chosen.cases == "all":
        given = f"; {count - bare} have masks, which come first" if bare < count else ", and none has masks"
        return (
            f"all {count} cases are segmented by {names} (pipeline key `segmentation`, `cases: all`){given}"
        )
    if not bare:
        return ""
    what = f"segmented by {names} (pipeline key `segmentation`)"
    nothing = "only their body is labelled, since the pipeline names no segmenter"
    some = "the case has" if count == 1 else f"{bare} of {count} cases have"
    return f"{some} no masks: {what if names else nothing}"


def _plan_line(todo: BuildPlan) -> str:
    stands = f", {todo.standing} stand already" if todo.standing else ""
    waits = f", {todo.waiting} wait for a later call" if todo.waiting else ""
    segmented = f", {todo.segmented} of them segmented here" if todo.segmented else ""
    shards, views = counted(len(todo.jobs), "shard"), counted(todo.views, "view")
    return f"{counted(todo.cases, 'case')} to build in {shards}, {views} each{segmented}{stands}{waits}"


def _print_plan(todo: BuildPlan, dataset: Path, as_json: bool) -> None:
    shards: list[dict[str, Any]] = [
        {"shard": job.shard, "cases": [case.case_id for case in job.todo], "keeps": len(job.keep)}
        for job in todo.jobs
    ]
    if as_json:
        counts = {"cases": todo.cases, "samples": todo.cases * todo.views, "standing": todo.standing}
        print_json({**counts, "shards": shards})
        return
    out.print(f"dry run, nothing written to {escape(str(dataset))}: " + _plan_line(todo))
    for shard in shards:
        out.print(f"  {shard['shard']}: {escape(', '.join(shard['cases']))}", soft_wrap=True)
    if todo.failed_standing:
        out.print(f"  {todo.failed_standing} failed cases wait for --retry-failed")


def _print_result(result: BuildResult, as_json: bool) -> None:
    if as_json:
        failed = [{"case_id": r.case_id, "code": r.code, "message": r.message} for r in result.failed]
        print_json(
            {
                "dataset": str(result.root),
                "cases": result.cases,
                "made": result.made,
                "samples": result.samples,
                "failed": failed,
                "duplicates": list(result.duplicates),
            }
        )
        return
    if not result.shards_done:
        out.print(
            f"nothing to do: {counted(result.samples, 'sample')} in [bold]{escape(str(result.root))}[/]"
        )
    else:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(result.cases.items()))
        noun = "case" if sum(result.cases.values()) == 1 else "cases"
        out.print(
            f"{counted(result.samples, 'sample')} of {counts} {noun} in [bold]{escape(str(result.root))}[/]"
        )
    for sentence in result.duplicates:
        out.print(f"[yellow]beware[/] {escape(sentence)}", soft_wrap=True)
    if result.failed:
        out.print(
            f"[red]{counted(len(result.failed), 'case')} failed[/] (cases.parquet; --retry-failed tries again):"
        )
        for record in result.failed:
            out.print(
                f"  {escape(record.case_id)} \\[{record.code}] {escape(record.message)}", soft_wrap=True
            )


@guarded
def project(
    ct: Annotated[
        Path, typer.Argument(metavar="CT", help="NIfTI, NRRD, MHA, or a folder with a DICOM series.")
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="MASKS[=VOCABULARY]",
            help="A label map; or a folder of one file per class, a .seg.nrrd, a DICOM SEG or RTSTRUCT.",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")] = Path(
        "projection"
    ),
    views: Annotated[list[str] | None, typer.Option("--view", help="pa, ap, lateral_left, rao, ...")] = None,
    vocabulary: Annotated[
        str, typer.Option(help="What the values of a label map mean.")
    ] = "totalsegmentator_v2",
    names: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="VALUE=CLASS", help="A further label of the vocabulary."),
    ] = None,
    classes: ClassesFile = None,
    beam: Annotated[BeamName, typer.Option(help="Rays from a focal spot, or parallel.")] = BeamName.CONE,
    sdd_mm: Annotated[float, typer.Option("--sdd-mm", help="Source-to-detector distance.")] = 1800.0,
    size: Annotated[int, typer.Option(min=8, max=16384, help="Detector rows and columns.")] = 512,
    device: Annotated[
        DeviceName, typer.Option(help="Where to project; auto takes CUDA where there is one.")
    ] = DeviceName.AUTO,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also the classes that recipes make, surfaces, landmarks, measures, and what is implausible about the"
            " masks; takes longer.",
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="CLASS", help="Only this class, by its recipe if need be; repeatable."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Project one case: image, signal, a mask per class, and an overlay to look at."""
    with one_case():
        from paxray.io.ct import read_ahead

        read = read_ahead(ct, where=str(ct))  # what is imported now takes as long to load
        from paxray.look import look
        from paxray.warmup import forgo_blas

        forgo_blas()
        result = look(
            ct,
            labels or [],
            views or ["pa"],
            folder,
            vocabulary=vocabulary,
            further_labels=further_labels(names),
            catalog_file=classes,
            beam=beam.value,
            sdd_mm=sdd_mm,
            size=size,
            device=device.value,
            full=full,
            only=only or [],
            read=read,
        )
    if as_json:
        print_json(result)
        return
    for view in result["views"]:
        out.print(
            f"{view['view']}: {counted(view['classes'], 'class')} with pixels, "
            f"{view['incomplete_percent']:.1f} % of the body's pixels incomplete; look at [bold]{view['overlay']}[/]",
            soft_wrap=True,
        )
        for name, why in view.get("unseen", {}).items():
            out.print(f"  [yellow]no pixels[/] {escape(f'{name}: {why}')}", soft_wrap=True)
    if not labels:
        out.print(
            "[yellow]note[/] no masks were given, so nothing but the body is known: --labels MASKS, or first "
            f"`paxray segment {shlex.quote(str(ct))} --out MASKS`",
            soft_wrap=True,
        )
    if result["standing"]:
        out.print(
            f"[yellow]note[/] not of this call, but of an earlier one of the same CT: {', '.join(result['standing'])}",
            soft_wrap=True,
        )
    for row in result["findings"] or ():
        colour = {"error": "red", "warning": "yellow"}.get(row["severity"], "dim")
        out.print(
            f"[{colour}]{row['severity']}[/] {row['finding']}: {escape(row['message'])}", soft_wrap=True
        )
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["seconds"].items())
    out.print(f"on {result['backend']}; {spent}; peak {result['memory_mib']:.0f} MiB")
