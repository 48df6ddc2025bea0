"""Classes of the film: made view by view from the masks, from catalog to COCO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import paxray
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.check import check_catalog
from paxray.anatomy.film import Film, film_status
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.reach import reachable
from paxray.anatomy.recipes.engine import derive
from paxray.api import build, load
from paxray.config import Pipeline, parse_pipeline
from paxray.errors import ConfigError
from paxray.export.coco import export_coco
from paxray.filmed import film_columns
from paxray.preview import preview
from paxray.projection.project import Projection
from paxray.projection.view import View
from paxray.projection.want import pack

HIDERS = ("heart", "subdiaphragm_domes", "spine")


def test_the_visible_lung_is_the_lung_without_what_hides_it(built: Path) -> None:
    for sample in load(built):
        hidden = np.logical_or.reduce([sample.masks[name] for name in HIDERS])
        for name in ("lungs", "lung_left", "lung_right"):
            film = sample.masks[f"{name}_visible"]
            np.testing.assert_array_equal(film, sample.masks[name] & ~hidden)
            assert 0 < film.sum() < sample.masks[name].sum()
            facts, whole = sample.facts.loc[f"{name}_visible"], sample.facts.loc[name]
            inputs = {sample.facts.loc[of, "status"] for of in (name, *HIDERS)}
            assert facts["status"] == ("partial" if "partial" in inputs else "present")
            assert (facts["view_status"], facts["cut_by_ct"]) == (whole["view_status"], whole["cut_by_ct"])
            assert facts["area_px"] == film.sum()
            assert facts["area_mm2"] == pytest.approx(film.sum() * sample.view.pixel_area_mm2)
            v, u = np.nonzero(film)
            np.testing.assert_allclose(facts["centroid_px"], [u.mean(), v.mean()])
            assert np.isnan([facts["volume_mm3"], facts["path_mean_mm"], facts["entry_mean_mm"]]).all()


def test_it_reaches_coco(built: Path, tmp_path: Path) -> None:
    content = json.loads(export_coco(load(built), tmp_path / "coco").files[0].read_text())
    (category,) = (c["id"] for c in content["categories"] if c["name"] == "lungs_visible")
    mine = [a for a in content["annotations"] if a["category_id"] == category]
    assert len(mine) == len(content["images"])
    assert all(a["volume_mm3"] is None and a["area"] > 0 for a in mine)


def test_what_it_is_made_from_need_not_be_put_out(
    tmp_path: Path, built: Path, phantom_table: Path, small_pipeline: Pipeline
) -> None:
    pipeline = parse_pipeline(small_pipeline.effective() | {"labels": {"classes": ["visible lungs"]}})
    assert not build(pipeline, phantom_table, tmp_path / "out").failed
    for sample in load(tmp_path / "out"):
        assert list(sample.facts.index) == ["lungs_visible"]
        np.testing.assert_array_equal(
            sample.masks["lungs_visible"], load(built)[sample.id].masks["lungs_visible"]
        )


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"a": "present", "b": "present"}, "present"),
        ({"a": "present", "b": "absent"}, "present"),
        ({"a": "present", "b": "partial"}, "partial"),
        ({"a": "partial", "b": "present"}, "partial"),
        ({"a": "absent", "b": "present"}, "absent"),
        ({"a": "absent", "b": "unknown"}, "unknown"),
        ({"a": "present"}, "unknown"),
        ({"b": "present"}, "unknown"),
    ],
)
def test_status(found: dict[str, str], status: str) -> None:
    labels = LabelVolume(
        np.zeros((1, 1, 1), np.uint16),
        np.zeros((1, len(found)), bool),
        tuple(found),
        np.eye(4),
        {name: Status(word) for name, word in found.items()},
    )
    told, note = film_status(Film("a", ("b",)), labels)
    assert told == status
    assert (note is not None) == (status == "unknown")


def test_what_is_wholly_hidden_is_said_to_be() -> None:
    view = View(
        "pa", "cone", (0, 1600, 0), (0, -1, 0), (0, -200, 0), (1, 0, 0), (0, 0, -1), (2.0, 1.5), (2, 3)
    )
    presence = pack(np.array([np.eye(2, 3, dtype=bool), np.ones((2, 3), bool)]))
    projection = Projection(view, ("a", "b"), "by hand", presence=presence)
    assert film_columns(Film("a", ("b",)), projection, "whole") == {
        "view_status": "hidden",
        "area_px": 0,
        "area_mm2": 0.0,
    }
    seen = film_columns(Film("a", ("absent",)), projection, "cut")
    assert (seen["view_status"], seen["area_px"], seen["area_mm2"]) == ("cut", 2, 6.0)
    assert (seen["bbox"], seen["centroid_px"]) == ([0, 0, 2, 2], [0.5, 0.5])
    assert film_columns(Film("c", ("b",)), projection, "outside")["view_status"] == "outside"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("film: {of: lung_left}", "not_hidden_by"),
        ("film: {of: lung_left, not_hidden_by: heart}", "not a list of classes"),
        ("film: {of: [lung_left], not_hidden_by: [heart]}", "not a class"),
        ("film: {of: lung_left, behind: [heart]}", "no key 'behind'"),
        ("film: {of: lung_lft, not_hidden_by: [heart]}", "no class 'lung_lft'"),
        ("film: {of: lungs_visible, not_hidden_by: [heart]}", "of the film itself"),
        ("film: {of: lungs, not_hidden_by: [heart]}, parts: [heart]", "neither parts nor recipe"),
        ("parts: [lungs_visible]", "is of the film"),
        ("recipe: {dilate: {of: lungs_visible, by_mm: 3}}", "is of the film"),
    ],
)
def test_a_catalog_that_cannot_be_used_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"classes:\n  mine: {{group: own, {text}}}\n")
    with pytest.raises(ConfigError, match=match):
        load_catalog(tmp_path / "mine.yaml")


def test_what_it_is_made_from_decides_what_it_depends_on(tmp_path: Path) -> None:
    catalog = load_catalog()
    assert not [problem for problem in check_catalog(catalog) if "visible" in problem]
    known = ["body", "lung_left", "lung_right", "heart", "spine", "liver", "spleen", "stomach"]
    assert "lungs_visible" in reachable(catalog, known)
    assert "lungs_visible" not in reachable(catalog, [name for name in known if name != "spine"])
    (tmp_path / "mine.yaml").write_text(
        "classes:\n  lungs_visible: {film: {of: lungs, not_hidden_by: [heart]}}\n"
    )
    changed = load_catalog(tmp_path / "mine.yaml")
    assert changed.fingerprint(["lungs_visible"]) != catalog.fingerprint(["lungs_visible"])
    assert changed.fingerprint(["lungs"]) == catalog.fingerprint(["lungs"])


def test_in_3d_nothing_is_known_of_it() -> None:
    labels = LabelVolume(np.zeros((1, 1, 1), np.uint16), np.zeros((1, 0), bool), (), np.eye(4), {})
    derived = derive(labels, load_catalog(), names=["visible lungs"])
    assert derived.status["lungs_visible"] is Status.UNKNOWN
    assert "no voxels" in derived.notes["lungs_visible"]


def test_a_preview_has_no_voxels_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class of the film"):
        preview("visible lungs", tmp_path / "ct.nii.gz", [], tmp_path / "out.png")


def test_in_python_a_class_of_the_film_is_refused_and_not_empty() -> None:
    nothing = LabelVolume(np.zeros((3, 3, 3), np.uint16), np.zeros((1, 0), bool), (), np.eye(4), {})
    with pytest.raises(ConfigError, match=r"'lung_left' without those of heart") as refused:
        paxray.derive(nothing, names=["lung_left_visible"])
    assert refused.value.code == "film_class"
