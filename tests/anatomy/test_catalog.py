import csv
import dataclasses
import itertools
import json
import pickle
import time
from pathlib import Path

import pytest

from paxray.anatomy.anatomy_class import AnatomyClass
from paxray.anatomy.catalog import Catalog, _built_in, load_catalog
from paxray.anatomy.check import (
    NOT_DERIVED,
    PYDICOM_CODES,
    TOTALSEGMENTATOR_MAPPING,
    _colours_can_be_told_apart,
    check_catalog,
    is_snomed_id,
    notes_on_own,
    totalsegmentator_codes,
)
from paxray.errors import ConfigError

CATALOG = load_catalog()


def catalog_with(*changed: AnatomyClass) -> Catalog:
    return Catalog([*CATALOG.values(), *changed])


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my_classes.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_built_in_catalog_is_sound():
    assert check_catalog(CATALOG) == []


def test_it_is_pickled_whether_its_recipes_were_read_or_not():
    """As a worker gets it; recipes hold functions, which do not pickle."""
    for name in CATALOG:
        CATALOG.graph.recipe(name)
    back = pickle.loads(pickle.dumps(CATALOG))
    assert dict(back) == dict(CATALOG)
    assert back.fingerprint(CATALOG) == CATALOG.fingerprint(CATALOG)
    assert back.resolve("visible lungs") == "lungs_visible"
    assert back.place("heart", "group") == CATALOG.place("heart", "group")


def test_loading_is_quick():
    best = float("inf")
    for _ in range(3):
        _built_in.cache_clear()
        start = time.process_time()
        load_catalog()
        best = min(best, time.process_time() - start)
    assert best < 0.1


def test_unions_know_their_leaves_and_leaves_their_unions():
    assert CATALOG.leaves("lung_right") == (
        "lung_upper_lobe_right",
        "lung_middle_lobe_right",
        "lung_lower_lobe_right",
    )
    assert len(CATALOG.leaves("ribs")) == 48  # each rib in two
    assert CATALOG.leaves("trachea") == ("trachea",)
    for name in CATALOG:
        for leaf in CATALOG.leaves(name):
            assert not CATALOG[leaf].parts
            assert leaf == name or name in CATALOG.ancestors(leaf)
    assert {"rib_4", "ribs_left", "ribs", "rib_cage", "bones"} == set(CATALOG.ancestors("rib_left_4"))
    assert CATALOG.ancestors("body") == ()
    with pytest.raises(KeyError):
        CATALOG.ancestors("nonsense")


def test_the_two_halves_of_every_bilateral_union_are_twins():
    for item in CATALOG.values():
        if len(item.parts) == 2 and item.parts[0].endswith("_left") and item.parts[1].endswith("_right"):
            assert CATALOG[item.parts[0]].mirror == item.parts[1]


def test_the_mirror_of_a_union_is_made_of_mirrored_parts_but_for_the_middle_lobe():
    for item in CATALOG.values():
        if item.parts and item.laterality == "left":
            mirrored = {CATALOG[part].mirror for part in item.parts}
            assert set(CATALOG[item.mirror].parts) - {"lung_middle_lobe_right"} == mirrored


def test_neighbouring_ribs_and_vertebrae_can_be_told_apart():
    vertebrae = [p for u in ("cervical", "thoracic", "lumbar") for p in CATALOG[f"vertebrae_{u}"].parts]
    for row in (CATALOG["ribs_left"].parts, CATALOG["ribs_right"].parts, vertebrae):
        for name, other in itertools.pairwise(row):
            apart = sum(abs(a - b) for a, b in zip(CATALOG[name].colour, CATALOG[other].colour, strict=True))
            assert apart >= 60, (name, other)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("rib_left_4", "rib_left_4"),
        ("Rib Left 4", "rib_left_4"),
        ("vertebrae t4", "vertebrae_T4"),
        ("t4", "vertebrae_T4"),
        ("left lung", "lung_left"),
        ("lung_overall", "lungs"),
        ("Right-Main-Bronchus", "bronchus_main_right"),
        ("oesophagus", "esophagus"),
    ],
)
def test_resolve_understands_names_and_synonyms(word, name):
    assert CATALOG.resolve(word) == name


def test_resolve_suggests():
    with pytest.raises(ConfigError, match="did you mean 'rib_left_4'") as caught:
        CATALOG.resolve("rib_lefd_4")
    assert caught.value.code == "unknown_class"


