"""Columns of the tables, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paxray.errors import ConfigError
from paxray.files import write_atomic

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_VECTOR = pa.list_(pa.float64())

#: One row per view of a case. Vectors and matrices are row-major lists, LPS mm.
SAMPLE_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("sample_id", pa.string()),
    ("case_id", pa.string()),
    ("patient_id", pa.string()),
    ("split", pa.string()),
    ("view", pa.string()),
    ("source", pa.string()),
    ("license", pa.string()),
    ("image", _IMAGE),
    ("signal", _IMAGE),
    ("signal_scale", pa.float64()),
    ("signal_offset", pa.float64()),
    ("incomplete", pa.string()),
    ("incomplete_px", pa.int64()),
    ("body_px", pa.int64()),
    ("rows", pa.int32()),
    ("columns", pa.int32()),
    ("beam", pa.string()),
    ("pitch_u_mm", pa.float64()),
    ("pitch_v_mm", pa.float64()),
    ("sdd_mm", pa.float64()),
    ("source_mm", _VECTOR),
    ("direction", _VECTOR),
    ("center_mm", _VECTOR),
    ("u", _VECTOR),
    ("v", _VECTOR),
    ("matrix", _VECTOR),
    ("K", _VECTOR),
    ("R", _VECTOR),
    ("t", _VECTOR),
    ("appearance", pa.string()),
)

#: One row per sample and class. `mask` is compressed COCO run lengths, null where no ray meets the class.
LABEL_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("sample_id", pa.string()),
    ("case_id", pa.string()),
    ("patient_id", pa.string()),
    ("split", pa.string()),
    ("view", pa.string()),
    ("class", pa.string()),
    ("category_id", pa.int32()),
    ("status", pa.string()),
    ("note", pa.string()),
    ("confidence", pa.float64()),
    ("added_voxels", pa.int64()),
    ("cut_by_ct", pa.bool_()),
    ("view_status", pa.string()),
    ("volume_mm3", pa.float64()),
    ("surface_mm2", pa.float64()),
    ("hu_mean", pa.float64()),
    ("hu_sd", pa.float64()),
    ("centroid_mm", _VECTOR),
    ("extent_mm", _VECTOR),
    ("mask", pa.string()),
    ("area_px", pa.int64()),
    ("area_mm2", pa.float64()),
    ("bbox", pa.list_(pa.int32())),
    ("centroid_px", pa.list_(pa.float64())),
    ("path_mean_mm", pa.float64()),
    ("path_max_mm", pa.float64()),
    ("entry_mean_mm", pa.float64()),
    ("exit_mean_mm", pa.float64()),
    ("unhidden_share", pa.float64()),
    ("disputed_mm3", pa.float64()),
    ("disputed_px", pa.int64()),
    ("disputed", pa.string()),
)

_SAMPLE = (
    ("sample_id", pa.string()),
    ("case_id", pa.string()),
    ("patient_id", pa.string()),
    ("split", pa.string()),
    ("view", pa.string()),
)

#: One row per sample and landmark.
LANDMARK_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    *_SAMPLE,
    ("landmark", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
    ("position_mm", _VECTOR),
    ("pixel", _VECTOR),
    ("in_field", pa.bool_()),
)

#: One row per sample and measure.
MEASURE_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    *_SAMPLE,
    ("measure", pa.string()),
    ("value", pa.float64()),
    ("unit", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
)

#: One row per sample and lesion: what it is, and then as in the labels.
INSTANCE_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    *_SAMPLE,
    ("instance_id", pa.int64()),
    ("class", pa.string()),
    ("category_id", pa.int32()),
    ("station", pa.string()),
    ("station_source", pa.string()),
    ("long_axis_mm", pa.float64()),
    ("short_axis_mm", pa.float64()),
    *(
        column
        for column in LABEL_COLUMNS
        if column not in _SAMPLE
        and column[0]
        not in (
            *("class", "category_id", "status", "confidence", "added_voxels"),
            *("disputed_mm3", "disputed_px", "disputed"),
        )
    ),
)

#: One row per case and finding: what is implausible about its masks, and what the build did about it.
FINDING_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("case_id", pa.string()),
    ("patient_id", pa.string()),
    ("split", pa.string()),
    ("finding", pa.string()),
    ("severity", pa.string()),
    ("action", pa.string()),
    ("classes", pa.list_(pa.string())),
    ("message", pa.string()),
    ("value", pa.float64()),
    ("limit", pa.float64()),
    ("unit", pa.string()),
)

#: Small row groups: a reader that wants one sample reads little else.
ROWS_PER_GROUP = {
    "samples": 8, "labels": 1024, "landmarks": 1024, "measures": 1024, "instances": 1024, "findings": 1024,
}  # fmt: skip

RESERVED = frozenset(name for name, _ in SAMPLE_COLUMNS) | {"ct", "masks", "vocabulary", "instances"}


def sample_schema(extra: Sequence[str] = ()) -> pa.Schema:
    """Schema of the samples table; `extra` columns of the case table follow as strings."""
    taken = sorted(set(extra) & RESERVED)
    if taken:
        raise ConfigError(
            f"the case table's column '{taken[0]}' has the name of a column that samples have already",
            do="rename the column in the case table",
        )
    return _with_features([*SAMPLE_COLUMNS, *((name, pa.string()) for name in extra)])


def schema_of(kind: str, extra: Sequence[str] = ()) -> pa.Schema:
    """Schema of a table of `paxray.dataset.layout.TABLES`; `extra` as in `sample_schema`."""
    if kind == "samples":
        return sample_schema(extra)
    columns = {
        "labels": LABEL_COLUMNS,
        "landmarks": LANDMARK_COLUMNS,
        "measures": MEASURE_COLUMNS,
        "instances": INSTANCE_COLUMNS,
        "findings": FINDING_COLUMNS,
    }
    return _with_features(columns[kind])


def _with_features(columns: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    """An Arrow schema that also tells Hugging Face `datasets` which columns are images."""
    columns = list(columns)
    features = {name: _feature(kind) for name, kind in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(columns, metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {pa.float64(): "float64", pa.bool_(): "bool", pa.string(): "string"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def write_table(path: Path, table: pa.Table, rows_per_group: int) -> None:
    """Write a Parquet file atomically; the bytes depend on the rows alone, not on how they were gathered."""
    table = table.combine_chunks()
    write_atomic(
        path,
        lambda temporary: pq.write_table(
            table, temporary, row_group_size=rows_per_group, compression="zstd", write_page_index=True
        ),
    )
