"""``python -m benchmarks.derive``: all classes of the real chest derived and measured in 3D, by class and operator."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.command import chest
from benchmarks.guard import exit_code_of
from benchmarks.report import Table, number, section
from benchmarks.timing import Times
from paxray import api
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume
from paxray.anatomy.recipes.engine import derive
from paxray.anatomy.recipes.parse import Node
from paxray.errors import ConfigError
from paxray.io.volume import Volume
from paxray.measure.solids import solids
from paxray.parallel import at_most
from paxray.produce import peak_memory_mib
from paxray.segmentation.body import UNSCANNED, with_body

#: What no class of its own is: said in the tables under these words.
DRAWN = "(from masks and parts)"
#: Classes that take less than this stand in the JSON alone, seconds.
LEAST_S = 0.02


class Ledger:
    """Seconds spent on each node's own work, booked once: on the class whose recipe it is in, and on its operator.

    What several recipes share is booked on the first of them that needs it; the work that another class takes is booked
    on that class.

    Attributes
    ----------
    by_class, by_operator
        Seconds.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.by_class: dict[str, float] = defaultdict(float)
        self.by_operator: dict[str, float] = defaultdict(float)
        self._recipe_of: dict[str, str] = {}
        for name in catalog:
            node = catalog.graph.recipe(name)
            if node is not None:
                self._recipe_of.setdefault(node.key, name)
        self._open: list[tuple[str, float]] = []  # class, and what the nodes inside took

    @contextmanager
    def watch(self, node: Node) -> Iterator[None]:
        """To be handed to `derive`."""
        around = self._open[-1][0] if self._open else ""
        owner = node.name if node.operator is None else self._recipe_of.get(node.key, around)
        self._open.append((owner, 0.0))
        begin = time.perf_counter()
        yield
        took = time.perf_counter() - begin
        _, inside = self._open.pop()
        if self._open:
            name, other = self._open[-1]
            self._open[-1] = name, other + took
        self.by_class[owner] += took - inside
        self.by_operator[DRAWN if node.operator is None else node.name] += took - inside

    @property
    def total_s(self) -> float:
        """All that was booked."""
        return sum(self.by_class.values())


@dataclass(frozen=True)
class Round:
    """One derivation with its facts: seconds by stage, by class and by operator."""

    stages_s: dict[str, float]
    by_class_s: dict[str, float]
    by_operator_s: dict[str, float]
    classes: int = field(default=0)

    @property
    def total_s(self) -> float:
        """All stages."""
        return sum(self.stages_s.values())


def measure_once(ct: Volume, labels: LabelVolume, catalog: Catalog, threads: int) -> Round:
    """Derive every class of the catalog and measure all of them in 3D."""
    ledger = Ledger(catalog)
    begin = time.perf_counter()
    derived = derive(labels, catalog, ct, unscanned=UNSCANNED, threads=threads, watch=ledger.watch)
    middle = time.perf_counter()
    found = solids(derived, ct)
    end = time.perf_counter()
    return Round(
        {
            "recipes": ledger.total_s,
            "atoms, unions, statuses": middle - begin - ledger.total_s,
            "facts in 3D of all classes": end - middle,
        },
        dict(ledger.by_class),
        dict(ledger.by_operator),
        len(found),
    )


def tables(rounds: Sequence[Round]) -> list[Table]:
    """Stages, operators and classes; medians over the rounds."""
    stages: list[tuple[object, ...]] = [
        (stage, Times(tuple(r.stages_s[stage] for r in rounds))) for stage in rounds[0].stages_s
    ]
    stages.append(("all", Times(tuple(r.total_s for r in rounds))))
    out = [
        Table(
            "All classes with their facts in 3D",
            f"{rounds[0].classes} classes with voxels. Median (fastest to slowest).",
            ("stage", "seconds"),
            tuple(stages),
        )
    ]
    for title, note, chosen in (
        ("By operator", "Own work, all classes together.", [r.by_operator_s for r in rounds]),
        (
            "By class",
            "Own work of a class's recipe. A result that several recipes share counts once, for the first of them in "
            f"catalog order. Classes under {LEAST_S * 1e3:.0f} ms are summed up in the last row.",
            [r.by_class_s for r in rounds],
        ),
    ):
        out.append(Table(title, note, (title.split()[-1], "seconds"), _rows(chosen)))
    return out


def _rows(rounds: Sequence[Mapping[str, float]]) -> tuple[tuple[object, ...], ...]:
    """Names with their times, the slowest first; small ones together."""
    times = {name: Times(tuple(r[name] for r in rounds)) for name in rounds[0]}
    large = sorted(
        (name for name in times if times[name].median >= LEAST_S), key=lambda name: -times[name].median
    )
    rows: list[tuple[object, ...]] = [(name, times[name]) for name in large]
    small = [name for name in times if name not in large]
    if small:
        rows.append((f"{len(small)} others", Times(tuple(sum(r[name] for name in small) for r in rounds))))
    return tuple(rows)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.derive", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds after one to warm up (5)")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument(
        "--coarse", action="store_true", help="the 2.5 mm copy, to try the benchmark: its figures mean little"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write derive.md and derive.json there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report, write files; return the exit code."""
    options = parse(arguments)
    return exit_code_of(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Do what the options say."""
    if options.repeats < 1 or options.threads < 1:
        raise ConfigError("--repeats and --threads", expected="at least 1")
    path, masks = chest(options.coarse)
    about, versions = machine.describe(), machine.versions("edt", "scipy")
    catalog = load_catalog()
    ct = api.read_ct(path)
    source = f"{masks}=totalsegmentator_v2+118:costal_cartilages"
    labels, _ = with_body(ct, api.read_masks(source, ct))
    with at_most(options.threads):
        measure_once(ct, labels, catalog, options.threads)
        others, began = machine.OthersUse(), time.perf_counter()
        rounds = [measure_once(ct, labels, catalog, options.threads) for _ in range(options.repeats)]
        used = others.share(time.perf_counter() - began)
    memory = peak_memory_mib()
    text = (
        "# Derivation benchmark\n\n"
        f"{about['date']}; {about['cpu']}, {about['cores']} cores, {about['system']}; load before the run "
        f"{about['load_before']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f". {path.parent.name}/{path.name}, {' x '.join(map(str, reversed(ct.shape)))} voxels, masks of "
        f"TotalSegmentator v2 and the body given; {options.threads} threads, {options.repeats} rounds after one to "
        f"warm up. Largest resident memory of the process {number(memory)} MiB, CT and masks included."
        + ("" if used is None else f" Other processes used {used:.0%} of the processors meanwhile.")
        + "\n\n"
        + "\n".join(map(section, tables(rounds)))
    )
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "derive.md").write_text(text)
        everything = {
            "machine": {**about, "others_share_of_processors": used},
            "versions": versions,
            "case": f"{path.parent.name}/{path.name}",
            "threads": options.threads,
            "memory_mib": memory,
            "rounds": [vars(one) for one in rounds],
        }
        (options.out / "derive.json").write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
