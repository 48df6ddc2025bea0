"""Label maps and folders of class masks on the CT's grid."""

from __future__ import annotations

import threading

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_files import write_itk, write_nifti

from paxray import parallel
from paxray.errors import CaseError
from paxray.io.ct import read_ct
from paxray.io.masks import read_class_mask, read_label_map
from paxray.io.segments import open_segments
from paxray.io.volume import Grid

AFFINE = np.array([[0.75, 0, 0, -20], [0, 0.75, 0, -9], [0, 0, 2.5, 33], [0, 0, 0, 1.0]])
SHAPE = (5, 6, 7)
CT = Grid(SHAPE, AFFINE)
FULL = tuple(slice(0, size) for size in SHAPE)


def code_of(function, *arguments) -> str:
    with pytest.raises(CaseError) as caught:
        function(*arguments)
    return caught.value.code


def labels(highest: int, seed: int = 0) -> np.ndarray:
    array = np.random.default_rng(seed).integers(0, highest + 1, SHAPE)
    array[0, 0, 0] = highest
    return array


HIGHEST = {"u1": [0, 117, 255], "i2": [117, 256], "u2": [300], "i4": [117, 70_000], "i8": [70_000]}
HIGHEST |= {"f4": [117, 70_000], "f8": [0, 300]}


@pytest.mark.parametrize(
    ("dtype", "highest"), [(dtype, highest) for dtype, all_of in HIGHEST.items() for highest in all_of]
)
def test_the_smallest_unsigned_type_is_kept(tmp_path, dtype, highest):
    array = labels(highest)
    kept = "u1" if highest < 256 else "u2" if highest < 65536 else "u4"
    read = read_label_map(write_nifti(tmp_path / "m.nii.gz", array.astype(dtype), AFFINE), CT)
    assert read.array.dtype == np.dtype(kept)
    assert read.array.flags.c_contiguous
    assert read.extent == FULL
    np.testing.assert_array_equal(read.array, array)


@pytest.mark.parametrize("value", [0.5, -1, np.nan, np.inf, 2.0**33])
def test_values_that_are_no_labels_are_refused(tmp_path, value):
    array = labels(3).astype(np.float64)
    array[2, 2, 2] = value
    assert code_of(read_label_map, write_nifti(tmp_path / "m.nii", array, AFFINE), CT) == "bad_labels"
    assert code_of(read_class_mask, tmp_path / "m.nii", CT) == "bad_labels"


def test_a_scale_in_the_header_is_applied(tmp_path):
    path = write_nifti(tmp_path / "m.nii", labels(4).astype(np.uint8), AFFINE, scale=(2, 1))
    np.testing.assert_array_equal(read_label_map(path, CT).array, labels(4) * 2 + 1)
    path = write_nifti(tmp_path / "n.nii", labels(4).astype(np.uint8), AFFINE, scale=(0.5, 0))
    assert code_of(read_label_map, path, CT) == "bad_labels"


def test_rows_reversed_by_a_dicom_converter(tmp_path):
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = SHAPE[1] - 1
    path = write_nifti(tmp_path / "m.nii", labels(9)[:, ::-1].astype(np.uint8), AFFINE @ flip)
    np.testing.assert_array_equal(read_label_map(path, CT).array, labels(9))


def test_a_mask_larger_and_smaller_than_the_ct(tmp_path):
    big = np.pad(labels(9), ((1, 2), (0, 3), (4, 0)), constant_values=77).astype(np.uint8)
    affine = AFFINE.copy()
    affine[:3, 3] = CT.to_world([-4, 0, -1])
    read = read_label_map(write_nifti(tmp_path / "big.nii", big, affine), CT)
    np.testing.assert_array_equal(read.array, labels(9))
    assert read.extent == FULL
    affine[:3, 3] = CT.to_world([2, 0, 1])
    small = labels(9)[1:4, :5, 2:].astype(np.uint8)
    read = read_label_map(write_nifti(tmp_path / "small.nii", small, affine), CT)
    assert read.extent == (slice(1, 4), slice(0, 5), slice(2, 7))
    expected = np.zeros(SHAPE)
    expected[read.extent] = small
    np.testing.assert_array_equal(read.array, expected)


def test_a_mask_off_the_lattice_is_refused_before_its_voxels_are_read(tmp_path):
    affine = AFFINE.copy()
    affine[0, 3] += 0.3
    path = write_nifti(tmp_path / "m.nii", labels(3).astype(np.uint8), affine)
    path.write_bytes(path.read_bytes()[:400])
    assert code_of(read_label_map, path, CT) == "mask_mismatch"