# Fingerprints


def test_fingerprint_depends_on_what_the_voxels_depend_on():
    lungs = CATALOG.fingerprint(["lungs"])
    assert CATALOG.fingerprint(["lungs", "lung_left"]) == lungs  # lung_left is below lungs
    assert CATALOG.fingerprint(["lung_left"]) != lungs
    recoloured = catalog_with(dataclasses.replace(CATALOG["lung_lower_lobe_left"], colour=(1, 2, 3)))
    assert recoloured.fingerprint(["lungs"]) == lungs
    fewer = catalog_with(dataclasses.replace(CATALOG["lung_left"], parts=("lung_upper_lobe_left",)))
    assert fewer.fingerprint(["lungs"]) != lungs
    assert fewer.fingerprint(["heart"]) == CATALOG.fingerprint(["heart"])
    variant = catalog_with(dataclasses.replace(CATALOG["lung_lower_lobe_left"], optional=True))
    assert variant.fingerprint(["lungs"]) != lungs


# A user's own file


def test_extra_adds_a_sided_class_and_changes_fields_of_a_known_one(tmp_path):
    path = write(
        tmp_path,
        """
classes:
  first_rib_pair_{side}:
    group: rib
    parts: ["rib_{side}_1", "rib_{side}_2"]
    synonyms: ["top ribs {side}"]
  aorta:
    colour: [255, 0, 0]
""",
    )
    catalog = load_catalog(path)
    new = catalog["first_rib_pair_left"]
    assert new.parts == ("rib_left_1", "rib_left_2")
    assert (new.laterality, new.mirror) == ("left", "first_rib_pair_right")
    assert new.rule == "union of its parts"
    assert catalog.resolve("top ribs right") == "first_rib_pair_right"
    assert catalog["aorta"] == dataclasses.replace(CATALOG["aorta"], colour=(255, 0, 0))
    assert check_catalog(catalog) == []
    assert list(catalog)[: len(CATALOG)] == list(CATALOG)


def test_extra_makes_a_leaf_a_union_and_takes_a_code_away(tmp_path):
    path = write(tmp_path, "classes:\n  body: {parts: [subcutaneous_fat, skeletal_muscle], snomed: {}}\n")
    body = load_catalog(path)["body"]
    assert body.parts == ("subcutaneous_fat", "skeletal_muscle")
    assert body.snomed_ct == body.code_source == ""


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        (
            "classes:\n  mine:\n    group: rib\n    parts: [rib_left_1, rib_lefd_2]\n",
            4,
            "mine.parts",
            "rib_left_2",
        ),
        ("classes:\n  mine:\n    group: rib\n    color: [1, 2, 3]\n", 4, "mine.color", "colour"),
        ("classes:\n  mine:\n    parts: [ribs]\n", 2, "mine", "no group"),
        ("classes:\n  mine:\n    group: rib\n    colour: [1, 2, 300]\n", 4, "mine.colour", "255"),
        ("classes:\n  mine:\n    group: rib\n    colour: [1, 2, 30]\n", 4, "mine.colour", "cannot be seen"),
        ("classes:\n  mine:\n    group: rib\n    synonyms: [heart]\n", 4, "mine.synonyms", "already means"),
        ("classes:\n  mine:\n    group: rib\n    mirror: aorta\n", 4, "mine.mirror", "point back"),
        ("classes:\n  mine:\n    group: rib\n    laterality: links\n", 4, "mine.laterality", "left or right"),
        ("classes:\n  mine:\n    group: 5\n", 3, "mine.group", "not text"),
        ("classes:\n  mine:\n    group: rib\n    optional: 1\n", 4, "mine.optional", "true or false"),
        ("classes:\n  mine: heart\n", 2, "mine", "not a mapping"),
        ("classes:\n  my ribs:\n    group: rib\n", 2, "my ribs", "class name"),
        (
            "classes:\n  lungs:\n    parts: [lungs_mine]\n  lungs_mine: {group: lung, parts: [lungs]}\n",
            3,
            "lungs.parts",
            ">",
        ),
        (
            "classes:\n  mine:\n    group: rib\n    snomed: {code: 123456, meaning: Rib, source: me}\n",
            4,
            "mine.snomed",
            "check digit",
        ),
        (
            "classes:\n  mine:\n    group: rib\n    snomed: {code: 113197003}\n",
            4,
            "mine.snomed.meaning",
            "needs",
        ),
        ("clases:\n  mine:\n    group: rib\n", 1, "clases", "classes"),
        ("classes: []\n", 1, "classes", "mapping"),
    ],
)
def test_extra_errors_name_file_line_and_key(tmp_path, text, line, key, hint):
    with pytest.raises(ConfigError) as caught:
        load_catalog(write(tmp_path, text))
    message = str(caught.value)
    assert f"my_classes.yaml:{line}: " in message
    assert key in caught.value.where
    assert hint in message


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("classes:\n  mine: {group: rib}\n  mine: {group: lung}\n", 3, "twice"),
        ("classes:\n  mine: {group: rib\n", 3, ""),
    ],
)
def test_extra_that_is_not_sound_yaml_is_refused_with_its_line(tmp_path, text, line, hint):
    with pytest.raises(ConfigError) as caught:
        load_catalog(write(tmp_path, text))
    assert caught.value.where.endswith(f"my_classes.yaml:{line}")
    assert hint in str(caught.value)


