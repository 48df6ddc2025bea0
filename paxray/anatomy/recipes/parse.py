"""A recipe as YAML writes it, made into a tree whose names and arguments are all known to be right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from paxray.anatomy.recipes.registry import BadArgument, Operator, Parameter, operators
from paxray.errors import ConfigError, suggest

LEVEL_WORDS = (
    "top_of",
    "bottom_of",
    "front_of",
    "back_of",
    "left_of",
    "right_of",
    "centre_of",
    "carina_of",
)


#: No length of a body is longer, no volume larger.
MOST_MM, MOST_MM3 = 2000.0, 1e9
#: What a CT can hold: the extended scale, ten times that of 12 bits.
HU_RANGE = (-10240.0, 30710.0)


class RecipeError(Exception):
    """A recipe that cannot be used as written.

    Attributes
    ----------
    path
        Keys and list positions from the recipe down to what is wrong.
    what, expected, found, do
        As in `paxray.errors`.
    """

    def __init__(
        self, path: tuple[Any, ...], what: str, *, expected: str = "", found: object = "", do: str = ""
    ) -> None:
        super().__init__(what)
        self.path, self.what, self.expected, self.do = path, what, expected, do
        self.found = found if isinstance(found, str) else repr(found)


@dataclass(frozen=True)
class LevelNode:
    """A level whose region is still to be computed."""

    kind: str
    of: Node | None
    offset_mm: float


@dataclass(frozen=True)
class Node:
    """A class by name, or an operator with its arguments.

    Attributes
    ----------
    name
        A class's canonical name, or an operator's.
    operator
        None for a class.
    arguments
        By name, defaults filled in: nodes, tuples of nodes, `LevelNode`, numbers and words.
    key
        The same as text; equal keys give equal voxels.
    """

    name: str
    operator: Operator | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    def children(self) -> Iterator[Node]:
        """The nodes that this one is made of, each key once."""
        seen: set[str] = set()
        for value in self.arguments.values():
            for item in value if isinstance(value, tuple) else (value,):
                node = item.of if isinstance(item, LevelNode) else item
                if isinstance(node, Node) and node.key not in seen:
                    seen.add(node.key)
                    yield node

    def classes(self) -> Iterator[str]:
        """The classes named anywhere in it, each once."""
        if self.operator is None:
            yield self.name
            return
        seen: set[str] = set()
        for child in self.children():
            for name in child.classes():
                if name not in seen:
                    seen.add(name)
                    yield name


def class_node(name: str) -> Node:
    """The node of a class, by its canonical name."""
    return Node(name, key=json.dumps(name))


def parse(recipe: Any, resolve: Callable[[str], str], path: tuple[Any, ...] = ()) -> Node:
    """Read a recipe.

    Parameters
    ----------
    recipe
        A class's name, or a mapping of one operator to its arguments.
    resolve
        From a name or synonym to the canonical name; raises `ConfigError`.
    path
        Where it stands, for messages.

    Raises
    ------
    RecipeError
        Naming the place, and the nearest known word.
    """
    if isinstance(recipe, str):
        try:
            name = resolve(recipe)
        except ConfigError as error:
            raise RecipeError(path, error.what, expected=error.expected, do=error.do) from error
        return class_node(name)
    if not isinstance(recipe, dict) or len(recipe) != 1:
        raise RecipeError(
            path,
            "this is no recipe",
            expected="the name of a class, or one operator with its arguments, such as `dilate: {of: aorta, by_mm: 5}`",
            found=recipe,
        )
    ((word, given),) = recipe.items()
    known = operators()
    if word not in known:
        raise RecipeError(
            (*path, word),
            f"there is no operator '{word}'",
            expected="one of " + ", ".join(sorted(known)),
            do=suggest(str(word), known),
        )
    return _call(known[word], given, resolve, (*path, word))


def _call(op: Operator, given: Any, resolve: Callable[[str], str], path: tuple[Any, ...]) -> Node:
    if op.positional is not None and not isinstance(given, dict):
        given = {op.positional: given}
    if not isinstance(given, dict):
        raise RecipeError(path, "not a mapping of arguments", expected=_signature(op), found=given)
    for word in given:
        if word not in op.parameters:
            raise RecipeError(
                (*path, word),
                f"'{op.name}' has no argument '{word}'",
                expected=_signature(op),
                do=suggest(str(word), op.parameters),
            )
    arguments = {}
    for word, parameter in op.parameters.items():
        if word in given:
            arguments[word] = _value(parameter, given[word], resolve, (*path, word))
        elif parameter.required:
            raise RecipeError(path, f"'{op.name}' needs the argument '{word}'", expected=_signature(op))
        elif parameter.kind in ("region", "regions") and parameter.default is not None:
            arguments[word] = _value(parameter, parameter.default, resolve, path)
        else:
            arguments[word] = parameter.default
    if op.check is not None:
        try:
            op.check(arguments)
        except BadArgument as error:
            at = (*path, error.word) if isinstance(given, dict) and error.word in given else path
            raise RecipeError(at, error.what, expected=error.expected, found=error.found) from error
    text = {word: _text(value) for word, value in arguments.items()}
    key = json.dumps([op.name, op.version, text], separators=(",", ":"))
    return Node(op.name, op, arguments, key)


def _signature(op: Operator) -> str:
    words = [word if p.required else f"[{word}]" for word, p in op.parameters.items()]
    return f"{op.name}: {{{', '.join(words)}}}"


def _text(value: Any) -> Any:
    if isinstance(value, Node):
        return json.loads(value.key)
    if isinstance(value, tuple):
        return [_text(item) for item in value]
    if isinstance(value, LevelNode):
        return [value.kind, None if value.of is None else _text(value.of), value.offset_mm]
    return value


def _value(parameter: Parameter, value: Any, resolve: Callable[[str], str], path: tuple[Any, ...]) -> Any:
    if parameter.kind == "region":
        return parse(value, resolve, path)
    if parameter.kind == "regions":
        many = isinstance(value, list | tuple)
        if many and not value:
            raise RecipeError(path, "an empty list", expected="a list of recipes")
        items = list(value) if many else [value]
        nodes = [parse(item, resolve, (*path, n) if many else path) for n, item in enumerate(items)]
        keys = [node.key for node in nodes]
        for n, node in enumerate(nodes):
            if node.key in keys[:n]:
                raise RecipeError((*path, n), "it stands twice in this list", found=str(items[n]))
        return tuple(nodes)
    if parameter.kind == "level":
        return _level(value, resolve, path)
    if parameter.kind == "choice":
        if value not in parameter.choices:
            raise RecipeError(
                path,
                "not one of the words allowed here",
                expected=", ".join(parameter.choices),
                found=value,
                do=suggest(str(value), parameter.choices),
            )
        return value
    if parameter.kind == "word":
        if not isinstance(value, str):
            raise RecipeError(path, "not a word", found=value)
        return value
    return _number(parameter, value, path)


def _number(parameter: Parameter, value: Any, path: tuple[Any, ...]) -> float | int:
    """A finite number; a length or a volume is positive and a count at least 1."""
    whole = parameter.kind == "integer"
    sound = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not sound or not math.isfinite(value):
        raise RecipeError(path, "not a whole number" if whole else "not a number", found=value)
    if whole and value < 1:
        raise RecipeError(path, "not a count", expected="1 or more", found=value)
    unit = parameter.name.rpartition("_")[2]
    most = {"mm": MOST_MM, "mm3": MOST_MM3}.get(unit)
    if most is not None and not 0 < value <= most:
        raise RecipeError(
            path, "not a size", expected=f"more than 0 {unit}, {most:g} {unit} at most", found=value
        )
    if unit == "hu" and not HU_RANGE[0] <= value <= HU_RANGE[1]:
        low, high = HU_RANGE
        raise RecipeError(path, "no CT holds such HU", expected=f"{low:g} to {high:g}", found=value)
    return int(value) if whole else float(value)


def _level(value: Any, resolve: Callable[[str], str], path: tuple[Any, ...]) -> LevelNode:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise RecipeError(path, "not a position in mm", found=value)
        return LevelNode("at_mm", None, float(value))
    words = [word for word in value if word in LEVEL_WORDS] if isinstance(value, dict) else []
    if len(words) != 1:
        raise RecipeError(
            path,
            "this is no level",
            expected="one of "
            + ", ".join(LEVEL_WORDS)
            + " with a class, `offset_mm` if wanted; or a number in mm",
            found=value,
            do=suggest(str(next(iter(value), "")), LEVEL_WORDS) if isinstance(value, dict) else "",
        )
    for word in value:
        if word not in (words[0], "offset_mm"):
            raise RecipeError((*path, word), f"a level has no '{word}'", expected=f"{words[0]}, offset_mm")
    offset = value.get("offset_mm", 0.0)
    if not isinstance(offset, int | float) or isinstance(offset, bool) or not math.isfinite(offset):
        raise RecipeError((*path, "offset_mm"), "not a length in mm", found=offset)
    if abs(offset) > MOST_MM:
        raise RecipeError(
            (*path, "offset_mm"), "too far away", expected=f"{MOST_MM:g} mm at most", found=offset
        )
    return LevelNode(words[0], parse(value[words[0]], resolve, (*path, words[0])), float(offset))
