"""Segmentations as files: what is written comes back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.errors import CaseError
from paxray.io.cases import MaskSource
from paxray.segmentation.files import parse_source, read_masks
from paxray.segmentation.written import write_class_files, write_label_map

CATALOG = load_catalog()
CLASSES = ("heart", "aorta", "ribs", "rib_left_1", "body")


@st.composite
def label_volumes(draw: st.DrawFn) -> LabelVolume:
    """Any that is sound: atoms without classes, alike, or without voxels; any order of classes; notes, confidences."""
    names = tuple(draw(st.permutations(CLASSES)))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), max_size=6))
    membership = np.array([[False] * 5, *rows])
    shape = draw(st.tuples(*[st.integers(1, 3)] * 3))
    drawn = draw(
        st.lists(st.integers(0, len(rows)), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    )
    atoms = np.array(drawn, np.uint16).reshape(shape)
    status, notes, confidence = {}, {}, {}
    for name, column in zip(names, membership.T, strict=True):
        found = bool(column[atoms].any())
        status[name] = draw(
            st.sampled_from((Status.PRESENT, Status.PARTIAL) if found else (Status.ABSENT, Status.UNKNOWN))
        )
        if note := draw(st.sampled_from(["", "cut by the scan", "no: 'really'", "- 1"])):
            notes[name] = note
        if found and draw(st.booleans()):
            confidence[name] = draw(st.floats(0, 1))
    return LabelVolume(atoms, membership, names, np.eye(4), status, notes, confidence=confidence)


def known(labels: LabelVolume) -> dict[str, object]:
    """All that labels say, whatever the order of classes and the numbers of atoms."""
    return {
        name: (
            labels.mask(name).tobytes(),
            labels.status[name],
            labels.notes.get(name),
            labels.confidence.get(name),
        )
        for name in labels.names
    }


@given(label_volumes(), st.lists(st.sampled_from(CLASSES), min_size=1, unique=True))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_of_labels_comes_back_from_a_label_map(labels: LabelVolume, names: list[str]) -> None:
    kept = labels.keep(names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii.gz"
        write_label_map(path, kept)
        back = read_masks([parse_source(path)], kept.grid, CATALOG)
    assert known(back) == known(kept)


@given(label_volumes(), st.lists(st.sampled_from(CLASSES), min_size=1, unique=True))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_of_labels_comes_back_from_a_folder(labels: LabelVolume, names: list[str]) -> None:
    kept = labels.keep(names)
    # Without a single file the folder is refused: it looks like a path gone wrong.
    assume(set(kept.status.values()) != {Status.UNKNOWN})
    with tempfile.TemporaryDirectory() as folder:
        write_class_files(Path(folder) / "a", kept)
        back = read_masks([parse_source(Path(folder) / "a")], kept.grid, CATALOG)
    assert known(back) == known(kept)


def test_values_are_few_and_a_map_without_a_voxel_has_none(tmp_path: Path) -> None:
    """Atoms that `keep` leaves alike are one value; what no vocabulary names is told of an empty one, too."""
    membership = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], bool)
    atoms = np.arange(4, dtype=np.uint16).reshape(1, 2, 2)
    labels = LabelVolume(
        atoms, membership, ("heart", "body"), np.eye(4), dict.fromkeys(("heart", "body"), Status.PRESENT)
    )
    path = tmp_path / "a.nii.gz"
    vocabulary = load_vocabulary(str(write_label_map(path, labels.keep(["heart"]))), catalog=CATALOG)
    assert vocabulary.labels == {1: "heart"}
    nothing = LabelVolume(
        np.zeros((1, 2, 2), np.uint16), membership[:1], ("heart", "body"), np.eye(4),
        {"heart": Status.ABSENT, "body": Status.UNKNOWN}, {"body": "not looked for"},
    )  # fmt: skip
    beside = write_label_map(path, nothing)
    assert load_vocabulary(str(beside), catalog=CATALOG).labels == {}
    write_label_map(tmp_path / "b.nii.gz", labels)
    with pytest.raises(CaseError, match="does not name every label") as caught:
        read_masks([MaskSource(tmp_path / "b.nii.gz", str(beside), "b")], labels.grid, CATALOG)
    assert caught.value.code == "unknown_label"
