import dataclasses

import numpy as np
import pytest
from edited import with_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import Status
from paxray.anatomy.unions import derive
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.errors import ConfigError

CATALOG = load_catalog()
AFFINE = np.eye(4)
SHAPE = (3, 4, 5)
WHOLE = tuple(slice(0, n) for n in SHAPE)
LOWER = (slice(0, 2), *WHOLE[1:])
LEAVES = [name for name in CATALOG if not CATALOG[name].parts]


def build(found: dict[str, str]):
    """Build labels from class -> what its source found; each class fills a voxel row of its own."""
    builder = LabelBuilder(SHAPE)
    for row, (name, what) in enumerate(found.items()):
        mask = np.zeros(SHAPE, bool)
        mask.reshape(-1)[row] = what in ("present", "partial")
        builder.add_mask(name, WHOLE, mask, LOWER if what in ("partial", "unknown") else WHOLE)
    return builder.finish(AFFINE, CATALOG)


def status_of(name: str, found: dict[str, str], catalog: Catalog = CATALOG) -> str:
    return derive(build(found), catalog, [name]).status[name].value


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 25))
def test_a_union_is_the_or_of_its_leaves_and_its_own_source(seed, n):
    rng = np.random.default_rng(seed)
    names = rng.choice(list(CATALOG), n, replace=False).tolist()
    masks = {name: rng.random(SHAPE) < 0.2 for name in names}
    builder = LabelBuilder(SHAPE)
    for name, mask in masks.items():
        builder.add_mask(name, WHOLE, mask)
    labels = builder.finish(AFFINE, CATALOG)
    derived = derive(labels, CATALOG)

    assert derived.atoms is labels.atoms
    for name in derived.names:
        below = [other for other in masks if other == name or name in CATALOG.ancestors(other)]
        expected = np.logical_or.reduce([masks[other] for other in below])
        assert_array_equal(derived.mask(name), expected)
        added = (derived.mask(name) & ~masks[name]).sum() if name in masks else None
        assert derived.added_voxels[name] == added
        for part in CATALOG[name].parts:
            if part in derived.names:
                assert not (derived.mask(part) & ~derived.mask(name)).any()
    for name, mask in masks.items():
        if mask.any():
            assert set(CATALOG.ancestors(name)) <= set(derived.names)
    assert list(derived.names) == [name for name in CATALOG if name in derived.names]
    assert_array_equal(derived.atom_counts(), labels.atom_counts())

    again = derive(derived, CATALOG)
    assert again.names == derived.names
    assert again.status == derived.status
    assert again.added_voxels == derived.added_voxels
    assert_array_equal(again.membership, derived.membership)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"kidney_left": "present", "kidney_right": "present"}, "present"),
        ({"kidney_left": "present", "kidney_right": "absent"}, "present"),
        ({"kidney_left": "absent", "kidney_right": "absent"}, "absent"),
        ({"kidney_left": "present"}, "partial"),
        ({"kidney_left": "present", "kidney_right": "unknown"}, "partial"),
        ({"kidney_left": "present", "kidney_right": "partial"}, "partial"),
        ({"kidney_left": "absent"}, "unknown"),
        ({"kidney_left": "absent", "kidney_right": "unknown"}, "unknown"),
        ({"liver": "present"}, "unknown"),
        # With a source of its own
        ({"kidneys": "present"}, "present"),
        ({"kidneys": "absent"}, "absent"),
        ({"kidneys": "absent", "kidney_left": "present"}, "present"),
        ({"kidneys": "partial"}, "partial"),
        ({"kidneys": "unknown"}, "unknown"),
        ({"kidneys": "partial", "kidney_left": "present", "kidney_right": "present"}, "present"),
        ({"kidneys": "unknown", "kidney_left": "absent", "kidney_right": "absent"}, "absent"),
        ({"kidneys": "unknown", "kidney_left": "present"}, "partial"),
    ],
)
def test_status_of_a_union(found, status):
    assert status_of("kidneys", found) == status


THORACIC = {f"vertebrae_T{level}": "present" for level in range(1, 13)}


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, "present"),  # nobody looked for a thirteenth
        ({"vertebrae_T13": "absent"}, "present"),
        ({"vertebrae_T13": "present"}, "present"),
        ({"vertebrae_T13": "partial"}, "partial"),
        ({"vertebrae_T12": "unknown"}, "partial"),
    ],
)
def test_an_optional_part_that_nobody_looked_for_leaves_no_hole(changed, status):
    assert status_of("vertebrae_thoracic", THORACIC | changed) == status


def test_optional_parts_alone_are_not_enough_to_call_a_union_absent():
    assert status_of("vertebrae_thoracic", {"vertebrae_T13": "absent"}) == "unknown"
    assert status_of("vertebrae_thoracic", {}) == "unknown"
    item = dataclasses.replace(CATALOG["vertebrae_T12"], optional=True)
    only_optional = Catalog(
        [*CATALOG.values(), item, dataclasses.replace(CATALOG["ribs"], parts=(item.name,))]
    )
    assert status_of("ribs", {}, only_optional) == "unknown"


