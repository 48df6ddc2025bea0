"""Lesions one by one: from a mask file with ids to data set, reader, verification and COCO."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paxray import api
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import Status
from paxray.anatomy.recipes.engine import derive
from paxray.config import Pipeline, parse_pipeline
from paxray.dataset.rle import decode_mask
from paxray.dataset.verify import verify
from paxray.errors import CaseError, ConfigError
from paxray.export.coco import export_coco
from paxray.io.cases import MaskSource, read_case_table, write_case_table
from paxray.io.volume import Volume
from paxray.phantom.write import write_nifti
from paxray.segmentation.instances import with_lesions

SMALL = {"views": ["pa", "lateral_left"], "geometry": {"rows": 128, "columns": 112}}


def add_lesions(folder: Path, *, told: dict | None = None, ids: tuple[int, ...] = (3, 7)) -> Path:
    """Two lesions in the lungs of a phantom, a large one and a small one."""
    ct = api.read_ct(folder / "ct.nii.gz")
    lungs = api.derive(api.read_masks(f"{folder / 'labels.nii.gz'}=phantom", ct)).mask("lungs")
    array = np.zeros(ct.shape, np.uint16)
    k, j, i = np.argwhere(lungs)[len(np.argwhere(lungs)) // 3]
    array[k : k + 3, j : j + 3, i : i + 4] = ids[0]
    k, j, i = np.argwhere(lungs)[2 * len(np.argwhere(lungs)) // 3]
    array[k, j, i : i + 2] = ids[1]
    write_nifti(folder / "nodules.nii.gz", Volume(array, ct.affine))
    if told is not None:
        (folder / "nodules.json").write_text(json.dumps(told))
    return folder / "nodules.nii.gz"


@pytest.fixture(scope="module")
def table(phantom_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom with two lesions, of which one has a station."""
    root = tmp_path_factory.mktemp("lesions")
    row = phantom_table.read_text().splitlines()[1].split(",")
    shutil.copytree(phantom_table.parent / row[0], root / "case")
    add_lesions(root / "case", told={"7": {"class": "lymph node", "station": "4r"}})
    (root / "cases.csv").write_text(
        "case_id,ct,masks,vocabulary,instances\n"
        "a,case/ct.nii.gz,case/labels.nii.gz,phantom,case/nodules.nii.gz=lung_nodules\n"
    )
    return root / "cases.csv"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return parse_pipeline({"name": "lesions", **SMALL})


