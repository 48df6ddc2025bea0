import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
from edited import with_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from paxray.anatomy.builder import LabelBuilder, with_flags
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.vocabulary import Vocabulary, load_vocabulary
from paxray.errors import CaseError, ConfigError

CATALOG = load_catalog()
AFFINE = np.diag([0.7, 0.7, 2.5, 1.0])
SHAPE = (4, 5, 6)
WHOLE = tuple(slice(0, n) for n in SHAPE)
LOWER = (slice(0, 2), slice(0, 5), slice(0, 6))
NAMES = ("lungs", "heart", "aorta", "rib_left_1", "body", "liver")


def random_mask(rng, fill=0.4, shape=SHAPE):
    return rng.random(shape) < fill


def build(masks, shape=SHAPE):
    builder = LabelBuilder(shape)
    for name, mask in masks.items():
        builder.add_mask(name, tuple(slice(0, n) for n in shape), mask)
    return builder.finish(AFFINE, CATALOG)


def assert_sound(labels: LabelVolume) -> None:
    """Hold the invariants of every label volume."""
    rows = {tuple(row) for row in labels.membership.tolist()}
    assert len(rows) == len(labels.membership)
    counts = np.bincount(labels.atoms.ravel(), minlength=len(labels.membership))
    assert (counts[1:] > 0).all()
    assert_array_equal(labels.atom_counts(), counts)
    assert labels.atoms.flags.c_contiguous
    assert list(labels.names) == [name for name in CATALOG if name in labels.names]


def assert_same(one: LabelVolume, other: LabelVolume) -> None:
    assert_array_equal(one.atoms, other.atoms)
    assert_array_equal(one.membership, other.membership)
    assert one.names == other.names
    assert dict(one.status) == dict(other.status)
    assert one.atoms.dtype == other.atoms.dtype


# Masks and label maps


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(0, len(NAMES)), fill=st.sampled_from([0.0, 0.1, 0.5, 1.0])
)
def test_what_goes_in_comes_out_in_any_order(seed, n, fill):
    rng = np.random.default_rng(seed)
    masks = {name: random_mask(rng, fill) for name in rng.permutation(NAMES)[:n].tolist()}
    labels = build(masks)
    assert_sound(labels)
    for name, mask in masks.items():
        assert_array_equal(labels.mask(name), mask)
        assert labels.voxel_counts()[name] == mask.sum()
        assert labels.status[name] is (Status.PRESENT if mask.any() else Status.ABSENT)
    union = np.logical_or.reduce([*masks.values(), np.zeros(SHAPE, bool)])
    assert_array_equal(labels.atoms > 0, union)
    assert_same(labels, build(dict(reversed(masks.items()))))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.uint32, np.int64]),
)
def test_label_maps_and_masks_mix(seed, dtype):
    rng = np.random.default_rng(seed)
    organs = Vocabulary("organs", {1: "heart", 2: "liver", 5: "aorta", 6: "aorta"})
    bones = Vocabulary("bones", {1: "rib_left_1", 300 if np.dtype(dtype).itemsize > 1 else 9: "rib_left_2"})
    first = rng.choice([0, 0, 1, 2, 5, 6], SHAPE).astype(dtype)
    second = rng.choice([0, 0, *bones.labels], SHAPE).astype(dtype)
    body = random_mask(rng)

    def assemble(order):
        builder = LabelBuilder(SHAPE)
        steps = {
            "organs": lambda: builder.add_label_map(first, organs, WHOLE, "organs.nii.gz"),
            "bones": lambda: builder.add_label_map(np.asfortranarray(second), bones, WHOLE, "bones.nii.gz"),
            "body": lambda: builder.add_mask("body", WHOLE, body, WHOLE, "body.nii.gz"),
        }
        for step in order:
            steps[step]()
        return builder.finish(AFFINE, CATALOG)

    before = first.copy()
    labels = assemble(["organs", "bones", "body"])
    assert_sound(labels)
    assert_array_equal(first, before)
    expected = {
        "heart": first == 1,
        "liver": first == 2,
        "aorta": first >= 5,
        "rib_left_1": second == 1,
        "rib_left_2": second > 1,
        "body": body,
    }
    for name, mask in expected.items():
        assert_array_equal(labels.mask(name), mask)
    for order in (["body", "bones", "organs"], ["bones", "body", "organs"]):
        assert_same(labels, assemble(order))


