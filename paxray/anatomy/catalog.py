"""The catalog: every anatomical class known, what it is made of, and the facts that go with it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paxray.anatomy.document import Document, read_document
from paxray.anatomy.film import Film, read_film
from paxray.errors import ConfigError, suggest

if TYPE_CHECKING:
    from paxray.anatomy.recipes.graph import Graph

Laterality = Literal["left", "right", ""]

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

# SNOMED CT qualifiers of DICOM's Context Group 244 "Laterality".
LATERALITY_CODES = {"left": "7771000", "right": "24028007", "bilateral": "51440002"}

_UNION_RULE = "union of its parts"
_LEAF_RULE = "as the source that names it draws it"
_RECIPE_RULE = "as its recipe says"
_FILM_RULE = "what of a class the picture shows unhidden"
_FIELDS = (
    "group",
    "parts",
    "synonyms",
    "laterality",
    "mirror",
    "optional",
    "more_than_parts",
    "snomed",
    "colour",
    "rule",
    "recipe",
    "film",
    "numbers",
)
_SNOMED_FIELDS = ("code", "meaning", "laterality", "source")
_SIDES: tuple[Laterality, Laterality] = ("left", "right")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class AnatomyClass:
    """One anatomical class.

    Parameters
    ----------
    name
        Canonical name, TotalSegmentator v2's where it has one.
    parts
        Canonical names of the classes whose union it is; empty for a leaf.
    synonyms
        Other names that `Catalog.resolve` understands.
    laterality
        The side of the body it lies on; empty for what is unpaired or spans both. The heart's chambers
        are named for the circulation and have none.
    mirror
        Its twin on the other side, which it becomes when an image is mirrored; empty without one.
    group
        Supercategory.
    snomed_ct, snomed_meaning, snomed_laterality
        SNOMED CT code, its meaning, and the code of the laterality modifier; empty where no source has one.
    code_source
        Where the code was taken from.
    colour
        Display colour, 8-bit RGB.
    rule
        In words, how it is made.
    optional
        Few patients have it, or a source that does not name it draws it with its neighbour: that nobody
        looked for it does not make a union of which it is a part incomplete.
    more_than_parts
        Its parts are not all of it: known from them alone it is partial.
    recipe
        How it is derived where no source draws it, as YAML writes it (``docs/classes.md``); None without one.
    film
        For a class of the film, which has pixels in each view and no voxels: what it is made of; else None.
    """

    name: str
    parts: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    laterality: Laterality = ""
    mirror: str = ""
    group: str = ""
    snomed_ct: str = ""
    snomed_meaning: str = ""
    snomed_laterality: str = ""
    code_source: str = ""
    colour: tuple[int, int, int] = (0, 0, 0)
    rule: str = ""
    optional: bool = False
    more_than_parts: bool = False
    recipe: Any = None
    film: Film | None = None


@dataclass(frozen=True)
class Entry:
    """Where a class is written: the file, the key under which it stands, and the fields given there."""

    document: Document
    key: str
    fields: tuple[str, ...]


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
    catalog = Catalog(_read_classes(document, classes, keys, entries).values(), entries)
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
        classes = _read_classes(read_document(DATA_FOLDER / name, where=name), classes, {}, entries)
    return Catalog(classes.values(), entries)


def normal_word(word: str) -> str:
    """Return the spelling under which names are compared: lower case, underscores for blanks and hyphens."""
    return re.sub(r"[\s\-]+", "_", word.strip().lower())


def _read_classes(
    document: Document,
    classes: dict[str, AnatomyClass],
    keys: dict[str, str],
    written_in: dict[str, tuple[Entry, ...]],
) -> dict[str, AnatomyClass]:
    """Add a document's classes to ``classes``; ``keys`` learns under which key each stands, ``written_in`` where."""
    told = dataclasses.replace(document, data={})  # for messages
    document.check_keys((), document.data, ("classes",))
    entries = document.data.get("classes")
    if not isinstance(entries, dict) or not entries:
        raise document.error(("classes",), "not a mapping of classes", found=entries)
    for key, written in entries.items():
        document.check_keys(("classes", key), written, _FIELDS)
        sides: tuple[Laterality, ...] = _SIDES if "{side}" in str(key) else ("",)
        for number, side in itertools.product(_numbers(document, key, written), sides):
            entry = {
                _for_number(k, number): _for_number(v, number) for k, v in written.items() if k != "numbers"
            }
            twin_key = _for_number(key, number)
            name = _for_side(twin_key, side)
            if not isinstance(name, str) or not _NAME.match(name):
                raise document.error(
                    ("classes", key),
                    "not a class name",
                    expected="letters, digits and underscores",
                    found=name,
                )
            if name in keys:
                raise document.error(("classes", key), f"class '{name}' stands twice, also as '{keys[name]}'")
            keys[name] = key
            written_in[name] = (*written_in.get(name, ()), Entry(told, key, tuple(written)))
            classes[name] = _read_class(document, key, twin_key, entry, side, name, classes.get(name))
    return classes


def _numbers(document: Document, key: str, entry: Mapping[str, Any]) -> range:
    """The numbers that an entry is written out for; a single 0 without any."""
    span = entry.get("numbers")
    at = ("classes", key)
    if ("{n}" in str(key)) != (span is not None):
        raise document.error(
            at,
            "`{n}` in a class's name and the key `numbers` go together",
            expected="for example `rib_{side}_{n}_front:` with `numbers: 1-12`",
            found=key,
        )
    if span is None:
        return range(1)  # 0: there is no number to write out
    match = re.fullmatch(r"(\d{1,3})\s*-\s*(\d{1,3})", str(span))
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise document.error((*at, "numbers"), "not a span of numbers", expected="such as 1-12", found=span)
    return range(int(match[1]), int(match[2]) + 1)


