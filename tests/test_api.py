"""The verbs for notebooks: classes of one's own, and mistakes that are answered in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import paxray
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError
from paxray.io.volume import Volume

SHAPE = (8, 10, 12)
RIND = "classes: {heart_rind: {group: heart, recipe: {shell: {of: heart, thickness_mm: 1, where: inside}}}}\n"
CORE = "classes: {heart_core: {group: heart, recipe: {difference: {of: heart, minus: heart_rind}}}}\n"


@pytest.fixture
def ct() -> Volume:
    return Volume(np.zeros(SHAPE, np.int16), np.eye(4))


@pytest.fixture
def labels(ct: Volume) -> LabelVolume:
    """A box of heart."""
    builder = LabelBuilder(SHAPE)
    heart = np.zeros(SHAPE, np.bool_)
    heart[2:6, 2:8, 2:9] = True
    whole = (slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    builder.add_mask("heart", whole, heart, whole, "heart")
    return builder.finish(ct.affine, load_catalog())


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "rind.yaml", tmp_path / "core.yaml"]
    for path, text in zip(paths, (RIND, CORE), strict=True):
        path.write_text(text)
    return paths


def test_a_class_file_is_a_catalog(labels: LabelVolume, ct: Volume, files: list[Path]) -> None:
    for given in (files[0], str(files[0]), [files[0]], load_catalog(files[0])):
        found = paxray.derive(labels, catalog=given, ct=ct, names=["heart_rind"])
        assert np.array_equal(found.mask("heart_rind"), _rind(labels.mask("heart")))


def test_a_later_file_uses_the_classes_of_those_before(
    labels: LabelVolume, ct: Volume, files: list[Path]
) -> None:
    found = paxray.derive(labels, catalog=files, ct=ct, names=["heart_core", "heart_rind"])
    parts = found.mask("heart_core"), found.mask("heart_rind")
    assert not (parts[0] & parts[1]).any()
    assert np.array_equal(parts[0] | parts[1], labels.mask("heart"))
    with pytest.raises(ConfigError, match="heart_rind"):
        paxray.derive(labels, catalog=files[::-1], ct=ct)


def test_what_is_no_catalog_is_refused(labels: LabelVolume) -> None:
    with pytest.raises(ConfigError, match="a YAML file of classes"):
        paxray.derive(labels, catalog=7)  # type: ignore[arg-type]


def test_a_ct_is_no_labels(ct: Volume) -> None:
    with pytest.raises(ConfigError, match=r"paxray\.segment"):
        paxray.place("pa", ct)  # type: ignore[arg-type]


def test_a_mapping_is_no_pose(labels: LabelVolume) -> None:
    with pytest.raises(ConfigError, match="by the name of a pose or by a pose"):
        paxray.place({"name": "tilted", "azimuth_deg": 20}, labels)  # type: ignore[arg-type]


def test_the_status_of_an_unknown_class_suggests_one(labels: LabelVolume) -> None:
    assert labels.status["heart"] == "present"
    assert labels.status.get("hart") is None
    with pytest.raises(KeyError, match="did you mean 'heart'"):
        labels.status["hart"]


def test_a_class_by_another_word_is_told_by_its_name(labels: LabelVolume, ct: Volume) -> None:
    """Synonyms are for people; results are named by the catalog's names alone."""
    whole = paxray.segment(ct, labels)
    mu, view = paxray.attenuate(ct, whole), paxray.place("pa", whole, size=(8, 8))
    projection = paxray.project(mu, whole, view, ["presence"])
    asked: list[tuple[str, str]] = [
        ("patient", "did you mean 'body'"),
        ("Heart", "did you mean 'heart'"),
        ("hart", "did you mean 'heart'"),
        ("skin", r"paxray\.derive\(labels, ct=ct, names=\['skin'\]\)"),
    ]
    for word, said in asked:
        for ask in (
            lambda word=word: paxray.project(mu, whole, view, ["presence"], classes=[word]),
            lambda word=word: projection.mask(word),
            lambda word=word: whole.mask(word),
        ):
            with pytest.raises(ConfigError, match=said) as raised:
                ask()
            assert raised.value.code == "unknown_class"
    assert "skin" in paxray.derive(whole, ct=ct, names=["skin"]).names


def test_a_file_that_is_not_there_is_said_to_be_so(ct: Volume, tmp_path: Path) -> None:
    for read in (
        lambda: paxray.read_masks(tmp_path / "nope.nii.gz", ct),
        lambda: paxray.read_ct(tmp_path / "no"),
    ):
        with pytest.raises(CaseError, match="there is no such file") as raised:
            read()
        assert raised.value.code == "missing_file"
        assert "check the path;" in raised.value.do


def test_a_label_map_without_vocabulary_is_told_how_to_name_one(ct: Volume, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(CaseError, match=r"a\.nii\.gz=totalsegmentator_v2") as raised:
        paxray.read_masks(tmp_path / "a.nii.gz", ct)
    assert raised.value.code == "bad_vocabulary"


def test_views_are_named_in_any_case() -> None:
    from paxray.projection.pose import Pose

    assert Pose.named("PA") == Pose.named("pa")
    assert Pose.named(" Lateral-Left ").name == "lateral_left"
    for word in ("frontal", "Front"):
        with pytest.raises(ConfigError) as raised:
            Pose.named(word)
        assert "'pa'" in raised.value.do
    with pytest.raises(ConfigError) as raised:
        Pose.named("lateral")
    assert "'lateral_left'" in raised.value.do


def _rind(mask: np.ndarray) -> np.ndarray:
    """The outermost layer of voxels, whose centres lie within 1 mm of a voxel outside."""
    inner = mask.copy()
    for axis in range(3):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask & ~inner
