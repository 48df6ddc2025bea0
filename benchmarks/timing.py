"""Wall-clock times of calls that take turns, so that a slow minute of the machine is shared by all."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

#: Pause before each call: idle worker threads of the call before stop spinning within it.
SETTLE_S = 0.03
#: Rounds that are run even when time is up.
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Times:
    """Seconds of repeated calls."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median."""
        return float(np.median(self.seconds))

    @property
    def low(self) -> float:
        """The fastest."""
        return min(self.seconds)

    @property
    def high(self) -> float:
        """The slowest."""
        return max(self.seconds)

    def plus(self, other: Times, times: int) -> Times:
        """Repeat by repeat, this and `times` of the other."""
        return Times(tuple(a + times * b for a, b in zip(self.seconds, other.seconds, strict=True)))


@dataclass(frozen=True)
class Call:
    """A call to be timed; with `clock`, the seconds that it states itself count."""

    run: Callable[[], object]
    clock: Callable[[], float | None] = lambda: None

    def seconds(self) -> float:
        """Run once."""
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        result = self.run()
        passed = time.perf_counter() - start
        del result
        own = self.clock()
        return passed if own is None else own


def take_turns(
    calls: Mapping[str, Call | Callable[[], object]],
    repeats: int,
    *,
    warm_up: bool = True,
    until: float = math.inf,
) -> dict[str, Times]:
    """Run each call once to warm it up, then all of them in turn, `repeats` times over.

    Parameters
    ----------
    calls
        What to time, by name.
    repeats
        Rounds.
    warm_up
        False where every call has run already.
    until
        Reading of `time.perf_counter` after which no further round begins, once `LEAST_ROUNDS` are done.
    """
    turns = {name: call if isinstance(call, Call) else Call(call) for name, call in calls.items()}
    if warm_up:
        for call in turns.values():
            call.run()
    found: dict[str, list[float]] = {name: [] for name in turns}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(repeats):
            if done >= LEAST_ROUNDS and time.perf_counter() > until:
                break
            for name, call in turns.items():
                found[name].append(call.seconds())
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}
