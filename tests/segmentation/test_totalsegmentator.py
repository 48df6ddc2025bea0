"""TotalSegmentator through the real package, offline, on tiny weights whose masks are known exactly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

pytest.importorskip(
    "totalsegmentator", reason="TotalSegmentator is not installed: there is none for Python 3.13"
)

from totalsegmentator_weights import nearest, write_weights

import paxray
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.vocabulary import load_vocabulary, vocabulary_names
from paxray.config import parse_pipeline
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.volume import Volume
from paxray.phantom.write import write_phantoms
from paxray.segmentation import totalsegmentator_tasks
from paxray.segmentation.checked import run_segmenter
from paxray.segmentation.conformance import SegmenterConformance
from paxray.segmentation.contract import Request
from paxray.segmentation.totalsegmentator import TotalSegmentator
from paxray.segmentation.totalsegmentator_tasks import ct_tasks, read_task

#: By the names of `total`: what the tiny models know, in the order of the parts that draw them.
TISSUE_HU = {"lung_upper_lobe_left": -800.0, "heart": 40.0, "sternum": 1500.0}
NODULES_HU = {"lung": -800.0, "lung_nodules": 300.0}
SPACING_MM = 6.0


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `total` in every mode that a test runs, and of `lung_nodules`."""
    folder = tmp_path_factory.mktemp("weights")
    fastest = read_task("total", "fastest")
    [model] = fastest.models
    write_weights(folder, model, 6.0, len(fastest.names), _by_value(fastest.names, TISSUE_HU))
    from totalsegmentator.map_to_binary import class_map_5_parts, map_taskid_to_partname_ct

    for model in read_task("total", "default").models:
        number = int(model.folder.removeprefix("Dataset")[:3])
        part = class_map_5_parts[map_taskid_to_partname_ct[number]]
        write_weights(folder, model, 1.5, len(part), _by_value(part, TISSUE_HU))
    nodules = read_task("lung_nodules", "default")
    write_weights(folder, nodules.models[0], 1.5, len(nodules.names), _by_value(nodules.names, NODULES_HU))
    return folder


def _by_value(names: Mapping[int, str], hu: Mapping[str, float]) -> dict[int, float]:
    return {value: hu[name] for value, name in names.items() if name in hu}


def _blocks(spacing_mm: float, lungs: bool = True) -> Volume:
    """Blocks in air, no two of one size, on an oblique lattice away from the origin."""
    array = np.full((16, 20, 24), -1000, np.int16)
    array[2:11, 3:17, 4:21] = 40
    array[4:8, 2:4, 6:15] = 1400
    if lungs:
        array[3:10, 5:15, 6:12] = -820
        array[5:8, 8:12, 8:11] = 300
    tilt = np.deg2rad(7)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing_mm
    affine[:3, 3] = (-31.0, 12.5, 400.0)
    return Volume(array, affine)


class TestConformance(SegmenterConformance):
    """`total` at 6 mm and `lung_nodules`, whose lungs `total` finds."""

    name = "totalsegmentator"
    known_setting = "weights_dir"
    least_agreement = 0.98
    orientations = ("sagittal planes",)

    @pytest.fixture(scope="class")
    @classmethod
    def settings(cls, weights: Path) -> Mapping[str, Any]:
        return {"tasks": ["total", "lung_nodules"], "mode": "fastest", "weights_dir": str(weights)}

    @pytest.fixture(scope="class")
    @classmethod
    def ct(cls) -> Volume:
        return _blocks(SPACING_MM)

    def test_masks_are_what_the_weights_say(self, found: LabelVolume, ct: Volume) -> None:
        """At the resolution of the model the package resamples nothing: every voxel is known."""
        expected = nearest(ct.array, dict(enumerate(TISSUE_HU.values(), start=1)))
        assert expected.max() == len(TISSUE_HU)
        for value, name in enumerate(TISSUE_HU, start=1):
            np.testing.assert_array_equal(found.mask(name), expected == value, err_msg=name)
            assert found.status[name] is Status.PRESENT
        assert found.status["liver"] is Status.ABSENT
        assert "skull" in found.names

    def test_a_second_task_adds_its_classes(self, found: LabelVolume, ct: Volume) -> None:
        """It runs at 1.5 mm within 20 mm around the lungs, which `total` found for it."""
        k, j, i = np.nonzero(ct.array == -820)
        box = tuple(slice(at.min(), at.max() + 1) for at in (k, j, i))
        around = np.ones(ct.shape, bool)
        around[tuple(slice(max(0, part.start - 5), part.stop + 5) for part in box)] = False
        expected = nearest(ct.array, dict(enumerate(NODULES_HU.values(), start=1)))
        for value, name in enumerate(("lungs", "lung_nodules"), start=1):
            mask, truth = found.mask(name)[box], expected[box] == value
            assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9, name
            assert not found.mask(name)[around].any()


