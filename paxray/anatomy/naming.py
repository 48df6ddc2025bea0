"""What the names in a mask file mean: segments' labels, regions of interest, files' stems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from paxray.anatomy.catalog import Catalog, normal_word
from paxray.anatomy.document import Document
from paxray.anatomy.vocabulary import check_vocabulary, read_vocabulary, vocabulary_path
from paxray.errors import ConfigError


@dataclass(frozen=True)
class Names:
    """A vocabulary of names. What it does not name, the catalog's names and synonyms do.

    Parameters
    ----------
    spec
        As a case table writes it.
    classes
        Normalised name, or pattern with ``*``, to the classes it stands for; none for what is to be left out.
    fraction
        From which share of a voxel on it counts, where a file stores shares; None where it is not said.
    values
        Whether the vocabulary names values of label maps as well.
    """

    spec: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fraction: float | None = None
    values: bool = False

    def find(self, name: str) -> tuple[str, ...] | None:
        """Return the classes that a name stands for; None where the vocabulary does not say.

        A name as it stands goes before patterns, and these by their order in the file.
        """
        word = normal_word(name)
        if word in self.classes:
            return self.classes[word]
        for pattern, classes in self.classes.items():
            if "*" in pattern and fnmatchcase(word, pattern.replace("[", "[[]").replace("?", "[?]")):
                return classes
        return None

    def content(self) -> list[Any]:
        """All that it says, as JSON values in a fixed order."""
        return [[[name, list(classes)] for name, classes in self.classes.items()], self.fraction]


def load_names(spec: str, *, base: Path | None = None, catalog: Catalog) -> Names | None:
    """Load the names of a vocabulary; None for one of label values alone.

    Parameters
    ----------
    spec
        Path of a YAML file with ``names``, such as ``{names: {"Lung, left": lung_left, "PTV*": null}}``: each stands
        for a class, a list of classes, or ``null`` for nothing. ``fraction`` may say from which share of a voxel on
        it counts. Names of the file under ``extends`` hold as well; its own go before.
    base
        Folder to which a path is relative; the working directory by default.
    catalog
        Resolves the class names.

    Raises
    ------
    ConfigError
        No such vocabulary or file, or names that cannot be used as written.
    """
    path, _ = vocabulary_path(spec.strip(), base or Path())
    return _read(spec, path, catalog, ())


def _read(spec: str, path: Path, catalog: Catalog, chain: tuple[Path, ...]) -> Names | None:
    document = read_vocabulary(path)
    resolved = path.resolve()
    if resolved in chain:
        raise document.error(("extends",), "the vocabulary extends itself")
    below = None
    if isinstance(extends := document.data.get("extends"), str):
        below = _read(spec, vocabulary_path(extends, path.parent)[0], catalog, (*chain, resolved))
    if "names" not in document.data:
        return None if below is None else replace(below, values="labels" in document.data)
    check_vocabulary(document)
    entries = document.data["names"]
    if not isinstance(entries, dict) or not entries:
        raise document.error(("names",), "not a mapping of names to classes", found=entries)
    classes: dict[str, tuple[str, ...]] = {}
    for name, of in entries.items():
        word = normal_word(str(name))
        if word in classes:
            raise document.error(("names", name), f"'{name}' stands twice, but for case, blanks or hyphens")
        classes[word] = _classes(document, name, of, catalog)
    inherited = (
        {} if below is None else {word: of for word, of in below.classes.items() if word not in classes}
    )
    fraction = document.data.get("fraction", None if below is None else below.fraction)
    if fraction is not None and not (
        isinstance(fraction, int | float) and not isinstance(fraction, bool) and 0 < fraction <= 1
    ):
        raise document.error(
            ("fraction",), "not a share of a voxel", expected="above 0, up to 1", found=fraction
        )
    values = "labels" in document.data
    return Names(spec, classes | inherited, None if fraction is None else float(fraction), values)


def _classes(document: Document, name: Any, of: Any, catalog: Catalog) -> tuple[str, ...]:
    words = of if isinstance(of, list) else [] if of is None else [of]
    at = ("names", name)
    if not all(isinstance(word, str) for word in words):
        raise document.error(
            at, "not a class", expected="a class, a list of classes, or null to leave it out", found=of
        )
    try:
        return tuple(dict.fromkeys(catalog.resolve(word) for word in words))
    except ConfigError as error:
        raise document.error(at, error.what, expected=error.expected, do=error.do) from error
