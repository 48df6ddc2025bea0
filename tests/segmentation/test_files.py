"""Masks that exist already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paxray import api
from paxray.errors import CaseError
from paxray.io.nifti import write_nifti
from paxray.io.volume import Volume


def test_two_files_that_mean_one_class_are_refused(tmp_path: Path) -> None:
    """By a name and by its synonym: neither is passed over in silence."""
    ct = Volume(np.zeros((4, 5, 6), np.int16), np.eye(4))
    mask = np.zeros(ct.shape, np.uint8)
    mask[1, 2, 3] = 1
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("esophagus", "oesophagus"):
        write_nifti(folder / f"{name}.nii.gz", Volume(mask, ct.affine))
    with pytest.raises(CaseError, match="same class, 'esophagus'") as caught:
        api.read_masks(f"{folder}=by_name", ct)
    assert "oesophagus.nii.gz" in caught.value.found
