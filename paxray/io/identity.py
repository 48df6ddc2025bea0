"""Identity of an input: SHA-256 of what its files hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from paxray.errors import CaseError
from paxray.io.stored import image_suffix, require_file, unreadable


def file_sha256(path: Path, *, where: str = "") -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises
    ------
    CaseError
        ``missing_file`` or ``unreadable``.
    """
    path = Path(path)
    where = where or path.name
    require_file(path, where)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(where, error.strerror or "a file that cannot be opened") from error


def content_hash(path: Path, *, where: str = "") -> str:
    """Return the identity of a CT or of masks: a file, or a folder.

    A file is its SHA-256; a header with detached voxels (.mhd, .nhdr) is hashed with the files that it names.
    A folder is hashed over the sorted relative names and the contents of all files in it but hidden ones.

    Raises
    ------
    CaseError
        ``missing_file`` or ``unreadable``.
    """
    where = where or Path(path).name
    named = files_of(path, where=where)
    return (
        _combined(named, where) if len(named) > 1 or Path(path).is_dir() else file_sha256(path, where=where)
    )


def files_of(path: Path, *, where: str = "") -> list[tuple[str, Path]]:
    """Return the files that an input consists of, each under a name that does not depend on where it lies.

    Raises
    ------
    CaseError
        ``missing_file`` or ``unreadable``.
    """
    path = Path(path)
    where = where or path.name
    if path.is_dir():
        return [(file.relative_to(path).as_posix(), file) for file in _files(path)]
    require_file(path, where)
    if image_suffix(path) in (".mhd", ".nhdr"):
        from paxray.io.itk import data_files

        detached = data_files(path, where=where)
        return [("header", path), *((f"data {n}", file) for n, file in enumerate(detached))]
    return [("file", path)]


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    if not found:
        raise CaseError("the folder is empty", where=folder.name, do="check the path", code="missing_file")
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _combined(named: list[tuple[str, Path]], where: str) -> str:
    digest = hashlib.sha256()
    for name, file in named:
        encoded = os.fsencode(name)
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
        digest.update(bytes.fromhex(file_sha256(file, where=f"{where}/{file.name}")))
    return digest.hexdigest()