def test_five_models_give_one_map_and_a_task_without_its_organ_says_nothing(
    weights: Path, catalog: Catalog, tmp_path: Path
) -> None:
    settings = {"tasks": ["lung_nodules", "total"], "weights_dir": str(weights)}
    segmenter = TotalSegmentator.from_settings(settings, Path())
    ct = _blocks(1.5, lungs=False)
    found = segmenter.segment(Request(ct=ct, catalog=catalog, scratch=tmp_path))
    # Each part's model knows one class, and where parts disagree the package lets the later one win.
    winner = np.zeros(ct.shape, np.uint8)
    for value, hu in enumerate(TISSUE_HU.values(), start=1):
        winner[nearest(ct.array, {1: hu}) > 0] = value
    assert set(np.unique(winner)) == {0, 2, 3}
    for value, name in enumerate(TISSUE_HU, start=1):
        np.testing.assert_array_equal(found.mask(name), winner == value, err_msg=name)
    assert found.status["lung_upper_lobe_left"] is Status.ABSENT
    for name in ("lungs", "lung_nodules"):
        assert found.status[name] is Status.UNKNOWN
        assert "did not find the organs" in found.notes[name]
    # It ran in a home of its own, and was told to send nothing.
    config = json.loads((tmp_path / "home" / "totalsegmentator" / "config.json").read_text())
    assert config["send_usage_stats"] is False
    assert config["prediction_counter"] == 2
    assert "license_number" not in config


def test_a_data_set_of_bare_cts(weights: Path, tmp_path: Path) -> None:
    """A pipeline that names the segmenter needs no masks."""
    table = write_phantoms(tmp_path / "cases", 1, 7, spacing_mm=(6.0, 6.0, 6.0))
    rows = pd.read_csv(table)
    rows[["masks", "vocabulary"]] = ""
    rows.to_csv(table, index=False)
    segmenter = {"name": "totalsegmentator", "mode": "fastest", "weights_dir": str(weights)}
    pipeline = parse_pipeline(
        {
            "name": "bare",
            "views": ["pa"],
            "geometry": {"rows": 64, "columns": 64},
            "labels": {"classes": ["heart", "lung_upper_lobe_left", "liver", "breasts"]},
            "segmentation": {"segmenter": segmenter},
        }
    )
    result = paxray.build(pipeline, table, tmp_path / "dataset")
    assert not result.failed
    [sample] = paxray.load(tmp_path / "dataset")
    status = sample.facts["status"]
    assert status["heart"] == status["lung_upper_lobe_left"] == "present"
    assert (status["liver"], status["breasts"]) == ("absent", "unknown")
    assert sample.masks["lung_upper_lobe_left"].any()


def test_no_time(weights: Path, catalog: Catalog) -> None:
    settings = {"mode": "fastest", "weights_dir": str(weights), "time_limit_s": 0.2}
    with pytest.raises(CaseError, match=r"0\.2 s") as caught:
        run_segmenter(TotalSegmentator.from_settings(settings, Path()), _blocks(SPACING_MM), catalog)
    assert caught.value.code == "segmenter_timeout"


