"""The command line. Each command is a thin call; heavy imports happen inside, so that `--help` is quick."""

from __future__ import annotations

import functools
import json
import secrets
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from paxray._version import __version__
from paxray.errors import (
    EXIT_DAMAGE,
    EXIT_FAILED_CASES,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    ConfigError,
    PaxrayError,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from paxray.anatomy.catalog import Catalog
    from paxray.buildlog import Event
    from paxray.run import BuildPlan, BuildResult

app = typer.Typer(
    help="Annotated X-ray data sets made from CT. A research tool, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
export_app = typer.Typer(help="Write a data set in another format.", no_args_is_help=True)
classes_app = typer.Typer(
    help="The anatomy classes: which there are and how they nest.", no_args_is_help=True
)
app.add_typer(export_app, name="export")
app.add_typer(classes_app, name="classes")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class DeviceName(StrEnum):
    """Where to project."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class BeamName(StrEnum):
    """Kinds of beam."""

    CONE = "cone"
    PARALLEL = "parallel"


Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ClassesFile = Annotated[
    Path | None,
    typer.Option("--classes", metavar="FILE.yaml", help="Classes of your own, added to the catalog."),
]


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors into messages and exit codes: 2 usage, 3 failed cases, 4 environment, 5 damage, 130 interrupt."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except PaxrayError as error:
            err.print(f"[bold red]error[/] \\[{error.code}] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            err.print("interrupted: what was committed stands; the same command goes on from there")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output went away (| head): nothing is wrong.
            sys.stderr.close()
            raise typer.Exit(0) from None

    return run


def _version(asked: bool) -> None:
    if asked:
        out.print(f"paxray {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Annotated X-ray data sets made from CT. A research tool, not for clinical use."""


# --- cases ---------------------------------------------------------------------------------------------


@app.command()
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing table.")] = False,
    as_json: Json = False,
) -> None:
    """Find CTs and the masks that go with them, and write the case table.

    Reads NIfTI, NRRD, MHA and DICOM series. The table is plain CSV: correct it by hand where needed.
    """
    from paxray.anatomy.catalog import load_catalog
    from paxray.io.cases import write_case_table
    from paxray.io.scan import scan as scan_folder

    if table.exists() and not force:
        raise ConfigError(
            "the table exists already", where=str(table), do="--force to overwrite it, or another -o"
        )
    catalog = load_catalog()
    known = [*catalog, *(word for item in catalog.values() for word in item.synonyms)]
    key_file = table.with_suffix(".key")
    stored = key_file.read_text(encoding="ascii").strip() if key_file.exists() else ""
    chosen = key or stored or secrets.token_hex(16)
    found = scan_folder(folder, known_classes=known, default_vocabulary=vocabulary, key=chosen)
    write_case_table(table, found.cases)
    if not key and not stored and any(case.ct.is_dir() for case in found.cases):
        key_file.touch(mode=0o600)
        key_file.write_text(chosen + "\n", encoding="ascii")
        err.print(
            f"DICOM patient ids were replaced by keyed hashes; the key is in {escape(str(key_file))}: keep it private, "
            "and keep it, so that the next scan gives a patient the same id",
            soft_wrap=True,
        )
    if as_json:
        rows = [{"case_id": c.case_id, "patient_id": c.patient_id, "ct": c.ct_where} for c in found.cases]
        print(
            json.dumps(
                {
                    "table": str(table),
                    "cases": rows,
                    "notes": [[n.where, n.code, n.message] for n in found.notes],
                }
            )
        )
        return
    patients = len({case.patient_id for case in found.cases})
    masked = sum(bool(case.masks) for case in found.cases)
    out.print(
        f"{len(found.cases)} CTs of {patients} patients, {masked} with masks: [bold]{escape(str(table))}[/]"
    )
    for note in found.notes:
        out.print(f"  [yellow]note[/] {escape(f'{note.where}: {note.message}')}", soft_wrap=True)
    if not found.cases:
        raise ConfigError("no CT found", where=str(folder), expected="NIfTI, NRRD, MHA or DICOM CTs in HU")


@app.command()
@guarded
def phantom(
    folder: Annotated[Path, typer.Option("--out", help="Where to write.")],
    cases: Annotated[int, typer.Option(min=1, help="How many patients.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other patients.")] = 1,
) -> None:
    """Make procedural thorax phantoms: CT, exact masks and a case table."""
    from paxray.phantom.write import write_phantoms

    with _progress() as progress:
        task = progress.add_task("phantoms", total=cases)

        def made(name: str) -> None:
            progress.update(task, advance=1, description=f"phantoms: {name}")

        table = write_phantoms(folder, cases, seed, progress=made)
    out.print(f"{cases} phantoms: [bold]{escape(str(table))}[/]")


# --- building ------------------------------------------------------------------------------------------


@app.command()
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
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N cases of the table.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="A line per case, with seconds per stage.")
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
    from paxray.run import plan_build

    overrides = list(settings or [])
    if classes is not None:
        overrides.append(f"labels.catalog={json.dumps(str(classes.resolve()))}")
    chosen = load_pipeline(pipeline, overrides)
    rows = read_case_table(cases)[:limit]
    if dry_run:
        todo = plan_build(
            chosen, rows, dataset, table=cases, device=device.value, workers=workers,
            update=update, retry_failed=retry_failed, write=False,
        )  # fmt: skip
        _print_plan(todo, dataset, as_json)
        return
    with _progress(quiet=as_json) as progress:
        task = progress.add_task("reading what stands", total=None)

        def planned(todo: BuildPlan) -> None:
            progress.update(task, description="building", total=todo.cases, completed=0)
            if not as_json and todo.cases:
                progress.console.print(_plan_line(todo))

        def happened(event: Event) -> None:
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

        result = run_build(
            chosen, rows, dataset, table=cases, workers=workers, device=device.value, update=update,
            retry_failed=retry_failed, on_plan=planned, on_event=happened,
        )  # fmt: skip
    _print_result(result, as_json)
    if result.failed:
        raise typer.Exit(EXIT_FAILED_CASES)


