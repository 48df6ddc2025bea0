"""What earlier calls of ``paxray project`` left in a folder: each view's JSON tells it from what is not theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from paxray.errors import ConfigError
from paxray.files import digest, known_as

#: What a view's JSON holds. It is the first of the view's files to be written, so that it tells of all others.
_KEYS = {"geometry", "signal", "classes"}


@dataclass(frozen=True)
class ViewFiles:
    """Where a view's pictures and facts lie, and the folder of its masks."""

    image: Path
    signal: Path
    overlay: Path
    facts: Path
    masks: Path

    @classmethod
    def of(cls, folder: Path, view: str) -> ViewFiles:
        """By the view's name."""
        return cls(
            image=folder / f"{view}.png",
            signal=folder / f"{view}_signal.png",
            overlay=folder / f"{view}_overlay.png",
            facts=folder / f"{view}.json",
            masks=folder / f"{view}_masks",
        )


def identity(ct: Path) -> dict[str, Any]:
    """What tells one CT from another without reading it, as JSON values; the path to it is hashed."""
    found, path = ct.stat(), ct.resolve()
    # A folder's own time changes with whatever is put beside its files.
    stamp = [] if ct.is_dir() else [found.st_size, found.st_mtime_ns]
    return {"ct": known_as(path), "sha256": digest([str(path), *stamp])}


def standing_views(folder: Path, views: Sequence[str], case: dict[str, Any]) -> list[str]:
    """Other views of the same CT that stand in a folder, before `views` are written to it.

    Parameters
    ----------
    folder
        May be missing.
    views
        Those to be written; what earlier calls wrote of them makes way.
    case
        The CT's `identity`.

    Raises
    ------
    ConfigError
        ``not_written_here``: a file that no earlier call wrote would be overwritten. ``other_case``: views of another
        CT would stand beside the new ones, as if they were of one patient.
    """
    for view in views:
        if _facts(folder, view) is None:
            _refuse(folder, [path for path in astuple(ViewFiles.of(folder, view)) if path.exists()])
    others = {
        path.stem: facts
        for path in sorted(folder.glob("*.json"))
        if path.stem not in views and (facts := _facts(folder, path.stem)) is not None
    }
    of_another = [view for view, facts in others.items() if facts.get("case", case) != case]
    if of_another:
        raise ConfigError(
            "views of another CT lie there, and would look like views of this one",
            where=str(folder),
            expected=case["ct"],
            found="; ".join(f"{view} of {others[view]['case']['ct']}" for view in of_another),
            do=f"another --out, or remove {', '.join(f'{view}.*, {view}_*' for view in of_another)}",
            code="other_case",
        )
    return list(others)


def make_way(folder: Path, view: str, masks: Iterable[str]) -> None:
    """Remove what an earlier call wrote of a view, and nothing else, so that a killed call leaves no mixture.

    Parameters
    ----------
    folder, view
        Where, and which.
    masks
        Classes whose masks are about to be written.

    Raises
    ------
    ConfigError
        ``not_written_here``, as in `standing_views`.
    """
    files = ViewFiles.of(folder, view)
    facts = _facts(folder, view) or {"classes": []}
    written = {f"{row['class']}.png" for row in facts["classes"] if row.get("area_px")}
    there = {path.name for path in files.masks.glob("*.png")}
    _refuse(folder, [files.masks / name for name in sorted({f"{of}.png" for of in masks} & there - written)])
    for path in (files.image, files.signal, files.overlay, *(files.masks / name for name in there & written)):
        path.unlink(missing_ok=True)


def _refuse(folder: Path, foreign: list[Path]) -> None:
    if foreign:
        raise ConfigError(
            "files would be overwritten that paxray project has not written",
            where=str(folder),
            found=", ".join(path.relative_to(folder).as_posix() for path in foreign),
            do="another --out, or move them away",
            code="not_written_here",
        )


def _facts(folder: Path, view: str) -> dict[str, Any] | None:
    """A view's JSON, if `paxray project` wrote it."""
    try:
        facts = json.loads(ViewFiles.of(folder, view).facts.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or no JSON
        return None
    return facts if isinstance(facts, dict) and facts.keys() >= _KEYS else None
