"""The thorax segmenter: on phantoms, where truth is exact, on shapes with a known answer, and on a real chest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from paxray import api
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.errors import CaseError, ConfigError
from paxray.io.volume import Volume
from paxray.phantom.thorax import make_phantom
from paxray.segmentation.thorax.cage import Cage
from paxray.segmentation.thorax.lattice import Field
from paxray.segmentation.thorax.morphology import closed, dilate, erode, opened
from paxray.segmentation.thorax.result import ThoraxResult
from paxray.segmentation.thorax.ribs import Rib, _flood, _pairs, count_ribs, touched_share
from paxray.segmentation.thorax.segment import CLASSES, RIBS, segment_thorax
from paxray.segmentation.thorax.spine import Spine

Bool = NDArray[np.bool_]
COARSE_MM = (3.0, 3.0, 3.0)


def dice(a: Bool, b: Bool) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


class Phantom:
    """A phantom's CT, its exact masks by name prefix, and what was found in it."""

    def __init__(self, seed: int, spacing_mm: tuple[float, float, float]) -> None:
        made = make_phantom(seed, spacing_mm)
        self.ct, self.labels = made.ct, made.labels.array
        self.ids = load_vocabulary("phantom", catalog=load_catalog()).labels
        self.result = segment_thorax(self.ct)

    def truth(self, prefix: str, suffix: str = "") -> Bool:
        ids = [n for n, name in self.ids.items() if name.startswith(prefix) and name.endswith(suffix)]
        assert ids
        return np.isin(self.labels, ids)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(7, (2.0, 2.0, 2.5))


@pytest.fixture(scope="module")
def coarse() -> Phantom:
    """For what compares the segmenter with itself."""
    return Phantom(7, COARSE_MM)


def test_every_class_is_found_or_unknown_with_a_reason(phantom: Phantom) -> None:
    result = phantom.result
    assert set(result.found) | set(result.unknown) == set(CLASSES)
    assert not set(result.found) & set(result.unknown)
    assert all(result.unknown.values())
    assert all(0 < one.confidence <= 1 for one in result.found.values())
    for name in result.found:
        assert result.mask(name).any()


def test_its_vocabulary_names_its_classes() -> None:
    vocabulary = load_vocabulary("thorax", catalog=load_catalog())
    assert list(vocabulary.labels.values()) == list(CLASSES)


@pytest.mark.parametrize(
    ("name", "prefix", "suffix", "least"),
    [
        ("lung_left", "lung_", "left", 0.97),
        ("lung_right", "lung_", "right", 0.97),
        ("trachea", "trachea", "", 0.75),
        ("spine", "vertebrae_", "", 0.8),
        ("heart", "heart_", "", 0.85),
        ("subcutaneous_fat", "subcutaneous_fat", "", 0.85),
        ("skeletal_muscle", "skeletal_muscle", "", 0.75),
        ("sternum", "sternum", "", 0.6),
    ],
)
def test_phantom(phantom: Phantom, name: str, prefix: str, suffix: str, least: float) -> None:
    assert dice(phantom.result.mask(name), phantom.truth(prefix, suffix)) >= least


def test_phantom_body(phantom: Phantom) -> None:
    body = phantom.result.mask("body")
    assert dice(body, phantom.labels > 0) >= 0.98
    for name in phantom.result.found:
        assert not (phantom.result.mask(name) & ~body).any(), name


def test_phantom_ribs_have_side_and_number(phantom: Phantom) -> None:
    right = 0
    for name in RIBS:
        if name in phantom.result.found:
            found = phantom.result.mask(name)
            met = np.bincount(phantom.labels[found])
            rib_of = {n: known for n, known in phantom.ids.items() if known in RIBS}
            assert rib_of[max(rib_of, key=lambda n: met[n] if n < met.size else 0)] == name
            right += dice(found, phantom.truth(name, name)) >= 0.6
    assert right >= 20
    together = np.zeros(phantom.ct.shape, np.int32)
    for name in RIBS:
        if name in phantom.result.found:
            together += phantom.result.mask(name)
    assert together.max() == 1, "no voxel belongs to two ribs"


