"""What is known of classes beside a folder of their masks: written, read back, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray import api
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.config import parse_pipeline
from paxray.errors import CaseError
from paxray.io.ct import read_ct
from paxray.io.volume import Volume
from paxray.segmentation.told import FILE
from paxray.segmentation.written import write_class_files

CATALOG = load_catalog()
CT = Volume(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
NOWHERE = np.zeros(CT.shape, bool)
WITH_VOXELS = (Status.PRESENT, Status.PARTIAL)

masks = st.lists(st.booleans(), min_size=24, max_size=24).map(lambda bits: np.reshape(bits, CT.shape))
known = st.tuples(
    masks.filter(np.any), st.sampled_from(WITH_VOXELS), st.text(max_size=9), st.none() | st.floats(0, 1)
)
not_found = st.tuples(
    st.just(NOWHERE), st.sampled_from([Status.ABSENT, Status.UNKNOWN]), st.text(max_size=9), st.none()
)
classes = st.dictionaries(
    st.sampled_from(["heart", "liver", "lung_left", "sternum", "rib_left_1"]), known | not_found, min_size=1
)


def labels_of(told: dict[str, tuple[np.ndarray, Status, str, float | None]]) -> LabelVolume:
    builder = LabelBuilder(CT.shape)
    everywhere = tuple(slice(0, n) for n in CT.shape)
    for name, (mask, status, note, confidence) in told.items():
        builder.add_mask(name, everywhere, mask, status=status, note=note, confidence=confidence)
    return builder.finish(CT.affine, CATALOG)


@settings(deadline=None, max_examples=40)
@given(classes.filter(lambda told: any(status is not Status.UNKNOWN for _, status, _, _ in told.values())))
def test_a_folder_gives_back_all_that_is_known(
    tmp_path_factory: pytest.TempPathFactory, told: dict[str, tuple[np.ndarray, Status, str, float | None]]
) -> None:
    """Overlapping, partial, absent and unknown classes, notes in any writing, confidences to the last bit."""
    folder = tmp_path_factory.mktemp("folder")
    found = labels_of(told)
    write_class_files(folder, found, "fake")
    back = api.read_masks(folder, CT)
    np.testing.assert_array_equal(back.atoms, found.atoms)
    np.testing.assert_array_equal(back.membership, found.membership)
    assert (back.names, back.status) == (found.names, found.status)
    assert (back.notes, back.confidence) == (found.notes, found.confidence)
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A left lung in part, a right one whole, no liver, and a breastbone that nobody can tell."""
    left, right = NOWHERE.copy(), NOWHERE.copy()
    left[0, 0], right[1, 1] = True, True
    found = labels_of(
        {
            "lung_left": (left, Status.PARTIAL, "cut off", 0.5),
            "lung_right": (right, Status.PRESENT, "", 0.75),
            "liver": (NOWHERE, Status.ABSENT, "", None),
            "sternum": (NOWHERE, Status.UNKNOWN, "no whole breastbone", None),
        }
    )
    write_class_files(tmp_path / "masks", found, "fake")
    return tmp_path / "masks"


def test_the_file_in_words(folder: Path) -> None:
    assert json.loads((folder / FILE).read_text()) == {
        "segmenter": "fake",
        "classes": {
            "liver": {"status": "absent"},
            "lung_right": {"status": "present", "confidence": 0.75},
            "lung_left": {"status": "partial", "note": "cut off", "confidence": 0.5},
            "sternum": {"status": "unknown", "note": "no whole breastbone"},
        },
    }


def test_without_the_file_masks_are_what_they_are(folder: Path) -> None:
    (folder / FILE).unlink()
    back = api.read_masks(folder, CT)
    assert back.status == {
        "lung_left": Status.PRESENT, "lung_right": Status.PRESENT, "liver": Status.ABSENT,
    }  # fmt: skip


def test_names_mean_there_what_they_mean_for_files(folder: Path, tmp_path: Path) -> None:
    """Of files united by a vocabulary, the class is partial where one of them is; what is left out is not told of."""
    names = tmp_path / "names.yaml"
    names.write_text('names: {"lung_*": lungs, liver: null, sternum: [rib_left_1, rib_right_1]}')
    back = api.read_masks(f"{folder}={names}", CT)
    assert back.status == {
        "lungs": Status.PARTIAL, "rib_left_1": Status.UNKNOWN, "rib_right_1": Status.UNKNOWN,
    }  # fmt: skip
    assert back.notes["lungs"] == "cut off"
    assert back.confidence == {}, "nobody rated the union"
    names.write_text("names: {lung_right: lungs, sternum: lungs, lung_left: null}")
    assert api.read_masks(f"{folder}={names}", CT).status["lungs"] is Status.PARTIAL


