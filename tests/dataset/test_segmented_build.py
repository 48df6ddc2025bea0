"""Segmentation as a step of a build: bare CTs, kept results, failures with codes."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from paxray.api import build, load
from paxray.buildlog import Event
from paxray.cli import app
from paxray.config import Pipeline, load_pipeline, parse_pipeline
from paxray.errors import EXIT_ENVIRONMENT, ConfigError, ResourceError
from paxray.io.cases import read_case_table
from paxray.run import BuildResult, build_shard
from paxray.todo import plan_build

CLASSES = ["body", "bones", "heart", "breast_left", "rib_left_1", "lung_left"]


@pytest.fixture
def bare(tmp_path: Path, phantom_table: Path) -> Path:
    """A case table of two phantoms without masks, and of one with."""
    with phantom_table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))[:3]
    table = tmp_path / "cases.csv"
    lines = ["case_id,ct,masks,vocabulary"]
    for row, with_masks in zip(rows, (False, False, True), strict=True):
        masks = f"{phantom_table.parent / row['masks']},phantom" if with_masks else ","
        lines.append(f"{row['case_id']},{phantom_table.parent / row['ct']},{masks}")
    table.write_text("\n".join(lines) + "\n")
    return table


def pipeline_of(**segmentation: Any) -> Pipeline:
    return parse_pipeline(
        {
            "name": "bare",
            "views": ["pa"],
            "geometry": {"rows": 48, "columns": 40},
            "labels": {"classes": CLASSES},
            "segmentation": {"segmenter": "fake"} | segmentation,
        }
    )


def digests(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.relative_to(root).parts[0] != "logs"
    }


def rows_of(root: Path, case: str) -> dict[str, Any]:
    [sample] = [one for one in load(root) if one.case_id == case]
    rows = sample.facts.astype(object).where(sample.facts.notna(), None)
    return rows.to_dict("index")


def codes(result: BuildResult) -> dict[str, str]:
    return {record.case_id: record.code for record in result.failed}


def test_bare_cases_are_segmented_and_others_are_not(
    bare: Path, tmp_path: Path, fake_segmenter: list[str]
) -> None:
    events: list[Event] = []
    result = build(pipeline_of(), bare, tmp_path / "out" / "dataset", on_event=events.append)
    assert result.cases == {"ok": 3}
    assert [call.split()[0] for call in fake_segmenter] == ["preflight", "segment", "segment"]
    assert [(e.name, e.message) for e in events if e.kind == "segmenting"] == [
        ("phantom-0001", "fake"),
        ("phantom-0002", "fake"),
    ]
    found = rows_of(result.root, "phantom-0001")
    assert (found["bones"]["status"], found["bones"]["confidence"]) == ("present", 0.25)
    assert (found["heart"]["status"], found["heart"]["confidence"]) == ("present", None)
    assert found["breast_left"]["status"] == "absent"
    assert (found["rib_left_1"]["status"], found["rib_left_1"]["note"]) == ("unknown", "it never can")
    assert (found["lung_left"]["status"], found["lung_left"]["note"]) == ("unknown", None)
    assert found["body"]["status"] == "present"
    given = rows_of(result.root, "phantom-0003")
    assert {row["confidence"] for row in given.values()} == {None}
    assert given["rib_left_1"]["status"] == "present"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"dataset", "paxray_segmentations"}


def test_nothing_is_segmented_twice(bare: Path, tmp_path: Path, fake_segmenter: list[str]) -> None:
    """Not by the next build, nor for another data set with other views beside it; what is kept gives the same bytes."""
    first = build(pipeline_of(), bare, tmp_path / "first").root
    fake_segmenter.clear()
    assert build(pipeline_of(), bare, tmp_path / "first").made == 0
    lateral = pipeline_of().model_copy(update={"views": parse_pipeline({"name": "l", "views": ["ap"]}).views})
    assert build(lateral, bare, tmp_path / "other").cases == {"ok": 3}
    again = build(pipeline_of(), bare, tmp_path / "again").root
    assert fake_segmenter == []
    assert digests(again) == digests(first)
    build(pipeline_of(), bare, tmp_path / "elsewhere", segmentations=tmp_path / "kept")
    assert len(fake_segmenter) == 3
    assert digests(tmp_path / "elsewhere") == digests(first)


def test_what_is_kept_and_damaged_is_made_again(
    bare: Path, tmp_path: Path, fake_segmenter: list[str]
) -> None:
    first = build(pipeline_of(), bare, tmp_path / "first").root
    damaged = sorted((tmp_path / "paxray_segmentations").iterdir())[0] / "labels.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    fake_segmenter.clear()
    events: list[Event] = []
    again = build(pipeline_of(), bare, tmp_path / "again", on_event=events.append).root
    assert len(fake_segmenter) == 1
    [note] = [event for event in events if event.kind == "note"]
    assert "segmented again" in note.message
    assert digests(again) == digests(first)


def test_another_setting_redoes_the_segmented_cases_alone(
    bare: Path, tmp_path: Path, fake_segmenter: list[str]
) -> None:
    build(pipeline_of(), bare, tmp_path / "dataset")
    other = pipeline_of(segmenter={"name": "fake", "threshold_hu": 300})
    with pytest.raises(ConfigError, match="segmented by another segmenter") as caught:
        build(other, bare, tmp_path / "dataset")
    assert caught.value.code == "pipeline_changed"
    assert "phantom-0003" not in str(caught.value)
    assert build(other, bare, tmp_path / "dataset", update=True).made == 2


def test_all_cases_keep_their_own_masks_first(bare: Path, tmp_path: Path, fake_segmenter: list[str]) -> None:
    given = rows_of(build(pipeline_of(segmenter=[]), bare, tmp_path / "given").root, "phantom-0003")
    assert fake_segmenter == []
    both = rows_of(build(pipeline_of(cases="all"), bare, tmp_path / "both").root, "phantom-0003")
    assert len(fake_segmenter) == 4
    for name in ("lung_left", "rib_left_1"):
        assert both[name]["volume_mm3"] == given[name]["volume_mm3"], name
        assert both[name]["confidence"] is None
    assert both["bones"]["confidence"] == 0.25, "the phantom's masks name single bones alone"


def test_the_first_segmenter_that_knows_a_class_has_it(
    bare: Path, tmp_path: Path, fake_segmenter: list[str]
) -> None:
    order = [{"name": "fake", "threshold_hu": 400}, {"name": "fake", "threshold_hu": 100}]
    first = rows_of(build(pipeline_of(segmenter=order), bare, tmp_path / "a").root, "phantom-0001")
    second = rows_of(build(pipeline_of(segmenter=order[::-1]), bare, tmp_path / "b").root, "phantom-0001")
    alone = rows_of(build(pipeline_of(segmenter=order[0]), bare, tmp_path / "c").root, "phantom-0001")
    assert first["bones"]["volume_mm3"] == alone["bones"]["volume_mm3"] < second["bones"]["volume_mm3"]
    # What the lower threshold adds is disputed, in 3D and in the picture; nothing is where one segmenter is alone.
    more_mm3 = second["bones"]["volume_mm3"] - first["bones"]["volume_mm3"]
    assert first["bones"]["disputed_mm3"] == pytest.approx(more_mm3)
    assert second["bones"]["disputed_mm3"] == pytest.approx(more_mm3)
    assert (first["heart"]["disputed_mm3"], first["heart"]["disputed_px"]) == (0, 0)
    assert alone["bones"]["disputed_px"] is None
    assert first["rib_left_1"]["disputed_px"] is None
    [sample] = [one for one in load(tmp_path / "a") if one.case_id == "phantom-0001"]
    [other] = [one for one in load(tmp_path / "b") if one.case_id == "phantom-0001"]
    disputed = sample.disputed["bones"]
    assert disputed.sum() == first["bones"]["disputed_px"] > 0
    assert not (disputed & ~other.masks["bones"]).any()
    np.testing.assert_array_equal(sample.masks["bones"] | disputed, other.masks["bones"])
    with pytest.raises(KeyError):
        sample.disputed["lung_left"]


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("die", "segmenter_crashed"),
        ("hang", "segmenter_timeout"),
        ("empty", "segmenter_empty"),
        ("raise", "segmenter_failed"),
    ],
)
def test_a_failed_segmentation_is_a_failed_case(
    bare: Path, tmp_path: Path, fake_segmenter: list[str], mode: str, code: str
) -> None:
    result = build(pipeline_of(segmenter={"name": "fake", "mode": mode}), bare, tmp_path / "dataset")
    assert result.cases == {"ok": 1, "failed": 2}
    assert codes(result) == {"phantom-0001": code, "phantom-0002": code}
    assert not (tmp_path / "paxray_segmentations").exists()


@pytest.mark.parametrize(
    ("mode", "code"), [("no_weights", "weights_missing"), ("no_licence", "licence_refused")]
)
def test_what_the_machine_lacks_stops_a_build_before_it_starts(
    bare: Path, tmp_path: Path, fake_segmenter: list[str], mode: str, code: str
) -> None:
    with pytest.raises(ResourceError) as caught:
        build(pipeline_of(segmenter={"name": "fake", "mode": mode}), bare, tmp_path / "dataset")
    assert caught.value.code == code
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["logs"]


def test_a_folder_that_cannot_keep_segmentations_stops_a_build_before_it_starts(
    bare: Path, tmp_path: Path, fake_segmenter: list[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ResourceError, match="--segmentations") as caught:
        build(pipeline_of(), bare, tmp_path / "out", segmentations=tmp_path / "taken")
    assert "taken" in caught.value.where
    assert not [call for call in fake_segmenter if call.startswith("segment")]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.json"))


def test_a_mistaken_segmenter_stops_a_build_before_it_starts(bare: Path, tmp_path: Path) -> None:
    for wrong, words in (
        ("torax", "did you mean 'thorax'"),
        ({"name": "thorax", "fast": True}, "no setting 'fast'"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(pipeline_of(segmenter=wrong), bare, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_an_ensemble_of_one_segmenter_with_itself_is_refused(
    bare: Path, tmp_path: Path, fake_segmenter: list[str]
) -> None:
    """However the same settings are written."""
    for entries in (["fake", "fake"], ["fake", {"name": "fake", "threshold_hu": 200}]):
        with pytest.raises(ConfigError, match="'fake' stands twice") as caught:
            build(pipeline_of(segmenter=entries, combine="majority"), bare, tmp_path / "dataset")
        assert "leave one of the two out" in caught.value.do
    assert fake_segmenter == []
    assert not (tmp_path / "dataset").exists()


def test_a_worker_gets_all_that_it_needs(bare: Path, tmp_path: Path, fake_segmenter: list[str]) -> None:
    """What goes to a worker is pickled: the step, and the folder that paths in settings are relative to."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(pipeline_of().effective()))
    pipeline = load_pipeline(file)
    here = build(pipeline, bare, tmp_path / "here", segmentations=tmp_path / "kept").root
    todo = plan_build(pipeline, read_case_table(bare), tmp_path / "there", table=bare)
    events: list[Event] = []
    for job in todo.jobs:
        sent = pickle.loads(pickle.dumps(job))
        assert sent.pipeline.base == tmp_path
        build_shard(sent, events.append)
    assert Counter(event.kind for event in events) == {"segmenting": 2, "case": 3, "shard": len(todo.jobs)}
    for name in ("samples", "labels", "commits"):
        assert {k: v for k, v in digests(here).items() if k.startswith(name)} == {
            k: v for k, v in digests(tmp_path / "there").items() if k.startswith(name)
        }


