"""Any nnU-Net v2 model as a segmenter: its folder, what its labels mean, and how its training images lay."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.anatomy.vocabulary import Vocabulary, load_vocabulary, read_vocabulary, vocabulary_path
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.files import digest
from paxray.io.masks import read_label_map
from paxray.io.nifti import write_nifti
from paxray.segmentation.child import run_child
from paxray.segmentation.contract import Request, Segmenter, require_known_settings
from paxray.segmentation.nnunet_folder import WHERE, Model, read_model
from paxray.segmentation.nnunet_predict import predict
from paxray.segmentation.straight import LPS, is_orientation, straightened, turned

#: Of what stands here around nnU-Net: raised when masks change that it makes of the same CT with the same model.
VERSION = 1
_SETTINGS = (
    "model",
    "orientation",
    "vocabulary",
    "folds",
    "checkpoint",
    "tile_step",
    "mirroring",
    "time_limit_s",
)
_MOST_EXTENSIONS = 16


@dataclass(frozen=True)
class NnUnet(Segmenter):
    """A trained nnU-Net v2 model.

    Attributes
    ----------
    model
        The folder that holds ``plans.json``, ``dataset.json`` and ``fold_*/``, as ``nnUNetv2_train`` writes it.
    orientation
        Towards which side of the patient i, j, k grow in the images that it was trained on, such as ``LPS``. nnU-Net
        does not record it, and a network takes a wrong one without complaint. Empty where the model's reader turns
        every image by itself.
    vocabulary
        A vocabulary that names all its values, as `load_vocabulary` takes it; or a mapping from names in
        ``dataset.json`` to classes, None for a label to leave out. Names that neither mentions are resolved by the
        catalog.
    base
        Folder that a vocabulary's path is relative to.
    folds
        Numbers, or ``all``, whose mean is taken; empty for every numbered one that has the checkpoint.
    checkpoint
        File name in each fold.
    tile_step
        Of the sliding window, as a share of the patch.
    mirroring
        Average over the mirrored images that its training allowed.
    time_limit_s
        For one CT.
    """

    model: Path
    orientation: str = ""
    vocabulary: str | Mapping[str, str | None] = ""
    base: Path = Path()
    folds: tuple[str, ...] = ()
    checkpoint: str = "checkpoint_final.pth"
    tile_step: float = 0.5
    mirroring: bool = True
    time_limit_s: float = 3600.0

    name = "nnunet"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Path) -> NnUnet:  # noqa: D102
        require_known_settings(cls.name, settings, _SETTINGS)
        model = settings.get("model")
        if not isinstance(model, str) or not model:
            raise _bad("model", model, "the folder that holds plans.json, dataset.json and fold_*/")
        orientation = settings.get("orientation", "")
        if orientation and not is_orientation(orientation):
            raise _bad("orientation", orientation, "three letters, one each of L/R, P/A and S/I, such as LPS")
        vocabulary = settings.get("vocabulary", "")
        if not isinstance(vocabulary, str) and not (
            isinstance(vocabulary, Mapping)
            and all(isinstance(k, str) and isinstance(v, str | None) for k, v in vocabulary.items())
        ):
            raise _bad("vocabulary", vocabulary, "a vocabulary's name or file, or NAME: CLASS for each label")
        checkpoint = settings.get("checkpoint", cls.checkpoint)
        if not isinstance(checkpoint, str) or not re.fullmatch(r"[\w.-]+\.pth", checkpoint):
            raise _bad(
                "checkpoint", checkpoint, "a file name such as checkpoint_final.pth or checkpoint_best.pth"
            )
        mirroring = settings.get("mirroring", cls.mirroring)
        if not isinstance(mirroring, bool):
            raise _bad("mirroring", mirroring, "true or false")
        return cls(
            model=base / model,
            orientation=orientation,
            vocabulary=vocabulary,
            base=base,
            folds=_folds(settings.get("folds", [])),
            checkpoint=checkpoint,
            tile_step=_number("tile_step", settings.get("tile_step", cls.tile_step), 1.0),
            mirroring=mirroring,
            time_limit_s=_number("time_limit_s", settings.get("time_limit_s", cls.time_limit_s), 86400 * 7),
        )

    def classes(self, catalog: Catalog) -> tuple[str, ...]:  # noqa: D102
        named = self._classes(self._read(), catalog)
        return tuple(name for name in catalog if name in named)

    def meanings(self, catalog: Catalog) -> dict[str, list[int]]:
        """Class to the values of the model's label map that make it up."""
        return {name: list(values) for name, values in self._classes(self._read(), catalog).items()}

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        model = self._read()
        return {
            "version": VERSION,
            "nnunetv2": _package_version(),
            "model": model.digest(),
            "orientation": self.orientation,
            "vocabulary": self._vocabulary_identity(),
            "tile_step": self.tile_step,
            "mirroring": self.mirroring,
        }

    def preflight(self, device: Literal["cpu", "cuda"]) -> None:  # noqa: D102
        _package_version()
        self._read()
        if device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise ResourceError(
                    "torch, with which nnU-Net computes, sees no CUDA device",
                    where=WHERE,
                    found=f"torch {torch.__version__}, CUDA build: {torch.version.cuda or 'none'}",
                    do="install a CUDA build of torch, or say device: cpu",
                    code="environment",
                )

    def segment(self, request: Request) -> LabelVolume:
        """Segment one CT in a child process.

        The image is given to nnU-Net on straight axes of the CT's spacing, in the training images' orientation: the
        network knows no oblique or sheared lattice, and ITK refuses the latter.
        """
        model = self._read()
        classes = self._classes(model, request.catalog)
        straight = straightened(request.ct)
        image, labels = request.scratch / "ct_0000.nii.gz", request.scratch / "labels.nii.gz"
        write_nifti(image, turned(straight, self.orientation or LPS))
        self._predict(request, model, image, labels)
        found = read_label_map(labels, straight.grid, where=request.where).array
        return _label_volume(found, classes, model, request)

    def _predict(self, request: Request, model: Model, image: Path, labels: Path) -> None:
        """Let nnU-Net label an image file, in a child process."""
        run_child(
            predict,
            {
                "model": str(self.model.resolve()),
                "folds": list(model.folds),
                "checkpoint": self.checkpoint,
                "tile_step": self.tile_step,
                "mirroring": self.mirroring,
                "device": request.device,
                "threads": request.threads,
                "image": str(image),
                "labels": str(labels),
                "where": request.where,
            },
            request,
            segmenter=self.name,
            time_limit_s=self.time_limit_s,
            # It takes 8 threads for resampling unless it is told.
            environment={"nnUNet_def_n_proc": str(request.threads)},
        )

    def _read(self) -> Model:
        model = read_model(self.model, self.folds, self.checkpoint)
        if not model.turns and not self.orientation:
            raise ConfigError(
                "how the images lay that the model was trained on is not said",
                where=f"{WHERE}, orientation",
                expected="three letters: towards which side of the patient i, j and k grow",
                do="`nibabel.aff2axcodes(nibabel.load(FILE).affine)` tells it of one of its training images: "
                "LPS, as ITK writes DICOM series, or RAS, or another",
                code="unknown_orientation",
            )
        return model

    def _classes(self, model: Model, catalog: Catalog) -> dict[str, tuple[int, ...]]:
        """Canonical class to the values of the label map that make it up."""
        if isinstance(self.vocabulary, str) and self.vocabulary:
            return self._by_value(model, catalog)
        given = self.vocabulary if isinstance(self.vocabulary, Mapping) else {}
        if strangers := sorted(set(given) - set(model.labels)):
            raise ConfigError(
                "the model has no label of this name",
                where=f"{WHERE}, vocabulary",
                expected=", ".join(model.labels),
                found=", ".join(strangers),
                code="bad_vocabulary",
            )
        out: dict[str, tuple[int, ...]] = {}
        unknown = []
        for label, values in model.labels.items():
            word = given.get(label, label)
            if word is None:
                continue
            try:
                name = catalog.resolve(word)
            except ConfigError as error:
                unknown.append(f"{word} ({error.do})" if error.do else word)
                continue
            out[name] = tuple(sorted({*out.get(name, ()), *values}))
        if unknown:
            raise ConfigError(
                "labels of the model are not names of classes",
                where=f"{WHERE}, vocabulary",
                expected="a class or a synonym (paxray classes list)",
                found=", ".join(unknown),
                do="say what each is: `vocabulary: {LABEL: CLASS}`, an empty class for one to leave out; or add the "
                "class to a catalog of your own (paxray classes add)",
                code="bad_vocabulary",
            )
        return out

    def _by_value(self, model: Model, catalog: Catalog) -> dict[str, tuple[int, ...]]:
        labels = load_vocabulary(str(self.vocabulary), base=self.base, catalog=catalog).labels
        values = model.values
        if set(values) != set(labels):
            lacking, beyond = sorted(set(values) - set(labels)), sorted(set(labels) - set(values))
            raise ConfigError(
                "the vocabulary is not that of the model",
                where=f"{WHERE}, vocabulary {self.vocabulary}",
                expected=f"the {len(values)} values that the model writes: {_ranges(values)}",
                found=f"without {_ranges(lacking)}" if lacking else f"with {_ranges(beyond)} besides",
                do="name the vocabulary of the labels that it was trained on, or none if dataset.json names classes",
                code="bad_vocabulary",
            )
        out: dict[str, tuple[int, ...]] = {}
        for value, name in labels.items():
            out[name] = (*out.get(name, ()), value)
        return out

    def _vocabulary_identity(self) -> Any:
        """The mapping, or the vocabulary's own labels with the content of every file that it stands on."""
        if not isinstance(self.vocabulary, str) or not self.vocabulary:
            return dict(self.vocabulary) if self.vocabulary else {}
        path, tail = vocabulary_path(self.vocabulary, self.base)
        contents = []
        for _ in range(_MOST_EXTENSIONS):  # a circle is refused where the labels are read
            document = read_vocabulary(path)
            contents.append(document.data.get("labels"))
            extends = document.data.get("extends")
            if not isinstance(extends, str):
                break
            path, more = vocabulary_path(extends, path.parent)
            contents.append(more)
        return {"labels": digest(json.loads(json.dumps(contents))), "more": tail}


