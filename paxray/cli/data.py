"""What is done with a data set: export, verify, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from paxray.cli.common import ClassesFile, Json, guarded, out, print_json, progress_bar
from paxray.errors import EXIT_DAMAGE, ConfigError, counted

if TYPE_CHECKING:
    from paxray.export.folder import ExportResult


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
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("export", total=len(data))
        result = run_export(data, folder, bits=bits, on_sample=lambda _: progress.update(task, advance=1))  # type: ignore[arg-type]
    _say("COCO", result, "categories", as_json)


@guarded
def export_paxray(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET")],
    folder: Annotated[Path | None, typer.Option("--out", help="Default: DATASET/exports/paxray")] = None,
    channels: Annotated[
        str,
        typer.Option(
            help="The vocabulary that gives the channels: paxray_166, pax_ray_plus_plus_159, ... or a YAML file."
        ),
    ] = "paxray_166",
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """Write PAXRay's layout: paxray.json, images, and a stack of boolean masks per image as .npy.

    What nothing looked for is listed as unknown beside each image, not left empty. Stacks are not compressed: 44 MB for
    166 channels of 512 x 512 pixels.
    """
    from paxray.anatomy.catalog import load_catalog
    from paxray.anatomy.channels import load_channels
    from paxray.dataset.reader import load
    from paxray.dataset.stack import catalog_with
    from paxray.export.paxray import export_paxray as run_export

    data = load(dataset)
    order = load_channels(channels, catalog=catalog_with(data.categories, load_catalog(classes)))
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("export", total=len(data))
        result = run_export(data, order, folder, on_sample=lambda _: progress.update(task, advance=1))
    _say("PAXRay's layout", result, "channels", as_json)


def _say(name: str, result: ExportResult, columns: str, as_json: bool) -> None:
    """Report an export; `columns` is what its format calls the classes."""
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "files": [str(f) for f in result.files],
                "images": result.images,
                "annotations": result.annotations,
                columns: result.categories,
            }
        )
        return
    out.print(
        f"{name}: {counted(result.images, 'image')}, {counted(result.annotations, 'mask')} with pixels, "
        f"{result.categories} {columns} in "
        f"[bold]{escape(str(result.folder))}[/]",
        soft_wrap=True,
    )


def _advice(file: str) -> str:
    """What to do about a damaged file."""
    from paxray.dataset.layout import TABLES

    folder, _, name = file.rpartition("/")
    if folder in (*TABLES, "commits"):
        shard = name.rsplit(".", 1)[0]
        return f"delete commits/{shard}.json and build again: the shard is made anew (or take {file} from a copy)"
    if file == "plan.parquet":
        return "take plan.parquet from a copy: it alone says which patient is in which split"
    if file == "dataset.json":
        return "take dataset.json from a copy"
    return f"build again: {file} is made anew from the rest"


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
        facts = {"files": result.files, "unfinished": result.unfinished, "stale": list(result.stale)}
        print_json({"findings": findings, **facts})
    else:
        for finding in result.findings:
            out.print(
                f"[red]damage[/] [bold]{escape(finding.file)}[/] {escape(finding.what)}", soft_wrap=True
            )
        if result.unfinished:
            out.print(
                "[yellow]unfinished[/] a build was interrupted: the same build command goes on from there"
            )
        if result.stale:
            out.print(
                f"[yellow]stale[/] {counted(len(result.stale), 'case')} made with an earlier pipeline, beginning with "
                f"{escape(result.stale[0])}: build again to redo them"
            )
        if not result.findings:
            out.print(f"sound: {result.files} files, {counted(result.samples, 'sample')}")
        else:
            for advice in dict.fromkeys(_advice(finding.file) for finding in result.findings):
                out.print(f"do: {advice}")
    if result.findings:
        raise typer.Exit(EXIT_DAMAGE)


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
    with progress_bar() as progress:
        task = progress.add_task("report", total=min(samples, len(data)))
        page = write_report(
            data, folder, samples=samples, on_sample=lambda _: progress.update(task, advance=1)
        )
    out.print(f"open [bold]{escape(str(page))}[/]", soft_wrap=True)
