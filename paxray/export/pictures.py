"""Pictures of an export: one PNG per sample, under a name that is safe on every disk."""

from __future__ import annotations

import re
from pathlib import Path

from paxray.dataset.reader import Sample
from paxray.errors import DamageError

_SAFE_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def write_picture(folder: Path, sample: Sample, content: bytes) -> str:
    """Write a sample's PNG under a name that no other sample has; return the name, ``CASE_VIEW.png``.

    Raises
    ------
    DamageError
        A case id or view that cannot be part of a file name (``unsafe_name``), or a name that is taken
        (``same_name``).
    """
    name = f"{sample.case_id}_{sample.row['view']}.png"
    if not _SAFE_FILE.fullmatch(name):
        raise DamageError(
            "a sample's case id or view cannot be part of a file name",
            where=repr(sample.id),
            expected="letters, digits, '.', '_' and '-', no dot in front",
            found=repr(name),
            do="rename the case in the case table and build again",
            code="unsafe_name",
        )
    try:
        with (folder / name).open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise DamageError(
            "two samples would have the same file name (on some disks capital letters do not count)",
            where=repr(sample.id),
            found=name,
            do="rename a case or a view and build again",
            code="same_name",
        ) from None
    return name
