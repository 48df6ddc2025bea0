"""TotalSegmentator as a segmenter: the installed package, its weights, in a process of its own.

Wasserthal et al., Radiology: Artificial Intelligence 2023, doi 10.1148/ryai.230024.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.vocabulary import Vocabulary
from paxray.errors import CaseError, ConfigError, ResourceError, suggest
from paxray.files import digest, sha256_of
from paxray.io.masks import read_label_map
from paxray.io.nifti import write_nifti
from paxray.segmentation.child import run_child
from paxray.segmentation.contract import Request, Segmenter, require_known_settings
from paxray.segmentation.straight import straightened
from paxray.segmentation.totalsegmentator_run import label
from paxray.segmentation.totalsegmentator_tasks import (
    ALWAYS,
    MODES,
    WHERE,
    Model,
    Task,
    installed,
    read_task,
    versions,
)

#: Of what stands here around the package: raised when masks change that it makes of the same CT and weights.
VERSION = 1
_SETTINGS = ("tasks", "mode", "weights_dir", "time_limit_s")
_LICENCE_LENGTH = 18  # all that the package itself checks without asking its server
_LICENCE_URL = "https://backend.totalsegmentator.com/license-academic/"


@dataclass(frozen=True)
class TotalSegmentator(Segmenter):
    """TotalSegmentator's tasks for CT.

    Attributes
    ----------
    tasks
        In order of precedence: a class that an earlier task draws is not taken from a later one.
    mode
        ``fast`` (3 mm) and ``fastest`` (6 mm) for the tasks that have such models; others have one resolution.
    weights_dir
        The folder that holds ``Dataset*``; None for ``TOTALSEG_WEIGHTS_PATH`` or the package's own place.
    time_limit_s
        For all tasks on one CT.
    """

    tasks: tuple[str, ...] = ("total",)
    mode: str = "default"
    weights_dir: Path | None = None
    time_limit_s: float = 3600.0

    name = "totalsegmentator"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Path) -> TotalSegmentator:  # noqa: D102
        require_known_settings(cls.name, settings, _SETTINGS)
        tasks = settings.get("tasks", list(cls.tasks))
        if (
            not isinstance(tasks, list | tuple)
            or not tasks
            or not all(isinstance(task, str) for task in tasks)
        ):
            raise _bad("tasks", tasks, "a list of TotalSegmentator's tasks, such as [total, lung_vessels]")
        if len(set(tasks)) != len(tasks):
            raise _bad("tasks", tasks, "each task once")
        mode = settings.get("mode", cls.mode)
        if mode not in MODES:
            raise _bad("mode", mode, ", ".join(MODES), suggest(str(mode), MODES))
        weights = settings.get("weights_dir")
        if weights is not None and (not isinstance(weights, str) or not weights):
            raise _bad("weights_dir", weights, "the folder that holds the folders Dataset...")
        limit = settings.get("time_limit_s", cls.time_limit_s)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= 7 * 86400:
            raise _bad("time_limit_s", limit, "seconds, more than 0 and at most a week")
        found = cls(
            tasks=tuple(tasks),
            mode=mode,
            weights_dir=None if weights is None else base / weights,
            time_limit_s=float(limit),
        )
        if installed():
            found._tasks()  # a mistyped task is told now; without the package, `preflight` says that it is missing
        return found

    def classes(self, catalog: Catalog) -> tuple[str, ...]:  # noqa: D102
        named = {name for task in self._tasks() for name in self._classes_of(task, catalog).values()}
        return tuple(name for name in catalog if name in named)

    def meanings(self, catalog: Catalog) -> dict[str, dict[str, str]]:
        """Of each task, value to class."""
        return {
            task.name: {str(value): name for value, name in self._classes_of(task, catalog).items()}
            for task in self._tasks()
        }

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        weights = {
            str(path.relative_to(self.weights_folder())): _sha256(path)
            for task in self._tasks()
            for model in task.models
            for path in self._files(model)
        }
        return {
            "version": VERSION,
            **versions(),
            "tasks": list(self.tasks),
            "mode": self.mode,
            "weights": digest(weights),
        }

    def preflight(self, device: Literal["cpu", "cuda"]) -> None:  # noqa: D102
        versions()
        tasks = self._tasks()
        for task in tasks:
            if task.licensed:
                self._require_licence(task)
        for task in tasks:
            for model in task.models:
                self._files(model)
        if device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise ResourceError(
                    "torch can use no CUDA device, and TotalSegmentator would compute on the CPU instead",
                    where=WHERE,
                    do="check the driver and that torch is a build with CUDA, or set `device: cpu`",
                    code="environment",
                )

    def segment(self, request: Request) -> LabelVolume:
        """Segment one CT in a child process.

        The package is given the CT on straight axes: it knows no oblique or sheared lattice.
        """
        tasks = self._tasks()
        straight = straightened(request.ct)
        image = request.scratch / "ct.nii.gz"
        write_nifti(image, straight)
        looked = run_child(
            label,
            {
                "ct": str(image),
                "out": str(request.scratch),
                "tasks": [{"name": task.name, "fast": task.fast, "fastest": task.fastest} for task in tasks],
                "device": request.device,
                "threads": request.threads,
                "licence": _licence() if any(task.licensed for task in tasks) else "",
                "where": request.where,
            },
            request,
            segmenter=self.name,
            time_limit_s=self.time_limit_s,
            environment={"TOTALSEG_WEIGHTS_PATH": str(self.weights_folder()), "nnUNet_def_n_proc": "1"},
        )
        builder = LabelBuilder(request.ct.shape)
        # A task that looked nowhere says nothing of a class: what another says of it counts, earlier or later.
        for task in sorted(tasks, key=lambda task: not looked[task.name]):
            classes = self._classes_of(task, request.catalog)
            if looked[task.name]:
                file = request.scratch / f"{task.name}.nii.gz"
                found = read_label_map(file, straight.grid, where=request.where).array
                _add(builder, task, classes, found, request.where)
            else:
                _add_unknown(builder, task, classes)
        return builder.finish(request.ct.affine, request.catalog)

    def _tasks(self) -> list[Task]:
        return [read_task(name, self.mode) for name in self.tasks]

    def _classes_of(self, task: Task, catalog: Catalog) -> dict[int, str]:
        classes = task.classes(catalog)
        if not classes:
            raise ConfigError(
                f"task '{task.name}' draws nothing that the catalog has a class for",
                where=f"{WHERE}, tasks",
                expected="a task with classes of the catalog",
                found=", ".join(list(task.names.values())[:8]),
                do="leave it out, or add classes of these names (paxray classes add)",
                code="unknown_class",
            )
        return classes

    def weights_folder(self) -> Path:
        """Where weights are looked for: as set, else as the package itself chooses it."""
        if self.weights_dir is not None:
            return self.weights_dir.resolve()
        if named := os.environ.get("TOTALSEG_WEIGHTS_PATH"):
            return Path(named).resolve()
        return _package_home() / "nnunet" / "results"

    def _files(self, model: Model) -> list[Path]:
        """All files that a model consists of; `ResourceError` (``weights_missing``) where one is not there."""
        folder = self.weights_folder() / model.folder
        folds = [folder / f"fold_{fold}" for fold in model.folds] or sorted(folder.glob("fold_*"))
        files = [folder / "plans.json", folder / "dataset.json"]
        files += [fold / "checkpoint_final.pth" for fold in folds]
        lacking = [path for path in files if not path.is_file()]
        if lacking or not folds:
            raise self._weights_missing(model, lacking[0] if lacking else folder / "fold_0")
        return files

    def _weights_missing(self, model: Model, lacking: Path) -> ResourceError:
        wanted = next(task for task in self._tasks() if model in task.models).download
        at = "" if self.weights_dir is None else f"TOTALSEG_WEIGHTS_PATH={self.weights_folder()} "
        commands = " && ".join(f"{at}totalseg_download_weights -t {name}" for name in wanted)
        return ResourceError(
            "weights of TotalSegmentator are not there",
            where=WHERE,
            expected=f"{lacking.relative_to(self.weights_folder())} in {self.weights_folder()}",
            found="no such folder" if not self.weights_folder().is_dir() else "no such file",
            do=f"get them once, with a network: {commands}",
            code="weights_missing",
        )

    def _require_licence(self, task: Task) -> None:
        number = _licence()
        if len(number) == _LICENCE_LENGTH:
            return
        raise ResourceError(
            f"task '{task.name}' of TotalSegmentator needs a licence, and "
            + ("the one that is set is not one" if number else "none is set on this machine"),
            where=f"{WHERE}, tasks",
            do=f"get a licence number (free for non-commercial use: {_LICENCE_URL}) and store it with "
            f"`totalseg_set_license -l NUMBER`; or leave '{task.name}' out",
            code="licence_refused",
        )


def _add(
    builder: LabelBuilder, task: Task, classes: Mapping[int, str], found: np.ndarray, where: str
) -> None:
    """Add a task's label map without the values that stand for no class of the catalog."""
    top = int(found.max(initial=0))
    strangers = sorted(set(np.unique(found).tolist()) - set(task.names) - {0})
    if strangers:
        raise CaseError(
            f"task '{task.name}' of TotalSegmentator wrote labels that its own table does not name",
            where=where,
            found=", ".join(map(str, strangers)),
            code="segmenter_failed",
        )
    if top == 0 and task.name in ALWAYS:
        raise CaseError(
            f"task '{task.name}' of TotalSegmentator came back empty",
            where=where,
            expected="organs, in any CT of a patient's body",
            do="check that the CT is in HU, lies as its header says and shows a body",
            code="segmenter_empty",
        )
    kept = np.array([value if value in classes else 0 for value in range(top + 1)], np.uint16)
    builder.add_label_map(kept[found], Vocabulary(f"task {task.name}", dict(classes)), where=where)


