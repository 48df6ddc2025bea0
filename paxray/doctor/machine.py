"""Processors, memory, CUDA, packages, places to write: the machine without the segmenters."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from paxray.doctor.check import Check, State, without_user
from paxray.errors import PaxrayError, ResourceError
from paxray.parallel import processors

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DEVICES, PACKAGES, PLACES = "devices", "packages", "places"
GIB = 2**30
#: `thorax` took 1.8 GiB at most (benchmarks/results/thorax.md), a build besides holds the CT and its labels.
LEAST_MEMORY_GIB = 4.0
#: A CT of 512 x 512 x 600 voxels as a network's package wants it, its labels and what it writes meanwhile.
LEAST_DISK_GIB = 2.0
#: Extras that a user may want, and what for; the others are for who works on paxray itself.
EXTRAS = {
    "gpu": "projecting on an NVIDIA GPU",
    "totalsegmentator": "the segmenter totalsegmentator",
    "nnunet": "the segmenter nnunet",
}


def check_processors() -> Check:
    """Threads that work is shared out among."""
    facts = {"threads": processors(), "processors": os.cpu_count()}
    words = f"{facts['threads']} threads of {facts['processors']} processors"
    return Check(DEVICES, "cpu", State.READY, words, facts=facts)


def check_memory() -> Check:
    """Memory there is, within the limit of a container, and what of it is free."""
    total, free = _memory_bytes()
    if total is None:
        return Check(DEVICES, "memory", State.LIMITED, "this system does not say how much there is")
    facts = {"total_gib": round(total / GIB, 1)} | (
        {} if free is None else {"free_gib": round(free / GIB, 1)}
    )
    words = f"{facts['total_gib']:g} GiB" + ("" if free is None else f", {facts['free_gib']:g} GiB free")
    if (total if free is None else free) >= LEAST_MEMORY_GIB * GIB:
        return Check(DEVICES, "memory", State.READY, words, facts=facts)
    do = f"leave {LEAST_MEMORY_GIB:g} GiB a worker free for CTs of usual size: --workers 0, other programs closed"
    return Check(DEVICES, "memory", State.LIMITED, words, do, facts)


def _memory_bytes() -> tuple[int | None, int | None]:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None, None
    free = None
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (line := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        free = int(line[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        left = max(0, int(text) - int(used.read_text()))
        total, free = min(total, int(text)), left if free is None else min(free, left)
    return total, free


def check_cuda() -> list[Check]:
    """The driver, torch, the extra ``gpu`` with NVRTC, and whether all of it together makes a device.

    torch is loaded only where there is a driver.
    """
    driver, what = _driver()
    torch_check, arches = _torch(driver)
    nvrtc = _nvrtc(arches)
    checks = [
        Check(
            DEVICES, "NVIDIA driver", State.READY if driver else State.MISSING, what,
            "" if driver else "with an NVIDIA GPU: install its driver; nothing else needs one",
        ),
        torch_check,
        nvrtc,
    ]  # fmt: skip
    lacking = [check.name for check in checks if check.state is not State.READY]
    if not arches:
        found = f"no: {' and '.join(lacking) or 'GPU'} missing; `auto` means cpu"
        return [*checks, Check(DEVICES, "cuda", State.MISSING, found, "", {"auto": "cpu"})]
    facts = {"auto": _auto(), "devices": arches}
    if not lacking:
        return [*checks, Check(DEVICES, "cuda", State.READY, "yes; `auto` means cuda", "", facts)]
    # Where `auto` takes the GPU all the same, a build would fail.
    state = State.BROKEN if facts["auto"] == "cuda" else State.MISSING
    found = f"no: {' and '.join(lacking)}; `auto` means {facts['auto']}"
    do = "mend that, or say --device cpu" if state is State.BROKEN else ""
    return [*checks, Check(DEVICES, "cuda", state, found, do, facts)]


def _auto() -> str:
    from paxray.projection.device import resolve_device

    return resolve_device("auto")


def _driver() -> tuple[bool, str]:
    """Whether the driver answers, and what it says."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False, "none: libcuda.so.1 cannot be loaded"
    number, count = ctypes.c_int(), ctypes.c_int()
    if (code := library.cuInit(0)) or (code := library.cuDeviceGetCount(ctypes.byref(count))):
        return False, f"it is installed and answers with CUDA error {code}" + (
            " (no GPU)" if code == 100 else ""
        )
    library.cuDriverGetVersion(ctypes.byref(number))
    major, minor = number.value // 1000, number.value % 1000 // 10
    return True, f"CUDA {major}.{minor}, {count.value} GPU{'s' if count.value != 1 else ''}"


