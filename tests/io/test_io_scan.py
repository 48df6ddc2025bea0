"""Scanning a folder: which CTs, which masks, whose, and what is said of the rest."""

from __future__ import annotations

import shutil

import nibabel
import numpy as np
import pytest
from io_files import ct_array, write_itk, write_nifti, write_series

from paxray.anatomy.catalog import load_catalog
from paxray.errors import ConfigError
from paxray.io.cases import read_case_table, write_case_table
from paxray.io.ct import read_ct
from paxray.io.naming import is_general, own_words, patient_name, slug
from paxray.io.scan import scan
from paxray.segmentation.files import read_masks
from paxray.segmentation.named import recogniser

SHAPE = (6, 16, 16)
CLASSES = ("liver", "spleen", "heart")


def affine(origin: float = 0.0) -> np.ndarray:
    out = np.diag([0.75, 0.75, 2.5, 1.0])
    out[:3, 3] = -50, -60, origin
    return out


def ct(path, origin: float = 0.0):
    return write_nifti(path, ct_array(SHAPE), affine(origin))


def mask(path, origin: float = 0.0, dtype=np.uint8, value: int = 3):
    array = np.zeros(SHAPE, dtype)
    array[1:5, 3:12, 3:12] = value
    return write_nifti(path, array, affine(origin))


def run(folder, **options):
    return scan(folder, key="secret", known_classes=CLASSES, **options)


def summary(result):
    return {
        case.ct_where: (case.patient_id, [(source.where, source.vocabulary) for source in case.masks])
        for case in result.cases
    }


def codes(result):
    return {note.where: note.code for note in result.notes}


def test_a_folder_per_patient(tmp_path):
    for n in range(3):
        ct(tmp_path / f"s{n}" / "ct.nii.gz", 10 * n)
        for name in CLASSES:
            mask(tmp_path / f"s{n}" / "segmentations" / f"{name}.nii.gz", 10 * n, value=1)
        (tmp_path / f"s{n}" / "segmentations" / "statistics.json").write_text("{}")
    result = run(tmp_path)
    assert summary(result) == {
        f"s{n}/ct.nii.gz": (f"s{n}", [(f"s{n}/segmentations", "by_name")]) for n in range(3)
    }
    assert result.notes == ()
    assert [case.case_id for case in result.cases] == ["s0_ct", "s1_ct", "s2_ct"]


@pytest.mark.parametrize(
    ("ct_name", "mask_name"),
    [
        ("imagesTr/case_{}_0000.nii.gz", "labelsTr/case_{}.nii.gz"),
        ("volume-{}.nii", "segmentation-{}.nii"),
        ("RibFrac{}-image.nii.gz", "RibFrac{}-label.nii.gz"),
        ("images/p{}/ct.nii.gz", "masks/p{}/seg.nii.gz"),
    ],
)
def test_names_decide_where_all_patients_share_one_lattice(tmp_path, ct_name, mask_name):
    for n in (11, 12, 13):
        ct(tmp_path / ct_name.format(n))
        mask(tmp_path / mask_name.format(n), dtype=np.int16)
    result = run(tmp_path, default_vocabulary="mine")
    found = summary(result)
    assert len({patient for patient, _ in found.values()}) == 3
    for n in (11, 12, 13):
        assert found[ct_name.format(n)][1] == [(mask_name.format(n), "mine")]
    assert result.notes == ()


def test_copies_in_a_patients_folder_are_cases_of_one_patient(tmp_path):
    ct(tmp_path / "p1" / "ct.nii.gz")
    write_nifti(tmp_path / "p1" / "ct_5mm.nii.gz", ct_array((3, 4, 4)), np.diag([3.0, 3, 5, 1]))
    mask(tmp_path / "p1" / "total.nii.gz")
    result = run(tmp_path)
    assert summary(result) == {
        "p1/ct.nii.gz": ("p1", [("p1/total.nii.gz", "totalsegmentator_v2")]),
        "p1/ct_5mm.nii.gz": ("p1", []),
    }


def test_dicom_patients_are_hashed_under_the_key(tmp_path):
    hu = ct_array(SHAPE)
    write_series(tmp_path / "a" / "ser", hu, affine(), uid="1.1")
    write_series(tmp_path / "b", hu, affine(100), uid="1.2")
    mask(tmp_path / "a" / "total.nii.gz")
    result = run(tmp_path)
    one, two = sorted(result.cases, key=lambda case: case.ct_where)
    assert (one.ct_where, two.ct_where) == ("a/ser", "b")
    assert one.patient_id == two.patient_id  # the same PatientID
    assert one.case_id != two.case_id
    assert [source.where for source in one.masks] == ["a/total.nii.gz"]
    assert "MRN-12345" not in repr(result)
    assert "Doe" not in repr(result)
    other = scan(tmp_path, key="another")
    assert {case.patient_id for case in other.cases}.isdisjoint({one.patient_id})
    assert run(tmp_path) == result


