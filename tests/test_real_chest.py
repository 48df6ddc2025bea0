"""The whole way on a real chest at full resolution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from paxray import api
from paxray.config import load_pipeline
from paxray.dataset.rle import decode_mask
from paxray.dataset.verify import verify
from paxray.export.coco import export_coco

pytestmark = pytest.mark.real
PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture(scope="module", params=["chest", "paxray"])
def dataset(
    request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Cone beam and parallel, both views, all classes; label 118 named in one line."""
    root = tmp_path_factory.mktemp(request.param)
    folder = real_data / "lidc-idri-0001"
    (root / "cases.csv").write_text(
        "case_id,patient_id,ct,masks,vocabulary,source,license\n"
        f"lidc-1,LIDC-IDRI-0001,{folder / 'ct.nii.gz'},{folder / 'totalsegmentator_v2.nii.gz'},"
        "totalsegmentator_v2,LIDC-IDRI,CC BY 3.0\n"
    )
    override = "labels.vocabularies.totalsegmentator_v2={118: costal_cartilages}"
    pipeline = load_pipeline(PIPELINES / f"{request.param}.yaml", [override])
    result = api.build(pipeline, root / "cases.csv", root / "dataset", workers=1)
    assert result.cases == {"ok": 1}
    return root / "dataset"


def test_without_the_line_the_case_fails_and_says_what_to_write(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "lidc-idri-0001"
    (tmp_path / "cases.csv").write_text(
        "case_id,ct,masks,vocabulary\n"
        f"a,{folder / 'ct_2.5mm.nii.gz'},{folder / 'totalsegmentator_v2_2.5mm.nii.gz'},totalsegmentator_v2\n"
    )
    result = api.build(PIPELINES / "chest.yaml", tmp_path / "cases.csv", tmp_path / "out")
    (record,) = result.failed
    assert record.code == "unknown_label"
    assert "totalsegmentator_v2+118:costal_cartilages" in record.message


def test_classes_and_sides(dataset: Path) -> None:
    samples = {sample.view.name: sample for sample in api.load(dataset)}
    assert set(samples) == {"pa", "lateral_left"}
    for sample in samples.values():
        assert sample.size == (512, 512)
        seen = sample.facts[sample.facts["area_px"].fillna(0) > 0]
        assert len(seen) >= 130
        assert (sample.facts["status"] == "unknown").sum() > 20
        assert sample.facts.loc["brain", "status"] == "absent"
    x = samples["pa"].facts["centroid_px"].dropna().str[0]
    assert x["lung_right"] < x["spine"] < x["lung_left"], "the right side is on image left"
    assert x["heart"] > x["spine"], "the heart is on the patient's left"
    assert x["liver"] < x["stomach"]
    for number in range(1, 13):
        assert x[f"rib_right_{number}"] < x[f"rib_left_{number}"]
    side = samples["lateral_left"].facts["centroid_px"]
    assert side["sternum"][0] < side["heart"][0] < side["spine"][0], "the chest is on image left"
    assert side["lungs"][1] < side["liver"][1]


def test_costophrenic_angles_lie_beside_the_domes(dataset: Path) -> None:
    """The lowest lung of each side is lateral, beyond the top of the liver or the stomach."""
    (sample,) = [s for s in api.load(dataset) if s.view.name == "pa"]
    for side, outward in (("right", -1), ("left", 1)):
        v, u = np.nonzero(sample.masks[f"lung_{side}"])
        middle = sample.facts.loc["spine", "centroid_px"][0]
        outer = np.abs(u - middle) > 0.6 * np.abs(u - middle).max()
        assert v[outer].max() > np.median(v)
        assert np.sign(np.mean(u[outer]) - middle) == outward


def test_children_lie_inside_their_parents(dataset: Path) -> None:
    assert verify(dataset, deep=True).findings == ()


def test_incomplete_rays_are_about_a_tenth(dataset: Path) -> None:
    for sample in api.load(dataset):
        share = sample.row["incomplete_px"] / sample.row["body_px"]
        assert 0.001 < share < 0.4


def test_coco_is_what_is_stored(dataset: Path) -> None:
    """pycocotools and faster-coco-eval; predictions copied from the truth score 1."""
    import contextlib
    import io

    from faster_coco_eval import COCO as FAST_COCO
    from faster_coco_eval import COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data = api.load(dataset)
    result = export_coco(data)
    (file,) = result.files
    content = json.loads(file.read_text())
    predictions = [
        {k: a[k] for k in ("image_id", "category_id", "segmentation", "bbox")} | {"score": 0.9}
        for a in content["annotations"]
    ]
    images = {image["id"]: image["sample_id"] for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    samples = {sample.id: sample for sample in data}
    for annotation in content["annotations"]:
        stored = samples[images[annotation["image_id"]]].masks[names[annotation["category_id"]]]
        size = annotation["segmentation"]["size"]
        np.testing.assert_array_equal(decode_mask(annotation["segmentation"]["counts"], tuple(size)), stored)
        assert annotation["area"] == stored.sum()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        score = COCOeval(truth, truth.loadRes(predictions), "segm")
        fast_truth = FAST_COCO(str(file))
        fast = COCOeval_faster(fast_truth, fast_truth.loadRes(predictions), "segm")
        for one in (score, fast):
            one.evaluate()
            one.accumulate()
            one.summarize()
    assert score.stats[0] == pytest.approx(1.0)
    assert fast.stats[0] == pytest.approx(1.0)


def test_reversed_rows_are_accepted_and_7_mm_refused(real_data: Path, tmp_path: Path) -> None:
    import nibabel as nib

    from paxray.errors import CaseError

    folder = real_data / "totalsegmentator-reference"
    ct = api.read_ct(folder / "example_ct_dicom")
    labels = api.read_masks(f"{folder / 'example_seg_dicom.nii.gz'}=totalsegmentator_v2", ct)
    assert sum(n > 0 for n in labels.voxel_counts().values()) > 10
    bone = labels.mask("vertebrae_L1") if labels.voxel_counts()["vertebrae_L1"] else labels.atoms > 0
    assert ct.array[bone].mean() > ct.array[labels.atoms == 0].mean()
    image = nib.load(folder / "example_seg_dicom.nii.gz")
    affine = image.affine.copy()
    affine[:3, 3] += [7.0, 0, 0]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine, image.header), tmp_path / "off.nii.gz")
    with pytest.raises(CaseError) as caught:
        api.read_masks(f"{tmp_path / 'off.nii.gz'}=totalsegmentator_v2", ct)
    assert caught.value.code == "mask_mismatch"
    assert "mm" in str(caught.value)


