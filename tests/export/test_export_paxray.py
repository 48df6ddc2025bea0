"""PAXRay's layout: what a user's loader of PAXRay reads, and that unknown is not empty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_fixture import ABSENT, CLASSES, UNKNOWN, make_dataset
from export_conformance import ExporterConformance, ReadBack
from PIL import Image

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.channels import Channels, load_channels
from paxray.dataset.reader import Dataset
from paxray.errors import ConfigError
from paxray.export.folder import ExportResult
from paxray.export.paxray import export_paxray

NAMES = tuple(name for name, _, _ in CLASSES)
ALL = Channels.of_classes(reversed(NAMES))


class TestPaxrayLayout(ExporterConformance):
    def export(
        self, dataset: Dataset, out: Path | None, on_sample: Callable[[str], None] | None = None
    ) -> Any:
        return export_paxray(dataset, ALL, out, on_sample=on_sample)

    def read(self, folder: Path) -> dict[str, ReadBack]:
        """As published loaders of PAXRay do: json, PIL to RGB, np.load."""
        content = json.loads((folder / "paxray.json").read_text(encoding="utf-8"))
        back = {}
        for split in ("train", "val", "test"):
            for entry in content[split]:
                rgb = np.asarray(Image.open(folder / entry["image"]).convert("RGB"))
                target = np.load(folder / entry["target"])
                assert target.dtype == np.bool_
                assert target.shape == (len(ALL), *rgb.shape[:2])
                masks = {content["label_dict"][str(n)]: mask for n, mask in enumerate(target) if mask.any()}
                back[entry["sample_id"]] = ReadBack(rgb[..., 0], masks)
        return back

    def test_channels_stand_in_order_and_splits_hold(self, dataset: Dataset, exported: ExportResult) -> None:
        content = json.loads((exported.folder / "paxray.json").read_text())
        assert list(content["label_dict"].items()) == [(str(n), w) for n, w in enumerate(ALL.names)]
        for split in ("train", "val", "test"):
            assert [e["sample_id"] for e in content[split]] == Dataset(dataset.root, split).ids

    def test_unknown_is_listed_and_absent_is_not(self, exported: ExportResult) -> None:
        content = json.loads((exported.folder / "paxray.json").read_text())
        for entry in content["train"] + content["val"] + content["test"]:
            assert entry["unknown"] == [ALL.names.index(UNKNOWN)]
            target = np.load(exported.folder / entry["target"])
            assert not target[ALL.names.index(ABSENT)].any()
            assert entry["partial"] == []

    def test_a_vocabularys_channels_the_data_set_lacks_are_unknown(
        self, dataset: Dataset, tmp_path: Path
    ) -> None:
        channels = load_channels("paxray_166", catalog=load_catalog())
        result = export_paxray(dataset, channels, tmp_path / "out")
        content = json.loads((result.folder / "paxray.json").read_text())
        made = {n for n, name in enumerate(channels.classes) if name in NAMES and name != UNKNOWN}
        assert {channels.classes[n] for n in made} == {
            "lungs", "lung_left", "lung_right", "heart", "rib_left_1"
        }  # fmt: skip
        for entry in content["train"]:
            assert set(entry["unknown"]) == set(range(166)) - made
        assert result.categories == 166

    def test_other_channels_do_not_replace_the_first(self, dataset: Dataset, tmp_path: Path) -> None:
        """As many of them, under the same name, in another order."""
        export_paxray(dataset, ALL, tmp_path / "out")
        before = (tmp_path / "out" / "paxray.json").read_bytes()
        with pytest.raises(ConfigError, match="another export lies there") as caught:
            export_paxray(dataset, Channels.of_classes(NAMES), tmp_path / "out")
        assert "vocabulary classes" in caught.value.found
        assert (tmp_path / "out" / "paxray.json").read_bytes() == before

    def test_channels_of_another_body_part_are_refused(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            export_paxray(dataset, Channels.of_classes(["femur_left"]), tmp_path / "out")
        assert caught.value.code == "no_channel"
        assert not (tmp_path / "out").exists()


def test_a_sample_stacks_its_masks(plain_dataset: Path, tmp_path: Path) -> None:
    sample = Dataset(plain_dataset)[0]
    masks, status = stack = sample.stack(ALL)
    assert masks.shape == (len(ALL), *sample.size)
    for number, name in enumerate(ALL.classes):
        if name == UNKNOWN:
            assert (status[number], stack.known[number], masks[number].any()) == ("unknown", False, False)
        else:
            assert stack.known[number]
            np.testing.assert_array_equal(masks[number], sample.masks[name])
    (tmp_path / "two.yaml").write_text("channels: [heart, heart, spleen]")
    twice = sample.stack(str(tmp_path / "two.yaml"))
    np.testing.assert_array_equal(twice.masks[0], twice.masks[1])
    assert twice.known.tolist() == [True, True, False]
    with pytest.raises(ConfigError, match="no vocabulary"):
        sample.stack("paxray_167")


def test_a_stack_knows_the_data_sets_own_classes(tmp_path: Path) -> None:
    """A class that only the data set has, beside one by its synonym; one that neither has is named."""
    own = tuple((name.replace("heart", "own_heart"), group, parts) for name, group, parts in CLASSES)
    sample = Dataset(make_dataset(tmp_path / "set", classes=own))[0]
    (tmp_path / "mine.yaml").write_text("channels: [own_heart, pulmones: lung_left]")
    masks, status = sample.stack(str(tmp_path / "mine.yaml"))
    assert status == ("present", "present")
    np.testing.assert_array_equal(masks, [sample.masks["own_heart"], sample.masks["lung_left"]])
    (tmp_path / "wrong.yaml").write_text("channels: [own_heart, own_hart]")
    with pytest.raises(ConfigError, match="did you mean 'own_heart'"):
        sample.stack(str(tmp_path / "wrong.yaml"))
