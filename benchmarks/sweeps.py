"""How paxray's own cost depends on classes, overlap, detector, pose, outputs and threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.report import Table
from benchmarks.scenes import (
    FIELD_MM,
    PIXELS,
    Scene,
    cone_view,
    exclusive_labels,
    organs,
    overlapping_labels,
    renamed_labels,
)
from benchmarks.timing import Times, take_turns
from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Volume
from paxray.projection.project import Projection, project
from paxray.projection.view import View

LABELLED = ("image", "presence", "path")
FACTS = ("presence", "facts")
#: Times the rounds that a ratio is measured in which a change of the machine's speed within the run would hide.
STEADY = 5


@dataclass(frozen=True)
class Setting:
    """How to run: rounds, threads, device, and when to stop (as for `take_turns`)."""

    repeats: int
    threads: int
    device: Literal["cpu", "cuda"] = "cpu"
    until: float = math.inf

    def run(
        self,
        mu: Volume,
        labels: LabelVolume | None,
        view: View,
        want: Sequence[str],
        threads: int | None = None,
    ) -> Callable[[], Projection]:
        """A call of `paxray.project`, to be timed."""
        limit = None if self.device == "cuda" else threads or self.threads
        return lambda: project(mu, labels, view, want, device=self.device, threads=limit)


def against_first(title: str, note: str, what: str, times: dict[str, Times], **more: list[Any]) -> Table:
    """A table of times and their ratio to the first row's."""
    first = next(iter(times.values())).median
    rows = tuple(
        (name, *(column[n] for column in more.values()), found, found.median / first)
        for n, (name, found) in enumerate(times.items())
    )
    return Table(title, note, (what, *more, "time", "ratio to the first"), rows)


def class_numbers(scene: Scene, setting: Setting, numbers: Sequence[int], carve: bool = True) -> Table:
    """Presence and facts for few and many classes.

    First the same bodies, as many as the largest number, under fewer names, so that only the count of classes
    differs; then, with `carve`, as many bodies as classes in about the same space, so that runs get shorter too.
    """
    affine = scene.labels.affine
    bodies = exclusive_labels(organs(scene.labels.shape, max(numbers)), affine, max(numbers))
    calls = {}
    for number in numbers:
        calls[f"{number} classes of {max(numbers)} bodies"] = setting.run(
            scene.mu, renamed_labels(bodies, number), scene.view, FACTS
        )
    for number in (min(numbers), max(numbers)) if carve else ():
        carved = bodies if number == max(numbers) else exclusive_labels(
            organs(scene.labels.shape, number), affine, number
        )  # fmt: skip
        calls[f"{number} bodies, each a class"] = setting.run(scene.mu, carved, scene.view, FACTS)
    return against_first(
        f"Number of classes ({scene.name})",
        f"Outputs: {', '.join(FACTS)}.",
        "classes",
        take_turns(calls, setting.repeats, until=setting.until),
    )


