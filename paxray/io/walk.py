"""Folders below a root in a fixed order, each once, whatever symbolic links say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paxray.io.naming import is_general
from paxray.io.pairing import Note


@dataclass(frozen=True)
class Folder:
    """A folder, its path's parts below the root, and its visible files in order of their names."""

    path: Path
    parts: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def shared(self) -> bool:
        """Whether no folder on the way down names a patient, so that each file may be another's."""
        return all(is_general(name) for name in self.parts)


def walk(root: Path, notes: list[Note]) -> Iterator[Folder]:
    """Yield the folders below ``root``, itself first; hidden ones are left out.

    Symbolic links to folders are followed last, and only where they lead somewhere not seen yet, so that
    neither a loop nor a second name yields a folder twice. What cannot be listed is noted.
    """
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[str, ...]] = [()]
    linked: list[tuple[str, ...]] = []
    while waiting or linked:
        parts = waiting.pop() if waiting else linked.pop(0)
        path = root.joinpath(*parts)
        where = "/".join(parts) or "."
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                notes.append(Note(where, "seen_already", "a link to a folder that was looked at before"))
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            notes.append(Note(where, "unreadable", error.strerror or "cannot be listed"))
            continue
        folders: list[tuple[str, ...]] = []
        files: list[Path] = []
        for name in names:
            entry = path / name
            if entry.is_dir():
                (linked if entry.is_symlink() else folders).append((*parts, name))
            elif entry.is_file():
                files.append(entry)
            elif entry.is_symlink():
                notes.append(Note("/".join([*parts, name]), "missing_file", "a link that leads nowhere"))
        waiting += reversed(folders)
        yield Folder(path, parts, tuple(files))
