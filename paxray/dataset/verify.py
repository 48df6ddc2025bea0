"""Verification: is what lies on disk what was written, and does it hold together?"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paxray.dataset.checksums import canonical_files, foreign_files, read_checksums
from paxray.dataset.invariants import contradictions
from paxray.dataset.layout import SCHEMA_VERSION, Layout
from paxray.dataset.plan import read_plan
from paxray.dataset.rle import decode_mask
from paxray.dataset.shard import OK, read_commit, records_of, waiting_shards
from paxray.errors import DamageError
from paxray.files import digest, read_json, sha256_of


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and the file in which."""

    file: str
    what: str


@dataclass(frozen=True)
class Verification:
    """Outcome: findings, what was looked at, whether a build is unfinished, and cases of an earlier pipeline."""

    findings: tuple[Finding, ...]
    files: int
    samples: int
    unfinished: bool
    stale: tuple[str, ...] = ()


def verify(root: Path, *, deep: bool = False, on_file: Callable[[str], None] | None = None) -> Verification:
    """Check a data set.

    Parameters
    ----------
    root
        The data set's folder.
    deep
        Also decode every image and mask and check sizes, areas and boxes against the columns, and what the
        masks of a sample owe each other (`paxray.dataset.invariants`).
    on_file
        Told each file as it is read.

    Returns
    -------
    Verification
        No findings: every canonical file has the checksum it was written with, commits and tables agree, and
        every planned case is accounted for.
    """
    layout = Layout(root)
    if not layout.manifest.exists():
        return Verification(
            (Finding("dataset.json", "is missing: this folder holds no data set"),), 0, 0, False
        )
    findings: list[Finding] = []
    try:
        manifest = read_json(layout.manifest)
        unfinished = manifest.get("counts") is None or bool(waiting_shards(layout))
        if manifest.get("schema") != SCHEMA_VERSION:
            findings.append(
                Finding(
                    "dataset.json", f"schema {manifest.get('schema')}, this paxray reads {SCHEMA_VERSION}"
                )
            )
    except (DamageError, AttributeError) as error:
        manifest, unfinished = None, False
        findings.append(Finding("dataset.json", str(error)))
    files = canonical_files(layout)
    for path in files:
        if on_file is not None:
            on_file(path.relative_to(root).as_posix())
    findings += _checksums(layout, files, unfinished)
    damaged = {finding.file for finding in findings}
    findings += _commits(layout, damaged)
    samples = 0
    stale: list[str] = []
    if not findings:
        findings += _plan(layout)
        for commit in layout.commits():
            content = read_commit(commit)
            samples += sum(r.samples for r in records_of(content))
            if manifest is not None:
                basis = digest(manifest["basis"])
                stale += [r.case_id for r in records_of(content) if r.status == OK and r.basis != basis]
            if deep and manifest is not None:
                findings += _deep(layout, content["shard"], manifest)
    return Verification(tuple(dict.fromkeys(findings)), len(files), samples, unfinished, tuple(stale))


def _checksums(layout: Layout, files: list[Path], unfinished: bool) -> Iterator[Finding]:
    for path in foreign_files(layout):
        yield Finding(
            path.relative_to(layout.root).as_posix(), "belongs to no commit: left by a kill, or put there"
        )
    if not layout.checksums.exists():
        if not unfinished:
            yield Finding("SHA256SUMS", "is missing")
        return
    try:
        expected = read_checksums(layout)
    except DamageError as error:
        yield Finding("SHA256SUMS", str(error))
        return
    here = {path.relative_to(layout.root).as_posix(): path for path in files}
    for name in sorted(expected.keys() - here.keys()):
        yield Finding(name, "is missing")
    for name, path in here.items():
        if name not in expected:
            if not unfinished:
                yield Finding(name, "is not in SHA256SUMS")
        elif sha256_of(path) != expected[name]:
            yield Finding(
                name,
                f"its bytes changed: SHA-256 {sha256_of(path)[:12]}..., written {expected[name][:12]}...",
            )


def _commits(layout: Layout, damaged: set[str]) -> Iterator[Finding]:
    """Check tables against their commits, which also serves a build that has not come to its end."""
    for path in layout.commits():
        name = f"commits/{path.name}"
        if name in damaged:
            continue
        try:
            files = read_commit(path)["files"]
        except DamageError as error:
            yield Finding(name, str(error))
            continue
        for table, facts in files.items():
            if table in damaged:
                continue
            if not (layout.root / table).exists():
                yield Finding(table, "is missing")
            elif sha256_of(layout.root / table) != facts["sha256"]:
                yield Finding(table, f"its bytes are not those that {name} was written for")


def _plan(layout: Layout) -> Iterator[Finding]:
    """Every committed case stands in the plan, where the plan puts it; no patient is in two splits."""
    plan = {row.case_id: row for row in read_plan(layout.plan)}
    splits: dict[str, set[str]] = {}
    for row in plan.values():
        splits.setdefault(row.patient_id, set()).add(row.split)
    for patient, found in sorted(splits.items()):
        if len(found) > 1:
            yield Finding(
                "plan.parquet", f"patient '{patient}' is in several splits: {', '.join(sorted(found))}"
            )
    for path in layout.commits():
        content = read_commit(path)
        for record in records_of(content):
            planned = plan.get(record.case_id)
            if planned is None or planned.shard != content["shard"]:
                yield Finding(
                    f"commits/{path.name}", f"case '{record.case_id}' is not planned for this shard"
                )


