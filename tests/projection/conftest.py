"""What the projectors' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_host import Builds


@pytest.fixture(scope="session")
def builds(run_folder: Path) -> Builds:
    """The CUDA kernels built for the host, each variant once in a test run."""
    return Builds(run_folder / "march")
