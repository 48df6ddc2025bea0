"""The build: complete, resumable, deterministic, and indifferent to bad cases."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paxray.api import build, load
from paxray.config import Pipeline, parse_pipeline
from paxray.dataset.verify import verify
from paxray.errors import ConfigError, DamageError


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of all canonical files."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.relative_to(root).parts[0] not in ("logs", "exports", "report")
    }


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as handle:
        return list(csv.DictReader(handle))


def write_rows(table: Path, rows: list[dict[str, str]], beside: Path) -> Path:
    """Write a table elsewhere that names the files beside another one."""
    for row in rows:
        for key in ("ct", "masks"):
            if row.get(key) and not Path(row[key]).is_absolute():
                row[key] = os.path.relpath(beside / row[key], table.parent)
    with table.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def changed(pipeline: Pipeline, **changes: Any) -> Pipeline:
    return parse_pipeline(pipeline.effective() | changes)


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory, phantom_table: Path, lean_pipeline: Pipeline) -> Path:
    """A data set of `lean_pipeline`."""
    root = tmp_path_factory.mktemp("lean") / "dataset"
    assert not build(lean_pipeline, phantom_table, root).failed
    return root


@pytest.fixture
def dataset(tmp_path: Path, lean: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(lean, tmp_path / "dataset"))


def test_layout(built: Path) -> None:
    files = set(digests(built))
    assert {"dataset.json", "plan.parquet", "cases.parquet", "README.md", "SHA256SUMS"} <= files
    shards = {f.split("/")[1].removesuffix(".parquet") for f in files if f.startswith("samples/")}
    assert {s.rsplit("-", 1)[0] for s in shards} == {"train", "val", "test"}
    for shard in shards:
        assert {f"labels/{shard}.parquet", f"commits/{shard}.json"} <= files
    assert not [f for f in files if ".tmp" in f]


def test_samples_read_back(built: Path) -> None:
    data = load(built)
    assert len(data) == 8
    assert len(load(built, "train")) + len(load(built, "val")) + len(load(built, "test")) == 8
    for sample in data:
        assert sample.image.shape == sample.signal.shape == sample.incomplete.shape == (96, 80) == sample.size
        assert sample.image.dtype == np.uint8
        assert sample.signal.max() > 3  # a chest is more than 15 cm of water thick
        np.testing.assert_array_equal(data[sample.id].image, sample.image)
        assert sample.view.name == sample.row["view"]
        heart, body = sample.masks["heart"], sample.masks["body"]
        assert 0 < heart.sum() < body.sum()
        assert not (heart & ~body).any()
        facts = sample.facts.loc["heart"]
        assert facts["area_px"] == heart.sum()
        assert facts["view_status"] == "whole"
        v, u = np.nonzero(heart)
        assert list(facts["bbox"]) == [u.min(), v.min(), np.ptp(u) + 1, np.ptp(v) + 1]
        np.testing.assert_allclose(facts["centroid_px"], [u.mean(), v.mean()])
        assert facts["entry_mean_mm"] + facts["path_mean_mm"] <= facts["exit_mean_mm"] + 1e-6
        assert sample.row["sex"] in ("F", "M"), "columns of the case table reach the samples"


def test_what_nothing_looked_for_is_unknown_not_empty(built: Path) -> None:
    sample = next(iter(load(built)))
    assert sample.facts.loc["brain", "status"] == "unknown"
    with pytest.raises(KeyError, match="nothing looked for it"):
        sample.masks["brain"]


def test_patients_right_is_on_image_left(built: Path) -> None:
    for sample in load(built):
        if sample.view.name == "pa":
            left, right = (sample.facts.loc[f"lung_{side}", "centroid_px"][0] for side in ("left", "right"))
            assert right < left
        else:
            assert sample.facts.loc["sternum", "centroid_px"][0] < sample.facts.loc["spine", "centroid_px"][0]


def test_a_second_build_does_nothing(dataset: Path, phantom_table: Path, lean_pipeline: Pipeline) -> None:
    before = digests(dataset)
    times = {p: p.stat().st_mtime_ns for p in (dataset / "samples").iterdir()}
    result = build(lean_pipeline, phantom_table, dataset)
    assert result.made == result.shards_done == 0
    assert result.log is None
    assert digests(dataset) == before
    assert {p: p.stat().st_mtime_ns for p in (dataset / "samples").iterdir()} == times


def test_bytes_do_not_depend_on_workers(
    tmp_path: Path, built: Path, phantom_table: Path, small_pipeline: Pipeline
) -> None:
    events = []
    build(small_pipeline, phantom_table, tmp_path / "two", workers=2, on_event=events.append)
    assert digests(tmp_path / "two") == digests(built)
    assert sorted(e.name for e in events if e.kind == "case") == sorted(load(built).cases["case_id"])


def test_bytes_do_not_depend_on_row_order(
    tmp_path: Path, lean: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    turned = write_rows(tmp_path / "turned.csv", rows_of(phantom_table)[::-1], phantom_table.parent)
    build(lean_pipeline, turned, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(lean)


def test_a_killed_build_goes_on_and_ends_the_same(
    tmp_path: Path, lean: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    """SIGKILL once the first shard is committed; the next build completes it byte for byte."""
    out = tmp_path / "out"
    script = (
        "import json, sys\n"
        "from paxray.api import build\nfrom paxray.config import parse_pipeline\n"
        "build(parse_pipeline(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3])\n"
    )
    arguments = [json.dumps(lean_pipeline.effective()), str(phantom_table), str(out)]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments])
    deadline = time.monotonic() + 120
    while not list(out.glob("commits/*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(out.glob("commits/*.json")), "the build never committed a shard"
    assert not (out / "SHA256SUMS").exists() or process.returncode == 0
    assert verify(out).findings == ()
    build(lean_pipeline, phantom_table, out)
    assert digests(out) == digests(lean)


def test_torn_shard_is_built_again(
    dataset: Path, lean: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    """A shard without its commit counts for nothing, whatever lies there."""
    (dataset / "commits" / "train-00000.json").unlink()
    (dataset / "labels" / "train-00000.parquet").write_bytes(b"half")
    result = build(lean_pipeline, phantom_table, dataset)
    assert result.shards_done == 1
    assert digests(dataset) == digests(lean)


def test_a_changed_pipeline_stops_and_shows_the_difference(
    dataset: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    before = digests(dataset)
    other = changed(lean_pipeline, physics={"energy_kev": 80.0})
    with pytest.raises(ConfigError, match=r"pipeline.physics.energy_kev: stands 65.0, asked for 80.0"):
        build(other, phantom_table, dataset)
    assert digests(dataset) == before
    result = build(other, phantom_table, dataset, update=True)
    assert result.made == 4
    assert digests(dataset)["labels/train-00000.parquet"] == before["labels/train-00000.parquet"]
    assert digests(dataset)["samples/train-00000.parquet"] != before["samples/train-00000.parquet"]
    assert build(other, phantom_table, dataset).made == 0


def test_a_changed_input_stops_and_update_redoes_only_it(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    folder = Path(shutil.copytree(phantom_table.parent, tmp_path / "cases"))
    table, out = folder / phantom_table.name, tmp_path / "out"
    build(lean_pipeline, table, out)
    victim = rows_of(table)[0]
    other = folder / rows_of(table)[1]["ct"]
    time.sleep(0.01)
    shutil.copyfile(other, folder / victim["ct"])
    shutil.copyfile(folder / rows_of(table)[1]["masks"].split("=")[0], folder / victim["masks"].split("=")[0])
    with pytest.raises(ConfigError, match=f"case '{victim['case_id']}': other content in ct"):
        build(lean_pipeline, table, out)
    result = build(lean_pipeline, table, out, update=True)
    assert result.made == 1
    assert len(result.duplicates) == 1
    assert "the same CT stands under several patients" in result.duplicates[0]
    assert verify(out, deep=True).findings == ()


def test_new_cases_are_added_and_nothing_moves(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    out = tmp_path / "out"
    fewer = write_rows(tmp_path / "fewer.csv", rows_of(phantom_table)[:2], phantom_table.parent)
    first = build(lean_pipeline, fewer, out)
    assert first.made == 2
    before = digests(out)
    second = build(lean_pipeline, phantom_table, out)
    assert second.made == 2
    for name, value in before.items():
        if name.startswith(("samples/", "labels/", "commits/")):
            assert digests(out)[name] == value
    assert verify(out, deep=True).findings == ()
    assert len(load(out)) == 8


def test_a_limit_plans_everything_and_the_end_is_the_same(
    tmp_path: Path, lean: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    out = tmp_path / "out"
    first = build(lean_pipeline, phantom_table, out, limit=1)
    assert first.cases == {"ok": 1, "pending": 3}
    for _ in range(3):
        build(lean_pipeline, phantom_table, out, limit=1)
    assert digests(out) == digests(lean)


def test_cases_that_left_the_table_stay(
    dataset: Path, tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    fewer = write_rows(tmp_path / "fewer.csv", rows_of(phantom_table)[:1], phantom_table.parent)
    assert build(lean_pipeline, fewer, dataset).made == 0
    other = changed(lean_pipeline, physics={"energy_kev": 80.0})
    with pytest.raises(ConfigError, match="cannot be redone"):
        build(other, fewer, dataset, update=True)
    assert len(load(dataset)) == 8


@pytest.fixture
def bad_table(tmp_path: Path, phantom_table: Path) -> Path:
    """Four good cases and three bad ones: a corrupt CT, a missing one, masks 7 mm off."""
    import nibabel as nib

    rows = rows_of(phantom_table)
    folder = phantom_table.parent
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes((folder / rows[0]["ct"]).read_bytes()[:5000])
    off = tmp_path / "off.nii.gz"
    image = nib.load(folder / rows[1]["masks"].split("=")[0])
    affine = image.affine.copy()
    affine[0, 3] += 7.0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), off)
    bad = [
        {**rows[0], "case_id": "corrupt", "patient_id": "b1", "ct": str(torn)},
        {**rows[0], "case_id": "missing", "patient_id": "b2", "ct": str(tmp_path / "none.nii.gz")},
        {**rows[1], "case_id": "mismatched", "patient_id": "b3", "masks": str(off)},
    ]
    return write_rows(tmp_path / "bad.csv", rows + bad, folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_cases_are_listed_and_harm_no_other(
    tmp_path: Path, bad_table: Path, lean_pipeline: Pipeline, workers: int
) -> None:
    result = build(lean_pipeline, bad_table, tmp_path / "out", workers=workers)
    assert result.cases == {"ok": 4, "failed": 3}
    codes = {record.case_id: record.code for record in result.failed}
    assert codes == {"corrupt": "unreadable", "missing": "missing_file", "mismatched": "mask_mismatch"}
    cases = load(tmp_path / "out").cases.set_index("case_id")
    assert cases.loc["mismatched", "status"] == "failed"
    # 7 mm on a 5 mm grid is 2 mm from the nearest voxel.
    assert "2" in cases.loc["mismatched", "message"]
    assert "mm" in cases.loc["mismatched", "message"]
    assert str(tmp_path) not in cases.loc["corrupt", "message"], "files are named relative to the table"
    assert len(load(tmp_path / "out")) == 8
    assert verify(tmp_path / "out", deep=True).findings == ()
    # They wait for --retry-failed ...
    assert build(lean_pipeline, bad_table, tmp_path / "out").made == 0
    # ... and once mended come out as if they had never failed.
    shutil.copyfile(bad_table.parent / rows_of(bad_table)[0]["ct"], tmp_path / "none.nii.gz")
    rows = rows_of(bad_table)
    again = build(lean_pipeline, bad_table, tmp_path / "out", retry_failed=True)
    assert again.made == 1
    assert again.cases == {"ok": 5, "failed": 2}
    assert len(rows) == 7


def test_a_flipped_byte_is_found_and_named(dataset: Path) -> None:
    assert verify(dataset, deep=True).findings == ()
    for name in digests(dataset):
        path = dataset / name
        good = path.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 0x01
        path.write_bytes(bad)
        found = verify(dataset).findings
        assert found, name
        if name != "SHA256SUMS":  # there a flipped digit speaks of the file that it is for
            assert name in {finding.file for finding in found}
        path.write_bytes(good)
    assert verify(dataset).findings == ()


def test_missing_and_foreign_files_are_found(dataset: Path) -> None:
    (dataset / "labels" / "train-00000.parquet").unlink()
    shutil.copyfile(dataset / "samples" / "train-00000.parquet", dataset / "samples" / "train-00009.parquet")
    files = {finding.file for finding in verify(dataset).findings}
    assert files == {"labels/train-00000.parquet", "samples/train-00009.parquet"}


def test_deep_verification_reads_what_columns_say(dataset: Path) -> None:
    """Consistent checksums, wrong content: a mask that is not its area's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from paxray.dataset.checksums import write_checksums
    from paxray.dataset.layout import Layout
    from paxray.files import read_json, sha256_of, write_json

    path = dataset / "labels" / "train-00000.parquet"
    table = pq.read_table(path)
    areas = [None if a is None else a + 1 for a in table["area_px"].to_pylist()]
    table = table.set_column(table.schema.get_field_index("area_px"), "area_px", pa.array(areas, pa.int64()))
    pq.write_table(table, path)
    commit = dataset / "commits" / "train-00000.json"
    content = read_json(commit)
    content["files"]["labels/train-00000.parquet"]["sha256"] = sha256_of(path)
    write_json(commit, content)
    (dataset / "SHA256SUMS").unlink()
    write_checksums(Layout(dataset))
    assert verify(dataset).findings == ()
    found = verify(dataset, deep=True).findings
    assert found
    assert "area_px says" in found[0].what


