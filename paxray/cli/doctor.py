"""What this machine can do: ``paxray doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from paxray.cli.common import Json, guarded, out, print_json
from paxray.errors import EXIT_ENVIRONMENT

if TYPE_CHECKING:
    from paxray.doctor.check import Check
    from paxray.doctor.examine import Examination

_COLOURS = {"ready": "green", "limited": "yellow", "missing": "dim", "broken": "bold red"}


@guarded
def doctor(
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where data sets would be made. Default: here.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Say what this machine can do, and what to install or run for the rest.

    Devices, segmenters and their weights, packages, places to write. Exit code 4 where the default pipeline cannot
    run.
    """
    from paxray.doctor.examine import examine

    found = examine(folder)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    if not found.ok:
        raise typer.Exit(EXIT_ENVIRONMENT)


def _print(found: Examination) -> None:
    for section in dict.fromkeys(check.section for check in found.checks):
        _print_section(section, [check for check in found.checks if check.section == section])
    _print_advice(found)
    if found.ok:
        out.print(f"\n[green]The default pipeline can run here[/], on {found.device}.")
    else:
        names = ", ".join(check.name for check in found.checks if check.state == "broken")
        out.print(f"\n[bold red]The default pipeline cannot run here[/]: {escape(names)}.")


def _print_section(title: str, checks: list[Check]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(width=9)
    table.add_column(overflow="fold", ratio=None, max_width=28)
    table.add_column(overflow="fold")
    for check in checks:
        download = check.facts.get("download")
        words = f"-t {' -t '.join(download)}" if download else check.found
        table.add_row(f"  [{_COLOURS[check.state]}]{check.state.value}[/]", escape(check.name), escape(words))
    out.print(f"[bold]{escape(title)}[/]")
    out.print(table, soft_wrap=False)


def _print_advice(found: Examination) -> None:
    """What to do, a line each, so that a command can be copied."""
    wanted: dict[str, list[str]] = {}
    downloads = False
    for check in found.checks:
        if check.facts.get("download"):
            downloads = True
        elif check.do:
            wanted.setdefault(check.do, []).append(check.name)
    if not wanted and not downloads:
        return
    out.print("\n[bold]for what is not ready[/]")
    for do, names in wanted.items():
        out.print(f"  {escape(', '.join(names))}: [cyan]{escape(do)}[/]", soft_wrap=True)
    if downloads:
        out.print(
            "  each missing weight: [cyan]totalseg_download_weights -t NAME[/], as named above",
            soft_wrap=True,
        )
