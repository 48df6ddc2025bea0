"""YAML files read strictly: a repeated key is refused, and a complaint names file, line and key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paxray.errors import ConfigError, suggest

# The C parser is ten times faster; both read the same language.
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_BaseLoader):
    """Safe loader that refuses a repeated key, which plain YAML silently lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before the parent's turn: it writes merge keys (<<) out, which may repeat a key rightly.
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            word = (key.tag, str(key.value))
            if word in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(word)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


@dataclass(frozen=True)
class Document:
    """A YAML file that was read.

    Parameters
    ----------
    path
        The file.
    where
        The file's name as messages give it.
    data
        Its top-level mapping.
    """

    path: Path
    where: str
    data: dict[str, Any]

    def place(self, keys: Iterable[Any]) -> str:
        """Return ``file:line: key.key`` for the value reached through ``keys``.

        The file is parsed again to find the line, so that reading a sound file pays nothing for it.
        """
        keys = [str(key) for key in keys]
        with self.path.open("rb") as stream:
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
        line = node.start_mark.line if node is not None else 0
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == key), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line, found[1]
            elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
                node = node.value[int(key)]
                line = node.start_mark.line
            else:
                break
        return f"{self.where}:{line + 1}: {'.'.join(keys)}"

    def error(
        self, keys: Iterable[Any], what: str, *, expected: str = "", found: object = "", do: str = ""
    ) -> ConfigError:
        """Return (not raise) a `ConfigError` about the value reached through ``keys``."""
        text = found if isinstance(found, str) else repr(found)
        return ConfigError(what, where=self.place(keys), expected=expected, found=text, do=do)

    def check_mapping(self, keys: Iterable[Any], value: object) -> Mapping[Any, Any]:
        """Return ``value`` if it is a mapping; raise `ConfigError` otherwise."""
        if not isinstance(value, dict):
            raise self.error(keys, "not a mapping", found=value)
        return value

    def check_keys(self, keys: Iterable[Any], value: object, known: Iterable[str]) -> Mapping[str, Any]:
        """Return ``value`` if it is a mapping with none but ``known`` keys; raise `ConfigError` otherwise."""
        known, keys = list(known), list(keys)
        if not isinstance(value, dict):
            raise self.error(keys, "not a mapping", expected=f"a mapping of {', '.join(known)}", found=value)
        for key in value:
            if key not in known:
                raise self.error(
                    [*keys, key],
                    f"there is no key '{key}' here",
                    expected=", ".join(known),
                    do=suggest(str(key), known),
                )
        return value


def read_document(path: Path, *, where: str = "") -> Document:
    """Read a YAML file whose top level is a mapping.

    Parameters
    ----------
    path
        The file, UTF-8.
    where
        Name of the file in messages; the path as given by default.

    Raises
    ------
    ConfigError
        No such file, not YAML, a repeated key, or a top level that is not a mapping.
    """
    where = where or str(path)
    try:
        with path.open("rb") as stream:
            data = yaml.load(stream, Loader=_StrictLoader)
    except OSError as error:
        raise ConfigError("cannot be read", where=where, found=error.strerror or str(error)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            "is not sound YAML",
            where=f"{where}:{mark.line + 1}" if mark else where,
            found=str(getattr(error, "problem", None) or error),
        ) from error
    if not isinstance(data, dict):
        raise ConfigError("holds no mapping at its top level", where=where, found=type(data).__name__)
    return Document(path, where, data)