def test_the_heart_is_whole_by_its_source_or_by_its_chambers():
    chambers = {name: "present" for name in CATALOG["heart"].parts if name != "atrial_appendage_left"}
    assert status_of("heart", chambers) == "present"
    assert status_of("heart", {"heart": "present"}) == "present"
    labels = derive(build({"heart": "present", "atrial_appendage_left": "present"}), CATALOG)
    assert labels.voxel_counts()["heart"] == 2  # closed over the appendage that its source left out
    assert labels.added_voxels["heart"] == 1


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"vertebrae_S1": "present"}, "partial"),
        ({"vertebrae_S1": "absent"}, "unknown"),
        ({"sacrum": "present"}, "present"),
        ({"sacrum": "present", "vertebrae_S1": "present"}, "present"),
        ({"sacrum": "absent", "vertebrae_S1": "present"}, "present"),
    ],
)
def test_the_first_sacral_vertebra_alone_is_no_whole_sacrum(found, status):
    assert status_of("sacrum", found) == status
    assert CATALOG["sacrum"].more_than_parts


def test_added_voxels_are_remembered_through_what_is_added_later():
    labels = derive(build({"heart": "present", "atrial_appendage_left": "present"}), CATALOG)
    tube = np.zeros(SHAPE, bool)
    tube.reshape(-1)[30] = True
    labels = derive(with_mask(labels, "heart_atrium_left", tube, Status.PRESENT), CATALOG)
    assert labels.added_voxels["heart"] == 2
    assert labels.added_voxels["atrial_appendage_left"] == 0  # it has no parts
    # Drawn anew, a class begins anew.
    whole = labels.mask("heart")
    assert derive(with_mask(labels, "heart", whole, Status.PRESENT), CATALOG).added_voxels["heart"] == 0


@pytest.mark.parametrize(
    ("kidneys", "added"), [("present", 1), ("absent", 1), ("unknown", None), (None, None)]
)
def test_added_voxels_are_counted_where_a_source_drew_the_whole(kidneys, added):
    found = {"kidney_left": "present"} | ({"kidneys": kidneys} if kidneys else {})
    assert derive(build(found), CATALOG).added_voxels["kidneys"] == added


def test_by_default_only_what_something_is_known_of_is_added():
    labels = derive(build({"rib_left_1": "present", "lung_upper_lobe_left": "unknown"}), CATALOG)
    assert set(labels.names) == {
        *("rib_left_1", "lung_upper_lobe_left"),
        *("rib_1", "ribs_left", "ribs", "rib_cage", "bones"),
    }
    assert labels.status["bones"] is Status.PARTIAL


def test_named_classes_are_added_whatever_is_known_of_them():
    labels = build({"rib_left_1": "present"})
    derived = derive(labels, CATALOG, ["1st rib", "left lung", "trachea"])
    assert derived.names == ("lung_left", "trachea", "rib_1", "rib_left_1")
    assert derived.status["trachea"] is Status.UNKNOWN
    assert derived.voxel_counts() == {"lung_left": 0, "trachea": 0, "rib_1": 1, "rib_left_1": 1}
    assert labels.names == ("rib_left_1",)
    with pytest.raises(ConfigError, match="did you mean"):
        derive(labels, CATALOG, ["lungz"])


def test_a_class_outside_the_catalog_is_kept():
    labels = with_mask(build({"rib_left_1": "present"}), "tube", np.ones(SHAPE, bool), Status.PRESENT)
    derived = derive(labels, CATALOG)
    assert derived.names[-1] == "tube"
    assert derived.status["tube"] is Status.PRESENT
    assert derived.voxel_counts()["tube"] == np.prod(SHAPE)


@pytest.mark.parametrize(
    ("vocabulary", "partial"),
    [
        # v1 names neither sternum nor cartilages nor skull, and of the vessels only some.
        ("totalsegmentator_v1", {"airways", "bones", "rib_cage"}),
        # v2 has the pulmonary vein but no artery, and no bronchi.
        ("totalsegmentator_v2", {"airways", "great_vessels", "pulmonary_vessels"}),
    ],
)
def test_what_a_segmenter_leaves_open_is_partial_and_the_rest_whole(vocabulary, partial):
    labels_map = load_vocabulary(vocabulary, catalog=CATALOG)
    array = np.zeros((1, 1, 118), np.uint8)
    array[0, 0, : len(labels_map.labels)] = list(labels_map.labels)
    builder = LabelBuilder(array.shape)
    builder.add_label_map(array, labels_map)
    derived = derive(builder.finish(AFFINE, CATALOG), CATALOG)
    found = {name for name, s in derived.status.items() if s is Status.PARTIAL}
    assert partial <= found
    whole = {
        "lungs",
        "heart",
        "spine",
        "vertebrae",
        "ribs",
        "rib_7",
        "scapulae",
        "abdominal_organs",
        "muscles",
    }
    assert all(derived.status[name] is Status.PRESENT for name in whole)
    assert all(derived.status[name] is Status.PRESENT for name in labels_map.labels.values())


def test_a_class_whose_divisions_other_sources_drew_is_known():
    """Nothing waits for a division, but a rib whose two halves have sources of their own is there."""
    halves = {"rib_left_4_anterior": "present", "rib_left_4_posterior": "absent"}
    assert status_of("rib_left_4", halves) == "present"
    assert status_of("rib_left_4", {"rib_left_4_anterior": "present"}) == "partial"
    assert status_of("rib_left_4", dict.fromkeys(halves, "absent")) == "absent"
    assert status_of("breasts", {"breast_left": "present", "breast_right": "present"}) == "present"
