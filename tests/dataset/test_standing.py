"""What a build's outcome depends on, beside the classes that it puts out."""

from __future__ import annotations

from pathlib import Path

import pytest

from paxray.config import parse_pipeline
from paxray.produce import catalog_of, classes_of
from paxray.standing import basis_of, differences_of


def basis(tmp_path: Path, text: str, classes: object = "all") -> dict[str, object]:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    labels = {"catalog": str(path), "classes": classes}
    pipeline = parse_pipeline({"name": "x", "views": ["pa"], "labels": labels})
    catalog = catalog_of(pipeline)
    return basis_of(pipeline, catalog, classes_of(pipeline, catalog), "cpu", [])


PLATE = "classes:\n  plate: {group: bone, colour: [250, 250, 5]}\n"
HEART = "classes:\n  heart: {recipe: {dilate: {of: heart_myocardium, by_mm: 3}}}\n"


@pytest.mark.parametrize(
    ("before", "after", "classes", "same"),
    [
        (PLATE, PLATE.replace("bone", "muscle"), "all", False),  # an envelope hides nothing
        (PLATE, PLATE.replace("250, 5]", "250, 90]"), "all", True),
        (HEART, HEART.replace("3}", "9}"), ["ribs"], False),  # the cardiothoracic ratio is taken on it
        (HEART, HEART, ["ribs"], True),
    ],
)
def test_what_measures_and_hiding_depend_on_counts(
    tmp_path: Path, before: str, after: str, classes: object, same: bool
) -> None:
    assert (basis(tmp_path, before, classes) == basis(tmp_path, after, classes)) is same


def test_a_class_file_left_out_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PLATE)
    found = []
    for catalog in (str(path), None):
        pipeline = parse_pipeline({"name": "x", "views": ["pa"], "labels": {"catalog": catalog}})
        known = catalog_of(pipeline)
        content = basis_of(pipeline, known, classes_of(pipeline, known), "cpu", [])
        found.append((pipeline, {"basis": content, "pipeline": pipeline.effective()}))
    (own, with_own), (plain, without) = found
    lines = differences_of(with_own, without["basis"], plain)
    assert lines[0].startswith("it was built with --classes mine.yaml")
    assert not any("--classes" in line for line in differences_of(without, with_own["basis"], own))
