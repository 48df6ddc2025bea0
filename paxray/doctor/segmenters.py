"""Which segmenters could run here, and which of TotalSegmentator's weights are there."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, entry_points, metadata
from pathlib import Path

from paxray.anatomy.catalog import Catalog
from paxray.doctor.check import Check, State, without_user
from paxray.doctor.machine import GIB, first_line
from paxray.errors import ConfigError, PaxrayError, ResourceError
from paxray.segmentation.registry import BUILT_IN, GROUP, segmenter_class, segmenter_names
from paxray.segmentation.totalsegmentator import TotalSegmentator
from paxray.segmentation.totalsegmentator_tasks import MODES, Task, ct_tasks, installed, read_task

SEGMENTERS, WEIGHTS = "segmenters", "TotalSegmentator's weights"
#: Segmenters built in that run on packages of others: the one whose licence counts, and the extra that brings it.
_PACKAGES = {"totalsegmentator": ("TotalSegmentator", "totalsegmentator"), "nnunet": ("nnunetv2", "nnunet")}
#: The one that the default pipeline takes.
_DEFAULT = "thorax"


def check_segmenters(device: str) -> list[Check]:
    """Every segmenter by name, whether it passes its own preflight on the device that ``auto`` means.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``; a segmenter that has no use for a GPU is asked about the processor.
    """
    return [_segmenter(name, device) for name in segmenter_names()]


def _segmenter(name: str, device: str) -> Check:
    package, extra = _PACKAGES.get(name, ("", ""))
    if package:
        try:
            metadata(package)
        except PackageNotFoundError:
            found = f"the package {package} is not installed"
            return Check(SEGMENTERS, name, State.MISSING, found, f"pip install 'paxray[{extra}]'")
    licence = f"licence {_licence(package or _offered_by(name))}"
    broken = State.BROKEN if name == _DEFAULT else State.MISSING
    try:
        kind = segmenter_class(name)
        made = kind.from_settings({}, Path())
        made.preflight("cuda" if device == "cuda" and "cuda" in kind.devices else "cpu")
    except ConfigError as error:
        if error.code == "unknown_segmenter":
            return Check(SEGMENTERS, name, broken, _words(error), error.do)
        found = f"installed; a pipeline has to tell it {error.expected or first_line(error)}; {licence}"
        return Check(SEGMENTERS, name, State.READY, found, "", {"needs_settings": True})
    except ResourceError as error:
        return Check(
            SEGMENTERS,
            name,
            broken,
            f"{_words(error)}; {licence}",
            without_user(error.do),
            {"code": error.code},
        )
    except Exception as error:  # a third party's: whatever it raises is what is to be said of it
        found = f"{type(error).__name__}: {first_line(error)}"
        return Check(SEGMENTERS, name, broken, found, f"ask who makes {_offered_by(name)}, or uninstall it")
    return Check(SEGMENTERS, name, State.READY, licence)


def _words(error: PaxrayError) -> str:
    return without_user("; ".join(filter(None, (error.what, error.found))))


def _offered_by(name: str) -> str:
    """The package that a segmenter comes with."""
    if name in BUILT_IN:
        return "paxray"
    points = [point.dist.name for point in entry_points(group=GROUP, name=name) if point.dist is not None]
    return points[0] if points else "an unknown package"


def _licence(package: str) -> str:
    """The licence that a package's metadata names."""
    try:
        facts = metadata(package)
    except PackageNotFoundError:
        return "unknown"
    for key in ("License-Expression", "License"):
        text = " ".join(facts.get_all(key) or []).strip()
        if text and "\n" not in text and len(text) < 60:
            return text
    named = [
        line.rsplit(" :: ", 1)[1]
        for line in facts.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    return ", ".join(named) or "unknown: its package names none"


def check_weights(catalog: Catalog) -> list[Check]:
    """The weights of each of TotalSegmentator's tasks for CT, in each mode that it has.

    Tasks that need a licence number stand in one line until one is stored. Nothing where the package is missing.
    """
    if not installed():
        return []
    place = TotalSegmentator().weights_folder()
    words = f"in {without_user(str(place))}"
    above = place
    while not above.exists():
        above = above.parent
    free = shutil.disk_usage(above).free / GIB
    there = "" if place.is_dir() else ", which is not there"
    checks = [
        Check(
            WEIGHTS,
            "folder",
            State.READY,
            f"{words}{there}; {free:.1f} GiB free",
            "",
            {"free_gib": round(free, 1)},
        )
    ]
    refused: list[str] = []
    do = ""
    try:
        tasks = _tasks()
    except ResourceError as error:
        return [Check(WEIGHTS, "tasks", State.MISSING, _words(error), without_user(error.do))]
    for task, mode in tasks:
        name = task.name if mode == "default" else f"{task.name}, {mode}"
        if not task.classes(catalog):
            continue  # it draws nothing that paxray has a class for: a pipeline that asks for it is refused
        try:
            TotalSegmentator(tasks=(task.name,), mode=mode).preflight("cpu")
        except ResourceError as error:
            if error.code == "licence_refused":
                refused.append(name)
                do = without_user(error.do).partition(";")[0]
                continue
            facts = {"code": error.code, "download": list(task.download)}
            get = " && ".join(f"totalseg_download_weights -t {one}" for one in task.download)
            checks.append(Check(WEIGHTS, name, State.MISSING, without_user(error.expected), get, facts))
        else:
            checks.append(Check(WEIGHTS, name, State.READY, "there"))
    if refused:
        found = f"no licence number is stored: {', '.join(refused)}"
        checks.append(
            Check(WEIGHTS, f"{len(refused)} with a licence", State.MISSING, found, do, {"tasks": refused})
        )
    return checks


def _tasks() -> list[tuple[Task, str]]:
    """Every task in every mode that it has of its own."""
    found: dict[tuple[str, bool, bool], tuple[Task, str]] = {}
    for name in ct_tasks():
        for mode in MODES:
            task = read_task(name, mode)
            found.setdefault((task.name, task.fast, task.fastest), (task, mode))
    return list(found.values())
