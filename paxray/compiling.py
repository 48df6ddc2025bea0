"""numba's compiler, as the compiled loops use it: who waits for it is told so, once in a process.

numba keeps what it compiled and looks there first. Only where it finds nothing does it broadcast the event that is told
of here. The message is a warning of the logger ``paxray``; Python prints it on stderr unless logging has been set up
otherwise.
"""

from __future__ import annotations

import logging
from typing import Any

from numba import njit
from numba.core.event import Event, Listener, register

#: Whose loops are spoken of: others may compile functions of their own in this process.
PACKAGE = __package__
MESSAGE = (
    "paxray: numba compiles what this machine has not done before: for some 20 s where nothing has been projected"
    " yet, else for seconds"
)


class _Teller(Listener):
    """Logs `MESSAGE` when numba begins to compile the first of the package's loops."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Event) -> None:
        """A function was not in numba's cache."""
        # A function made by `exec`, as sympy makes them, has none.
        module = event.data["dispatcher"].py_func.__module__ or ""
        if not self.told and module.partition(".")[0] == PACKAGE:
            self.told = True
            logging.getLogger(PACKAGE).warning(MESSAGE)

    def on_end(self, event: Event) -> None:
        """Nothing is said of the end: what was waited for follows."""


def loop(**options: Any) -> Any:
    """Compile a function that Python calls, and keep the code for later processes.

    Without the entry for C that numba adds, which nobody needs.
    """
    return njit(cache=True, no_cfunc_wrapper=True, **options)


def helper(**options: Any) -> Any:
    """Compile a function that loops call. It is kept as a part of each, not once more on its own."""
    return njit(no_cfunc_wrapper=True, **options)


register("numba:compile", _Teller())
