"""Findings on masks made wrong on purpose, one kind at a time, and none on those that are right."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edited import with_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_masks import (
    cropped,
    exchanged,
    mirrored,
    moved,
    renamed,
    stored_otherwise,
    without,
)

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.recipes.engine import derive
from paxray.errors import CaseError
from paxray.io.volume import Volume
from paxray.plausibility.density import TISSUES, judge_at_a_glance
from paxray.plausibility.evidence import SPINE, Evidence
from paxray.plausibility.judge import explain, find, judge
from paxray.plausibility.order import not_in_order
from paxray.plausibility.rules import RULES, Finding
from paxray.plausibility.solid import bounds_ml, far_shares

CATALOG = load_catalog()
#: What is true of every phantom: the scan ends somewhere.
ALWAYS = {"cut_by_scan"}
SEEN: set[str] = set()


@pytest.fixture(scope="module")
def phantom_cases(phantom_table: Path) -> list[tuple[Volume, LabelVolume]]:
    """CTs and masks of four phantoms on 5 mm voxels, with their bodies."""
    from paxray.io.cases import read_case_table
    from paxray.io.ct import read_ct
    from paxray.segmentation.body import with_body
    from paxray.segmentation.files import read_masks

    out = []
    for case in read_case_table(phantom_table):
        ct = read_ct(case.ct)
        masks = read_masks(case.masks, ct.grid, CATALOG, base=phantom_table.parent)
        out.append((ct, with_body(ct, masks)[0]))
    return out


@pytest.fixture(scope="module")
def phantoms(phantom_cases: list[tuple[Volume, LabelVolume]]) -> list[LabelVolume]:
    return [labels for _, labels in phantom_cases]


@pytest.fixture(scope="module")
def good(phantoms: list[LabelVolume]) -> LabelVolume:
    return phantoms[0]


def read(folder: Path, ct_name: str, masks_name: str, vocabulary: str) -> tuple[Volume, LabelVolume]:
    """CT and masks of a real case, with its body."""
    from paxray.io.cases import MaskSource
    from paxray.io.ct import read_ct
    from paxray.segmentation.body import with_body
    from paxray.segmentation.files import read_masks

    ct = read_ct(folder / ct_name)
    source = MaskSource(folder / masks_name, vocabulary, masks_name)
    return ct, with_body(ct, read_masks([source], ct.grid, CATALOG))[0]


@pytest.fixture(scope="module")
def real_case(real_data: Path) -> tuple[Volume, LabelVolume]:
    """The real chest on 2.5 mm voxels."""
    return read(
        real_data / "lidc-idri-0001",
        "ct_2.5mm.nii.gz",
        "totalsegmentator_v2_2.5mm.nii.gz",
        "totalsegmentator_v2+118:costal_cartilages",
    )


@pytest.fixture(scope="module")
def real_chest(real_case: tuple[Volume, LabelVolume]) -> LabelVolume:
    return real_case[1]


def found(
    labels: LabelVolume, catalog: Catalog = CATALOG, ct: Volume | None = None
) -> dict[str, list[Finding]]:
    """Findings by name, without what is true of every phantom."""
    out: dict[str, list[Finding]] = {}
    for finding in find(labels, catalog, ct):
        if finding.name not in ALWAYS:
            out.setdefault(finding.name, []).append(finding)
    SEEN.update(out)
    return out


def only(labels: LabelVolume, name: str) -> Finding:
    """The one finding that there is."""
    out = found(labels)
    assert list(out) == [name], {key: [f.message for f in value] for key, value in out.items()}
    (finding,) = out[name]
    return finding


def twins(labels: LabelVolume) -> list[tuple[str, str]]:
    return [
        (name, CATALOG[name].mirror)
        for name in labels.names
        if name in CATALOG and CATALOG[name].laterality == "left" and CATALOG[name].mirror in labels.names
    ]


def test_right_masks_raise_no_alarm(phantoms: list[LabelVolume]) -> None:
    for labels in phantoms:
        assert found(labels) == {}


def test_the_real_chest_raises_no_alarm(real_chest: LabelVolume) -> None:
    """Its neck is bent and its shoulders tilt; the scan ends below the lungs, and its circle cuts the shoulders."""
    labels = real_chest
    findings = {finding.name: finding for finding in find(labels, CATALOG)}
    assert {finding.severity for finding in findings.values()} == {"note"}
    assert set(findings) == {"cut_by_scan", "body_cut_at_sides"}
    assert {"kidney_left", "vertebrae_C5", "humerus_left"} <= set(findings["cut_by_scan"].classes)
    assert not {"heart", "liver", "trachea", "lung_upper_lobe_left"} & set(findings["cut_by_scan"].classes)
    flipped = {finding.name for finding in find(mirrored(labels), CATALOG)} - set(findings)
    assert flipped == {"flipped_left_right", "heart_on_the_right", "organ_on_other_side"}
    ribs = ("rib_left_1", "rib_left_2")
    (finding,) = (f for f in find(exchanged(labels, ribs), CATALOG) if f.severity == "error")
    assert (finding.name, finding.classes) == ("ribs_out_of_order", ribs)
    spine = ("vertebrae_C6", "vertebrae_C7")
    (finding,) = (f for f in find(exchanged(labels, spine), CATALOG) if f.severity == "error")
    assert (finding.name, finding.classes) == ("vertebrae_out_of_order", spine)


def test_a_scan_of_part_of_the_chest_raises_no_alarm(phantoms: list[LabelVolume]) -> None:
    """Thick and thin slabs, and strips beside the spine: what is cut looks odd, and is not wrong for that."""
    for labels in phantoms:
        nk, _, ni = labels.shape
        boxes = [{"k": slice(k, k + nk // 4)} for k in range(0, nk - nk // 4, 9)]
        boxes += [{"k": slice(0, nk // 2)}, {"k": slice(nk // 2, None)}]
        boxes += [{"i": slice(0, ni // 2 - 5)}, {"i": slice(ni // 2 + 9, None)}]
        for box in boxes:
            graver = [f for f in find(cropped(labels, **box), CATALOG) if f.severity != "note"]
            assert not graver, (box, [f.message for f in graver])


def test_a_side_of_the_real_chest_raises_no_alarm(real_chest: LabelVolume) -> None:
    """Cut along the spine: ribs of the other side, and the rest of the organs, lie beyond the scan."""
    ni = real_chest.shape[2]
    for part in (slice(0, ni // 2), slice(ni // 2, None)):
        graver = [f for f in find(cropped(real_chest, i=part), CATALOG) if f.severity != "note"]
        assert not graver, (part, [f.message for f in graver])


def test_part_of_the_real_chest_raises_no_alarm(real_chest: LabelVolume) -> None:
    for first, last in ((0, 82), (0, 92), (0, 102), (75, 101), (40, 84), (60, 104), (110, 133)):
        graver = [f for f in find(cropped(real_chest, k=slice(first, last)), CATALOG) if f.severity != "note"]
        assert not graver, (first, last, [f.message for f in graver])


def test_a_broken_mask_in_a_real_abdomen(real_data: Path) -> None:
    """TotalSegmentator's quick model drew the pancreas in two, 29 mm apart; nothing else is odd but where it ends."""
    folder = real_data / "totalsegmentator-reference"
    if not folder.is_dir():
        pytest.skip("PAXRAY_REAL_DATA holds no totalsegmentator-reference/")
    _, labels = read(folder, "example_ct_sm.nii.gz", "example_seg_fast.nii.gz", "totalsegmentator_v2")
    graver = [(f.name, f.classes) for f in find(labels, CATALOG) if f.severity != "note"]
    assert graver == [("far_pieces", ("pancreas",))]