@settings(max_examples=60, deadline=None)
@given(
    low=st.tuples(*[st.integers(0, size - 1) for size in SHAPE]),
    size=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
    value=st.sampled_from([1, 2, 255]),
    crop=st.booleans(),
)
def test_class_masks_have_tight_boxes_in_the_ct(tmp_path_factory, low, size, value, crop):
    array = np.zeros(SHAPE, np.uint8)
    box = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
    array[box] = value
    affine, stored = AFFINE.copy(), array
    if crop:
        stored, affine[:3, 3] = array[1:, 1:, 1:], CT.to_world([1, 1, 1])
    path = write_nifti(tmp_path_factory.mktemp("m") / "liver.nii", stored, affine)
    read = read_class_mask(path, CT)
    assert read.name == "liver"
    assert read.array.dtype == bool
    back = np.zeros(SHAPE, bool)
    back[read.box] = read.array
    seen = array.astype(bool)
    if crop:
        seen[0], seen[:, 0], seen[:, :, 0] = False, False, False
    np.testing.assert_array_equal(back, seen)
    for axis in range(3):
        hit = np.flatnonzero(seen.any(axis=tuple({0, 1, 2} - {axis})))
        width = hit[-1] - hit[0] + 1 if hit.size else 0
        assert read.array.shape[axis] == width


def test_several_labels_in_a_class_file_are_refused(tmp_path):
    path = write_nifti(tmp_path / "m.nii", labels(2).astype(np.uint8), AFFINE)
    assert code_of(read_class_mask, path, CT) == "bad_labels"


def masks_in(folder, grid=CT):
    """The masks of a folder as they are read from it, one after the other."""
    [files] = open_segments(folder)
    for at, mask in files.masks(grid, range(len(files.segments))):
        assert mask.name == files.segments[at].name
        yield mask


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        for n in range(20):
            array = np.zeros(SHAPE, np.uint8)
            array[n % 5, n % 6, n % 7] = n != 7
            write_nifti(tmp_path / "seg" / f"class_{n:02d}.nii.gz", array, AFFINE)
        write_itk(tmp_path / "seg" / "another.nrrd", np.ones(SHAPE, np.uint8), AFFINE)
        (tmp_path / "seg" / "statistics.json").write_text("{}")
        (tmp_path / "seg" / ".hidden.nii.gz").write_bytes(b"")
        return tmp_path / "seg"

    @pytest.mark.parametrize("threads", [1, 2, None])
    def test_in_order_of_names_whatever_the_threads(self, folder, threads):
        with parallel.at_most(threads):
            masks = list(masks_in(folder))
        assert [mask.name for mask in masks] == ["another", *(f"class_{n:02d}" for n in range(20))]
        assert masks[0].array.sum() == np.prod(SHAPE)
        for n, mask in enumerate(masks[1:]):
            assert mask.array.size == int(n != 7)
            assert mask.where == f"seg/class_{n:02d}.nii.gz"
            if n != 7:
                assert [part.start for part in mask.box] == [n % 5, n % 6, n % 7]

    def test_a_bad_file_is_named_and_the_threads_end(self, folder):
        (folder / "class_10.nii.gz").write_bytes(b"broken")
        before = threading.active_count()
        with pytest.raises(CaseError, match=r"seg/class_10\.nii\.gz") as caught:
            list(masks_in(folder))
        assert caught.value.code == "unreadable"
        assert threading.active_count() == before

    def test_stopping_early_ends_the_threads(self, folder):
        before = threading.active_count()
        masks = masks_in(folder)
        assert next(masks).name == "another"
        masks.close()
        assert threading.active_count() == before

    def test_two_files_of_one_name(self, folder):
        write_itk(folder / "class_03.nrrd", np.ones(SHAPE, np.uint8), AFFINE)
        assert code_of(open_segments, folder) == "bad_labels"

    def test_no_folder_and_no_masks(self, tmp_path):
        assert code_of(open_segments, tmp_path / "none") == "missing_file"
        (tmp_path / "statistics.json").write_text("{}")
        assert code_of(open_segments, tmp_path) == "no_masks"


@pytest.mark.real
def test_a_folder_of_classes_says_what_the_multilabel_file_says(real_data):
    folder = real_data / "totalsegmentator-reference"
    grid = read_ct(folder / "example_ct_sm.nii.gz").grid
    together = read_label_map(folder / "example_seg_fast.nii.gz", grid)
    masks = list(masks_in(folder / "example_seg_fast", grid))
    assert len(masks) == 117
    assert sum(mask.array.any() for mask in masks) == 40
    union = np.zeros(grid.shape, bool)
    for mask in masks:
        union[mask.box] |= mask.array
        if mask.array.any():
            values = together.array[mask.box][mask.array]
            assert (values == values[0]).all()
            assert (together.array == values[0]).sum() == mask.array.sum()
    np.testing.assert_array_equal(union, together.array > 0)


@pytest.mark.real
def test_a_real_label_map_lies_on_its_ct(real_data):
    folder = real_data / "lidc-idri-0001"
    grid = read_ct(folder / "ct_2.5mm.nii.gz").grid
    read = read_label_map(folder / "totalsegmentator_v2_2.5mm.nii.gz", grid)
    assert read.array.dtype == np.uint8
    image = nibabel.load(folder / "totalsegmentator_v2_2.5mm.nii.gz")
    np.testing.assert_array_equal(read.array, np.asarray(image.dataobj).T)
    with pytest.raises(CaseError, match="largest displacement"):
        read_label_map(folder / "totalsegmentator_v2.nii.gz", grid)
