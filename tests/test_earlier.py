"""What lies in the folder of `paxray project` already: nothing of the user's is lost, and no views of two CTs mix."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import paxray.look as look_module
from paxray.cli import app
from paxray.earlier import ViewFiles, identity, make_way, standing_views
from paxray.errors import ConfigError
from paxray.look import look


@pytest.fixture
def case(tmp_path: Path) -> dict:
    (tmp_path / "ct.nii").write_bytes(b"one")
    return identity(tmp_path / "ct.nii")


def leave(folder: Path, view: str, case: dict, masks: tuple[str, ...] = ("heart",)) -> ViewFiles:
    """What a call leaves; a class without pixels has no mask."""
    files = ViewFiles.of(folder, view)
    files.masks.mkdir(parents=True)
    rows = [{"class": name, "area_px": 7} for name in masks] + [{"class": "liver", "area_px": 0}]
    files.facts.write_text(json.dumps({"case": case, "geometry": {}, "signal": {}, "classes": rows}))
    for path in (files.image, files.signal, files.overlay, *(files.masks / f"{name}.png" for name in masks)):
        path.write_bytes(b"made")
    return files


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_call_wrote_makes_way_and_nothing_else(tmp_path: Path, case: dict) -> None:
    folder = tmp_path / "look"
    files = leave(folder, "pa", case, ("heart", "aorta"))
    mine = [
        folder / "notes.json",
        folder / "pa_notes.png",
        files.masks / "mine.png",
        files.masks / "liver.png",
    ]
    for path in mine:
        path.write_text("mine")
    assert standing_views(folder, ["pa"], case) == []
    make_way(folder, "pa", ["heart", "trachea"])
    assert everything(folder) == {path.relative_to(folder).as_posix() for path in (*mine, files.facts)}


@pytest.mark.parametrize("name", ["pa.png", "pa_overlay.png", "pa_signal.png", "pa.json", "pa_masks/x.txt"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, case: dict, name: str) -> None:
    folder = tmp_path / "look"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text('{"geometry": {}, "classes": []}')
    with pytest.raises(ConfigError, match=name.partition("/")[0]) as caught:
        standing_views(folder, ["lateral_left", "pa"], case)
    assert caught.value.code == "not_written_here"
    assert standing_views(folder, ["ap"], case) == []  # they are not in its way
    assert everything(folder) == {name}


def test_a_mask_of_ones_own_under_a_classes_name_is_not_overwritten(tmp_path: Path, case: dict) -> None:
    files = leave(tmp_path / "look", "pa", case)
    (files.masks / "liver.png").write_text("mine")
    before = everything(tmp_path / "look")
    with pytest.raises(ConfigError, match=r"pa_masks/liver\.png"):
        make_way(tmp_path / "look", "pa", ["heart", "liver"])
    assert everything(tmp_path / "look") == before


def test_what_is_in_the_way_of_any_view_is_found_before_work(tmp_path: Path, case: dict) -> None:
    """Once the first view is replaced it is too late to refuse the second."""
    folder = tmp_path / "look"
    leave(folder, "pa", case)
    files = leave(folder, "lateral_left", case)
    (files.masks / "liver.png").write_text("mine")
    views = ["pa", "lateral_left"]
    assert standing_views(folder, views, case, ["heart", "aorta"]) == []
    with pytest.raises(ConfigError, match=r"lateral_left_masks/liver\.png") as caught:
        standing_views(folder, views, case, ["heart", "liver"])
    assert caught.value.code == "not_written_here"


@pytest.mark.parametrize("name", ["pa.png", "pa_masks/heart.png"])
def test_a_folder_where_a_picture_is_to_be_is_in_the_way(tmp_path: Path, case: dict, name: str) -> None:
    folder = tmp_path / "look"
    leave(folder, "pa", case)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ConfigError, match=name):
        standing_views(folder, ["pa"], case, ["heart"])


def test_a_file_where_the_folder_is_to_be_is_in_the_way(tmp_path: Path, case: dict) -> None:
    (tmp_path / "out").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "out", tmp_path / "out" / "look", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="a file lies") as caught:
            standing_views(folder, ["pa"], case)
        assert caught.value.code == "no_folder"


def test_an_empty_folder_of_masks_is_in_nobodys_way(tmp_path: Path, case: dict) -> None:
    """As a full disk leaves it."""
    (tmp_path / "look" / "pa_masks").mkdir(parents=True)
    assert standing_views(tmp_path / "look", ["pa"], case, ["heart"]) == []
    make_way(tmp_path / "look", "pa", ["heart"])


@pytest.mark.parametrize(
    "told",
    [
        "[]",
        '{"geometry": {}, "signal": {}, "classes": ["heart"]}',
        '{"geometry": {}, "signal": {}, "classes": {"heart": 1}}',
        '{"geometry": {}, "signal": {}, "classes": [{"class": 1, "area_px": 1}]}',
        '{"geometry": {}, "signal": {}, "classes": [], "case": "one"}',
        '{"geometry": {}, "signal": {}, "classes": [], "case": {"ct": 1}}',
        "[" * 100_000,
    ],
)
def test_json_of_another_shape_is_another_programs(tmp_path: Path, case: dict, told: str) -> None:
    (tmp_path / "pa.json").write_text(told)
    assert standing_views(tmp_path, ["ap"], case) == []
    with pytest.raises(ConfigError, match=r"pa\.json"):
        standing_views(tmp_path, ["pa"], case)


def test_views_of_one_ct_stand_beside_each_other(tmp_path: Path, case: dict) -> None:
    leave(tmp_path / "look", "lateral_left", case)
    leave(tmp_path / "look", "pa", case)
    assert standing_views(tmp_path / "look", ["pa", "ap"], case) == ["lateral_left"]
    assert standing_views(tmp_path / "nowhere", ["pa"], case) == []


def test_views_of_two_cts_do_not(tmp_path: Path, case: dict) -> None:
    folder = tmp_path / "look"
    leave(folder, "lateral_left", case)
    leave(folder, "pa", case)
    (tmp_path / "ct.nii").write_bytes(b"another")
    os.utime(tmp_path / "ct.nii", ns=(1, 1))
    other = identity(tmp_path / "ct.nii")
    before = everything(folder)
    with pytest.raises(ConfigError, match=r"lateral_left of .*ct\.nii") as caught:
        standing_views(folder, ["pa"], other)
    assert "or of this one before it was moved or changed" in caught.value.what
    assert caught.value.code == "other_case"
    assert everything(folder) == before
    assert standing_views(folder, ["pa", "lateral_left"], other) == []  # all of them are made anew


def test_a_series_stays_the_same_with_pictures_in_its_folder(tmp_path: Path) -> None:
    case = identity(tmp_path)
    leave(tmp_path / "look", "pa", case)
    os.utime(tmp_path, ns=(1, 1))
    assert identity(tmp_path) == case
    (tmp_path / "other").mkdir()
    assert identity(tmp_path / "other") != case
    assert str(tmp_path.parent) not in json.dumps(case)


def test_a_path_in_a_json_leads_nowhere_else(tmp_path: Path, case: dict) -> None:
    """A folder that somebody sent may say anything."""
    folder = tmp_path / "look"
    leave(folder, "pa", case, ())
    (tmp_path / "precious.png").write_text("mine")
    facts = ViewFiles.of(folder, "pa").facts
    told = json.loads(facts.read_text())
    for name in ("../../precious", str(tmp_path / "precious")):
        facts.write_text(json.dumps(told | {"classes": [{"class": name, "area_px": 1}]}))
        make_way(folder, "pa", [])
    assert (tmp_path / "precious.png").exists()


def box_of_water(path: Path) -> Path:
    hu = np.full((16, 16, 16), -1000, np.int16)
    hu[4:-4, 4:-4, 2:-2] = 40
    nib.save(nib.Nifti1Image(hu, np.diag([20.0, 20.0, 20.0, 1.0])), path)
    return path


def test_a_call_that_stopped_on_the_way_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file was the first that the disk had no room for."""
    ct, folder = box_of_water(tmp_path / "ct.nii.gz"), tmp_path / "look"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for writer in ("write_json", "write_bytes"):
        with monkeypatch.context() as patched:
            patched.setattr(look_module, writer, full)
            with pytest.raises(OSError, match="No space"):
                look(ct, [], ["pa"], folder, size=16, device="cpu")
        assert (folder / "pa.json").exists() == (writer == "write_bytes")
        assert folder.exists() == (writer == "write_bytes")
    assert look(ct, [], ["pa"], folder, size=16, device="cpu")["standing"] == []


def test_the_command_names_what_stands_and_refuses_to_mix(tmp_path: Path) -> None:
    def call(ct: Path, *arguments: str, exit_code: int = 0) -> dict:
        common = ["project", str(ct), "--size", "16", "--out", str(tmp_path / "look"), "--json"]
        made = CliRunner().invoke(app, [*common, *arguments])
        assert made.exit_code == exit_code, made.output
        return dict(json.loads(made.stdout))

    one, two = (box_of_water(tmp_path / f"{name}.nii.gz") for name in ("one", "two"))
    assert call(one, "--view", "pa", "--view", "lateral_left")["standing"] == []
    assert call(one, "--view", "PA")["standing"] == ["lateral_left"]
    before = everything(tmp_path / "look")
    assert call(two, exit_code=2)["error"]["code"] == "other_case"
    assert everything(tmp_path / "look") == before
    call(two, "--view", "pa", "--view", "lateral_left")
    assert (
        json.loads((tmp_path / "look" / "pa.json").read_text())["case"]["ct"] == f"{tmp_path.name}/two.nii.gz"
    )