def _torch(driver: bool) -> tuple[Check, list[str]]:
    """The build of torch, and the architectures of the GPUs that it can use."""
    try:
        known = version("torch")
    except PackageNotFoundError:
        return Check(DEVICES, "torch", State.MISSING, "not installed", "pip install torch"), []
    if not driver:
        return Check(DEVICES, "torch", State.READY, f"{known}, not loaded: it finds no driver"), []
    try:
        import torch
    except (ImportError, OSError) as error:
        found = f"{known} cannot be loaded: {without_user(str(error))}"
        return Check(DEVICES, "torch", State.MISSING, found, "pip install --force-reinstall torch"), []
    built = f"{known}, built for CUDA {torch.version.cuda or 'none'}"
    if not torch.cuda.is_available():
        do = "install a build of torch for the driver's CUDA (pytorch.org, Get Started)"
        return Check(DEVICES, "torch", State.MISSING, f"{built}, sees no GPU", do), []
    arches, words = [], []
    for n in range(torch.cuda.device_count()):
        one = torch.cuda.get_device_properties(n)
        arches.append(f"sm_{one.major}{one.minor}")
        words.append(f"{one.name}, {one.total_memory / GIB:.0f} GiB, {arches[-1]}")
    return Check(DEVICES, "torch", State.READY, f"{built}: {'; '.join(words)}"), arches


def _nvrtc(arches: list[str]) -> Check:
    """The run-time compiler of the extra ``gpu``, and whether it knows the GPUs that there are."""
    name, do = "NVRTC", "pip install 'paxray[gpu]'"
    try:
        from cuda.bindings import nvrtc

        from paxray.projection.cuda.kernels import need_extra

        need_extra()
        _, major, minor = nvrtc.nvrtcVersion()
        _, known = nvrtc.nvrtcGetSupportedArchs()
    except ResourceError as error:
        return Check(DEVICES, name, State.MISSING, f"extra gpu: {without_user(error.found)}", do)
    except (ImportError, OSError, RuntimeError) as error:
        return Check(
            DEVICES, name, State.MISSING, f"extra gpu: {without_user(str(error).splitlines()[0])}", do
        )
    found = f"{major}.{minor} (extra gpu), compiles for sm_{min(known)} to sm_{max(known)}"
    if unknown := sorted(set(arches) - {f"sm_{n}" for n in known}):
        do = "pip install -U nvidia-cuda-nvrtc, to a version that knows this GPU"
        return Check(DEVICES, name, State.MISSING, f"{found}, not for {', '.join(unknown)}", do)
    return Check(DEVICES, name, State.READY, found)