def _plan_line(todo: BuildPlan) -> str:
    stands = f", {todo.standing} stand already" if todo.standing else ""
    return f"{todo.cases} cases to build in {len(todo.jobs)} shards, {todo.views} views each{stands}"


def _print_plan(todo: BuildPlan, dataset: Path, as_json: bool) -> None:
    shards: list[dict[str, Any]] = [
        {"shard": job.shard, "cases": [case.case_id for case in job.todo], "keeps": len(job.keep)}
        for job in todo.jobs
    ]
    if as_json:
        counts = {"cases": todo.cases, "samples": todo.cases * todo.views, "standing": todo.standing}
        print(json.dumps({**counts, "shards": shards}))
        return
    out.print(f"dry run, nothing written to {escape(str(dataset))}: " + _plan_line(todo))
    for shard in shards:
        out.print(f"  {shard['shard']}: {escape(', '.join(shard['cases']))}", soft_wrap=True)
    if todo.failed_standing:
        out.print(f"  {todo.failed_standing} failed cases wait for --retry-failed")


def _print_result(result: BuildResult, as_json: bool) -> None:
    if as_json:
        failed = [{"case_id": r.case_id, "code": r.code, "message": r.message} for r in result.failed]
        print(
            json.dumps(
                {
                    "dataset": str(result.root),
                    "cases": result.cases,
                    "made": result.made,
                    "samples": result.samples,
                    "failed": failed,
                    "duplicates": list(result.duplicates),
                }
            )
        )
        return
    if not result.shards_done:
        out.print(f"nothing to do: {result.samples} samples stand in [bold]{escape(str(result.root))}[/]")
    else:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(result.cases.items()))
        out.print(f"{result.samples} samples of {counts} cases in [bold]{escape(str(result.root))}[/]")
    for sentence in result.duplicates:
        out.print(f"[yellow]beware[/] {escape(sentence)}", soft_wrap=True)
    if result.failed:
        out.print(f"[red]{len(result.failed)} cases failed[/] (cases.parquet; --retry-failed tries again):")
        for record in result.failed:
            out.print(
                f"  {escape(record.case_id)} \\[{record.code}] {escape(record.message)}", soft_wrap=True
            )


# --- one case, one look --------------------------------------------------------------------------------