def test_other_readers_read_the_folders_as_they_are(built: Path) -> None:
    """pandas, Dask and Hugging Face datasets; images as images."""
    import dask.dataframe as dd
    import pandas as pd
    from datasets import load_dataset
    from PIL import Image

    for folder, rows in (("samples", 8), ("labels", 8 * len(load(built).categories))):
        frame = pd.read_parquet(built / folder)
        assert len(frame) == rows
        assert len(dd.read_parquet(built / folder)) == rows
        found = load_dataset(str(built / folder), cache_dir=str(built.parent / f"cache-{folder}"))
        assert sum(len(part) for part in found.values()) == rows
        assert set(found) == {"train", "validation", "test"}
    # The data set's card tells `datasets` what is what, also when called on the whole folder.
    whole = load_dataset(str(built), "samples", cache_dir=str(built.parent / "cache-whole"))
    assert sum(len(part) for part in whole.values()) == 8
    sample = load(built)[0]
    again = load_dataset(str(built / "samples"), cache_dir=str(built.parent / "cache-samples"))
    rows_by_id = {row["sample_id"]: row for part in again.values() for row in part}
    image = rows_by_id[sample.id]["image"]
    assert isinstance(image, Image.Image)
    np.testing.assert_array_equal(np.asarray(image), sample.image)
    assert rows_by_id[sample.id]["matrix"] == sample.view.matrix.ravel().tolist()
    # The 8-bit picture survives what loaders do to it.
    np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[..., 1], sample.image)