@pytest.mark.parametrize(
    ("name", "said", "code", "words"),
    [
        ("lung_left", {"status": "part"}, "bad_labels", "classes.lung_left.status: not a status"),
        ("lung_left", {"nte": "cut off"}, "bad_labels", "did you mean 'note'?"),
        ("lung_left", {"note": 3}, "bad_labels", "classes.lung_left.note: not a text"),
        ("lung_left", {"confidence": 2}, "bad_labels", "classes.lung_left.confidence: not a confidence"),
        ("lung_left", {"confidence": True}, "bad_labels", "classes.lung_left.confidence: not a confidence"),
        ("lung_left", "partial", "bad_labels", "classes.lung_left: not a mapping"),
        (
            "lung_left",
            {"status": "absent"},
            "bad_labels",
            "says that 'lung_left' is absent, but its file has 4",
        ),
        ("lung_left", {"status": "unknown"}, "bad_labels", "says that 'lung_left' is unknown, but its file"),
        ("lung_lft", {"status": "unknown"}, "unknown_class", "'lung_left'"),
        ("liver", {"status": "present"}, "bad_labels", "says that 'liver' is present, but its file has no"),
        ("heart", {"status": "present"}, "bad_labels", "says that 'heart' is present, but the folder has no"),
        ("heart", {"status": "partial"}, "bad_labels", "says that 'heart' is partial, but the folder has no"),
        ("heart", {"status": "absent"}, "bad_labels", "says that 'heart' is absent, but the folder has no"),
        ("heart", {"note": "small"}, "bad_labels", "says something of 'heart', but the folder has no"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, name: str, said: object, code: str, words: str) -> None:
    content = json.loads((folder / FILE).read_text())
    content["classes"][name] = said
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(CaseError) as caught:
        api.read_masks(folder, CT)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert FILE in str(caught.value)


def test_nothing_found_in_a_part_is_unknown(folder: Path, tmp_path: Path) -> None:
    """Of one file, and of a union of which a part is absent and the rest unknown."""
    content = json.loads((folder / FILE).read_text())
    content["classes"]["liver"] = {"status": "partial", "note": "its dome alone was scanned"}
    (folder / FILE).write_text(json.dumps(content))
    back = api.read_masks(folder, CT)
    assert (back.status["liver"], back.notes["liver"]) == (Status.UNKNOWN, "its dome alone was scanned")
    content["classes"]["liver"] = {"status": "absent"}
    (folder / FILE).write_text(json.dumps(content))
    names = tmp_path / "names.yaml"
    names.write_text("names: {liver: heart, sternum: heart}")
    assert api.read_masks(f"{folder}={names}", CT).status["heart"] is Status.UNKNOWN


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"classes": {"liver": {"status": "absent"}, "liver": {}}}', "the key 'liver' stands twice"),
        ('{"classes": {"liver": {"note": "a", "note": "b"}}}', "the key 'note' stands twice"),
        ("[" * 100_000 + "]" * 100_000, "cannot be read as JSON"),
        ('{"classes": ' + "[" * 500 + "]" * 500 + "}", "classes: not a mapping"),
    ],
)
def test_neither_depth_nor_repetition_is_guessed_at(folder: Path, text: str, words: str) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(CaseError, match=words) as caught:
        api.read_masks(folder, CT)
    assert caught.value.code == "bad_labels"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"clases": {}}', '{"classes": []}'])
def test_what_is_no_such_file_is_refused(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(CaseError, match=FILE) as caught:
        api.read_masks(folder, CT)
    assert caught.value.code == "bad_labels"


def test_a_class_found_in_part_is_partial_in_a_data_set(tmp_path: Path, phantom_table: Path) -> None:
    """Given as a build's masks, the folder says of the class what was said where it was segmented."""
    [ct_file] = sorted(phantom_table.parent.glob("**/*ct*.nii.gz"))[:1]
    ct = read_ct(ct_file)
    box = (slice(4, 9), slice(10, 14), slice(20, 26))
    builder = LabelBuilder(ct.shape)
    drawn = np.ones([part.stop - part.start for part in box], bool)
    builder.add_mask("heart", box, drawn, status=Status.PARTIAL, note="cut off", confidence=0.5)
    nothing = np.zeros((0, 0, 0), bool)
    nowhere = (slice(0, 0),) * 3
    builder.add_mask("liver", nowhere, nothing, status=Status.UNKNOWN, note="not in the field")
    write_class_files(tmp_path / "masks", builder.finish(ct.affine, CATALOG))
    (tmp_path / "cases.csv").write_text(f"case_id,ct,masks\none,{ct_file},masks\n")
    pipeline = parse_pipeline(
        {
            "name": "given",
            "views": ["pa"],
            "geometry": {"rows": 32, "columns": 32},
            "labels": {"classes": ["body", "heart", "liver"]},
        }
    )
    assert api.build(pipeline, tmp_path / "cases.csv", tmp_path / "dataset").cases == {"ok": 1}
    facts = api.load(tmp_path / "dataset")[0].facts
    heart, liver = facts.loc["heart"], facts.loc["liver"]
    assert (heart["status"], heart["note"], heart["confidence"]) == ("partial", "cut off", 0.5)
    assert (liver["status"], liver["note"]) == ("unknown", "not in the field")
