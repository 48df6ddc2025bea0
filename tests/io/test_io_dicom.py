"""DICOM series: order, geometry, rescale, and what is refused or left out."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from io_files import (
    SECONDARY_CAPTURE,
    ct_array,
    oblique_affine,
    slice_dataset,
    write_enhanced,
    write_series,
    write_slice,
)

from paxray.errors import CaseError, PaxrayError, ResourceError
from paxray.io.ct import read_ct
from paxray.io.masks import read_label_map

AFFINE = np.array([[0.75, 0, 0, -120], [0, 0.75, 0, -90.5], [0, 0, 2.5, 33.25], [0, 0, 0, 1]])
HU = ct_array((6, 5, 4))


def refused(folder) -> CaseError:
    with pytest.raises(CaseError) as caught:
        read_ct(folder)
    text = str(caught.value)
    assert "MRN-12345" not in text
    assert "Doe" not in text
    return caught.value


@pytest.mark.parametrize("seed", range(4))
def test_order_comes_from_positions_and_geometry_from_the_header(tmp_path, seed):
    affine = oblique_affine(seed, spacing=(0.6, 0.9, 2.5))
    volume = read_ct(write_series(tmp_path / "ct", HU, affine, seed=seed))
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(volume.array, HU)


def test_geometry_agrees_with_simpleitk(tmp_path):
    folder = write_series(tmp_path / "ct", HU, oblique_affine(7, spacing=(0.6, 0.9, 2.5)))
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(names)
    grid = read_ct(folder).grid
    far = [size - 1 for size in image.GetSize()]
    for index in ([0, 0, 0], far, [far[0], 0, 0], [0, far[1], 0], [0, 0, far[2]]):
        world = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(world, grid.to_world(index), atol=1e-3)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), HU)


def test_descending_positions_give_an_ascending_stack(tmp_path):
    downwards = AFFINE.copy()
    downwards[2, 2] = -2.5
    volume = read_ct(write_series(tmp_path / "ct", HU, downwards))
    np.testing.assert_array_equal(volume.array, HU[::-1])
    np.testing.assert_allclose(volume.affine[:3, 3], [-120, -90.5, 33.25 - 5 * 2.5])
    assert volume.affine[2, 2] == 2.5


def test_gantry_tilt_is_a_sheared_affine(tmp_path):
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.8
    volume = read_ct(write_series(tmp_path / "ct", HU, tilted))
    np.testing.assert_allclose(volume.affine, tilted, atol=1e-9)
    np.testing.assert_array_equal(volume.array, HU)


def test_every_slice_has_its_own_rescale(tmp_path):
    folder = tmp_path / "ct"
    for k in range(4):
        slope, intercept = 1 + k, -1000 - 7 * k
        dataset = slice_dataset(np.full((3, 3), 100 + k, np.uint16), AFFINE, k, "1.2")
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        write_slice(folder, dataset, f"{k}.dcm")
    array = read_ct(folder).array
    assert array.dtype == np.int16
    assert array[:, 0, 0].tolist() == [(1 + k) * (100 + k) - 1000 - 7 * k for k in range(4)]


def test_a_fractional_slope_gives_float32(tmp_path):
    array = read_ct(write_series(tmp_path / "ct", HU, AFFINE, RescaleSlope=0.5)).array
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, (HU + 1024.0) * 0.5 - 1024)


def test_padding_keeps_its_hu(tmp_path):
    folder = tmp_path / "ct"
    for k in range(2):
        stored = np.array([[-2000, 0], [1000, 24]], np.int16)
        dataset = slice_dataset(stored, AFFINE, k, "1.2")
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        write_slice(folder, dataset, f"{k}.dcm")
    assert read_ct(folder).array[0].tolist() == [[-3024, -1024], [-24, -1000]]


def test_unused_high_bits_are_masked(tmp_path):
    folder = tmp_path / "ct"
    for k in range(2):
        dataset = slice_dataset(np.array([[0xF000 | 24, 1024]], np.uint16), AFFINE, k, "1.2")
        dataset.BitsStored, dataset.HighBit = 12, 11
        write_slice(folder, dataset, f"{k}.dcm")
    assert read_ct(folder).array[0].tolist() == [[-1000, 0]]


class TestSlices:
    def test_a_missing_slice_is_refused_with_its_place(self, tmp_path):
        error = refused(write_series(tmp_path / "ct", HU, AFFINE, skip=(2,)))
        assert error.code == "uneven_slices"
        assert "5 mm from 35.75 to 40.75" in error.found

    @pytest.mark.parametrize(("off", "passes"), [(0.02, True), (0.04, False), (-0.04, False)])
    def test_unevenness_beyond_one_per_cent_is_refused(self, tmp_path, off, passes):
        folder = tmp_path / "ct"
        for k in range(6):
            moved = AFFINE.copy()
            moved[2, 3] += off if k == 3 else 0
            write_slice(folder, slice_dataset((HU[k] + 1024).astype(np.uint16), moved, k, "1.2"), f"{k}.dcm")
        if passes:
            np.testing.assert_array_equal(read_ct(folder).array, HU)
        else:
            assert refused(folder).code == "uneven_slices"

    def test_a_slice_pushed_sideways_is_refused(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE, skip=(3,))
        moved = AFFINE.copy()
        moved[0, 3] += 1
        write_slice(folder, slice_dataset((HU[3] + 1024).astype(np.uint16), moved, 3, "1.2.3.4"), "x.dcm")
        error = refused(folder)
        assert error.code == "uneven_slices"
        assert "1 mm off" in error.found

    def test_a_doubled_slice_is_read_once(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE)
        write_slice(
            folder, slice_dataset((HU[3] + 1024).astype(np.uint16), AFFINE, 3, "1.2.3.4"), "again.dcm"
        )
        np.testing.assert_array_equal(read_ct(folder).array, HU)

    def test_two_slices_at_one_place_that_differ_are_refused(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE)
        other = (HU[3] + 1024).astype(np.uint16)
        other[0, 0] += 1
        write_slice(folder, slice_dataset(other, AFFINE, 3, "1.2.3.4"), "again.dcm")
        assert refused(folder).code == "duplicate_slices"

    def test_a_single_slice_is_refused(self, tmp_path):
        assert refused(write_series(tmp_path / "ct", HU[:1], AFFINE)).code == "bad_shape"


class TestSeries:
    def test_two_series_are_refused_and_listed(self, tmp_path):
        write_series(tmp_path / "ct", HU, AFFINE)
        for k in range(3):
            write_slice(
                tmp_path / "ct",
                slice_dataset((HU[k] + 1024).astype(np.uint16), AFFINE, k, "9.9"),
                f"b{k}.dcm",
            )
        error = refused(tmp_path / "ct")
        assert error.code == "several_series"
        assert "6 slices of 4 x 5" in error.found
        assert "3 slices of 4 x 5" in error.found

    def test_two_orientations_under_one_uid_are_refused(self, tmp_path):
        write_series(tmp_path / "ct", HU, AFFINE)
        turned = AFFINE.copy()
        turned[:, :3] = AFFINE[:, [0, 2, 1]]
        write_slice(
            tmp_path / "ct", slice_dataset((HU[0] + 1024).astype(np.uint16), turned, 0, "1.2.3.4"), "x.dcm"
        )
        assert refused(tmp_path / "ct").code == "several_series"

    def test_localizers_captures_other_modalities_and_other_files_are_left_out(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE)
        stored = (HU[0] + 1024).astype(np.uint16)
        localizer = slice_dataset(stored, oblique_affine(), 0, "7.1")
        localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        capture = slice_dataset(stored, AFFINE, 0, "7.2")
        capture.SOPClassUID = SECONDARY_CAPTURE
        pet = slice_dataset(stored, AFFINE, 0, "7.3")
        pet.SOPClassUID, pet.Modality = "1.2.840.10008.5.1.4.1.1.128", "PT"
        for name, dataset in (("l.dcm", localizer), ("c.dcm", capture), ("p.dcm", pet)):
            write_slice(folder, dataset, name)
        (folder / "LICENSE").write_text("text")
        (folder / ".DS_Store").write_bytes(b"\0" * 200)
        np.testing.assert_array_equal(read_ct(folder).array, HU)

    def test_a_blank_class_and_series_uid_is_still_a_series(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE, SOPClassUID="", SeriesInstanceUID="")
        np.testing.assert_array_equal(read_ct(folder).array, HU)

    def test_no_series(self, tmp_path):
        (tmp_path / "a.txt").write_text("text")
        error = refused(tmp_path)
        assert error.code == "no_ct_series"
        assert "not DICOM" in error.found

    def test_no_folder(self, tmp_path):
        assert refused(tmp_path / "none").code == "missing_file"


class TestDamage:
    @pytest.mark.parametrize("keep", [0, 100, 140, 400, -3])
    def test_truncated_slice(self, tmp_path, keep):
        folder = write_series(tmp_path / "ct", HU, AFFINE)
        path = sorted(folder.iterdir())[2]
        path.write_bytes(path.read_bytes()[:keep])
        # Cut inside the header it has lost its class, its place or its pixels; never is it read as a gap.
        assert refused(folder).code in ("unreadable", "uneven_slices", "no_orientation")

    def test_slice_without_position(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE)
        path = sorted(folder.iterdir())[2]
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
        assert refused(folder).code == "no_orientation"

    @pytest.mark.parametrize("changes", [{"RescaleIntercept": None}, {"RescaleType": "Z_EFF"}])
    def test_what_is_not_hu(self, tmp_path, changes):
        assert refused(write_series(tmp_path / "ct", HU, AFFINE, **changes)).code == "not_hu"

    def test_inverted_pixels(self, tmp_path):
        folder = write_series(tmp_path / "ct", HU, AFFINE, PhotometricInterpretation="MONOCHROME1")
        assert refused(folder).code == "unreadable"

    def test_missing_decoder_names_the_package(self, tmp_path, monkeypatch):
        from pydicom.pixels.decoders.base import Decoder

        folder = write_series(tmp_path / "ct", HU, AFFINE)
        monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
        with pytest.raises(ResourceError) as caught:
            read_ct(folder)
        assert caught.value.code == "missing_decoder"
        assert "python-gdcm" in caught.value.do


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]])
def test_enhanced_multi_frame(tmp_path, order):
    affine = oblique_affine(5)
    write_enhanced(tmp_path / "ct" / "all.dcm", HU, affine, order)
    volume = read_ct(tmp_path / "ct")
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(volume.array, HU)


def test_rle_compressed(tmp_path):
    folder = write_series(tmp_path / "ct", HU, AFFINE)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_ct(folder).array, HU)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"])
def test_lossless_compression(tmp_path, syntax):
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm compresses the slices for this test")
    hu = ct_array((3, 40, 30))
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for path in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_ct(folder).array, hu)


@pytest.mark.real
def test_jpeg2000_series_and_its_mask_with_rows_reversed(real_data):
    folder = real_data / "totalsegmentator-reference"
    volume = read_ct(folder / "example_ct_dicom")
    assert volume.shape == (20, 512, 512)
    np.testing.assert_allclose(volume.spacing_mm, (0.9765625, 0.9765625, 2.0))
    labels = read_label_map(folder / "example_seg_dicom.nii.gz", volume.grid)
    assert labels.extent == tuple(slice(0, size) for size in volume.shape)
    inside = volume.array[labels.array == 5]  # the liver: soft tissue, where any slip would mix in air or fat
    assert 0 < np.median(inside) < 200
    assert np.percentile(inside, 1) > -100
    moved = volume.affine.copy()
    moved[0, 3] += 7
    with pytest.raises(CaseError) as caught:
        read_label_map(folder / "example_seg_dicom.nii.gz", type(volume.grid)(volume.shape, moved))
    assert caught.value.code == "mask_mismatch"
    assert "mm" in caught.value.found


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(132, 1100), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_slice_is_an_error_of_ours_or_a_ct(tmp_path_factory, edits):
    folder = write_series(tmp_path_factory.mktemp("d") / "ct", HU, AFFINE)
    path = sorted(folder.iterdir())[2]
    content = bytearray(path.read_bytes())
    for position, value in edits:
        content[position % len(content)] = value
    path.write_bytes(content)
    try:
        volume = read_ct(folder)
    except PaxrayError:
        return
    assert np.isfinite(volume.affine).all()