def test_checksums_are_coreutils(built: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=built, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_nothing_of_this_machine_in_canonical_files(built: Path, phantom_table: Path) -> None:
    import platform

    words = [
        str(built).encode(),
        str(phantom_table.parent).encode(),
        platform.node().encode(),
        str(Path.home()).encode(),
    ]
    for name in digests(built):
        content = (built / name).read_bytes()
        for word in words:
            assert len(word) < 4 or word not in content, f"{word!r} in {name}"


def test_foreign_folder_is_not_written_to(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and holds no data set"):
        build(lean_pipeline, phantom_table, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "logs") == ["thesis.txt"]


def test_two_builds_at_once_are_refused(dataset: Path, phantom_table: Path, lean_pipeline: Pipeline) -> None:
    import fcntl

    with (dataset / "logs" / "build.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another build is at work"):
            build(lean_pipeline, phantom_table, dataset)


def test_committed_shard_without_its_tables_is_damage(
    dataset: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    (dataset / "samples" / "train-00000.parquet").unlink()
    with pytest.raises(DamageError, match="table is missing"):
        build(lean_pipeline, phantom_table, dataset)


def test_case_table_column_that_samples_have_is_refused(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    rows = [{**row, "image": "x"} for row in rows_of(phantom_table)]
    table = write_rows(tmp_path / "t.csv", rows, phantom_table.parent)
    with pytest.raises(ConfigError, match="column 'image'"):
        build(lean_pipeline, table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", range(6))
def test_a_kill_at_any_step_of_replacing_a_shard_loses_nothing(
    dataset: Path,
    lean: Path,
    phantom_table: Path,
    lean_pipeline: Pipeline,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill between any two renames: the shard is the old one or the new one, never less."""
    from paxray.dataset import shard as shards
    from paxray.dataset.layout import Layout

    class KilledError(BaseException):
        pass

    calls = [0]
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.parent.name in ("samples", "labels", "commits"):
            if calls[0] == step:
                raise KilledError
            calls[0] += 1
        return real(self, target)

    other = changed(lean_pipeline, physics={"energy_kev": 80.0})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KilledError):
            build(other, phantom_table, dataset, update=True)
    before = load(dataset).cases
    assert len(before) == 4
    result = build(other, phantom_table, dataset)
    assert result.cases == {"ok": 4}
    assert verify(dataset, deep=True).findings == ()
    assert verify(dataset).stale == ()
    assert not shards.waiting_shards(Layout(dataset))


def test_an_interrupted_update_goes_on_without_being_told(
    dataset: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    other = changed(lean_pipeline, physics={"energy_kev": 80.0})
    build(other, phantom_table, dataset, update=True, limit=1)
    assert len(verify(dataset).stale) == 3
    assert build(other, phantom_table, dataset).made == 3
    assert verify(dataset).stale == ()


def test_standing_samples_are_not_dropped_for_a_missing_input(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    folder = Path(shutil.copytree(phantom_table.parent, tmp_path / "cases"))
    table, out = folder / phantom_table.name, tmp_path / "out"
    build(lean_pipeline, table, out)
    (folder / rows_of(table)[0]["ct"]).unlink()
    for update in (False, True):
        with pytest.raises(ConfigError, match="cannot be found"):
            build(lean_pipeline, table, out, update=update)
    assert len(load(out)) == 8


def test_damage_is_not_sealed_by_another_build(
    dataset: Path, phantom_table: Path, lean_pipeline: Pipeline, tmp_path: Path
) -> None:
    """A flaw in what stands is found still after builds that do nothing, and stops those that would copy it."""
    victim = dataset / "samples" / "train-00000.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 1
    victim.write_bytes(data)
    shutil.copyfile(dataset / "labels" / "train-00000.parquet", dataset / "labels" / "train-00007.parquet")
    build(lean_pipeline, phantom_table, dataset)
    assert {f.file for f in verify(dataset).findings} == {
        "samples/train-00000.parquet",
        "labels/train-00007.parquet",
    }
    rows = rows_of(phantom_table)
    in_shard = load(dataset).cases.query("shard == 'train-00000'")["case_id"].tolist()
    rows = [{**row, "source": "elsewhere"} if row["case_id"] == in_shard[0] else row for row in rows]
    table = write_rows(tmp_path / "t.csv", rows, phantom_table.parent)
    with pytest.raises(DamageError, match="not those that were committed"):
        build(lean_pipeline, table, dataset, update=True)


def test_a_damaged_manifest_is_not_built_upon(
    dataset: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    path = dataset / "dataset.json"
    path.write_text(path.read_text().replace('"id": 7,', '"id": 9,', 1))
    with pytest.raises(DamageError, match=r"dataset.json: its bytes changed"):
        build(lean_pipeline, phantom_table, dataset)


@pytest.mark.parametrize("influence", ["vocabulary file", "synonym", "class", "row", "detached voxels"])
def test_every_influence_on_a_case_is_in_its_fingerprint(
    influence: str, tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    import SimpleITK

    folder = Path(shutil.copytree(phantom_table.parent, tmp_path / "cases"))
    row = rows_of(phantom_table)[0]
    table, out, catalog = folder / "one.csv", tmp_path / "out", tmp_path / "own.yaml"
    (folder / "v.yaml").write_text("extends: phantom\nlabels: {1: subcutaneous_fat}\n")
    catalog.write_text(
        "classes:\n  own_thing:\n    parts: [heart, liver]\n    group: heart\n    colour: [90, 200, 90]\n"
    )
    if influence == "vocabulary file":
        row["vocabulary"] = "v.yaml"
    if influence == "synonym":
        row |= {"masks": "by_name", "vocabulary": "by_name"}
        (folder / "by_name").mkdir()
        shutil.copyfile(folder / rows_of(phantom_table)[0]["masks"], folder / "by_name" / "thing_word.nii.gz")
        labels = SimpleITK.ReadImage(str(folder / "by_name" / "thing_word.nii.gz"))
        SimpleITK.WriteImage(
            SimpleITK.Cast(labels == 20, SimpleITK.sitkUInt8), str(folder / "by_name" / "thing_word.nii.gz")
        )
        catalog.write_text("classes:\n  liver:\n    synonyms: [thing_word]\n")
    if influence == "detached voxels":
        ct = SimpleITK.ReadImage(str(folder / row["ct"]))
        SimpleITK.WriteImage(ct, str(folder / "ct.mhd"))
        row["ct"] = "ct.mhd"

    def write() -> None:
        with table.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(row))
            writer.writeheader()
            writer.writerow(row)

    write()
    classes = ["own_thing"] if influence == "class" else ["liver", "spleen", "heart", "body"]
    pipeline = changed(lean_pipeline, labels={"catalog": str(catalog), "classes": classes})
    assert build(pipeline, table, out).cases == {"ok": 1}
    assert build(pipeline, table, out).made == 0
    time.sleep(0.01)
    if influence == "vocabulary file":
        (folder / "v.yaml").write_text("extends: phantom\nlabels: {1: torso_fat}\n")
    elif influence == "synonym":
        catalog.write_text("classes:\n  spleen:\n    synonyms: [thing_word]\n")
    elif influence == "class":
        catalog.write_text(catalog.read_text().replace("liver", "spleen"))
    elif influence == "row":
        row["license"] = "another"
        write()
    else:
        raw = folder / "ct.raw"
        voxels = np.fromfile(raw, np.int16)
        voxels[len(voxels) // 2] += 500
        voxels.tofile(raw)
    with pytest.raises(ConfigError) as caught:
        build(pipeline, table, out)
    assert caught.value.code == "pipeline_changed"
    assert build(pipeline, table, out, update=True).made == 1


def test_a_case_that_kills_its_worker_fails_alone(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard-mates of a poisonous case come out; it alone is listed. However long workers take to come back."""
    import dask

    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def watch(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('poison.nii.gz') and os.path.getsize(arguments[0]):\n"
        "        if 'paxray.produce' in sys.modules and 'distributed.worker' in sys.modules and os.getppid() != "
        f"{os.getppid()}:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(watch)\n"
    )
    rows = rows_of(phantom_table)
    shutil.copyfile(phantom_table.parent / rows[0]["ct"], tmp_path / "poison.nii.gz")
    rows[0]["ct"] = str(tmp_path / "poison.nii.gz")
    table = write_rows(tmp_path / "t.csv", rows, phantom_table.parent)
    one_shard = changed(lean_pipeline, shard_cases=4, splits={"train": 1.0, "val": 0.0, "test": 0.0})
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"}):
        result = build(one_shard, table, tmp_path / "out", workers=1)
    assert result.cases == {"ok": 3, "failed": 1}
    assert [(r.case_id, r.code) for r in result.failed] == [(rows[0]["case_id"], "worker_died")]
    assert verify(tmp_path / "out", deep=True).findings == ()


def test_geometry_that_does_not_fit_a_patient_fails_that_patient(
    tmp_path: Path, phantom_table: Path, lean_pipeline: Pipeline
) -> None:
    tight = changed(lean_pipeline, geometry={"rows": 32, "columns": 32, "sdd_mm": 150.0})
    result = build(tight, phantom_table, tmp_path / "out")
    assert {record.code for record in result.failed} == {"geometry"}


def test_labels_columns_against_dense_maps(
    phantom_table: Path, small_pipeline: Pipeline, built: Path
) -> None:
    """Every column of the labels table, recomputed from the reference projector's dense maps."""
    from paxray.anatomy.labels import Status
    from paxray.io.cases import read_case_table
    from paxray.produce import Clock, catalog_of, prepare, views_of
    from paxray.projection.project import project

    case = read_case_table(phantom_table)[0]
    pipeline = changed(small_pipeline, geometry={"rows": 96, "columns": 80, "field_mm": 230.0})
    root = built.parent / "narrow"
    if not root.exists():
        build(pipeline, phantom_table, root, limit=1)
    subject = prepare(case, pipeline, catalog_of(pipeline), Clock(), phantom_table.parent)
    data, labels = load(root), subject.labels
    (k, j, i), grid = np.indices(labels.shape), subject.mu.grid
    outer = np.zeros(labels.shape, bool)
    for axis in range(3):
        np.moveaxis(outer, axis, 0)[[0, -1]] = True
    seen_status = set()
    for view in views_of(subject, pipeline):
        sample = data[f"{case.case_id}/{view.name}"]
        dense = project(
            subject.mu,
            labels,
            view,
            ["image", "path", "depth", "presence", "incomplete"],
            backend="reference",
        )
        assert dense.path_mm is not None
        assert dense.entry_mm is not None
        assert dense.exit_mm is not None
        np.testing.assert_array_equal(sample.incomplete, dense.incomplete)
        assert sample.row["incomplete_px"] == dense.incomplete.sum()
        assert sample.row["body_px"] == dense.mask("body").sum()
        np.testing.assert_allclose(sample.signal, dense.image, atol=sample.row["signal_scale"])
        for name, fact in sample.facts.iterrows():
            if name in subject.films:
                continue  # told from masks alone: tests/dataset/test_film.py
            if name not in labels.names or labels.status[name] in (Status.ABSENT, Status.UNKNOWN):
                assert fact["status"] in ("absent", "unknown")
                continue
            mask = labels.mask(name)
            assert fact["volume_mm3"] == pytest.approx(mask.sum() * grid.voxel_volume_mm3)
            assert fact["cut_by_ct"] == (mask & outer).any()
            at = view.project_points(grid.to_world(np.stack([i[mask], j[mask], k[mask]], axis=-1)))
            lands = ((at >= -0.5) & (at <= [view.columns - 0.5, view.rows - 0.5])).all(axis=1)
            shadow = sample.masks[name]
            status = (
                ("whole" if lands.all() else "cut")
                if shadow.any()
                else ("below_pixel" if lands.any() else "outside")
            )
            assert fact["view_status"] == status, name
            seen_status.add(status)
            channel = dense.index(name)
            np.testing.assert_array_equal(shadow, dense.path_mm[channel] > 0, err_msg=str(name))
            assert fact["area_px"] == shadow.sum()
            if not shadow.any():
                continue
            v, u = np.nonzero(shadow)
            assert list(fact["bbox"]) == [u.min(), v.min(), np.ptp(u) + 1, np.ptp(v) + 1]
            np.testing.assert_allclose(fact["centroid_px"], [u.mean(), v.mean()])
            for column, values, how in (
                ("path_mean_mm", dense.path_mm, np.mean),
                ("path_max_mm", dense.path_mm, np.max),
                ("entry_mean_mm", dense.entry_mm, np.mean),
                ("exit_mean_mm", dense.exit_mm, np.mean),
            ):
                assert fact[column] == pytest.approx(how(values[channel][shadow]), rel=1e-5), (name, column)
    assert {"whole", "cut", "outside"} <= seen_status