def test_its_process_is_killed(weights: Path, catalog: Catalog, tmp_path: Path) -> None:
    segmenter = TotalSegmentator.from_settings({"mode": "fastest", "weights_dir": str(weights)}, Path())
    request = Request(ct=_blocks(SPACING_MM), catalog=catalog, scratch=tmp_path, where="case-1")
    before = {child.pid for child in psutil.Process().children()}

    def kill() -> None:
        while not (tmp_path / "home" / "totalsegmentator" / "config.json").exists():
            time.sleep(0.01)
        [child] = [child for child in psutil.Process().children() if child.pid not in before]
        child.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(CaseError, match="SIGKILL") as caught:
        segmenter.segment(request)
    killer.join()
    assert (caught.value.code, caught.value.where) == ("segmenter_crashed", "case-1")


def test_told_cuda_it_does_not_compute_elsewhere(weights: Path, catalog: Catalog) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    segmenter = TotalSegmentator.from_settings({"mode": "fastest", "weights_dir": str(weights)}, Path())
    with pytest.raises(ResourceError, match="CUDA") as refused:
        segmenter.preflight("cuda")
    assert refused.value.code == "environment"
    with pytest.raises(CaseError) as caught:
        run_segmenter(segmenter, _blocks(SPACING_MM), catalog, device="cuda")
    assert caught.value.code == "segmenter_fell_back"


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = TotalSegmentator.from_settings({"mode": "fast", "weights_dir": "mine"}, tmp_path)
    with pytest.raises(ResourceError) as caught:
        given.preflight("cpu")
    error = caught.value
    assert error.code == "weights_missing"
    assert f"{tmp_path / 'mine'}" in error.expected
    assert "Dataset297" in error.expected
    assert "totalseg_download_weights -t total_fast" in error.do
    assert f"TOTALSEG_WEIGHTS_PATH={tmp_path / 'mine'} " in error.do

    named = TotalSegmentator.from_settings({"tasks": ["lung_vessels"]}, Path())
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "named"))
    with pytest.raises(ResourceError, match="Dataset117") as caught:
        named.preflight("cpu")
    assert str(tmp_path / "named") in caught.value.expected
    # Its lungs come from `total` at 3 mm.
    assert caught.value.do.endswith(
        "totalseg_download_weights -t lung_vessels && totalseg_download_weights -t total_fast"
    )

    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH")
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))
    with pytest.raises(ResourceError) as caught:
        named.preflight("cpu")
    assert str(tmp_path / "home" / "nnunet" / "results") in caught.value.expected


def test_every_file_of_a_model_counts(weights: Path, tmp_path: Path) -> None:
    """Preflight misses any of them, and other weights are another identity."""
    [model] = read_task("total", "fastest").models
    segmenter = TotalSegmentator.from_settings({"mode": "fastest", "weights_dir": str(tmp_path)}, Path())
    there = TotalSegmentator.from_settings({"mode": "fastest", "weights_dir": str(weights)}, Path())
    copied = tmp_path / model.folder
    (copied / "fold_0").mkdir(parents=True)
    files = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")
    for name in files:
        with pytest.raises(ResourceError, match=Path(name).name):
            segmenter.preflight("cpu")
        (copied / name).write_bytes((weights / model.folder / name).read_bytes())
    segmenter.preflight("cpu")
    assert segmenter.identity() == there.identity()
    for name in files:
        before = segmenter.identity()
        with (copied / name).open("ab") as handle:
            handle.write(b" ")
        assert segmenter.identity() != before, name


