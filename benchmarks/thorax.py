"""``python -m benchmarks.thorax``: the built-in thorax segmenter against TotalSegmentator's masks and on phantoms."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import machine
from benchmarks.report import markdown_table, number
from paxray import api
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.errors import ConfigError, PaxrayError
from paxray.io.volume import Volume
from paxray.segmentation.thorax.result import ThoraxResult
from paxray.segmentation.thorax.segment import CLASSES, segment_thorax
from paxray.segmentation.thorax.segmenter import VERSION

Bool = NDArray[np.bool_]
#: Bones of a chest in both truths; the sum of these is the skeleton.
BONES = ("vertebrae", "rib", "sternum", "scapula", "clavicula", "humerus")
#: TotalSegmentator's trachea ends about so far into the main bronchi.
BRONCHI_MM = 20.0
REAL = "lidc-idri-0001"
COLUMNS = ("case", "class", "Dice", "found, ml", "truth, ml", "confidence", "note")
MISSED = "labelled voxels outside the body"
TABLE = "what lies apart from the patient, in the body"
TREE = "trachea + 2 cm of bronchi"
#: A rib counts as found from this Dice on.
RIB_DICE = 0.6
#: What the segmenter is to reach on the real chest: class, least Dice, and what is known of why it may not.
GOALS = (
    ("lung_left", 0.97, ""),
    ("lung_right", 0.97, ""),
    (
        "trachea",
        0.80,
        "TotalSegmentator's trachea goes on for about 2 cm into the main bronchi, which are classes of their own here; "
        "see the next line",
    ),
    (TREE, 0.80, ""),
    ("bones", 0.80, ""),
    ("heart", 0.75, ""),
)
#: Denser than this is more than air and foam.
SOLID_HU = -500
#: Solid things of a smaller cross-section are tubes and folds of cloth.
LEAST_SECTION_MM2 = 100.0


def dice(a: Bool, b: Bool) -> float:
    """2 |A and B| / (|A| + |B|)."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def union(labels: LabelVolume, wanted: Callable[[str], bool]) -> Bool:
    """The voxels of all classes that are wanted."""
    out = np.zeros(labels.shape, bool)
    for name in labels.names:
        if wanted(name):
            out |= labels.mask(name)
    return out


def truth_of(name: str, labels: LabelVolume, result: ThoraxResult) -> Bool | None:
    """What a class is measured against; None where the truth does not have it."""
    if name == "bones":
        return union(labels, lambda n: n.split("_")[0] in BONES)
    if name == "spine":
        return union(labels, lambda n: n.startswith("vertebrae_"))
    if name in ("ribs_left", "ribs_right"):
        return union(labels, lambda n: n.startswith(f"rib_{name[5:]}_"))
    if name in ("lung_left", "lung_right"):
        return union(labels, lambda n: n.startswith("lung_") and "lobe" in n and n.endswith(name[5:]))
    if name == "heart":
        return union(labels, lambda n: n.startswith("heart") or n == "atrial_appendage_left")
    if name == "aorta_descending":
        return None if result.carina_mm is None else descending(labels, result.carina_mm[2])
    if name == "body":
        return union(labels, lambda n: True) if "subcutaneous_fat" in labels.names else None
    return labels.mask(name) if name in labels.names and labels.voxel_counts()[name] else None


def descending(labels: LabelVolume, carina_z_mm: float) -> Bool:
    """The hindmost piece of the aorta below the carina."""
    aorta = labels.mask("aorta")
    k = np.arange(aorta.shape[0])
    height = labels.grid.to_world(np.column_stack([0 * k, 0 * k, k]))[:, 2]
    aorta &= (height < carina_z_mm)[:, None, None]
    pieces, count = ndimage.label(aorta)
    if not count:
        return aorta
    sizes = np.bincount(pieces.ravel())[1:]
    y = np.array([row[1] for row in ndimage.center_of_mass(aorta, pieces, range(1, count + 1))])
    y[sizes < 0.1 * sizes.max()] = -1
    return np.asarray(pieces == 1 + int(y.argmax()))