def test_a_ribs_confidence_is_near_what_its_mask_is_worth(phantom: Phantom) -> None:
    for name in set(RIBS) & set(phantom.result.found):
        worth = dice(phantom.result.mask(name), phantom.truth(name, name))
        assert abs(phantom.result.found[name].confidence - worth) < 0.15, name


def test_lungs_airways_and_bones_do_not_overlap(phantom: Phantom) -> None:
    result = phantom.result
    assert not (result.mask("lung_left") & result.mask("lung_right")).any()
    assert not (result.mask("lung_left") & result.mask("trachea")).any()
    assert not (result.mask("spine") & result.mask("spinal_canal")).any()
    assert not (result.mask("lung_vessels_left") & ~result.mask("lung_left")).any()


def test_carina_is_where_the_bronchi_begin(phantom: Phantom) -> None:
    assert phantom.result.carina_mm is not None
    k = phantom.ct.grid.to_index(phantom.result.carina_mm)[2]
    trachea = np.flatnonzero(phantom.result.mask("trachea").any(axis=(1, 2)))
    assert round(k) == trachea[0] - 1, "slices grow upwards; the carina is the first without a single tube"


@pytest.mark.parametrize("seed", [5, 12])
def test_breasts_are_not_taken_from_fat(seed: int) -> None:
    """Two obese patients: a woman, whose breasts are found, and a man, who has none."""
    made = make_phantom(seed, COARSE_MM)
    ids = load_vocabulary("phantom", catalog=load_catalog()).labels
    truth = np.isin(made.labels.array, [n for n, name in ids.items() if name.startswith("breast_")])
    assert truth.any() == (seed == 12)
    result = segment_thorax(made.ct)
    for side in ("left", "right"):
        assert (f"breast_{side}" in result.found) == truth.any()


def test_another_orientation_gives_the_same_masks(coarse: Phantom) -> None:
    """Stored feet first, rows reversed, sagittal planes: the affine says how the patient lies."""
    ct = coarse.ct
    turned = np.ascontiguousarray(ct.array.transpose(2, 0, 1)[::-1, ::-1])
    affine = np.eye(4)
    affine[:3, :3] = ct.affine[:3, :3][:, [1, 2, 0]] * [1, -1, -1]
    affine[:3, 3] = ct.grid.to_world([ct.shape[2] - 1, 0, ct.shape[0] - 1])
    other = segment_thorax(Volume(turned, affine))
    assert set(other.found) == set(coarse.result.found)
    for name in other.found:
        back = other.mask(name)[::-1, ::-1].transpose(1, 2, 0)
        assert dice(back, coarse.result.mask(name)) > 0.999, name


def test_padding_outside_the_circle(coarse: Phantom) -> None:
    """The circle cuts arms and skin; what lies inside stays as it was, with both values that scanners write."""
    ct = coarse.ct
    y, x = (np.indices(ct.shape[1:]) - (np.array(ct.shape[1:]) / 2)[:, None, None]) * COARSE_MM[0]
    outside = np.hypot(y, x) > 190
    array = ct.array.copy()
    array[:, outside & (x < 0)] = -2048
    array[:, outside & (x >= 0)] = -3024
    result = segment_thorax(Volume(array, ct.affine))
    assert not (result.mask("body")[:, outside]).any()
    for name in ("lung_left", "lung_right", "trachea", "spine", "heart", "rib_left_5", "rib_right_9"):
        assert dice(result.mask(name), coarse.result.mask(name)) > 0.9, name


