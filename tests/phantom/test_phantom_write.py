"""Phantoms on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from paxray.errors import ConfigError
from paxray.io.cases import read_case_table
from paxray.io.nifti import write_nifti
from paxray.io.volume import Volume
from paxray.phantom.thorax import make_phantom
from paxray.phantom.write import write_phantoms

COARSE_MM = (6.0, 6.0, 6.0)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_writes_what_the_case_table_says(tmp_path: Path) -> None:
    seen: list[str] = []
    table = write_phantoms(tmp_path, 2, 3, COARSE_MM, progress=seen.append)
    assert table == tmp_path / "cases.csv"
    assert seen == ["phantom-0001", "phantom-0002"]
    cases = read_case_table(table)
    assert [case.case_id for case in cases] == seen
    for case in cases:
        assert case.ct.is_file()
        assert case.masks[0].path.is_file()
        assert case.masks[0].vocabulary == "phantom"
        assert (case.source, case.license) == ("paxray phantom", "CC0-1.0")
        assert case.extra["sex"] in ("F", "M")
    assert sorted(contents(tmp_path)) == [
        "cases.csv",
        *(f"{case}/{name}" for case in seen for name in ("ct.nii.gz", "labels.nii.gz", "phantom.json")),
    ]


def test_files_hold_the_phantom_in_its_place(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 1, 3, COARSE_MM)
    case = read_case_table(tmp_path / "cases.csv")[0]
    phantom = make_phantom(int(case.extra["phantom_seed"]), COARSE_MM)
    for path, volume in ((case.ct, phantom.ct), (case.masks[0].path, phantom.labels)):
        image = nib.load(path)
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), volume.array)
        assert image.get_data_dtype() == volume.array.dtype
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ image.affine, volume.affine, atol=1e-4)
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_a_second_call_touches_no_phantom(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 1, 3, COARSE_MM)
    before = contents(tmp_path)
    write_phantoms(tmp_path, 1, 3, COARSE_MM)
    after = contents(tmp_path)
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }
    for name in ("ct.nii.gz", "labels.nii.gz", "phantom.json"):
        assert after[f"phantom-0001/{name}"] == before[f"phantom-0001/{name}"]


def test_two_folders_get_the_same_bytes_and_more_cases_change_none(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "one", 1, 3, COARSE_MM)
    write_phantoms(tmp_path / "two", 2, 3, COARSE_MM)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    for name, (data, _) in one.items():
        if name != "cases.csv":
            assert two[name][0] == data, name
    assert two["phantom-0001/ct.nii.gz"][0] != two["phantom-0002/ct.nii.gz"][0]


@pytest.mark.parametrize("harm", ["truncate", "remove", "no_note", "torn_note", "other_spacing"])
def test_what_does_not_stand_is_made_anew(tmp_path: Path, harm: str) -> None:
    write_phantoms(tmp_path, 1, 3, COARSE_MM)
    before = contents(tmp_path)
    folder = tmp_path / "phantom-0001"
    if harm == "truncate":
        (folder / "ct.nii.gz").write_bytes(before["phantom-0001/ct.nii.gz"][0][:1000])
    elif harm == "remove":
        (folder / "labels.nii.gz").unlink()
    elif harm == "no_note":
        (folder / "phantom.json").unlink()
    elif harm == "torn_note":
        (folder / "phantom.json").write_text("{", encoding="utf-8")
    else:
        write_phantoms(tmp_path, 1, 3, (5.5, 6.0, 6.0))
    write_phantoms(tmp_path, 1, 3, COARSE_MM)
    after = contents(tmp_path)
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }


def test_nifti_of_an_oblique_volume_keeps_its_place(tmp_path: Path) -> None:
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [1.0, 2.0, 3.0]
    affine[:3, 3] = [10.0, -20.0, 30.0]
    volume = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    write_nifti(tmp_path / "v.nii.gz", volume)
    image = nib.load(tmp_path / "v.nii.gz")
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ image.get_qform(), affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[3, 2, 1], volume.array[1, 2, 3])


@pytest.mark.parametrize(("cases", "seed"), [(0, 1), (1, -1)])
def test_impossible_requests_are_refused(tmp_path: Path, cases: int, seed: int) -> None:
    with pytest.raises(ConfigError) as caught:
        write_phantoms(tmp_path / "none", cases, seed)
    assert caught.value.code == "bad_phantoms"
    assert not (tmp_path / "none").exists()
