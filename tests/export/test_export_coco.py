from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_fixture import ABSENT, CLASSES, UNKNOWN, FakeCase, make_dataset
from export_conformance import ExporterConformance, ReadBack
from PIL import Image
from pycocotools.coco import COCO

from paxray.dataset.reader import Dataset
from paxray.errors import ConfigError, DamageError
from paxray.export.coco import NO_LICENSE, export_coco
from paxray.export.folder import ExportResult


def load_coco(path: Path) -> COCO:
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def contents(result: ExportResult) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail) for path in result.files]


class TestCoco(ExporterConformance):
    def export(
        self, dataset: Dataset, out: Path | None, on_sample: Callable[[str], None] | None = None
    ) -> Any:
        return export_coco(dataset, out, on_sample=on_sample)

    def read(self, folder: Path) -> dict[str, ReadBack]:
        """Access as torchvision's CocoDetection does: loadImgs, getAnnIds, loadAnns, PIL to RGB."""
        back = {}
        for path in sorted((folder / "annotations").glob("instances_*.json")):
            root = folder / "images" / path.stem.removeprefix("instances_")
            coco = load_coco(path)
            for number in sorted(coco.imgs):
                entry = coco.loadImgs(number)[0]
                rgb = np.asarray(Image.open(root / entry["file_name"]).convert("RGB"))
                assert (rgb == rgb[..., :1]).all()
                target = coco.loadAnns(coco.getAnnIds(number))
                masks = {coco.cats[a["category_id"]]["name"]: coco.annToMask(a).astype(bool) for a in target}
                assert len(masks) == len(target)
                back[entry["sample_id"]] = ReadBack(rgb[..., 0], masks)
        return back

    def test_ids(self, dataset: Dataset, exported: ExportResult) -> None:
        files = contents(exported)
        image_ids = [image["id"] for content in files for image in content["images"]]
        annotation_ids = [a["id"] for content in files for a in content["annotations"]]
        assert image_ids == list(range(1, exported.images + 1))
        assert annotation_ids == list(range(1, exported.annotations + 1))
        for content in files:
            assert {a["image_id"] for a in content["annotations"]} <= {i["id"] for i in content["images"]}
            assert content["categories"] == dataset.categories
        assert exported.categories == len(CLASSES)
        assert [path.name for path in exported.files] == [
            f"instances_{split}.json" for split in ("train", "val", "test")
        ]

    def test_annotations_agree_with_their_masks(self, exported: ExportResult) -> None:
        for path in exported.files:
            coco = load_coco(path)
            for annotation in coco.anns.values():
                mask = coco.annToMask(annotation)
                v, u = np.nonzero(mask)
                assert annotation["area"] == mask.sum()
                assert annotation["bbox"] == [u.min(), v.min(), np.ptp(u) + 1, np.ptp(v) + 1]
                assert annotation["iscrowd"] == 0
                assert isinstance(annotation["segmentation"]["counts"], str)
                image = coco.imgs[annotation["image_id"]]
                assert annotation["segmentation"]["size"] == [image["height"], image["width"]]

    def test_nan_becomes_null(self, exported: ExportResult) -> None:
        annotations = [a for content in contents(exported) for a in content["annotations"]]
        assert {a["entry_mean_mm"] for a in annotations} == {None}
        assert {a["exit_mean_mm"] for a in annotations} == {1700.0}

    def test_missing_annotations_are_explained(self, exported: ExportResult) -> None:
        ids = {name: number for number, (name, _, _) in enumerate(CLASSES, start=1)}
        for content in contents(exported):
            for image in content["images"]:
                seen = {a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]}
                assert image["unknown_category_ids"] == [ids[UNKNOWN]]
                assert ids[ABSENT] in image["neg_category_ids"]
                assert seen | {*image["neg_category_ids"], ids[UNKNOWN]} == set(ids.values())
                assert seen.isdisjoint(image["neg_category_ids"])

    def test_licences(self, dataset: Dataset, exported: ExportResult) -> None:
        told = {}
        for content in contents(exported):
            names = {entry["id"]: entry["name"] for entry in content["licenses"]}
            assert sorted(names) == list(range(1, len(names) + 1))
            told |= {image["sample_id"]: names[image["license"]] for image in content["images"]}
        assert told == {sample.id: sample.row["license"] or NO_LICENSE for sample in dataset}

    def test_null_licence(self, tmp_path: Path) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set", [FakeCase("a", license=None)]))
        (content,) = contents(export_coco(dataset))
        assert content["licenses"] == [{"id": 1, "name": NO_LICENSE, "url": ""}]

    def test_geometry(self, dataset: Dataset, exported: ExportResult) -> None:
        point = np.array([12.0, -30.0, 45.0])
        for content in contents(exported):
            for image in content["images"]:
                view, geometry = dataset[image["sample_id"]].view, image["geometry"]
                homogeneous = np.array(geometry["matrix"]) @ [*point, 1]
                np.testing.assert_allclose(homogeneous[:2] / homogeneous[2], view.project_points(point))
                camera = np.array(geometry["K"]) @ (np.array(geometry["R"]) @ point + geometry["t"])
                np.testing.assert_allclose(camera, homogeneous)

    def test_incomplete(self, dataset: Dataset, exported: ExportResult) -> None:
        from pycocotools import mask as rle

        for content in contents(exported):
            for image in content["images"]:
                np.testing.assert_array_equal(
                    rle.decode(image["incomplete"]), dataset[image["sample_id"]].incomplete
                )

    @pytest.mark.parametrize("kind", ["bbox", "segm"])
    def test_ground_truth_scores_one_in_pycocotools(self, exported: ExportResult, kind: str) -> None:
        from pycocotools.cocoeval import COCOeval

        for path in exported.files[:2]:
            truth = load_coco(path)
            with redirect_stdout(io.StringIO()):
                score = COCOeval(truth, truth.loadRes(self._as_predictions(path)), kind)
                score.evaluate()
                score.accumulate()
                score.summarize()
            assert score.stats[0] == pytest.approx(1.0)

    @pytest.mark.parametrize("kind", ["bbox", "segm"])
    def test_ground_truth_scores_one_in_faster_coco_eval(self, exported: ExportResult, kind: str) -> None:
        faster = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is in the test extra")
        for path in exported.files[:2]:
            with redirect_stdout(io.StringIO()):
                truth = faster.COCO(str(path))
                score = faster.COCOeval_faster(truth, truth.loadRes(self._as_predictions(path)), kind)
                score.evaluate()
                score.accumulate()
                score.summarize()
            assert score.stats[0] == pytest.approx(1.0)

    @staticmethod
    def _as_predictions(path: Path) -> list[dict[str, Any]]:
        keys = ("image_id", "category_id", "segmentation", "bbox")
        found = json.loads(path.read_text(encoding="utf-8"))["annotations"]
        return [{key: a[key] for key in keys} | {"score": 0.9} for a in found]

    def test_torchvision(self, dataset: Dataset, exported: ExportResult) -> None:
        datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
        with redirect_stdout(io.StringIO()):
            train = datasets.CocoDetection(str(exported.folder / "images" / "train"), str(exported.files[0]))
        assert len(train) == len(Dataset(dataset.root, "train"))
        picture, target = train[0]
        np.testing.assert_array_equal(
            np.asarray(picture)[..., 1], next(iter(Dataset(dataset.root, "train"))).image
        )
        assert target[0]["iscrowd"] == 0

    def test_stored_bytes(self, dataset: Dataset, exported: ExportResult) -> None:
        for sample in dataset:
            path = exported.folder / "images" / sample.split / f"{sample.case_id}_{sample.row['view']}.png"
            assert path.read_bytes() == sample.images["image"]

    def test_sixteen_bits(self, dataset: Dataset, tmp_path: Path) -> None:
        result = export_coco(dataset, tmp_path / "out", bits=16)
        for content in contents(result):
            for image in content["images"]:
                sample = dataset[image["sample_id"]]
                pixels = np.asarray(Image.open(result.folder / "images" / sample.split / image["file_name"]))
                assert pixels.dtype == np.uint16
                signal = image["signal_offset"] + image["signal_scale"] * pixels.astype(np.float64)
                np.testing.assert_array_equal(signal.astype(np.float32), sample.signal)
                assert image["bits"] == 16

    def test_the_display_does_not_replace_the_signal(self, dataset: Dataset, tmp_path: Path) -> None:
        export_coco(dataset, tmp_path / "out", bits=16)
        with pytest.raises(ConfigError, match="bits 16"):
            export_coco(dataset, tmp_path / "out", bits=8)

    def test_other_bits(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="12 bits"):
            export_coco(dataset, tmp_path / "out", bits=12)  # type: ignore[arg-type]

    def test_text_of_the_case_table_survives(self, tmp_path: Path) -> None:
        hostile = FakeCase("a", license='CC "BY"\n\\ <b> ü \u2028 </script>', source='x": [], "y')
        dataset = Dataset(make_dataset(tmp_path / "set", [hostile], name='n"ame', description="{x} ü"))
        (content,) = contents(export_coco(dataset))
        assert content["licenses"][0]["name"] == hostile.license
        assert content["images"][0]["source"] == hostile.source
        assert content["info"]["name"] == 'n"ame'

    def test_two_samples_of_one_name(self, tmp_path: Path) -> None:
        cases = [FakeCase("a", views=("b_pa",)), FakeCase("a_b", views=("pa",))]
        dataset = Dataset(make_dataset(tmp_path / "set", cases))
        with pytest.raises(DamageError) as caught:
            export_coco(dataset, tmp_path / "out")
        assert caught.value.code == "same_name"

    def test_only_splits_with_samples_get_a_file(self, tmp_path: Path) -> None:
        cases = [FakeCase("a", "test"), FakeCase("bad", "train", message="no")]
        result = export_coco(Dataset(make_dataset(tmp_path / "set", cases)))
        assert [path.name for path in result.files] == ["instances_test.json"]
        assert [path.name for path in (result.folder / "images").iterdir()] == ["test"]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pytest keeps each that pycocotools raises
    def test_memory_does_not_grow_with_the_data_set(self, tmp_path: Path) -> None:
        def measure(cases: int) -> tuple[int, int]:
            some = [FakeCase(f"c{n:03d}", views=("pa",)) for n in range(cases)]
            dataset = Dataset(make_dataset(tmp_path / f"set{cases}", some, size=(96, 96), shard_cases=4))
            export_coco(dataset, tmp_path / f"out{cases}")  # imports and caches of the libraries
            tracemalloc.start()
            (written,) = export_coco(dataset, tmp_path / f"out{cases}").files
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return peak, written.stat().st_size

        (small_peak, small_written), (large_peak, large_written) = measure(32), measure(128)
        # The reader's index of sample ids grows, by some 200 bytes each, and copying has its buffer;
        # what is written (4.7 kB a sample) is not held.
        assert large_peak - small_peak < 0.25 * (large_written - small_written)
