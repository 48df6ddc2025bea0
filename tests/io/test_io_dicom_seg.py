"""DICOM SEG: binary, fractional, label map; sparse and overlapping frames; whose series; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from segment_files import (
    SIDES,
    oblique,
    plain_affine,
    segment_item,
    write_ct_series,
    write_seg,
)

from paxray import api
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError, ResourceError
from paxray.io.ct import read_ct
from paxray.io.volume import Volume

SHAPE = (5, 7, 6)  # 42 pixels a frame: binary frames do not end on bytes
LUNG = ("SCT", "39607008")
HEART, LIVER = ("SCT", "80891009"), ("SCT", "10200004")


def masks(seed: int = 0, n: int = 2, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Overlapping masks with empty slices, (n, k, j, i)."""
    out = np.random.default_rng(seed).random((n, *shape)) < 0.3
    out[0, 0] = out[1, 2:4] = False
    return out


def frames_of(arrays: np.ndarray, seed: int = 0) -> list[tuple[int, int, np.ndarray]]:
    """The frames that are not empty, in a random order."""
    found = [(n + 1, k, plane) for n, of in enumerate(arrays) for k, plane in enumerate(of) if plane.any()]
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[at] for at in order]


def read(path: Path, ct: Volume | None = None, vocabulary: str = "") -> LabelVolume:
    ct = ct or Volume(np.zeros(SHAPE, np.int16), plain_affine())
    return api.read_masks(f"{path}={vocabulary}" if vocabulary else path, ct)


def refused(path: Path, ct: Volume | None = None, vocabulary: str = "") -> CaseError:
    with pytest.raises(CaseError) as caught:
        read(path, ct, vocabulary)
    assert "MRN-12345" not in str(caught.value)
    assert "Doe" not in str(caught.value)
    return caught.value


TWO = [segment_item(1, "heart"), segment_item(2, "liver")]


@pytest.mark.parametrize("affine", [plain_affine(), oblique()])
def test_overlapping_sparse_frames_in_any_order(tmp_path, affine):
    truth = masks()
    write_ct_series(tmp_path / "ct", SHAPE, affine)
    labels = read(write_seg(tmp_path / "seg.dcm", frames_of(truth), TWO, affine), read_ct(tmp_path / "ct"))
    assert (truth[0] & truth[1]).any()
    for name, mask in zip(("heart", "liver"), truth, strict=True):
        np.testing.assert_array_equal(labels.mask(name), mask)
        assert labels.status[name] is Status.PRESENT


def test_a_segment_without_frames_is_absent_and_one_on_a_single_slice_is_whole(tmp_path):
    plane = masks()[0, 1]
    items = [*TWO, segment_item(3, "spleen")]
    path = write_seg(tmp_path / "seg.dcm", [(1, 1, plane), (2, 3, plane)], items, plain_affine())
    labels = read(path)
    assert labels.status == {
        "heart": Status.PRESENT,
        "liver": Status.PRESENT,
        "spleen": Status.ABSENT,
    }
    assert labels.mask("liver")[3].sum() == plane.sum() == labels.mask("liver").sum()


def test_frames_that_run_otherwise_than_the_ct_are_turned(tmp_path):
    """Columns to the right, rows upwards, slices down: the same voxels, written by somebody else."""
    truth = masks(3)
    turned = plain_affine()
    turned[:3, :3] *= -1
    turned[:3, 3] = (plain_affine() @ [SHAPE[2] - 1, SHAPE[1] - 1, SHAPE[0] - 1, 1])[:3]
    path = write_seg(tmp_path / "seg.dcm", frames_of(truth[:, ::-1, ::-1, ::-1]), TWO, turned)
    labels = read(path)
    np.testing.assert_array_equal(labels.mask("heart"), truth[0])
    np.testing.assert_array_equal(labels.mask("liver"), truth[1])


def test_coronal_frames_of_an_axial_ct(tmp_path):
    truth = masks(4)
    coronal = plain_affine()[:, [0, 2, 1, 3]]
    path = write_seg(tmp_path / "seg.dcm", frames_of(truth.transpose(0, 2, 1, 3)), TWO, coronal)
    np.testing.assert_array_equal(read(path).mask("heart"), truth[0])


