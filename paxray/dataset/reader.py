"""Reading a data set back, sample by sample."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paxray.dataset.layout import SCHEMA_VERSION, SPLITS, TABLES, Layout
from paxray.dataset.rle import decode_mask
from paxray.dataset.schema import schema_of
from paxray.dataset.shard import read_commit
from paxray.errors import ConfigError, DamageError, suggest
from paxray.files import read_json
from paxray.projection.view import View
from paxray.radiography.signal import decode_signal

if TYPE_CHECKING:
    from paxray.anatomy.channels import Channels
    from paxray.dataset.stack import Stack

#: Of each table beside the samples, the column that says to which of them a row belongs.
_KEY = {kind: "case_id" if kind == "findings" else "sample_id" for kind in TABLES if kind != "samples"}


class Masks(Mapping[str, NDArray[np.bool_]]):
    """The masks of a sample by class name, decoded when asked for.

    It holds the classes of which something is known (present, partial or absent); an absent class, or one that no ray
    meets, gives an empty mask. A class of which nothing is known raises `KeyError`.
    """

    def __init__(
        self, counts: Mapping[str, str | None], size: tuple[int, int], unknown: Mapping[str, str | None]
    ) -> None:
        self._counts = counts
        self._size = size
        self._unknown = unknown

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        if name not in self._counts:
            if name in self._unknown:
                why = self._unknown[name] or "nothing looked for it in this case"
                raise KeyError(f"no mask of '{name}': {why}")
            hint = suggest(name, [*self._counts, *self._unknown])
            raise KeyError(f"the data set has no class '{name}'. {hint}".strip())
        counts = self._counts[name]
        return np.zeros(self._size, bool) if counts is None else decode_mask(counts, self._size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


class Sample:
    """One view of one case; pictures and masks are decoded when asked for."""

    def __init__(self, row: dict[str, Any], tables: Mapping[str, Any]) -> None:
        self._row = row
        self._tables = tables
        self.id: str = row["sample_id"]
        self.case_id: str = row["case_id"]
        self.patient_id: str = row["patient_id"]
        self.split: str = row["split"]

    def __repr__(self) -> str:
        return f"Sample({self.id!r}, {self.split}, {self._row['rows']} x {self._row['columns']})"

    @property
    def size(self) -> tuple[int, int]:
        """``(rows, columns)``."""
        return self._row["rows"], self._row["columns"]

    @property
    def image(self) -> NDArray[np.uint8]:
        """``(rows, columns)`` 8-bit display, bone white."""
        return _decode_png(self._row["image"]["bytes"]).astype(np.uint8)

    @property
    def signal(self) -> NDArray[np.float32]:
        """``(rows, columns)`` line integral of attenuation, before any display."""
        values = _decode_png(self._row["signal"]["bytes"]).astype(np.uint16)
        return decode_signal(values, self._row["signal_scale"], self._row["signal_offset"])

    @property
    def incomplete(self) -> NDArray[np.bool_]:
        """``(rows, columns)`` rays that leave the body where the scan ends."""
        return decode_mask(self.incomplete_rle, self.size)

    @property
    def incomplete_rle(self) -> str:
        """The same as stored: compressed COCO run lengths."""
        return str(self._row["incomplete"])

    @cached_property
    def view(self) -> View:
        """The geometry."""
        return View.from_dict(self._row)

    @property
    def appearance(self) -> dict[str, Any]:
        """How the display was made."""
        content: dict[str, Any] = json.loads(self._row["appearance"])
        return content

    @property
    def row(self) -> dict[str, Any]:
        """The stored columns without the pictures: geometry, source, licence, the case table's own columns."""
        return {k: v for k, v in self._row.items() if k not in ("image", "signal", "incomplete")}

    @property
    def images(self) -> dict[str, bytes]:
        """The stored PNG files: ``image`` (8 bits) and ``signal`` (16 bits)."""
        return {key: self._row[key]["bytes"] for key in ("image", "signal")}

    @cached_property
    def labels(self) -> list[dict[str, Any]]:
        """The stored label rows, one per class, in catalog order; masks as COCO run lengths."""
        return self._rows("labels")

    @cached_property
    def masks(self) -> Masks:
        """Masks by class name."""
        unknown = {row["class"]: row["note"] for row in self.labels if row["status"] == "unknown"}
        counts = {row["class"]: row["mask"] for row in self.labels if row["class"] not in unknown}
        return Masks(counts, self.size, unknown)

    @cached_property
    def disputed(self) -> Masks:
        """By class, the pixels whose ray meets voxels that some segmenters give to it and others do not.

        It holds the classes of which two segmenters or more know; for all others asking is a `KeyError`.
        """
        counts = {row["class"]: row["disputed"] for row in self.labels if row["disputed_px"] is not None}
        return Masks(counts, self.size, {})

    def stack(self, channels: Channels | str) -> Stack:
        """Masks as one array in a vocabulary's order, and what is known of each channel.

        Parameters
        ----------
        channels
            A built-in vocabulary's name (``paxray_166``), the path of one of your own, which may name classes that
            only this data set has, or `Channels`.

        Returns
        -------
        `Stack`: ``masks`` ``(channels, rows, columns)`` bool, and ``status``, a word per channel.

        Raises
        ------
        ConfigError
            No such vocabulary, or a class that neither the catalog nor this data set has.
        """
        from paxray.dataset.stack import channels_of, stack_masks

        if isinstance(channels, str):
            channels = channels_of(channels, (row["class"] for row in self.labels))
        return stack_masks(self, channels)

    @cached_property
    def facts(self) -> Any:
        """A pandas table indexed by class: statuses, volume, surface, HU, area, box, path length, depth."""
        return self._frame("labels", "class")

    @cached_property
    def landmarks(self) -> Any:
        """A pandas table indexed by landmark: status, reason, place in mm, pixel (column, row), in the field."""
        return self._frame("landmarks", "landmark")

    @cached_property
    def measures(self) -> Any:
        """A pandas table indexed by measure: value, unit, status, reason."""
        return self._frame("measures", "measure")

    @cached_property
    def instances(self) -> Any:
        """A pandas table indexed by class and instance id: station, axes, volume, centroid, box, visibility."""
        return self._frame("instances", ["class", "instance_id"])

    @cached_property
    def findings(self) -> Any:
        """A pandas table indexed by finding: what is implausible about the case's masks; all its views share it."""
        return self._frame("findings", "finding")

    @cached_property
    def instance_rows(self) -> list[dict[str, Any]]:
        """The stored rows of instances; masks as COCO run lengths."""
        return self._rows("instances")

    def instance_mask(self, name: str, number: int) -> NDArray[np.bool_]:
        """``(rows, columns)`` mask of one instance, by class and id; empty where no ray meets it."""
        for row in self.instance_rows:
            if (row["class"], row["instance_id"]) == (name, number):
                return (
                    np.zeros(self.size, bool) if row["mask"] is None else decode_mask(row["mask"], self.size)
                )
        raise KeyError(f"the sample has no instance {number} of '{name}'")

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._tables[kind].to_pylist()
        return rows

    def _frame(self, kind: str, index: str | list[str]) -> Any:
        import pandas as pd

        drop = ("sample_id", "case_id", "patient_id", "split", "view", "mask")
        columns = [name for name in self._tables[kind].column_names if name not in drop]
        rows = [{name: row[name] for name in columns} for row in self._rows(kind)]
        return pd.DataFrame(rows, columns=columns).set_index(index)


