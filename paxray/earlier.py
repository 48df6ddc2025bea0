"""What earlier calls of ``paxray project`` left in a folder: each view's JSON tells it from what is not theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


def standing_views(
    folder: Path, views: Sequence[str], case: dict[str, Any], classes: Iterable[str] = ()
) -> list[str]:
    """Other views of the same CT that stand in a folder, before anything is made of `views`.

    Parameters
    ----------
    folder
        May be missing.
    views
        Those to be written; what earlier calls wrote of them makes way.
    case
        The CT's `identity`.
    classes
        Those that may come out. A mask of one's own under such a name is in the way, whether or not it does.

    Raises
    ------
    ConfigError
        ``no_folder``: a file lies where a folder is to be. ``not_written_here``: a file that no earlier call wrote
        would be overwritten. ``other_case``: views of another CT would stand beside the new ones, as if they were of
        one patient.
    """
    # A link that leads nowhere is in the way, too.
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise ConfigError(
            "a file lies where a folder is to be written",
            where=str(folder),
            found=str(there),
            do="another --out, or move it away",
            code="no_folder",
        )
    masks = {f"{of}.png" for of in classes}
    _refuse(folder, [path for view in views for path in _foreign(folder, view, masks)])
    others = {
        path.stem: facts
        for path in sorted(folder.glob("*.json"))
        if path.stem not in views and (facts := _facts(folder, path.stem)) is not None
    }
    of_another = [view for view, facts in others.items() if facts.get("case", case) != case]
    if of_another:
        raise ConfigError(
            "views lie there of another CT, or of this one before it was moved or changed, and would look like views "
            "of this one",
            where=str(folder),
            expected=case["ct"],
            found="; ".join(f"{view} of {others[view]['case']['ct']}" for view in of_another),
            do=f"another --out, or remove {', '.join(f'{view}.*, {view}_*' for view in of_another)}",
            code="other_case",
        )
    return list(others)


def make_way(folder: Path, view: str, masks: Iterable[str]) -> None:
    """Remove what an earlier call wrote of a view, and nothing else, so that a killed call leaves no mixture.

    Its JSON stays until the new one takes its place.

    Parameters
    ----------
    folder, view
        Where, and which.
    masks
        Classes whose masks are about to be written.

    Raises
    ------
    ConfigError
        ``not_written_here``, as in `standing_views`, of what came there since.
    """
    _refuse(folder, list(_foreign(folder, view, {f"{of}.png" for of in masks})))
    facts = _facts(folder, view)
    if facts is None:
        return
    files = ViewFiles.of(folder, view)
    written = files.masks.glob("*.png") if files.masks.is_dir() else ()
    stale = [path for path in written if path.name in _masks(facts) and path.is_file()]
    for path in (files.image, files.signal, files.overlay, *stale):
        path.unlink(missing_ok=True)


def _foreign(folder: Path, view: str, masks: set[str]) -> Iterator[Path]:
    """What is in the way of a view and of masks under these names, and not from an earlier call."""
    files, facts = ViewFiles.of(folder, view), _facts(folder, view)
    for path in (files.image, files.signal, files.overlay, files.facts):
        if path.exists() and (facts is None or not path.is_file()):
            yield path
    if not files.masks.is_dir():
        yield from [files.masks] if files.masks.exists() else []
    elif facts is None:
        yield from [files.masks] if any(files.masks.iterdir()) else []
    else:
        written = _masks(facts)
        there = sorted(path for path in files.masks.iterdir() if path.name in masks)
        yield from (path for path in there if path.name not in written or not path.is_file())


def _masks(facts: dict[str, Any]) -> set[str]:
    """Names of the mask files that a view's JSON tells of."""
    return {f"{row['class']}.png" for row in facts["classes"] if row.get("area_px")}


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
    """A view's JSON, if `paxray project` wrote it: if it has the shape that this gives it."""
    try:
        facts = json.loads(ViewFiles.of(folder, view).facts.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none, no JSON, or one nested beyond sense
        return None
    if not (isinstance(facts, dict) and facts.keys() >= _KEYS):
        return None
    classes, case = facts["classes"], facts.get("case", {"ct": ""})
    told = isinstance(classes, list) and all(
        isinstance(row, dict) and isinstance(row.get("class"), str) for row in classes
    )
    return facts if told and isinstance(case, dict) and isinstance(case.get("ct"), str) else None
