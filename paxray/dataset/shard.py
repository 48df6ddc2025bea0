"""A shard: its tables and, written last, its commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paxray.dataset.layout import TABLES, Layout
from paxray.dataset.schema import ROWS_PER_GROUP, schema_of, write_table
from paxray.errors import DamageError
from paxray.files import read_json, sha256_of, sync_folder, write_json

OK, FAILED = "ok", "failed"


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
    landmarks: pa.Table | None = None
    measures: pa.Table | None = None
    instances: pa.Table | None = None
    findings: pa.Table | None = None


def write_shard(
    layout: Layout, shard: str, split: str, cases: Iterable[CaseTables], extra: list[str]
) -> None:
    """Write a shard's tables and its commit, cases in the order given; what stood before is replaced as a whole.

    Everything new is first written and synced under hidden names, the commit last: from then on the shard is
    replaced, and `recover` ends the renaming where a kill interrupts it. Before, what stood stands untouched.
    """
    cases = list(cases)
    files = {}
    for kind in TABLES:
        path, schema = layout.table(kind, shard), schema_of(kind, extra)
        parts = [getattr(case, kind) for case in cases if getattr(case, kind) is not None]
        table = pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()
        write_table(staged(path), table.replace_schema_metadata(schema.metadata), ROWS_PER_GROUP[kind])
        files[f"{kind}/{path.name}"] = {
            "sha256": sha256_of(staged(path)),
            "bytes": staged(path).stat().st_size,
            "rows": table.num_rows,
        }
    write_json(
        staged(layout.commit(shard)),
        {"shard": shard, "split": split, "files": files, "cases": [asdict(case.record) for case in cases]},
    )
    _install(layout, shard)


def staged(path: Path) -> Path:
    """Where the next version of a file waits."""
    return path.with_name(f".{path.name}.next")


def _install(layout: Layout, shard: str) -> None:
    """Rename what waits, the commit last; done again after a kill it ends the same."""
    for path in (*layout.tables(shard), layout.commit(shard)):
        if staged(path).exists():
            staged(path).replace(path)
            sync_folder(path.parent)


def waiting_shards(layout: Layout) -> list[str]:
    """Shards whose next version is complete and not yet in place: a kill came in between."""
    found = (layout.root / "commits").glob(".*.json.next")
    return sorted(path.name.removeprefix(".").removesuffix(".json.next") for path in found)


def recover(layout: Layout) -> None:
    """Put in place what a killed build had completed, and remove what it had not."""
    for shard in waiting_shards(layout):
        _install(layout, shard)
    for folder in (*TABLES, "commits"):
        for pattern in (".*.next", ".*.tmp"):
            for path in (layout.root / folder).glob(pattern):
                path.unlink()


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
    """Take finished cases out of a shard, to be written again beside others.

    Raises
    ------
    DamageError
        The tables are not those that were committed: a flaw must not be sealed with a new checksum.
    """
    for name, facts in read_commit(layout.commit(shard))["files"].items():
        if sha256_of(layout.root / name) != facts["sha256"]:
            raise DamageError(
                "the table's bytes are not those that were committed",
                where=name,
                do=f"delete commits/{shard}.json to build the whole shard again, or take the file from a copy",
            )
    tables = {kind: pq.read_table(layout.table(kind, shard)) for kind in TABLES}
    return [
        CaseTables(
            record,
            **{
                kind: table.filter(pc.equal(table["case_id"], record.case_id))
                for kind, table in tables.items()
            },
        )
        for record in records
    ]
