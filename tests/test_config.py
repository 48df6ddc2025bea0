"""Pipeline files: what is accepted, and how mistakes are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.channels import load_channels
from paxray.config import load_pipeline, parse_pipeline
from paxray.errors import ConfigError
from paxray.produce import classes_of

PIPELINES = Path(__file__).parents[1] / "pipelines"
GOOD = {"name": "x", "views": ["pa"]}


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_pipelines_load(path: Path) -> None:
    pipeline = load_pipeline(path)
    assert pipeline.name == path.stem
    assert parse_pipeline(pipeline.effective()) == pipeline, "the effective form is a pipeline again"


def chosen(classes: object, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
    labels = {"classes": classes, "exclude": list(exclude)}
    return classes_of(parse_pipeline(GOOD | {"labels": labels}), load_catalog())


def test_a_vocabulary_names_the_classes() -> None:
    catalog = load_catalog()
    channels = set(load_channels("paxray_166", catalog=catalog).classes)
    assert chosen("paxray_166") == tuple(name for name in catalog if name in channels)
    assert set(chosen(["set:paxray_166", "skin", "windpipe"], ("Heart",))) == (
        channels | {"skin", "trachea"}
    ) - {"heart"}
    assert set(chosen("all", ("set:paxray_166",))) == set(catalog) - channels
    with pytest.raises(ConfigError, match="puts out no class"):
        chosen("paxray_166", ("set:paxray_166",))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("paxray_165", "no set of classes 'paxray_165'.*did you mean 'paxray_166'"),
        ("heart", r"a class stands in a list: \[heart\]"),
        (["set:lungz"], "labels.classes: there is no set of classes 'lungz'"),
        (["lungz"], "no class is called 'lungz'"),
    ],
)
def test_sets_that_are_not_there(classes: object, message: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + message):
        chosen(classes)


def test_every_line_of_a_shipped_pipeline_is_explained() -> None:
    for path in PIPELINES.glob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# ")
        assert text.count("#") >= 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"veiws": []}, "unknown key 'veiws'.*did you mean 'views'"),
        ({"geometry": {"row": 5}}, "unknown key 'geometry.row'.*did you mean 'rows'"),
        ({"views": [{"name": "own", "azimut_deg": 3}]}, "azimut_deg.*did you mean 'azimuth_deg'"),
        ({"views": ["lateral_lefft"]}, "unknown view 'lateral_lefft'.*did you mean 'lateral_left'"),
        ({"views": []}, "views"),
        ({"views": ["pa", "pa"]}, "listed twice"),
        ({"geometry": {"sdd_mm": -1}}, "geometry.sdd_mm.*greater than 0"),
        ({"geometry": {"beam": "fan"}}, "geometry.beam"),
        ({"geometry": {"field_mm": "big"}}, "geometry.field_mm"),
        ({"geometry": {"field_mm": 0.0}}, "length > 0 mm"),
        ({"splits": {"train": 0.9}}, "sum to 1"),
        ({"shard_cases": 0}, "shard_cases"),
        ({"physics": {"energy_kev": 5}}, "energy_kev"),
    ],
)
def test_mistakes_are_explained(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        parse_pipeline(GOOD | change)


def test_views_of_ones_own() -> None:
    pipeline = parse_pipeline(
        GOOD | {"views": ["pa", {"name": "tilted", "azimuth_deg": 10, "elevation_deg": 5}]}
    )
    pose = pipeline.views[1].pose()
    assert (pose.name, pose.azimuth_deg, pose.elevation_deg, pose.mirrored) == ("tilted", 10, 5, False)


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: x\nviews: [pa]\ngeometry: {rows: 10}\n")
    pipeline = load_pipeline(path, ["geometry.rows=20", "views=[ap, rao]", "labels.exclude=[body]"])
    assert pipeline.geometry.rows == 20
    assert [view.name for view in pipeline.views] == ["ap", "rao"]
    assert pipeline.labels.exclude == ["body"]
    for bad in ("geometry.rows", "name.x=1", "=3", "geometry.rows=[1"):
        with pytest.raises(ConfigError):
            load_pipeline(path, [bad])


def test_files_that_are_no_pipelines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such pipeline file"):
        load_pipeline(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match="a mapping of settings"):
        load_pipeline(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_pipeline(tmp_path / "torn.yaml")


def test_catalog_is_relative_to_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: x\nviews: [pa]\nlabels: {catalog: mine.yaml}\n")
    pipeline = load_pipeline(tmp_path / "p.yaml")
    assert pipeline.labels.catalog == str(tmp_path / "mine.yaml")
    assert pipeline.effective()["labels"]["catalog"] == "mine.yaml", "no path of a machine is stored"