def test_the_earlier_source_wins_a_class_that_both_name():
    rng = np.random.default_rng(1)
    heart, later = random_mask(rng), random_mask(rng)
    vocabulary = Vocabulary("v", {1: "heart", 2: "liver"})
    label_map = rng.integers(0, 3, SHAPE).astype(np.uint8)
    builder = LabelBuilder(SHAPE)
    assert builder.add_mask("heart", WHOLE, heart) == ("heart",)
    assert builder.add_label_map(label_map, vocabulary) == ("liver",)
    assert builder.add_mask("heart", WHOLE, later) == ()
    labels = builder.finish(AFFINE, CATALOG)
    assert_sound(labels)
    assert_array_equal(labels.mask("heart"), heart)
    assert_array_equal(labels.mask("liver"), label_map == 2)


def test_a_class_that_an_earlier_source_looked_for_in_vain_stays_absent():
    builder = LabelBuilder(SHAPE)
    builder.add_label_map(np.zeros(SHAPE, np.uint8), Vocabulary("v", {1: "heart"}))
    builder.add_mask("heart", WHOLE, np.ones(SHAPE, bool))
    labels = builder.finish(AFFINE, CATALOG)
    assert labels.status["heart"] is Status.ABSENT
    assert not labels.atoms.any()


def test_a_mask_in_a_box_lies_where_the_box_lies():
    rng = np.random.default_rng(2)
    part = random_mask(rng, shape=(2, 3, 2))
    builder = LabelBuilder(SHAPE)
    builder.add_mask("heart", (slice(1, 3), slice(2, 5), slice(0, 2)), part)
    builder.add_mask("liver", (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool))
    labels = builder.finish(AFFINE, CATALOG)
    expected = np.zeros(SHAPE, bool)
    expected[1:3, 2:5, 0:2] = part
    assert_array_equal(labels.mask("heart"), expected)
    assert labels.status["liver"] is Status.ABSENT


def test_nothing_added_is_all_background():
    labels = LabelBuilder(SHAPE).finish(AFFINE, CATALOG)
    assert labels.names == ()
    assert labels.membership.shape == (1, 0)
    assert not labels.atoms.any()
    assert labels.cut_by_ct() == {}


# Status


@pytest.mark.parametrize(
    ("extent", "filled", "status"),
    [
        (WHOLE, True, Status.PRESENT),
        (None, True, Status.PRESENT),
        (WHOLE, False, Status.ABSENT),
        (LOWER, True, Status.PARTIAL),
        (LOWER, False, Status.UNKNOWN),
    ],
)
def test_status_follows_extent_and_voxels(extent, filled, status):
    mask = np.zeros(SHAPE, bool)
    mask[0, 1, 1] = filled
    by_mask = LabelBuilder(SHAPE)
    by_mask.add_mask("heart", WHOLE, mask, extent)
    by_map = LabelBuilder(SHAPE)
    by_map.add_label_map(mask.astype(np.uint8), Vocabulary("v", {1: "heart"}), extent)
    for builder in (by_mask, by_map):
        assert builder.finish(AFFINE, CATALOG).status["heart"] is status


# Refusals


def test_an_unknown_label_is_refused_with_the_line_to_write():
    vocabulary = load_vocabulary("totalsegmentator_v2", catalog=CATALOG)
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0, :3] = 118
    array[0, 1, 0] = 116
    with pytest.raises(CaseError) as caught:
        LabelBuilder(SHAPE).add_label_map(array, vocabulary, WHOLE, "seg.nii.gz")
    assert caught.value.code == "unknown_label"
    assert caught.value.where == "seg.nii.gz"
    assert "118 (3 voxels)" in caught.value.found
    assert "`totalsegmentator_v2+118:costal_cartilages`" in caught.value.do
    fixed = load_vocabulary("totalsegmentator_v2+118:costal_cartilages", catalog=CATALOG)
    builder = LabelBuilder(SHAPE)
    builder.add_label_map(array, fixed, WHOLE, "seg.nii.gz")
    assert builder.finish(AFFINE, CATALOG).voxel_counts()["costal_cartilages"] == 3


