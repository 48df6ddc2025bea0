"""The operators that recipes may name: built in, and other packages' by entry point."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar, get_args, get_origin

from paxray.anatomy.recipes.region import Level, Region
from paxray.anatomy.recipes.scene import Scene
from paxray.errors import ConfigError

#: Entry-point group under which a package offers operators of its own.
GROUP = "paxray.operators"

_MODULES = ("sets", "morphology", "pieces", "cuts", "spaces", "tubes")


class BadArgument(Exception):  # noqa: N818 (of a recipe, not of Python)
    """Raised by an operator's own check of its arguments; `parse` says where in the file they stand.

    Attributes
    ----------
    word
        The argument that is wrong.
    what, expected, found
        As in `paxray.errors`.
    """

    def __init__(self, word: str, what: str, *, expected: str = "", found: str = "") -> None:
        super().__init__(what)
        self.word, self.what, self.expected, self.found = word, what, expected, found


Kind = Literal["region", "regions", "level", "number", "integer", "word", "choice"]
_F = TypeVar("_F", bound=Callable[..., Any])
#: Looks at an operator's arguments as they are written, before any case: regions are nodes with a ``key``.
Check = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Parameter:
    """One argument of an operator.

    Attributes
    ----------
    name, kind
        As YAML writes it.
    choices
        The words allowed, for a ``choice``.
    required
        Whether it must be given.
    default
        Its value otherwise; for a region the class's name.
    may_be_unknown
        A region that the operator can do without: it gets None, or a list without the unknown ones, which is noted.
    python
        The parameter's name in Python, where a trailing underscore keeps clear of a keyword (``from_``).
    landmark
        A region that only says where to cut.
    """

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    required: bool = True
    default: Any = None
    may_be_unknown: bool = False
    python: str = ""
    landmark: bool = False


@dataclass(frozen=True)
class Operator:
    """A function that derives a region from others.

    Attributes
    ----------
    name
        As recipes write it.
    call
        ``call(scene, **arguments) -> Region``.
    parameters
        Its arguments, by name.
    version
        Part of the fingerprint of every class derived with it: raised when the outcome changes.
    tolerant
        It is called although some of its regions are unknown, and sets the status itself.
    check
        Refuses arguments that are sound one by one and not together.
    """

    name: str
    call: Callable[..., Region]
    parameters: Mapping[str, Parameter]
    version: int = 1
    tolerant: bool = False
    check: Check | None = None

    @property
    def positional(self) -> str | None:
        """The list argument that may be written without its name (``union: [a, b]``)."""
        first, *others = self.parameters.values()
        alone = first.kind == "regions" and not any(other.required for other in others)
        return first.name if alone else None

    def run(self, scene: Scene, given: Mapping[str, Any]) -> Region:
        """Call the function with its arguments as YAML names them."""
        return self.call(scene, **{self.parameters[word].python: value for word, value in given.items()})


def operator(
    function: _F | None = None,
    *,
    name: str = "",
    version: int = 1,
    tolerant: bool = False,
    classes: Mapping[str, str | list[str]] | None = None,
    landmarks: Collection[str] = (),
    check: Check | None = None,
) -> Any:
    """Mark a function ``(scene, ...) -> Region`` as an operator.

    Its parameters' names and types are the keys that YAML may use: `Region` takes a recipe, ``Region | None`` one that
    may be unknown, ``list[Region]`` a list, ``list[Region] | None`` one of which the unknown are left out, `Level` a
    level, ``float``, ``int``, ``str`` and ``Literal[...]`` themselves.

    Parameters
    ----------
    name
        As recipes write it; the function's own otherwise.
    version
        To be raised when the outcome changes, so that data sets are built anew.
    tolerant
        It wants to be called although some of its regions are unknown.
    classes
        Regions that need not be given, and the classes that are then taken.
    landmarks
        Regions that only say where to cut: a partial one (a spine without its neck) makes nothing partial. Levels are
        landmarks by nature.
    check
        Raises `BadArgument` for arguments that do not go together, when the recipe is read.
    """

    def mark(inner: _F) -> _F:
        inner.__paxray_operator__ = Operator(  # type: ignore[attr-defined]
            name or inner.__name__.rstrip("_"),
            inner,
            _parameters(inner, classes or {}, landmarks),
            version,
            tolerant,
            check,
        )
        return inner

    return mark if function is None else mark(function)


def _parameters(
    function: Callable[..., Any], classes: Mapping[str, Any], landmarks: Collection[str]
) -> dict[str, Parameter]:
    hints = typing.get_type_hints(function)
    out = {}
    # The first parameter is the scene.
    for item in list(inspect.signature(function).parameters.values())[1:]:
        word = item.name.rstrip("_")
        kind, choices, optional = _kind_of(hints[item.name], function, item.name)
        has_default = word in classes or item.default is not inspect.Parameter.empty
        default = classes.get(word, item.default) if has_default else None
        out[word] = Parameter(
            word, kind, choices, not has_default, default, optional, item.name, word in landmarks
        )
    return out


def _kind_of(hint: Any, function: Callable[..., Any], name: str) -> tuple[Kind, tuple[str, ...], bool]:
    optional = False
    if get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arm for arm in get_args(hint) if arm is not type(None)]
        if len(inner) == 1:
            hint, optional = inner[0], True
    if get_origin(hint) is Literal:
        return "choice", tuple(map(str, get_args(hint))), optional
    if get_origin(hint) is list and get_args(hint) == (Region,):
        return "regions", (), optional
    plain: dict[Any, Kind] = {Region: "region", Level: "level", float: "number", int: "integer", str: "word"}
    if hint in plain:
        return plain[hint], (), optional
    raise ConfigError(
        f"the operator '{function.__name__}' has a parameter of a type that YAML cannot give",
        where=f"{function.__module__}:{function.__name__}({name})",
        expected="Region, list[Region], Level, float, int, str or Literal[...]",
        found=str(hint),
    )


@functools.cache
def operators() -> Mapping[str, Operator]:
    """All operators by name.

    Raises
    ------
    ConfigError
        Two of one name, or an entry point that leads to no operator.
    """
    found: dict[str, Operator] = {}
    for module in _MODULES:
        for item in vars(import_module(f"paxray.anatomy.recipes.{module}")).values():
            known = getattr(item, "__paxray_operator__", None)
            if known is not None:
                found[known.name] = known
    for entry in entry_points(group=GROUP):
        where = f"entry point {entry.name} = {entry.value}"
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError("an operator cannot be loaded", where=where, found=str(error)) from error
        known = getattr(loaded, "__paxray_operator__", None)
        if known is None:
            raise ConfigError(
                "this is no operator",
                where=where,
                expected="a function marked with @paxray.anatomy.recipes.operator",
                found=type(loaded).__name__,
            )
        if entry.name in found:
            raise ConfigError(
                f"there are two operators '{entry.name}'", where=where, do="give it another name"
            )
        found[entry.name] = replace(known, name=entry.name)
    return found