@app.command()
@guarded
def project(
    ct: Annotated[
        Path, typer.Argument(metavar="CT", help="NIfTI, NRRD, MHA, or a folder with a DICOM series.")
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels", metavar="MASKS[=VOCABULARY]", help="A label map, or a folder of one file per class."
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
    as_json: Json = False,
) -> None:
    """Project one case: image, signal, a mask per class, and an overlay to look at."""
    from paxray.look import look

    numbers = {}
    for entry in names or []:
        value, equals, name = entry.partition("=")
        if not equals or not value.isdigit():
            raise ConfigError(
                "--label needs VALUE=CLASS", found=entry, do="e.g. --label 118=costal_cartilages"
            )
        numbers[int(value)] = name
    result = look(
        ct,
        labels or [],
        views or ["pa"],
        folder,
        vocabulary=vocabulary,
        further_labels=numbers,
        catalog_file=classes,
        beam=beam.value,
        sdd_mm=sdd_mm,
        size=size,
        device=device.value,
    )
    if as_json:
        print(json.dumps(result))
        return
    for view in result["views"]:
        out.print(
            f"{view['view']}: {view['classes']} classes with pixels, "
            f"{view['incomplete_percent']:.1f} % of the body's pixels incomplete; look at [bold]{view['overlay']}[/]",
            soft_wrap=True,
        )
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["seconds"].items())
    out.print(f"on {result['backend']}; {spent}; peak {result['memory_mib']:.0f} MiB")


# --- what is done with a data set -----------------------------------------------------------------------


@export_app.command("coco")
@guarded
def export_coco(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET")],
    folder: Annotated[Path | None, typer.Option("--out", help="Default: DATASET/exports/coco")] = None,
    bits: Annotated[int, typer.Option(help="8: the display; 16: the signal.")] = 8,
    as_json: Json = False,
) -> None:
    """Write COCO: images, and instances_SPLIT.json with a run-length mask per class and image."""
    from paxray.dataset.reader import load
    from paxray.export.coco import export_coco as run_export

    if bits not in (8, 16):
        raise ConfigError("--bits", expected="8 or 16", found=str(bits))
    data = load(dataset)
    with _progress(quiet=as_json) as progress:
        task = progress.add_task("export", total=len(data))
        result = run_export(data, folder, bits=bits, on_sample=lambda _: progress.update(task, advance=1))  # type: ignore[arg-type]
    if as_json:
        print(
            json.dumps(
                {
                    "folder": str(result.folder),
                    "files": [str(f) for f in result.files],
                    "images": result.images,
                    "annotations": result.annotations,
                    "categories": result.categories,
                }
            )
        )
        return
    out.print(
        f"COCO: {result.images} images, {result.annotations} annotations, {result.categories} categories in "
        f"[bold]{escape(str(result.folder))}[/]",
        soft_wrap=True,
    )


