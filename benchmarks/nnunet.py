"""``python -m benchmarks.nnunet``: train a small nnU-Net on phantoms, and measure it on phantoms that it never saw."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.report import markdown_table, number
from benchmarks.thorax import dice
from paxray.anatomy.catalog import load_catalog
from paxray.files import write_json
from paxray.io.nifti import write_nifti
from paxray.io.volume import Volume
from paxray.phantom.thorax import Phantom, label_ids, make_phantom
from paxray.segmentation.checked import run_segmenter
from paxray.segmentation.registry import make_segmenter

DATASET_ID = 911
DATASET = f"Dataset{DATASET_ID}_phantoms"
PLANS = "nnUNetSmallPlans"
CONFIGURATION = "3d_fullres"
#: The issue's measure: this many of the largest structures.
LARGEST = 12
_AUGMENTERS = "nnUNet_n_proc_DA"


def phantoms(seeds: Sequence[int], spacing_mm: float) -> list[Phantom]:
    """One phantom a seed, cubic voxels."""
    return [make_phantom(seed, (spacing_mm, spacing_mm, spacing_mm)) for seed in seeds]


def largest(cases: Sequence[Phantom], count: int) -> list[str]:
    """Names of the structures with the most volume over all cases, the largest first."""
    names = {value: name for name, value in label_ids().items()}
    counts = sum(np.bincount(case.labels.array.ravel(), minlength=max(names) + 1) for case in cases)
    order = sorted(names, key=lambda value: -int(counts[value]))  # type: ignore[index]
    return [names[value] for value in order[:count]]


def write_dataset(raw: Path, cases: Sequence[Phantom], classes: Sequence[str]) -> None:
    """Write cases as nnU-Net wants them: images, label maps with values 1.., and ``dataset.json``."""
    table = np.zeros(256, np.uint8)
    for value, name in enumerate(classes, 1):
        table[label_ids()[name]] = value
    for case in cases:
        name = f"phantom_{case.patient.seed:05d}"
        write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", case.ct)
        labels = Volume(table[case.labels.array], case.labels.affine)
        write_nifti(raw / "labelsTr" / f"{name}.nii.gz", labels)
    write_json(
        raw / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **{name: value for value, name in enumerate(classes, 1)}},
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
        },
    )


def small_plans(preprocessed: Path, patch: Sequence[int], features: Sequence[int]) -> dict[str, Any]:
    """nnU-Net's own plans, but with a network that a CPU can train in minutes."""
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    one = plans["configurations"][CONFIGURATION]
    stages = len(features)
    one["patch_size"], one["batch_size"], one["data_identifier"] = list(patch), 2, f"{PLANS}_{CONFIGURATION}"
    one["architecture"]["arch_kwargs"] |= {
        "n_stages": stages,
        "features_per_stage": list(features),
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
    }
    plans["plans_name"], plans["configurations"] = PLANS, {CONFIGURATION: one}
    return dict(plans)


class Laps:
    """What each step cost, told as they come: seconds of the wall's clock, and of processors, children's included."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}
        self._since = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), sum(os.times()[:4])

    def __call__(self, name: str) -> None:
        """End a lap."""
        wall, processor = now = self._now()
        self.seconds[name], self._since = (wall - self._since[0], processor - self._since[1]), now
        print(f"{name}: {self.seconds[name][0]:.0f} s", file=sys.stderr, flush=True)


def prepare(work: Path, options: argparse.Namespace, lap: Laps) -> None:
    """Write the data set, and let nnU-Net plan and preprocess it."""
    cases = phantoms(options.train, options.spacing)
    write_dataset(work / "raw" / DATASET, cases, largest(cases, options.classes))
    lap("phantoms")

    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    nnunet.extract_fingerprints([DATASET_ID], num_processes=options.threads)
    nnunet.plan_experiments([DATASET_ID])
    preprocessed = work / "preprocessed" / DATASET
    write_json(preprocessed / f"{PLANS}.json", small_plans(preprocessed, options.patch, options.features))
    nnunet.preprocess([DATASET_ID], PLANS, (CONFIGURATION,), (options.threads,))
    names = sorted(f"phantom_{seed:05d}" for seed in options.train)
    write_json(preprocessed / "splits_final.json", [{"train": names[2:], "val": names[:2]}])
    lap("preprocessing")


def fit(options: argparse.Namespace, lap: Laps) -> Path:
    """Train with nnU-Net's own trainer on what `prepare` left; returns the model folder."""
    os.environ |= {_AUGMENTERS: "0"}  # nothing is augmented: batches are cut within the training process
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    np.random.seed(0)
    # Phantoms come in any number, so nothing is augmented; and a mirrored patient has the left lung on the right.
    trainer = get_trainer_from_args(
        str(DATASET_ID), CONFIGURATION, 0, "nnUNetTrainerNoDA", PLANS, device=torch.device(options.device)
    )
    trainer.num_epochs = options.epochs
    trainer.num_iterations_per_epoch = options.iterations
    trainer.num_val_iterations_per_epoch = 2

    def adam() -> tuple[Any, Any]:
        """In so few steps nnU-Net's own optimizer, of momentum 0.99, has hardly begun."""
        optimizer = torch.optim.AdamW(trainer.network.parameters(), options.rate, weight_decay=1e-4)
        return optimizer, torch.optim.lr_scheduler.PolynomialLR(optimizer, options.epochs, power=0.9)

    trainer.configure_optimizers = adam
    trainer.run_training()
    lap("training")
    return Path(trainer.output_folder_base)


