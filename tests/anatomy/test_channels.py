"""Ordered channels: PAXRay's, PAX-Ray++'s, and a user's own."""

import csv

import pytest

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.channels import Channels, load_channels
from paxray.errors import ConfigError

CATALOG = load_catalog()


def load(spec, base=None):
    return load_channels(spec, base=base, catalog=CATALOG)


def test_paxray_has_its_166_channels_and_165_classes():
    channels = load("paxray_166")
    assert len(channels) == 166
    assert channels.names[12] == channels.names[16] == "mediastinum_upper"
    assert len(set(channels.classes)) == 165
    by_name = dict(zip(channels.names, channels.classes, strict=True))
    assert by_name["diaphragm"] == "subdiaphragm"  # its 'diaphragm' is an area
    assert by_name["hemidiaphragm_left"] == "subdiaphragm_left"
    assert by_name["rib_left_anterior_4"] == "rib_left_4_anterior"
    assert by_name["t13"] == "vertebrae_T13"


def test_pax_ray_plus_plus_has_159_channels_of_159_classes():
    channels = load("pax_ray_plus_plus_159")
    assert len(channels) == len(set(channels.classes)) == 159
    by_name = dict(zip(channels.names, channels.classes, strict=True))
    assert by_name["right lung base"] == "lung_zone_base_right"
    assert by_name["tracheal bifurcation"] == "tracheal_bifurcation"
    assert by_name["posterior 12th rib left"] == "rib_left_12_posterior"


@pytest.mark.parametrize("name", ["paxray_166", "pax_ray_plus_plus_159"])
def test_a_channels_side_and_number_are_its_classes(name):
    channels = load(name)
    for word, class_name in zip(channels.names, channels.classes, strict=True):
        for side in ("left", "right"):
            # The heart's chambers are named for the circulation.
            if side in word and "heart" not in word:
                assert CATALOG[class_name].laterality == side, word
        for half in ("anterior", "posterior"):
            assert (half in word) == (half in class_name), word
        if "rib_" in word and "cartilage" not in word:
            number = word.rsplit("_", 1)[1]
            assert number in class_name.split("_"), word


@pytest.mark.real
@pytest.mark.parametrize("name", ["paxray_166", "pax_ray_plus_plus_159"])
def test_channels_stand_in_the_published_order(real_data, name):
    path = real_data.parent / "reference" / f"{name}_channels.csv"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with path.open(encoding="utf-8") as stream:
        assert load(name).names == tuple(row["name"] for row in csv.DictReader(stream))


def test_labels_give_channels_in_the_order_of_their_values(tmp_path):
    (tmp_path / "mine.yaml").write_text("labels: {7: liver, 3: heart}")
    channels = load("mine.yaml+5:lungs", base=tmp_path)
    assert channels.names == channels.classes == ("heart", "lungs", "liver")
    assert len(load("totalsegmentator_v2")) == 117


def test_channels_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("channels:\n  - Left Lung\n  - pump: heart\n  - heart\n")
    assert load("mine.yaml", base=tmp_path) == Channels(
        "mine.yaml", ("Left Lung", "pump", "heart"), ("lung_left", "heart", "heart")
    )


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("channels:\n  - heart\n  - hart\n", 3, "did you mean 'heart'"),
        ("channels:\n  - heart\n  - pump: hart\n", 3, "did you mean 'heart'"),
        ("channels:\n  - 5\n", 2, "not a channel"),
        ("channels:\n  - {a: heart, b: lungs}\n", 2, "not a channel"),
        ("channels: []\n", 1, "not a list"),
        ("channels: heart\n", 1, "not a list"),
        ("channels: [heart]\nlabels: {1: heart}\n", 2, "no key 'labels'"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path, text, line, hint):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", base=tmp_path)
    assert f"mine.yaml:{line}" in caught.value.where
    assert hint in str(caught.value)


def test_labels_are_not_added_to_channels():
    with pytest.raises(ConfigError, match="labels cannot be added"):
        load("paxray_166+167:heart")


def test_names_and_classes_go_together():
    with pytest.raises(ConfigError, match="differ in number"):
        Channels("x", ("a",), ())
