"""Scanning finds DICOM SEG, RTSTRUCT and .seg.nrrd, and whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from io_files import ct_array, write_nifti
from segment_files import (
    plain_affine,
    segment_item,
    write_ct_series,
    write_rtstruct,
    write_seg,
    write_seg_nrrd,
)

from paxray import api
from paxray.anatomy.catalog import load_catalog
from paxray.io.ct import read_ct
from paxray.io.scan import ScanResult, scan
from paxray.segmentation.named import recogniser

SHAPE = (5, 7, 6)
CATALOG = load_catalog()
MASK = np.random.default_rng(0).random(SHAPE) < 0.4


def run(folder: Path) -> ScanResult:
    return scan(folder, key="secret", known_segment=recogniser(CATALOG))


def found(result: ScanResult) -> dict[str, list[tuple[str, str]]]:
    return {
        case.ct_where: [(source.where, source.vocabulary) for source in case.masks] for case in result.cases
    }


def codes(result: ScanResult) -> dict[str, str]:
    return {note.where: note.code for note in result.notes}


def seg(path: Path, label: str = "heart", **options: str) -> Path:
    frames = [(1, k, plane) for k, plane in enumerate(MASK)]
    return write_seg(path, frames, [segment_item(1, label)], plain_affine(), **options)


def slicer(path: Path, *names: str) -> Path:
    segments = [{"Name": name, "LabelValue": "1", "Layer": str(n)} for n, name in enumerate(names)]
    layers = np.stack([MASK] * len(names)).astype(np.uint8)
    return write_seg_nrrd(path, layers, plain_affine(), segments)


def test_a_ct_folder_with_its_segmentations_is_a_ct_with_masks(tmp_path):
    write_ct_series(tmp_path / "p" / "ct", SHAPE, plain_affine())
    alone = read_ct(tmp_path / "p" / "ct")
    seg(tmp_path / "p" / "ct" / "zz.dcm")
    write_rtstruct(tmp_path / "p" / "ct" / "000-first", {"liver": []})
    np.testing.assert_array_equal(read_ct(tmp_path / "p" / "ct").array, alone.array)
    result = run(tmp_path)
    assert found(result) == {"p/ct": [("p/ct/000-first", "by_name"), ("p/ct/zz.dcm", "by_name")]}
    assert result.notes == ()
    labels = api.read_masks([source.path for source in result.cases[0].masks], alone)
    np.testing.assert_array_equal(labels.mask("heart"), MASK)
    assert "MRN-12345" not in repr(result)
    assert "Doe" not in repr(result)


def test_series_go_together_wherever_they_lie(tmp_path):
    """As an archive hands them out: a folder per series, of one lattice and one frame of reference."""
    for uid in ("1.1", "1.2"):
        write_ct_series(tmp_path / f"ct{uid}", SHAPE, plain_affine(), uid=uid)
        seg(tmp_path / "elsewhere" / f"seg{uid}" / "1-1.dcm", series=uid)
        write_rtstruct(tmp_path / "structures" / f"rs{uid}" / "1-1.dcm", {"liver": []}, series=uid)
    result = run(tmp_path)
    assert found(result) == {
        f"ct{uid}": [
            (f"elsewhere/seg{uid}/1-1.dcm", "by_name"),
            (f"structures/rs{uid}/1-1.dcm", "by_name"),
        ]
        for uid in ("1.1", "1.2")
    }
    assert result.notes == ()


def test_what_has_no_ct_or_no_class_or_two_cts_is_said(tmp_path):
    for uid in ("1.1", "1.2"):
        write_ct_series(tmp_path / f"ct{uid}", SHAPE, plain_affine(), uid=uid)
    seg(tmp_path / "a" / "lost.dcm", series="9.9", frame_of_reference="8.8")
    seg(tmp_path / "a" / "frame.dcm", series="9.9")
    seg(tmp_path / "a" / "unnamed.dcm", "Segment_1", series="1.1")
    write_rtstruct(tmp_path / "b" / "some.dcm", {"liver": [], "PTV": []}, series="1.2")
    seg(tmp_path / "c" / "broken.dcm").write_bytes(seg(tmp_path / "c" / "broken.dcm").read_bytes()[:900])
    result = run(tmp_path)
    assert codes(result) == {
        "a/lost.dcm": "no_ct",
        "a/frame.dcm": "ambiguous",
        "a/unnamed.dcm": "unknown_class",
        "b/some.dcm": "unknown_class",
        "c/broken.dcm": "unreadable",
    }
    # Some of it means something, and what does not is for a vocabulary to settle.
    assert found(result) == {"ct1.1": [], "ct1.2": [("b/some.dcm", "by_name")]}


def test_beside_a_converted_ct_the_lattice_decides_and_contours_are_left_out(tmp_path):
    write_nifti(tmp_path / "p" / "ct.nii.gz", ct_array(SHAPE), plain_affine())
    elsewhere = plain_affine()
    elsewhere[0, 3] += 1.1
    write_nifti(tmp_path / "q" / "ct.nii.gz", ct_array(SHAPE), elsewhere)
    for name in ("p", "q"):
        seg(tmp_path / name / "seg.dcm")
    write_rtstruct(tmp_path / "p" / "rs.dcm", {"liver": []})
    result = run(tmp_path)
    assert found(result) == {"p/ct.nii.gz": [("p/seg.dcm", "by_name")], "q/ct.nii.gz": []}
    assert codes(result) == {"q/seg.dcm": "mask_mismatch", "p/rs.dcm": "no_ct"}


@pytest.mark.parametrize("name", ["Segmentation.seg.nrrd", "ct.seg.nrrd"])
def test_slicers_file_beside_an_image(tmp_path, name):
    write_nifti(tmp_path / "p1" / "ct.nii.gz", ct_array(SHAPE), plain_affine())
    slicer(tmp_path / "p1" / name, "Right Lung", "heart")
    result = run(tmp_path)
    assert found(result) == {"p1/ct.nii.gz": [(f"p1/{name}", "by_name")]}
    assert result.notes == ()


def test_slicers_files_of_patients_in_one_folder_go_by_name(tmp_path):
    for n in (1, 2):
        write_nifti(tmp_path / "images" / f"case{n}.nii.gz", ct_array(SHAPE, n), plain_affine())
        slicer(tmp_path / "masks" / f"case{n}.seg.nrrd", "heart")
    assert found(run(tmp_path)) == {
        f"images/case{n}.nii.gz": [(f"masks/case{n}.seg.nrrd", "by_name")] for n in (1, 2)
    }
