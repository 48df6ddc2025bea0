"""3D Slicer's .seg.nrrd: layers, names, terminology, and what a cropped file says of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segment_files import oblique, plain_affine, write_seg_nrrd

from paxray import api
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError
from paxray.io.volume import Volume

SHAPE = (5, 7, 6)
SLICER = (
    "Segmentation.Status:inprogress|TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^39607008^Lung~SCT^{side}^Side~Anatomic codes - DICOM master list~^^~^^|"
)
REGION = (
    "TerminologyEntry:list~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Anatomic codes~SCT^39607008^Lung"
    "~SCT^7771000^Left|"
)


def segment(name: str, value: int = 1, layer: int = 0, **fields: str) -> dict[str, str]:
    return {"ID": f"S_{name}", "Name": name, "LabelValue": str(value), "Layer": str(layer), **fields}


def read(path: Path, affine: np.ndarray | None = None, vocabulary: str = "") -> LabelVolume:
    ct = Volume(np.zeros(SHAPE, np.int16), plain_affine() if affine is None else affine)
    return api.read_masks(f"{path}={vocabulary}" if vocabulary else path, ct)


def refused(path: Path, vocabulary: str = "") -> CaseError:
    with pytest.raises(CaseError) as caught:
        read(path, None, vocabulary)
    return caught.value


def layers(n: int, highest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, (n, *SHAPE)).astype(np.uint8)


@pytest.mark.parametrize("affine", [plain_affine(), oblique()])
def test_segments_of_several_layers_overlap(tmp_path, affine):
    voxels = layers(2, 2)
    segments = [
        segment("heart", 1, 0),
        segment("Right Lung", 2, 0),
        segment("liver", 2, 1),
        segment("aorta", 1, 1),
    ]
    labels = read(write_seg_nrrd(tmp_path / "s.seg.nrrd", voxels, affine, segments), affine)
    truth = {
        "heart": voxels[0] == 1,
        "lung_right": voxels[0] == 2,
        "liver": voxels[1] == 2,
        "aorta": voxels[1] == 1,
    }
    assert set(labels.names) == set(truth)
    assert (truth["heart"] & truth["liver"]).any()
    for name, mask in truth.items():
        np.testing.assert_array_equal(labels.mask(name), mask)
        assert labels.status[name] is Status.PRESENT


def test_one_layer_has_no_axis_of_its_own_and_rows_may_be_reversed(tmp_path):
    voxels = layers(1, 3)
    reversed_rows = plain_affine()
    reversed_rows[:3, 1] *= -1
    reversed_rows[:3, 3] = (plain_affine() @ [0, SHAPE[1] - 1, 0, 1])[:3]
    segments = [segment("heart", 1), segment("liver", 3), segment("spleen", 2)]
    labels = read(write_seg_nrrd(tmp_path / "s.seg.nrrd", voxels[:, :, ::-1], reversed_rows, segments))
    np.testing.assert_array_equal(labels.mask("liver"), voxels[0] == 3)


def test_files_from_before_layers_have_a_volume_of_ones_per_segment(tmp_path):
    voxels = layers(2, 1)
    path = write_seg_nrrd(
        tmp_path / "s.seg.nrrd", voxels, plain_affine(), [{"Name": "heart"}, {"Name": "liver"}]
    )
    labels = read(path)
    np.testing.assert_array_equal(labels.mask("heart"), voxels[0] == 1)
    np.testing.assert_array_equal(labels.mask("liver"), voxels[1] == 1)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (SLICER.format(side="7771000"), "lung_left"),
        (SLICER.format(side="24028007"), "lung_right"),
        (REGION, "lung_left"),
    ],
)
def test_terminology_names_what_the_name_does_not(tmp_path, tags, name):
    path = write_seg_nrrd(
        tmp_path / "s.seg.nrrd", layers(1, 1), plain_affine(), [segment("Segment_1", Tags=tags)]
    )
    assert read(path).names == (name,)


def test_all_segments_that_mean_nothing_are_listed(tmp_path):
    segments = [segment("heart", 1), segment("Segment_2", 2), segment("tumour?", 3)]
    error = refused(write_seg_nrrd(tmp_path / "s.seg.nrrd", layers(1, 3), plain_affine(), segments))
    assert error.code == "unknown_class"
    assert "'Segment_2', 'tumour?'" in error.found
    assert "heart" not in error.found
    assert "names" in error.do


class TestPartOfTheImage:
    def path(self, tmp_path: Path, drawn_on=None) -> tuple[Path, np.ndarray]:
        voxels = layers(2, 1)[:, :3, 2:6, 1:5]
        affine = plain_affine()
        affine[:3, 3] = (affine @ [1, 2, 0, 1])[:3]
        segments = [segment("heart", 1, 0), segment("liver", 1, 1), segment("spleen", 2, 1)]
        return write_seg_nrrd(
            tmp_path / "s.seg.nrrd",
            voxels,
            affine,
            segments,
            drawn_on=drawn_on,
            ReferenceImageExtentOffset="1 2 0",
        ), voxels

    def test_what_slicer_cropped_was_empty(self, tmp_path):
        path, voxels = self.path(tmp_path, (plain_affine(), SHAPE))
        labels = read(path)
        np.testing.assert_array_equal(labels.mask("heart")[:3, 2:6, 1:5], voxels[0] == 1)
        assert labels.mask("heart").sum() == voxels[0].sum()
        assert set(labels.status.values()) == {Status.PRESENT, Status.ABSENT}

    def test_without_a_word_on_the_image_the_rest_is_unknown(self, tmp_path):
        labels = read(self.path(tmp_path)[0])
        assert labels.status == {
            "heart": Status.PARTIAL,
            "liver": Status.PARTIAL,
            "spleen": Status.UNKNOWN,
        }

    def test_an_image_smaller_than_the_ct_leaves_the_rest_unknown(self, tmp_path):
        labels = read(self.path(tmp_path, (plain_affine(), (3, *SHAPE[1:])))[0])
        assert labels.status["heart"] is Status.PARTIAL


def test_a_single_voxel_stands_for_none(tmp_path):
    path = write_seg_nrrd(
        tmp_path / "s.seg.nrrd", np.zeros((1, 1, 1, 1), np.uint8), np.eye(4), [segment("heart")]
    )
    assert read(path).status == {"heart": Status.ABSENT}


@pytest.mark.parametrize("value", [1, 3])
def test_a_single_voxel_of_a_segment_is_read(tmp_path, value):
    segments = [segment("heart", 1), segment("liver", 3)]
    path = write_seg_nrrd(
        tmp_path / "s.seg.nrrd",
        np.full((1, 1, 1, 1), value, np.uint8),
        plain_affine(),
        segments,
        drawn_on=(plain_affine(), SHAPE),
    )
    labels = read(path)
    drawn, empty = ("heart", "liver") if value == 1 else ("liver", "heart")
    assert labels.status == {drawn: Status.PRESENT, empty: Status.ABSENT}
    assert np.argwhere(labels.mask(drawn)).tolist() == [[0, 0, 0]]


def test_off_the_lattice(tmp_path):
    moved = plain_affine()
    moved[0, 3] += 0.2
    assert (
        refused(write_seg_nrrd(tmp_path / "s.seg.nrrd", layers(1, 1), moved, [segment("heart")])).code
        == "mask_mismatch"
    )


@pytest.mark.parametrize(
    ("segments", "code"),
    [
        ([segment("heart", 1)], "bad_labels"),  # value 2 is nobody's
        ([segment("heart", 1), segment("liver", 2, 1)], "unreadable"),  # a second layer that is not there
        ([segment("heart", 1), segment("liver", 1)], "unreadable"),
        ([segment("heart", 1), {"Name": "liver", "LabelValue": "two", "Layer": "0"}], "unreadable"),
        ([segment("heart", 1), segment("Herz", 2)], "unknown_class"),
        ([segment("esophagus", 1), segment("oesophagus", 2)], "bad_labels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, segments, code):
    assert (
        refused(write_seg_nrrd(tmp_path / "s.seg.nrrd", layers(1, 2), plain_affine(), segments)).code == code
    )


def test_shares_of_voxels_are_refused(tmp_path):
    path = write_seg_nrrd(
        tmp_path / "s.seg.nrrd",
        layers(1, 1),
        plain_affine(),
        [segment("heart")],
        SourceRepresentation="Fractional labelmap",
    )
    assert refused(path).code == "fractional"


def test_one_layer_is_a_label_map_for_a_vocabulary_of_values(tmp_path):
    voxels = layers(1, 2)
    (tmp_path / "values.yaml").write_text("labels: {1: liver, 2: spleen}")
    path = write_seg_nrrd(tmp_path / "s.seg.nrrd", voxels, plain_affine(), [segment("a", 1), segment("b", 2)])
    labels = read(path, vocabulary=str(tmp_path / "values.yaml"))
    np.testing.assert_array_equal(labels.mask("spleen"), voxels[0] == 2)


@pytest.mark.parametrize("keep", [0, 4, 200, -10])
def test_truncated(tmp_path, keep):
    path = write_seg_nrrd(
        tmp_path / "s.seg.nrrd", layers(2, 1), plain_affine(), [segment("heart"), segment("liver", 1, 1)]
    )
    path.write_bytes(path.read_bytes()[:keep])
    assert refused(path).code in ("unreadable", "no_orientation")