def _catalog_table(
    title: str, volumes: dict[str, LabelVolume], mu: Volume, view: View, setting: Setting
) -> Table:
    calls, atoms, classes, members = {}, [], [], []
    for want in (FACTS, LABELLED):
        for name, labels in volumes.items():
            calls[f"{name}: {' + '.join(want)}"] = setting.run(mu, labels, view, want)
            counts = labels.atom_counts()
            atoms.append(int((counts[1:] > 0).sum()))
            classes.append(len(labels.names))
            members.append(float((counts[1:] @ labels.membership[1:].sum(axis=1)) / max(counts[1:].sum(), 1)))
    times = take_turns(calls, STEADY * setting.repeats)
    rows = tuple(
        (
            name,
            atoms[n],
            classes[n],
            members[n],
            found,
            found.median / list(times.values())[n // 2 * 2].median,
        )
        for n, (name, found) in enumerate(times.items())
    )
    return Table(
        title,
        "Ratios are to the exclusive labels with the same outputs. Classes per atom: mean over labelled voxels.",
        ("catalog", "atoms", "classes", "classes per atom", "time", "ratio to exclusive"),
        rows,
    )


def overlap(scene: Scene, setting: Setting) -> Table:
    """A made-up overlapping catalog against the exclusive labels that it grew from."""
    volumes = {"exclusive": scene.labels, "overlapping": overlapping_labels(scene.labels)}
    return _catalog_table(f"Overlapping catalog ({scene.name})", volumes, scene.mu, scene.view, setting)


def real_chest(setting: Setting) -> Table | None:
    """The real chest's whole catalog against its exclusive labels; None where ``PAXRAY_REAL_DATA`` is unset."""
    from paxray import api

    folder = os.environ.get("PAXRAY_REAL_DATA", "")
    if not folder:
        return None
    chest = Path(folder) / "lidc-idri-0001"
    ct = api.read_ct(chest / "ct.nii.gz")
    masks = f"{chest / 'totalsegmentator_v2.nii.gz'}=totalsegmentator_v2+118:costal_cartilages"
    exclusive = api.read_masks(masks, ct)
    with_body = api.segment(ct, exclusive)
    derived = api.derive(with_body)
    mu = api.attenuate(ct, with_body)
    view = api.place("pa", with_body)
    nk, nj, ni = ct.shape
    return _catalog_table(
        f"The real chest's catalog (LIDC-IDRI-0001, {ni}x{nj}x{nk}, cone, pa, 512 x 512)",
        {"exclusive": exclusive, "overlapping": derived},
        mu,
        view,
        setting,
    )


def outputs(scene: Scene, setting: Setting) -> Table:
    """What each output costs; maps of all classes are written where asked for."""
    wanted = (
        ("image",),
        ("presence",),
        ("facts",),
        ("path",),
        ("image", "presence"),
        ("image", "presence", "facts"),
        LABELLED,
        ("image", "presence", "path", "depth"),
        ("image", "presence", "path", "depth", "share"),
    )
    calls = {" + ".join(want): setting.run(scene.mu, scene.labels, scene.view, want) for want in wanted}
    pixels = scene.view.rows * scene.view.columns
    maps = {"path": 1, "depth": 2, "share": 1}
    mib = [
        sum(maps.get(name, 0) for name in want) * pixels * len(scene.labels.names) * 4 / 2**20
        for want in wanted
    ]
    return against_first(
        f"Outputs asked for ({scene.name}, {len(scene.labels.names)} classes)",
        "Dense maps are float32, one per class.",
        "outputs",
        take_turns(calls, setting.repeats),
        **{"dense maps, MiB": mib},
    )


def detectors(scene: Scene, setting: Setting, sizes: Sequence[int] = (128, 256, 512, 1024)) -> Table:
    """The same field with fewer and more pixels."""
    shrink = PIXELS // scene.view.columns
    views = {n // shrink: cone_view(pixels=n // shrink) for n in sizes}
    calls = {
        f"{n} x {n}": setting.run(scene.mu, scene.labels, view, ("image", *FACTS))
        for n, view in views.items()
    }
    times = take_turns(calls, setting.repeats)
    return against_first(
        f"Detector ({scene.name}, field {FIELD_MM:g} mm)",
        f"Outputs: image, {', '.join(FACTS)}.",
        "pixels",
        times,
        **{"ns per pixel": [t.median / n**2 * 1e9 for n, t in zip(views, times.values(), strict=True)]},
    )


def poses(scene: Scene, setting: Setting) -> Table:
    """Views along and across the volume's axes, and a volume that is turned itself."""
    pixels = scene.view.columns
    views = {
        "pa (steps along j)": cone_view(pixels=pixels),
        "lateral (steps along i)": cone_view(90, pixels=pixels),
        "from below (steps along k)": cone_view(0, 90, pixels=pixels),
        "turned by 20 degrees": cone_view(20, pixels=pixels),
        "turned by 45 degrees": cone_view(45, pixels=pixels),
        "turned by 30, raised by 25 degrees": cone_view(30, 25, pixels=pixels),
    }
    calls = {name: setting.run(scene.mu, scene.labels, view, LABELLED) for name, view in views.items()}
    turned = np.eye(4)
    angle = np.radians(25.0)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turned @ scene.mu.affine
    calls["pa, volume's own axes turned by 25 degrees"] = setting.run(
        Volume(scene.mu.array, affine),
        replace(scene.labels, affine=affine),
        views["pa (steps along j)"],
        LABELLED,
    )
    return against_first(
        f"Pose ({scene.name}, {len(scene.labels.names)} classes)",
        f"Outputs: {', '.join(LABELLED)}.",
        "pose",
        take_turns(calls, setting.repeats),
    )


def threads(scene: Scene, setting: Setting) -> Table:
    """From one thread to all."""
    numbers = sorted({1, *(2**n for n in range(1, 8) if 2**n < setting.threads), setting.threads})
    calls = {
        str(n): setting.run(scene.mu, scene.labels, scene.view, ("image", *FACTS), threads=n) for n in numbers
    }
    times = take_turns(calls, setting.repeats)
    one = times["1"].median
    return against_first(
        f"Threads ({scene.name}, {len(scene.labels.names)} classes)",
        f"Outputs: image, {', '.join(FACTS)}.",
        "threads",
        times,
        **{"speed-up": [one / t.median for t in times.values()]},
    )