def test_no_name_is_guessed_for_a_label_whose_neighbour_is_filled():
    array = np.array([0, 1, 2, 7], np.uint8).reshape(1, 2, 2)
    with pytest.raises(CaseError) as caught:
        LabelBuilder((1, 2, 2)).add_label_map(array, Vocabulary("v", {1: "heart"}))
    assert "`v+2:CLASS+7:CLASS`" in caught.value.do


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((4, 5, 7), np.uint8), "bad_labels"),
        (np.zeros(SHAPE, np.float32), "bad_labels"),
        (np.zeros(SHAPE, bool), "bad_labels"),
        (np.full(SHAPE, -1, np.int16), "unknown_label"),
        (np.full(SHAPE, -1, np.int64), "unknown_label"),
        (np.full(SHAPE, 4_000_000_000, np.uint32), "unknown_label"),
        (np.full(SHAPE, 65535, np.uint16), "unknown_label"),
    ],
)
def test_a_label_map_that_does_not_fit_is_refused(array, code):
    with pytest.raises(CaseError) as caught:
        LabelBuilder(SHAPE).add_label_map(array, Vocabulary("v", {1: "heart"}), WHOLE, "seg.nii.gz")
    assert caught.value.code == code


def test_a_mask_that_does_not_fill_its_box_is_refused():
    for array in (np.zeros((1, 1, 2), bool), np.zeros((1, 1, 1), np.uint8)):
        with pytest.raises(CaseError, match="does not fill its box"):
            LabelBuilder(SHAPE).add_mask("heart", (slice(0, 1),) * 3, array)


def test_only_canonical_names_are_accepted():
    for name, hint in (("hart", "did you mean 'heart'"), ("oesophagus", "'esophagus'")):
        builder = LabelBuilder(SHAPE)
        builder.add_mask(name, WHOLE, np.ones(SHAPE, bool))
        with pytest.raises(ConfigError, match=hint):
            builder.finish(AFFINE, CATALOG)


@pytest.mark.parametrize(
    "change",
    [
        {"atoms": np.zeros(SHAPE, np.uint8)},
        {"atoms": np.zeros(SHAPE[1:], np.uint16)},
        {"membership": np.zeros((1, 2), bool)},
        {"membership": np.zeros((1, 1), np.uint8)},
        {"membership": np.ones((1, 1), bool)},
        {"membership": np.zeros((0, 1), bool)},
        {"status": {}},
        {"names": ("lungs",), "status": {"heart": Status.ABSENT}},
    ],
)
def test_a_label_volume_whose_parts_do_not_fit_is_refused(change):
    parts = {
        "atoms": np.zeros(SHAPE, np.uint16),
        "membership": np.zeros((1, 1), bool),
        "names": ("heart",),
        "affine": AFFINE,
        "status": {"heart": Status.ABSENT},
    }
    assert LabelVolume(**parts).shape == SHAPE
    with pytest.raises(CaseError) as caught:
        LabelVolume(**(parts | change))
    assert caught.value.code == "bad_labels"


# Labels taken up again by a builder


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_class_drawn_anew_leaves_the_others(seed):
    rng = np.random.default_rng(seed)
    masks = {name: random_mask(rng) for name in NAMES}
    labels = build(masks)
    changed = random_mask(rng, rng.choice([0.0, 0.4, 1.0]))
    status = Status.PARTIAL if changed.any() else Status.UNKNOWN
    result = with_mask(labels, "heart", changed, status)
    assert_sound(result)
    assert result.names == labels.names
    assert result.status == {**labels.status, "heart": status}
    for name, mask in (masks | {"heart": changed}).items():
        assert_array_equal(result.mask(name), mask)
    assert_array_equal(labels.mask("heart"), masks["heart"])  # the original stands
    back = with_mask(result, "heart", masks["heart"], labels.status["heart"])
    assert_same(back, labels)


