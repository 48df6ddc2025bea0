"""NRRD and MetaImage."""

from __future__ import annotations

import numpy as np
import pytest
from io_files import ct_array, itk_grid, oblique_affine, write_itk

from paxray.errors import CaseError
from paxray.io.ct import read_ct
from paxray.io.identity import content_hash
from paxray.io.image import iter_planes

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")


def code_of(path) -> str:
    with pytest.raises(CaseError) as caught:
        read_ct(path)
    assert str(path.parent) not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(2))
def test_geometry_and_voxels_survive(tmp_path, suffix, seed):
    affine = oblique_affine(seed)
    path = write_itk(tmp_path / f"ct{suffix}", ct_array(seed=seed), affine)
    volume = read_ct(path)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    np.testing.assert_allclose(volume.grid.corners_mm, itk_grid(path).corners_mm, atol=1e-9)
    np.testing.assert_array_equal(volume.array, ct_array(seed=seed))
    np.testing.assert_array_equal(np.stack(list(iter_planes(path))), volume.array)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_type_is_read(tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = write_itk(tmp_path / "a.mha", array, np.eye(4))
    np.testing.assert_array_equal(np.stack(list(iter_planes(path))), array)


def nrrd(space: str = "left-posterior-superior", **changes: str) -> bytes:
    fields = {
        "type": "short",
        "dimension": "3",
        "space": space,
        "sizes": "4 3 2",
        "space directions": "(0.5,0,0) (0,0.75,0) (0,0,2)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(1,2,3)",
    } | {name.replace("_", " "): value for name, value in changes.items()}
    lines = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    return b"NRRD0004\n" + lines.encode() + b"\n" + ct_array((2, 3, 4)).tobytes()


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
    ],
)
def test_nrrd_spaces_become_lps(tmp_path, space, signs):
    (tmp_path / "a.nrrd").write_bytes(nrrd(space))
    expected = np.diag([*signs, 1.0]) @ np.array(
        [[0.5, 0, 0, 1], [0, 0.75, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]]
    )
    np.testing.assert_allclose(read_ct(tmp_path / "a.nrrd").affine, expected)


@pytest.mark.parametrize("missing", ["space", "space_directions", "space_origin"])
def test_nrrd_without_orientation_is_refused(tmp_path, missing):
    changes = {missing: ""} | ({"spacings": "1 1 1"} if missing == "space_directions" else {})
    content = nrrd(**changes)
    (tmp_path / "a.nrrd").write_bytes(content)
    assert code_of(tmp_path / "a.nrrd") == "no_orientation"


def test_nrrd_in_other_units_is_refused(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(nrrd("left-posterior-superior", space_units='"cm" "cm" "cm"'))
    assert code_of(tmp_path / "a.nrrd") == "bad_units"


@pytest.mark.parametrize("key", [b"TransformMatrix", b"Offset"])
def test_meta_image_without_orientation_is_refused(tmp_path, key):
    path = write_itk(tmp_path / "a.mha", ct_array(), np.eye(4))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(key)))
    assert code_of(path) == "no_orientation"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_truncated_is_refused(tmp_path, suffix):
    path = write_itk(tmp_path / f"a{suffix}", ct_array(), np.eye(4))
    path.write_bytes(path.read_bytes()[:-9])
    assert code_of(path) == "unreadable"


@pytest.mark.parametrize(("suffix", "data"), [(".mhd", ".raw"), (".nhdr", ".raw")])
def test_detached_data(tmp_path, suffix, data):
    path = write_itk(tmp_path / f"a{suffix}", ct_array(), np.eye(4))
    before = content_hash(path)
    raw = next(file for file in tmp_path.iterdir() if file != path)
    content = bytearray(raw.read_bytes())
    content[-1] ^= 1
    raw.write_bytes(content)
    assert content_hash(path) != before  # the voxels count, though they lie in another file
    raw.write_bytes(content[:-9])
    assert code_of(path) == "unreadable"
    raw.unlink()
    assert code_of(path) == "missing_file"


def test_vectors_and_four_axes_are_refused(tmp_path):
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.Image(4, 4, 4, SimpleITK.sitkVectorInt16), str(tmp_path / "v.mha"))
    assert code_of(tmp_path / "v.mha") == "bad_shape"
    SimpleITK.WriteImage(SimpleITK.Image([4, 4, 4, 2], SimpleITK.sitkInt16), str(tmp_path / "four.mha"))
    assert code_of(tmp_path / "four.mha") == "bad_shape"
