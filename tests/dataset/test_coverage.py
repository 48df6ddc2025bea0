"""What came out of a vocabulary's channels, case by case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_fixture import ABSENT, CLASSES, PLAIN, UNKNOWN, make_dataset
from typer.testing import CliRunner

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.channels import Channels, load_channels
from paxray.cli import app
from paxray.dataset.coverage import STATUSES, coverage
from paxray.dataset.reader import Dataset

DONE = sum(not case.message for case in PLAIN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("plain") / "set")


def test_each_case_is_counted_once_whatever_its_views(folder: Path) -> None:
    channels = Channels.of_classes([name for name, _, _ in CLASSES] + ["spleen"])
    for item in coverage(Dataset(folder), channels):
        word = {ABSENT: "absent", UNKNOWN: "unknown", "spleen": "unknown"}.get(item.class_name, "present")
        assert item.cases == {status: DONE if status == word else 0 for status in STATUSES}
        assert item.cut == 0


def test_every_channel_accounts_for_every_case(folder: Path) -> None:
    channels = load_channels("pax_ray_plus_plus_159", catalog=load_catalog())
    found = coverage(Dataset(folder), channels)
    assert [item.name for item in found] == list(channels.names)
    assert {sum(item.cases.values()) for item in found} == {DONE}


def test_a_phantoms_channels_come_out_as_its_masks_say(built: Path) -> None:
    channels = load_channels("paxray_166", catalog=load_catalog())
    found = {item.class_name: item for item in coverage(Dataset(built), channels)}
    for name in ("lungs", "heart", "vertebrae_T4", "ribs", "rib_left_4"):
        assert found[name].cases["present"] == 4, name
    assert found["vertebrae_C1"].cases["unknown"] == 4
    assert found["aorta"].cut == 4  # it leaves the phantom through its lowest slice
    assert found["heart"].cut == 0


def test_command(folder: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["classes", "list", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    text = run("--vocabulary", "paxray_166")
    assert "166 channels, 165 classes" in text
    text = run("--vocabulary", "paxray_166", "--dataset", str(folder))
    # lungs, its halves, heart, rib_left_1; the other 161 channels in each case.
    assert f"in {DONE} cases: {5 * DONE} present, 0 partial, 0 absent, {161 * DONE} unknown" in text
    rows = json.loads(run("--vocabulary", "paxray_166", "--dataset", str(folder), "--json"))
    assert len(rows) == 166
    assert rows[17] == {
        "channel": 17, "name": "heart", "class": "heart",
        "present": DONE, "partial": 0, "absent": 0, "unknown": 0, "cut": 0,
    }  # fmt: skip
    assert len(json.loads(run("--vocabulary", "paxray_166", "--group", "lung", "--json"))) == 10
    alone = {row["class"]: row for row in json.loads(run("--dataset", str(folder), "--json"))}
    assert alone["heart"]["present"] == DONE
    assert alone[UNKNOWN]["unknown"] == DONE