def test_yaml_merge_keys_are_no_repetition(tmp_path):
    text = "classes:\n  a_rib: &rib {group: rib, optional: true}\n  b_rib: {<<: *rib, optional: false}\n"
    catalog = load_catalog(write(tmp_path, text))
    assert (catalog["b_rib"].group, catalog["b_rib"].optional) == ("rib", False)


def test_extra_that_is_missing_or_no_mapping_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_catalog(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="no mapping"):
        load_catalog(write(tmp_path, "- heart\n"))


def test_a_sided_entry_that_meets_a_plain_one_is_refused(tmp_path):
    text = "classes:\n  lump_{side}: {group: lung}\n  lump_left: {group: lung}\n"
    with pytest.raises(ConfigError, match="stands twice"):
        load_catalog(write(tmp_path, text))


# Validators


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        (dataclasses.replace(CATALOG["heart"], parts=("heart_myocardum",)), "heart_myocardium"),
        (dataclasses.replace(CATALOG["heart"], parts=("aorta", "aorta")), "stands twice"),
        (dataclasses.replace(CATALOG["rib_left_1"], parts=("ribs",)), "part of itself"),
        (dataclasses.replace(CATALOG["rib_left_1"], mirror="rib_right_2"), "point back"),
        (dataclasses.replace(CATALOG["rib_left_1"], mirror="rib_west_1"), "no class 'rib_west_1'"),
        (dataclasses.replace(CATALOG["rib_left_1"], laterality="right"), "twin"),
        (dataclasses.replace(CATALOG["heart"], group="The Heart"), "lower-case"),
        (dataclasses.replace(CATALOG["heart"], colour=(0, 0, 256)), "RGB"),
        (dataclasses.replace(CATALOG["heart"], colour=(60, 35, 0)), "cannot be seen"),
        (dataclasses.replace(CATALOG["heart"], colour=CATALOG["coronary_arteries"].colour), "hardly be told"),
        (dataclasses.replace(CATALOG["venae_cavae"], parts=()), "nothing can make it"),
        (dataclasses.replace(CATALOG["fat"], recipe=None), "nothing can make it"),
        (dataclasses.replace(CATALOG["ribs_left"], parts=("rib_right_1",)), "lies on the left, and its part"),
        (dataclasses.replace(CATALOG["heart"], synonyms=("liver",)), "already means"),
        (dataclasses.replace(CATALOG["heart"], name="Heart"), "another spelling"),
        (dataclasses.replace(CATALOG["heart"], snomed_ct="80891008"), "check digit"),
        (dataclasses.replace(CATALOG["heart"], snomed_ct="10200004"), "does not stand in"),
        (dataclasses.replace(CATALOG["heart"], snomed_meaning="Cor"), "does not stand in"),
        (dataclasses.replace(CATALOG["lungs"], snomed_ct="80891009"), "does not stand in pydicom"),
        (
            dataclasses.replace(CATALOG["heart"], code_source="hearsay"),
            "no source that codes can be looked up",
        ),
        (dataclasses.replace(CATALOG["heart"], code_source=""), "without its source"),
        (dataclasses.replace(CATALOG["heart"], snomed_ct=""), "without a code"),
        (dataclasses.replace(CATALOG["rib_left_1"], snomed_laterality="24028007"), "does not fit"),
    ],
)
def test_each_validator_finds_its_fault(changed, hint):
    assert any(hint in problem for problem in check_catalog(catalog_with(changed)))