def test_segment_on_the_command_line(bare: Path, tmp_path: Path, fake_segmenter: list[str]) -> None:
    with bare.open(newline="") as handle:
        ct = next(csv.DictReader(handle))["ct"]
    run, out = CliRunner(), tmp_path / "found.nii.gz"
    told = run.invoke(app, ["segment", ct, "--segmenter", "fake", "--out", str(out), "--preview"])
    assert told.exit_code == 0, told.output
    assert "classes 2 present, 1 absent, 1 unknown" in told.output
    assert "rib_left_1: it never can" in told.output
    assert {p.name for p in tmp_path.iterdir()} >= {"found.nii.gz", "found.yaml", "found.png"}
    for arguments, words in (
        (["--out", str(out)], "exists already"),
        (["--out", str(tmp_path / "found.nrrd")], "written as NIfTI"),
        (["--out", str(tmp_path / "new"), "--set", "treshold_hu=3"], "did you mean 'threshold_hu'?"),
    ):
        told = run.invoke(app, ["segment", ct, "--segmenter", "fake", *arguments])
        assert told.exit_code == 2
        assert words in told.output
    told = run.invoke(
        app, ["segment", ct, "--segmenter", "files", "--labels", str(out), "--out", str(tmp_path / "classes")]
    )
    assert told.exit_code == 0, told.output
    assert {p.name for p in (tmp_path / "classes").iterdir()} == {
        "bones.nii.gz", "heart.nii.gz", "breast_left.nii.gz", "paxray_classes.json",
    }  # fmt: skip
    told = run.invoke(
        app, ["segment", ct, "--segmenter", "fake", "--set", "mode=no_weights", "--out", str(tmp_path / "x")]
    )
    assert told.exit_code == EXIT_ENVIRONMENT
