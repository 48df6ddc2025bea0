"""Findings through a build: what is dropped, what is stored, what readers and the report show."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from paxray.config import Pipeline, load_pipeline, parse_pipeline
from paxray.errors import ConfigError
from paxray.plausibility.rules import RULES

CLASSES = ["rib_left_4", "rib_left_5", "rib_left_6", "rib_left_5_anterior", "ribs", "heart", "lungs"]
CONTENT: dict[str, Any] = {
    "name": "wrong",
    "views": ["pa", "lateral_left"],
    "geometry": {"rows": 48, "columns": 40},
    "labels": {"classes": CLASSES},
    "splits": {"train": 1.0, "val": 0.0, "test": 0.0},
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory, phantom_table: Path) -> Path:
    """A data set of a right case, one with two ribs exchanged, and one with masks flipped."""
    import nibabel
    import numpy as np

    from paxray.anatomy.catalog import load_catalog
    from paxray.anatomy.vocabulary import load_vocabulary
    from paxray.api import build

    folder = tmp_path_factory.mktemp("wrong")
    with phantom_table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))[:3]
    for row in rows:
        for key in ("ct", "masks"):
            row[key] = os.path.relpath(phantom_table.parent / row[key], folder)
    vocabulary = load_vocabulary(rows[0]["vocabulary"], catalog=load_catalog())
    value = {name: number for number, name in vocabulary.labels.items()}
    fourth, fifth = value["rib_left_4"], value["rib_left_5"]

    def rewrite(row: dict[str, str], change: Any) -> None:
        image: Any = nibabel.load(folder / row["masks"])
        row["masks"] = f"{row['case_id']}.nii.gz"
        array = change(np.asarray(image.dataobj))
        nibabel.save(nibabel.Nifti1Image(array, image.affine, image.header), folder / row["masks"])

    table = np.arange(256, dtype=np.uint8)
    table[[fourth, fifth]] = fifth, fourth
    rewrite(rows[1], lambda array: table[array])
    rewrite(rows[2], lambda array: np.ascontiguousarray(array[::-1]))
    cases = folder / "cases.csv"
    with cases.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    build(parse_pipeline(CONTENT), cases, folder / "dataset")
    return folder / "dataset"


def test_a_dropped_case_is_a_failed_record_in_the_findings_words(wrong: Path) -> None:
    import paxray

    cases = paxray.load(wrong).cases.set_index("case_id")
    assert cases["status"].tolist() == ["ok", "ok", "failed"]
    failed = cases.iloc[2]
    assert failed["code"] == "implausible"
    assert "flipped_left_right" in failed["message"]
    assert "lie on each other's sides" in failed["message"]
    assert "set plausibility.flipped_left_right: warn" in failed["message"]


def test_a_dropped_class_is_unknown_and_says_why(wrong: Path) -> None:
    import paxray

    data = paxray.load(wrong)
    right, ribs_wrong = data.cases["case_id"][:2]
    for sample in data:
        status = sample.facts["status"]
        if sample.case_id == right:
            assert set(status) == {"present"}
            continue
        assert sample.case_id == ribs_wrong
        dropped = ["rib_left_4", "rib_left_5", "rib_left_5_anterior"]
        assert status[dropped].tolist() == ["unknown"] * 3
        assert status[["rib_left_6", "heart", "lungs"]].tolist() == ["present"] * 3
        assert status["ribs"] == "partial"
        assert sample.facts["note"]["ribs"] == "without rib_left_4, rib_left_5: dropped for a finding"
        for name in dropped:
            assert sample.facts["note"][name].startswith("dropped for a finding (ribs_out_of_order)")
            with pytest.raises(KeyError, match="dropped for a finding"):
                sample.masks[name]


def test_findings_are_stored_by_case_and_read_by_sample(wrong: Path) -> None:
    import paxray

    data = paxray.load(wrong)
    right, ribs_wrong = data.cases["case_id"][:2]
    every = data.findings
    assert set(every["case_id"]) == {right, ribs_wrong}
    (order,) = every[every["finding"] == "ribs_out_of_order"].to_dict("records")
    assert (order["case_id"], order["severity"], order["action"]) == (ribs_wrong, "error", "drop_class")
    assert list(order["classes"]) == ["rib_left_4", "rib_left_5"]
    assert (order["value"], order["limit"]) == (2, 0)
    assert data.manifest["counts"]["findings"] == len(every)
    for case in (right, ribs_wrong):
        mine = every[every["case_id"] == case]["finding"].tolist()
        by_id, walked = data[f"{case}/pa"], next(s for s in data if s.case_id == case)
        assert by_id.findings.index.tolist() == walked.findings.index.tolist() == mine
    assert "ribs_out_of_order" not in data[f"{right}/pa"].findings.index


def test_the_data_set_is_sound(wrong: Path) -> None:
    from paxray.dataset.verify import verify

    assert verify(wrong, deep=True).findings == ()


def test_the_report_shows_findings(wrong: Path, tmp_path: Path) -> None:
    from paxray.dataset.reader import load
    from paxray.report.html import write_report

    page = write_report(load(wrong), tmp_path / "page.html", samples=0).read_text(encoding="utf-8")
    row = '<tr><td>ribs_out_of_order</td><td>error</td><td>drop_class</td><td class="number">1</td></tr>'
    assert row in page
    assert page.index(row) < page.index("<td>cut_by_scan</td>")  # grave ones first
    assert "2 left ribs do not lie in the order of their names: rib_left_4, rib_left_5" in page
    assert "<code>implausible</code>" in page


def test_the_card_lists_a_table_for_the_splits_that_have_rows(wrong: Path, tmp_path: Path) -> None:
    """A loader stumbles over a split without a row."""
    import shutil

    from paxray.dataset.card import write_card
    from paxray.dataset.layout import Layout
    from paxray.files import read_json, write_json

    def configs(root: Path) -> str:
        return (root / "README.md").read_text(encoding="utf-8").split("---")[1]

    train = "- config_name: findings\n  data_files:\n  - {split: train, path: findings/train-*.parquet}\n"
    assert train in configs(wrong)
    copy = Layout(Path(shutil.copytree(wrong, tmp_path / "copy")))
    for path in copy.commits():
        commit = read_json(path)
        for name, facts in commit["files"].items():
            facts["rows"] *= not name.startswith("findings/")
        write_json(path, commit)
    write_card(copy)
    assert "findings" not in configs(copy.root)
    assert "split: train, path: samples/" in configs(copy.root)


def test_who_only_looks_is_told_and_nothing_is_dropped(wrong: Path, tmp_path: Path) -> None:
    import json

    from typer.testing import CliRunner

    from paxray.cli import app

    with (wrong.parent / "cases.csv").open(newline="") as handle:
        flipped = list(csv.DictReader(handle))[2]
    ct, masks = (str(wrong.parent / flipped[key]) for key in ("ct", "masks"))
    command = [
        "project",
        ct,
        "--labels",
        f"{masks}=phantom",
        "--full",
        "--size",
        "32",
        "--out",
        str(tmp_path),
    ]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    assert "error flipped_left_right: " in made.output
    assert "warning heart_on_the_right: " in made.output
    facts = json.loads((tmp_path / "pa.json").read_text(encoding="utf-8"))
    assert {row["class"]: row["status"] for row in facts["classes"]}["rib_left_4"] == "present"


def test_the_log_tells_findings(wrong: Path) -> None:
    (log,) = (wrong / "logs").glob("build-*.log")
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines()]
    assert any(line.startswith("error ribs_out_of_order: 2 left ribs") for line in lines)


def test_another_policy_is_another_data_set(wrong: Path) -> None:
    """What follows from a finding decides what comes out, so it is part of what stands."""
    from paxray.api import build

    other = parse_pipeline(CONTENT | {"plausibility": {"ribs_out_of_order": "warn"}})
    with pytest.raises(
        ConfigError, match=r"plausibility\.ribs_out_of_order: stands drop_class, asked for warn"
    ) as caught:
        build(other, wrong.parent / "cases.csv", wrong)
    assert caught.value.code == "pipeline_changed"


def test_what_findings_depend_on_is_part_of_what_stands() -> None:
    from dataclasses import replace

    from paxray.anatomy.anatomy_class import AnatomyClass
    from paxray.anatomy.catalog import Catalog, load_catalog
    from paxray.standing import basis_of

    catalog, pipeline = load_catalog(), parse_pipeline(CONTENT)

    def basis(*others: AnatomyClass) -> dict[str, Any]:
        changed = Catalog((dict(catalog) | {item.name: item for item in others}).values())
        return basis_of(pipeline, changed, tuple(CLASSES), "cpu", [])

    clavicle = catalog["clavicula_left"]
    assert basis() == basis(replace(clavicle, colour=(1, 2, 3)))
    assert basis()["judged"] != basis(replace(clavicle, laterality="right"))["judged"]
    # A class of one's own that a recipe makes is judged nowhere.
    assert basis() == basis(
        AnatomyClass("mine", group="bone", recipe={"shell": {"of": "heart", "thickness_mm": 1}})
    )


def test_policy_in_a_pipeline() -> None:
    assert parse_pipeline({"name": "x", "views": ["pa"]}).plausibility.model_dump() == {
        name: rule.default for name, rule in RULES.items()
    }
    for rule in RULES.values():
        assert rule.default in rule.actions

    def refused(name: str, action: str) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            parse_pipeline({"name": "x", "views": ["pa"], "plausibility": {name: action}})
        return caught.value

    assert refused("ribs_out_of_oder", "warn").do == "did you mean 'ribs_out_of_order'?"
    assert refused("far_pieces", "drop_clas").do == "did you mean 'drop_class'?"
    assert "plausibility.body_cut_at_sides" in refused("body_cut_at_sides", "drop_class").what


def test_documents_and_the_example_pipeline_name_every_finding() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "plausibility.md").read_text(encoding="utf-8")
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule.severity} | {rule.words} | `{rule.default}` |" in page, name
    chest: Pipeline = load_pipeline(root / "pipelines" / "chest.yaml")
    written = (root / "pipelines" / "chest.yaml").read_text(encoding="utf-8")
    assert chest.plausibility.model_dump() == {name: rule.default for name, rule in RULES.items()}
    assert all(f"  {name}: " in written for name in RULES)