def test_landmarks_and_measures_are_an_adults(dataset: Path) -> None:
    """Broad ranges of adults lying down, and the order of things in the chest."""
    ranges = {
        "cardiothoracic_ratio": (0.35, 0.65),
        "lung_height_left": (110, 260),
        "lung_height_right": (110, 260),
        "kyphosis_angle": (10, 70),
        "spine_centre_distance": (0, 10),
        "carinal_angle": (40, 100),
        "aortic_width": (15, 50),
    }
    for sample in api.load(dataset):
        measures, points = sample.measures, sample.landmarks
        expected = set(ranges) - ({"cardiothoracic_ratio"} if sample.view.name != "pa" else set())
        assert set(measures.index) == expected
        for name, row in measures.iterrows():
            # TotalSegmentator's trachea ends soon after it divides.
            expected_status = "partial" if name == "carinal_angle" else "present"
            assert row["status"] == expected_status, name
            assert ranges[name][0] < row["value"] < ranges[name][1], name
        at = points["position_mm"]
        spine = [at[f"vertebra_T{n}"][2] for n in range(1, 13)]
        assert spine == sorted(spine, reverse=True)
        assert at["lung_apex_right"][0] < at["carina"][0] < at["aortic_knob"][0] < at["lung_apex_left"][0]
        assert spine[3] > at["carina"][2] > spine[7]
        for side in ("left", "right"):
            heights = [
                at[f"{name}_{side}"][2] for name in ("lung_apex", "hemidiaphragm_dome", "costophrenic_angle")
            ]
            assert heights == sorted(heights, reverse=True)
        assert points.loc["vertebra_L3", "status"] == "cut"
        assert points.loc["vertebra_C1", "status"] == "absent"
        found = points[points["in_field"]]
        pixels = sample.view.project_points(np.stack(found["position_mm"].tolist()))
        np.testing.assert_allclose(np.stack(found["pixel"].tolist()), pixels, atol=1e-6)


def test_facts_of_classes_are_plausible(dataset: Path) -> None:
    for sample in api.load(dataset):
        facts = sample.facts
        assert -900 < facts.loc["lung_left", "hu_mean"] < -700
        assert 0 < facts.loc["liver", "hu_mean"] < 150
        seen = facts[facts["area_px"].fillna(0) > 0]
        of_film = seen["volume_mm3"].isna()  # made of masks, view by view
        assert set(seen.index[of_film]) == {"lungs_visible", "lung_left_visible", "lung_right_visible"}
        for name in ("lungs", "lung_left", "lung_right"):
            assert seen.loc[f"{name}_visible", "area_px"] < seen.loc[name, "area_px"]
        seen = seen[~of_film]
        assert seen["unhidden_share"].between(0, 1).all()
        assert seen.loc["lung_left", "unhidden_share"] < seen.loc["heart", "unhidden_share"]
        # No solid has less surface than a ball of its volume; 6 % are the estimate's.
        ball = np.cbrt(36 * np.pi * seen["volume_mm3"] ** 2)
        whole = ~seen["cut_by_ct"].astype(bool)
        assert (seen["surface_mm2"][whole] > 0.94 * ball[whole]).all()