def test_new_classes_one_by_one_and_at_once():
    rng = np.random.default_rng(3)
    labels = build({"heart": random_mask(rng), "liver": random_mask(rng)})
    extra = {"aorta": random_mask(rng), "lungs": random_mask(rng)}
    one_by_one = labels
    for name, mask in extra.items():
        one_by_one = with_mask(one_by_one, name, mask, Status.PRESENT)
    assert one_by_one.names == ("heart", "liver", "aorta", "lungs")
    builder = LabelBuilder.resume(labels)
    for name, mask in extra.items():
        builder.add_mask(name, WHOLE, mask)
    at_once = builder.finish(AFFINE, CATALOG)
    for name in at_once.names:
        assert_array_equal(at_once.mask(name), one_by_one.mask(name))
    assert_sound(at_once)


def test_a_status_that_the_mask_belies_is_refused():
    labels = build({"heart": np.ones(SHAPE, bool)})
    for mask, status in (
        (np.ones(SHAPE, bool), Status.ABSENT),
        (np.ones(SHAPE, bool), Status.UNKNOWN),
        (np.zeros(SHAPE, bool), Status.PRESENT),
    ):
        with pytest.raises(CaseError, match="is said to be"):
            with_mask(labels, "liver", mask, status)


def test_index_suggests():
    labels = build({"heart": np.ones(SHAPE, bool)})
    assert labels.index("heart") == 0
    with pytest.raises(ConfigError, match="did you mean 'heart'"):
        labels.mask("hart")


def test_many_atoms_are_widened_to_32_bits():
    # 17 masks that spell out the voxel's number in binary: every voxel is an atom of its own.
    shape = (2, 256, 256)
    number = np.arange(np.prod(shape)).reshape(shape)
    names = [*CATALOG["ribs_left"].parts, *CATALOG["ribs_right"].parts][:17]
    labels = build({name: (number >> bit & 1).astype(bool) for bit, name in enumerate(names)}, shape)
    assert labels.atoms.dtype == np.uint32
    assert len(labels.membership) == number.size
    assert len(np.unique(labels.atoms)) == number.size
    for bit, name in enumerate(names):
        assert_array_equal(labels.mask(name), (number >> bit & 1).astype(bool))


def test_label_volume_survives_pickling():
    labels = build({"heart": np.ones(SHAPE, bool)})
    assert_same(pickle.loads(pickle.dumps(labels)), labels)


# Cut by the scan


def brute_force_cut(mask, outside):
    padded = np.pad(outside, 1, constant_values=True)  # beyond a face lies outside as well
    return any(
        padded[1 + k + dk, 1 + j + dj, 1 + i + di]
        for k, j, i in np.argwhere(mask)
        for dk, dj, di in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), given_outside=st.booleans())
def test_cut_by_ct_equals_brute_force(seed, given_outside):
    rng = np.random.default_rng(seed)
    masks = {}
    for name in NAMES:
        masks[name] = np.zeros(SHAPE, bool)
        masks[name][1:-1, 1:-1, 1:-1] = random_mask(rng, 0.1, (2, 3, 4))
        masks[name][tuple(rng.integers(0, SHAPE))] |= rng.random() < 0.3
    outside = random_mask(rng, 0.08)
    labels = build(masks)
    if given_outside:
        status = Status.PRESENT if outside.any() else Status.ABSENT
        labels = with_mask(labels, "outside", outside, status)
    cut = labels.cut_by_ct("outside" if given_outside else None)
    for name, mask in masks.items():
        assert cut[name] == brute_force_cut(mask, outside if given_outside else np.zeros(SHAPE, bool))


