"""The segmenters that need no weights keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from paxray.io.cases import MaskSource
from paxray.io.nifti import write_nifti
from paxray.io.volume import Volume
from paxray.phantom.thorax import make_phantom
from paxray.segmentation.conformance import SegmenterConformance


class TestThorax(SegmenterConformance):
    name = "thorax"


class TestFiles(SegmenterConformance):
    name = "files"

    @pytest.fixture(scope="class")
    @classmethod
    def masks(cls, ct: Volume, base: Path) -> tuple[MaskSource, ...]:
        path = base / "masks.nii.gz"
        write_nifti(path, make_phantom(7, (5.0, 5.0, 5.0)).labels)
        return (MaskSource(path, "phantom", path.name),)
