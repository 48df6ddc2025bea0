"""What `paxray scan` says at its end, and that it leaves nothing behind where it found nothing."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from paxray.cli import app
from paxray.io.cases import read_case_table

SHAPE = (12, 12, 6)


def scan(folder: Path, table: Path) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["scan", str(folder), "-o", str(table)])
    return told.exit_code, told.output


def write(path: Path, array: np.ndarray, shift_mm: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = shift_mm
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def test_masks_that_are_not_used_are_counted_at_the_end(tmp_path: Path) -> None:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:9, 3:9] = 40
    for name, shift_mm in (("a", 0.0), ("b", 0.4)):
        write(tmp_path / "cts" / name / "ct.nii.gz", hu)
        write(tmp_path / "cts" / name / "seg" / "heart.nii.gz", (hu > 0).astype(np.uint8), shift_mm)
    code, text = scan(tmp_path / "cts", tmp_path / "cases.csv")
    assert code == 0, text
    assert "2 CTs of 2 patients, 1 with masks" in text
    assert "masks that were not used, for the reasons above: 1" in text
    assert "if its pipeline says so: 1" in text


@pytest.mark.parametrize(
    ("folder", "beside", "vocabulary", "words"),
    [
        ("plain", "labels: {1: aorta}", "plain/found.yaml", ""),
        ("dose=5", "labels: {1: aorta}", None, "cannot stand in a case table; rename the folder"),
        ("dose=5", None, "totalsegmentator_v2", ""),
        ("plain", "foo: bar", "totalsegmentator_v2", "is no vocabulary: its values are read by totalseg"),
        ("plain", "labels: {1: aotra}", None, "cannot be used"),
        ("plain", "labels: {1: aorta", None, "cannot be used: is not sound YAML"),
    ],
)
def test_what_lies_beside_a_label_map_concerns_that_map_alone(
    tmp_path: Path, folder: str, beside: str | None, vocabulary: str | None, words: str
) -> None:
    """Its own vocabulary, or none and why; never another one's without a word, and the other CT keeps its row."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:9, 3:9] = 40
    write(tmp_path / "other" / "ct.nii.gz", hu, 0.4)
    write(tmp_path / folder / "ct.nii.gz", hu)
    write(tmp_path / folder / "found.nii.gz", 3 * (hu > 0).astype(np.uint8))
    if beside is not None:
        (tmp_path / folder / "found.yaml").write_text(beside)
    code, text = scan(tmp_path, tmp_path / "cases.csv")
    assert code == 0, text
    cases = {case.ct_where: case for case in read_case_table(tmp_path / "cases.csv")}
    assert set(cases) == {f"{folder}/ct.nii.gz", "other/ct.nii.gz"}
    masks = [(mask.where, mask.vocabulary) for mask in cases[f"{folder}/ct.nii.gz"].masks]
    assert masks == ([] if vocabulary is None else [(f"{folder}/found.nii.gz", vocabulary)])
    assert words in " ".join(text.split())
    assert ("note" in text) == bool(words)


@pytest.mark.parametrize(
    ("ct", "mask", "odd"),
    [
        ("odd;name/ct.nii.gz", "odd;name/labels.nii.gz", "odd;name/ct.nii.gz"),
        ("one/ct;2.nii.gz", "one/labels.nii.gz", "one/ct;2.nii.gz"),
        ("one/ct.nii.gz", "one/labels;2.nii.gz", "one/labels;2.nii.gz"),
        ("one/ct.nii.gz", "one/seg;2/heart.nii.gz", "one/seg;2"),
    ],
)
def test_a_path_that_no_table_can_name_costs_that_file_alone(
    tmp_path: Path, ct: str, mask: str, odd: str
) -> None:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:9, 3:9] = 40
    write(tmp_path / "other" / "ct.nii.gz", hu, 0.4)
    write(tmp_path / ct, hu)
    write(tmp_path / mask, (hu > 0).astype(np.uint8))
    code, text = scan(tmp_path, tmp_path / "cases.csv")
    assert code == 0, text
    assert f"note {odd}: left out: its path cannot stand in a case table; rename the folder or file" in text
    assert ("masks that were not used, for the reasons above: 1" in text) == (odd != ct)
    assert ("1 CT of 1 patient, 0 with masks" in text) == (odd == ct)
    masks = {case.ct_where: case.masks for case in read_case_table(tmp_path / "cases.csv")}
    assert masks == {"other/ct.nii.gz": ()} | ({} if odd == ct else {ct: ()})


def test_a_whole_tree_below_an_odd_name_is_scanned_from_within(tmp_path: Path) -> None:
    """What counts is the path from the table."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:9, 3:9] = 40
    write(tmp_path / "odd;name" / "one" / "ct.nii.gz", hu)
    code, text = scan(tmp_path / "odd;name", tmp_path / "odd;name" / "cases.csv")
    assert (code, "note" in text) == (0, False), text


def test_no_ct_no_table(tmp_path: Path) -> None:
    (tmp_path / "cts").mkdir()
    code, text = scan(tmp_path / "cts", tmp_path / "cases.csv")
    assert code == 2, text
    assert "no CT found" in text
    assert not (tmp_path / "cases.csv").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_a_ct_that_was_left_out_is_not_said_to_be_missing(tmp_path: Path, count: int) -> None:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:9, 3:9] = 40
    for n in range(count):
        write(tmp_path / f"odd;{n}" / "ct.nii.gz", hu, 0.1 * n)
    told = CliRunner().invoke(app, ["scan", str(tmp_path), "-o", str(tmp_path / "cases.csv"), "--json"])
    assert told.exit_code == 2, told.output
    error = json.loads(told.stdout)["error"]
    assert error["code"] == "unnamable_ct"
    assert error["found"].startswith("odd;0/ct.nii.gz: left out: its path cannot stand in a case table")
    assert error["found"].endswith("; and 2 more") == (count == 3)
    assert told.stderr.count("note odd;") == count
    assert "no CT found" not in told.stderr
    assert not (tmp_path / "cases.csv").exists()
