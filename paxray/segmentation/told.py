"""What is known of classes beside their masks, as JSON in a folder with one file per class.

``paxray_classes.json`` says of each class what its file cannot: that it was found in part, why it is unknown (it has no
file), what to know of it, how sure its source is::

    {"segmenter": "thorax", "classes": {"heart": {"status": "present", "confidence": 0.7},
                                        "sternum": {"status": "unknown", "note": "no whole breastbone"}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.naming import Names
from paxray.anatomy.vocabulary import STATUSES, Told
from paxray.errors import CaseError, ConfigError, suggest
from paxray.files import write_json

FILE = "paxray_classes.json"
_KEYS = ("status", "note", "confidence")


def facts_of(labels: LabelVolume) -> dict[str, dict[str, str | float]]:
    """Status of each class, and note and confidence where it has them, as JSON values."""
    facts: dict[str, dict[str, str | float]] = {}
    for name in labels.names:
        told = facts.setdefault(name, {"status": labels.status[name].value})
        if labels.notes.get(name):
            told["note"] = labels.notes[name]
        if name in labels.confidence:
            told["confidence"] = float(labels.confidence[name])
    return facts


def write_told(folder: Path, labels: LabelVolume, segmenter: str = "") -> None:
    """Write what is known of the classes of a folder's masks, as `read_told` reads it."""
    who = {"segmenter": segmenter} if segmenter else {}
    write_json(folder / FILE, {**who, "classes": facts_of(labels)})


def read_told(folder: Path, names: Names, catalog: Catalog, where: str) -> dict[str, Told]:
    """Read what is known of the classes of a folder's masks.

    Parameters
    ----------
    folder
        Of masks. Without the file nothing is told.
    names
        What the files' names mean; the same words stand here.
    where
        How messages name the folder.

    Returns
    -------
    By canonical class. Of several files that `names` unites, what holds for all of them: partial where one of them is,
    or is unknown.

    Raises
    ------
    CaseError
        ``bad_labels`` where the file cannot be used as written, ``unknown_class``.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    where = f"{where}/{FILE}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise _bad("cannot be read as JSON", where, found=str(error)) from error
    classes = _mapping(content, ("segmenter", "classes"), where).get("classes", {})
    found: dict[str, list[Told]] = {}
    for word, entry in _mapping(classes, None, f"{where}: classes").items():
        told = _told(entry, f"{where}: classes.{word}")
        meant = names.find(word)
        for name in (_resolved(word, catalog, where),) if meant is None else meant:
            found.setdefault(name, []).append(told)
    return {name: _united(several) for name, several in found.items()}


def status_of(told: Told, n_voxels: int, name: str, where: str) -> Status | None:
    """The status to give a class whose file has so many voxels; None where file and extent tell it.

    Raises
    ------
    CaseError
        ``bad_labels``: it is said to have no voxels, and has some; or to be present, and has none.
    """
    if told.status == Status.PRESENT and not n_voxels:
        raise CaseError(
            f"{FILE} says that '{name}' is present, but its file has no voxels",
            where=where,
            do=f"correct or remove the class in {FILE}, or the file",
            code="bad_labels",
        )
    if n_voxels and told.status in ("absent", "unknown"):
        raise CaseError(
            f"{FILE} says that '{name}' is {told.status}, but its file has {n_voxels} voxels",
            where=where,
            do=f"correct or remove the class in {FILE}, or the file",
            code="bad_labels",
        )
    if told.status in ("partial", "unknown"):  # nothing found in a part leaves the rest unknown
        return Status.PARTIAL if n_voxels else Status.UNKNOWN
    return None


def require_unknown(without_file: Mapping[str, Told], where: str) -> None:
    """Refuse what is told of classes that have no file, but that they are unknown.

    Raises
    ------
    CaseError
        ``bad_labels``.
    """
    for name, told in without_file.items():
        if told.status != Status.UNKNOWN:
            said = f"that '{name}' is {told.status}" if told.status else f"something of '{name}'"
            raise CaseError(
                f"{FILE} says {said}, but the folder has no file of it",
                where=where,
                expected="of a class without a file: status unknown, with a note if you like",
                do=f"add the file, or correct or remove the class in {FILE}",
                code="bad_labels",
            )


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key may stand twice: which one holds would be a guess."""
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key '{key}' stands twice in one object")
        out[key] = value
    return out


def _told(entry: Any, where: str) -> Told:
    given = _mapping(entry, _KEYS, where)
    status, note, confidence = given.get("status", ""), given.get("note", ""), given.get("confidence")
    if status not in ("", *STATUSES):
        raise _bad("not a status", f"{where}.status", ", ".join(STATUSES), short(status))
    if not isinstance(note, str):
        raise _bad("not a text", f"{where}.note", found=short(note))
    number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if confidence is not None and not (number and 0 <= confidence <= 1):
        raise _bad("not a confidence", f"{where}.confidence", "0 to 1", short(confidence))
    return Told(status, note, None if confidence is None else float(confidence))


def _united(several: Sequence[Told]) -> Told:
    """What holds for the union of several files."""
    if len(several) == 1:
        return several[0]
    statuses = {told.status for told in several}
    if statuses <= {"absent", "unknown"}:  # none of them has voxels
        status = max(statuses)
    elif statuses & {"partial", "unknown"}:
        status = "partial"
    else:
        status = "present" if "present" in statuses else ""
    return Told(status, "; ".join(dict.fromkeys(told.note for told in several if told.note)))


def _resolved(word: str, catalog: Catalog, where: str) -> str:
    try:
        return catalog.resolve(word)
    except ConfigError as error:
        raise CaseError(
            error.what, where=where, expected=error.expected, do=error.do, code="unknown_class"
        ) from error


def _mapping(value: Any, known: Sequence[str] | None, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad("not a mapping", where, found=short(value))
    for key in value:
        if known is not None and key not in known:
            raise _bad(f"there is no key '{key}' here", where, ", ".join(known), do=suggest(key, known))
    return value


def _bad(what: str, where: str, expected: str = "", found: str = "", do: str = "") -> CaseError:
    return CaseError(what, where=where, expected=expected, found=found, do=do, code="bad_labels")
