"""What `paxray segment` refuses before it reads anything, and what several segmenters make together."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from paxray import api
from paxray.anatomy.labels import LabelVolume, Status
from paxray.cli import app
from paxray.io.volume import Volume


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (["--labels", "masks"], "--labels is for the segmenter `files`", "--segmenter files"),
        (
            ["--labels", "masks", "--segmenter", "thorax"],
            "'thorax' looks at the CT alone",
            "--segmenter files",
        ),
        (["--segmenter", "files"], "none are given", "--labels MASKS"),
        (["--segmenter", "thorax", "--segmenter", "files"], "none are given", "--labels MASKS"),
        (
            ["--segmenter", "thorax", "--segmenter", "nnunet", "--set", "model=m"],
            "does not say which of several segmenters",
            "'{name: thorax, KEY: VALUE}'",
        ),
        (["--combine", "majority"], "none to combine with", "leave --combine away"),
        (["--disputed", "differ"], "one segmenter disputes nothing", "leave --disputed away"),
        (["--segmenter", "{name: nnunet, model:m"], "not a segmenter", "blanks behind colons"),
        (["--segmenter", "{model: m}"], "not a segmenter", "blanks behind colons"),
        (["--segmenter", "[thorax, nnunet]"], "not a segmenter", "blanks behind colons"),
        (["--set", "name=nnunet"], "--set gives settings", "--segmenter NAME"),
        (
            ["--segmenter", "thorax", "--segmenter", "thorax"],
            "--segmenter: the segmenter 'thorax' stands twice, with the same settings",
            "leave one of the two out",
        ),
    ],
)
def test_what_would_be_left_out_silently_is_refused(
    tmp_path: Path, arguments: list[str], what: str, do: str
) -> None:
    told = CliRunner().invoke(
        app, ["segment", str(tmp_path / "ct"), "--out", str(tmp_path / "x"), *arguments]
    )
    assert told.exit_code == 2, told.output
    assert what in told.output
    assert do in told.output
    assert not (tmp_path / "x").exists()


@pytest.fixture
def ct(phantom_table: Path, fake_segmenter: list[str]) -> Path:
    with phantom_table.open(newline="") as handle:
        return phantom_table.parent / next(csv.DictReader(handle))["ct"]


def fakes(*thresholds_hu: int) -> list[str]:
    """Several of the segmenter `fake`: the lower its threshold, the more is bone."""
    return [word for hu in thresholds_hu for word in ("--segmenter", f"{{name: fake, threshold_hu: {hu}}}")]


def segmented(ct: Path, out: Path, *arguments: str) -> tuple[dict[str, Any], LabelVolume]:
    told = CliRunner().invoke(app, ["segment", str(ct), "--out", str(out), "--json", *arguments])
    assert told.exit_code == 0, told.output
    return json.loads(told.output), api.read_masks(out, api.read_ct(ct))


def bones_above(volume: Volume, threshold_hu: int) -> np.ndarray:
    return volume.array > threshold_hu


def test_segmenters_vote_and_say_where_they_differ(ct: Path, tmp_path: Path) -> None:
    volume = api.read_ct(ct)
    low, middle, high = (bones_above(volume, hu) for hu in (100, 200, 400))
    assert high.sum() < middle.sum() < low.sum()
    order, first = segmented(ct, tmp_path / "order.nii.gz", *fakes(400, 100))
    assert order["segmenter"] == "fake and fake by order"
    np.testing.assert_array_equal(first.mask("bones"), high)
    classes = {item["class"]: item for item in order["classes"]}
    ml = volume.grid.voxel_volume_mm3 / 1000
    assert classes["bones"]["volume_ml"] == pytest.approx(high.sum() * ml)
    assert classes["bones"]["disputed_ml"] == pytest.approx((low & ~high).sum() * ml)
    assert classes["heart"]["disputed_ml"] == 0
    assert classes["rib_left_1"]["disputed_ml"] is None, "neither knows of it"
    assert set(first.names) == set(classes), "no column of disputed voxels among the masks"

    where = tmp_path / "differ"
    more = ["--combine", "majority", "--disputed", str(where)]
    made, most = segmented(ct, tmp_path / "majority", *fakes(400, 100, 200), *more)
    np.testing.assert_array_equal(most.mask("bones"), middle)
    assert made["disputed"] == str(where)
    differ = api.read_masks(where, volume)
    np.testing.assert_array_equal(differ.mask("bones"), low & ~high)
    assert differ.status["heart"] is Status.ABSENT, "on which all agree"
    assert "rib_left_1" not in differ.names


def test_masks_that_exist_take_part(ct: Path, tmp_path: Path) -> None:
    volume = api.read_ct(ct)
    segmented(ct, tmp_path / "given", *fakes(400))
    (tmp_path / "given" / "breast_left.nii.gz").unlink()
    told = tmp_path / "given" / "paxray_classes.json"
    facts = json.loads(told.read_text())
    assert facts["classes"].pop("breast_left") == {"status": "absent"}
    told.write_text(json.dumps(facts))
    both = ["--segmenter", "files", "--labels", str(tmp_path / "given"), *fakes(100)]
    _, labels = segmented(ct, tmp_path / "both.nii.gz", *both)
    np.testing.assert_array_equal(labels.mask("bones"), bones_above(volume, 400))
    assert labels.status["breast_left"] is Status.ABSENT, "of which the second alone knows"


@pytest.mark.parametrize(
    ("out", "disputed", "what"),
    [
        ("a/m.nii.gz", "a/../a/m.nii.gz", "the same name"),
        ("a/m.nii.gz", "link/m.nii.gz", "the same name"),
        ("a/m", "a/m", "the same name"),
        ("a/m", "a", "inside the other"),
        ("a/m", "a/m/differ.nii.gz", "inside the other"),
        ("link/m", "a/m/differ", "inside the other"),
        # What lies beside a label map: its vocabulary, its preview.
        ("a/m.nii.gz", "a/m.yaml", "the same name"),
        ("a/m.yaml", "link/m.nii.gz", "the same name"),
        ("a/m.nii.gz", "link/m.png", "the same name"),
        ("a/m.nii.gz", "a/m.yaml/differ", "inside the other"),
    ],
)
def test_masks_and_disputed_voxels_are_kept_apart(
    ct: Path, tmp_path: Path, out: str, disputed: str, what: str
) -> None:
    """However the paths are written, and before anything is segmented."""
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    arguments = [
        "--out",
        str(tmp_path / out),
        "--disputed",
        str(tmp_path / disputed),
        *fakes(400, 100),
        "--preview",
    ]
    told = CliRunner().invoke(app, ["segment", str(ct), *arguments])
    assert told.exit_code == 2, told.output
    assert what in " ".join(told.output.split())
    assert not list((tmp_path / "a").iterdir())


def test_on_a_terminal(ct: Path, tmp_path: Path) -> None:
    command = ["segment", str(ct), "--out", str(tmp_path / "found.nii.gz"), *fakes(400, 100)]
    told = CliRunner().invoke(app, [*command, "--disputed", str(tmp_path / "differ.nii.gz"), "--preview"])
    assert told.exit_code == 0, told.output
    assert "fake and fake by order: classes 2 present, 1 absent, 1 unknown" in told.output
    assert "they differ on bones" in told.output
    names = {"found.nii.gz", "found.yaml", "found.png", "differ.nii.gz", "differ.yaml"}
    assert {path.name for path in tmp_path.iterdir()} == names
    again = CliRunner().invoke(app, [*command, "--disputed", str(tmp_path / "found.nii.gz"), "--force"])
    assert again.exit_code == 2
    assert "the same name" in again.output
    again = CliRunner().invoke(app, [*command, "--disputed", str(tmp_path / "differ.nii.gz")])
    assert again.exit_code == 2
    assert "exists already" in again.output
    for name in ("found.nii.gz", "found.yaml"):
        (tmp_path / name).unlink()
    again = CliRunner().invoke(app, [*command, "--preview"])
    assert again.exit_code == 2
    assert "found.png: the preview's file exists already" in again.output