def test_how_an_array_is_stored_does_not_matter(good: LabelVolume) -> None:
    for labels in (
        good,
        exchanged(good, ("rib_left_4", "rib_left_7")),
        mirrored(good),
        cropped(good, k=slice(0, -30)),
    ):
        names = [(f.name, f.classes) for f in find(labels, CATALOG)]
        assert [(f.name, f.classes) for f in find(stored_otherwise(labels), CATALOG)] == names


# Order


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), unique=True, max_size=12))
def test_what_is_left_after_the_disorderly_is_in_order(heights: list[float]) -> None:
    wrong = not_in_order(heights)
    kept = [h for n, h in enumerate(heights) if n not in wrong]
    assert kept == sorted(kept, reverse=True)
    assert bool(wrong) == (heights != sorted(heights, reverse=True))


@settings(deadline=None)
@given(st.integers(3, 14), st.data())
def test_two_exchanged_are_the_two_that_are_named(n: int, data: st.DataObject) -> None:
    a = data.draw(st.integers(0, n - 2))
    b = data.draw(st.integers(a + 1, n - 1).filter(lambda b: b != a + 2))
    heights = [float(-m) for m in range(n)]
    heights[a], heights[b] = heights[b], heights[a]
    assert not_in_order(heights) == [a, b]
    if a + 2 < n:
        heights = [float(-m) for m in range(n)]
        heights[a], heights[a + 2] = heights[a + 2], heights[a]
        # The one between is no more in order than they are: any one of the three may stay.
        assert not_in_order(heights) == [a, a + 1, a + 2]


