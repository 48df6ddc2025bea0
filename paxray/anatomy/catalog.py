"""The catalog: every anatomical class known, by name and synonym, how they nest, and where each is written."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paxray.anatomy.anatomy_class import AnatomyClass
from paxray.anatomy.document import read_document
from paxray.anatomy.entries import Entry, read_entries
from paxray.errors import ConfigError, suggest

if TYPE_CHECKING:
    from paxray.anatomy.recipes.graph import Graph

DATA_FOLDER = Path(__file__).parent / "data"
# Reading order is catalog order, and so the order of categories in a data set.
_FILES = (
    "thorax.yaml",
    "vessels.yaml",
    "skeleton.yaml",
    "skeleton_parts.yaml",
    "limbs.yaml",
    "abdomen.yaml",
    "muscles.yaml",
    "head_neck.yaml",
    "body.yaml",
    "lesions.yaml",
    "derived_lungs.yaml",
    "derived_mediastinum.yaml",
    "derived_skeleton.yaml",
    "derived_body.yaml",
)


class Catalog(Mapping[str, AnatomyClass]):
    """The known classes by canonical name, in catalog order.

    Parameters
    ----------
    classes
        The classes. Nothing is checked here: `load_catalog` and `check_catalog` do that.
    entries
        By class, where it is written, the first file first.
    """

    def __init__(
        self, classes: Iterable[AnatomyClass], entries: Mapping[str, tuple[Entry, ...]] | None = None
    ) -> None:
        self._entries = dict(entries or {})
        self._classes = {item.name: item for item in classes}
        self._words = {
            normal_word(word): item.name for item in self._classes.values() for word in item.synonyms
        }
        self._words.update((normal_word(name), name) for name in self._classes)

    @functools.cached_property
    def graph(self) -> Graph:
        """What depends on what, through recipes and parts."""
        from paxray.anatomy.recipes.graph import Graph

        return Graph(self)

    def __reduce__(self) -> tuple[type[Catalog], tuple[Any, ...]]:
        """Pickle what it was made of: the graph holds functions that do not pickle, and is worked out again."""
        return Catalog, (tuple(self._classes.values()), self._entries)

    def __getitem__(self, name: str) -> AnatomyClass:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"Catalog({len(self)} classes)"

    def resolve(self, name: str) -> str:
        """Return the canonical name for a name or synonym.

        Case does not matter, and blanks and hyphens stand for underscores.

        Raises
        ------
        ConfigError
            Nothing is called that; the nearest known name is suggested (code ``unknown_class``).
        """
        found = self._words.get(normal_word(name))
        if found is None:
            raise ConfigError(
                f"no class is called '{name}'",
                expected="a class of the catalog or one of its synonyms",
                do=suggest(normal_word(name), self._words) or "add it to a catalog file of your own",
                code="unknown_class",
            )
        return found

    def knows(self, name: str) -> bool:
        """Whether `resolve` finds a class of that name."""
        return normal_word(name) in self._words

    def place(self, name: str, key: str = "") -> str:
        """Return ``file:line: key`` of a class's field (dots between keys), or "" for a class from no file.

        The file is the last one that gives the field, or else the last one that has the class.
        """
        entries = self._entries.get(name, ())
        if not entries:
            return ""
        field = key.split(".")[0]
        entry = next((e for e in reversed(entries) if field in e.fields), entries[-1])
        return entry.document.place(("classes", entry.key, *filter(None, key.split("."))))

    def written_as_numbered(self, *names: str) -> bool:
        """Whether one entry with ``numbers`` gives all these classes their colour."""
        keys = set()
        for name in names:
            entry = next((e for e in reversed(self._entries.get(name, ())) if "colour" in e.fields), None)
            if entry is None or "numbers" not in entry.fields:
                return False
            keys.add((entry.document.where, entry.key))
        return len(keys) == 1

    def leaves(self, name: str) -> tuple[str, ...]:
        """Return the leaf classes that make up ``name`` (itself, for a leaf), in catalog order."""
        below = self._below(name)
        return tuple(n for n in self if n in below and not self[n].parts)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Return the classes that have ``name`` as a part or as a part's part, in catalog order."""
        self[name]
        above: set[str] = set()
        reached = {name}
        while reached:
            reached = {n for n, item in self.items() if n not in above and reached.intersection(item.parts)}
            above |= reached
        return tuple(n for n in self if n in above)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a SHA-256 over everything the voxels of ``names`` depend on.

        That is the definitions (name, parts, ``optional``, ``more_than_parts``, recipe with its operators' versions) of
        these classes and of all that their parts and recipes need. Colours, codes, synonyms and prose do not
        count: changing them changes no mask.
        """
        facts = []
        for name in sorted(self.graph.below(names)):
            node = self.graph.recipe(name)
            item = self[name]
            fact = [name, list(item.parts), item.optional, None if node is None else node.key]
            fact += [] if item.film is None else [list(item.film.inputs)]
            facts.append([*fact, "more than its parts"] if item.more_than_parts else fact)
        return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()

    def _below(self, name: str) -> set[str]:
        """``name`` and its parts, their parts, and so on."""
        below: set[str] = set()
        stack = [name]
        while stack:
            current = stack.pop()
            if current not in below:
                below.add(current)
                stack.extend(self[current].parts)
        return below


def load_catalog(*extra: Path | None) -> Catalog:
    """Load the built-in catalog, and on top of it files of the user's own.

    Parameters
    ----------
    extra
        YAML in the format of the built-in files (``classes:`` with a mapping per class). An entry for a
        name that exists changes the fields it gives and leaves the others; a new name adds a class, for
        which ``group`` is required and ``colour`` is otherwise drawn from the name. ``{side}`` in a name
        makes a left and a right class, each the other's mirror. A file may use and change the classes of those
        before it; None is no file.

    Raises
    ------
    ConfigError
        A file cannot be used as written; the message names file, line and key.
    """
    catalog = _built_in()
    for file in extra:
        if file is not None:
            catalog = _with_file(catalog, file)
    return catalog


def _with_file(known: Catalog, file: Path) -> Catalog:
    """A catalog with a user's file on top."""
    from paxray.anatomy.check import structural_problems

    document = read_document(file)
    keys: dict[str, str] = {}
    classes, entries = dict(known), dict(known._entries)
    catalog = Catalog(read_entries(document, classes, keys, entries).values(), entries)
    for problem in structural_problems(catalog):
        raise document.error(
            tuple(filter(None, ("classes", keys.get(problem.name), *problem.key.split(".")))),
            f"class '{problem.name}': {problem.what}",
            expected=problem.expected,
            found=problem.found,
            do=problem.do,
        )
    return catalog


@functools.cache
def _built_in() -> Catalog:
    classes: dict[str, AnatomyClass] = {}
    entries: dict[str, tuple[Entry, ...]] = {}
    for name in _FILES:
        classes = read_entries(read_document(DATA_FOLDER / name, where=name), classes, {}, entries)
    return Catalog(classes.values(), entries)


def normal_word(word: str) -> str:
    """Return the spelling under which names are compared: lower case, underscores for blanks and hyphens."""
    return re.sub(r"[\s\-]+", "_", word.strip().lower())
