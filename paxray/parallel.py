"""Voxel passes shared out among a few threads.

What is shared out is numpy calls on whole planes or compiled loops; both run without the interpreter's lock, so plain
threads do. Parts are contiguous and no result depends on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

_limit: int | None = None  # of this process


def processors() -> int:
    """Processors that this process may use, which a cluster's scheduler may have restricted."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads that a voxel pass may use: the processors, or what `at_most` allows."""
    return processors() if _limit is None else min(_limit, processors())


@contextmanager
def at_most(limit: int | None) -> Iterator[None]:
    """Within the block let this process use so many threads at most; None sets no limit."""
    global _limit
    before, _limit = _limit, limit if limit is None else max(1, limit)
    try:
        yield
    finally:
        _limit = before


def together(first: Callable[[], S], second: Callable[[], T]) -> tuple[S, T]:
    """Call both at once, or one after the other where there is a single thread; where both fail, the first's error."""
    if threads() == 1:
        return first(), second()
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(second)
        return first(), beside.result()


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Call something in a thread of its own while the block runs, and wait for it; not where there is a single thread.

    The block's error comes before that of `work`.
    """
    if threads() == 1:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


def in_parallel(work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Call ``work(item)`` for each, as many at a time as there are threads; results in the items' order."""
    count = max(1, min(threads(), len(items)))
    if count == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))


def share(n: int, work: Callable[[int, int], T]) -> list[T]:
    """Call ``work(start, stop)`` on contiguous parts of ``range(n)``, a part for each thread.

    Returns
    -------
    The results in the parts' order.
    """
    count = max(1, min(threads(), n))
    ends = [n * part // count for part in range(count + 1)]
    if count == 1:
        return [work(0, n)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, ends[:-1], ends[1:]))