def test_dicom_without_patient_ids_stays_apart(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, ct_array(SHAPE), affine(), PatientID="", SeriesInstanceUID="")
    assert len({case.patient_id for case in run(tmp_path).cases}) == 2


def test_what_is_not_understood_is_said(tmp_path):
    ct(tmp_path / "p" / "ct.nii.gz")
    mask(tmp_path / "p" / "off.nii.gz", origin=1.0)
    mask(tmp_path / "q" / "lonely.nii.gz")
    noise = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    write_nifti(tmp_path / "p" / "mr.nii.gz", noise, affine())
    write_nifti(tmp_path / "p" / "prob.nii.gz", np.random.default_rng(0).random(SHAPE), affine())
    (tmp_path / "p" / "broken.nii.gz").write_bytes(b"x")
    write_series(tmp_path / "gap", ct_array(SHAPE), affine(), skip=(2,))
    write_series(tmp_path / "two", ct_array(SHAPE), affine(), uid="1.1")
    shutil.copytree(
        write_series(tmp_path / "x", ct_array((3, 4, 4)), affine(), uid="1.2", seed=9), tmp_path / "y"
    )
    for file in (tmp_path / "x").iterdir():
        file.rename(tmp_path / "two" / f"x{file.name}")
    write_series(tmp_path / "pet", ct_array(SHAPE), affine(), SOPClassUID="1.2.840.10008.5.1.4.1.1.128")
    result = run(tmp_path)
    assert codes(result) == {
        "p/off.nii.gz": "mask_mismatch",
        "q/lonely.nii.gz": "no_ct",
        "p/mr.nii.gz": "not_understood",
        "p/prob.nii.gz": "not_understood",
        "p/broken.nii.gz": "unreadable",
        "gap": "uneven_slices",
        "two": "several_series",
        "pet": "no_ct_series",
    }
    assert summary(result)["p/ct.nii.gz"] == ("p", [])
    assert all(note.message for note in result.notes)


def test_a_vocabulary_is_not_assumed_for_two_files(tmp_path):
    ct(tmp_path / "p" / "ct.nii.gz")
    mask(tmp_path / "p" / "total.nii.gz")
    mask(tmp_path / "p" / "vessels.nii.gz")
    result = run(tmp_path)
    assert summary(result)["p/ct.nii.gz"][1] == []
    assert set(codes(result).values()) == {"vocabulary_unknown"}
    mask(tmp_path / "p" / "heart.nii.gz", value=1)
    assert summary(run(tmp_path))["p/ct.nii.gz"][1] == [("p/heart.nii.gz", "by_name")]


def test_a_label_map_is_read_by_the_vocabulary_beside_it(tmp_path):
    """As `paxray segment` writes it: by TotalSegmentator's its values would mean other classes."""
    ct(tmp_path / "my cts" / "p" / "ct.nii.gz")
    found = mask(tmp_path / "my cts" / "p" / "found.nii.gz", value=1)
    (tmp_path / "my cts" / "p" / "found.yaml").write_text("labels: {1: aorta}")
    result = run(tmp_path / "my cts")
    table = tmp_path / "tables" / "cases.csv"
    write_case_table(table, result.cases)
    assert "../my cts/p/found.nii.gz,../my cts/p/found.yaml," in table.read_text()
    [case] = read_case_table(table)
    grid = read_ct(case.ct).grid
    labels = read_masks(case.masks, grid, load_catalog(), base=table.parent)
    assert labels.voxel_counts() == {"aorta": int(nibabel.load(found).get_fdata().sum())}
    write_case_table(tmp_path / "tables" / "again.csv", [case])
    assert (tmp_path / "tables" / "again.csv").read_text() == table.read_text(), (
        "blanks in paths come through"
    )


def test_two_cts_that_a_mask_fits_are_not_tossed_for(tmp_path):
    ct(tmp_path / "p" / "arterial.nii.gz")
    ct(tmp_path / "p" / "venous.nii.gz")
    mask(tmp_path / "p" / "total.nii.gz")
    result = run(tmp_path)
    assert codes(result) == {"p/total.nii.gz": "ambiguous"}
    mask(tmp_path / "p" / "venous_seg.nii.gz")
    assert summary(run(tmp_path))["p/venous.nii.gz"][1] == [("p/venous_seg.nii.gz", "totalsegmentator_v2")]


def test_a_class_that_nobody_knows_is_said(tmp_path):
    ct(tmp_path / "p" / "ct.nii.gz")
    for name in (*CLASSES, "tumour"):
        mask(tmp_path / "p" / "seg" / f"{name}.nii.gz", value=1)
    result = run(tmp_path)
    assert summary(result)["p/ct.nii.gz"][1] == [("p/seg", "by_name")]
    assert codes(result) == {"p/seg": "unknown_class"}


