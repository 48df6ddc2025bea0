"""One thing looked at: what was found, whether it will do, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

#: Folders that a variable names are called by the variable.
_VARIABLES = ("TOTALSEG_WEIGHTS_PATH", "TOTALSEG_HOME_DIR", "NUMBA_CACHE_DIR", "TMPDIR")


class State(StrEnum):
    """How a thing is.

    ``missing`` and ``limited`` cost something that not everybody needs; ``broken`` stops the default pipeline: bare
    CTs, the built-in segmenter, the device that ``auto`` means.
    """

    READY = "ready"
    LIMITED = "limited"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's.

    Attributes
    ----------
    section, name
        Where it stands, and what was looked at.
    found
        In words. No host, no user: `without_user` is applied by who writes it.
    do
        What gets or mends it; a command where there is one.
    facts
        Figures for a program to read, units in the names.
    """

    section: str
    name: str
    state: State
    found: str = ""
    do: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def without_user(text: str) -> str:
    """Replace folders that a variable names by ``$VARIABLE``, the working folder by ``.`` and the home by ``~``."""
    names = {os.environ.get(name, ""): f"${name}" for name in _VARIABLES}
    names |= {str(Path(value).resolve()): name for value, name in names.items() if value}
    names |= {str(Path.home()): "~", os.environ.get("HOME", ""): "~"}
    names |= {str(Path.cwd()): "."} if len(Path.cwd().parts) > 2 else {}
    for value in sorted(names, key=len, reverse=True):
        if len(value) > 1:  # "/" is nobody's
            text = text.replace(value, names[value])
    return text