def _for_number(value: Any, number: int) -> Any:
    """Write out ``{n}``, ``{n+1}`` and ``{n-1}`` throughout a value; 0 stands for no number."""
    if isinstance(value, str) and number:
        for word, of in (("{n}", number), ("{n+1}", number + 1), ("{n-1}", number - 1)):
            value = value.replace(word, str(of))
        return value
    if isinstance(value, list):
        return [_for_number(item, number) for item in value]
    if isinstance(value, dict):
        return {key: _for_number(item, number) for key, item in value.items()}
    return value


def _for_side(value: Any, side: str) -> Any:
    """Write out ``{side}`` and pick from ``{left: ..., right: ...}`` throughout a value."""
    if not side:
        return value
    if isinstance(value, str):
        return value.replace("{side}", side)
    if isinstance(value, list):
        return [_for_side(item, side) for item in value]
    if isinstance(value, dict):
        if set(value) == set(_SIDES):
            return _for_side(value[side], side)
        return {key: _for_side(item, side) for key, item in value.items()}
    return value


def _read_class(
    document: Document,
    key: str,
    twin_key: str,
    entry: Mapping[str, Any],
    side: Laterality,
    name: str,
    known: AnatomyClass | None,
) -> AnatomyClass:
    """Read one entry for one side, over the class of that name where there is one.

    ``key`` is the entry's in the file, for messages; ``twin_key`` the same with its number written out.
    """
    fields: dict[str, Any] = {}
    at = ("classes", key)
    for field, raw in entry.items():
        value = _for_side(raw, side)
        if field in ("parts", "synonyms"):
            fields[field] = tuple(_text_list(document, (*at, field), value))
        elif field == "snomed":
            fields |= _read_code(document, (*at, field), raw, side)
        elif field == "colour":
            fields[field] = _colour(document, (*at, field), value)
        elif field in ("optional", "more_than_parts"):
            if not isinstance(value, bool):
                raise document.error((*at, field), "not true or false", found=value)
            fields[field] = value
        elif field == "recipe":
            fields[field] = value  # read as a whole once all classes are known
        elif field == "film":
            fields[field] = read_film(document, (*at, field), value)
        elif not isinstance(value, str):
            raise document.error((*at, field), "not text", found=value)
        else:
            fields[field] = value
    if fields.get("laterality", "") not in (*_SIDES, ""):
        raise document.error(
            (*at, "laterality"), "not a side", expected="left or right", found=fields["laterality"]
        )
    if side:
        fields.setdefault("laterality", side)
        fields.setdefault("mirror", _for_side(twin_key, "right" if side == "left" else "left"))
    if known is not None:
        if known.rule in (_LEAF_RULE, _UNION_RULE, _RECIPE_RULE, _FILM_RULE):
            merged = dataclasses.replace(known, **fields)
            fields.setdefault("rule", _default_rule(merged.parts, merged.recipe, merged.film))
        return dataclasses.replace(known, **fields)
    if not fields.get("group"):
        raise document.error(at, f"class '{name}' has no group", do="add a line such as `group: lung`")
    fields.setdefault("rule", _default_rule(fields.get("parts"), fields.get("recipe"), fields.get("film")))
    fields.setdefault("colour", _colour_of(name))
    return AnatomyClass(name=name, **fields)


def _default_rule(parts: object, recipe: object, film: object) -> str:
    if film is not None:
        return _FILM_RULE
    return _RECIPE_RULE if recipe is not None else _UNION_RULE if parts else _LEAF_RULE


def _read_code(document: Document, at: tuple[str, ...], raw: Any, side: Laterality) -> dict[str, str]:
    """Read a ``snomed`` entry into the fields of `AnatomyClass`; ``null`` or an empty one takes the code away."""
    if raw is not None:
        document.check_keys(at, raw, _SNOMED_FIELDS)
    value = _for_side(raw, side)
    if not value:
        return dict.fromkeys(("snomed_ct", "snomed_meaning", "snomed_laterality", "code_source"), "")
    for field in ("code", "meaning", "source"):
        if not isinstance(value.get(field), str | int) or not str(value[field]).strip():
            raise document.error((*at, field), f"a code needs its {field}", found=value.get(field, ""))
    # One code for both sides says nothing about the side, so the modifier does; a code per side does.
    default = side if isinstance(raw["code"], str | int) else ""
    laterality = value.get("laterality", default)
    if laterality and laterality not in LATERALITY_CODES:
        raise document.error(
            (*at, "laterality"), "not a laterality", expected=", ".join(LATERALITY_CODES), found=laterality
        )
    return {
        "snomed_ct": str(value["code"]),
        "snomed_meaning": str(value["meaning"]),
        "snomed_laterality": LATERALITY_CODES[laterality] if laterality else "",
        "code_source": str(value["source"]),
    }


def _text_list(document: Document, at: tuple[str, ...], value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise document.error(at, "not a list of names", found=value)
    return value


def _colour(document: Document, at: tuple[str, ...], value: Any) -> tuple[int, int, int]:
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(
            isinstance(level, int) and not isinstance(level, bool) and 0 <= level <= 255 for level in value
        )
    ):
        raise document.error(at, "not a colour", expected="[red, green, blue], each 0 to 255", found=value)
    red, green, blue = value
    return red, green, blue


def _colour_of(name: str) -> tuple[int, int, int]:
    """A bright colour for a class whose author chose none: the hue comes from the name."""
    import colorsys

    hue = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big") / 65536
    red, green, blue = (round(255 * level) for level in colorsys.hsv_to_rgb(hue, 0.65, 0.95))
    return red, green, blue
