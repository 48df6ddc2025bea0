"""A segmentation as files: one label map with its vocabulary, or a folder with one file per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError, ConfigError
from paxray.files import write_text
from paxray.io.nifti import write_nifti
from paxray.io.stored import sidecar_of
from paxray.io.volume import Volume
from paxray.parallel import in_parallel
from paxray.segmentation.told import facts_of, write_told

_HAS_VOXELS = (Status.PRESENT, Status.PARTIAL)


def vocabulary_file_of(label_map: Path) -> Path:
    """Where the vocabulary of a label map lies if it lies beside it: ``a.yaml`` for ``a.nii.gz``."""
    return sidecar_of(label_map, ".yaml")


def write_label_map(path: Path, labels: LabelVolume, segmenter: str = "") -> Path:
    """Write all classes, overlap and all that is known of them, as one label map and a vocabulary beside it.

    A value stands for all classes that meet in a voxel. Atoms that do not differ, as `LabelVolume.keep` leaves them,
    are one value, and those of no class are background. `paxray.segmentation.files.read_masks` reads both back exactly;
    other programs read the values, which the vocabulary explains.

    Parameters
    ----------
    path
        Ends in ``.nii.gz``.
    labels
        In at most 65535 combinations of classes.
    segmenter
        Who made it, for people who read the vocabulary.

    Returns
    -------
    The vocabulary's path. Either file is complete or not there; the label map is written last, and one that stood there
    is removed first.

    Raises
    ------
    CaseError
        Too many combinations (code ``bad_labels``).
    """
    import yaml

    labels = LabelBuilder.resume(labels).build(labels.affine, labels.names)  # each set of classes once
    if len(labels.membership) > 65536:
        raise CaseError(
            "the classes overlap in more ways than a label map has values",
            expected="at most 65535 combinations",
            found=str(len(labels.membership) - 1),
            do="write a folder with one file per class",
            code="bad_labels",
        )
    values = {
        atom: [name for name, inside in zip(labels.names, row, strict=True) if inside]
        for atom, row in enumerate(labels.membership.tolist())
        if atom
    }
    facts = facts_of(labels)
    for told in facts.values():
        if told["status"] == Status.PRESENT:
            del told["status"]  # its voxels say so
    content = {
        **({"name": f"what segmenter '{segmenter}' found"} if segmenter else {}),
        "labels": {atom: names[0] if len(names) == 1 else names for atom, names in values.items()},
        "classes": {name: told for name, told in facts.items() if told},
    }
    beside = vocabulary_file_of(path)
    # Old values under new names would be wrong masks: better none, should this end between the two files.
    path.unlink(missing_ok=True)
    head = f"# What the values of {path.name} stand for; paxray finds it beside the label map.\n"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    write_text(beside, head + text)
    small = np.uint8 if len(labels.membership) <= 256 else np.uint16
    write_nifti(path, Volume(labels.atoms.astype(small), labels.affine))
    return beside


def write_class_files(folder: Path, labels: LabelVolume, segmenter: str = "") -> list[Path]:
    """Write a file per class in TotalSegmentator's layout: ``NAME.nii.gz``, uint8, 1 inside.

    An absent class is a file without voxels, as TotalSegmentator writes it; an unknown one has no file. What else is
    known stands beside (`paxray.segmentation.told`), and `paxray.segmentation.files.read_masks` reads it back.

    Parameters
    ----------
    folder
        New or empty.
    labels
        With voxels.
    segmenter
        Who made them, for people who read the file beside.

    Returns
    -------
    The masks' files.

    Raises
    ------
    ConfigError
        The folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "the folder for the masks is not empty",
            where=folder.name,
            expected="a new or empty folder: a mask left from before would count as this CT's",
            do="choose another --out",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_told(folder, labels, segmenter)  # first: without it a partial class would pass for a whole one
    known = [name for name in labels.names if labels.status[name] is not Status.UNKNOWN]

    def write(name: str) -> Path:
        path = folder / f"{name}.nii.gz"
        write_nifti(path, Volume(labels.mask(name).view(np.uint8), labels.affine))
        return path

    return in_parallel(write, known)
