"""Channels: an ordered list of names, as a data set of masks stacked in one array has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.document import Document
from paxray.anatomy.vocabulary import load_vocabulary, read_vocabulary, vocabulary_path
from paxray.errors import ConfigError


@dataclass(frozen=True)
class Channels:
    """What the channels of a stack of masks mean, first to last.

    Parameters
    ----------
    name
        The vocabulary's specification.
    names
        Each channel's name, as the vocabulary writes it.
    classes
        The canonical class that each channel shows. Two channels may show one class.
    """

    name: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.classes):
            raise ConfigError(
                "channels and classes differ in number",
                where=f"vocabulary {self.name}",
                found=f"{len(self.names)} names, {len(self.classes)} classes",
                code="bad_vocabulary",
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_classes(cls, classes: Iterable[str], name: str = "classes") -> Channels:
        """Return one channel per class, named as it is."""
        listed = tuple(classes)
        return cls(name, listed, listed)


def load_channels(spec: str, *, base: Path | None = None, catalog: Catalog) -> Channels:
    """Load the channels of a vocabulary.

    Parameters
    ----------
    spec
        The name of a built-in vocabulary (``paxray_166``) or the path of a YAML file with a list under
        ``channels``, whose entries are names of classes, or ``channel: class`` where the names differ. A
        vocabulary of label values has one channel per class, in the order of the values.
    base
        Folder to which a path is relative; the working directory by default.
    catalog
        Resolves the class names.

    Raises
    ------
    ConfigError
        No such vocabulary or file, or a name that the catalog does not know; the nearest is suggested.
    """
    spec = spec.strip()
    path, tail = vocabulary_path(spec, base or Path())
    document = read_vocabulary(path)
    if "channels" not in document.data:
        return Channels.of_classes(load_vocabulary(spec, base=base, catalog=catalog).classes, spec)
    if tail:
        raise ConfigError(
            "labels cannot be added to a vocabulary of channels",
            where=f"vocabulary {spec}",
            found=tail,
            do="write a YAML file with a list of your own under `channels`",
            code="bad_vocabulary",
        )
    return _read(document, spec, catalog)


def _read(document: Document, spec: str, catalog: Catalog) -> Channels:
    document.check_keys((), document.data, ("name", "source", "channels"))
    entries = document.data["channels"]
    if not isinstance(entries, list) or not entries:
        raise document.error(("channels",), "not a list of channels", found=entries)
    names, classes = [], []
    for number, entry in enumerate(entries):
        at = ("channels", number)
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, word),) = entry.items()
        else:
            name = word = entry
        if not isinstance(name, str) or not isinstance(word, str):
            raise document.error(
                at, "not a channel", expected="the name of a class, or `channel: class`", found=entry
            )
        try:
            classes.append(catalog.resolve(word))
        except ConfigError as error:
            raise document.error(at, error.what, expected=error.expected, do=error.do) from error
        names.append(name)
    return Channels(spec, tuple(names), tuple(classes))