def test_a_smaller_frame_leaves_the_rest_unknown(tmp_path):
    truth = masks(5)[:, :, 2:, 1:]
    shifted = plain_affine()
    shifted[:3, 3] = (plain_affine() @ [1, 2, 0, 1])[:3]
    labels = read(write_seg(tmp_path / "seg.dcm", frames_of(truth), TWO, shifted))
    np.testing.assert_array_equal(labels.mask("heart")[:, 2:, 1:], truth[0])
    assert labels.mask("heart").sum() == truth[0].sum()
    assert labels.status["heart"] is Status.PARTIAL


@pytest.mark.parametrize(("axis", "mm"), [(0, 0.1), (2, 0.6)])
def test_frames_off_the_lattice_are_refused_in_mm(tmp_path, axis, mm):
    moved = plain_affine()
    moved[axis, 3] += mm
    error = refused(write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO, moved))
    assert error.code == "mask_mismatch"
    assert f"{mm:.4g} mm" in error.found


def test_another_slice_distance_is_refused(tmp_path):
    apart = plain_affine()
    apart[2, 2] = 1.5
    error = refused(write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO, apart))
    assert error.code == "mask_mismatch"


class TestCodes:
    def one(self, tmp_path: Path, **codes: Any) -> Path:
        item = segment_item(1, codes.pop("label", "Segment_1"), **codes)
        return write_seg(tmp_path / "seg.dcm", [(1, 1, masks()[0, 1])], [item], plain_affine())

    @pytest.mark.parametrize(
        ("codes", "name"),
        [
            ({"kind": HEART}, "heart"),
            ({"kind": LUNG, "side": SIDES["left"]}, "lung_left"),
            ({"kind": LUNG, "side": SIDES["right"]}, "lung_right"),
            ({"kind": LUNG, "side": ("SCT", "51440002")}, "lungs"),
            ({"kind": ("SRT", "T-28000"), "side": ("SRT", "G-A101")}, "lung_left"),
            ({"kind": ("SCT", "85756007"), "region": LUNG, "region_side": SIDES["right"]}, "lung_right"),
            ({"kind": ("SRT", "T-D0050"), "region": LIVER}, "liver"),
            ({"kind": LUNG, "label": "Right Lung", "side": SIDES["right"]}, "lung_right"),
            # The name is finer than the code, and both are true.
            ({"kind": LUNG, "side": SIDES["left"], "label": "lung_upper_lobe_left"}, "lung_upper_lobe_left"),
        ],
    )
    def test_a_code_and_its_side_name_the_class(self, tmp_path, codes, name):
        assert read(self.one(tmp_path, **codes)).names == (name,)

    @pytest.mark.parametrize(
        "codes",
        [
            {"kind": LUNG},  # which of the two?
            {"kind": ("99LOCAL", "39607008")},
            {"kind": ("SCT", "4147007"), "region": LIVER},  # a mass in the liver is not the liver
            {"kind": LUNG, "side": ("SCT", "261183002")},  # upper
        ],
    )
    def test_what_codes_leave_open_is_not_guessed(self, tmp_path, codes):
        error = refused(self.one(tmp_path, **codes))
        assert error.code == "unknown_class"
        assert "Segment_1" in str(error)

    def test_name_and_code_that_contradict_are_refused(self, tmp_path):
        error = refused(self.one(tmp_path, kind=LIVER, label="spleen"))
        assert error.code == "bad_labels"
        assert "'liver'" in error.found


class TestOrigin:
    def dicom_ct(self, tmp_path: Path, **origin: str) -> Volume:
        write_ct_series(tmp_path / "ct", SHAPE, plain_affine(), **origin)
        return read_ct(tmp_path / "ct")

    def test_another_series_is_refused(self, tmp_path):
        path = write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO, plain_affine(), series="9.9")
        error = refused(path, self.dicom_ct(tmp_path))
        assert error.code == "wrong_series"
        assert "9.9" not in str(error)

    def test_another_frame_of_reference_is_refused(self, tmp_path):
        path = write_seg(
            tmp_path / "seg.dcm", frames_of(masks()), TWO, plain_affine(), frame_of_reference="9.9"
        )
        assert refused(path, self.dicom_ct(tmp_path)).code == "wrong_frame"

    def test_a_ct_that_is_no_dicom_has_its_lattice_alone(self, tmp_path):
        path = write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO, plain_affine(), series="9.9")
        assert read(path).names == ("heart", "liver")


