"""A file's entries, each read into a class, over the class of that name where there is one."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paxray.anatomy.anatomy_class import LATERALITY_CODES, AnatomyClass, Laterality
from paxray.anatomy.document import Document
from paxray.anatomy.film import read_film
from paxray.anatomy.placeholders import SIDES, for_number, for_side, numbers_of

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
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Entry:
    """Where a class is written: the file, the key under which it stands, and the fields given there."""

    document: Document
    key: str
    fields: tuple[str, ...]


def read_entries(
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
        sides: tuple[Laterality, ...] = SIDES if "{side}" in str(key) else ("",)
        for number, side in itertools.product(numbers_of(document, key, written), sides):
            entry = {
                for_number(k, number): for_number(v, number) for k, v in written.items() if k != "numbers"
            }
            twin_key = for_number(key, number)
            name = for_side(twin_key, side)
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
        value = for_side(raw, side)
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
    if fields.get("laterality", "") not in (*SIDES, ""):
        raise document.error(
            (*at, "laterality"), "not a side", expected="left or right", found=fields["laterality"]
        )
    if side:
        fields.setdefault("laterality", side)
        fields.setdefault("mirror", for_side(twin_key, "right" if side == "left" else "left"))
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
    value = for_side(raw, side)
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