@pytest.mark.parametrize("number", ["", "aca_short"])
def test_a_licensed_task_is_refused_without_a_licence(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    if number:
        (tmp_path / "config.json").write_text(json.dumps({"license_number": number}))
    segmenter = TotalSegmentator.from_settings({"tasks": ["total", "heartchambers_highres"]}, Path())
    with pytest.raises(ResourceError, match="'heartchambers_highres'") as caught:
        segmenter.preflight("cpu")
    assert caught.value.code == "licence_refused"
    assert "totalseg_set_license" in caught.value.do


def test_with_a_licence_only_its_weights_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"license_number": "aca_" + 14 * "0"}))
    segmenter = TotalSegmentator.from_settings({"tasks": ["tissue_types"]}, Path())
    with pytest.raises(ResourceError) as caught:
        segmenter.preflight("cpu")
    assert caught.value.code == "weights_missing"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"tasks": ["totl"]}, "did you mean 'total'"),
        ({"tasks": ["total_mr"]}, "no task 'total_mr' for CT"),
        ({"tasks": []}, "a list of"),
        ({"tasks": "total"}, "a list of"),
        ({"tasks": ["total", "total"]}, "each task once"),
        ({"mode": "quick"}, "default, fast, fastest"),
        ({"mode": "fats"}, "did you mean 'fast'"),
        ({"weights_dir": 3}, "the folder"),
        ({"time_limit_s": 0}, "more than 0"),
        ({"time_limit_s": True}, "more than 0"),
    ],
)
def test_a_setting_that_cannot_be_used(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        TotalSegmentator.from_settings(settings, Path())


def test_a_task_of_which_the_catalog_knows_no_class(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match="aorta_true_lumen") as caught:
        TotalSegmentator.from_settings({"tasks": ["aortic_dissection"]}, Path()).classes(catalog)
    assert caught.value.code == "unknown_class"


def test_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def gone(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(totalsegmentator_tasks, "version", gone)
    monkeypatch.setattr("paxray.segmentation.totalsegmentator.installed", lambda: False)
    segmenter = TotalSegmentator.from_settings({"tasks": ["total"]}, Path())
    with pytest.raises(ResourceError, match=r"paxray\[totalsegmentator\]") as caught:
        segmenter.preflight("cpu")
    assert caught.value.code == "package_missing"


_VOCABULARY_OF = {"total": "totalsegmentator_v2", "lung_vessels": "totalsegmentator_lung_vessels_4"} | {
    name: f"totalsegmentator_{name}"
    for name in ct_tasks()
    if f"totalsegmentator_{name}" in vocabulary_names()
}


def test_what_its_labels_mean_and_our_own_code_are_part_of_the_key(
    weights: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"mode": "fastest", "weights_dir": str(weights)}
    segmenter = TotalSegmentator.from_settings(settings, Path())
    meanings = segmenter.meanings(catalog)
    task = read_task("total", "fastest")
    assert meanings == {"total": {str(value): name for value, name in task.classes(catalog).items()}}
    before = segmenter.identity()
    monkeypatch.setattr("paxray.segmentation.totalsegmentator.VERSION", 0)
    assert segmenter.identity() != before


@pytest.mark.parametrize("task", _VOCABULARY_OF)
def test_names_mean_what_the_vocabularies_of_files_say(task: str, catalog: Catalog) -> None:
    """Masks that the package wrote earlier and masks that it makes now go by the same classes."""
    labels = load_vocabulary(_VOCABULARY_OF[task], catalog=catalog).labels
    assert read_task(task, "default").classes(catalog) == labels


def test_bodies_are_not_taken_for_whole_vertebrae(catalog: Catalog) -> None:
    """`vertebrae_pp` draws bodies under the names of vertebrae; the atlas has none."""
    classes = set(read_task("vertebrae_pp_refined", "default").classes(catalog).values())
    assert {"vertebral_body_C2", "vertebral_body_T12", "vertebral_body_L5"} <= classes
    assert len(classes) == 23
    assert not any(name.startswith("vertebrae_") for name in classes)
