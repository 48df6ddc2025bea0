"""What the commands share: consoles, errors to exit codes, options, progress."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from paxray.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, ConfigError, PaxrayError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


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
        except (OSError, MemoryError) as error:
            if isinstance(error, BrokenPipeError):
                # The reader of our output went away (| head): nothing is wrong.
                sys.stderr.close()
                raise typer.Exit(0) from None
            name = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            what = getattr(error, "strerror", None) or str(error) or type(error).__name__
            err.print(f"[bold red]error[/] \\[environment] {escape(f'{name}{what}')}")
            raise typer.Exit(EXIT_ENVIRONMENT) from None

    return run


def print_table(table: Table) -> None:
    """Print a table; at its full width where no terminal limits it (a pipe, a file)."""
    if out.is_terminal:
        out.print(table)
    else:
        Console(file=out.file, highlight=False, emoji=False, width=10_000).print(table)


def further_labels(entries: list[str] | None) -> dict[int, str]:
    """What ``--label VALUE=CLASS`` says, given any number of times."""
    numbers = {}
    for entry in entries or []:
        value, equals, name = entry.partition("=")
        if not equals or not value.isdigit():
            raise ConfigError(
                "--label needs VALUE=CLASS", found=entry, do="e.g. --label 118=costal_cartilages"
            )
        numbers[int(value)] = name
    return numbers


@contextmanager
def one_case() -> Iterator[None]:
    """Set the interpreter up for a single case, most of whose time is start-up.

    Imports make many objects and all of them stay: cyclic garbage is looked for seldom. And while modules are loaded in
    one thread, others need the interpreter's lock for a moment between long compiled calls; they do not wait 5 ms
    for it.
    """
    collecting, switching = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(1_000_000, 50, 50)
    sys.setswitchinterval(2e-4)
    try:
        yield
    finally:
        gc.freeze()  # or all that was made would be searched at once
        gc.set_threshold(*collecting)
        sys.setswitchinterval(switching)


def progress_bar(quiet: bool = False) -> Progress:
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
