"""What a report counts, read from disk shard by shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paxray.dataset.layout import SPLITS, Layout
from paxray.dataset.plan import read_plan
from paxray.dataset.reader import Dataset
from paxray.dataset.shard import OK, read_commit, records_of

if TYPE_CHECKING:
    import pyarrow as pa

PENDING = "pending"
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class CaseRow:
    """A planned case and how it ended; `PENDING` where its shard is not built."""

    case_id: str
    patient_id: str
    split: str
    status: str
    code: str
    message: str


@dataclass(frozen=True)
class SampleRow:
    """A sample's place, without its pictures."""

    sample_id: str
    case_id: str
    split: str
    view: str


@dataclass(frozen=True)
class ClassRow:
    """What samples say of a class.

    Attributes
    ----------
    seen, absent, unknown
        Samples in which it has pixels; in which it was looked for and not found; in which nobody can tell.
    median_share
        Of the image's pixels, over the samples in which it is seen; None where it is in none.
    confidence
        Median of what segmenters gave it, over the samples in which it is seen; None where none rated it.
    disputed
        Median share of its pixels on which segmenters differ; None where no two of them drew it.
    reason
        Why it is unknown, as most samples say in which it is.
    """

    category: dict[str, Any]
    seen: int
    absent: int
    unknown: int
    median_share: float | None
    confidence: float | None = None
    disputed: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class FindingRow:
    """What a case was found to be implausible in."""

    case_id: str
    finding: str
    severity: str
    action: str
    message: str


@dataclass(frozen=True)
class Summary:
    """A data set in figures."""

    cases: tuple[CaseRow, ...]
    samples: tuple[SampleRow, ...]
    classes: tuple[ClassRow, ...]
    findings: tuple[FindingRow, ...]

    @property
    def finding_counts(self) -> list[tuple[FindingRow, int]]:
        """One finding of each name, severity and action, and the number of cases with it; grave ones first."""
        cases: dict[tuple[str, str, str], set[str]] = {}
        first: dict[tuple[str, str, str], FindingRow] = {}
        for row in self.findings:
            key = (row.severity, row.finding, row.action)
            cases.setdefault(key, set()).add(row.case_id)
            first.setdefault(key, row)
        order = sorted(first, key=lambda key: (SEVERITIES.index(key[0]), -len(cases[key]), key[1:]))
        return [(first[key], len(cases[key])) for key in order]

    @property
    def rated(self) -> bool:
        """Whether a segmenter rated any class."""
        return any(row.confidence is not None for row in self.classes)

    @property
    def compared(self) -> bool:
        """Whether several segmenters drew any class."""
        return any(row.disputed is not None for row in self.classes)

    @property
    def patients(self) -> int:
        """Planned patients."""
        return len({case.patient_id for case in self.cases})

    @property
    def case_counts(self) -> dict[str, int]:
        """Planned cases by status, those that are well first."""
        counts = Counter(case.status for case in self.cases)
        return {status: counts[status] for status in sorted(counts, key=lambda s: (s != OK, s))}

    @property
    def sample_counts(self) -> dict[str, int]:
        """Samples by split."""
        counts = Counter(sample.split for sample in self.samples)
        return {split: counts[split] for split in SPLITS}

    @property
    def problems(self) -> tuple[CaseRow, ...]:
        """Cases that are neither well nor waiting."""
        return tuple(case for case in self.cases if case.status not in (OK, PENDING))


def summarise(dataset: Dataset) -> Summary:
    """Count a data set's cases, samples and classes; pictures and masks are not read.

    Raises
    ------
    DamageError
        The plan or a commit cannot be read.
    """
    return Summary(_cases(dataset), _samples(dataset), _classes(dataset), _findings(dataset))


def _cases(dataset: Dataset) -> tuple[CaseRow, ...]:
    """Plan and commits rather than cases.parquet, which an interrupted build has not brought up to date."""
    layout = Layout(dataset.root)
    records = {r.case_id: r for path in layout.commits() for r in records_of(read_commit(path))}
    rows = []
    for planned in read_plan(layout.plan):
        record = records.get(planned.case_id)
        status, code, message = (record.status, record.code, record.message) if record else (PENDING, "", "")
        rows.append(CaseRow(planned.case_id, planned.patient_id, planned.split, status, code, message))
    return tuple(rows)


def _samples(dataset: Dataset) -> tuple[SampleRow, ...]:
    import pyarrow.parquet as pq

    layout, columns = Layout(dataset.root), ["sample_id", "case_id", "split", "view"]
    rows = []
    for shard in dataset.shards:
        rows += pq.read_table(layout.samples(shard), columns=columns).to_pylist()
    return tuple(SampleRow(**row) for row in rows)


