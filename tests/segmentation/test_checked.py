"""What a segmenter may do wrong, each with a code of its own; and what it may do right, kept as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import with_mask

from paxray import api
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.volume import Volume
from paxray.phantom.thorax import make_phantom
from paxray.segmentation.cache import SegmentationCache, fingerprint
from paxray.segmentation.checked import run_segmenter
from paxray.segmentation.conformance import SegmenterConformance
from paxray.segmentation.registry import make_segmenter
from paxray.segmentation.written import write_class_files, write_label_map
from paxray.stages import STAGE_VERSIONS

CATALOG = load_catalog()
pytestmark = pytest.mark.usefixtures("fake_segmenter")


@pytest.fixture(scope="module")
def ct() -> Volume:
    return make_phantom(7, (6.0, 6.0, 6.0)).ct


def segmented(ct: Volume, **settings: Any) -> LabelVolume:
    return run_segmenter(make_segmenter("fake", settings), ct, CATALOG, where="case-1")


def same(a: LabelVolume, b: LabelVolume) -> None:
    np.testing.assert_array_equal(a.atoms, b.atoms)
    np.testing.assert_array_equal(a.membership, b.membership)
    assert (a.names, a.status, a.notes, a.confidence) == (b.names, b.status, b.notes, b.confidence)


class TestFake(SegmenterConformance):
    """The suite as a third party inherits it."""

    name = "fake"
    known_setting = "threshold_hu"

    @pytest.fixture(scope="class")
    @classmethod
    def segmenter(cls) -> Any:
        import fake_segmenter

        return fake_segmenter.Fake("sound", 200)


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("die", "segmenter_crashed", "SIGKILL"),
        ("hang", "segmenter_timeout", "within 0.3 s"),
        ("empty", "segmenter_empty", "found nothing at all"),
        ("raise", "segmenter_failed", "ValueError: index 3 is out of bounds"),
        ("no_result", "bad_segmentation", "not a LabelVolume"),
        ("stranger", "bad_segmentation", "liver"),
        ("elsewhere", "bad_segmentation", "lie elsewhere"),
        ("rates_absent", "bad_segmentation", "rates 'breast_left'"),
        ("no_reason", "bad_segmentation", "no note says why"),
    ],
)
def test_each_failure_has_its_code(ct: Volume, mode: str, code: str, words: str) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        segmented(ct, mode=mode)
    assert caught.value.code == code
    assert caught.value.where == "case-1"


@pytest.mark.parametrize(
    ("mode", "code"), [("no_weights", "weights_missing"), ("no_licence", "licence_refused")]
)
def test_what_the_machine_lacks_is_told_before(
    ct: Volume, mode: str, code: str, fake_segmenter: list[str]
) -> None:
    with pytest.raises(ResourceError) as caught:
        api.segment(ct, segmenter="fake", settings={"mode": mode})
    assert caught.value.code == code
    assert fake_segmenter == ["preflight cpu"]


def test_in_python(ct: Volume) -> None:
    """The body is added, masks given come first, and what is known of a class stays with it."""
    labels = api.segment(ct, segmenter="fake")
    assert labels.status["body"] is Status.PRESENT
    assert labels.confidence == {"bones": 0.25}
    assert labels.notes["rib_left_1"] == "it never can"
    given = segmented(ct, threshold_hu=500)
    both = api.segment(ct, given, segmenter="fake", settings={"threshold_hu": 100})
    np.testing.assert_array_equal(both.mask("bones"), given.mask("bones"))
    with pytest.raises(ConfigError, match="segmenter=NAME"):
        api.segment(ct, settings={"threshold_hu": 100})


def test_why_a_source_does_not_know_is_no_note_on_what_was_derived(ct: Volume) -> None:
    found = segmented(ct)
    ribs = with_mask(found, "rib_left_1", found.mask("bones"), Status.PRESENT)
    assert "rib_left_1" not in ribs.notes
    derived = api.derive(api.segment(ct, found), names=["rib_left_1", "bones"])
    assert derived.notes["rib_left_1"] == "it never can"
    assert derived.confidence == {"bones": 0.25}
    breast = with_mask(found, "breast_left", np.zeros(ct.shape, bool), Status.UNKNOWN)
    breast = replace(breast, notes=breast.notes | {"breast_left": "too thin"})
    both = api.derive(breast, names=["breast_left"])  # its recipe has nothing to start from either
    assert both.status["breast_left"] is Status.UNKNOWN
    assert both.notes["breast_left"] == "too thin"


def test_a_label_map_and_its_vocabulary_come_back_exactly(ct: Volume, tmp_path: Path) -> None:
    found = segmented(ct)
    assert found.membership.sum(axis=1).max() == 1
    overlapping = api.segment(ct, found)  # every class inside the body
    path = tmp_path / "found.nii.gz"
    assert write_label_map(path, found, "fake") == tmp_path / "found.yaml"
    same(api.read_masks(path, ct), found)
    known = [name for name in overlapping.names if name in CATALOG]
    assert overlapping.membership.sum(axis=1).max() == 2
    write_label_map(path, overlapping)
    back = api.read_masks(f"{path}={tmp_path / 'found.yaml'}", ct)
    assert set(back.names) == set(known)
    for name in known:
        np.testing.assert_array_equal(back.mask(name), overlapping.mask(name))
        assert back.status[name] is overlapping.status[name]


def test_a_folder_of_classes_has_empty_files_for_absent_and_none_for_unknown(
    ct: Volume, tmp_path: Path
) -> None:
    found = segmented(ct)
    written = write_class_files(tmp_path / "classes", found)
    assert {path.name for path in written} == {"bones.nii.gz", "heart.nii.gz", "breast_left.nii.gz"}
    same(api.read_masks(tmp_path / "classes", ct), found)
    with pytest.raises(ConfigError, match="not empty"):
        write_class_files(tmp_path / "classes", found)


def test_the_cache_gives_back_what_was_put(ct: Volume, tmp_path: Path) -> None:
    segmenter = make_segmenter("fake")
    cache, made_by, found = (
        SegmentationCache(tmp_path / "kept"),
        fingerprint(segmenter, CATALOG, "cpu"),
        segmented(ct),
    )
    assert cache.get("abc", made_by, ct.grid, CATALOG) == (None, "")
    for _ in range(2):  # again, as a second process might
        cache.put("abc", made_by, found, CATALOG)
        labels, complaint = cache.get("abc", made_by, ct.grid, CATALOG)
        assert complaint == ""
        assert labels is not None
        same(labels, found)
    assert [path.name for path in cache.folder.iterdir()] == [cache.path_of("abc", made_by).name]
    other = fingerprint(make_segmenter("fake", {"threshold_hu": 5}), CATALOG, "cpu")
    assert (
        len({cache.path_of("abc", made_by), cache.path_of("abd", made_by), cache.path_of("abc", other)}) == 3
    )


@pytest.mark.parametrize(
    ("file", "change"),
    [("labels.nii.gz", "flip"), ("labels.yaml", "flip"), ("entry.json", "cut"), ("labels.nii.gz", "remove")],
)
def test_a_damaged_entry_is_told_and_never_used(ct: Volume, tmp_path: Path, file: str, change: str) -> None:
    made_by = fingerprint(make_segmenter("fake"), CATALOG, "cpu")
    cache = SegmentationCache(tmp_path)
    cache.put("abc", made_by, segmented(ct), CATALOG)
    path = cache.path_of("abc", made_by) / file
    content = bytearray(path.read_bytes())
    if change == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif change == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    labels, complaint = cache.get("abc", made_by, ct.grid, CATALOG)
    assert labels is None
    assert path.parent.name in complaint


def test_a_vocabulary_that_its_file_belies_is_refused(ct: Volume, tmp_path: Path) -> None:
    path = tmp_path / "found.nii.gz"
    beside = write_label_map(path, segmented(ct))
    text = beside.read_text()
    beside.write_text(text.replace("classes:", "classes:\n  heart: {status: absent}"))
    with pytest.raises(CaseError, match="says that 'heart' is absent") as caught:
        api.read_masks(path, ct)
    assert caught.value.code == "bad_labels"
    for wrong, key in (
        ("{status: gone}", "status"),
        ("{confidence: 2}", "confidence"),
        ("{confidnce: 1}", "confidnce"),
    ):
        beside.write_text(text.replace("classes:", f"classes:\n  heart: {wrong}"))
        with pytest.raises(CaseError, match=f"classes.heart.{key}") as caught:
            api.read_masks(path, ct)
        assert caught.value.code == "bad_vocabulary"


def test_an_interrupted_overwrite_leaves_no_old_mask_under_new_names(
    ct: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "found.nii.gz"
    write_label_map(path, segmented(ct))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paxray.segmentation.written.write_nifti", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_label_map(path, segmented(ct))
    assert not path.exists()


def test_what_reading_and_the_labels_mean_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = make_segmenter("fake")
    before = fingerprint(segmenter, CATALOG, "cpu")
    monkeypatch.setattr(type(segmenter), "meanings", lambda *_: {"1": "heart"})
    meant = fingerprint(segmenter, CATALOG, "cpu")
    assert meant != before
    monkeypatch.setitem(STAGE_VERSIONS, "io", STAGE_VERSIONS["io"] + 1)
    assert fingerprint(segmenter, CATALOG, "cpu") != meant


def test_fingerprints_are_json() -> None:
    made_by = fingerprint(make_segmenter("fake"), CATALOG, "cpu")
    assert json.loads(json.dumps(made_by)) == made_by
