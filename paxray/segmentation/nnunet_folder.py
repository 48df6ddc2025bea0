"""A trained nnU-Net v2 model's folder: what it says of itself without its weights being loaded."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paxray.errors import ConfigError, ResourceError
from paxray.files import digest, sha256_of

WHERE = "segmentation.segmenter nnunet"
#: Readers of nnU-Net that take a NIfTI file, and whether each turns it to one orientation by itself.
_READERS = {
    "SimpleITKIO": False,
    "NibabelIO": False,
    "SimpleITKIOWithReorient": True,  # of later releases than 2.6.0
    "NibabelIOWithReorient": True,
}


@dataclass(frozen=True)
class Model:
    """A model that can be run on one CT.

    Attributes
    ----------
    folder
        Holds ``plans.json``, ``dataset.json`` and ``fold_*/``.
    labels
        Name in ``dataset.json`` to the values that it covers in the label map: one, or several for a region.
    turns
        Whether its image reader brings every image into one orientation.
    folds
        Numbers of those whose mean is taken, or ``("all",)``.
    checkpoint
        File name in each fold.
    """

    folder: Path
    labels: Mapping[str, tuple[int, ...]]
    turns: bool
    folds: tuple[str, ...]
    checkpoint: str

    @property
    def values(self) -> tuple[int, ...]:
        """All that it may write into the label map but the background's 0, in order."""
        return tuple(sorted({value for covered in self.labels.values() for value in covered}))

    def digest(self) -> str:
        """Of all files that decide what it computes."""
        files = ["plans.json", "dataset.json", *(f"fold_{fold}/{self.checkpoint}" for fold in self.folds)]
        return digest({name: _sha256(self.folder / name) for name in files})


def read_model(folder: Path, folds: Sequence[str], checkpoint: str) -> Model:
    """Read what a model folder says, and refuse what cannot be run on one CT.

    Parameters
    ----------
    folder
        As ``nnUNetv2_train`` writes it.
    folds
        Those wanted; none for every numbered one that has the checkpoint, or else ``all``.
    checkpoint
        File name in each fold.

    Raises
    ------
    ResourceError
        ``weights_missing``: a file that is not there.
    ConfigError
        ``unfit_model``: more images than one CT, a reader of other files, a cascade's second stage, no labels.
    """
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise _missing(folder, checkpoint, f"there is no {name} in the model folder")
    plans, dataset = _json(folder / "plans.json"), _json(folder / "dataset.json")
    channels = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(channels, Mapping) or len(channels) != 1:
        raise _unfit("the model wants other images than one CT", "one channel", f"channels {channels}")
    reader = plans.get("image_reader_writer")
    if reader not in _READERS:
        raise _unfit("the model's reader does not read NIfTI", ", ".join(_READERS), str(reader))
    configuration = plans.get("configurations", {}).get(folder.name.split("__")[-1], {})
    if before := configuration.get("previous_stage"):
        raise _unfit(
            "the model is a cascade's second stage", "one that needs the CT alone", f"after {before}"
        )
    return Model(folder, _labels(dataset), _READERS[reader], _folds(folder, folds, checkpoint), checkpoint)


def _folds(folder: Path, wanted: Sequence[str], checkpoint: str) -> tuple[str, ...]:
    for fold in wanted:
        if not (folder / f"fold_{fold}" / checkpoint).is_file():
            raise _missing(folder, checkpoint, f"fold_{fold} has no {checkpoint}")
    if wanted:
        return tuple(wanted)
    found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
    numbered = [fold for fold in found if fold.isdigit()]
    if not numbered and "all" not in found:
        raise _missing(folder, checkpoint, f"no fold has {checkpoint}")
    return tuple(numbered) or ("all",)


def _labels(dataset: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and values without background and ignore; a region has several values."""
    labels = dataset.get("labels")
    out: dict[str, tuple[int, ...]] = {}
    try:
        for name, value in labels.items():  # type: ignore[union-attr]
            values = tuple(int(one) for one in (value if isinstance(value, list) else [value]))
            if name not in ("background", "ignore") and values != (0,):
                out[str(name)] = values
    except (AttributeError, TypeError, ValueError) as error:
        expected = "labels: NAME to a value, or to a list of values for a region"
        raise _unfit("dataset.json does not say what the labels are", expected, repr(labels)[:200]) from error
    if not out:
        raise _unfit("the model knows no label but the background", "labels in dataset.json", repr(labels))
    return out


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unfit(f"{path.name} cannot be read", "JSON as nnU-Net v2 writes it", str(error)) from error
    if not isinstance(content, dict):
        raise _unfit(f"{path.name} cannot be read", "a JSON object", type(content).__name__)
    return content


def _missing(folder: Path, checkpoint: str, what: str) -> ResourceError:
    there = sorted(str(path.relative_to(folder)) for path in folder.glob("fold_*/checkpoint_*.pth"))
    return ResourceError(
        f"the weights of an nnU-Net model are not there: {what}",
        where=f"{WHERE}, model",
        expected=f"plans.json, dataset.json and fold_*/{checkpoint} in {folder}",
        found=", ".join(there) if there else "no checkpoint" if folder.is_dir() else "no such folder",
        do="name the folder that nnUNetv2_train wrote, or unpack a shared one with "
        "`nnUNetv2_install_pretrained_model_from_zip FILE`; how to train one: docs/segmentation.md",
        code="weights_missing",
    )


def _unfit(what: str, expected: str, found: str) -> ConfigError:
    return ConfigError(what, where=f"{WHERE}, model", expected=expected, found=found, code="unfit_model")


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_once(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:
    """A file's digest, reckoned once a process: weights are hundreds of megabytes."""
    return sha256_of(path)
