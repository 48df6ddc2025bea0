"""A small data set written by hand: no projection, any content, whatever a test wants to be hostile."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from paxray.dataset.layout import SCHEMA_VERSION, SPLITS, Layout
from paxray.dataset.plan import Planned, write_plan
from paxray.dataset.rle import encode_mask
from paxray.dataset.schema import sample_schema, schema_of, write_table
from paxray.dataset.shard import FAILED, OK, CaseRecord, CaseTables, write_shard
from paxray.files import write_json
from paxray.projection.view import View

#: (name, group, parts); the last is always `unknown`, the one before always `absent`.
CLASSES = (
    ("lungs", "lung", ["lung_left", "lung_right"]),
    ("lung_left", "lung", []),
    ("lung_right", "lung", []),
    ("heart", "heart", []),
    ("rib_left_1", "rib", []),
    ("breast_left", "breast", []),
    ("skull", "bone", []),
)
ABSENT, UNKNOWN = "breast_left", "skull"
#: The class that segmenters rate and differ about.
RATED = "heart"
WHY_UNKNOWN = "nothing looked for 'skull'"


@dataclass(frozen=True)
class FakeCase:
    """A case of the hand-made data set; it fails where `message` is given."""

    case_id: str
    split: str = "train"
    patient_id: str = ""
    license: str | None = "CC BY 4.0"
    source: str = "made by hand"
    message: str = ""
    empty: bool = False  # no class has a pixel
    views: tuple[str, ...] = ("pa", "lateral_left")
    extra: dict[str, str] = field(default_factory=dict)


PLAIN = (
    FakeCase("a1", "train"),
    FakeCase("a2", "train", license="CC0 1.0"),
    FakeCase("b1", "val", license=""),
    FakeCase("bad", "val", message="ct.nii: the file cannot be read\n  found: another beginning"),
    FakeCase("c1", "test", empty=True),
)


def make_dataset(
    root: Path,
    cases: Sequence[FakeCase] = PLAIN,
    *,
    size: tuple[int, int] = (40, 56),
    shard_cases: int = 2,
    name: str = "by hand",
    description: str = "Rectangles and noise.",
    duplicates: Sequence[str] = (),
    finished: bool = True,
    classes: Sequence[tuple[str, str, list[str]]] = CLASSES,
    beam: str = "cone",
) -> Path:
    """Write a data set as a build leaves it, and return its folder."""
    layout = Layout(root)
    root.mkdir(parents=True, exist_ok=True)
    plan, rows = [], []
    extra = sorted({key for case in cases for key in case.extra})
    for split in SPLITS:
        mine = [case for case in cases if case.split == split]
        for start in range(0, len(mine), shard_cases):
            shard = f"{split}-{start // shard_cases:05d}"
            batch = mine[start : start + shard_cases]
            tables = [_case_tables(case, size, classes, beam, extra) for case in batch]
            write_shard(layout, shard, split, tables, extra)
            for case, table in zip(batch, tables, strict=True):
                record = table.record
                plan.append(Planned(case.case_id, record.patient_id, split, shard))
                rows.append(
                    {
                        "case_id": case.case_id, "patient_id": record.patient_id, "split": split,
                        "shard": shard, "status": record.status, "code": record.code,
                        "message": record.message, "samples": record.samples,
                    }
                )  # fmt: skip
    write_plan(layout.plan, plan)
    if rows:
        write_table(layout.cases, pa.Table.from_pylist(rows), 4096)
    write_json(layout.manifest, _manifest(name, description, rows, duplicates, finished, classes, beam, size))
    return root


def _case_tables(
    case: FakeCase,
    size: tuple[int, int],
    classes: Sequence[tuple[str, str, list[str]]],
    beam: str,
    extra: list[str],
) -> CaseTables:
    patient = case.patient_id or f"patient-{case.case_id}"
    if case.message:
        return CaseTables(CaseRecord(case.case_id, patient, FAILED, "unreadable", case.message))
    samples, labels = [], []
    for view in case.views:
        common = {
            "sample_id": f"{case.case_id}/{view}", "case_id": case.case_id, "patient_id": patient,
            "split": case.split, "view": view,
        }  # fmt: skip
        rng = np.random.default_rng(list(f"{case.case_id}/{view}".encode()))
        samples.append(
            common | _sample_row(case, view, size, beam, rng) | {k: case.extra.get(k, "") for k in extra}
        )
        labels += [common | row for row in _label_rows(case, size, classes, rng)]
    record = CaseRecord(case.case_id, patient, OK, samples=len(samples), labels=len(labels))
    return CaseTables(
        record,
        pa.Table.from_pylist(samples, schema=sample_schema(extra)),
        pa.Table.from_pylist(labels, schema=schema_of("labels")),
    )


def _sample_row(
    case: FakeCase, view: str, size: tuple[int, int], beam: str, rng: np.random.Generator
) -> dict[str, Any]:
    incomplete = np.zeros(size, bool)
    incomplete[-3:] = True
    geometry = View(
        view, beam, (0, 1600, 0), (0, -1, 0), (3, -200, -5), (1, 0, 0), (0, 0, -1), (2.0, 1.5), size  # type: ignore[arg-type]
    ).to_dict()  # fmt: skip
    del geometry["view"]
    return {
        "source": case.source,
        "license": case.license,
        "image": {"bytes": _png(rng.integers(0, 256, size, np.uint8)), "path": "image.png"},
        "signal": {"bytes": _png(rng.integers(0, 65536, size, np.uint16)), "path": "signal.png"},
        "signal_scale": 2.5e-4,
        "signal_offset": 0.0,
        "incomplete": encode_mask(incomplete),
        "incomplete_px": int(incomplete.sum()),
        "body_px": size[0] * size[1] // 2,
        **geometry,
        "appearance": json.dumps({"energy_kev": 65.0}),
    }


def _label_rows(
    case: FakeCase,
    size: tuple[int, int],
    classes: Sequence[tuple[str, str, list[str]]],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    masks: dict[str, np.ndarray] = {}
    for name, _, parts in reversed(classes):  # parts stand after their union
        if parts:
            masks[name] = np.any([masks[part] for part in parts], axis=0)
        elif name not in (ABSENT, UNKNOWN):
            masks[name] = np.zeros(size, bool)
            if not case.empty:
                top, left = (int(rng.integers(0, n // 2)) for n in size)
                masks[name][top : top + size[0] // 3, left : left + size[1] // 3] = True
                masks[name] &= rng.random(size) > 0.1  # holes and single pixels
    rows = []
    for number, (name, _, _) in enumerate(classes, start=1):
        row: dict[str, Any] = {"class": name, "category_id": number, "status": "present"}
        if name in (ABSENT, UNKNOWN):
            row |= {"status": "absent"} if name == ABSENT else {"status": "unknown", "note": WHY_UNKNOWN}
        elif not masks[name].any():
            row |= {"view_status": "outside", "area_px": 0, "cut_by_ct": False, "volume_mm3": 8.0}
        else:
            v, u = np.nonzero(masks[name])
            row |= {
                "view_status": "whole",
                "cut_by_ct": False,
                "volume_mm3": 1234.5,
                "mask": encode_mask(masks[name]),
                "area_px": len(v),
                "bbox": [int(u.min()), int(v.min()), int(np.ptp(u)) + 1, int(np.ptp(v)) + 1],
                "centroid_px": [float(u.mean()), float(v.mean())],
                "path_mean_mm": 10.0,
                "path_max_mm": 20.0,
                "entry_mean_mm": float("nan"),
                "exit_mean_mm": 1700.0,
            }
            if name == RATED:
                share = masks[name] & (rng.random(size) > 0.5)
                row |= {"confidence": round(float(rng.random()), 2), "disputed_mm3": 8.0}
                row |= {"disputed_px": int(share.sum()), "disputed": encode_mask(share)}
        rows.append(row)
    return rows


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def _manifest(
    name: str,
    description: str,
    rows: list[dict[str, Any]],
    duplicates: Sequence[str],
    finished: bool,
    classes: Sequence[tuple[str, str, list[str]]],
    beam: str,
    size: tuple[int, int],
) -> dict[str, Any]:
    statuses = sorted({row["status"] for row in rows})
    counts = {
        "patients": len({row["patient_id"] for row in rows}),
        "cases": {status: sum(row["status"] == status for row in rows) for status in statuses},
        "samples": {split: sum(r["samples"] for r in rows if r["split"] == split) for split in SPLITS},
        "shards": len({row["shard"] for row in rows}),
        "landmarks": 0,
        "measures": 0,
        "instances": 0,
        "findings": 0,
    }
    return {
        "schema": SCHEMA_VERSION,
        "name": name,
        "description": description,
        "notice": "A research data set, not for clinical use.",
        "counts": counts if finished else None,
        "duplicates": list(duplicates),
        "pipeline": {
            "name": name,
            "views": [{"name": "pa"}, {"name": "lateral_left"}],
            "geometry": {"beam": beam, "sdd_mm": 1800.0, "rows": size[0], "columns": size[1]},
            "splits": {"train": 0.7, "val": 0.1, "test": 0.2, "seed": 0},
        },
        "basis": {"extra_columns": []},
        "environment": {"paxray": "0.1.0", "python": "3.11.0"},
        "categories": [
            {
                "id": number, "name": label, "supercategory": group, "parts": parts, "laterality": "",
                "snomed_ct": "", "snomed_laterality": "", "rule": "",
                "colour": [(47 * number) % 256, 120, 200],
            }
            for number, (label, group, parts) in enumerate(classes, start=1)
        ],
    }  # fmt: skip