def check_packages() -> list[Check]:
    """The packages that paxray needs, at versions that it takes, and each extra."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires("paxray") or []]
    except PackageNotFoundError:
        found = "paxray itself is not installed, so nothing says what it needs"
        return [Check(PACKAGES, "required", State.BROKEN, found, "pip install -e . in its folder")]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    lacking = [text for one in needed if (text := _lacks(one))]
    if lacking:
        do = "pip install " + " ".join(f"'{one.name}{one.specifier}'" for one in needed if _lacks(one))
        checks = [Check(PACKAGES, "required", State.BROKEN, "; ".join(lacking), do)]
    else:
        checks = [Check(PACKAGES, "required", State.READY, f"all {len(needed)} there")]
    for extra, purpose in EXTRAS.items():
        named = [
            one
            for one in wanted
            if one.marker is not None and f"{extra!r}" in str(one.marker).replace('"', "'")
        ]
        parts = [one for one in named if one.marker is not None and one.marker.evaluate({"extra": extra})]
        if not named:
            found = (
                f"{purpose}: what is installed of paxray is older than its files here and does not name it"
            )
            checks.append(
                Check(PACKAGES, f"extra {extra}", State.MISSING, found, "pip install -e . in paxray's folder")
            )
        elif not parts:
            found = f"{purpose}: there is none for Python {sys.version_info[0]}.{sys.version_info[1]} yet"
            checks.append(Check(PACKAGES, f"extra {extra}", State.MISSING, found))
        elif lacking := [text for one in parts if (text := _lacks(one))]:
            found, do = f"{purpose}: {'; '.join(lacking)}", f"pip install 'paxray[{extra}]'"
            checks.append(Check(PACKAGES, f"extra {extra}", State.MISSING, found, do))
        else:
            found = ", ".join(f"{one.name} {version(one.name)}" for one in parts)
            checks.append(Check(PACKAGES, f"extra {extra}", State.READY, found))
    return checks


def _lacks(one: Requirement) -> str:
    """What is wrong with an installed package, or nothing."""
    try:
        found = version(one.name)
    except PackageNotFoundError:
        return f"{one.name} is not installed"
    # A local build (2.9+cu130) or a release candidate that somebody installed counts as what it is of.
    return (
        ""
        if one.specifier.contains(found, prereleases=True)
        else f"{one.name} {found}, needed {one.specifier}"
    )


def check_places(data_sets: Path) -> list[Check]:
    """Where data sets, temporary files and compiled code go: free space, and whether they can be written."""
    checks = [
        _place(
            "data sets, segmentations",
            data_sets,
            "change to a folder that you may write, or name one: --out DIR",
        )
    ]
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:
        found = "no folder for temporary files can be written"
        checks.append(Check(PLACES, "temporary files", State.BROKEN, found, "set TMPDIR to one that can"))
    else:
        checks.append(_place("temporary files", temporary, "set TMPDIR to a folder that you may write"))
    return [*checks, _compiled()]


def _place(name: str, folder: Path, do: str) -> Check:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent  # it will be made
    free = shutil.disk_usage(there).free / GIB
    facts = {"free_gib": round(free, 1)}
    here = folder.resolve() == Path.cwd()
    words = f"{'this folder' if here else without_user(str(folder.absolute()))}: {free:.1f} GiB free"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check(PLACES, name, State.BROKEN, f"{words}, but it cannot be written", do, facts)
    if free < LEAST_DISK_GIB:
        return Check(PLACES, name, State.LIMITED, words, f"free {LEAST_DISK_GIB:g} GiB or more", facts)
    return Check(PLACES, name, State.READY, words, "", facts)


def _compiled() -> Check:
    """Where numba keeps what it compiled: asked of a function of paxray's own, which it places on being loaded."""
    name = "compiled code"
    try:
        from paxray.physics.loops import look_up_within

        folder = Path(look_up_within.stats.cache_path)
    except (ImportError, RuntimeError) as error:
        do = "set NUMBA_CACHE_DIR to a folder that you may write"
        return Check(PLACES, name, State.BROKEN, without_user(str(error)), do)
    beside = folder.parent == Path(__file__).parents[1] / "physics"
    where = "beside paxray's own files" if beside else without_user(str(folder.parent))
    free = shutil.disk_usage(folder).free / GIB
    return Check(
        PLACES, name, State.READY, f"{where}: writable, {free:.1f} GiB free", "", {"free_gib": round(free, 1)}
    )


def first_line(error: Exception) -> str:
    """What an error says, without its user."""
    text = error.what if isinstance(error, PaxrayError) else str(error)
    return without_user((text or type(error).__name__).splitlines()[0])