def _deep(layout: Layout, shard: str, manifest: dict[str, Any]) -> Iterator[Finding]:
    """Decode what a shard holds."""
    import pyarrow.parquet as pq
    from PIL import Image

    parts = {row["name"]: row["parts"] for row in manifest["categories"]}
    labels = pq.read_table(layout.labels(shard)).to_pylist()
    samples = pq.read_table(layout.samples(shard)).to_pylist()
    by_sample: dict[str, list[dict[str, Any]]] = {}
    for row in labels:
        by_sample.setdefault(row["sample_id"], []).append(row)
    file = f"samples/{shard}.parquet"
    for sample in samples:
        size = (sample["rows"], sample["columns"])
        for key in ("image", "signal"):
            try:
                with Image.open(io.BytesIO(sample[key]["bytes"])) as image:
                    image.load()
                    found = image.size
            except (OSError, SyntaxError) as error:
                yield Finding(file, f"{sample['sample_id']}: {key} is no PNG: {error}")
                continue
            if found != size[::-1]:
                yield Finding(file, f"{sample['sample_id']}: {key} is {found}, geometry says {size[::-1]}")
        rows = by_sample.pop(sample["sample_id"], [])
        for row in rows:
            if row["mask"] is not None:
                mask = decode_mask(row["mask"], size)
                yield from _mask_facts(f"labels/{shard}.parquet", row, mask)
        for what in contradictions(rows, size, parts):
            yield Finding(f"labels/{shard}.parquet", f"{sample['sample_id']}: {what}")
        yield from _instances(layout, shard, sample)
        yield from _landmarks(layout, shard, sample)
    for orphan in by_sample:
        yield Finding(f"labels/{shard}.parquet", f"labels of '{orphan}', which has no sample")
    known = {sample["sample_id"] for sample in samples}
    for kind in ("landmarks", "measures", "instances"):
        for orphan in sorted(set(pq.read_table(layout.table(kind, shard))["sample_id"].to_pylist()) - known):
            yield Finding(f"{kind}/{shard}.parquet", f"{kind} of '{orphan}', which has no sample")
    cases = {sample["case_id"] for sample in samples}
    for orphan in sorted(set(pq.read_table(layout.table("findings", shard))["case_id"].to_pylist()) - cases):
        yield Finding(f"findings/{shard}.parquet", f"findings of case '{orphan}', which has no sample")
    done = {r.case_id for r in records_of(read_commit(layout.commit(shard))) if r.status == OK}
    for case in sorted(done - cases):
        yield Finding(file, f"case '{case}' is called ok and has no sample")


def _instances(layout: Layout, shard: str, sample: dict[str, Any]) -> Iterator[Finding]:
    """Each lesion's mask has the size and box that its columns say."""
    import pyarrow.parquet as pq

    file = f"instances/{shard}.parquet"
    only = [("sample_id", "==", sample["sample_id"])]
    for row in pq.read_table(layout.table("instances", shard), filters=only).to_pylist():
        if row["mask"] is None:
            continue
        mask = decode_mask(row["mask"], (sample["rows"], sample["columns"]))
        name = f"{row['class']} {row['instance_id']}"
        yield from _mask_facts(file, {**row, "class": name}, mask)


def _landmarks(layout: Layout, shard: str, sample: dict[str, Any]) -> Iterator[Finding]:
    """Each landmark's pixel is where the sample's matrix takes its position."""
    import pyarrow.parquet as pq

    matrix = np.reshape(sample["matrix"], (3, 4))
    only = [("sample_id", "==", sample["sample_id"])]
    for row in pq.read_table(layout.table("landmarks", shard), filters=only).to_pylist():
        if row["pixel"] is None:
            continue
        column, line, scale = matrix @ [*row["position_mm"], 1.0]
        if not np.allclose([column / scale, line / scale], row["pixel"], rtol=0, atol=1e-6):
            what = f"{row['sample_id']}, '{row['landmark']}': pixel {row['pixel']} is not where its position falls"
            yield Finding(f"landmarks/{shard}.parquet", what)


def _mask_facts(file: str, row: dict[str, Any], mask: Any) -> Iterator[Finding]:
    name = f"{row['sample_id']}, '{row['class']}'"
    if int(mask.sum()) != row["area_px"]:
        yield Finding(file, f"{name}: mask has {int(mask.sum())} pixels, area_px says {row['area_px']}")
        return
    v, u = np.nonzero(mask)
    box = [int(u.min()), int(v.min()), int(np.ptp(u)) + 1, int(np.ptp(v)) + 1]
    if box != row["bbox"]:
        yield Finding(file, f"{name}: mask's box is {box}, bbox says {row['bbox']}")