def measure(case: str, ct: Volume, labels: LabelVolume) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Rows of the table for one case, and what it cost."""
    start, wall = time.process_time(), time.perf_counter()
    result = segment_thorax(ct)
    cost = {"case": case, "shape": list(ct.shape), "cpu_s": time.process_time() - start}
    cost["wall_s"] = time.perf_counter() - wall
    cost["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ml = ct.grid.voxel_volume_mm3 / 1000
    rows: list[tuple[Any, ...]] = []
    for name in CLASSES:
        truth = truth_of(name, labels, result)
        size = "-" if truth is None else f"{truth.sum() * ml:.0f}"
        if name in result.unknown:
            rows.append((case, name, "unknown", "-", size, "-", result.unknown[name]))
            continue
        found = result.mask(name)
        one = result.found[name]
        score = "-" if truth is None else f"{dice(found, truth):.3f}"
        rows.append((case, name, score, f"{found.sum() * ml:.0f}", size, f"{one.confidence:.2f}", one.note))
        if name == "trachea" and truth is not None and result.carina_mm is not None:
            tree = found | near_carina(ct, result)
            rows.append(
                (
                    case,
                    TREE,
                    f"{dice(tree, truth):.3f}",
                    f"{tree.sum() * ml:.0f}",
                    size,
                    "-",
                    "",
                )
            )
    body = result.mask("body")
    missed = int(((labels.atoms > 0) & ~body).sum())
    rows.append((case, MISSED, str(missed), "-", "-", "-", "voxels"))
    if case == REAL:
        table = apart(ct, labels)
        rows.append(
            (case, TABLE, "-", f"{(table & body).sum() * ml:.1f}", f"{table.sum() * ml:.0f}", "-", "")
        )
    return rows, cost


def apart(ct: Volume, labels: LabelVolume) -> Bool:
    """Table and cushion: what is solid in an axial slice and hangs together with no labelled voxel there."""
    labelled, out = labels.atoms > 0, np.zeros(ct.shape, bool)
    least = LEAST_SECTION_MM2 / float(np.prod(np.linalg.norm(ct.affine[:3, :2], axis=0)))
    for k, plane in enumerate(np.asarray(ct.array) > SOLID_HU):
        pieces, count = ndimage.label(plane)
        wanted = np.bincount(pieces.ravel(), minlength=count + 1) >= least
        wanted[0] = False
        wanted[np.unique(pieces[labelled[k]])] = False
        out[k] = wanted[pieces]
    return out


def goals(rows: Sequence[tuple[Any, ...]], costs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What was to be reached, what was, and why not where it was not; only for the cases that were measured."""
    score = {(row[0], row[1]): row[2] for row in rows}
    out: list[tuple[str, ...]] = []

    def add(what: str, goal: str, measured: str, met: bool, why: str = "") -> None:
        out.append((what, goal, measured, "yes" if met else "**no**", "" if met else why))

    if any(case == REAL for case, _ in score):
        for name, least, why in GOALS:
            found = score.get((REAL, name), "unknown")
            met = found not in ("unknown", "-") and float(found) >= least
            add(f"{name}, Dice", f">= {least:.2f}", found, met, why)
        ribs = [score[REAL, n] for n in CLASSES if n.split("_")[-1].isdigit() and n.startswith("rib_")]
        right = sum(s not in ("unknown", "-") and float(s) >= RIB_DICE for s in ribs)
        add(f"ribs with side and number at Dice >= {RIB_DICE}, of 24", ">= 20", str(right), right >= 20)
        add(f"{MISSED}, voxels", "0", score[REAL, MISSED], score[REAL, MISSED] == "0")
        inside = next(row[3] for row in rows if row[:2] == (REAL, TABLE))
        why = "the cushion's cover where the back lies on it: one or two voxels, with no air between it and the skin"
        add("table in the body, ml", "0", inside, float(inside) == 0, why)
    bodies = [float(score[case, name]) for case, name in score if name == "body" and case != REAL]
    if bodies:
        add("body, least Dice of the phantoms", ">= 0.98", f"{min(bodies):.3f}", min(bodies) >= 0.98)
    slow, large = max(c["wall_s"] for c in costs), max(c["peak_gib"] for c in costs)
    add("slowest case, wall seconds", "< 60", number(slow), slow < 60, "other work on the machine counts")
    add("peak memory, GiB", "< 4", number(large), large < 4)
    return out


def near_carina(ct: Volume, result: ThoraxResult) -> Bool:
    """The main bronchi to 2 cm from the carina."""
    bronchi = np.zeros(ct.shape, bool)
    for side in ("left", "right"):
        if f"bronchus_main_{side}" in result.found:
            bronchi |= result.mask(f"bronchus_main_{side}")
    at = np.argwhere(bronchi)
    away = np.linalg.norm(ct.grid.to_world(at[:, ::-1]) - np.asarray(result.carina_mm), axis=1)
    bronchi[tuple(at[away > BRONCHI_MM].T)] = False
    return bronchi


