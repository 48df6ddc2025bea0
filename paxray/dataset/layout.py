"""Where things stand in a data set's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Version of the layout and of the columns; a reader refuses what it does not know.
SCHEMA_VERSION = 4
SPLITS = ("train", "val", "test")
#: The folders of Parquet files, one file a shard in each.
TABLES = ("samples", "labels", "landmarks", "measures", "instances", "findings")


@dataclass(frozen=True)
class Layout:
    """Paths below a data set's root."""

    root: Path

    @property
    def manifest(self) -> Path:
        """``dataset.json``."""
        return self.root / "dataset.json"

    @property
    def plan(self) -> Path:
        """``plan.parquet``."""
        return self.root / "plan.parquet"

    @property
    def cases(self) -> Path:
        """``cases.parquet``."""
        return self.root / "cases.parquet"

    @property
    def card(self) -> Path:
        """``README.md``."""
        return self.root / "README.md"

    @property
    def checksums(self) -> Path:
        """``SHA256SUMS`` of all canonical files, as ``sha256sum -c`` reads it."""
        return self.root / "SHA256SUMS"

    @property
    def logs(self) -> Path:
        """``logs/``: everything with a time, a host or a path in it."""
        return self.root / "logs"

    def samples(self, shard: str) -> Path:
        """Parquet file of a shard's samples."""
        return self.table("samples", shard)

    def labels(self, shard: str) -> Path:
        """Parquet file of a shard's labels."""
        return self.table("labels", shard)

    def table(self, kind: str, shard: str) -> Path:
        """Parquet file of a shard in one of the folders of `TABLES`."""
        return self.root / kind / f"{shard}.parquet"

    def tables(self, shard: str) -> list[Path]:
        """All Parquet files of a shard."""
        return [self.table(kind, shard) for kind in TABLES]

    def commit(self, shard: str) -> Path:
        """The shard's commit, written last."""
        return self.root / "commits" / f"{shard}.json"

    def commits(self) -> list[Path]:
        """All commits: train, val, test, and in order of shard within each."""
        found = (self.root / "commits").glob("*.json")
        rank = {split: n for n, split in enumerate(SPLITS)}
        return sorted(found, key=lambda path: (rank.get(path.stem.rsplit("-", 1)[0], len(SPLITS)), path.name))