class Dataset:
    """A data set on disk. Iterating reads shard by shard; memory holds one shard at a time.

    Parameters
    ----------
    root
        The folder with ``dataset.json``.
    split
        Only this split; all by default.

    Raises
    ------
    ConfigError
        The folder holds no data set.
    DamageError
        Its manifest cannot be read.
    """

    def __init__(self, root: Path | str, split: str | None = None) -> None:
        self._layout = Layout(Path(root))
        if not self._layout.manifest.exists():
            raise ConfigError("no data set here", where=str(root), expected="a folder with dataset.json")
        self.manifest: dict[str, Any] = read_json(self._layout.manifest)
        if self.manifest.get("schema") != SCHEMA_VERSION:
            raise DamageError(
                "a data set of another schema",
                where="dataset.json",
                expected=f"schema {SCHEMA_VERSION}",
                found=f"schema {self.manifest.get('schema')}",
                do="read it with the paxray that wrote it",
            )
        if split is not None and split not in SPLITS:
            raise ConfigError(f"no split '{split}'", expected=", ".join(SPLITS), do=suggest(split, SPLITS))
        self.split = split

    def __repr__(self) -> str:
        only = f", split {self.split!r}" if self.split else ""
        return f"Dataset({str(self.root)!r}{only}: {len(self)} samples, {len(self.categories)} classes)"

    @property
    def root(self) -> Path:
        """The data set's folder."""
        return self._layout.root

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.manifest["name"])

    @property
    def categories(self) -> list[dict[str, Any]]:
        """Classes with their ids (from 1, append-only), groups, codes and colours."""
        rows: list[dict[str, Any]] = self.manifest["categories"]
        return rows

    @cached_property
    def shards(self) -> list[str]:
        """Committed shards, in order."""
        commits = (read_commit(path) for path in self._layout.commits())
        return [c["shard"] for c in commits if self.split in (None, c["split"])]

    @cached_property
    def _index(self) -> list[tuple[str, int, str]]:
        """``(shard, row in it, sample id)`` of every sample."""
        import pyarrow.parquet as pq

        out = []
        for shard in self.shards:
            with _damage(f"samples/{shard}.parquet"):
                ids = pq.read_table(self._layout.samples(shard), columns=["sample_id"])[
                    "sample_id"
                ].to_pylist()
            out += [(shard, n, name) for n, name in enumerate(ids)]
        return out

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: n for n, (_, _, name) in enumerate(self._index)}

    @property
    def ids(self) -> list[str]:
        """Sample ids, in order."""
        return [name for _, _, name in self._index]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key: int | str) -> Sample:
        import pyarrow.parquet as pq

        if isinstance(key, str):
            if key not in self._place:
                raise KeyError(f"no sample '{key}'. {suggest(key, self.ids)}".strip())
            key = self._place[key]
        shard, row, _ = self._index[key]
        version = self._version(shard)
        with _damage(f"samples/{shard}.parquet"), pq.ParquetFile(self._layout.samples(shard)) as file:
            group = 0
            while row >= (size := file.metadata.row_group(group).num_rows):
                row, group = row - size, group + 1
            sample = file.read_row_group(group).slice(row, 1).to_pylist()[0]
        tables = {}
        for kind, column in _KEY.items():
            with _damage(f"{kind}/{shard}.parquet"):
                tables[kind] = pq.read_table(
                    self._layout.table(kind, shard), filters=[(column, "==", sample[column])]
                )
        self._require_same(shard, version)
        return Sample(sample, tables)

    def _version(self, shard: str) -> list[tuple[int, int]]:
        """What changes when a build replaces a shard."""
        paths = (*self._layout.tables(shard), self._layout.commit(shard))
        with _damage(f"commits/{shard}.json"):
            return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]

    def _require_same(self, shard: str, version: list[tuple[int, int]]) -> None:
        """All tables must be of one version."""
        if self._version(shard) != version:
            raise ConfigError(
                "the data set is being built again while it is read",
                where=shard,
                do="read it when the build has ended",
            )

    def __iter__(self) -> Iterator[Sample]:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        for shard in self.shards:
            version = self._version(shard)
            tables = {}
            for kind in _KEY:
                with _damage(f"{kind}/{shard}.parquet"):
                    tables[kind] = pq.read_table(self._layout.table(kind, shard))
            with _damage(f"samples/{shard}.parquet"):
                groups = pq.ParquetFile(self._layout.samples(shard)).metadata.num_row_groups
            for group in range(groups):
                with _damage(f"samples/{shard}.parquet"), pq.ParquetFile(self._layout.samples(shard)) as file:
                    rows = file.read_row_group(group).to_pylist()
                self._require_same(shard, version)
                for row in rows:
                    mine = {
                        kind: table.filter(pc.equal(table[_KEY[kind]], row[_KEY[kind]]))
                        for kind, table in tables.items()
                    }
                    yield Sample(row, mine)

    @property
    def cases(self) -> Any:
        """``cases.parquet`` as a pandas table: every planned case with status, code and message."""
        import pandas as pd

        return pd.read_parquet(self._layout.cases)

    @property
    def findings(self) -> Any:
        """A pandas table of every finding of every case: what is implausible about masks, and what was done."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [schema_of("findings").empty_table()]
        for shard in self.shards:
            with _damage(f"findings/{shard}.parquet"):
                tables.append(pq.read_table(self._layout.table("findings", shard)))
        return pa.concat_tables(tables).to_pandas()


def load(root: Path | str, split: str | None = None) -> Dataset:
    """Open a data set; see `Dataset`."""
    return Dataset(root, split)


@contextmanager
def _damage(file: str) -> Iterator[None]:
    """Name the file that cannot be read."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DamageError(
            "the file cannot be read", where=file, found=str(error), do="paxray verify lists all damage"
        ) from error


def _decode_png(content: bytes) -> NDArray[Any]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)