@app.command()
@guarded
def verify(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Also decode every image and mask, and check the facts.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that a data set is what was written. Exit code 5 where it is not."""
    from paxray.dataset.verify import verify as run_verify

    if not dataset.is_dir():
        raise ConfigError("no such folder", where=str(dataset))
    result = run_verify(dataset, deep=deep)
    if as_json:
        findings = [{"file": f.file, "what": f.what} for f in result.findings]
        print(json.dumps({"findings": findings, "files": result.files, "unfinished": result.unfinished}))
    else:
        for finding in result.findings:
            out.print(
                f"[red]damage[/] [bold]{escape(finding.file)}[/] {escape(finding.what)}", soft_wrap=True
            )
        if result.unfinished:
            out.print(
                "[yellow]unfinished[/] a build was interrupted: the same build command goes on from there"
            )
        if not result.findings:
            out.print(f"sound: {result.files} files, {result.samples} samples")
        else:
            out.print("do: take the file from a copy; or delete its shard's file in commits/ and build again")
    if result.findings:
        raise typer.Exit(EXIT_DAMAGE)


@app.command()
@guarded
def report(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET")],
    folder: Annotated[Path | None, typer.Option("--out", help="Default: DATASET/report/index.html")] = None,
    samples: Annotated[int, typer.Option(min=0, help="How many samples to show.")] = 24,
) -> None:
    """Write a page to look at: pictures with class overlays, counts, failures."""
    from paxray.dataset.reader import load
    from paxray.report.html import write_report

    data = load(dataset)
    with _progress() as progress:
        task = progress.add_task("report", total=min(samples, len(data)))
        page = write_report(
            data, folder, samples=samples, on_sample=lambda _: progress.update(task, advance=1)
        )
    out.print(f"open [bold]{escape(str(page))}[/]", soft_wrap=True)


# --- classes ---------------------------------------------------------------------------------------------


def _catalog(classes: Path | None) -> Catalog:
    from paxray.anatomy.catalog import load_catalog

    return load_catalog(classes)


def _swatch(colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    return f"[#{red:02x}{green:02x}{blue:02x}]■[/]"


def _class_facts(catalog: Catalog, name: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(catalog[name]), "ancestors": list(catalog.ancestors(name))}


@classes_app.command("list")
@guarded
def classes_list(
    group: Annotated[str, typer.Option(help="Only this group (lung, heart, rib, ...).")] = "",
    vocabulary: Annotated[str, typer.Option(help="Only the classes that this vocabulary names.")] = "",
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """List the classes known."""
    catalog = _catalog(classes)
    names = list(catalog)
    if vocabulary:
        from paxray.anatomy.vocabulary import load_vocabulary

        in_it = set(load_vocabulary(vocabulary, catalog=catalog).labels.values())
        names = [name for name in names if name in in_it]
    groups = sorted({item.group for item in catalog.values()})
    if group and group not in groups:
        raise ConfigError(f"no group '{group}'", expected=", ".join(groups))
    names = [name for name in names if not group or catalog[name].group == group]
    if as_json:
        print(json.dumps([_class_facts(catalog, name) for name in names]))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("class", "group", "parts", "SNOMED CT"):
        table.add_column(column)
    for name in names:
        item = catalog[name]
        swatch = _swatch(item.colour)
        parts = f"{len(item.parts)}" if item.parts else ""
        table.add_row(f"{swatch} {name}", item.group, parts, item.snomed_ct)
    out.print(table)
    out.print(f"{len(names)} classes")


@classes_app.command("show")
@guarded
def classes_show(
    name: Annotated[str, typer.Argument(help="A class or one of its synonyms.")],
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of a class."""
    catalog = _catalog(classes)
    facts = _class_facts(catalog, catalog.resolve(name))
    if as_json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        if value not in ("", [], (), False):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            out.print(f"[bold]{key:>17}[/]  {escape(str(shown))}", soft_wrap=True)


@classes_app.command("tree")
@guarded
def classes_tree(
    name: Annotated[str, typer.Argument(help="Start here; all roots by default.")] = "",
    classes: ClassesFile = None,
) -> None:
    """Draw how classes nest."""
    from rich.tree import Tree

    catalog = _catalog(classes)

    def grow(tree: Tree, at: str) -> None:
        branch = tree.add(f"{_swatch(catalog[at].colour)} {at}")
        for part in catalog[at].parts:
            grow(branch, part)

    roots = [catalog.resolve(name)] if name else [n for n in catalog if not catalog.ancestors(n)]
    top = Tree("", hide_root=True)
    for start in roots:
        grow(top, start)
    out.print(top)


@classes_app.command("check")
@guarded
def classes_check(classes: ClassesFile = None) -> None:
    """Check the catalog: names, parts, twins, codes, colours."""
    from paxray.anatomy.check import check_catalog

    catalog = _catalog(classes)
    problems = check_catalog(catalog)
    for problem in problems:
        out.print(f"[red]problem[/] {escape(str(problem))}", soft_wrap=True)
    if problems:
        raise typer.Exit(EXIT_USAGE)
    out.print(f"{len(catalog)} classes, no problems")


def _progress(quiet: bool = False) -> Progress:
    """A progress bar on a terminal; nothing but printed lines elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err if quiet else out,
        disable=quiet or not out.is_terminal,
        transient=True,
    )


def main() -> None:
    """Entry point of ``paxray``."""
    try:
        app()
    except Exception:
        err.print_exception()
        err.print("this is a bug in paxray: please report it with the lines above")
        sys.exit(EXIT_INTERNAL)


if __name__ == "__main__":
    main()
