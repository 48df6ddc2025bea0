"""One tree of errors: each says what, where, what was expected, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_FAILED_CASES = 3
EXIT_ENVIRONMENT = 4
EXIT_DAMAGE = 5
EXIT_INTERRUPTED = 130


class PaxrayError(Exception):
    """Base of every error that paxray raises on purpose.

    Parameters
    ----------
    what
        One sentence: what went wrong.
    where
        File (relative to the case table where there is one), line, key or object concerned.
    expected, found
        The two sides of a mismatch, in words or figures with units.
    do
        What the reader can do about it.
    code
        Short machine-readable word; the class's own unless given.
    """

    code = "internal"
    exit_code = EXIT_INTERNAL

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        found: str = "",
        do: str = "",
        code: str = "",
    ) -> None:
        self.what, self.where = what, where
        self.expected, self.found, self.do = expected, found, do
        if code:
            self.code = code
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        for word, text in (("expected", self.expected), ("found", self.found), ("do", self.do)):
            if text:
                lines.append(f"  {word}: {text}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not survive pickling to a worker by themselves.
        return _rebuild, (type(self), self.what, self.where, self.expected, self.found, self.do, self.code)


def _rebuild(
    kind: type[PaxrayError], what: str, where: str, expected: str, found: str, do: str, code: str
) -> PaxrayError:
    return kind(what, where=where, expected=expected, found=found, do=do, code=code)


class ConfigError(PaxrayError):
    """A pipeline, catalog, case table or command line that cannot be used as written."""

    code = "config"
    exit_code = EXIT_USAGE


class CaseError(PaxrayError):
    """One case cannot be processed; the others go on."""

    code = "case"
    exit_code = EXIT_FAILED_CASES


class ResourceError(PaxrayError):
    """The machine lacks something: a GPU, weights, a package, disk space."""

    code = "environment"
    exit_code = EXIT_ENVIRONMENT


class DamageError(PaxrayError):
    """What is on disk is not what was written."""

    code = "damage"
    exit_code = EXIT_DAMAGE


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def counted(n: int, noun: str) -> str:
    """Return ``"1 case"``, ``"2 cases"``, ``"2 classes"``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{'es' if noun.endswith('s') else 's'}"
