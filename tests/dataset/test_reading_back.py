"""The table of a sample's attributes in the documentation, tried on a data set."""

from __future__ import annotations

import re
from pathlib import Path

from dataset_fixture import make_dataset

import paxray

PAGE = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Reading it back\n")[1].split("\n## ")[0]


def test_every_attribute_and_index_is_as_documented(tmp_path: Path) -> None:
    sample = paxray.load(make_dataset(tmp_path / "set"))[0]
    cells = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("| `")]
    names = re.findall(r"`(\w+)", " ".join(cells))
    assert len(names) > 15
    assert all(hasattr(sample, name) for name in names)
    documented = re.findall(r"\| `(\w+)` \| pandas table, index (\(.+?\)|`\w+`)", SECTION)
    assert len(documented) == 5
    for name, index in documented:
        assert re.findall(r"\w+", index) == list(getattr(sample, name).index.names)
    assert sample.facts.loc["heart", "area_px"] == sample.masks["heart"].sum()
    assert "class" in sample.facts.reset_index().columns
