"""Vocabularies: which class each value of a label map stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from paxray.anatomy.catalog import DATA_FOLDER, Catalog
from paxray.anatomy.document import Document, read_document
from paxray.errors import ConfigError, suggest

_FOLDER = DATA_FOLDER / "vocabularies"
_MAX_VALUE = 65535
#: Words of `paxray.anatomy.labels.Status`.
STATUSES = ("present", "absent", "partial", "unknown")
_INLINE = re.compile(r"(?P<head>.+?)(?P<tail>(?:\+\d+:[^+]+)*)\Z")


@dataclass(frozen=True)
class Told:
    """What a vocabulary says of one class beside the values that stand for it.

    Parameters
    ----------
    status
        ``present``, ``absent``, ``partial`` or ``unknown``; empty where the voxels say it all.
    note
        Why it is unknown, or what to know of it.
    confidence
        0 to 1, if whoever drew the class rates it.
    """

    status: str = ""
    note: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Vocabulary:
    """What the values of a label map mean.

    Parameters
    ----------
    name
        The specification it was loaded from, as a case table writes it.
    labels
        Value in the file to canonical class name; 0 is background and not listed. Two values may stand
        for one class.
    also
        Further classes of a value, for a label map whose classes overlap.
    told
        What is said of single classes; one that no value stands for has a status.
    """

    name: str
    labels: dict[int, str]
    also: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    told: Mapping[str, Told] = field(default_factory=dict)

    @cached_property
    def sets(self) -> dict[int, frozenset[str]]:
        """Value to all classes that it stands for."""
        return {value: frozenset({name, *self.also.get(value, ())}) for value, name in self.labels.items()}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All classes that it speaks of, each once, in the order of their values."""
        valued = (name for value, first in self.labels.items() for name in (first, *self.also.get(value, ())))
        return tuple(dict.fromkeys([*valued, *self.told]))

    def content(self) -> list[Any]:
        """All that it says, as JSON values in a fixed order."""
        told = {name: [t.status, t.note, t.confidence] for name, t in self.told.items()}
        return [sorted([value, sorted(names)] for value, names in self.sets.items()), sorted(told.items())]


def vocabulary_names() -> list[str]:
    """Return the names of the built-in vocabularies."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_vocabulary(spec: str, *, base: Path | None = None, catalog: Catalog) -> Vocabulary:
    """Load a vocabulary.

    Parameters
    ----------
    spec
        The name of a built-in vocabulary (``totalsegmentator_v2``), or the path of a YAML file such as
        ``{extends: totalsegmentator_v2, labels: {118: costal_cartilages}}``; either may be followed by
        labels of its own, as in ``totalsegmentator_v2+118:costal_cartilages``. What comes later wins. In a
        file a value may stand for several classes, ``{7: [rib_left_4, ribs_left]}``, and ``classes`` may say
        of a class its ``status``, a ``note`` and a ``confidence``; beside it ``labels`` may be empty.
    base
        Folder to which a path is relative; the working directory by default. A path under ``extends``
        is relative to the file it stands in.
    catalog
        Resolves the class names.

    Raises
    ------
    ConfigError
        No such vocabulary or file, a label that is not a value from 1 to 65535, or a name that the
        catalog does not know; the nearest known name is suggested.
    """
    found, told = _labels(spec.strip(), base or Path(), catalog, ())
    return Vocabulary(
        spec,
        {value: names[0] for value, names in found.items()},
        {value: names[1:] for value, names in found.items() if names[1:]},
        told,
    )


_Labels = dict[int, tuple[str, ...]]


def _labels(
    spec: str, base: Path, catalog: Catalog, chain: tuple[Path, ...]
) -> tuple[_Labels, dict[str, Told]]:
    path, tail = vocabulary_path(spec, base)
    labels, told = _read(path, catalog, chain)
    for item in tail.split("+")[1:]:
        value, _, name = item.partition(":")
        try:
            labels[_value(value)] = (catalog.resolve(name),)
        except ConfigError as error:
            error_at = f"vocabulary {spec}"
            raise ConfigError(error.what, where=error_at, expected=error.expected, do=error.do) from error
    return dict(sorted(labels.items())), told


def vocabulary_path(spec: str, base: Path) -> tuple[Path, str]:
    """Return the file that a specification starts from, and the labels written behind it (``+118:liver``).

    Raises
    ------
    ConfigError
        It names neither a built-in vocabulary nor a YAML file (code ``unknown_vocabulary``).
    """
    match = _INLINE.match(spec)
    head, tail = (match["head"], match["tail"]) if match else (spec, "")
    if head in vocabulary_names():
        return _FOLDER / f"{head}.yaml", tail
    if head.endswith((".yaml", ".yml")):
        return base / head, tail
    raise ConfigError(
        f"there is no vocabulary '{head}'",
        where=f"vocabulary {spec}" if spec != head else "",
        expected=f"{', '.join(vocabulary_names())}, or a path that ends in .yaml; `+VALUE:CLASS` may follow",
        do=suggest(head, vocabulary_names()),
        code="unknown_vocabulary",
    )


def is_vocabulary(path: Path, catalog: Catalog) -> bool:
    """Whether a YAML file says what the values of label maps mean.

    Raises
    ------
    ConfigError
        It is meant to (it has ``labels`` or ``extends``) and cannot be used as written; or it is not sound YAML.
    """
    if not {"labels", "extends"} & set(read_vocabulary(path).data):
        return False
    load_vocabulary(str(path), catalog=catalog)
    return True


def read_vocabulary(path: Path) -> Document:
    """Read a vocabulary's file; messages name a built-in one by its file name alone."""
    return read_document(path, where=path.name if path.parent == _FOLDER else str(path))


