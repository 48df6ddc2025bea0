"""A shard: its two tables and, written last, its commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paxray.dataset.layout import Layout
from paxray.dataset.schema import (
    LABEL_ROWS_PER_GROUP,
    SAMPLE_ROWS_PER_GROUP,
    label_schema,
    sample_schema,
    write_table,
)
from paxray.errors import DamageError
from paxray.files import read_json, sha256_of, write_json

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


@dataclass(frozen=True)
class CaseRecord:
    """How a case ended.

    `inputs` holds the content hash of the CT and of each mask source. What the outcome depends on is digested in
    two parts: `basis`, which all cases share (pipeline, classes, stage versions, numerics), and `identity`, the
    case's own (inputs, vocabularies, its row).
    """

    case_id: str
    patient_id: str
    status: str
    code: str = ""
    message: str = ""
    basis: str = ""
    identity: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    labels: int = 0


@dataclass(frozen=True, eq=False)
class CaseTables:
    """A case's record with its rows, when it has any."""

    record: CaseRecord
    samples: pa.Table | None = None
    labels: pa.Table | None = None


def write_shard(
    layout: Layout, shard: str, split: str, cases: Iterable[CaseTables], extra: list[str]
) -> None:
    """Write a shard's tables and then its commit; cases in the order given.

    A shard that is written again first loses its commit, so that a kill in between leaves it undone
    rather than wrong.
    """
    cases = list(cases)
    layout.commit(shard).unlink(missing_ok=True)
    files = {}
    for kind, path, schema, per_group in (
        ("samples", layout.samples(shard), sample_schema(extra), SAMPLE_ROWS_PER_GROUP),
        ("labels", layout.labels(shard), label_schema(), LABEL_ROWS_PER_GROUP),
    ):
        parts = [getattr(case, kind) for case in cases if getattr(case, kind) is not None]
        table = pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()
        write_table(path, table.replace_schema_metadata(schema.metadata), per_group)
        files[f"{kind}/{path.name}"] = {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
            "rows": table.num_rows,
        }
    write_json(
        layout.commit(shard),
        {"shard": shard, "split": split, "files": files, "cases": [asdict(case.record) for case in cases]},
    )


def read_commit(path: Path) -> dict[str, Any]:
    """Read a commit; `DamageError` where it is not one."""
    commit = read_json(path)
    if not isinstance(commit, dict) or not {"shard", "split", "files", "cases"} <= commit.keys():
        raise DamageError("not a commit", where=f"commits/{path.name}", do="delete it and build again")
    return commit


def records_of(commit: dict[str, Any]) -> list[CaseRecord]:
    """The case records in a commit."""
    return [CaseRecord(**case) for case in commit["cases"]]


def read_case_tables(layout: Layout, shard: str, records: Iterable[CaseRecord]) -> list[CaseTables]:
    """Take finished cases out of a shard, to be written again beside others."""
    samples, labels = pq.read_table(layout.samples(shard)), pq.read_table(layout.labels(shard))
    return [
        CaseTables(
            record,
            samples.filter(pc.equal(samples["case_id"], record.case_id)),
            labels.filter(pc.equal(labels["case_id"], record.case_id)),
        )
        for record in records
    ]
