"""Files that are either absent or complete: written beside, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paxray.errors import DamageError


def write_atomic(path: Path, write: Callable[[Path], None], *, lasting: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, sync it to disk, and rename it to `path`.

    What need not outlast a power cut is not synced if `lasting` is False, which saves waiting for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        if lasting:
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if lasting:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Write bytes atomically; `lasting` as in `write_atomic`."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomic(path, write, lasting=lasting)


def write_json(path: Path, content: Any, *, lasting: bool = True) -> None:
    """Write JSON atomically, keys in the order given, one trailing newline; `lasting` as in `write_atomic`."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), lasting=lasting)


def read_json(path: Path) -> Any:
    """Read JSON that this package wrote; anything else is damage."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamageError("file is missing", where=path.name, do="build again to make it anew") from None
    except (ValueError, OSError) as error:
        raise DamageError("not readable as JSON", where=path.name, found=str(error)) from error


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def known_as(path: Path) -> str:
    """A file as a reader knows it: with its folder, since many are called ``ct.nii.gz``; a folder by its own name."""
    path = path.absolute()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.name}"


def digest(content: Any) -> str:
    """Hex SHA-256 of JSON-able content, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