@pytest.fixture(scope="module")
def dataset(table: Path, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "dataset"
    assert not api.build(pipeline, table, root).failed
    return root


def test_rows(dataset: Path) -> None:
    for sample in api.load(dataset):
        rows = sample.instances
        assert sorted(rows.index) == [("lung_nodules", 3), ("lymph_nodes", 7)]
        large, small = rows.loc[("lung_nodules", 3)], rows.loc[("lymph_nodes", 7)]
        assert not isinstance(large["station"], str)
        assert small["station"] == "4R"
        assert large["volume_mm3"] == pytest.approx(36 * 125)
        # 20 x 15 mm in the slice: hull without its corners' halves.
        assert 20 <= large["long_axis_mm"] <= 25
        assert 12 <= large["short_axis_mm"] <= 20
        assert (small["long_axis_mm"], small["short_axis_mm"]) == pytest.approx((10, 5))
        assert large["view_status"] == "whole"
        assert 0 <= large["unhidden_share"] <= 1
        mask = sample.instance_mask("lung_nodules", 3)
        assert mask.sum() == large["area_px"]
        column, row = sample.view.project_points(large["centroid_mm"])
        np.testing.assert_allclose(large["centroid_px"], [column, row], atol=1.0)
        with pytest.raises(KeyError):
            sample.instance_mask("lung_nodules", 4)


def test_their_class_is_all_of_them(dataset: Path) -> None:
    for sample in api.load(dataset):
        np.testing.assert_array_equal(sample.masks["lung_nodules"], sample.instance_mask("lung_nodules", 3))
        assert sample.facts.loc["lung_nodules", "status"] == "present"
        assert sample.facts.loc["fractures", "status"] == "unknown"
        assert not [name for name in sample.masks if "#" in name]


def test_verified_and_damage_found(dataset: Path, tmp_path: Path) -> None:
    assert verify(dataset, deep=True).findings == ()
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    (file,) = (copy / "instances").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    assert [f.file for f in verify(copy).findings] == [f"instances/{file.name}"]


def test_coco_has_one_annotation_each(dataset: Path, tmp_path: Path) -> None:
    result = export_coco(api.load(dataset), tmp_path / "coco")
    content = json.loads(result.files[0].read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    samples = {s.id: s for s in api.load(dataset)}
    for image in content["images"]:
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        lesions = {(names[a["category_id"]], a["instance_id"]): a for a in mine if "instance_id" in a}
        assert sorted(lesions) == [("lung_nodules", 3), ("lymph_nodes", 7)]
        assert sum(names[a["category_id"]] == "lung_nodules" for a in mine) == 1
        for (name, number), annotation in lesions.items():
            mask = decode_mask(
                annotation["segmentation"]["counts"], tuple(annotation["segmentation"]["size"])
            )
            np.testing.assert_array_equal(mask, samples[image["sample_id"]].instance_mask(name, number))
            assert annotation["area"] == mask.sum()
        assert lesions["lymph_nodes", 7]["station"] == "4R"


def test_hugging_face_reads_them(dataset: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(dataset), "instances", cache_dir=str(tmp_path))
    assert sum(len(split) for split in loaded.values()) == 4


def test_what_is_said_of_a_lesion_counts_as_input(
    table: Path, pipeline: Pipeline, dataset: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(table.parent, tmp_path / "inputs"))
    out = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    assert api.build(pipeline, copy / "cases.csv", out).made == 0
    (copy / "case" / "nodules.json").write_text(json.dumps({"7": {"class": "lymph_nodes", "station": "7"}}))
    with pytest.raises(ConfigError, match=r"other content in nodules\.json"):
        api.build(pipeline, copy / "cases.csv", out)
    assert api.build(pipeline, copy / "cases.csv", out, update=True).made == 1
    assert api.load(out)[0].instances.loc[("lymph_nodes", 7), "station"] == "7"


def test_classes_that_are_not_put_out_bring_no_lesions(table: Path, tmp_path: Path) -> None:
    only = parse_pipeline({"name": "x", **SMALL, "labels": {"classes": ["lung_nodules"]}})
    assert not api.build(only, table, tmp_path / "out").failed
    sample = api.load(tmp_path / "out")[0]
    assert list(sample.instances.index) == [("lung_nodules", 3)]
    assert sample.measures.loc["cardiothoracic_ratio", "status"] == "present", (
        "measured on what is not put out"
    )


@pytest.mark.parametrize(
    ("told", "cell", "code", "words"),
    [
        ({"9": {"station": "4R"}}, "=lung_nodules", "bad_instances", "id 9"),
        ({"3": {"station": "15R"}}, "=lung_nodules", "bad_instances", "IASLC"),
        ({"3": {"sttion": "4R"}}, "=lung_nodules", "bad_instances", "sttion"),
        (["3"], "=lung_nodules", "bad_instances", "map ids"),
        ({"three": {}}, "=lung_nodules", "bad_instances", "not an id"),
        ({"3": {"class": "lung_nodule"}}, "", "bad_instances", "id 7"),
        (None, "=lung_nodls", "unknown_class", "did you mean"),
    ],
)
def test_what_is_wrong_is_named(
    table: Path, pipeline: Pipeline, tmp_path: Path, told: object, cell: str, code: str, words: str
) -> None:
    shutil.copytree(table.parent / "case", tmp_path / "case")
    (tmp_path / "case" / "nodules.json").unlink()
    if told is not None:
        (tmp_path / "case" / "nodules.json").write_text(json.dumps(told))
    (tmp_path / "cases.csv").write_text(
        "case_id,ct,masks,vocabulary,instances\n"
        f"a,case/ct.nii.gz,case/labels.nii.gz,phantom,case/nodules.nii.gz{cell}\n"
    )
    (record,) = api.build(pipeline, tmp_path / "cases.csv", tmp_path / "out").failed
    assert record.code == code
    assert words in record.message


def test_one_id_twice(table: Path) -> None:
    (case,) = read_case_table(table)
    ct = api.read_ct(case.ct)
    labels = api.read_masks(f"{case.masks[0].path}=phantom", ct)
    with pytest.raises(CaseError, match="used twice"):
        with_lesions(labels, case.instances * 2, load_catalog())


def files_of(folder: Path, parts: list[tuple[slice, dict[int, tuple[int, int, int]]]]) -> list[MaskSource]:
    """Instance files that cover some planes each; ids are single voxels."""
    sources = []
    for n, (planes, ids) in enumerate(parts):
        array = np.zeros((12, 8, 8), np.uint8)
        for number, at in ids.items():
            array[at] = number
        affine = np.eye(4)
        affine[2, 3] = planes.start
        write_nifti(folder / f"{n}.nii.gz", Volume(array[planes], affine))
        sources.append(MaskSource(folder / f"{n}.nii.gz", "lung_nodules", f"{n}.nii.gz"))
    return sources


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([(slice(0, 6), {1: (2, 2, 2)})], "partial"),
        ([(slice(0, 6), {1: (2, 2, 2)}), (slice(6, 12), {2: (8, 2, 2)})], "present"),
        ([(slice(0, 8), {1: (2, 2, 2)}), (slice(5, 12), {})], "present"),
        ([(slice(0, 5), {1: (2, 2, 2)}), (slice(6, 12), {2: (8, 2, 2)})], "partial"),
        ([(slice(0, 6), {}), (slice(6, 12), {})], "absent"),
        ([(slice(0, 6), {}), (slice(7, 12), {})], "unknown"),
    ],
)
def test_several_files_look_where_any_of_them_does(tmp_path: Path, parts: list[Any], status: str) -> None:
    empty = LabelBuilder((12, 8, 8)).finish(np.eye(4), load_catalog())
    labels, lesions = with_lesions(empty, files_of(tmp_path, parts), load_catalog())
    assert labels.status["lung_nodules"].value == status
    assert [lesion.number for lesion in lesions] == sorted(n for _, ids in parts for n in ids)