@pytest.mark.parametrize(("a", "b"), [(1, 2), (5, 6), (2, 9), (11, 12)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_exchanged_ribs(good: LabelVolume, side: str, a: int, b: int) -> None:
    pair = (f"rib_{side}_{a}", f"rib_{side}_{b}")
    assert only(exchanged(good, pair), "ribs_out_of_order").classes == pair


def test_exchanged_ribs_without_a_spine(good: LabelVolume) -> None:
    spine = [name for name in good.names if name.startswith("vertebrae_")]
    bare = without(good, spine, Status.UNKNOWN)
    assert found(bare) == {}
    assert only(exchanged(bare, ("rib_left_4", "rib_left_5")), "ribs_out_of_order").classes == (
        "rib_left_4",
        "rib_left_5",
    )


@pytest.mark.parametrize(("a", "b"), [("T5", "T6"), ("T12", "L1"), ("T1", "T9")])
def test_exchanged_vertebrae(good: LabelVolume, a: str, b: str) -> None:
    pair = (f"vertebrae_{a}", f"vertebrae_{b}")
    # Ribs are followed along the spine, whatever it is called: they are in order.
    assert only(exchanged(good, pair), "vertebrae_out_of_order").classes == pair


def test_a_bent_spine_is_in_order() -> None:
    """Centroids on a half circle that ends level with where it began."""
    turn = np.linspace(0, np.pi, 12)
    line = {f"T{n + 1}": np.array([0, -100 * np.sin(a), -100 * np.cos(a)]) for n, a in enumerate(turn[::-1])}
    evidence = object.__new__(Evidence)
    evidence.__dict__["vertebrae"] = line
    assert evidence.spine == list(line)
    down = evidence.along_spine_mm(np.array(list(line.values())))
    step = 200 * np.sin(np.pi / 22)  # the chord
    np.testing.assert_allclose(down, step * np.arange(12), atol=1e-9)
    beyond = line["T1"] + (line["T1"] - line["T2"])
    np.testing.assert_allclose(evidence.along_spine_mm(beyond[None]), [-step], atol=1e-9)


def test_ribs_counted_from_the_wrong_vertebra(good: LabelVolume) -> None:
    ribs = [f"rib_{side}_{n}" for side in ("left", "right") for n in (11, 12)]
    fewer = without(good, ribs, Status.UNKNOWN)
    shifted = renamed(
        fewer, {f"rib_{s}_{n}": f"rib_{s}_{n + 2}" for s in ("left", "right") for n in range(1, 11)}
    )
    finding = only(shifted, "rib_off_its_vertebra")
    assert len(finding.classes) == 20
    assert finding.value == 2
    assert "-2 vertebrae" in finding.message
    assert found(fewer) == {}


# Counts


def test_a_vertebra_missing(good: LabelVolume) -> None:
    assert only(without(good, ["vertebrae_T6"]), "vertebra_missing").classes == ("vertebrae_T6",)
    assert found(without(good, ["vertebrae_T6"], Status.UNKNOWN)) == {}


def test_a_rib_missing(good: LabelVolume) -> None:
    assert only(without(good, ["rib_right_6"]), "rib_missing").classes == ("rib_right_6",)
    assert only(without(good, ["rib_right_12"]), "rib_missing").classes == ("rib_right_12",)
    assert found(without(good, ["rib_right_6"], Status.UNKNOWN)) == {}


def test_eleven_rib_pairs(good: LabelVolume) -> None:
    last = ["rib_left_12", "rib_right_12"]
    finding = only(without(good, last), "rib_pairs")
    assert (finding.value, finding.classes) == (11, tuple(last))
    assert only(without(good, ["vertebrae_T12"]), "rib_pairs").classes == ("vertebrae_T12",)
    assert found(without(good, last, Status.UNKNOWN)) == {}
    # Where the scan ends above, nobody knows.
    level = good.mask("vertebrae_T11").any(axis=(1, 2)).nonzero()[0].min()
    assert "rib_pairs" not in found(cropped(good, k=slice(int(level), None)))


def test_thirteen_rib_pairs(good: LabelVolume) -> None:
    between = good.mask("vertebrae_L1")
    upper = between.copy()
    upper[: int(np.median(between.nonzero()[0])) + 1] = False
    labels = with_mask(good, "vertebrae_T13", upper, Status.PRESENT)
    labels = with_mask(labels, "vertebrae_L1", between & ~upper, Status.PRESENT)
    assert only(labels, "rib_pairs").value == 13


# Sides


def test_masks_flipped_left_to_right(phantoms: list[LabelVolume]) -> None:
    for labels in phantoms:
        out = found(mirrored(labels))
        assert {"flipped_left_right", "heart_on_the_right", "organ_on_other_side"} == set(out)
        (flip,), (heart,) = out["flipped_left_right"], out["heart_on_the_right"]
        exchanged_pairs = [pair for pair in twins(labels) if set(pair) <= set(flip.classes)]
        assert flip.value == len(exchanged_pairs) > flip.limit  # type: ignore[operator]
        assert "lung_middle_lobe_right" in flip.classes  # it has no twin
        assert all(CATALOG[name].laterality for name in flip.classes)  # what `drop_class` drops bears a side
        assert "flipped" in flip.message
        assert "dextrocardia" in heart.message
        assert "flip" in heart.message
        assert "liver" in heart.message
        assert "situs inversus" in heart.message
        assert {f.classes for f in out["organ_on_other_side"]} >= {("liver",), ("spleen",)}


def test_names_of_left_and_right_exchanged(good: LabelVolume) -> None:
    finding = only(exchanged(good, *twins(good)), "flipped_left_right")
    assert "exchanged in the names" in finding.message


def test_one_pair_exchanged(good: LabelVolume) -> None:
    pair = ("clavicula_left", "clavicula_right")
    assert only(exchanged(good, pair), "sides_exchanged").classes == pair


def test_dextrocardia_is_told_from_a_flip(good: LabelVolume) -> None:
    heart = [name for name in good.names if CATALOG.get(name) and CATALOG[name].group == "heart"]
    labels = good
    for name in heart:
        labels = with_mask(labels, name, np.ascontiguousarray(good.mask(name)[:, :, ::-1]), good.status[name])
    assert labels.voxel_counts()["body"]
    finding = found(labels)["heart_on_the_right"][0]
    assert "lie as usual, so the case is not flipped: dextrocardia" in finding.message
    assert "heart_on_the_right" not in found(good)


def test_twins_on_one_side(good: LabelVolume) -> None:
    right = good.mask("clavicula_right")
    labels = with_mask(good, "clavicula_left", moved(right, (0, 0, -4)), Status.PRESENT)
    (finding,) = found(labels)["twins_on_one_side"]
    assert finding.classes == ("clavicula_left",)


def test_a_class_on_the_other_side(good: LabelVolume) -> None:
    alone = without(good, ["clavicula_left"], Status.UNKNOWN)
    assert found(alone) == {}
    assert only(renamed(alone, {"clavicula_right": "clavicula_left"}), "on_other_side").value == 1


# Single classes


def test_volumes_out_of_range(good: LabelVolume) -> None:
    ml = good.grid.voxel_volume_mm3 / 1000
    heart = np.zeros(good.shape, bool)
    at = np.argwhere(good.mask("liver"))
    heart[tuple(at[: int(149 / ml)].T)] = True
    bare = without(good, [n for n in good.names if n.startswith("heart_")], Status.UNKNOWN)
    too_small = found(with_mask(bare, "heart", heart, Status.PRESENT))["volume_out_of_range"]
    assert [(f.classes, f.limit) for f in too_small] == [(("heart",), 150)]
    assert too_small[0].value == pytest.approx(heart.sum() * ml)
    # More of it may lie where its source did not look.
    assert "volume_out_of_range" not in found(with_mask(bare, "heart", heart, Status.PARTIAL))
    large = with_mask(bare, "spleen", good.mask("body") & ~good.mask("trachea"), Status.PRESENT)
    assert ("spleen",) in [f.classes for f in found(large)["volume_out_of_range"]]


def test_bounds_are_of_known_classes_and_wide() -> None:
    from paxray.plausibility.solid import VOLUMES_ML

    for pattern, (low, high) in VOLUMES_ML.items():
        assert any(re.fullmatch(pattern, name) for name in CATALOG), pattern
        assert high >= 5 * low or pattern == "brain"
    assert bounds_ml("rib_left_12") == (0.3, 60)
    assert bounds_ml("rib_left_2") == (2, 100)
    assert bounds_ml("lungs") is None


def test_what_is_judged_by_name_is_in_the_catalog() -> None:
    from paxray.plausibility.solid import _ONE_PIECE

    judged = [name for name in CATALOG if _ONE_PIECE.fullmatch(name)]
    assert {"heart", "rib_left_1", "vertebrae_L5", "spinal_cord", "kidney_right", "hip_left"} <= set(judged)
    for several in ("colon", "ribs", "lungs", "intervertebral_discs", "costal_cartilages", "lung_arteries"):
        assert several in CATALOG
        assert several not in judged


def test_far_pieces(good: LabelVolume) -> None:
    spleen = good.mask("spleen")
    far = spleen | moved(spleen, (0, 0, 40))
    out = found(with_mask(good, "spleen", far, Status.PRESENT))
    assert out["far_pieces"][0].classes == ("spleen",)
    assert out["far_pieces"][0].value == pytest.approx(0.5, abs=0.02)
    near = spleen | moved(spleen, (0, 0, 1))
    assert "far_pieces" not in found(with_mask(good, "spleen", near, Status.PRESENT))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_far_pieces_are_those_of_single_linkage(seed: int, balls: int) -> None:
    """As scipy's own clustering has it, wherever the cells fall."""
    from scipy.cluster.hierarchy import fcluster, linkage

    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(rng.uniform(-60, 60, 3), 6, (12, 3)) for _ in range(balls)])
    cluster = fcluster(linkage(points, "single"), np.nextafter(20.0, 0), "distance")
    expected = np.sort(np.bincount(cluster)[1:])[::-1] / len(points)
    np.testing.assert_allclose(far_shares(points, 20.0), expected)