class TestLabelMap:
    ITEMS = (segment_item(0, "Background"), segment_item(3, "heart"), segment_item(300, "liver"))

    def values(self) -> np.ndarray:
        return np.random.default_rng(2).choice([0, 3, 300], SHAPE).astype(np.uint16)

    def test_values_are_segments(self, tmp_path):
        values = self.values()
        frames = [(None, k, values[k]) for k in (4, 0, 2)]
        labels = read(write_seg(tmp_path / "seg.dcm", frames, self.ITEMS, plain_affine(), kind="LABELMAP"))
        values[[1, 3]] = 0
        np.testing.assert_array_equal(labels.mask("heart"), values == 3)
        np.testing.assert_array_equal(labels.mask("liver"), values == 300)
        assert labels.names == ("heart", "liver")

    @pytest.mark.parametrize("background", [3, 7])
    def test_the_padding_value_is_nobody_whether_described_or_not(self, tmp_path, background):
        values = np.where(self.values() == 0, background, 300).astype(np.uint16)
        items = (segment_item(background, "Background"), segment_item(300, "liver"))[background == 7 :]
        path = write_seg(
            tmp_path / "seg.dcm",
            [(None, k, plane) for k, plane in enumerate(values)],
            items,
            plain_affine(),
            kind="LABELMAP",
            PixelPaddingValue=background,
        )
        labels = read(path)
        assert labels.names == ("liver",)
        np.testing.assert_array_equal(labels.mask("liver"), values == 300)

    def test_a_value_that_is_no_segment_is_refused(self, tmp_path):
        frames = [(None, 0, self.values()[0])]
        path = write_seg(tmp_path / "seg.dcm", frames, self.ITEMS[:2], plain_affine(), kind="LABELMAP")
        error = refused(path)
        assert error.code == "bad_labels"
        assert "300" in error.found


class TestFractional:
    def path(self, tmp_path: Path, values: np.ndarray, top: int = 200) -> Path:
        frames = [(1, k, values[k]) for k in range(len(values))]
        return write_seg(
            tmp_path / "seg.dcm",
            frames,
            TWO[:1],
            plain_affine(),
            kind="FRACTIONAL",
            MaximumFractionalValue=top,
        )

    def test_shares_are_refused_unless_told_from_where_they_count(self, tmp_path):
        values = np.random.default_rng(3).integers(0, 201, SHAPE).astype(np.uint8)
        path = self.path(tmp_path, values)
        assert refused(path).code == "fractional"
        (tmp_path / "half.yaml").write_text("names: {heart: heart}\nfraction: 0.5\n")
        labels = read(path, vocabulary=str(tmp_path / "half.yaml"))
        np.testing.assert_array_equal(labels.mask("heart"), values >= 100)

    def test_all_or_nothing_is_binary(self, tmp_path):
        values = np.where(masks()[0], 200, 0).astype(np.uint8)
        np.testing.assert_array_equal(read(self.path(tmp_path, values)).mask("heart"), values > 0)