@pytest.mark.parametrize(("drawn", "added", "beside"), [(8, 1, 8), (1, 0, 0), (0, 1, 0)])
def test_a_class_drawn_otherwise_than_its_lesions(
    tmp_path: Path, drawn: int, added: int, beside: int
) -> None:
    """What its mask source left out is added and counted; what is no lesion stays, and is said."""
    mask = np.zeros((12, 8, 8), bool)
    mask[(2, 2, slice(0, 8)) if drawn > 1 else (3, 3, slice(3, 3 + drawn))] = True
    builder = LabelBuilder(mask.shape)
    builder.add_mask("lung_nodules", tuple(slice(0, n) for n in mask.shape), mask)
    before = builder.finish(np.eye(4), load_catalog())
    sources = files_of(tmp_path, [(slice(0, 12), {5: (3, 3, 3)})])
    labels, (lesion,) = with_lesions(before, sources, load_catalog())
    assert labels.added_voxels["lung_nodules"] == added
    assert (labels.mask(lesion.column) <= labels.mask("lung_nodules")).all()
    assert labels.voxel_counts()["lung_nodules"] == drawn + added
    assert labels.status["lung_nodules"] is Status.PRESENT
    assert (f"({beside} voxels)" in labels.notes.get("lung_nodules", "")) == bool(beside)
    derived = derive(labels, load_catalog())
    assert derived.added_voxels["lung_nodules"] == added


def test_a_file_without_ids_means_absent(table: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(table.parent / "case", tmp_path / "case")
    (tmp_path / "case" / "nodules.json").unlink()
    ct = api.read_ct(tmp_path / "case" / "ct.nii.gz")
    write_nifti(tmp_path / "case" / "nodules.nii.gz", Volume(np.zeros(ct.shape, np.uint16), ct.affine))
    shutil.copy(table, tmp_path / "cases.csv")
    assert not api.build(pipeline, tmp_path / "cases.csv", tmp_path / "out").failed
    sample = api.load(tmp_path / "out")[0]
    assert len(sample.instances) == 0
    assert sample.facts.loc["lung_nodules", "status"] == "absent"


def test_the_case_table_keeps_them(table: Path, tmp_path: Path) -> None:
    cases = read_case_table(table)
    write_case_table(table.parent / "again.csv", cases)
    assert [case.instances for case in read_case_table(table.parent / "again.csv")] == [cases[0].instances]
    assert cases[0].instances[0].vocabulary == "lung_nodules"
    (tmp_path / "t.csv").write_text("case_id,ct,instances\na,ct.nii.gz,=lung_nodules\n")
    with pytest.raises(ConfigError, match="instances are not fully named"):
        read_case_table(tmp_path / "t.csv")
