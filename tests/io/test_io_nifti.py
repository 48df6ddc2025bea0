"""NIfTI: where voxels lie, what is refused, what the numbers become."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from io_files import ct_array, itk_grid, oblique_affine, write_nifti

from paxray.errors import CaseError
from paxray.io.ct import read_ct
from paxray.io.hu import to_hu
from paxray.io.nifti import iter_nifti_planes, read_nifti, read_nifti_header
from paxray.io.nifti_header import NiftiHeader
from paxray.io.volume import Grid

AFFINE = np.array([[0.7, 0, 0, -120], [0, 0.7, 0, -90.5], [0, 0, 2.5, 33.25], [0, 0, 0, 1]])


def code_of(path: Path) -> str:
    with pytest.raises(CaseError) as caught:
        read_ct(path)
    assert path.name in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_corners_and_voxels_agree_with_simpleitk(tmp_path, seed, name):
    affine = oblique_affine(seed)
    array = ct_array(seed=seed)
    path = write_nifti(tmp_path / name, array, affine, qform=1)
    volume = read_ct(path)
    np.testing.assert_allclose(volume.grid.corners_mm, itk_grid(path).corners_mm, atol=1e-3)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)  # the header is in single precision
    np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
    np.testing.assert_array_equal(volume.array, array)


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        "lidc-idri-0001/ct_2.5mm.nii.gz",
        "totalsegmentator-reference/example_ct_sm.nii.gz",
        "totalsegmentator-reference/example_seg_dicom.nii.gz",
    ],
)
def test_real_files_agree_with_simpleitk(real_data, name):
    stored = read_nifti(real_data / name)
    np.testing.assert_allclose(
        stored.header.grid.corners_mm, itk_grid(real_data / name).corners_mm, atol=1e-2
    )
    np.testing.assert_array_equal(
        stored.array, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(real_data / name)))
    )


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", ">f8", "<i8"])
def test_whole_hu_of_any_type_become_int16(tmp_path, dtype):
    array = ct_array()
    path = tmp_path / "ct.nii.gz"
    image = nibabel.Nifti1Image(array.T.astype(dtype), np.diag([-1.0, -1, 2, 1]), dtype=np.dtype(dtype))
    header = image.header.as_byteswapped(">" if dtype[0] == ">" else "<")
    nibabel.save(nibabel.Nifti1Image(array.T.astype(dtype), None, header), path)
    volume = read_ct(path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, array)


@settings(max_examples=40, deadline=None)
@given(
    slope=st.sampled_from([1.0, 2.0, -1.0, 0.5, 0.37]),
    intercept=st.sampled_from([0.0, -1024.0, -1000.5]),
    dtype=st.sampled_from(["u2", "i2", "i4", "f4"]),
)
def test_scaling_is_applied_and_int16_kept_when_exact(tmp_path_factory, slope, intercept, dtype):
    stored = np.random.default_rng(1).integers(0, 3000, (3, 4, 5)).astype(dtype)
    exact = stored.astype(np.float64) * np.float32(slope) + np.float32(intercept)
    path = write_nifti(tmp_path_factory.mktemp("s") / "ct.nii", stored, AFFINE, scale=(slope, intercept))
    read = read_nifti(path)
    planes = [(plane, read.header.slope, read.header.intercept) for plane in read.array]
    array = to_hu(planes, stored.shape, where="ct")
    assert array.dtype == (np.int16 if (exact == np.rint(exact)).all() else np.float32)
    np.testing.assert_allclose(array, exact, rtol=1e-6, atol=1e-4)


def test_hu_beyond_int16_stay_exact_in_float32(tmp_path):
    array = ct_array().astype(np.int32)
    array[2, 3, 4] = 40_000
    volume = read_ct(write_nifti(tmp_path / "ct.nii", array, AFFINE))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, array)


def test_last_axis_of_one_is_accepted_and_more_refused(tmp_path):
    array = ct_array()
    read = read_ct(write_nifti(tmp_path / "one.nii", array[None], AFFINE))
    np.testing.assert_array_equal(read.array, array)
    assert code_of(write_nifti(tmp_path / "two.nii", np.stack([array, array]), AFFINE)) == "bad_shape"
    assert code_of(write_nifti(tmp_path / "flat.nii", array[0], AFFINE)) == "bad_shape"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused(tmp_path, value):
    array = ct_array().astype(np.float32)
    array[4, 0, 0] = value
    assert code_of(write_nifti(tmp_path / "ct.nii", array, AFFINE)) == "bad_values"


def test_colour_is_refused(tmp_path):
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert code_of(write_nifti(tmp_path / "rgb.nii", colour, AFFINE)) == "bad_type"


class TestOrientation:
    def test_neither_form_set_is_refused(self, tmp_path):
        assert code_of(write_nifti(tmp_path / "a.nii", ct_array(), AFFINE, sform=0)) == "no_orientation"

    def test_qform_alone_is_used(self, tmp_path):
        affine = oblique_affine(3)
        volume = read_ct(write_nifti(tmp_path / "a.nii", ct_array(), affine, sform=0, qform=1))
        np.testing.assert_allclose(volume.affine, affine, atol=1e-3)

    @pytest.mark.parametrize(("shift_mm", "refused"), [(0.005, False), (0.02, True), (5, True)])
    def test_forms_that_disagree_are_refused(self, tmp_path, shift_mm, refused):
        path = write_nifti(tmp_path / "a.nii", ct_array(), AFFINE, qform=1, qoffset_z=AFFINE[2, 3] + shift_mm)
        if refused:
            assert code_of(path) == "affine_conflict"
        else:
            np.testing.assert_allclose(read_ct(path).affine, AFFINE, atol=1e-5)

    @pytest.mark.parametrize("angle", [1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.1, -1e-4, -3e-4, -1e-3])
    def test_the_quaternions_single_precision_is_no_conflict(self, tmp_path, angle):
        # LPS images have w near 0, which the header cannot hold to better than 6e-4.
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ AFFINE
        array = np.broadcast_to(ct_array((2, 2, 2)).repeat(200, 1).repeat(200, 2), (2, 400, 400)).copy()
        volume = read_ct(write_nifti(tmp_path / "a.nii", array, affine, qform=1))
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("small", [1, 1e-2, 1e-3, 1e-4])
    def test_oblique_files_that_itk_writes_are_accepted(self, tmp_path, seed, small):
        axis = np.random.default_rng(seed).normal(size=3)
        turn = SimpleITK.VersorTransform((axis / np.linalg.norm(axis)).tolist(), small)
        image = SimpleITK.GetImageFromArray(np.tile(ct_array((2, 2, 2)), (3, 200, 200)))
        image.SetSpacing((0.7, 0.7, 2.5))
        image.SetDirection(turn.GetMatrix())
        image.SetOrigin((-150, -140, 900))
        SimpleITK.WriteImage(image, str(tmp_path / "a.nii"))
        expected = itk_grid(tmp_path / "a.nii").corners_mm
        np.testing.assert_allclose(read_ct(tmp_path / "a.nii").grid.corners_mm, expected, atol=0.01)

    def test_a_turned_qform_is_a_conflict(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", ct_array(), AFFINE, qform=1, quatern_b=0.1, quatern_d=0.99)
        assert code_of(path) == "affine_conflict"

    def test_singular_affine_is_refused(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", ct_array(), AFFINE, srow_z=[0, 0, 0, 1])
        assert code_of(path) == "bad_affine"


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (2 + 8, 1)])
def test_units_of_length_are_converted(tmp_path, unit, factor):
    grid = read_nifti_header(write_nifti(tmp_path / "a.nii", ct_array(), AFFINE, xyzt_units=unit)).grid
    np.testing.assert_allclose(grid.affine[:3], AFFINE[:3] * factor, rtol=1e-6)


def test_unknown_unit_of_length_is_refused(tmp_path):
    assert code_of(write_nifti(tmp_path / "a.nii", ct_array(), AFFINE, xyzt_units=5)) == "bad_units"


def _payload(content: bytes) -> bytes | None:
    """What Python's own gzip makes of the bytes; None where it refuses them."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


