"""What every exporter keeps: inherit from `ExporterConformance`, say how to write and how to read back."""

from __future__ import annotations

import json
import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_fixture import PLAIN, FakeCase, make_dataset

from paxray.dataset.checksums import canonical_files
from paxray.dataset.layout import Layout
from paxray.dataset.reader import Dataset
from paxray.errors import ConfigError, DamageError
from paxray.export.folder import MARKER
from paxray.files import sha256_of


@dataclass(frozen=True)
class ReadBack:
    """A sample as an export's own readers see it: grey picture, and the masks of classes with pixels."""

    image: np.ndarray
    masks: dict[str, np.ndarray]


def hashes(folder: Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file in a folder."""
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


class StoppedError(Exception):
    """Raised by a test in the middle of an export."""


class ExporterConformance(ABC):
    """Inherit, implement `export` and `read`, and name the class ``Test...``."""

    @abstractmethod
    def export(
        self, dataset: Dataset, out: Path | None, on_sample: Callable[[str], None] | None = None
    ) -> Any:
        """Run the exporter; return its `ExportResult`."""

    @abstractmethod
    def read(self, folder: Path) -> dict[str, ReadBack]:
        """Every sample of an export by its id, read with the format's own tools."""

    @pytest.fixture
    def dataset(self, plain_dataset: Path) -> Dataset:
        return Dataset(plain_dataset)

    @pytest.fixture
    def exported(self, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
        return self.export(dataset, tmp_path_factory.mktemp("exported") / "out")

    def test_same_samples(self, dataset: Dataset, exported: Any) -> None:
        back = self.read(exported.folder)
        assert sorted(back) == sorted(dataset.ids)
        assert exported.images == len(dataset)

    def test_images_and_masks_bit_for_bit(self, dataset: Dataset, exported: Any) -> None:
        back = self.read(exported.folder)
        for sample in dataset:
            np.testing.assert_array_equal(back[sample.id].image, sample.image)
            stored = {name: mask for name, mask in sample.masks.items() if mask.any()}
            assert back[sample.id].masks.keys() == stored.keys()
            for name, mask in stored.items():
                np.testing.assert_array_equal(back[sample.id].masks[name], mask, err_msg=name)

    def test_deterministic(self, dataset: Dataset, exported: Any, tmp_path: Path) -> None:
        again = self.export(dataset, tmp_path / "elsewhere" / "again")
        assert hashes(again.folder) == hashes(exported.folder)

    def test_no_paths_or_host(self, dataset: Dataset, exported: Any) -> None:
        secrets = [str(dataset.root), str(exported.folder), str(Path.home()), platform.node()]
        for path in exported.folder.rglob("*"):
            if path.is_file() and path.suffix != ".png":
                content = path.read_bytes()
                assert not [s for s in secrets if len(s) > 4 and s.encode() in content], path.name

    def test_default_place_is_below_the_data_set_and_no_part_of_it(self, tmp_path: Path) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set"))
        before = {path: sha256_of(path) for path in canonical_files(Layout(dataset.root))}
        result = self.export(dataset, None)
        assert result.folder.parent == dataset.root / "exports"
        assert {path: sha256_of(path) for path in canonical_files(Layout(dataset.root))} == before

    def test_failure_leaves_nothing(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(StoppedError):
            self.export(dataset, tmp_path / "out", self._stop_at(2))
        assert list(tmp_path.iterdir()) == []

    def test_failure_keeps_the_old_export(self, dataset: Dataset, tmp_path: Path) -> None:
        before = hashes(self.export(dataset, tmp_path / "out").folder)
        with pytest.raises(StoppedError):
            self.export(dataset, tmp_path / "out", self._stop_at(2))
        assert hashes(tmp_path / "out") == before
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_a_second_call_replaces(self, dataset: Dataset, tmp_path: Path) -> None:
        out = self.export(dataset, tmp_path / "out").folder
        before = hashes(out)
        (out / "stale.txt").write_text("left by something older")
        self.export(dataset, out)
        assert hashes(out) == before
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_what_a_killed_run_left_is_cleared(self, dataset: Dataset, exported: Any, tmp_path: Path) -> None:
        partial = tmp_path / ".out.partial"
        (partial / "images").mkdir(parents=True)
        (partial / "images" / "half.png").write_bytes(b"half")
        assert hashes(self.export(dataset, tmp_path / "out").folder) == hashes(exported.folder)
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_killed_between_the_renames(self, dataset: Dataset, exported: Any, tmp_path: Path) -> None:
        shutil.copytree(exported.folder, tmp_path / ".out.previous")
        with pytest.raises(StoppedError):
            self.export(dataset, tmp_path / "out", self._stop_at(1))
        assert hashes(tmp_path / "out") == hashes(exported.folder)

    def test_two_at_once(self, dataset: Dataset, tmp_path: Path) -> None:
        refused = []

        def second(_: str) -> None:
            with pytest.raises(ConfigError) as caught:
                self.export(dataset, tmp_path / "out")
            refused.append(caught.value.code)

        self.export(dataset, tmp_path / "out", second)
        assert set(refused) == {"busy"}
        assert (tmp_path / "out" / MARKER).exists()

    def test_refuses_to_replace_what_is_no_export(self, dataset: Dataset, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
        with pytest.raises(ConfigError, match="no export"):
            self.export(dataset, tmp_path / "thesis")
        assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"

    @pytest.mark.parametrize(("key", "value"), [("format", "another"), ("dataset", "another")])
    def test_refuses_to_replace_another_export(
        self, dataset: Dataset, tmp_path: Path, key: str, value: str
    ) -> None:
        out = self.export(dataset, tmp_path / "out").folder
        told = json.loads((out / MARKER).read_text())
        (out / MARKER).write_text(json.dumps(told | {key: value}))
        before = hashes(out)
        with pytest.raises(ConfigError, match="another export lies there") as caught:
            self.export(dataset, out)
        assert caught.value.code == "other_export"
        assert hashes(out) == before
        # Made by an older version it is the same export.
        (out / MARKER).write_text(json.dumps(told | {"paxray": "0.0.1"}))
        self.export(dataset, out)
        assert json.loads((out / MARKER).read_text()) == told

    @pytest.mark.parametrize("where", ["", "..", "samples", "labels/coco"])
    def test_refuses_the_data_sets_own_files(self, dataset: Dataset, where: str) -> None:
        before = hashes(dataset.root)
        with pytest.raises(ConfigError) as caught:
            self.export(dataset, dataset.root / where)
        assert caught.value.code == "place"
        assert hashes(dataset.root) == before

    def test_no_masks_at_all(self, tmp_path: Path) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set", [FakeCase("empty", empty=True)]))
        result = self.export(dataset, tmp_path / "out")
        assert result.annotations == 0
        assert {k: v.masks for k, v in self.read(result.folder).items()} == {name: {} for name in dataset.ids}

    def test_parallel_beam(self, tmp_path: Path) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set", PLAIN[:1], beam="parallel"))
        assert sorted(self.read(self.export(dataset, tmp_path / "out").folder)) == sorted(dataset.ids)

    @pytest.mark.parametrize("cases", [[], [FakeCase("bad", message="unreadable")]], ids=["none", "failed"])
    def test_no_samples(self, tmp_path: Path, cases: list[FakeCase]) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set", cases))
        with pytest.raises(ConfigError) as caught:
            self.export(dataset, tmp_path / "out")
        assert caught.value.code == "no_samples"
        assert not (tmp_path / "out").exists()

    def test_refuses_an_unfinished_build(self, tmp_path: Path) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set", PLAIN, finished=False))
        with pytest.raises(ConfigError) as caught:
            self.export(dataset, tmp_path / "out")
        assert caught.value.code == "unfinished"

    def test_refuses_a_part(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            self.export(Dataset(dataset.root, "train"), tmp_path / "out")
        assert caught.value.code == "split"

    @pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", ".hidden", "a b", "x\n", "<script>"])
    def test_file_names_cannot_escape(self, tmp_path: Path, name: str) -> None:
        dataset = Dataset(make_dataset(tmp_path / "set", [FakeCase(name)]))
        with pytest.raises(DamageError) as caught:
            self.export(dataset, tmp_path / "deep" / "er" / "out")
        assert caught.value.code == "unsafe_name"
        assert not list(tmp_path.rglob("*escaped*"))

    def test_each_sample_is_told(self, dataset: Dataset, tmp_path: Path) -> None:
        told: list[str] = []
        self.export(dataset, tmp_path / "out", told.append)
        assert sorted(told) == sorted(dataset.ids)

    @staticmethod
    def _stop_at(count: int) -> Callable[[str], None]:
        seen = []

        def stop(name: str) -> None:
            seen.append(name)
            if len(seen) == count:
                raise StoppedError

        return stop