@pytest.mark.parametrize("others", [(), ("Herz",)])
def test_names_of_classes_count_in_any_case(tmp_path, others):
    """A folder comes in whole, as reading it takes it, and not by the one file that happens to be lower case."""
    ct(tmp_path / "p" / "ct.nii.gz")
    for name in ("heart", "LIVER", "Lung-Left", *others):
        mask(tmp_path / "p" / "segs" / f"{name}.nii.gz", value=1)
    result = scan(tmp_path, key="secret", known_segment=recogniser(load_catalog()))
    assert summary(result) == {"p/ct.nii.gz": ("p", [("p/segs", "by_name")])}
    assert codes(result) == ({"p/segs": "unknown_class"} if others else {})
    plain = scan(tmp_path, key="secret", known_classes=["heart", "liver", "lung-left"])
    assert summary(plain) == summary(result)


def test_the_ct_is_told_by_content_not_by_name(tmp_path):
    ct(tmp_path / "p" / "mask.nii.gz")
    mask(tmp_path / "p" / "ct.nii.gz", dtype=np.int16)
    write_itk(tmp_path / "q" / "liver.nrrd", ct_array(SHAPE), affine(50))
    found = summary(run(tmp_path))
    assert set(found) == {"p/mask.nii.gz", "q/liver.nrrd"}
    assert found["p/mask.nii.gz"][1] == [("p/ct.nii.gz", "totalsegmentator_v2")]


def test_air_that_comes_late_is_found(tmp_path):
    array = np.zeros((12, 16, 16), np.float32)
    array[-1] = -1000
    write_nifti(tmp_path / "p" / "a.nii.gz", array, affine())
    assert set(summary(run(tmp_path))) == {"p/a.nii.gz"}


def test_loops_dead_links_and_second_names_of_folders(tmp_path):
    ct(tmp_path / "p" / "ct.nii.gz")
    (tmp_path / "p" / "loop").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to(tmp_path / "p")
    (tmp_path / "dead.nii.gz").symlink_to(tmp_path / "gone")
    result = run(tmp_path)
    assert set(summary(result)) == {"p/ct.nii.gz"}
    assert codes(result) == {"p/loop": "seen_already", "a": "seen_already", "dead.nii.gz": "missing_file"}


def test_ids_are_unique_safe_and_a_table_takes_them(tmp_path):
    ct(tmp_path / "a b" / "ct.nii.gz")
    ct(tmp_path / "a-b" / "ct.nii.gz")
    write_itk(tmp_path / "a-b" / "ct.nrrd", ct_array(SHAPE), affine(50))
    ct(tmp_path / ("long" * 40) / "ct.nii.gz")
    ct(tmp_path / "é" / "ct.nii.gz")
    mask(tmp_path / "é" / "seg.nii.gz")
    cases = run(tmp_path).cases
    assert len({case.case_id for case in cases}) == 5
    write_case_table(tmp_path / "cases.csv", cases)
    assert read_case_table(tmp_path / "cases.csv") == list(cases)


def test_many_cts_of_one_folder_are_pointed_out(tmp_path):
    for n in range(9):
        ct(tmp_path / "hospital" / f"x{n}.nii.gz", 10 * n)
    result = run(tmp_path)
    assert {case.patient_id for case in result.cases} == {"hospital"}
    assert codes(result) == {"hospital": "one_patient"}


def test_no_folder_no_key(tmp_path):
    with pytest.raises(ConfigError):
        run(tmp_path / "none")
    with pytest.raises(ConfigError):
        scan(tmp_path, key="")


@pytest.mark.parametrize(
    ("folders", "stem", "name"),
    [
        (["p1"], "ct", "p1"),
        (["p1", "visit2"], "ct", "p1"),
        (["p1", "ses-01", "anat"], "ct", "p1"),
        (["train", "0012"], "image", "0012"),
        (["imagesTr"], "lung_003_0000", "lung-003"),
        ([], "volume-7", "7"),
        ([], "ct_2.5mm", "root"),
    ],
)
def test_patients_names(folders, stem, name):
    assert patient_name(folders, stem, "root") == name


def test_words():
    assert own_words("example_ct_2.5mm_v2") == ("example",)
    assert not is_general("scan_12")
    assert is_general("CT")
    assert slug("../../etc") == "etc"
    assert slug("") != ""


@pytest.mark.real
def test_real_folders(real_data):
    names = {file.name.removesuffix(".nii.gz") for file in real_data.rglob("example_seg_fast/*.nii.gz")}
    result = scan(real_data, key="secret", known_classes=names)
    found = {where: masks for where, (_, masks) in summary(result).items()}
    lidc, total = "lidc-idri-0001", "totalsegmentator-reference"
    assert found == {
        f"{lidc}/ct.nii.gz": [(f"{lidc}/totalsegmentator_v2.nii.gz", "totalsegmentator_v2")],
        f"{lidc}/ct_2.5mm.nii.gz": [(f"{lidc}/totalsegmentator_v2_2.5mm.nii.gz", "totalsegmentator_v2")],
        f"{total}/example_ct_dicom": [(f"{total}/example_seg_dicom.nii.gz", "totalsegmentator_v2")],
        f"{total}/example_ct_sm.nii.gz": [(f"{total}/example_seg_fast", "by_name")],
    }
    assert codes(result) == {f"{total}/example_seg_fast.nii.gz": "vocabulary_unknown"}
