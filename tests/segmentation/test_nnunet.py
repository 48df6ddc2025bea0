"""Any nnU-Net v2 model as a segmenter, through nnU-Net's own predictor, on a model whose masks are known exactly."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nnunet_model import expected, write_threshold_model

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, PaxrayError, ResourceError
from paxray.io.volume import Volume
from paxray.segmentation.cache import fingerprint
from paxray.segmentation.checked import run_segmenter
from paxray.segmentation.conformance import SegmenterConformance, stored_otherwise
from paxray.segmentation.contract import Request
from paxray.segmentation.nnunet import NnUnet
from paxray.segmentation.nnunet_folder import Model
from paxray.segmentation.nnunet_predict import predict
from paxray.segmentation.straight import turned

SPACING_MM = (3.0, 4.0, 5.0)
SETTINGS: dict[str, Any] = {"model": "model", "orientation": "LPS"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the model."""
    base = tmp_path_factory.mktemp("nnunet")
    write_threshold_model(base / "model", SPACING_MM)
    return base


@pytest.fixture(scope="module")
def chest() -> Volume:
    """Three blocks in air, none of them symmetric in any axis; on axes that grow to the left, back and head."""
    array = np.full((18, 22, 26), -1000, np.int16)
    array[3:9, 4:16, 5:11] = 300
    array[5:15, 6:18, 14:20] = 900
    array[12:14, 3:6, 4:10] = -500  # as much background as air is
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = (-31.0, 12.5, 400.0)
    return Volume(array, affine)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


class TestConformance(SegmenterConformance):
    name = "nnunet"
    known_setting = "mirroring"
    least_agreement = 1.0
    orientations = ("sagittal planes",)

    @pytest.fixture(scope="class")
    @classmethod
    def base(cls, folder: Path) -> Path:
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def settings(cls) -> Mapping[str, Any]:
        return SETTINGS

    @pytest.fixture(scope="class")
    @classmethod
    def ct(cls, chest: Volume) -> Volume:
        return chest

    def test_masks_are_exactly_the_models(self, found: LabelVolume, ct: Volume) -> None:
        """The network moves its masks by a voxel to the right and one to the head, in the patient's own axes."""
        truth = expected(ct.array)
        for value, name in ((1, "liver"), (2, "aorta")):
            np.testing.assert_array_equal(found.mask(name), truth == value)
        assert set(found.names) == {"liver", "aorta"}


class TestRegions:
    """A model of regions, which overlap; its reader turns every image, so no orientation need be said."""

    @pytest.fixture(scope="class")
    @classmethod
    def segmenter(cls, tmp_path_factory: pytest.TempPathFactory) -> NnUnet:
        folder = tmp_path_factory.mktemp("regions") / "model"
        labels = {"background": 0, "liver": [1, 2], "vessel": [2]}
        write_threshold_model(
            folder, SPACING_MM, labels=labels, regions_class_order=(1, 2), reader="NibabelIOWithReorient"
        )
        settings = {"model": "model", "vocabulary": {"vessel": "aorta"}}
        return NnUnet.from_settings(settings, folder.parent)

    def test_a_region_contains_what_lies_in_it(
        self, segmenter: NnUnet, chest: Volume, catalog: Catalog
    ) -> None:
        found = run_segmenter(segmenter, stored_otherwise(chest, "RAS, as most NIfTI files"), catalog)
        # The reader gives the network axes that grow to the right, front and head: its masks move the other way.
        truth = expected(chest.array[:, ::-1, ::-1])
        np.testing.assert_array_equal(found.mask("liver"), truth >= 1)
        np.testing.assert_array_equal(found.mask("aorta"), truth == 2)

    def test_values_are_named_too(self, segmenter: NnUnet, catalog: Catalog) -> None:
        by_value = NnUnet(segmenter.model, vocabulary="totalsegmentator_v2")
        with pytest.raises(ConfigError, match="3-117 besides"):
            by_value.classes(catalog)