def phantom_case(seed: int, spacing_mm: tuple[float, float, float]) -> tuple[Volume, LabelVolume]:
    """A phantom and its exact labels."""
    from paxray.phantom.thorax import make_phantom

    made = make_phantom(seed, spacing_mm)
    builder = LabelBuilder(made.ct.shape)
    catalog = load_catalog()
    vocabulary = load_vocabulary("phantom", catalog=catalog)
    everywhere = tuple(slice(0, n) for n in made.ct.shape)
    for label, name in vocabulary.labels.items():
        builder.add_mask(name, everywhere, made.labels.array == label)
    return made.ct, builder.finish(made.ct.affine, catalog)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thorax", description=__doc__)
    parser.add_argument("--phantoms", type=int, nargs="*", default=[2, 3, 5], metavar="SEED")
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.0, 1.0, 2.5), metavar="MM", help="x y z")
    parser.add_argument("--no-real", action="store_true", help="only phantoms")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write thorax.md and thorax.json there")
    return parser.parse_args(arguments)


def cases(options: argparse.Namespace) -> list[tuple[str, Callable[[], tuple[Volume, LabelVolume]]]]:
    """Names of the cases, and what reads each."""
    found: list[tuple[str, Callable[[], tuple[Volume, LabelVolume]]]] = []
    if not options.no_real:
        root = os.environ.get("PAXRAY_REAL_DATA", "")
        if not root:
            raise ConfigError(
                "no real chest to measure on",
                expected=f"PAXRAY_REAL_DATA, the folder that holds {REAL}/",
                do="set it, or say --no-real",
                code="no_real_data",
            )
        folder = Path(root) / REAL

        def real() -> tuple[Volume, LabelVolume]:
            ct = api.read_ct(folder / "ct.nii.gz")
            masks = folder / "totalsegmentator_v2.nii.gz"
            return ct, api.read_masks(f"{masks}=totalsegmentator_v2+118:costal_cartilages", ct)

        found.append((REAL, real))
    for seed in options.phantoms:
        spacing = tuple(options.spacing)
        found.append((f"phantom {seed}", lambda seed=seed, spacing=spacing: phantom_case(seed, spacing)))  # type: ignore[misc]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = parse(arguments)
    about = machine.describe()
    try:
        rows: list[tuple[Any, ...]] = []
        costs: list[dict[str, Any]] = []
        for name, read in cases(options):
            more, cost = measure(name, *read())
            rows += more
            costs.append(cost)
            print(f"{name}: {cost['cpu_s']:.1f} s of processor, {cost['wall_s']:.1f} s", file=sys.stderr)
    except PaxrayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    cost_rows: list[tuple[str, ...]] = [
        (
            c["case"],
            " x ".join(map(str, reversed(c["shape"]))),
            number(c["cpu_s"]),
            number(c["wall_s"]),
            number(c["peak_gib"]),
        )
        for c in costs
    ]
    text = "\n".join(
        [
            "# The built-in thorax segmenter, measured\n",
            f"`python -m benchmarks.thorax --out benchmarks/results`, {about['date']}, {about['cpu']}, "
            f"{about['cores']} cores, load before the run {about['load_before']}. The real chest is measured against "
            "TotalSegmentator's masks, which are no exact truth: its heart includes the pulmonary trunk, its trachea "
            "2 cm of the main bronchi. Phantoms are measured against their exact labels.\n",
            markdown_table(("case", "voxels", "processor, s", "wall, s", "peak so far, GiB"), cost_rows)
            + "\n",
            f"Thorax version {VERSION}. What it is to reach, on the real chest unless said otherwise:\n",
            markdown_table(("what", "goal", "measured", "reached", "why not"), goals(rows, costs)) + "\n",
            "Class by class. 'What lies apart from the patient': solid in an axial slice (above "
            f"{SOLID_HU} HU, at least {LEAST_SECTION_MM2:.0f} mm2) without a labelled voxel, so the table and its "
            "cushion; *truth* is all of it, *found* the part that the body holds.\n",
            markdown_table(COLUMNS, rows) + "\n",
        ]
    )
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "thorax.md").write_text(text)
        record = {
            "machine": about,
            "version": VERSION,
            "goals": [
                dict(zip(("what", "goal", "measured", "reached", "why not"), row, strict=True))
                for row in goals(rows, costs)
            ],
            "costs": costs,
            "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        }
        (options.out / "thorax.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