def _add_unknown(builder: LabelBuilder, task: Task, classes: Mapping[int, str]) -> None:
    nowhere = (slice(0, 0),) * 3
    for name in dict.fromkeys(classes.values()):
        builder.add_mask(
            name,
            nowhere,
            np.zeros((0, 0, 0), bool),
            status=Status.UNKNOWN,
            note=f"TotalSegmentator's task {task.name} did not find the organs in which it looks",
        )


def _package_home() -> Path:
    """Where the package keeps its settings and weights; as its own `get_totalseg_dir`."""
    named = os.environ.get("TOTALSEG_HOME_DIR")
    return Path(named) if named else Path.home() / ".totalsegmentator"


def _licence() -> str:
    """The licence number that the user stored with the package's own command, or nothing."""
    try:
        config = json.loads((_package_home() / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return ""
    number = config.get("license_number", "") if isinstance(config, dict) else ""
    return number if isinstance(number, str) else ""


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_as_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256_as_of(path: Path, size: int, changed_ns: int) -> str:
    """Digest of a file that has this size and time: weights are hundreds of megabytes, and asked for by every case."""
    return sha256_of(path)


def _bad(setting: str, value: Any, expected: str, do: str = "") -> ConfigError:
    return ConfigError(
        f"setting '{setting}' cannot be used", where=WHERE, expected=expected, found=repr(value), do=do
    )