@pytest.fixture(scope="module")
def hard(coarse: Phantom) -> tuple[ThoraxResult, Bool]:
    """A prone patient with contrast and metal, and the voxels of the table and its cover, in front of the belly.

    Contrast as in the real chest: the superior vena cava saturated, veins and right heart far above bone's HU, the
    aorta within it. Wires with streaks in the breastbone, as after heart surgery.
    """
    array = coarse.ct.array.astype(np.float32)
    for prefix, hu in (
        ("superior_vena_cava", 3071),
        ("brachiocephalic_vein", 1300),
        ("heart_atrium_right", 600),
        ("heart_ventricle_right", 600),
        ("pulmonary_artery", 600),
        ("heart_atrium_left", 350),
        ("heart_ventricle_left", 350),
        ("aorta", 350),
    ):
        array[coarse.truth(prefix)] = hu
    wires = np.argwhere(coarse.truth("sternum")).mean(axis=0).round().astype(int)
    y, x = (np.indices(array.shape[1:]) - wires[1:, None, None]) * COARSE_MM[0]
    away, angle = np.hypot(y, x), np.arctan2(y, x)
    for k in wires[0] + np.array([-6, -2, 2, 6]):
        array[k] += np.where(away > 6, 400 * np.cos(8 * angle) * np.exp(-away / 75), 0)
        array[k][away < 4] = 3071
    room = 12
    array = np.pad(array, ((0, 0), (room, 0), (0, 0)), constant_values=-1000)
    front = room + int(np.flatnonzero((coarse.labels > 0).any(axis=(0, 2)))[0])
    table = np.zeros(array.shape, bool)
    table[:, [front - 2, front - 6, front - 5], 5:-5] = True
    array[table] = 300
    array[:, front - 2, 5:-5] = -200
    affine = coarse.ct.affine.copy()
    affine[:3, 3] -= room * affine[:3, 1]
    result = segment_thorax(Volume(np.clip(array, -1024, 3071).round().astype(np.int16), affine))
    return result, table


def of_coarse(result: ThoraxResult, name: str, coarse: Phantom) -> Bool:
    """A mask of `hard` on the voxels of `coarse`."""
    return result.mask(name)[:, -coarse.ct.shape[1] :]


def test_a_table_in_front_of_a_prone_patient_is_no_body(
    hard: tuple[ThoraxResult, Bool], coarse: Phantom
) -> None:
    result, table = hard
    assert not (result.mask("body") & table).any()
    assert dice(of_coarse(result, "body", coarse), coarse.labels > 0) >= 0.98


def test_contrast_is_no_bone(hard: tuple[ThoraxResult, Bool], coarse: Phantom) -> None:
    """The vein that contrast comes in by. Where the aorta lies on the spine some of it passes for bone."""
    cava = coarse.truth("superior_vena_cava")
    assert (of_coarse(hard[0], "bones", coarse) & cava).sum() < 0.02 * cava.sum()
    assert dice(of_coarse(hard[0], "heart", coarse), coarse.truth("heart_")) >= 0.85


@pytest.mark.parametrize(
    "name", ["lung_left", "lung_right", "trachea", "spine", "sternum", "rib_left_5", "rib_right_9"]
)
def test_metal_and_contrast_leave_the_rest_as_it_was(
    hard: tuple[ThoraxResult, Bool], coarse: Phantom, name: str
) -> None:
    assert dice(of_coarse(hard[0], name, coarse), coarse.result.mask(name)) > 0.95


def test_raised_arms_are_body_and_bone(phantom: Phantom) -> None:
    arms = phantom.truth("humerus_")
    assert arms.any()
    assert not (arms & ~phantom.result.mask("body")).any()
    assert (arms & phantom.result.mask("bones")).sum() > 0.8 * arms.sum()