def test_many_islands_are_compared_with_their_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken mask may be thousands of specks; that they lie far apart is known without asking each two."""
    from scipy.spatial import KDTree

    asked = 0

    class Counted(KDTree):
        def query(self, *args: object, **more: object) -> object:
            nonlocal asked
            asked += 1
            return super().query(*args, **more)

    monkeypatch.setattr("scipy.spatial.KDTree", Counted)
    specks = np.stack(np.meshgrid(*[np.arange(6) * 40.0] * 3), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(far_shares(np.repeat(specks, 2, axis=0), 20.0), 1 / 6**3)
    assert asked == 0
    touching = np.arange(200)[:, None] * [15.0, 0, 0]
    assert far_shares(touching, 20.0).tolist() == [1]
    assert 0 < asked <= 2 * len(touching)


@pytest.mark.parametrize(("share", "is_said"), [(0.06, True), (0.04, False)])
def test_a_second_piece_counts_from_a_twentieth_on(good: LabelVolume, share: float, is_said: bool) -> None:
    spleen = good.mask("spleen")
    second = np.argwhere(moved(spleen, (0, 0, 40)))
    second = second[: round(spleen.sum() * share / (1 - share))]
    assert len(second) * good.grid.voxel_volume_mm3 > 1000
    both = spleen.copy()
    both[tuple(second.T)] = True
    findings = found(with_mask(good, "spleen", both, Status.PRESENT)).get("far_pieces", [])
    assert [(f.classes, f.value) for f in findings] == (
        [(("spleen",), pytest.approx(len(second) / both.sum()))] if is_said else []
    )


def test_contradictory_overlap(good: LabelVolume) -> None:
    lobe, liver = good.mask("lung_lower_lobe_right"), good.mask("liver")
    level = np.sort(lobe.nonzero()[0])
    lower = lobe.copy()
    lower[level[len(level) // 4] :] = False
    finding = only(with_mask(good, "liver", liver | lower, Status.PRESENT), "contradictory_overlap")
    assert set(finding.classes) == {"lung_lower_lobe_right", "liver"}
    assert finding.value == pytest.approx(lower.sum() / min(lobe.sum(), (liver | lower).sum()))
    rim = lobe.copy()
    rim[level[len(level) // 20] :] = False
    assert found(with_mask(good, "liver", liver | rim, Status.PRESENT)) == {}


# Where the scan ends


def test_a_scan_that_ends_within_the_lungs(good: LabelVolume) -> None:
    lung = (
        (good.mask("lung_upper_lobe_left") | good.mask("lung_lower_lobe_left")).any(axis=(1, 2)).nonzero()[0]
    )
    assert good.affine[2, 2] > 0  # slices run upward
    above = found(cropped(good, k=slice(0, int(lung.max()) - 2)))
    assert above["lung_apices_cut"][0].classes == ("lung_left", "lung_right")
    assert "lung_bases_cut" not in above
    below = found(cropped(good, k=slice(int(lung.min()) + 6, None)))
    assert "lung_left" in below["lung_bases_cut"][0].classes
    assert "lung_apices_cut" not in below
    middle = find(cropped(good, k=slice(int(lung.min()) + 6, int(lung.max()) - 2)), CATALOG)
    (cut,) = (f for f in middle if f.name == "cut_by_scan")
    assert {"lung_upper_lobe_left", "lung_lower_lobe_left", "aorta"} <= set(cut.classes)
    assert "heart" not in cut.classes or good.mask("heart")[int(lung.min()) + 6].any()
    assert {f.severity for f in middle} == {"note"}  # nothing is called wrong for being cut


def test_a_body_cut_at_its_sides(good: LabelVolume) -> None:
    body = good.mask("body").any(axis=(0, 1)).nonzero()[0]
    narrow = cropped(good, i=slice(int(body.min()) + 4, None))
    (finding,) = found(narrow)["body_cut_at_sides"]
    inside = narrow.mask("body")
    share = inside[:, :, 0].any(axis=1).sum() / inside.any(axis=(1, 2)).sum()
    assert finding.value == pytest.approx(share)
    # The same, told from what was not reconstructed.
    unscanned = np.zeros(good.shape, bool)
    unscanned[:, :, : int(body.min()) + 4] = True
    circle = with_mask(good, "body", good.mask("body") & ~unscanned, Status.PRESENT)
    circle = with_mask(circle, "unscanned", unscanned, Status.PRESENT)
    assert found(circle)["body_cut_at_sides"][0].value == pytest.approx(share)


# Against the CT


def turned(ct: Volume, step_kji: tuple[int, int, int] = (1, 1, -1)) -> Volume:
    """The voxels reversed along axes in place: the header stays."""
    return replace(ct, array=np.ascontiguousarray(ct.array[tuple(slice(None, None, s) for s in step_kji)]))


def mask_of(labels: LabelVolume, name: str) -> np.ndarray:
    """Of a class, or of what it is the union of."""
    return derive(labels, CATALOG, None, [name]).mask(name)


def test_masks_that_fit_their_ct_raise_no_alarm(phantom_cases: list[tuple[Volume, LabelVolume]]) -> None:
    for ct, labels in phantom_cases:
        assert found(labels, ct=ct) == {}


def test_real_masks_fit_their_ct(real_case: tuple[Volume, LabelVolume], real_data: Path) -> None:
    ct, labels = real_case
    assert {f.name for f in find(labels, CATALOG, ct)} == {"cut_by_scan", "body_cut_at_sides"}
    (off,) = (f for f in find(labels, CATALOG, turned(ct)) if f.severity != "note")
    assert off.name == "masks_off_the_ct"
    assert {"trachea", "heart", "aorta", "ribs"} <= set(off.classes)
    assert not judge_at_a_glance(labels, CATALOG, ct)
    assert [f.name for f in judge_at_a_glance(labels, CATALOG, turned(ct))] == ["masks_off_the_ct"]


@pytest.mark.parametrize("folder", ["totalsegmentator-reference"])
def test_a_real_abdomen_fits_its_ct_and_not_its_mirror_image(real_data: Path, folder: str) -> None:
    if not (real_data / folder).is_dir():
        pytest.skip(f"PAXRAY_REAL_DATA holds no {folder}/")
    ct, labels = read(
        real_data / folder, "example_ct_sm.nii.gz", "example_seg_fast.nii.gz", "totalsegmentator_v2"
    )
    of_density = {"masks_off_the_ct", "hu_out_of_range"}
    assert not of_density & {f.name for f in find(labels, CATALOG, ct)}
    assert "masks_off_the_ct" in {f.name for f in find(labels, CATALOG, turned(ct))}
    assert not judge_at_a_glance(labels, CATALOG, ct)
    assert judge_at_a_glance(labels, CATALOG, turned(ct))


def test_a_ct_mirrored_or_moved_against_its_masks(phantom_cases: list[tuple[Volume, LabelVolume]]) -> None:
    """Phantoms are built about a midline; heart, aorta and liver tell their mirror image."""
    for ct, labels in phantom_cases:
        assert not judge_at_a_glance(labels, CATALOG, ct)
        wrong = [turned(ct), turned(ct, (-1, 1, 1)), turned(ct, (1, -1, 1)), turned(ct, (-1, -1, -1))]
        wrong += [replace(ct, array=np.roll(ct.array, by // 5, axis=0)) for by in (-80, 80)]
        for other in wrong:
            out = found(labels, ct=other)
            assert list(out) == ["masks_off_the_ct"]
            (finding,) = out["masks_off_the_ct"]
            assert finding.value is not None
            assert finding.limit is not None
            assert finding.value > finding.limit
            (glanced,) = judge_at_a_glance(labels, CATALOG, other)
            assert glanced.name == "masks_off_the_ct"
        with pytest.raises(CaseError, match="masks_off_the_ct") as caught:
            judge(labels, CATALOG, {}, turned(ct))
        assert "plausibility.masks_off_the_ct: warn" in caught.value.do


@pytest.mark.parametrize("both", [False, True])
def test_contrast_does_not_matter(phantom_cases: list[tuple[Volume, LabelVolume]], both: bool) -> None:
    ct, labels = phantom_cases[0]
    hu = ct.array.copy()
    for name, to in ({"aorta": 400, "heart": 300} | ({"liver": 150} if both else {})).items():
        hu[mask_of(labels, name) & (hu > 0)] = to
    assert found(labels, ct=replace(ct, array=hu)) == {}


def test_one_tissue_of_another_density_is_a_warning(
    phantom_cases: list[tuple[Volume, LabelVolume]],
) -> None:
    """By the share that the table allows, and by that alone."""
    ct, labels = phantom_cases[0]
    for name, tissue in TISSUES.items():
        inside = np.logical_or.reduce([mask_of(labels, each) for each in tissue.classes])
        rng = np.random.default_rng(3)
        for share, wrong in ((tissue.share * 0.6, False), (min(1.0, tissue.share * 1.6), True)):
            hu = ct.array.copy()
            hu[inside] = -900 if tissue.air else 50
            changed = inside & (rng.random(hu.shape) < share)
            hu[changed] = 50 if tissue.air else -800
            out = found(labels, ct=replace(ct, array=hu))
            if not wrong:
                assert out == {}, name
                continue
            assert list(out) == ["hu_out_of_range"]
            (finding,) = out["hu_out_of_range"]
            assert finding.classes == tissue.classes
            assert finding.value == pytest.approx(changed.sum() / inside.sum(), abs=0.02)
            assert finding.limit == tissue.share


def test_what_was_not_reconstructed_has_no_density(phantom_cases: list[tuple[Volume, LabelVolume]]) -> None:
    ct, labels = phantom_cases[0]
    beyond = np.zeros(labels.shape, bool)
    beyond[:, :, : labels.shape[2] // 2] = True
    hu = np.where(beyond, -1024, ct.array).astype(ct.array.dtype)
    assert "masks_off_the_ct" in found(labels, ct=replace(ct, array=hu))
    known = with_mask(labels, "unscanned", beyond, Status.PRESENT)
    assert not {"masks_off_the_ct", "hu_out_of_range"} & set(found(known, ct=replace(ct, array=hu)))


# What follows


def test_a_class_is_dropped_with_its_parts_and_what_needs_it(good: LabelVolume) -> None:
    pair = ("rib_left_4", "rib_left_5")
    labels = exchanged(good, pair)
    verdict = judge(labels, CATALOG, {"ribs_out_of_order": "drop_class"})
    assert not set(pair) & set(verdict.labels.names)
    assert set(verdict.withheld) >= {*pair, "rib_left_4_anterior", "rib_left_5_posterior"}
    names = ["ribs", *pair, "rib_left_4_anterior", "rib_left_6_anterior"]
    derived = derive(verdict.labels, CATALOG, None, names, withheld=verdict.withheld)
    derived = explain(derived, CATALOG, verdict.withheld)
    for name in (*pair, "rib_left_4_anterior"):
        assert derived.status[name] is Status.UNKNOWN
        assert derived.notes[name].startswith("dropped for a finding (ribs_out_of_order): 2 left ribs")
        assert not derived.mask(name).any()
    assert derived.status["ribs"] is Status.PARTIAL
    assert derived.notes["ribs"] == "without rib_left_4, rib_left_5: dropped for a finding"
    assert not (derived.mask("ribs") & labels.mask("rib_left_4")).any()
    assert derived.status["rib_left_6_anterior"] is Status.PRESENT


def test_a_recipe_that_needs_a_dropped_class_says_so(good: LabelVolume) -> None:
    labels = exchanged(good, ("vertebrae_T4", "vertebrae_T9"))
    verdict = judge(labels, CATALOG, {})
    derived = derive(verdict.labels, CATALOG, None, ["mediastinum_upper"], withheld=verdict.withheld)
    dropped = "'vertebrae_T4' was dropped for a finding (vertebrae_out_of_order)"
    assert derived.status["mediastinum_upper"] is Status.UNKNOWN
    assert dropped in derived.notes["mediastinum_upper"]


def test_a_dropped_class_is_not_made_again_by_its_recipe(good: LabelVolume) -> None:
    """The heart's own recipe or parts must not bring back what was dropped."""
    for name in ("heart", "lung_left"):
        below = {name, *CATALOG.leaves(name)}
        kept = without(good, [n for n in good.names if n in below], Status.UNKNOWN)
        derived = derive(kept, CATALOG, None, [name], withheld=dict.fromkeys(below, "dropped"))
        assert derived.status[name] is Status.UNKNOWN


