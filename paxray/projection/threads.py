"""Plain threads that share out the pieces of a compiled loop's work as they go, one call at a time in a process.

Compiled loops run without the interpreter's lock. numba's own parallel loops take a multiple of the time to compile,
end the process where two threads run them at once, and under some of its layers do not survive a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from paxray import parallel

# A call uses all the threads it was given: two at once would only be in each other's way.
_lock = threading.Lock()


def _forked() -> None:
    """A child has none of its parent's threads: nobody would release a lock that one of them held."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def in_all_threads(
    work: Callable[[NDArray[np.int64]], object], pieces: int, threads: int | None = None
) -> None:
    """Call ``work(turn)`` in several threads at once, no more than there are pieces, and wait for all.

    It shares its pieces out itself: `turn` begins at 0, and `paxray.projection.lanes.claim` takes the next from it.

    Parameters
    ----------
    work
        Runs without the interpreter's lock, and gives the same whichever thread takes a piece.
    pieces
        How many there are.
    threads
        At most this many, and no more than there are processors; by default as many as a voxel pass may use
        (`paxray.parallel.threads`).
    """
    most = parallel.threads() if threads is None else min(threads, parallel.processors())
    turn, count = np.zeros(1, np.int64), max(1, min(most, pieces))
    with _lock:
        if count == 1:
            work(turn)
            return
        failed: list[BaseException] = []

        def beside() -> None:
            try:
                work(turn)
            except BaseException as error:  # raised below, in the thread that called
                failed.append(error)

        # No executor: it takes no work any more once the main thread has ended.
        others = [threading.Thread(target=beside, daemon=True) for _ in range(count - 1)]
        try:
            for other in others:
                other.start()
            work(turn)
        finally:
            for other in others:
                if other.ident is not None:  # it was started
                    other.join()
        if failed:
            raise failed[0]
