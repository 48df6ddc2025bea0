"""What the commands share: consoles, errors to exit codes, options, progress."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from paxray.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    ConfigError,
    PaxrayError,
    ResourceError,
)

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table


def drop(stream: IO[str]) -> None:
    """Let what is still to be said go nowhere: whoever read it has closed it (``| head``), or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """What rich would end the process for, in the middle of its work."""
        drop(self.file)


out = _Console(highlight=False, soft_wrap=True, emoji=False)
err = _Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class DeviceName(StrEnum):
    """Where to project."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class BeamName(StrEnum):
    """Kinds of beam."""

    CONE = "cone"
    PARALLEL = "parallel"


Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for a program to read, of what went wrong, too.")
]
ClassesFile = Annotated[
    Path | None,
    typer.Option("--classes", metavar="FILE.yaml", help="Classes of your own, added to the catalog."),
]


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors into messages and exit codes: 2 usage, 3 failed cases, 4 environment, 5 damage, 130 interrupt.

    A command that is asked for JSON prints the error as JSON as well (`print_error`).
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        as_json = bool(kwargs.get("as_json"))
        try:
            return function(*args, **kwargs)
        except PaxrayError as error:
            _fail(error, as_json)
        except KeyboardInterrupt:
            words = "interrupted: what was committed stands; the same command goes on from there"
            err.print(words)
            if as_json:
                print_error("interrupted", EXIT_INTERRUPTED, words)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (OSError, MemoryError) as error:
            name = str(error.filename or "") if isinstance(error, OSError) else ""
            what = getattr(error, "strerror", None) or str(error) or type(error).__name__
            _fail(ResourceError(what, where=name), as_json)
        except typer.Exit:
            raise
        except Exception as error:
            if as_json:  # the rest is told in `paxray.cli.main`
                print_error("internal", EXIT_INTERNAL, f"{type(error).__name__}: {error}")
            raise

    return run


def _fail(error: PaxrayError, as_json: bool) -> None:
    err.print(f"[bold red]error[/] \\[{error.code}] {escape(str(error))}", soft_wrap=True)
    if as_json:
        print_error(
            error.code, error.exit_code, error.what, error.where, error.expected, error.found, error.do
        )
    raise typer.Exit(error.exit_code) from None


def print_json(content: Any) -> None:
    """Print the one JSON document that a program finds on stdout."""
    try:
        print(json.dumps(content), flush=True)
    except BrokenPipeError:
        drop(sys.stdout)


def print_error(
    code: str, exit_code: int, what: str, where: str = "", expected: str = "", found: str = "", do: str = ""
) -> None:
    """Print an error as JSON: the fields of a `PaxrayError`, empty where it has none, and the exit code.

    Where stdout takes nothing more (a full disk), stderr and the exit code tell the error all the same.
    """
    fields = {"code": code, "what": what, "where": where, "expected": expected, "found": found, "do": do}
    try:
        print_json({"error": {**fields, "exit_code": exit_code}})
    except OSError:
        drop(sys.stdout)


def print_table(table: Table) -> None:
    """Print a table; at its full width where no terminal limits it (a pipe, a file)."""
    if out.is_terminal:
        out.print(table)
    else:
        _Console(file=out.file, highlight=False, emoji=False, width=10_000).print(table)


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
