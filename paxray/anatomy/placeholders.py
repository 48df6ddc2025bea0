"""``{side}`` and ``{n}``: one entry of a file of classes written out for both sides and a series of numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from paxray.anatomy.anatomy_class import Laterality
from paxray.anatomy.document import Document

#: What ``{side}`` stands for.
SIDES: tuple[Laterality, Laterality] = ("left", "right")


def numbers_of(document: Document, key: str, entry: Mapping[str, Any]) -> range:
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


def for_number(value: Any, number: int) -> Any:
    """Write out ``{n}``, ``{n+1}`` and ``{n-1}`` throughout a value; 0 stands for no number."""
    if isinstance(value, str) and number:
        for word, of in (("{n}", number), ("{n+1}", number + 1), ("{n-1}", number - 1)):
            value = value.replace(word, str(of))
        return value
    if isinstance(value, list):
        return [for_number(item, number) for item in value]
    if isinstance(value, dict):
        return {key: for_number(item, number) for key, item in value.items()}
    return value


def for_side(value: Any, side: str) -> Any:
    """Write out ``{side}`` and pick from ``{left: ..., right: ...}`` throughout a value."""
    if not side:
        return value
    if isinstance(value, str):
        return value.replace("{side}", side)
    if isinstance(value, list):
        return [for_side(item, side) for item in value]
    if isinstance(value, dict):
        if set(value) == set(SIDES):
            return for_side(value[side], side)
        return {key: for_side(item, side) for key, item in value.items()}
    return value