def _label_volume(
    found: Any, classes: Mapping[str, tuple[int, ...]], model: Model, request: Request
) -> LabelVolume:
    strangers = sorted(set(np.unique(found).tolist()) - {0, *model.values})
    if strangers:
        raise CaseError(
            "nnU-Net wrote a label that the model's dataset.json does not name",
            where=request.where,
            expected=_ranges(model.values),
            found=_ranges(strangers),
            code="segmenter_failed",
        )
    builder = LabelBuilder(request.ct.shape)
    owners = {value: [n for n, values in classes.items() if value in values] for value in model.values}
    if all(len(names) == 1 for names in owners.values()):
        builder.add_label_map(found, Vocabulary("nnunet", {value: name for value, [name] in owners.items()}))
    else:  # regions, which overlap, or labels that are left out
        everywhere = tuple(slice(0, n) for n in found.shape)
        for name, values in classes.items():
            builder.add_mask(name, everywhere, np.isin(found, values))
    return builder.finish(request.ct.affine, request.catalog)


def _folds(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    for item in items:
        if item != "all" and (not isinstance(item, int) or isinstance(item, bool) or item < 0):
            raise _bad("folds", value, "a list of fold numbers, or all")
    return tuple(str(item) for item in items)


def _number(key: str, value: Any, largest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
        raise _bad(key, value, f"a number above 0, to {largest:g}")
    return float(value)


def _bad(key: str, found: object, expected: str) -> ConfigError:
    return ConfigError(
        f"segmenter 'nnunet' cannot use its setting '{key}'",
        where="segmentation.segmenter",
        expected=expected,
        found="nothing" if found is None else repr(found),
    )


def _ranges(values: Sequence[int]) -> str:
    """``1-3, 7``."""
    out: list[list[int]] = []
    for value in values:
        if out and value == out[-1][1] + 1:
            out[-1][1] = value
        else:
            out.append([value, value])
    return ", ".join(f"{a}-{b}" if a != b else f"{a}" for a, b in out)


def _package_version() -> str:
    try:
        return version("nnunetv2")
    except PackageNotFoundError:
        raise ResourceError(
            "nnU-Net is not installed",
            where=WHERE,
            expected="the package nnunetv2",
            do="pip install 'paxray[nnunet]'",
            code="package_missing",
        ) from None