def train(work: Path, options: argparse.Namespace, lap: Laps) -> Path:
    """Prepare and train; nnU-Net learns where its folders are from the environment."""
    os.environ |= {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    os.environ |= {_AUGMENTERS: str(options.threads)}
    prepare(work, options, lap)
    return fit(options, lap)


def measure(model: Path, seeds: Sequence[int], spacing_mm: float, device: str) -> dict[str, list[float]]:
    """Dice of every class on unseen phantoms, through the segmenter `nnunet`; under "seconds" what each took."""
    catalog = load_catalog()
    segmenter = make_segmenter("nnunet", {"model": str(model.resolve()), "orientation": "LPS"})
    names = json.loads((model / "dataset.json").read_text())["labels"]
    scores: dict[str, list[float]] = {name: [] for name in (*names, "seconds") if name != "background"}
    for seed in seeds:
        [case] = phantoms([seed], spacing_mm)
        start = time.perf_counter()
        found = run_segmenter(segmenter, case.ct, catalog, device="cuda" if device == "cuda" else "cpu")
        scores["seconds"].append(time.perf_counter() - start)
        for name in names:
            if name != "background":
                scores[name].append(dice(found.mask(name), case.labels.array == label_ids()[name]))
    return scores


def report(options: argparse.Namespace, lap: Laps, tables: dict[float, dict[str, list[float]]]) -> str:
    """The results as Markdown."""
    about = machine.describe()
    trained = f"{len(options.train)} phantoms of {options.spacing:g} mm, {options.epochs} x {options.iterations} steps"
    lines = [
        "# A small nnU-Net trained on phantoms, measured on phantoms that it never saw\n",
        f"`{options.command}`, {about['date']}, {about['cpu']}, {about['cores']} cores shared with other work, "
        f"nnunetv2 {metadata.version('nnunetv2')}, torch {metadata.version('torch')}. Trained on {trained}; every Dice "
        "is of masks from the segmenter `nnunet`, against the phantom's exact labels. The classes are the largest "
        f"structures of the training phantoms, in order of volume; the mean is over the first {LARGEST}.\n",
        markdown_table(
            ("step", "wall, s", "processor, s"),
            [(name, number(wall), number(processor)) for name, (wall, processor) in lap.seconds.items()],
        )
        + "\n",
    ]
    for spacing, scores in tables.items():
        classes = [name for name in scores if name != "seconds"]
        rows = [(name, *(f"{f(scores[name]):.3f}" for f in (np.mean, np.min, np.max))) for name in classes]
        mean = float(np.mean([scores[name] for name in classes[:LARGEST]]))
        rows.append((f"mean of the {LARGEST} largest", f"{mean:.3f}", "", ""))
        lines += [
            f"## {len(scores['seconds'])} unseen phantoms of {spacing:g} mm, "
            f"{number(float(np.mean(scores['seconds'])))} s each with the child process's start\n",
            markdown_table(("class", "Dice", "least", "most"), rows) + "\n",
        ]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nnunet", description=__doc__)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/nnunet"),
        metavar="FOLDER",
        help="data set and model go there",
    )
    parser.add_argument("--spacing", type=float, default=6.0, metavar="MM")
    parser.add_argument("--train", type=int, default=60, metavar="N", help="phantoms to train on")
    parser.add_argument("--classes", type=int, default=12, metavar="N", help="the N largest are labels")
    parser.add_argument("--patch", type=int, nargs=3, default=(48, 48, 64), metavar="VOXELS", help="z y x")
    parser.add_argument("--features", type=int, nargs="+", default=(16, 32, 64, 96, 128), metavar="N")
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning, in the beginning")
    parser.add_argument("--test", type=int, default=6, metavar="N", help="phantoms to measure on")
    parser.add_argument("--test-spacing", type=float, nargs="+", default=(6.0, 3.0), metavar="MM")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="measure this one, train none")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write nnunet.md and nnunet.json there")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--iterations", type=int, default=25, metavar="N", help="per epoch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(arguments)
    options.train = range(1000, 1000 + options.train)
    options.test = range(1, 1 + options.test)
    words = sys.argv[1:] if arguments is None else list(arguments)
    options.command = " ".join(["python -m benchmarks.nnunet", *words])
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train unless a model is given, measure, print, write."""
    options = parse(arguments)
    lap = Laps()
    model = options.model or train(options.work.resolve(), options, lap)
    tables = {}
    for spacing in options.test_spacing:
        tables[spacing] = measure(model, options.test, spacing, options.device)
    text = report(options, lap, tables)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "nnunet.md").write_text(text)
        about = {key: value for key, value in machine.describe().items() if key != "load_before"}
        record = {"machine": about, "seconds": lap.seconds, "dice": tables}
        (options.out / "nnunet.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
