"""One call of the compiled projectors at a time, and only where numba's threads can run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numba
import numpy as np
from numba import config as numba_config
from numpy.typing import NDArray

from paxray.errors import ResourceError

# Two concurrent calls abort the process under numba's workqueue layer; one at a time is right in any case,
# since a call uses all the threads it was given.
_lock = threading.Lock()
#: The threading layer that a parent of this process had started before it forked, or an empty string.
_inherited = ""


def _forked() -> None:
    """A child has none of its parent's threads: nobody would release a lock that one of them held."""
    global _lock, _inherited
    _lock = threading.Lock()
    # numba knows no layer before its threads are started, and then raises.
    with suppress(ValueError):
        _inherited = numba.threading_layer()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def one_at_a_time(threads: int | None = None) -> Iterator[None]:
    """Run a compiled projector alone in this process, on at most that many threads.

    Raises
    ------
    ResourceError
        Code ``threading``: the process was forked from one whose OpenMP threads had been started. OpenMP would end it
        without a word.
    """
    with _lock:
        _check_fork()
        before = numba.get_num_threads()
        if threads is not None:
            numba.set_num_threads(max(1, min(threads, most_threads())))
        try:
            yield
        finally:
            numba.set_num_threads(before)


def in_all_threads(work: Callable[[NDArray[np.int64]], object], pieces: int) -> None:
    """Call ``work(turn)`` in as many threads at once as `one_at_a_time` allows, and no more than there are pieces.

    It shares its pieces out itself: `turn` begins at 0, and `paxray.projection.lanes.claim` takes the next from it.
    """
    turn, count = np.zeros(1, np.int64), max(1, min(numba.get_num_threads(), pieces))
    if count == 1:
        work(turn)
        return
    with ThreadPoolExecutor(count - 1) as pool:
        others = [pool.submit(work, turn) for _ in range(count - 1)]
        work(turn)
        for other in others:
            other.result()


def most_threads() -> int:
    """As many as numba was started with: the processors, or NUMBA_NUM_THREADS."""
    return int(numba_config.NUMBA_NUM_THREADS)


def _check_fork() -> None:
    # GNU's OpenMP, which numba uses on Linux, ends a forked process at its first parallel loop; numba's own queue and
    # TBB start threads of the child's own.
    if sys.platform == "linux" and _inherited == "omp":
        raise ResourceError(
            "numba's OpenMP threads cannot run in a process that was forked after they had been started",
            expected="a process of its own, or another threading layer",
            found=f"process {os.getpid()}, forked from one that had projected",
            do="start workers with multiprocessing's 'spawn' or 'forkserver', or set "
            "NUMBA_THREADING_LAYER=workqueue before numba is imported",
            code="threading",
        )
