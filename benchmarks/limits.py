"""How exact paxray's labels are, how much memory a call takes, and how far the machine would let it go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.machine import ceilings, peak_beyond
from benchmarks.report import Table
from benchmarks.scenes import Scene, exclusive_labels
from benchmarks.sweeps import FACTS, LABELLED, Setting
from benchmarks.timing import take_turns
from paxray.projection.project import project
from paxray.projection.rays import IndexRays, stepping_axes


def path_accuracy(scenes: Sequence[Scene], setting: Setting) -> Table:
    """Path length by nearest label against the exact traversal of voxels, and presence."""
    rows = []
    for scene in scenes:
        arguments = (scene.mu, scene.labels, scene.view, ["path"])
        ours = project(*arguments, device="cpu", threads=setting.threads).path_mm
        exact = project(*arguments, method="exact").path_mm
        assert ours is not None
        assert exact is not None
        met_ours, met_exact = ours > 0, exact > 0
        difference2 = np.square(ours - exact)
        either = met_ours | met_exact
        dice = 2 * np.count_nonzero(met_ours & met_exact) / (met_ours.sum() + met_exact.sum())
        rows.append(
            (
                scene.name,
                float(np.sqrt(difference2.mean())),
                float(np.sqrt(difference2[either].mean())),
                float(abs(ours.sum(dtype=float) / exact.sum(dtype=float) - 1)),
                float(dice),
            )
        )
    return Table(
        "Path length against exact traversal",
        f"{len(scenes[0].labels.names)} classes. RMS over all pixels of all classes, and over those that either "
        "method meets; error of the sum over everything; Dice of presence over all classes.",
        ("case", "RMS, all (mm)", "RMS, met (mm)", "sum, relative", "presence Dice"),
        tuple(rows),
    )


def memory(scenes: Sequence[Scene], setting: Setting) -> Table | None:
    """Resident memory beyond volume, labels and outputs; None where it cannot be measured."""
    rows = []
    for scene in scenes:
        for want in (("image",), ("image", *FACTS), LABELLED):
            call = setting.run(scene.mu, scene.labels, scene.view, want)
            call()
            measured = peak_beyond(call)
            if measured is None:
                return None
            found, rise = measured
            kept = sum(array.nbytes for array in vars(found).values() if isinstance(array, np.ndarray))
            rows.append((scene.name, " + ".join(want), kept / 2**20, (rise - kept) / 2**20))
    return Table(
        "Memory",
        "Peak resident memory of one call beyond what was there before it and beyond its outputs. Pages of an output "
        "that nothing was written to do not count, so that dense maps can come out below their size.",
        ("case", "outputs", "outputs, MiB", "beyond them, MiB"),
        tuple(rows),
    )


#: Float operations of one sample of Joseph's method, whoever writes it: two multiply-adds for the position (4), two
#: floors, two fractions, three linear interpolations of three operations, one addition; of a label: two roundings.
IMAGE_FLOP, LABEL_FLOP = 18, 4
#: Values loaded for a sample: four corners; and one label.
IMAGE_LOADS, LABEL_LOADS = 4, 1


def count_samples(scene: Scene) -> int:
    """Samples that fall inside the volume: pixels x slabs crossed."""
    everywhere = exclusive_labels(np.ones(scene.labels.shape, np.uint16), scene.labels.affine, 1)
    found = project(scene.mu, everywhere, scene.view, ["path"], device="cpu").path_mm
    assert found is not None
    axis = np.abs(stepping_axes(scene.view, scene.mu.grid)).astype(int) - 1
    way = np.abs(IndexRays.of(scene.view, scene.mu.grid).directions())
    per_mm = np.take_along_axis(way, np.broadcast_to(axis, scene.view.size)[..., None], axis=-1)[..., 0]
    return int(np.rint(found[0] * per_mm).sum())


def roofline(scenes: Sequence[Scene], setting: Setting) -> Table:
    """Measured time against what the machine's measured ceilings allow for the work counted."""
    limit = ceilings(setting.threads)
    rows = []
    for scene in scenes:
        samples = count_samples(scene)
        volume, label = scene.mu.array.nbytes, scene.labels.atoms.nbytes
        image = scene.view.rows * scene.view.columns * 4
        bits = scene.view.rows * scene.view.columns * 8 * -(-len(scene.labels.names) // 64)
        paths = image * len(scene.labels.names)
        work = {
            "image": (("image",), volume + image, IMAGE_FLOP, IMAGE_LOADS),
            "image + presence": (
                ("image", "presence"), volume + label + image + bits,
                IMAGE_FLOP + LABEL_FLOP, IMAGE_LOADS + LABEL_LOADS,
            ),
            "image + presence + path": (
                LABELLED, volume + label + image + bits + paths,
                IMAGE_FLOP + LABEL_FLOP, IMAGE_LOADS + LABEL_LOADS,
            ),
        }  # fmt: skip
        times = take_turns(
            {
                name: setting.run(scene.mu, scene.labels, scene.view, want)
                for name, (want, *_) in work.items()
            },
            setting.repeats,
        )
        for name, (_, n_bytes, flop, loads) in work.items():
            by_copy = n_bytes / limit["copy_gb_per_s"] / 1e6
            by_flop = samples * flop / limit["gflop_per_s"] / 1e6
            by_load = samples * loads / limit["giga_loads_per_s"] / 1e6
            seconds = times[name].median
            rows.append(
                (
                    f"{scene.name}: {name}",
                    samples / 1e6,
                    n_bytes / 1e6,
                    samples * flop / 1e9,
                    by_copy,
                    by_flop,
                    by_load,
                    seconds * 1e3,
                    seconds * 1e3 / max(by_copy, by_flop, by_load),
                )
            )
    ceilings_said = (
        f"copy {limit['copy_gb_per_s']:.1f} GB/s (read + written), {limit['gflop_per_s']:.0f} GFLOP/s, "
        f"{limit['giga_loads_per_s']:.2f} G indexed loads/s"
    )
    return Table(
        "Roofline",
        f"Ceilings measured with {setting.threads} threads: {ceilings_said}. Bytes: every voxel read once, every "
        f"output written once. FLOP: {IMAGE_FLOP} per sample, {LABEL_FLOP} more with labels. Loads: {IMAGE_LOADS} per "
        f"sample, {LABEL_LOADS} more with labels, as if all came from the first-level cache. "
        "No real code reaches all three; parallel rays along an axis are added up without indexed loads, and may beat "
        "that floor.",
        (
            "work", "M samples", "MB", "GFLOP", "floor: copy, ms", "floor: FLOP, ms", "floor: loads, ms",
            "measured, ms", "over highest floor",
        ),
        tuple(rows),
    )  # fmt: skip
