"""What ran: the machine, the versions, and the machine's ceilings that a roofline is drawn from."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange, set_num_threads
from numpy.typing import NDArray

F32 = np.float32


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Machine and date; nothing that names the host or its paths."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": model,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(load, 2),
    }


class OthersUse:
    """How much of the processors other processes had while something ran; Linux only."""

    def __init__(self) -> None:
        self.before = self._read()

    @staticmethod
    def _read() -> tuple[float, float] | None:
        """Seconds that the machine was busy, and that this process and its children were."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        user, nice, system, _, _, irq, soft_irq, steal = map(int, stat.read_text().split(None, 9)[1:9])
        busy = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
        return busy, sum(os.times()[:4])

    def share(self, seconds: float) -> float | None:
        """Share of all processors' time in the `seconds` since this was made; None where it cannot be told."""
        after = self._read()
        if after is None or self.before is None:
            return None
        others = (after[0] - self.before[0]) - (after[1] - self.before[1])
        return max(others, 0.0) / (seconds * (os.cpu_count() or 1))


def versions(*more: str) -> dict[str, str]:
    """Versions of what all runs depend on, and of further packages."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "numba", *(more or ("torch",))):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@njit(parallel=True, cache=True)
def _copy(source, target):  # type: ignore[no-untyped-def]
    n = source.size
    parts = 64
    for part in prange(parts):
        low, high = part * n // parts, (part + 1) * n // parts
        target[low:high] = source[low:high]


@njit(parallel=True, cache=True, fastmath={"contract"})
def _multiply_add(out, rounds, a, b):  # type: ignore[no-untyped-def]
    for part in prange(out.shape[0]):
        # Many independent sums, so that the latency of one does not show.
        x = np.zeros(256, F32)
        for _ in range(rounds):
            for u in range(256):
                t = x[u]
                for _ in range(16):
                    t = t * a + b
                x[u] = t
        out[part] = x.sum()


@njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _load_by_vector(table, index, out, rounds):  # type: ignore[no-untyped-def]
    n = index.size
    for part in prange(out.shape[0]):
        x = np.zeros(n, F32)
        for turn in range(rounds):
            shift = np.uint64(turn & 7)
            for u in range(n):
                x[u] += table[np.uint64(index[u]) + shift]
        out[part] = x.sum()


@njit(parallel=True, cache=True, error_model="numpy")
def _load_one_by_one(table, index, out, rounds):  # type: ignore[no-untyped-def]
    n, one = index.size, np.uint64(1)
    for part in prange(out.shape[0]):
        # Eight sums that do not wait for each other; without leave to reorder them no gather is made of this.
        a = b = c = d = e = f = g = h = F32(0)
        for _ in range(rounds):
            for u8 in range(n // 8):
                u = np.uint64(u8 * 8)
                a += table[index[u]]
                b += table[index[u + one]]
                c += table[index[u + np.uint64(2)]]
                d += table[index[u + np.uint64(3)]]
                e += table[index[u + np.uint64(4)]]
                f += table[index[u + np.uint64(5)]]
                g += table[index[u + np.uint64(6)]]
                h += table[index[u + np.uint64(7)]]
        out[part] = a + b + c + d + e + f + g + h


def _best(call: Any, seconds: float) -> float:
    """The fastest of calls repeated for a while."""
    call()
    fastest, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return float(fastest)


def ceilings(threads: int, seconds: float = 0.7) -> dict[str, float]:
    """Measure the machine's limits with `threads` threads.

    Returns
    -------
    dict
        ``copy_gb_per_s``: bytes read plus bytes written by a copy of 256 MiB. ``gflop_per_s``: float32
        multiply-adds, two operations each, in code that numba vectorises. ``giga_loads_per_s``: float32 loads by
        index out of a table that the first-level cache holds, one by one or by vector gathers, whichever is faster.
    """
    before = get_num_threads()
    set_num_threads(threads)
    try:
        source: NDArray[np.float32] = np.ones(2**26, F32)
        target = np.zeros_like(source)
        copy_s = _best(lambda: _copy(source, target), seconds)
        out, rounds = np.zeros(threads * 8, F32), 2000
        flop_s = _best(lambda: _multiply_add(out, rounds, F32(0.999), F32(0.001)), seconds)
        rng = np.random.default_rng(1)
        table = rng.random(4096 + 8, dtype=F32)
        index = np.sort(rng.integers(0, 4096, 1024)).astype(np.uint64)
        load_s = min(
            _best(partial(load, table, index, out, rounds), seconds)
            for load in (_load_by_vector, _load_one_by_one)
        )
    finally:
        set_num_threads(before)
    return {
        "copy_gb_per_s": 2 * source.nbytes / copy_s / 1e9,
        "gflop_per_s": out.size * rounds * 256 * 16 * 2 / flop_s / 1e9,
        "giga_loads_per_s": out.size * rounds * index.size / load_s / 1e9,
    }


def peak_beyond(call: Any) -> tuple[object, int] | None:
    """Run a call; return its result and by how many bytes resident memory rose at most; None where Linux is not.

    The result itself is part of that rise. Memory that calls before have freed is handed back first, or it would
    be used again unseen.
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not (reset.exists() and status.exists()):
        return None

    def kilobytes(key: str) -> int:
        line = next(text for text in status.read_text().splitlines() if text.startswith(key))
        return int(line.split()[1])

    gc.collect()
    trim(0)
    before = kilobytes("VmRSS")
    reset.write_text("5")
    result = call()
    return result, (kilobytes("VmHWM") - before) * 1024