class TestLattice:
    """The network sees straight axes of the CT's spacing, and its masks land on the CT's own."""

    @pytest.mark.parametrize("letters", ["LPS", "RAS", "PIR", "SLA"])
    def test_turned_keeps_every_voxel_in_its_place(self, letters: str) -> None:
        rng = np.random.default_rng(3)
        volume = Volume(rng.integers(0, 999, (3, 4, 5)), np.diag([-2.0, 3.0, -1.0, 1.0]))
        out = turned(volume, letters)
        assert out.grid.orientation == letters
        for index in np.ndindex(out.shape):
            there = volume.grid.to_index(out.grid.to_world(index[::-1]))
            assert out.array[index] == volume.array[tuple(np.rint(there[::-1]).astype(int))]

    def test_an_oblique_sheared_ct(
        self, folder: Path, chest: Volume, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tilted gantry's lattice, stored feet first: what is drawn on the image comes back on its voxels."""
        affine = chest.affine.copy()
        turn = np.array([[0.9, -0.3, 0.1], [0.3, 0.9, 0.2], [-0.1, 0.1, 1.0]])
        affine[:3, :3] = turn @ affine[:3, :3]
        tilted = stored_otherwise(Volume(chest.array, affine), "feet first")

        def threshold(self: NnUnet, request: Request, model: Model, image: Path, labels: Path) -> None:
            given = sitk.ReadImage(str(image))
            assert np.allclose(given.GetDirection(), np.eye(3).ravel())
            np.testing.assert_allclose(given.GetSpacing(), chest.spacing_mm, rtol=0.1)
            sitk.WriteImage(
                sitk.Cast(given > 500, sitk.sitkUInt8) + sitk.Cast(given > 150, sitk.sitkUInt8), str(labels)
            )

        monkeypatch.setattr(NnUnet, "_predict", threshold)
        found = run_segmenter(NnUnet.from_settings(SETTINGS, folder), tilted, catalog)
        np.testing.assert_array_equal(found.mask("aorta"), tilted.array == 900)
        np.testing.assert_array_equal(found.mask("liver"), tilted.array == 300)

        one = NnUnet.from_settings({**SETTINGS, "vocabulary": {"liver": None}}, folder)
        found = run_segmenter(one, tilted, catalog)
        assert found.names == ("aorta",)
        np.testing.assert_array_equal(found.mask("aorta"), tilted.array == 900)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({}, "'model'"),
            ({"model": 3}, "'model'"),
            ({"model": "m", "orientation": "LPP"}, "'orientation'"),
            ({"model": "m", "orientation": "lps"}, "'orientation'"),
            ({"model": "m", "folds": [-1]}, "'folds'"),
            ({"model": "m", "folds": "0"}, "'folds'"),
            ({"model": "m", "checkpoint": "../other.pth"}, "'checkpoint'"),
            ({"model": "m", "tile_step": 0}, "'tile_step'"),
            ({"model": "m", "tile_step": 1.5}, "'tile_step'"),
            ({"model": "m", "mirroring": 1}, "'mirroring'"),
            ({"model": "m", "time_limit_s": True}, "'time_limit_s'"),
            ({"model": "m", "vocabulary": {"liver": 3}}, "'vocabulary'"),
            ({"model": "m", "vocabulary": ["liver"]}, "'vocabulary'"),
        ],
    )
    def test_a_setting_that_cannot_be_used(self, settings: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            NnUnet.from_settings(settings, Path())

    def test_missing_weights_say_where_and_how(self, folder: Path, tmp_path: Path) -> None:
        for settings, found in (
            ({"model": str(tmp_path / "nowhere")}, "no such folder"),
            ({"model": str(tmp_path)}, "no checkpoint"),
            ({"model": "model", "checkpoint": "checkpoint_best.pth"}, "fold_0/checkpoint_final.pth"),
            ({"model": "model", "folds": [0, 1]}, "fold_0/checkpoint_final.pth"),
            ({"model": "model", "folds": "all"}, "fold_0/checkpoint_final.pth"),
        ):
            segmenter = NnUnet.from_settings({**SETTINGS, **settings}, folder)
            for call in (lambda: segmenter.preflight("cpu"), segmenter.identity):  # noqa: B023
                with pytest.raises(ResourceError) as caught:
                    call()
                error = caught.value
                assert (error.code, error.found) == ("weights_missing", found)
                assert str(segmenter.model) in error.expected
                assert "nnUNetv2_install_pretrained_model_from_zip" in error.do

    def test_a_missing_package(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr("paxray.segmentation.nnunet.version", version)
        with pytest.raises(ResourceError, match=r"paxray\[nnunet\]") as caught:
            NnUnet.from_settings(SETTINGS, folder).preflight("cpu")
        assert caught.value.code == "package_missing"

    def test_an_orientation_is_not_guessed(self, folder: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            NnUnet.from_settings({"model": "model"}, folder).preflight("cpu")
        assert caught.value.code == "unknown_orientation"

    @pytest.mark.parametrize(
        ("file", "keys", "value", "words"),
        [
            ("dataset.json", ("channel_names",), {"0": "CT", "1": "PET"}, "other images than one CT"),
            ("dataset.json", ("labels",), {"background": 0}, "no label but the background"),
            ("dataset.json", ("labels",), ["liver"], "what the labels are"),
            ("plans.json", ("image_reader_writer",), "Tiff3DIO", "does not read NIfTI"),
            ("plans.json", ("configurations",), {"model": {"previous_stage": "3d_lowres"}}, "cascade"),
        ],
    )
    def test_a_model_that_is_no_ct_segmenter(
        self, folder: Path, tmp_path: Path, file: str, keys: tuple[str, ...], value: Any, words: str
    ) -> None:
        shutil.copytree(folder / "model", tmp_path / "model")
        content = json.loads((tmp_path / "model" / file).read_text())
        content[keys[0]] = value
        (tmp_path / "model" / file).write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=words) as caught:
            NnUnet.from_settings(SETTINGS, tmp_path).preflight("cpu")
        assert caught.value.code == "unfit_model"


class TestVocabulary:
    def test_names_that_do_not_resolve_are_listed_together(self, tmp_path: Path, catalog: Catalog) -> None:
        labels = {"background": 0, "lver": 1, "aorta": 2, "thing": 3, "ignore": 4}
        write_threshold_model(tmp_path / "model", SPACING_MM, labels=labels)
        segmenter = NnUnet.from_settings(SETTINGS, tmp_path)
        with pytest.raises(ConfigError) as caught:
            segmenter.classes(catalog)
        assert caught.value.code == "bad_vocabulary"
        assert "lver (did you mean 'liver'?)" in caught.value.found
        assert "thing" in caught.value.found
        assert "aorta" not in caught.value.found

        named = {**SETTINGS, "vocabulary": {"lver": "liver", "thing": None}}
        assert set(NnUnet.from_settings(named, tmp_path).classes(catalog)) == {"liver", "aorta"}
        with pytest.raises(ConfigError, match="no label of this name") as caught:
            NnUnet.from_settings({**SETTINGS, "vocabulary": {"livr": "liver"}}, tmp_path).classes(catalog)
        assert caught.value.found == "livr"

    def test_a_file_names_the_values_and_must_name_them_all(self, folder: Path, catalog: Catalog) -> None:
        path = folder / "mine.yaml"
        path.write_text("labels: {1: spleen, 2: stomach}\n")
        segmenter = NnUnet.from_settings({**SETTINGS, "vocabulary": "mine.yaml"}, folder)
        assert set(segmenter.classes(catalog)) == {"spleen", "stomach"}
        before = segmenter.identity()
        path.write_text("labels: {1: spleen, 2: liver}\n")
        assert segmenter.identity() != before  # the content counts, not the name
        path.write_text("labels: {1: spleen}\n")
        with pytest.raises(ConfigError, match="without 2"):
            segmenter.classes(catalog)

    def test_identity_follows_the_weights(self, folder: Path, tmp_path: Path) -> None:
        here = NnUnet.from_settings(SETTINGS, folder).identity()
        copy = shutil.copytree(folder / "model", tmp_path / "model")
        there = NnUnet.from_settings(SETTINGS, tmp_path)
        assert there.identity() == here
        with (copy / "fold_0" / "checkpoint_final.pth").open("ab") as file:
            file.write(b"x")
        assert there.identity() != here

    def test_which_label_is_which_class_is_part_of_the_key(self, folder: Path, tmp_path: Path) -> None:
        """Two catalogs of the same classes, whose synonyms exchange left and right, share no kept masks."""
        model = shutil.copytree(folder / "model", tmp_path / "model")
        dataset = json.loads((model / "dataset.json").read_text())
        dataset["labels"] = {"background": 0, "LungL": 1, "LungR": 2}
        (model / "dataset.json").write_text(json.dumps(dataset))
        segmenter = NnUnet.from_settings(SETTINGS, tmp_path)
        keys = []
        for left, right in (("LungL", "LungR"), ("LungR", "LungL")):
            file = tmp_path / "catalog.yaml"
            file.write_text(
                f"classes:\n  my_left: {{group: lungs, synonyms: [{left}]}}\n"
                f"  my_right: {{group: lungs, synonyms: [{right}]}}\n"
            )
            catalog = load_catalog(file)
            assert segmenter.meanings(catalog)["my_left"] == [1 if left == "LungL" else 2]
            keys.append(fingerprint(segmenter, catalog, "cpu"))
        assert keys[0] != keys[1]

    def test_our_own_code_is_part_of_the_key(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        segmenter = NnUnet.from_settings(SETTINGS, folder)
        before = segmenter.identity()
        monkeypatch.setattr("paxray.segmentation.nnunet.VERSION", 0)
        assert segmenter.identity() != before


class TestChildProcess:
    """What goes wrong while nnU-Net runs has a code each."""

    def code_of(self, segmenter: NnUnet, chest: Volume, catalog: Catalog, **how: Any) -> PaxrayError:
        with pytest.raises(CaseError) as caught:
            run_segmenter(segmenter, chest, catalog, where="the chest", **how)
        assert caught.value.where == "the chest"
        return caught.value

    def test_time_out(self, folder: Path, chest: Volume, catalog: Catalog) -> None:
        segmenter = NnUnet.from_settings({**SETTINGS, "time_limit_s": 0.2}, folder)
        assert self.code_of(segmenter, chest, catalog).code == "segmenter_timeout"

    def test_killed(
        self, folder: Path, chest: Volume, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("paxray.segmentation.nnunet.predict", die)
        error = self.code_of(NnUnet.from_settings(SETTINGS, folder), chest, catalog)
        assert error.code == "segmenter_crashed"
        assert "SIGKILL" in error.what

    def test_told_cuda_it_does_not_compute_elsewhere(
        self, folder: Path, chest: Volume, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Masks are no result where another device made them, right as they may be."""
        monkeypatch.setattr("paxray.segmentation.nnunet.predict", predict_on_the_cpu)
        segmenter = NnUnet.from_settings(SETTINGS, folder)
        error = self.code_of(segmenter, chest, catalog, device="cuda")
        assert error.code == "segmenter_fell_back"
        assert (error.expected, error.found) == ("cuda", "cpu")


def predict_on_the_cpu(**arguments: Any) -> None:
    """In the child process: nnU-Net's own prediction, which goes to the CPU whatever it was told."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    inside = nnUNetPredictor.predict_single_npy_array

    def fall_back(self: Any, *of: Any, **how: Any) -> Any:
        self.device, self.perform_everything_on_device = torch.device("cpu"), False
        return inside(self, *of, **how)

    nnUNetPredictor.predict_single_npy_array = fall_back
    predict(**arguments)


def die(**_: object) -> None:
    """Stands in for nnU-Net in the child process, as the system ends what takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
