"""Results as Markdown for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.timing import Times

if TYPE_CHECKING:
    from benchmarks.compare import LeftOut, Row


@dataclass(frozen=True)
class Table:
    """A titled table: what every part of the report is made of.

    Attributes
    ----------
    title, note
        Heading, and what to know when reading.
    columns
        Headings; the first column names the rows.
    rows
        Cells: text, numbers, or `Times`.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def record(self) -> dict[str, Any]:
        """As plain fields; times in seconds."""
        rows = [
            {
                name: list(cell.seconds) if isinstance(cell, Times) else cell
                for name, cell in zip(self.columns, row, strict=True)
            }
            for row in self.rows
        ]
        return {"title": self.title, "note": self.note, "rows": rows}


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent where that is readable."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - len(str(int(abs(value)))) + (abs(value) < 1))}f}"


def duration(seconds: float) -> str:
    """Seconds or milliseconds."""
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(seconds * 1e3)} ms"


def spread(times: Times) -> str:
    """Fastest to slowest."""
    return f"{duration(times.low)} to {duration(times.high)}"


def cell_text(cell: Any) -> str:
    """One cell of a table."""
    if isinstance(cell, Times):
        return f"{duration(cell.median)} ({spread(cell)})"
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return str(cell)
    return f"{cell:,}" if isinstance(cell, int) else number(cell)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns of numbers to the right, others to the left."""
    numeric = [all(isinstance(row[c], int | float | Times) for row in rows) for c in range(len(columns))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---:" if n else "---" for n in numeric) + "|"]
    lines += ["| " + " | ".join(cell_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def section(table: Table) -> str:
    """A heading, a note and the table."""
    return f"## {table.title}\n\n{table.note}\n\n{markdown_table(table.columns, table.rows)}\n"


def comparison(case: str, rows: Sequence[Row]) -> Table:
    """All tools on one case, ratios to paxray's times in the same run."""
    ours = {row.outputs: row.times.median for row in rows if row.tool == "paxray"}
    cells = []
    for row in rows:
        seconds = row.times.median
        same = seconds / ours[row.outputs] if row.outputs in ours else "-"
        ours_labelled = ours["image+labels"] / seconds if "image+labels" in ours else "-"
        what = f"image + {row.classes} classes" if row.classes else "image"
        times = f"~{duration(seconds)}" if row.scaled else duration(seconds)
        rounds = len(row.times.seconds)
        cells.append((row.tool, what, rounds, times, spread(row.times), same, ours_labelled, row.rms_error))
    return Table(
        case,
        "Median and spread; the time over paxray's for the same outputs; paxray's time for image and all labels over "
        "this time; RMS error of the image on the phantom, as a share of its peak.",
        (
            "tool",
            "outputs",
            "rounds",
            "median",
            "spread",
            "over paxray",
            "paxray with labels over this",
            "RMS error",
        ),
        tuple(cells),
    )


def document(
    machine: dict[str, Any],
    versions: dict[str, str],
    settings: str,
    others: float | None,
    tools: Sequence[tuple[str, str, str, str]],
    left_out: Sequence[LeftOut],
    tables: Sequence[Table],
) -> str:
    """The whole report.

    Parameters
    ----------
    machine, versions
        From `benchmarks.machine`.
    settings
        Rounds, threads and whatever else was told.
    others
        Share of the processors that other processes used meanwhile; None where that cannot be told.
    tools
        Name, version, what its image is, what its labels are.
    left_out
        Tools that were not measured.
    tables
        In order.
    """
    parts = [
        "# Projector benchmark\n",
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['system']}; load before the run "
        f"{machine['load_before']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f". {settings} "
        + ("" if others is None else f"Other processes used {others:.0%} of the processors meanwhile.")
        + "\n",
        "Calls take turns; before timing, each tool's image is held against the phantom's closed form and its labels "
        "against paxray's, and a tool that differs is left out. `~`: image and one pass per class, reckoned from one "
        "class's pass in each round.\n",
        "## What each tool computes\n",
        markdown_table(
            ("tool", "version", "image", "labels"), [(*tool[:3], tool[3] or "none") for tool in tools]
        )
        + "\n",
    ]
    if left_out:
        parts.append(
            "\n".join(f"* Left out, {one.case}: {one.tool}: {one.reason}." for one in left_out) + "\n"
        )
    parts += [section(table) for table in tables]
    return "\n".join(parts)
