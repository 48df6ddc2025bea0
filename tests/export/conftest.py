"""What the exporters' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_fixture import make_dataset


@pytest.fixture(scope="session")
def plain_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand-made data set with a failed case, an empty one and two licences."""
    return make_dataset(tmp_path_factory.mktemp("plain") / "set")
