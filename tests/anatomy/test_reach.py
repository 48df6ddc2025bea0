"""What can come out of given masks; and docs/catalog.md, whose tables follow from the catalog."""

import dataclasses

from anatomy.catalog_tables import PAGE, page

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.channels import load_channels
from paxray.anatomy.reach import reachable
from paxray.anatomy.vocabulary import load_vocabulary

CATALOG = load_catalog()
V2 = load_vocabulary("totalsegmentator_v2", catalog=CATALOG).labels.values()


def test_a_union_needs_all_its_parts_but_optional_ones():
    lobes = ["lung_upper_lobe_left", "lung_lower_lobe_left"]
    assert reachable(CATALOG, lobes) >= {*lobes, "lung_left"}
    assert "lungs" not in reachable(CATALOG, lobes)
    assert "lung_left" not in reachable(CATALOG, lobes[:1])
    thoracic = [name for name in CATALOG["vertebrae_thoracic"].parts if name != "vertebrae_T13"]
    assert "vertebrae_thoracic" in reachable(CATALOG, thoracic)  # T13 is optional
    assert "vertebrae_thoracic" not in reachable(CATALOG, thoracic[1:])


def test_a_recipe_needs_all_its_inputs():
    assert "tracheal_bifurcation" in reachable(CATALOG, ["trachea"])
    assert "vertebral_body_T4" not in reachable(CATALOG, ["vertebrae_T4"])
    assert "vertebral_body_T4" in reachable(CATALOG, ["vertebrae_T4", "vertebral_bodies"])


def test_a_division_follows_from_its_parent_and_makes_it_where_it_is_given():
    halves = {"rib_left_4_anterior", "rib_left_4_posterior"}
    assert halves <= reachable(CATALOG, ["rib_left_4", "vertebrae"])
    assert "rib_left_4" in reachable(CATALOG, halves)
    assert "rib_left_4" not in reachable(CATALOG, ["rib_left_4_anterior", "vertebrae"])
    assert {"breasts", "breast_left"} <= reachable(CATALOG, ["breasts", "vertebrae"])
    assert "breasts" in reachable(CATALOG, ["breast_left", "breast_right"])


def test_a_recipe_is_needed_beside_the_parts_that_it_adds_to():
    mine = dataclasses.replace(CATALOG["skin"], name="mine", parts=("heart",), synonyms=(), snomed_ct="")
    catalog = Catalog([*CATALOG.values(), mine])
    assert "mine" in reachable(catalog, ["heart", "body"])
    assert "mine" not in reachable(catalog, ["heart"])


def test_nothing_comes_of_nothing_and_more_masks_never_give_less():
    assert reachable(CATALOG, []) == frozenset()
    assert reachable(CATALOG, V2) <= reachable(CATALOG, [*V2, "body", "breasts"])


def test_a_class_without_a_maker_is_out_of_reach():
    catalog = Catalog([dataclasses.replace(CATALOG["skin"], recipe=None), CATALOG["body"]])
    assert reachable(catalog, ["body"]) == {"body"}


def test_an_input_that_an_operator_can_do_without_may_be_unknown():
    """A rib is followed from the spine; the sternum only helps to find the midline."""
    assert "rib_left_4_anterior" not in reachable(CATALOG, ["rib_left_4", "sternum"])
    assert "rib_left_4_anterior" in reachable(CATALOG, ["rib_left_4", "vertebrae"])


def test_one_build_gives_300_classes():
    given = {"body"}
    for task in ("v1", "v2", "lung_vessels_4", "trunk_cavities", "breasts"):
        given.update(load_vocabulary(f"totalsegmentator_{task}", catalog=CATALOG).labels.values())
    assert len(reachable(CATALOG, given)) >= 300


def test_every_channel_of_both_data_sets_can_be_made_but_for_known_gaps():
    """With v2, v1's heart chambers and its pulmonary artery, and the breasts: all but rare and sacral levels."""
    given = [*V2, *load_vocabulary("totalsegmentator_v1", catalog=CATALOG).labels.values(), "breasts", "body"]
    out = reachable(CATALOG, given)
    for name, gaps in (
        ("paxray_166", {"airways", "t13", "l6", "cocygis"}),
        ("pax_ray_plus_plus_159", set()),
    ):
        channels = load_channels(name, catalog=CATALOG)
        missing = {n for n, c in zip(channels.names, channels.classes, strict=True) if c not in out}
        assert missing == gaps


def test_the_page_of_the_catalog_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python tests/anatomy/catalog_tables.py"
    assert len(CATALOG) > 500  # as the README says
