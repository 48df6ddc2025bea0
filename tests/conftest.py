"""Fixtures that every part's tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from once import made_once

if TYPE_CHECKING:
    from paxray.config import Pipeline


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


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share; who writes to it takes a lock there (`locked`)."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def phantom_table(run_folder: Path) -> Path:
    """The case table of four coarse phantoms; no test changes it or what lies beside it."""

    def make(folder: Path) -> None:
        from paxray.phantom.write import write_phantoms

        assert write_phantoms(folder, 4, 7, spacing_mm=(5.0, 5.0, 5.0)) == folder / "cases.csv"

    return made_once(run_folder / "phantoms", make) / "cases.csv"


@pytest.fixture(scope="session")
def small_pipeline() -> Pipeline:
    """Two small views, two cases a shard."""
    from paxray.config import parse_pipeline

    return parse_pipeline(
        {
            "name": "small",
            "views": ["pa", "lateral_left"],
            "geometry": {"rows": 96, "columns": 80},
            "shard_cases": 2,
        }
    )


@pytest.fixture(scope="session")
def lean_pipeline(small_pipeline: Pipeline) -> Pipeline:
    """`small_pipeline` with few classes: for what a build does with cases and shards, whatever they hold."""
    from paxray.config import parse_pipeline

    classes = ["body", "heart", "liver", "spleen", "lungs", "lung_left", "lung_right", "ribs", "skull"]
    return parse_pipeline(small_pipeline.effective() | {"labels": {"classes": classes}})


@pytest.fixture(scope="session")
def built(run_folder: Path, phantom_table: Path, small_pipeline: Pipeline) -> Path:
    """A built data set; tests that change it copy it first."""

    def make(folder: Path) -> None:
        from paxray.api import build

        assert not build(small_pipeline, phantom_table, folder / "dataset").failed

    return made_once(run_folder / "built", make) / "dataset"


@pytest.fixture
def fake_segmenter(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install the segmenter ``fake``; the calls that it gets."""
    import fake_segmenter

    monkeypatch.syspath_prepend(fake_segmenter.install(tmp_path_factory.mktemp("installed")))
    fake_segmenter.CALLS.clear()
    return fake_segmenter.CALLS