def _findings(dataset: Dataset) -> tuple[FindingRow, ...]:
    columns = [field.name for field in fields(FindingRow)]
    rows = (FindingRow(*row) for row in dataset.findings[columns].itertuples(index=False))
    return tuple(sorted(rows, key=lambda row: SEVERITIES.index(row.severity)))


def _classes(dataset: Dataset) -> tuple[ClassRow, ...]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    layout = Layout(dataset.root)
    ids = [category["id"] for category in dataset.categories]
    counts = {status: np.zeros(max(ids, default=0) + 1, np.int64) for status in ("absent", "unknown")}
    top = max(ids, default=0) + 1
    shares: list[list[NDArray[Any]]] = [[] for _ in range(top)]
    rated: list[list[NDArray[Any]]] = [[] for _ in range(top)]
    disputed: list[list[NDArray[Any]]] = [[] for _ in range(top)]
    reasons: dict[int, Counter[str]] = {number: Counter() for number in ids}
    for shard in dataset.shards:
        sizes = pq.read_table(layout.samples(shard), columns=["sample_id", "rows", "columns"]).to_pylist()
        pixels = {row["sample_id"]: row["rows"] * row["columns"] for row in sizes}
        wanted = ["sample_id", "category_id", "status", "note", "confidence", "area_px", "disputed_px"]
        labels = pq.read_table(layout.labels(shard), columns=wanted)
        number = labels["category_id"].to_numpy()
        status = np.array(labels["status"].to_pylist(), dtype=str)
        for word, total in counts.items():
            np.add.at(total, number[status == word], 1)
        area = np.array([area or 0 for area in labels["area_px"].to_pylist()], dtype=np.float64)
        image = np.array([pixels[name] for name in labels["sample_id"].to_pylist()], dtype=np.float64)
        share = (area / image).astype(np.float32)
        sure, apart = (_floats(labels[name]) for name in ("confidence", "disputed_px"))
        for found in np.unique(number[area > 0]):
            own = (number == found) & (area > 0)
            shares[found].append(share[own])
            rated[found].append(sure[own])
            disputed[found].append((apart[own] / area[own]).astype(np.float32))
        unknown = labels.filter(pc.equal(labels["status"], "unknown")).group_by(["category_id", "note"])
        for row in unknown.aggregate([([], "count_all")]).to_pylist():
            reasons[row["category_id"]][row["note"] or ""] += row["count_all"]
    rows = []
    for category in dataset.categories:
        number = category["id"]
        rows.append(
            ClassRow(
                category=category,
                seen=sum(map(len, shares[number])),
                absent=int(counts["absent"][number]),
                unknown=int(counts["unknown"][number]),
                median_share=_median(shares[number]),
                confidence=_median(rated[number]),
                disputed=_median(disputed[number]),
                reason=max(reasons[number].items(), key=lambda item: (item[1], item[0]), default=("", 0))[0],
            )
        )
    return tuple(rows)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column's numbers, NaN where it has none."""
    return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float64)


def _median(parts: list[NDArray[Any]]) -> float | None:
    """Of all values that are numbers; None where there are none."""
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else None


def choose_samples(samples: tuple[SampleRow, ...], count: int) -> tuple[SampleRow, ...]:
    """Pick at most `count` samples, spread evenly over splits and cases, the views of a case together.

    Every split that has samples gets at least one while there is room; beyond that by size. The same data set
    gives the same choice.
    """
    by_split: dict[str, dict[str, list[SampleRow]]] = {}
    for sample in samples:
        by_split.setdefault(sample.split, {}).setdefault(sample.case_id, []).append(sample)
    order = [split for split in SPLITS if split in by_split]
    chosen: list[SampleRow] = []
    for split, room in zip(order, _rooms([_size(by_split[s]) for s in order], count), strict=True):
        cases = list(by_split[split].values())
        views = max(len(views) for views in cases)
        wanted = min(len(cases), -(-room // views))
        # The first case, and others at even distances.
        picked = [cases[n * len(cases) // wanted] for n in range(wanted)]
        chosen += [sample for views_of_case in picked for sample in views_of_case][:room]
    return tuple(chosen)


def _size(cases: dict[str, list[SampleRow]]) -> int:
    return sum(map(len, cases.values()))


def _rooms(sizes: list[int], count: int) -> list[int]:
    """Share `count` places out: one each as far as they go, the rest to whom most is missing for its size."""
    rooms = [0] * len(sizes)
    for _ in range(min(count, sum(sizes))):
        open_ = [n for n, size in enumerate(sizes) if rooms[n] < size]
        rooms[min(open_, key=lambda n: (rooms[n] > 0, rooms[n] / sizes[n], n))] += 1
    return rooms