class TestDamage:
    def test_missing(self, tmp_path):
        assert code_of(tmp_path / "none.nii.gz") == "missing_file"

    @pytest.mark.parametrize("keep", [0, 1, 10, 200, 340, 600, -20, -1])
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_truncated(self, tmp_path, name, keep):
        path = write_nifti(tmp_path / name, ct_array((9, 20, 20)), AFFINE)
        path.write_bytes(path.read_bytes()[:keep])
        assert code_of(path) == "unreadable"

    @settings(max_examples=60, deadline=None)
    @given(st.integers(20, 8000), st.integers(1, 255))
    def test_a_flipped_byte_in_gzip_never_passes(self, tmp_path_factory, position, flip):
        folder = tmp_path_factory.mktemp("f")
        path = write_nifti(folder / "a.nii.gz", ct_array((9, 20, 30)), AFFINE)
        whole = path.read_bytes()
        content = bytearray(whole)
        content[position] ^= flip
        path.write_bytes(content)
        if _payload(content) == gzip.decompress(whole):
            return  # a bit of the container that says nothing of the content, such as a file time
        assert code_of(path) != "case"  # what is found first may be nonsense in the header

    @pytest.mark.parametrize("kind", ["garbage", "bad second member", "cut second member"])
    def test_damage_behind_the_voxels_of_a_large_file(self, tmp_path, kind):
        path = write_nifti(tmp_path / "a.nii.gz", ct_array((40, 200, 200)), AFFINE)
        second = bytearray(gzip.compress(bytes(2_000_000)))
        second[-6] ^= kind == "bad second member"
        behind = {"garbage": b"no gzip" * 9, "cut second member": second[:-20]}.get(kind, second)
        path.write_bytes(path.read_bytes() + behind)
        assert code_of(path) == "unreadable"

    def test_what_lies_behind_the_voxels_takes_no_memory(self, tmp_path, monkeypatch):
        """A member that says that it holds more is read as a stream, and no further than the voxels at once."""
        from isal import igzip_lib

        def decompress(*_, **__):
            raise AssertionError("unpacked whole")

        path = write_nifti(tmp_path / "a.nii.gz", ct_array(), AFFINE)
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(50_000_000)))
        monkeypatch.setattr(igzip_lib, "decompress", decompress)
        np.testing.assert_array_equal(read_ct(path).array, ct_array())

    def test_a_header_that_promises_too_much_takes_no_memory(self, tmp_path):
        path = write_nifti(
            tmp_path / "a.nii.gz", ct_array(), AFFINE, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]
        )
        assert code_of(path) == "unreadable"

    def test_text_under_an_image_name(self, tmp_path):
        (tmp_path / "a.nii").write_text("not an image\n" * 100)
        assert code_of(tmp_path / "a.nii") == "unreadable"

    def test_unknown_ending(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"x")
        assert code_of(tmp_path / "a.png") == "unknown_format"