def test_thick_slices_number_no_rib(coarse: Phantom) -> None:
    """9 mm: ribs run together, and counting what is left would misname every one. What is large is found."""
    n = coarse.ct.shape[0] // 3
    array = coarse.ct.array[: 3 * n].reshape(n, 3, *coarse.ct.shape[1:]).mean(axis=1)
    affine = coarse.ct.affine.copy()
    affine[:3, 3] += affine[:3, 2]
    affine[:3, 2] *= 3
    result = segment_thorax(Volume(array.round().astype(np.int16), affine))
    assert not [name for name in RIBS if name in result.found]
    assert "slices 9.0 mm apart" in result.unknown["rib_left_6"]
    assert "ribs_left" in result.found
    for name, prefix, suffix, least in (
        ("body", "", "", 0.98),
        ("lung_left", "lung_", "left", 0.97),
        ("lung_right", "lung_", "right", 0.97),
        ("heart", "heart_", "", 0.8),
        ("spine", "vertebrae_", "", 0.75),
    ):
        assert dice(result.mask(name), coarse.truth(prefix, suffix)[1 : 3 * n : 3]) >= least, name


def test_too_few_or_too_many_ribs_between_the_first_and_the_last_get_no_number(coarse: Phantom) -> None:
    """Nine pairs where both ends of the cage are in sight: some were missed, and nobody knows which."""
    field = Field.of(coarse.ct, coarse.labels > 0)
    heights = np.ones(field.full.shape[0])
    spine = SimpleNamespace(evidence=np.concatenate([heights, np.ones(40)]))
    middle = (heights.size + 40) * field.mm[0] / 2
    for pairs, numbered in ((9, False), (12, True), (14, False)):
        ribs = [
            Rib(2 * n + (side == "right"), side, middle + 20.0 * (pairs / 2 - n), 40.0 if n == 0 else 90.0)
            for n in range(pairs)
            for side in ("left", "right")
        ]
        ladder = count_ribs(field, ribs, cast(Spine, spine))
        assert (ladder.first_number is not None) == numbered, pairs
        assert numbered or f"{pairs} pairs" in ladder.reason


def test_scan_that_begins_below_the_first_rib_and_ends_above_the_last(coarse: Phantom) -> None:
    """Nothing to count from: ribs are found, but no number is guessed."""
    ct = coarse.ct
    low, high = (np.flatnonzero(coarse.truth(n).any(axis=(1, 2))) for n in ("rib_left_9", "rib_left_4"))
    affine = ct.affine.copy()
    affine[:3, 3] += low[0] * affine[:3, 2]
    result = segment_thorax(Volume(ct.array[low[0] : high[-1]], affine))
    assert "ribs_left" in result.found
    numbered = [n for n in RIBS if n in result.found]
    assert not numbered, result.found[numbered[0]].note
    assert "cannot be numbered" in result.unknown["rib_left_6"]


def test_a_body_without_lungs_is_unknown_and_not_guessed() -> None:
    """A water cylinder, and one with a plain cavity of air."""
    y, x = (np.indices((80, 110)) - np.array([40, 55])[:, None, None]) * 3.0
    ct = np.full((60, 80, 110), -1000, np.int16)
    ct[:, (x / 150) ** 2 + (y / 100) ** 2 < 1] = 30
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for cavity in (False, True):
        if cavity:
            ct[10:50, (x / 60) ** 2 + (y / 50) ** 2 < 1] = -1000
        result = segment_thorax(Volume(ct, affine))
        assert set(result.found) == {"body", "skin"}
        with pytest.raises(ConfigError, match="no mask of 'heart'"):
            result.mask("heart")


