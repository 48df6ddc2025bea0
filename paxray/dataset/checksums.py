"""``SHA256SUMS``: one line for each canonical file, in the format of ``sha256sum -c``."""

from __future__ import annotations

import re
from pathlib import Path

from paxray.dataset.layout import Layout
from paxray.errors import DamageError
from paxray.files import sha256_of, write_text

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def canonical_files(layout: Layout) -> list[Path]:
    """All files that belong to the data set: not logs, exports or reports, which are made from them."""
    single = [layout.manifest, layout.plan, layout.cases, layout.card]
    folders = [layout.root / name for name in ("samples", "labels", "commits")]
    inside = [
        path for folder in folders for path in sorted(folder.glob("*")) if not path.name.startswith(".")
    ]
    return [path for path in single if path.exists()] + inside


def write_checksums(layout: Layout) -> None:
    """Write the checksums of what stands; of unchanged files they come out the same."""
    lines = [
        f"{sha256_of(path)}  {path.relative_to(layout.root).as_posix()}" for path in canonical_files(layout)
    ]
    write_text(layout.checksums, "\n".join(lines) + "\n")


def read_checksums(layout: Layout) -> dict[str, str]:
    """Relative path to SHA-256."""
    out = {}
    try:
        text = layout.checksums.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DamageError("not readable as text", where=layout.checksums.name, found=str(error)) from error
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DamageError(
                "not a line of checksums", where=f"{layout.checksums.name}:{number}", found=line[:90]
            )
        out[match[2]] = match[1]
    return out