def test_a_case_is_dropped_in_the_findings_words(good: LabelVolume) -> None:
    with pytest.raises(
        CaseError, match=r"flipped_left_right.*\n.*pairs of twins lie on each other's sides"
    ) as caught:
        judge(mirrored(good), CATALOG, {})
    assert caught.value.code == "implausible"
    assert "plausibility.flipped_left_right: warn" in caught.value.do


def test_what_is_ignored_or_warned_of_drops_nothing(good: LabelVolume) -> None:
    wrong = mirrored(good)
    warned = judge(wrong, CATALOG, dict.fromkeys(RULES, "warn"))
    assert warned.labels is wrong
    assert {action for _, action in warned.findings} == {"warn"}
    ignored = judge(wrong, CATALOG, dict.fromkeys(RULES, "ignore"))
    assert (ignored.labels, ignored.findings, dict(ignored.withheld)) == (wrong, (), {})


def test_nothing_to_judge(good: LabelVolume) -> None:
    """A CT without masks: its body alone."""
    bare = without(good, [name for name in good.names if name != "body"], Status.UNKNOWN)
    assert find(bare, CATALOG) == ()
    assert find(replace(bare, atoms=np.zeros_like(bare.atoms)), CATALOG) == ()


def test_every_kind_of_finding_was_made_here() -> None:
    """Runs last: each rule has a case above in which it speaks."""
    if len(SEEN) < len(RULES) - len(ALWAYS):
        pytest.skip(f"run with the whole file; unseen so far: {sorted(RULES.keys() - ALWAYS - SEEN)}")
    assert RULES.keys() - ALWAYS == SEEN


def test_vertebrae_of_the_catalog_are_those_of_the_spine() -> None:
    assert {name for name in CATALOG if re.fullmatch(r"vertebrae_[CTL]\d+", name)} == {
        f"vertebrae_{level}" for level in SPINE
    }