class TestDamage:
    def test_a_frame_of_a_segment_that_is_not_described(self, tmp_path):
        path = write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO[:1], plain_affine())
        assert refused(path).code == "bad_labels"

    def test_a_frame_without_a_place(self, tmp_path):
        path = write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO, plain_affine())
        dataset = pydicom.dcmread(path)
        del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
        dataset.save_as(path)
        assert refused(path).code == "no_orientation"

    @pytest.mark.parametrize("keep", [0, 100, 140, 700, 1500, -6])
    def test_truncated(self, tmp_path, keep):
        path = write_seg(tmp_path / "seg.dcm", frames_of(masks()), TWO, plain_affine())
        path.write_bytes(path.read_bytes()[:keep])
        assert refused(path).code == "unreadable"

    def test_a_ct_slice_is_no_segmentation(self, tmp_path):
        write_ct_series(tmp_path / "ct", SHAPE, plain_affine())
        error = refused(tmp_path / "ct" / "000.dcm")
        assert error.code == "not_segments"
        assert "CT Image" in error.found

    def test_missing_decoder(self, tmp_path, monkeypatch):
        from pydicom.pixels.decoders.base import Decoder

        frames = [(None, k, plane.astype(np.uint8)) for k, plane in enumerate(masks()[0])]
        path = write_seg(tmp_path / "seg.dcm", frames, TWO, plain_affine(), kind="LABELMAP")
        monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
        with pytest.raises(ResourceError) as caught:
            read(path)
        assert caught.value.code == "missing_decoder"


class TestHighdicom:
    """Files as the library writes them that most research code uses."""

    def write(self, tmp_path: Path, pixels: np.ndarray, kind: str, **more: Any) -> Path:
        hd = pytest.importorskip(
            "highdicom", reason="highdicom, of the extra `test`, writes the files of these tests"
        )
        codes = pydicom.sr.codedict.codes
        images = write_ct_series(tmp_path / "ct", SHAPE, plain_affine())
        descriptions = [
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=kind_of,
                algorithm_type="AUTOMATIC",
                algorithm_identification=hd.AlgorithmIdentificationSequence(
                    name="test", version="1", family=codes.cid7162.ArtificialIntelligence
                ),
            )
            for number, (label, kind_of) in enumerate(
                [("Herz", codes.SCT.Heart), ("liver", codes.SCT.Liver)], start=1
            )
        ]
        seg = hd.seg.Segmentation(
            images,
            pixels,
            kind,
            descriptions,
            series_instance_uid=hd.UID(),
            series_number=2,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="paxray",
            manufacturer_model_name="tests",
            software_versions="1",
            device_serial_number="1",
            **more,
        )
        seg.save_as(tmp_path / "seg.dcm")
        return tmp_path / "seg.dcm"

    @pytest.mark.parametrize("omit", [True, False])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_binary(self, tmp_path, omit, compressed):
        truth = masks(6)
        more = {"transfer_syntax_uid": pydicom.uid.RLELossless} if compressed else {}
        kind = "FRACTIONAL" if compressed else "BINARY"  # bits are not compressed
        path = self.write(tmp_path, np.moveaxis(truth, 0, -1), kind, omit_empty_frames=omit, **more)
        labels = read(path, read_ct(tmp_path / "ct"))
        assert labels.names == ("heart", "liver")
        for name, mask in zip(labels.names, truth, strict=True):
            np.testing.assert_array_equal(labels.mask(name), mask)

    def test_label_map(self, tmp_path):
        values = np.random.default_rng(7).integers(0, 3, SHAPE).astype(np.uint8)
        labels = read(self.write(tmp_path, values, "LABELMAP"), read_ct(tmp_path / "ct"))
        np.testing.assert_array_equal(labels.mask("heart"), values == 1)
        np.testing.assert_array_equal(labels.mask("liver"), values == 2)

    def test_reads_what_highdicom_reads(self, tmp_path):
        path = self.write(tmp_path, np.moveaxis(masks(8), 0, -1), "BINARY")
        import highdicom as hd

        theirs = hd.seg.segread(path).get_volume(combine_segments=False)
        ours = read(path, read_ct(tmp_path / "ct"))
        # Theirs is a stack from the first to the last frame that is there, in its own order.
        lps = theirs.affine
        first = np.linalg.solve(plain_affine(), lps @ [0, 0, 0, 1])[:3].round().astype(int)
        step = np.linalg.solve(plain_affine()[:3, :3], lps[:3, 0]).round().astype(int)
        for n, name in enumerate(("heart", "liver")):
            for at, plane in enumerate(theirs.array[..., n]):
                np.testing.assert_array_equal(ours.mask(name)[first[2] + at * step[2]], plane.astype(bool))