def test_nobody_and_oblique_planes_are_errors() -> None:
    with pytest.raises(CaseError) as caught:
        segment_thorax(Volume(np.full((20, 20, 20), -1000, np.int16), np.diag([3.0, 3.0, 3.0, 1.0])))
    assert caught.value.code == "no_body"
    turn = np.eye(4)
    c, s = np.cos(np.pi / 4), np.sin(np.pi / 4)
    turn[:3, :3] = 3 * np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    ct = np.full((40, 40, 40), -1000, np.int16)
    ct[8:32, 8:32, 8:32] = 30
    with pytest.raises(CaseError) as caught:
        segment_thorax(Volume(ct, turn))
    assert caught.value.code == "oblique"


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_field_there_and_back(axes: tuple[int, int, int]) -> None:
    """A mask goes to patient order and back to where it was; block centres keep their place in mm."""
    rng = np.random.default_rng(1)
    columns = [2 - axes[2], 2 - axes[1], 2 - axes[0]]
    affine = np.eye(4)
    for world, column in enumerate(columns):
        affine[:, column] = 0
        affine[world, column] = (-1.0) ** world * (0.7, 0.7, 2.5)[world]
    affine[:3, 3] = (5, -3, 11)
    ct = Volume(rng.integers(-1000, 1000, (21, 22, 23)).astype(np.int16), affine)
    body = np.zeros(ct.shape, bool)
    body[3:19, 2:20, 4:22] = True
    field = Field.of(ct, body)
    mask = rng.random(ct.shape) < 0.1
    mask &= body
    box, array = field.back(np.ascontiguousarray(field.turn(mask)))
    out = np.zeros(ct.shape, bool)
    out[box] = array
    np.testing.assert_array_equal(out, mask)
    here = field.world_mm(np.zeros(3))
    one_left = field.world_mm(np.array([0.0, 0.0, 1.0])) - here
    np.testing.assert_allclose(one_left, [field.mm[2], 0, 0], atol=1e-9)
    assert field.mm[2] == pytest.approx(1.4)


def test_morphology_in_mm() -> None:
    """Balls of a known radius on voxels that are no cubes."""
    mm = (2.5, 1.0, 1.0)
    z, y, x = (np.indices((25, 61, 61)) - np.array([12, 30, 30])[:, None, None, None]) * np.array(mm)[
        :, None, None, None
    ]
    away = np.sqrt(z**2 + y**2 + x**2)
    ball = away <= 12
    assert not (dilate(ball, 5.0, mm) & (away > 17)).any()
    assert dilate(ball, 5.0, mm)[away <= 15.5].all()
    assert not (erode(ball, 4.0, mm) & (away > 10)).any()
    handle = ball | ((np.abs(z) < 3) & (np.abs(y) <= 2))
    assert not (opened(handle, 4.0, mm) & (np.abs(x) > 17)).any()
    assert opened(handle, 4.0, mm)[away <= 9].all()
    hollow = ball & (away > 3)
    assert closed(hollow, 4.0, mm)[ball].all()
    assert not (closed(hollow, 4.0, mm) & ~dilate(ball, 1.5, mm)).any()


def test_a_thin_bridge_does_not_take_half_of_a_rib() -> None:
    """Its far half is nearer to the other rib's root, over the bridge."""
    field = cast(Field, SimpleNamespace(mm=(1.0, 1.0, 1.0)))
    cage = cast(Cage, SimpleNamespace(outside_mm=np.zeros((22, 70, 12), np.float32)))
    bone = np.zeros((22, 70, 12), bool)
    upper, lower = (slice(12, 18), slice(2, 68), slice(3, 9)), (slice(2, 8), slice(2, 68), slice(3, 9))
    bone[upper] = bone[lower] = True
    bone[8:12, 45:47, 5:7] = True
    markers = np.zeros(bone.shape, np.int32)
    markers[12:18, 40:46, 3:9], markers[2:8, 2:8, 3:9] = 1, 2
    labels = _flood(field, bone, markers, np.ones((22, 1, 12), np.float32), cage)
    assert (labels[upper] == 1).all()
    assert (labels[lower] == 2).all()


def test_which_share_of_an_outline_lies_against_something_dense() -> None:
    """A cube of 4 has 6 faces of 16 blocks; one of them lies against a plate, another against a rib of its own."""
    labels = np.zeros((12, 12, 60), np.int32)
    field = cast(Field, SimpleNamespace(mm=(1.0, 1.0, 1.0), hu=labels))
    labels[4:8, 4:8, 44:48], labels[8:10, 4:8, 44:48] = 1, 2
    dense = labels > 0
    dense[4:8, 8:10, 44:48] = True
    row = np.zeros(12)
    nothing = np.zeros(labels.shape, bool)
    spine = Spine(nothing, nothing, row, row, row + 1)
    assert touched_share(labels, dense, field, spine)[1] == pytest.approx(2 / 6)
    beside_spine = Spine(nothing, nothing, row, row + 36, row + 1)
    assert touched_share(labels, dense, field, beside_spine)[1] == 0


