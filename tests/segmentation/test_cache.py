"""Segmentations kept by processes that know nothing of each other; the rest of the cache is in test_checked.py."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import cache_race
import numpy as np
import pytest
from cache_race import KEYS, MADE_BY, segmentation

from paxray.anatomy.catalog import load_catalog
from paxray.segmentation.cache import LEFT_AFTER_S, SegmentationCache

CATALOG = load_catalog()


def test_processes_that_keep_one_entry_at_once_all_succeed(tmp_path: Path) -> None:
    """What stands in the end is whole, and one of theirs."""
    spawned, n_processes = multiprocessing.get_context("spawn"), 3
    barrier, told = spawned.Barrier(n_processes), spawned.Queue()
    workers = [
        spawned.Process(target=cache_race.keep_together, args=(barrier, told, tmp_path, n))
        for n in range(n_processes)
    ]
    for worker in workers:
        worker.start()
    assert [told.get(timeout=300) for _ in workers] == [[]] * n_processes
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    cache = SegmentationCache(tmp_path)
    kept = {cache.path_of(key, MADE_BY).name for key in KEYS}
    assert {path.name for path in tmp_path.iterdir()} == kept, "nothing hidden is left"
    for key in KEYS:
        found, complaint = cache.get(key, MADE_BY, segmentation(0).grid, CATALOG)
        assert found is not None, complaint
        theirs = [cache_race.drawn_by(n, key).mask("heart") for n in range(n_processes)]
        assert any(np.array_equal(found.mask("heart"), mask) for mask in theirs)


def test_what_killed_processes_left_goes_when_it_is_old(tmp_path: Path) -> None:
    """What another process works on stays, and so does what is no entry of ours."""
    cache = SegmentationCache(tmp_path)
    name = cache.path_of("ct", MADE_BY).name
    old = [f".{name}.4711", f".{name}.old.4711", f".{name}.0123456789abcdef"]
    stays = [f".{name}.4712", f".{name}.fedcba9876543210", ".snapshot", "notes.fake"]
    for folder in (*old, *stays):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".labels.nii.gz.4711.tmp").write_bytes(b"half")
    now_s = tmp_path.stat().st_mtime

    def age(path: Path, seconds: float) -> None:
        os.utime(path, (now_s - seconds, now_s - seconds))

    for folder in (*old, ".snapshot", "notes.fake"):
        for path in (*(tmp_path / folder).iterdir(), tmp_path / folder):
            age(path, LEFT_AFTER_S + 60)
    # A folder long there in which a file is still being written; and one not old enough.
    age(tmp_path / stays[0], LEFT_AFTER_S + 60)
    for path in (*(tmp_path / stays[1]).iterdir(), tmp_path / stays[1]):
        age(path, LEFT_AFTER_S - 60)
    cache.put("ct", MADE_BY, segmentation(0), CATALOG)
    assert {path.name for path in tmp_path.iterdir()} == {name, *stays}


def test_looking_whether_a_folder_can_be_written_to_leaves_no_trace(tmp_path: Path) -> None:
    """Nor takes away what another process has just made."""
    SegmentationCache(tmp_path / "a" / "b").require_writable()
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    SegmentationCache(tmp_path / "a").require_writable()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize("standing", ["file", "link to nowhere", "link to a folder"])
def test_what_is_no_entry_makes_way(tmp_path: Path, standing: str) -> None:
    """What a link leads to stays as it is."""
    cache, elsewhere = SegmentationCache(tmp_path / "kept"), tmp_path / "elsewhere"
    cache.folder.mkdir()
    path = cache.path_of("ct", MADE_BY)
    if standing == "file":
        path.write_bytes(b"no folder")
    else:
        path.symlink_to(elsewhere)
    if standing == "link to a folder":
        elsewhere.mkdir()
        (elsewhere / "notes.txt").write_text("mine")
    found, complaint = cache.get("ct", MADE_BY, segmentation(0).grid, CATALOG)
    assert found is None
    assert path.name in complaint
    cache.put("ct", MADE_BY, segmentation(0), CATALOG)
    found, complaint = cache.get("ct", MADE_BY, segmentation(0).grid, CATALOG)
    assert found is not None, complaint
    assert not path.is_symlink()
    assert [entry.name for entry in cache.folder.iterdir()] == [path.name], "nothing hidden is left"
    if standing == "link to a folder":
        assert (elsewhere / "notes.txt").read_text() == "mine"


def test_what_stands_and_can_be_read_is_never_replaced(tmp_path: Path) -> None:
    cache = SegmentationCache(tmp_path)
    for one in (0, 1):  # as two GPUs might differ
        cache.put("ct", MADE_BY, segmentation(one), CATALOG)
    found, _ = cache.get("ct", MADE_BY, segmentation(0).grid, CATALOG)
    assert found is not None
    np.testing.assert_array_equal(found.mask("heart"), segmentation(0).mask("heart"))
