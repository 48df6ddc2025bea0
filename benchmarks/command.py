"""``python -m benchmarks.command``: ``paxray project`` on the real chest, the whole process from start to exit."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.guard import exit_code_of
from benchmarks.report import Table, number, section
from benchmarks.timing import Times
from paxray.errors import ConfigError

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """One process: wall-clock and processor seconds, its own stages, peak memory."""

    wall_s: float
    processor_s: float
    stages_s: dict[str, float]
    memory_mib: float


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.command", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="another checkout of paxray, run in turn with this one"
    )
    parser.add_argument(
        "--coarse", action="store_true", help="the 2.5 mm copy, to try the benchmark: its figures mean little"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write command.md and command.json there")
    return parser.parse_args(arguments)


def chest(coarse: bool) -> tuple[Path, Path]:
    """CT and masks of the real chest; `ConfigError` without them."""
    root = os.environ.get("PAXRAY_REAL_DATA", "")
    mm = "_2.5mm" if coarse else ""
    folder = Path(root) / "lidc-idri-0001"
    ct, masks = folder / f"ct{mm}.nii.gz", folder / f"totalsegmentator_v2{mm}.nii.gz"
    if not root or not ct.is_file() or not masks.is_file():
        raise ConfigError(
            "the real chest is not there",
            where="PAXRAY_REAL_DATA",
            expected=f"a folder that holds {ct.parent.name}/{ct.name} and {masks.name}",
            found=root or "unset",
        )
    return ct, masks


def project_once(source: Path, ct: Path, masks: Path) -> Run:
    """Run the command of a checkout in a process of its own; `ConfigError` with what it says if it fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable, "-m", "paxray", "project", str(ct), "--labels", str(masks),
            "--label", "118=costal_cartilages", "--view", "pa", "--device", "cpu", "--out", out, "--json",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(source)}
        with tempfile.TemporaryFile("w+") as said:
            begin = time.perf_counter()
            child = subprocess.Popen(command, cwd=source, env=environment, stdout=said, stderr=said)
            _, status, used = os.wait4(child.pid, 0)
            wall = time.perf_counter() - begin
            child.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
        if child.returncode:
            raise ConfigError("paxray project failed", where=str(source), found=text)
    result = json.loads(text)
    return Run(wall, used.ru_utime + used.ru_stime, result["seconds"], result["memory_mib"])


def table(runs: dict[str, list[Run]]) -> Table:
    """Whole process and stages, a column for each checkout."""
    names = list(runs)
    stages = list(dict.fromkeys(stage for found in runs.values() for run in found for stage in run.stages_s))
    rows: list[tuple[Any, ...]] = [
        ("whole process, wall", *(Times(tuple(r.wall_s for r in runs[n])) for n in names)),
        ("whole process, user + system", *(Times(tuple(r.processor_s for r in runs[n])) for n in names)),
    ]
    rows += [
        (stage, *(Times(tuple(r.stages_s.get(stage, 0.0) for r in runs[n])) for n in names))
        for stage in stages
    ]
    rows.append(
        (
            "start, imports, placing, exit",
            *(Times(tuple(r.wall_s - sum(r.stages_s.values()) for r in runs[n])) for n in names),
        )
    )
    rows.append(("peak memory, MiB", *(number(max(r.memory_mib for r in runs[n])) for n in names)))
    return Table(
        "paxray project, image and all classes",
        "Median (fastest to slowest) of whole processes run in turn, files in the page cache, compiled code in numba's "
        "cache. Stages are wall-clock times as the command states them.",
        ("", *names),
        tuple(rows),
    )


def ratios(runs: dict[str, list[Run]]) -> str:
    """This checkout over the other, round by round."""
    ours, other = list(runs.values())
    share = {
        "wall": Times(tuple(a.wall_s / b.wall_s for a, b in zip(ours, other, strict=True))),
        "user + system": Times(
            tuple(a.processor_s / b.processor_s for a, b in zip(ours, other, strict=True))
        ),
    }
    parts = [f"{name} {number(t.median)} ({number(t.low)} to {number(t.high)})" for name, t in share.items()]
    return "This checkout over the other, round by round: " + ", ".join(parts) + ".\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report, write files; return the exit code."""
    options = parse(arguments)
    return exit_code_of(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Do what the options say."""
    if options.repeats < 1:
        raise ConfigError("--repeats", expected="at least 1", found=str(options.repeats))
    ct, masks = chest(options.coarse)
    sources = {"paxray": HERE} | ({} if options.against is None else {"other": options.against.resolve()})
    about, versions = machine.describe(), machine.versions()
    for source in sources.values():
        project_once(source, ct, masks)  # fills both caches
    others, began = machine.OthersUse(), time.perf_counter()
    runs: dict[str, list[Run]] = {name: [] for name in sources}
    for _ in range(options.repeats):
        for name, source in sources.items():
            runs[name].append(project_once(source, ct, masks))
    used = others.share(time.perf_counter() - began)
    text = (
        "# Command benchmark\n\n"
        f"{about['date']}; {about['cpu']}, {about['cores']} cores, {about['system']}; load before the run "
        f"{about['load_before']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f". {ct.parent.name}/{ct.name}."
        + (" Run at real-time priority." if _real_time() else "")
        + ("" if used is None else f" Other processes used {used:.0%} of the processors meanwhile.")
        + "\n\n"
        + section(table(runs))
    )
    if len(runs) == 2:
        text += "\n" + ratios(runs)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "command.md").write_text(text)
        everything = {
            "machine": {**about, "others_share_of_processors": used, "real_time_priority": _real_time()},
            "versions": versions,
            "case": f"{ct.parent.name}/{ct.name}",
            "runs": {name: [vars(one) for one in found] for name, found in runs.items()},
        }
        (options.out / "command.json").write_text(json.dumps(everything, indent=1) + "\n")


def _real_time() -> bool:
    """Whether this process, and so the commands that it runs, goes before all ordinary ones."""
    if not hasattr(os, "sched_getscheduler"):
        return False
    return os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)


if __name__ == "__main__":
    sys.exit(main())
