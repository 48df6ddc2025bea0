"""The command line. Each command is a thin call; heavy imports happen inside, so that `--help` is quick."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from paxray._version import __version__
from paxray.cli import build, classes, data, doctor, imports, segment
from paxray.cli.common import drop, err, out, print_error
from paxray.errors import EXIT_ENVIRONMENT, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_USAGE, ResourceError


class _Group(TyperGroup):
    """The commands; what is wrong with options is told as JSON, too, where that is asked for."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        with _usage_as_json(args):  # its own options
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _usage_as_json(ctx.args):  # a command's
            return super().invoke(ctx)


@contextmanager
def _usage_as_json(args: list[str]) -> Iterator[None]:
    as_json = any(word == "--json" or word.startswith("--json=") for word in args)  # before they are used up
    try:
        yield
    except Exception as error:
        # Which class these errors have depends on the version of typer.
        if hasattr(error, "format_message") and as_json:
            print_error("usage", EXIT_USAGE, error.format_message())
        raise


app = typer.Typer(
    cls=_Group,
    help="Annotated X-ray data sets made from CT. A research tool, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
export_app = typer.Typer(help="Write a data set in another format.", no_args_is_help=True)
classes_app = typer.Typer(
    help="The anatomy classes: which there are, how they nest, and one of your own.", no_args_is_help=True
)

for command in (
    build.scan,
    build.build,
    build.project,
    segment.segment,
    data.report,
    data.verify,
    build.phantom,
    doctor.doctor,
):
    app.command(command.__name__)(command)
app.command("import-paxray")(imports.import_paxray)
app.add_typer(export_app, name="export")
export_app.command("coco")(data.export_coco)
export_app.command("paxray")(data.export_paxray)
app.add_typer(classes_app, name="classes")
for name, command in (
    ("list", classes.classes_list),
    ("show", classes.classes_show),
    ("tree", classes.classes_tree),
    ("check", classes.classes_check),
    ("add", classes.classes_add),
    ("preview", classes.classes_preview),
):
    classes_app.command(name)(command)


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


def keep_command(word: str) -> None:
    """Leave out all commands but the one of that name, if there is one.

    typer makes every command's options ready before it looks which is called: a quarter of its time.
    """
    commands = [each for each in app.registered_commands if each.name == word]
    groups = [each for each in app.registered_groups if each.name == word]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups


def _watched() -> bool:
    """Whether a profiler, a debugger or a measurement of coverage runs."""
    tools = getattr(sys, "monitoring", None)  # from Python 3.12 on
    monitored = tools is not None and any(tools.get_tool(number) for number in range(6))
    return monitored or sys.gettrace() is not None or sys.getprofile() is not None


def main() -> None:
    """Entry point of ``paxray``."""
    word = "".join(sys.argv[1:2])
    keep_command(word)
    try:
        app()
    except SystemExit as stop:
        # CPython remembers an interrupt that passed through an `exec` (a dataclass being made) although it was
        # handled, and would end itself by the signal instead of with this code. And to take numba and all modules
        # down again is a good part of a single projection, which leaves nothing to be done at exit: its files are
        # closed, its threads have ended. Only who watches this process may have something to write then.
        at_once = stop.code == EXIT_INTERRUPTED or (word == "project" and not stop.code)
        if at_once and not _watched():
            for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed from the start
                stream.flush()
            os._exit(int(stop.code or 0))
        raise
    except OSError as error:  # a full disk under what --help and --version print; commands tell it themselves
        err.print(f"[bold red]error[/] \\[{ResourceError.code}] {escape(error.strerror or str(error))}")
        drop(sys.stdout)
        sys.exit(EXIT_ENVIRONMENT)
    except Exception:
        err.print_exception()
        err.print("this is a bug in paxray: please report it with the lines above")
        sys.exit(EXIT_INTERNAL)
    finally:
        # The interpreter would search all that is left for cycles before it ends.
        gc.freeze()
