"""An export's folder: absent, or complete; replaced only by a complete one."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paxray.dataset.reader import Dataset
from paxray.errors import ConfigError
from paxray.files import read_json, write_json

#: Stands in every export's folder, and marks it as one that may be replaced.
MARKER = "export.json"


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes
    ----------
    folder
        The export's folder.
    files
        Its annotation files.
    images, annotations, categories
        Counts over all splits; an annotation is a mask with a pixel.
    """

    folder: Path
    files: tuple[Path, ...]
    images: int
    annotations: int
    categories: int


def place_of(dataset: Dataset, name: str, out: Path | None, marker: dict[str, Any]) -> Path:
    """Where an export goes: `out`, or ``DATASET/exports/NAME``.

    Raises
    ------
    ConfigError
        `out` is the data set's folder or among its own files, or as `require_replaceable`.
    """
    root = dataset.root.resolve()
    exports = root / "exports"
    folder = (exports / name if out is None else out).resolve()
    around = folder == root or folder in root.parents
    among = root in folder.parents and exports not in folder.parents
    if around or among:
        raise ConfigError(
            "an export does not go among a data set's own files",
            where=folder.name,
            expected="a folder of its own, or one below exports/",
            do="choose another --out, or give none",
            code="place",
        )
    require_replaceable(folder, marker)
    return folder


def require_replaceable(folder: Path, marker: dict[str, Any]) -> None:
    """Refuse to replace what no export has written, or an export of something else.

    Parameters
    ----------
    folder
        Where the new export is to lie.
    marker
        What it says of itself; an export replaces one that says the same, whatever version made that.

    Raises
    ------
    ConfigError
        The folder is there, is not empty and is no export, or it is a file (code ``place``); it is an export of
        another kind, data set or choice (code ``other_export``).
    """
    if folder.exists() and not (folder / MARKER).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "the output is there already and is no export, so it is not replaced",
            where=folder.name,
            expected=f"a new or empty folder, or one with {MARKER}",
            do="choose another --out, or remove it yourself",
            code="place",
        )
    if not (folder / MARKER).exists():
        return
    standing = read_json(folder / MARKER)
    asked = {key: value for key, value in marker.items() if key != "paxray"}
    differ = [key for key in asked if key in standing and standing[key] != asked[key]]
    if differ:
        raise ConfigError(
            "another export lies there, and would be lost",
            where=str(folder),
            expected=_words(asked),
            found=_words({key: standing[key] for key in asked if key in standing}),
            do="another --out to keep both; to replace it, remove it yourself",
            code="other_export",
        )


def _words(marker: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in marker.items() if not key.endswith("sha256"))


def require_whole(dataset: Dataset) -> None:
    """Refuse what would come out as a part that looks like the whole.

    Raises
    ------
    ConfigError
        ``unfinished`` where a build has not come to its end, ``split`` where the data set was opened with one
        split only, ``no_samples`` where it has none.
    """
    whole = Dataset(dataset.root)
    if whole.manifest["counts"] is None:
        raise ConfigError(
            "the data set's build has not come to its end",
            where=dataset.root.name,
            do="run paxray build again to complete it, then export",
            code="unfinished",
        )
    if dataset.shards != whole.shards:
        raise ConfigError(
            "an export is of a whole data set, so that its ids are unique",
            found="a data set opened with one split",
            do="paxray.load(folder) without split; every split gets files of its own",
            code="split",
        )
    if not len(whole):
        raise ConfigError(
            "the data set has no samples to export",
            where=dataset.root.name,
            do="look at cases.parquet, or at paxray report, for why its cases failed",
            code="no_samples",
        )


@contextmanager
def new_folder(final: Path, marker: dict[str, Any]) -> Iterator[Path]:
    """Give a folder to fill that takes the place of `final` when the block ends well, and vanishes when not.

    It lies beside `final` and is locked while in use; what a killed run left of it is cleared away first, and
    an older export that such a run had moved aside is put back.

    Raises
    ------
    ConfigError
        ``busy`` where another process is making the same export.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial, previous = (final.with_name(f".{final.name}.{word}") for word in ("partial", "previous"))
    partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        _lock(lock, partial, final)
        if previous.exists():
            shutil.rmtree(previous) if (final / MARKER).exists() else _swap(previous, final)
        try:
            _clear(partial)
            yield partial
            write_json(partial / MARKER, marker)
            _sync(partial)
            if final.exists():
                final.replace(previous)
            try:
                partial.replace(final)
            except OSError:
                if previous.exists():
                    previous.replace(final)
                raise
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        os.close(lock)


def _lock(lock: int, partial: Path, final: Path) -> None:
    """Lock the folder; the system releases it however the process ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have become the export, or have been cleared away, between opening and locking.
        held = partial.exists() and os.path.samestat(os.fstat(lock), partial.stat())
    except BlockingIOError:
        held = False
    if not held:
        raise ConfigError(
            "another process is making this export", where=final.name, do="wait for it to end", code="busy"
        )


def _swap(previous: Path, final: Path) -> None:
    if final.exists():  # empty: anything else was refused
        final.rmdir()
    previous.replace(final)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(folder: Path) -> None:
    """Flush a folder's files to disk, so that what is renamed is complete after a power cut too."""
    for directory, _, files in os.walk(folder, topdown=False):
        for path in [*(os.path.join(directory, name) for name in files), directory]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