def test_gzip_is_known_by_content_and_may_have_several_members(tmp_path):
    plain = write_nifti(tmp_path / "a.nii", ct_array(), AFFINE).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
    (tmp_path / "c.nii.gz").write_bytes(plain)
    for name in ("b.nii.gz", "c.nii.gz"):
        np.testing.assert_array_equal(read_ct(tmp_path / name).array, ct_array())


def test_nifti2_is_read(tmp_path):
    image = nibabel.Nifti2Image(ct_array().T, np.diag([-1.0, -1, 2, 1]))
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_ct(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array, ct_array())
    np.testing.assert_array_equal(volume.affine, np.diag([1.0, 1, 2, 1]))


def test_planes_are_the_volumes(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ct_array(), AFFINE)
    np.testing.assert_array_equal(np.stack(list(iter_nifti_planes(path))), ct_array())


def test_corners_are_half_a_voxel_out(tmp_path):
    grid = read_nifti_header(write_nifti(tmp_path / "a.nii", ct_array((2, 3, 4)), AFFINE)).grid
    assert isinstance(grid, Grid)
    np.testing.assert_allclose(np.ptp(grid.corners_mm, axis=0), [4 * 0.7, 3 * 0.7, 2 * 2.5], rtol=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_an_error_of_ours_or_a_ct(tmp_path_factory, edits):
    path = write_nifti(tmp_path_factory.mktemp("h") / "a.nii", ct_array((3, 4, 5)), AFFINE, qform=1)
    content = bytearray(path.read_bytes())
    for position, value in edits:
        content[position] = value
    path.write_bytes(content)
    try:
        volume = read_ct(path)
    except CaseError:
        return
    assert np.isfinite(volume.array).all()
    assert np.isfinite(volume.affine).all()


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from([nibabel.Nifti1Header, nibabel.Nifti2Header]),
    order=st.sampled_from("<>"),
    dtype=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"]),
    shape=st.lists(st.integers(1, 99), min_size=1, max_size=5),
    scale=st.tuples(st.sampled_from([1.0, 0.0, 2.5, np.nan, np.inf]), st.floats(-5, 5, width=32)),
    offset=st.sampled_from([352, 544, 4096]),
    terms=st.tuples(*[st.floats(-0.5625, 0.5625, width=32)] * 3),
    sizes=st.tuples(*[st.floats(0.125, 5, width=32)] * 3),
    handed=st.sampled_from([-1, 1]),
    codes=st.tuples(*[st.integers(0, 4)] * 2),
    seed=st.integers(0, 99),
)
def test_headers_say_what_nibabel_reads(
    kind, order, dtype, shape, scale, offset, terms, sizes, handed, codes, seed
):
    theirs = kind(endianness=order)
    theirs.set_data_dtype(dtype)
    theirs.set_data_shape(shape)
    theirs["vox_offset"], theirs["xyzt_units"] = offset, seed % 8
    theirs["scl_slope"], theirs["scl_inter"] = scale
    theirs["sform_code"], theirs["qform_code"] = codes
    theirs["pixdim"][:4] = (handed, *sizes)
    rng = np.random.default_rng(seed)
    for name, value in zip(("quatern_b", "quatern_c", "quatern_d"), terms, strict=True):
        theirs[name] = value
    for name in ("srow_x", "srow_y", "srow_z"):
        theirs[name] = rng.normal(size=4) * 100
    for name in ("qoffset_x", "qoffset_y", "qoffset_z"):
        theirs[name] = rng.normal() * 100
    ours = NiftiHeader(theirs.binaryblock)
    assert (ours.shape, ours.dtype, ours.offset) == (tuple(shape), theirs.get_data_dtype(), offset)
    assert ours.length_unit == seed % 8
    slope, intercept = theirs.get_slope_inter()
    assert ours.scale == ((1.0, 0.0) if slope is None else (slope, intercept))
    for our_form, (their_form, code) in (
        (ours.sform, theirs.get_sform(coded=True)),
        (ours.qform, theirs.get_qform(coded=True)),
    ):
        assert (our_form is None) == (code == 0)
        if our_form is not None:
            np.testing.assert_allclose(our_form, their_form, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("code", [1, 32, 128, 1536, 1792, 2048, 2304])
def test_types_that_are_no_plain_numbers_have_a_name_and_no_dtype(code):
    header = nibabel.Nifti1Header()
    header["datatype"], header["dim"][0] = code, 3
    ours = NiftiHeader(header.binaryblock)
    assert ours.dtype is None
    assert ours.type_name.lower() == nibabel.nifti1.data_type_codes.label[code].lower()


@pytest.mark.parametrize(
    ("field", "value"),
    [("quatern_b", np.nan), ("quatern_b", 1.5), ("pixdim", [0.5, 1, 1, 1, 1, 1, 1, 1])],
)
def test_a_qform_that_is_no_rotation_is_refused(tmp_path, field, value):
    path = write_nifti(tmp_path / "a.nii", ct_array((3, 4, 5)), AFFINE, qform=1, **{field: value})
    with pytest.raises(CaseError, match="no rotation") as caught:
        read_ct(path)
    assert caught.value.code == "bad_affine"
