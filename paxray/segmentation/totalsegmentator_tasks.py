"""What TotalSegmentator's tasks need and name, read from the installed package's own tables.

Only modules of the package that hold plain data are imported here: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from paxray.anatomy.catalog import Catalog
from paxray.errors import ConfigError, ResourceError, suggest

WHERE = "segmentation.segmenter totalsegmentator"
MODES = ("default", "fast", "fastest")
#: The package offers them, but as trials.
_TRIALS = {"test", "total_highres_test"}
#: They draw something wherever there is a body; others look for what a patient or a field of view need not have.
ALWAYS = {"total", "total_v3", "body", "tissue_types", "tissue_4_types"}
#: Task and the package's name to the class meant, where the name alone says another or none; None for no class.
_MEANT: Mapping[str, Mapping[str, str | None]] = {
    "lung_vessels": {"lung_airways": "airways"},
    # An aid to its training: the lung, the pleura and what lies between them.
    "pleural_pericard_effusion": {"lung_pleural": None},
}
#: These tasks draw bodies under the names of whole vertebrae (`postprocess_vertebrae_pp` of the package says so).
_ONLY_BODIES = {"vertebrae_pp", "vertebrae_pp_refined"}


@dataclass(frozen=True)
class Model:
    """One trained model: where its folder lies below the folder of weights, and which folds are used.

    Attributes
    ----------
    folder
        ``DATASET/TRAINER__PLANS__CONFIGURATION``, as nnU-Net lays it out.
    folds
        Empty for all that are there.
    """

    folder: str
    folds: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """One of the package's tasks, in the mode asked for.

    Attributes
    ----------
    names
        Value in the task's label map to the package's name of the class.
    licensed
        It needs a licence number.
    fast, fastest
        The package's switches for the mode; a task of a single resolution has neither.
    download
        What `totalseg_download_weights -t` is told, one or more.
    models
        All that it runs, with those that find where to look.
    """

    name: str
    names: Mapping[int, str]
    licensed: bool
    fast: bool
    fastest: bool
    download: tuple[str, ...]
    models: tuple[Model, ...]

    def classes(self, catalog: Catalog) -> dict[int, str]:
        """Value to canonical class, of those that the catalog knows."""
        out = {}
        for value, name in self.names.items():
            # What it does not know: teeth one by one, for example; docs/segmentation.md says so.
            if (meant := self._meant(name)) is not None and catalog.knows(meant):
                out[value] = catalog.resolve(meant)
        return out

    def _meant(self, name: str) -> str | None:
        if self.name in _ONLY_BODIES:
            level = name.removeprefix("vertebrae_")
            return None if level == "C1" else f"vertebral_body_{level}"  # the atlas has no body
        return _MEANT.get(self.name, {}).get(name, name)


def installed() -> bool:
    """Whether the package can be imported."""
    return find_spec("totalsegmentator") is not None and find_spec("nnunetv2") is not None


def versions() -> dict[str, str]:
    """Versions of what decides the masks beside the weights; `ResourceError` (``package_missing``) without it."""
    try:
        return {name: version(name) for name in ("TotalSegmentator", "nnunetv2")}
    except PackageNotFoundError as error:
        raise _missing(str(error)) from error


def ct_tasks() -> list[str]:
    """The tasks that read CT, those that need a licence among them."""
    registry = _table("registry")
    return [name for name in registry.TASKS if registry.task_modality(name) == "CT" and name not in _TRIALS]


def read_task(name: str, mode: str) -> Task:
    """Look a task up in the package's tables.

    Raises
    ------
    ConfigError
        No such task, or not one that reads CT (``unknown_task``).
    ResourceError
        The package is not installed (``package_missing``).
    """
    known = ct_tasks()
    if name not in known:
        raise ConfigError(
            f"TotalSegmentator {versions()['TotalSegmentator']} has no task '{name}' for CT",
            where=f"{WHERE}, tasks",
            expected=", ".join(known),
            do=suggest(name, known),
            code="unknown_task",
        )
    registry = _table("registry")
    kept = _mode_of(name, mode)
    models, tasks = _models(name, mode)
    return Task(
        name=name,
        names=registry.get_task_classes(name),
        licensed=registry.requires_license(name),
        fast=kept == "fast",
        fastest=kept == "fastest",
        download=tuple(dict.fromkeys(tasks)),
        models=tuple(dict.fromkeys(models)),
    )


def _mode_of(name: str, mode: str) -> str:
    """The mode that a task runs in when another is asked for that it does not have; as `get_task_config` does it."""
    modes = _table("map_tasks_config").TASK_CONFIGS[name].get("sub_modes", {})
    if mode in modes or mode == "default":
        return mode
    return "fast" if "fast" in modes else "default"


def _config(name: str, mode: str) -> dict[str, Any]:
    table = _table("map_tasks_config")
    raw = table.TASK_CONFIGS[name]
    own = raw.get("sub_modes", {}).get(_mode_of(name, mode), raw)
    return {**table.DEFAULT_CONFIG, "plans": "nnUNetPlans", **own}


def _models(name: str, mode: str) -> tuple[list[Model], list[str]]:
    """Models of a task, and what to download for them: its own, and those that find where it looks."""
    config = _config(name, mode)
    suffix = "_fast" if _mode_of(name, mode) != "default" else ""
    own = config["task_id"] if isinstance(config["task_id"], list) else [config["task_id"]]
    models = [_model(number, config) for number in own]
    tasks = [f"{name}{suffix}"]
    if config["crop"] is not None or config["cascade"]:
        if config["crop_model"] is not None:
            more, their_tasks = _models(config["crop_model"], "default")
        elif any(part.startswith("body_") for part in config["crop"]):
            more, their_tasks = _models("body", "fast")
        else:
            more, their_tasks = _models("total", "fast" if config["robust_crop"] else "fastest")
        models, tasks = models + more, tasks + their_tasks
    if name == "vertebrae_pp_refined":
        models += _models("vertebrae_body", "default")[0]
    return models, tasks


def _model(number: int, config: Mapping[str, Any]) -> Model:
    weights = _table("map_tasks_config").TASK_ID_WEIGHTS_CONFIGS[number]
    trained = f"{config['trainer']}__{config['plans']}__{config['model']}"
    return Model(f"{weights['foldername']}/{trained}", tuple(config["folds"] or ()))


def _table(name: str) -> Any:
    try:
        return import_module(f"totalsegmentator.{name}")
    except ImportError as error:
        raise _missing(str(error)) from error


def _missing(found: str) -> ResourceError:
    return ResourceError(
        "the package TotalSegmentator is not installed",
        where=WHERE,
        found=found,
        do="pip install 'paxray[totalsegmentator]' (on Python 3.11 or 3.12: there is none for 3.13 yet), "
        "or choose the segmenter 'thorax', which needs no package",
        code="package_missing",
    )