def check_vocabulary(document: Document) -> None:
    """Refuse a key that vocabularies do not have, and `classes` beside `names`.

    Raises
    ------
    ConfigError
    """
    known = ("name", "source", "extends", "labels", "classes", "names", "fraction")
    document.check_keys((), document.data, known)
    if "names" in document.data and "classes" in document.data:
        raise document.error(
            ("classes",),
            "`classes` tells of the classes of label values, and the vocabulary has `names`",
            expected="`labels` with `classes`, or `names` alone",
            do="of a folder of masks its own paxray_classes.json tells status, note and confidence",
        )


def _read(path: Path, catalog: Catalog, chain: tuple[Path, ...]) -> tuple[_Labels, dict[str, Told]]:
    resolved = path.resolve()
    document = read_vocabulary(path)
    if resolved in chain:
        raise document.error(("extends",), "the vocabulary extends itself")
    if "channels" in document.data:
        raise document.error(
            ("channels",),
            "the vocabulary lists channels, which overlap: no label map can have them",
            expected="a vocabulary of label values",
            do="name the vocabulary of the program that wrote the masks",
        )
    check_vocabulary(document)
    labels: _Labels = {}
    told: dict[str, Told] = {}
    extends = document.data.get("extends")
    if extends is not None:
        if not isinstance(extends, str):
            raise document.error(("extends",), "not the name or path of one vocabulary", found=extends)
        labels, told = _labels(extends, path.parent, catalog, (*chain, resolved))
    entries = document.data.get("labels")
    # `{}` is what a label map without a voxel has: its classes are absent, or unknown.
    if not isinstance(entries, dict) or not (entries or document.data.get("classes")):
        raise document.error(("labels",), "not a mapping of label values to class names", found=entries)
    for value, names in entries.items():
        names = names if isinstance(names, list) and names else [names]
        checked = [_checked_name(document, ("labels", value), name, catalog) for name in names]
        labels[_checked_value(document, value)] = tuple(dict.fromkeys(checked))
    for name, facts in document.check_mapping(("classes",), document.data.get("classes", {})).items():
        at = ("classes", name)
        told[_checked_name(document, at, name, catalog)] = _told(document, at, facts)
    return labels, told


def _told(document: Document, at: tuple[Any, ...], facts: object) -> Told:
    given = document.check_keys(at, facts, ("status", "note", "confidence"))
    status, note, confidence = given.get("status", ""), given.get("note", ""), given.get("confidence")
    if status not in ("", *STATUSES):
        raise document.error((*at, "status"), "not a status", expected=", ".join(STATUSES), found=status)
    if not isinstance(note, str):
        raise document.error((*at, "note"), "not a text", found=note)
    number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if confidence is not None and not (number and 0 <= confidence <= 1):
        raise document.error((*at, "confidence"), "not a confidence", expected="0 to 1", found=confidence)
    return Told(status, note, None if confidence is None else float(confidence))


def _checked_value(document: Document, value: object) -> int:
    try:
        return _value(value)
    except ConfigError as error:
        raise document.error(("labels", value), error.what, expected=error.expected, found=value) from error


def _checked_name(document: Document, at: tuple[Any, ...], name: object, catalog: Catalog) -> str:
    if not isinstance(name, str):
        raise document.error(at, "not a class name", found=name)
    try:
        return catalog.resolve(name)
    except ConfigError as error:
        raise document.error(at, error.what, expected=error.expected, do=error.do) from error


def _value(value: object) -> int:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= _MAX_VALUE:
        raise ConfigError(
            "not a label value", expected=f"a whole number from 1 to {_MAX_VALUE}", found=repr(value)
        )
    return number
