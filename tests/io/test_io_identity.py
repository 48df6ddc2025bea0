"""Identity of inputs."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from paxray.errors import CaseError
from paxray.io.identity import content_hash, file_sha256


def test_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"voxels" * 100_000)
    expected = hashlib.sha256(b"voxels" * 100_000).hexdigest()
    assert file_sha256(tmp_path / "a") == content_hash(tmp_path / "a") == expected


def test_a_folder_is_its_names_and_contents(tmp_path):
    folder = tmp_path / "x"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "sub/b").write_bytes(b"2")
    base = content_hash(folder)
    shutil.copytree(folder, tmp_path / "y")
    assert content_hash(tmp_path / "y") == base
    (folder / ".hidden").write_bytes(b"3")
    assert content_hash(folder) == base
    seen = {base}
    (folder / "a").write_bytes(b"2")
    seen.add(content_hash(folder))
    (folder / "a").rename(folder / "c")
    seen.add(content_hash(folder))
    (folder / "sub/b").rename(folder / "b")
    seen.add(content_hash(folder))
    assert len(seen) == 4


def test_names_and_contents_do_not_run_together(tmp_path):
    for name, content in (("x", {"ab": b"c"}), ("y", {"a": b"bc"}), ("z", {"a": b"", "b": b"c"})):
        (tmp_path / name).mkdir()
        for file, data in content.items():
            (tmp_path / name / file).write_bytes(data)
    assert len({content_hash(tmp_path / name) for name in "xyz"}) == 3


def test_missing(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(CaseError) as caught:
            content_hash(path)
        assert caught.value.code == "missing_file"
