"""``SHA256SUMS``: one line for each canonical file, in the format of ``sha256sum -c``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from paxray.dataset.layout import TABLES, Layout
from paxray.errors import DamageError
from paxray.files import sha256_of, write_text

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def canonical_files(layout: Layout) -> list[Path]:
    """All files that belong to the data set: not logs, exports or reports, which are made from them.

    Of tables only those that a commit speaks of: others are left by a kill, or foreign (`foreign_files`).
    """
    single = [layout.manifest, layout.plan, layout.cases, layout.card]
    inside = []
    for commit in layout.commits():
        inside += [*layout.tables(commit.stem), commit]
    return [path for path in [*single, *inside] if path.exists()]


def foreign_files(layout: Layout) -> list[Path]:
    """What lies in the data set's folders and belongs to no commit; readers of whole folders would read it."""
    ours = set(canonical_files(layout))
    folders = [layout.root / name for name in (*TABLES, "commits")]
    inside = [path for folder in folders for path in sorted(folder.glob("*")) if path.name[0] != "."]
    return [path for path in inside if path not in ours]


def require_untouched(layout: Layout, unfinished: bool) -> None:
    """Refuse to build on a manifest or a plan that is not as it was written.

    Raises
    ------
    DamageError
        Naming the file.
    """
    if unfinished or not layout.checksums.exists():
        return
    known = read_checksums(layout)
    for path in (layout.manifest, layout.plan):
        if path.exists() and sha256_of(path) != known.get(path.name, ""):
            raise DamageError(
                "its bytes changed since it was written", where=path.name, do="take it from a copy"
            )


def forget_checksums(layout: Layout, shards: Iterable[str], *, plan: bool) -> None:
    """Before a build writes: drop the lines of what it is to write, so that only those are made anew."""
    if not layout.checksums.exists():
        return
    touched = {path for shard in shards for path in (*layout.tables(shard), layout.commit(shard))}
    touched |= {layout.manifest, layout.cases, layout.card, *([layout.plan] if plan else [])}
    names = {path.relative_to(layout.root).as_posix() for path in touched}
    _write(layout, {name: value for name, value in read_checksums(layout).items() if name not in names})


def write_checksums(layout: Layout) -> None:
    """Complete the checksums. A file that has a line keeps it: hashing it again would seal whatever befell it since."""
    known = read_checksums(layout) if layout.checksums.exists() else {}
    lines = {}
    for path in canonical_files(layout):
        name = path.relative_to(layout.root).as_posix()
        lines[name] = known.get(name) or sha256_of(path)
    _write(layout, lines)


def _write(layout: Layout, lines: dict[str, str]) -> None:
    write_text(layout.checksums, "".join(f"{value}  {name}\n" for name, value in lines.items()))


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
