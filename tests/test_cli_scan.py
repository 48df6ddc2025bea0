"""What `paxray scan` says at its end, and that it leaves nothing behind where it found nothing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from typer.testing import CliRunner

from paxray.cli import app

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


def test_no_ct_no_table(tmp_path: Path) -> None:
    (tmp_path / "cts").mkdir()
    code, text = scan(tmp_path / "cts", tmp_path / "cases.csv")
    assert code == 2, text
    assert "no CT found" in text
    assert not (tmp_path / "cases.csv").exists()