def test_ribs_pair_by_level_and_a_missing_one_leaves_its_rung_open() -> None:
    levels = [300.0, 285.0, 266.0, 246.0, 224.0]
    ribs = [Rib(n, "left", level, 90.0) for n, level in enumerate(levels, 1)]
    ribs += [Rib(n + 10, "right", level + 3.0, 90.0) for n, level in enumerate(levels, 1) if n != 3]
    assert [sides for _, sides in _pairs(ribs)] == [
        {"left": 1, "right": 11},
        {"left": 2, "right": 12},
        {"left": 3},
        {"left": 4, "right": 14},
        {"left": 5, "right": 15},
    ]


@pytest.fixture(scope="module")
def real_chest(real_data: Path) -> tuple[ThoraxResult, Volume, Path]:
    """Contrast, arms, a table, shoulders cut by the circle."""
    folder = real_data / "lidc-idri-0001"
    ct = api.read_ct(folder / "ct.nii.gz")
    return segment_thorax(ct), ct, folder


@pytest.mark.real
@pytest.mark.slow
def test_real_chest(real_chest: tuple[ThoraxResult, Volume, Path]) -> None:
    """TotalSegmentator's masks, at the figures that this segmenter promises."""
    result, ct, folder = real_chest
    labels = api.read_masks(
        f"{folder / 'totalsegmentator_v2.nii.gz'}=totalsegmentator_v2+118:costal_cartilages", ct
    )

    def union(*starts: str, end: str = "") -> Bool:
        out = np.zeros(ct.shape, bool)
        for name in labels.names:
            if name.startswith(starts) and name.endswith(end):
                out |= labels.mask(name)
        return out

    for side in ("left", "right"):
        assert dice(result.mask(f"lung_{side}"), union("lung_", end=side)) >= 0.97
    assert not (result.mask("lung_left") & result.mask("lung_right")).any(), (
        "where they touch, a voxel is of one"
    )
    assert dice(result.mask("heart"), union("heart", "atrial")) >= 0.75
    assert (
        dice(result.mask("bones"), union("vertebrae", "rib_", "sternum", "scapula", "clavicula", "humerus"))
        >= 0.8
    )
    assert not ((labels.atoms > 0) & ~result.mask("body")).any()
    worth = {name: dice(result.mask(name), labels.mask(name)) for name in RIBS if name in result.found}
    assert sum(value >= 0.6 for value in worth.values()) >= 20
    for name, value in worth.items():
        assert abs(result.found[name].confidence - value) < 0.15, name
    # Veins full of contrast and the collar bone lie against the first ribs.
    assert min(worth[f"rib_{side}_2"] for side in ("left", "right")) > 0.7
    contrast = labels.mask("superior_vena_cava") | labels.mask("brachiocephalic_vein_right")
    assert (result.mask("bones") & contrast).sum() < 0.02 * contrast.sum()
    # TotalSegmentator's trachea goes on for about 2 cm into the main bronchi.
    assert result.carina_mm is not None
    bronchi = result.mask("bronchus_main_left") | result.mask("bronchus_main_right")
    at = np.argwhere(bronchi)
    away = np.linalg.norm(ct.grid.to_world(at[:, ::-1]) - np.array(result.carina_mm), axis=1)
    bronchi[tuple(at[away > 20].T)] = False
    assert dice(result.mask("trachea") | bronchi, labels.mask("trachea")) >= 0.8


def test_benchmark_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from benchmarks.thorax import main

    assert main(["--no-real", "--phantoms", "5", "--spacing", "3", "3", "3", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "thorax.json").read_text())["rows"]
    (body,) = [row for row in rows if row["class"] == "body"]
    assert float(body["Dice"]) >= 0.98
    assert (tmp_path / "thorax.md").read_text() in capsys.readouterr().out