def test_cut_by_ct_refuses_a_class_that_is_not_there():
    with pytest.raises(ConfigError, match="no class 'outside'"):
        build({"heart": np.ones(SHAPE, bool)}).cut_by_ct("outside")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_flags_are_masks_added_one_by_one(seed):
    rng = np.random.default_rng(seed)
    told = {NAMES[0]: "so", NAMES[1]: "and so"}
    labels = replace(
        build({name: random_mask(rng) for name in NAMES}), notes=told, confidence={NAMES[1]: 0.5}
    )
    drawn = {"lungs": random_mask(rng), NAMES[0]: random_mask(rng)}
    drawn[NAMES[0]][0, 0, 0] = drawn["lungs"][0, 0, 0] = True
    flags = sum((mask.astype(np.uint8) << n for n, mask in enumerate(drawn.values())), np.uint8(0))
    one_by_one = labels
    for name, mask in drawn.items():
        one_by_one = with_mask(one_by_one, name, mask, Status.PRESENT)
    pairs = np.zeros((len(labels.membership), 1 << len(drawn)), np.int64)
    np.add.at(pairs, (labels.atoms, flags), 1)
    at_once = with_flags(labels, flags, tuple(drawn), pairs)
    assert_sound(at_once)
    assert_same(at_once, one_by_one)
    assert_array_equal(at_once.atom_counts(), one_by_one.atom_counts())
    assert at_once.added_voxels == one_by_one.added_voxels
    assert (at_once.notes, at_once.confidence) == (one_by_one.notes, one_by_one.confidence)


# Pieces and speed


def test_results_do_not_depend_on_how_the_array_is_cut(monkeypatch):
    rng = np.random.default_rng(5)
    masks = {name: random_mask(rng) for name in NAMES}
    first, second = (rng.integers(0, 3, SHAPE).astype(np.uint8) for _ in range(2))

    def assemble():
        builder = LabelBuilder.resume(build(masks))
        builder.add_label_map(first, Vocabulary("one", {1: "rib_left_2", 2: "rib_left_3"}))
        builder.add_label_map(second, Vocabulary("two", {1: "rib_left_4", 2: "rib_left_5"}))
        return builder.finish(AFFINE, CATALOG)

    plain = assemble()
    monkeypatch.setattr("paxray.anatomy.voxels._PIECE", 7)
    assert_same(assemble(), plain)
    assert_array_equal(plain.mask("rib_left_5"), second == 2)


def test_a_usual_chest_takes_well_under_a_second():
    rng = np.random.default_rng(6)
    array = np.repeat(rng.integers(0, 118, (133, 512, 16), dtype=np.uint8), 32, axis=2)
    vocabulary = load_vocabulary("totalsegmentator_v2", catalog=CATALOG)
    start = time.perf_counter()
    builder = LabelBuilder(array.shape)
    builder.add_label_map(array, vocabulary)
    labels = builder.finish(AFFINE, CATALOG)
    assert time.perf_counter() - start < 1.0  # about 0.1 s on an idle core
    assert labels.atom_counts().sum() == array.size


@pytest.mark.real
def test_the_real_chest_and_its_trap(real_data):
    import nibabel

    folder = real_data / "lidc-idri-0001"
    array = np.asarray(nibabel.load(folder / "totalsegmentator_v2_2.5mm.nii.gz").dataobj).T
    plain = load_vocabulary("totalsegmentator_v2", catalog=CATALOG)
    with pytest.raises(CaseError, match=r"totalsegmentator_v2\+118:costal_cartilages"):
        LabelBuilder(array.shape).add_label_map(array, plain)
    vocabulary = load_vocabulary("totalsegmentator_v2+118:costal_cartilages", catalog=CATALOG)
    builder = LabelBuilder(array.shape)
    builder.add_label_map(array, vocabulary)
    labels = builder.finish(AFFINE, CATALOG)
    assert_sound(labels)
    present = set(np.unique(array)) - {0}
    for value, name in vocabulary.labels.items():
        if value == 117:
            continue  # shares its class with 118
        assert labels.status[name] is (Status.PRESENT if value in present else Status.ABSENT)
        assert labels.voxel_counts()[name] == np.count_nonzero(array == value)
    cut = labels.cut_by_ct()
    assert cut["spinal_cord"]
    assert not cut["heart"]
