"""Fixtures that every part's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CTs, or a skip that says how to get it."""
    folder = os.environ.get("PAXRAY_REAL_DATA", "")
    if not folder:
        pytest.skip("PAXRAY_REAL_DATA is unset: it names the folder that holds lidc-idri-0001/ and others")
    path = Path(folder)
    if not (path / "lidc-idri-0001").is_dir():
        pytest.fail(f"PAXRAY_REAL_DATA is set but {path}/lidc-idri-0001 does not exist")
    return path