def test_check_digit_tells_identifiers_from_mistyped_ones():
    codes = [item.snomed_ct for item in CATALOG.values() if item.snomed_ct]
    assert all(is_snomed_id(code) for code in codes)
    for code in codes[:20]:  # Verhoeff: every single digit error and every transposition of neighbours
        for place in range(len(code)):
            for digit in "0123456789":
                wrong = code[:place] + digit + code[place + 1 :]
                assert is_snomed_id(wrong) == (wrong == code)
        for place in range(1, len(code) - 1):
            swapped = code[:place] + code[place + 1] + code[place] + code[place + 2 :]
            assert is_snomed_id(swapped) == (swapped == code)


def test_codes_come_from_the_two_sources_alone():
    assert {item.code_source for item in CATALOG.values()} == {"", TOTALSEGMENTATOR_MAPPING, PYDICOM_CODES}
    assert sum(bool(item.snomed_ct) for item in CATALOG.values()) > 150


def test_known_slips_of_the_mapping_are_not_repeated():
    for side in ("left", "right"):
        assert CATALOG[f"subclavian_artery_{side}"].snomed_ct == "36765005"
        assert CATALOG[f"kidney_cyst_{side}"].snomed_ct == ""
        assert CATALOG[f"hip_{side}"].snomed_ct == ""
    assert CATALOG["gluteus_minimus"].snomed_ct == CATALOG["gluteus_minimus_left"].snomed_ct
    assert CATALOG["gluteus_minimus"].snomed_ct != CATALOG["gluteus_medius"].snomed_ct


# Against the lists the data came from, where they lie beside the real CTs


@pytest.fixture
def reference(real_data: Path) -> Path:
    folder = real_data.parent / "reference"
    if not folder.is_dir():
        pytest.skip(f"there is no folder of reference lists at {folder}")
    return folder


@pytest.mark.real
def test_the_code_table_is_the_mappings_own(reference):
    with (reference / "totalsegmentator_snomed_mapping.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    column = "SegmentedPropertyTypeCodeSequence."
    original = {
        (row[column + "CodeValue"], row[column + "CodeMeaning"].replace("minius", "minimus"))
        for row in rows
        if not row["AnatomicRegionSequence.CodeValue"]
    }
    assert totalsegmentator_codes() <= original


@pytest.mark.real
def test_every_totalsegmentator_class_is_in_the_catalog(reference):
    maps = json.loads((reference / "totalsegmentator_class_map.json").read_text())
    for name in {*maps["total_v1"].values(), *maps["total"].values()}:
        assert CATALOG.resolve(name) == name
        assert CATALOG[name].group


@pytest.mark.parametrize("pack", sorted((Path(__file__).parents[2] / "pipelines/classes").glob("*.yaml")))
def test_the_packs_are_sound_and_their_series_may_share_a_colour(pack):
    assert list(_colours_can_be_told_apart(load_catalog(pack))) == []


def test_two_entries_of_one_colour_are_still_told(tmp_path):
    series = "  disc_{n}: {group: bone, colour: [90, 250, 120], numbers: 1-3}\n"
    assert not list(_colours_can_be_told_apart(load_catalog(write(tmp_path, f"classes:\n{series}"))))
    other = "  ring: {group: bone, colour: [90, 250, 120]}\n"
    told = [
        p.name
        for p in _colours_can_be_told_apart(load_catalog(write(tmp_path, f"classes:\n{series}{other}")))
    ]
    assert told == ["ring"] * 3


def test_what_a_file_does_to_the_catalog_is_noted(tmp_path):
    text = (
        "classes:\n  tube: {group: vesel}\n  pipe: {group: vessel, parts: [aorta]}\n"
        "  heart: {group: vessel, recipe: {dilate: {of: heart_myocardium, by_mm: 3}}}\n"
    )
    assert notes_on_own(load_catalog(write(tmp_path, text))) == [
        "adds tube, pipe",
        "changes heart, a built-in class: group, recipe",
        "'vesel' is a new group. did you mean 'vessel'?",
        f"tube: {NOT_DERIVED}",
    ]
    assert notes_on_own(load_catalog()) == []
