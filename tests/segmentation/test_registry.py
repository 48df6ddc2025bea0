"""Segmenters by name: built in, and from installed packages by their entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from paxray.errors import ConfigError, ResourceError
from paxray.segmentation.registry import BUILT_IN, make_segmenter, segmenter_names

MODULE = """
from paxray.segmentation.contract import Segmenter, require_known_settings
class Mine(Segmenter):
    name = "mine"
    @classmethod
    def from_settings(cls, settings, base):
        require_known_settings("mine", settings, ["threshold_hu"])
        return cls()
    def classes(self, catalog): return ("body",)
    def identity(self): return {}
    def preflight(self, device): pass
    def segment(self, request): raise NotImplementedError
not_one = 3
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a package of this name that has these entry points, as pip leaves it on disk."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(package: str, points: str) -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[paxray.segmenters]\n{points}\n")
        (tmp_path / f"{package}.py").write_text(MODULE)
        sys.modules.pop(package, None)

    return installed


def test_a_package_offers_a_segmenter(install: Callable[[str, str], None]) -> None:
    install("segmenter_mine", "mine = segmenter_mine:Mine")
    assert "mine" in segmenter_names()
    assert type(make_segmenter("mine")).__name__ == "Mine"
    with pytest.raises(ConfigError, match="has no setting 'treshold_hu'") as caught:
        make_segmenter("mine", {"treshold_hu": 1})
    assert caught.value.do == "did you mean 'threshold_hu'?"


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="no segmenter 'torax'") as caught:
        make_segmenter("torax")
    assert caught.value.do == "did you mean 'thorax'?"
    assert caught.value.code == "unknown_segmenter"
    assert set(BUILT_IN) <= set(segmenter_names())


def test_no_package_takes_a_name_away(install: Callable[[str, str], None]) -> None:
    install("segmenter_thief", "thorax = segmenter_thief:Mine")
    with pytest.raises(ConfigError, match="several packages offer") as caught:
        make_segmenter("thorax")
    assert caught.value.found == "paxray, package segmenter_thief"


def test_what_cannot_be_used_says_whose_it_is(install: Callable[[str, str], None]) -> None:
    install("segmenter_odd", "gone = segmenter_not_there:Mine\nno_class = segmenter_odd:not_one")
    with pytest.raises(ResourceError, match="cannot be imported") as missing:
        make_segmenter("gone")
    assert missing.value.code == "package_missing"
    assert "segmenter_odd" in missing.value.where
    with pytest.raises(ConfigError, match="is no segmenter"):
        make_segmenter("no_class")
