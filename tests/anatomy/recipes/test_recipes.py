"""Recipes from YAML to voxels: what is read, refused, computed, and what status comes out."""

import dataclasses
import importlib.metadata
import textwrap

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from shapes import ball, box, full, lattice

from paxray.anatomy import recipes
from paxray.anatomy.anatomy_class import AnatomyClass
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.check import check_catalog
from paxray.anatomy.labels import Status
from paxray.anatomy.recipes import engine, morphology, registry
from paxray.anatomy.recipes.engine import derive
from paxray.anatomy.recipes.region import whole
from paxray.errors import CaseError, ConfigError
from paxray.io.volume import Volume

GRID = lattice("uneven", (20, 24, 28))


def cls(name, recipe=None, parts=(), **more):
    return AnatomyClass(name, group="own", recipe=recipe, parts=tuple(parts), **more)


def labels_of(masks, status=None):
    """Drawn classes: arrays, or a status for what has no voxels."""
    builder = LabelBuilder(GRID.shape)
    for name, mask in masks.items():
        if isinstance(mask, Status):
            builder.add_mask(name, whole(GRID.shape), np.zeros(GRID.shape, bool), status=mask)
        else:
            builder.add_mask(name, whole(GRID.shape), mask, status=(status or {}).get(name))
    return builder.build(GRID.affine, list(masks))


BALL, LEFT_HALF = ball(GRID, 8), box(GRID, (0, -99, -99), (99, 99, 99))


def derived(classes, masks, names=None, ct=None, status=None):
    return derive(labels_of(masks, status), Catalog(classes), ct, names)


# Voxels


def test_recipes_nest_and_chain():
    classes = [
        cls("a"),
        cls("ring", {"difference": {"of": {"dilate": {"of": "a", "by_mm": 3}}, "minus": "a"}}),
        cls("half", {"split": {"of": "ring", "keep": "left_of", "at": 0}}),
        cls("pair", parts=["half", "a"]),
    ]
    made = derived(classes, {"a": BALL})
    scene = recipes.Scene(GRID)
    ring = full(scene, morphology.dilate(scene, recipes.Region.of_mask(BALL), 3)) & ~BALL
    half = ring & LEFT_HALF
    assert_array_equal(made.mask("ring"), ring)
    assert_array_equal(made.mask("half"), half)
    assert_array_equal(made.mask("pair"), half | BALL)
    assert set(made.status.values()) == {Status.PRESENT}
    again = derive(made, Catalog(classes))
    assert_array_equal(again.mask("pair"), made.mask("pair"))
    assert again.names == made.names


def test_the_order_in_the_file_does_not_matter():
    classes = [
        cls("late", {"intersection": ["early", "a"]}),
        cls("early", {"split": {"of": "a", "keep": "above", "at": 0}}),
        cls("a"),
    ]
    made = derived(classes, {"a": BALL})
    assert_array_equal(made.mask("late"), made.mask("early"))
    assert made.names == ("late", "early", "a")


def test_a_source_is_preferred_to_a_recipe():
    drawn = ball(GRID, 3)
    made = derived([cls("a"), cls("b", {"erode": {"of": "a", "by_mm": 2}})], {"a": BALL, "b": drawn})
    assert_array_equal(made.mask("b"), drawn)
    made = derived([cls("a"), cls("b", "a")], {"a": BALL, "b": Status.ABSENT})
    assert made.status["b"] is Status.ABSENT
    made = derived([cls("a"), cls("b", "a")], {"a": BALL, "b": Status.UNKNOWN})
    assert_array_equal(made.mask("b"), BALL)


def test_a_division_comes_from_its_parent_and_does_not_hold_it_up():
    """As the upper mediastinum is cut out of the mediastinum, and is a part of it."""
    classes = [
        cls("whole", {"dilate": {"of": "a", "by_mm": 2}}, parts=["top", "rest", "never"]),
        cls("top", {"split": {"of": "whole", "keep": "above", "at": 0}}),
        cls("rest", {"difference": {"of": "whole", "minus": "top"}}),
        cls("never", {"intersection": ["whole", "nobody"]}),
        cls("a"),
        cls("nobody"),
    ]
    made = derived(classes, {"a": BALL})
    assert made.status["whole"] is Status.PRESENT
    assert_array_equal(made.mask("top") | made.mask("rest"), made.mask("whole"))
    assert not (made.mask("top") & made.mask("rest")).any()
    assert "never" not in made.names
    assert "nobody" in made.notes["never"]
    graph = Catalog(classes).graph
    assert graph.divisions == {("whole", "top"), ("whole", "rest"), ("whole", "never")}
    assert graph.circle() == ()


def test_a_parent_contains_a_part_that_reaches_beyond_it():
    classes = [cls("a", parts=["b"]), cls("b", {"dilate": {"of": "a", "by_mm": 2}})]
    made = derived(classes, {"a": BALL})
    assert not (made.mask("b") & ~made.mask("a")).any()
    assert made.mask("b").sum() > BALL.sum()


def test_parts_alone_are_not_a_class_whose_recipe_cannot_be_computed():
    classes = [cls("a"), cls("lost"), cls("more", {"dilate": {"of": "lost", "by_mm": 2}}, parts=["a"])]
    classes.append(cls("grown", {"dilate": {"of": "more", "by_mm": 2}}))
    made = derived(classes, {"a": BALL})
    assert made.status["more"] is made.status["grown"] is Status.PARTIAL
    assert "lost" in made.notes["more"]
    assert_array_equal(made.mask("more"), BALL)
    assert derived(classes, {"a": Status.ABSENT}, ["more"]).status["more"] is Status.UNKNOWN
    assert derived(classes, {"a": BALL, "lost": Status.ABSENT}).status["more"] is Status.PRESENT


def test_a_region_that_an_operator_did_without_is_noted():
    recipe = {"below": {"of": "lung", "within": "body", "roof": {"union": ["liver", "spleen"]}}}
    classes = [cls("lung"), cls("body"), cls("liver"), cls("spleen"), cls("under", recipe)]
    masks = {"lung": box(GRID, (-99, -99, 3), (99, 99, 99)), "body": np.ones(GRID.shape, bool)}
    made = derived(classes, masks)
    assert made.status["under"] is Status.PRESENT
    for name in ("liver", "spleen"):
        assert f"without '{name}'" in made.notes["under"]
    assert derived(classes, masks | {"liver": BALL, "spleen": Status.ABSENT}).notes == {}


def test_hu_are_those_of_the_ct():
    hu = np.where(LEFT_HALF, 200, 0).astype(np.int16)
    classes = [cls("a"), cls("bright", {"hu_window": {"of": "a", "from_hu": 130}})]
    made = derived(classes, {"a": BALL}, ct=Volume(hu, GRID.affine))
    assert_array_equal(made.mask("bright"), BALL & LEFT_HALF)
    blind = derived(classes, {"a": BALL}, names=["bright"])
    assert blind.status["bright"] is Status.UNKNOWN
    assert "HU" in blind.notes["bright"]
    with pytest.raises(CaseError, match="shape"):
        derived(classes, {"a": BALL}, ct=Volume(hu[1:], GRID.affine))
    with pytest.raises(CaseError, match="elsewhere"):
        derived(classes, {"a": BALL}, ct=Volume(hu, GRID.affine @ np.diag([-1, 1, 1, 1])))


# What is computed


def test_only_what_is_asked_for_is_computed_and_shared_results_once(monkeypatch):
    called = []

    def counting(scene, of, by_mm):
        called.append(by_mm)
        return morphology.dilate(scene, of, by_mm)

    counting.__annotations__ = morphology.dilate.__annotations__
    mine = registry.Operator("dilate", counting, registry.operators()["dilate"].parameters)
    table = {**registry.operators(), "dilate": mine}
    monkeypatch.setattr("paxray.anatomy.recipes.parse.operators", lambda: table)
    wide = {"dilate": {"of": "a", "by_mm": 3}}
    classes = [
        cls("a"),
        cls("one", wide),
        cls("two", {"difference": {"of": wide, "minus": "a"}}),
        cls("three", {"intersection": ["one", "two"]}),
        cls("other", {"dilate": {"of": "a", "by_mm": 5}}),
    ]
    made = derived(classes, {"a": BALL}, names=["three", "two"])
    assert called == [3]
    assert set(made.names) == {"a", "two", "three"}
    derived(classes, {"a": BALL}, names=["a"])
    assert called == [3]


def test_results_are_dropped_when_nobody_needs_them(monkeypatch):
    kept = []
    forget = engine._Run._release

    def watch(self, node):
        forget(self, node)
        kept.append(len(self._cache))

    monkeypatch.setattr(engine._Run, "_release", watch)
    chain = [cls("c0")] + [cls(f"c{n}", {"dilate": {"of": f"c{n - 1}", "by_mm": 1.8}}) for n in range(1, 8)]
    derived(chain, {"c0": ball(GRID, 3)})
    assert kept[-1] == 0


# Status


@pytest.mark.parametrize(
    ("recipe", "a", "b", "expected"),
    [
        ({"union": ["a", "b"]}, "present", "absent", "present"),
        ({"union": ["a", "b"]}, "present", "unknown", "partial"),
        ({"union": ["a", "b"]}, "absent", "unknown", "unknown"),
        ({"union": ["a", "b"]}, "absent", "absent", "absent"),
        ({"difference": {"of": "a", "minus": "b"}}, "present", "absent", "present"),
        ({"difference": {"of": "a", "minus": "b"}}, "present", "unknown", "unknown"),
        ({"difference": {"of": "a", "minus": "b"}}, "absent", "present", "absent"),
        ({"intersection": ["a", "b"]}, "present", "absent", "absent"),
        ({"intersection": ["a", "b"]}, "partial", "present", "partial"),
        ({"intersection": ["a", "b"]}, "partial", "absent", "unknown"),
        ({"dilate": {"of": "a", "by_mm": 2}}, "partial", "absent", "partial"),
        ({"split": {"of": "a", "keep": "above", "at": {"top_of": "b"}}}, "present", "absent", "unknown"),
        ({"split": {"of": "a", "keep": "above", "at": {"top_of": "b"}}}, "absent", "absent", "absent"),
        (
            {"side": {"of": "a", "side": "left", "spine": "b", "sternum": "b"}},
            "present",
            "unknown",
            "unknown",
        ),
    ],
)
def test_status_follows_the_inputs(recipe, a, b, expected):
    masks, status = {}, {}
    for name, what in (("a", a), ("b", b)):
        if what in ("present", "partial"):
            masks[name], status[name] = BALL, Status(what)
        else:
            masks[name] = Status(what)
    made = derived([cls("a"), cls("b"), cls("c", recipe)], masks, names=["c"], status=status)
    assert made.status["c"].value == expected
    assert (expected == "unknown") == bool(made.notes.get("c")) or expected == "partial"


def test_a_partial_landmark_makes_nothing_partial():
    classes = [
        cls("a"),
        cls("b"),
        cls("half", {"side": {"of": "a", "side": "left", "spine": "b", "sternum": "b"}}),
    ]
    classes.append(cls("top", {"split": {"of": "a", "keep": "above", "at": {"bottom_of": "b"}}}))
    spine = box(GRID, (-2, 5, -99), (2, 9, 99))
    made = derived(classes, {"a": BALL, "b": spine}, status={"b": Status.PARTIAL})
    assert made.status["half"] is made.status["top"] is Status.PRESENT


def test_a_note_reaches_what_is_made_of_it():
    classes = [
        cls("a"),
        cls("spine"),
        cls("sternum"),
        cls("left", {"side": {"of": "a", "side": "left", "spine": "spine", "sternum": "sternum"}}),
        cls("grown", {"dilate": {"of": "left", "by_mm": 2}}),
    ]
    made = derived(classes, {"a": BALL, "spine": box(GRID, (-2, 5, -99), (2, 9, 99))})
    assert "spine alone" in made.notes["left"]
    assert made.notes["grown"] == made.notes["left"]
    assert made.status["grown"] is Status.PRESENT


# Fingerprints


def test_a_changed_recipe_changes_the_fingerprint_of_what_depends_on_it():
    def prints(by_mm):
        catalog = Catalog(
            [
                cls("a"),
                cls("grown", {"dilate": {"of": "a", "by_mm": by_mm}}),
                cls("cut", {"split": {"of": "grown", "keep": "above", "at": 0}}),
                cls("union", parts=["cut"]),
            ]
        )
        return {name: catalog.fingerprint([name]) for name in catalog}

    before, after = prints(3), prints(4)
    assert {name for name in before if before[name] != after[name]} == {"grown", "cut", "union"}
    assert prints(3.0) == before


def test_an_operators_version_and_its_default_classes_count(monkeypatch):
    catalog = [cls("a"), cls("vertebrae"), cls("sternum"), cls("half", {"side": {"of": "a", "side": "left"}})]
    before = Catalog(catalog).fingerprint(["half"])
    assert Catalog(catalog).graph.inputs("half") == ("a", "vertebrae", "sternum")
    newer = dataclasses.replace(registry.operators()["side"], version=2)
    table = {**registry.operators(), "side": newer}
    monkeypatch.setattr("paxray.anatomy.recipes.parse.operators", lambda: table)
    assert Catalog(catalog).fingerprint(["half"]) != before


# Reading


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize(
    ("recipe", "where", "what"),
    [
        ("{dilate: {of: aorta, by_mm: -5}}", "recipe.dilate.by_mm", "more than 0 mm"),
        ("{dilate: {of: aorta, by_mm: five}}", "recipe.dilate.by_mm", "not a number"),
        ("{dilate: {of: aorta, bymm: 5}}", "recipe.dilate.bymm", "did you mean 'by_mm'"),
        ("{dilate: {of: aorta}}", "recipe.dilate", "needs the argument 'by_mm'"),
        ("{dilat: {of: aorta, by_mm: 5}}", "recipe.dilat", "did you mean 'dilate'"),
        ("{dilate: {of: aortaa, by_mm: 5}}", "recipe.dilate.of", "did you mean 'aorta'"),
        ("{union: [aorta, haert]}", "recipe.union", "did you mean 'heart'"),
        ("{union: []}", "recipe.union.of", "empty"),
        ("{union: [aorta], open: [heart]}", "recipe", "one operator"),
        ("[aorta]", "recipe", "no recipe"),
        (
            "{shell: {of: aorta, thickness_mm: 3, where: insde}}",
            "recipe.shell.where",
            "did you mean 'inside'",
        ),
        ("{component: {of: aorta, n: 0}}", "recipe.component.n", "1 or more"),
        ("{component: {of: aorta, n: 1.5}}", "recipe.component.n", "whole number"),
        ("{split: {of: aorta, keep: above, at: {topof: heart}}}", "recipe.split.at", "did you mean 'top_of'"),
        ("{split: {of: aorta, keep: above, at: {top_of: haert}}}", "recipe.split.at.top_of", "'heart'"),
        ("{split: {of: aorta, keep: above, at: {top_of: heart, mm: 3}}}", "recipe.split.at.mm", "offset_mm"),
        ("mine", "recipe", "mine -> mine"),
        ("{near: {of: aorta, to: other, within_mm: 3}}", "recipe", "mine -> other -> mine"),
    ],
)
def test_a_wrong_recipe_is_refused_by_file_line_and_key(tmp_path, recipe, where, what):
    path = write(
        tmp_path,
        f"""\
        classes:
          mine:
            group: own
            recipe: {recipe}
          other: {{group: own, recipe: mine}}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}:4: classes.mine.{where}")
    assert what in str(caught.value)


def test_numbers_sides_and_taking_a_recipe_away(tmp_path):
    path = write(
        tmp_path,
        """\
        classes:
          bed_{side}_{n}:
            numbers: 2-4
            group: own
            recipe: {near: {of: "lung_{side}", to: ["rib_{side}_{n}"], within_mm: 9}}
          mediastinum: {recipe: null}
        """,
    )
    with pytest.raises(ConfigError, match="no recipe"):
        load_catalog(path)  # `to` takes one region
    path.write_text(path.read_text().replace('["rib_{side}_{n}"]', '"rib_{side}_{n+1}"'))
    catalog = load_catalog(path)
    new = [name for name in catalog if name.startswith("bed_")]
    assert new == [f"bed_{side}_{n}" for n in (2, 3, 4) for side in ("left", "right")]
    assert catalog["bed_left_3"].mirror == "bed_right_3"
    assert catalog.graph.inputs("bed_left_3") == ("lung_left", "rib_left_4")
    assert catalog["mediastinum"].recipe is None
    assert load_catalog()["mediastinum"].recipe is not None
    for wrong in ("numbers: 4-2", "numbers: all"):
        path.write_text("classes: {x_{n}: {group: own, " + wrong + "}}")
        path.write_text("classes:\n  x_{n}:\n    group: own\n    " + wrong + "\n")
        with pytest.raises(ConfigError, match="span of numbers"):
            load_catalog(path)
    path.write_text("classes:\n  x:\n    group: own\n    numbers: 1-2\n")
    with pytest.raises(ConfigError, match="go together"):
        load_catalog(path)


def test_the_built_in_catalog_is_sound():
    assert check_catalog(load_catalog()) == []


def test_check_finds_recipes_that_do_not_resolve():
    problems = check_catalog(Catalog([cls("a", {"dilate": {"of": "b", "by_mm": 3}})]))
    assert any("recipe.dilate.of" in problem for problem in problems)
    problems = check_catalog(Catalog([cls("a", "b"), cls("b", {"union": ["c"]}), cls("c", "a")]))
    assert any("a -> b -> c -> a" in problem for problem in problems)


# Operators of one's own


def test_every_operator_says_what_it_does():
    for operator in registry.operators().values():
        assert operator.call.__doc__, operator.name


@recipes.operator(version=3)
def every_other(scene: recipes.Scene, of: recipes.Region, start: int = 1) -> recipes.Region:
    """Every other slice."""
    mask = of.mask.copy()
    mask[start % 2 :: 2] = False
    return recipes.Region.of_mask(mask, of.box)


@pytest.fixture
def entry_point(monkeypatch):
    def offer(*entries):
        monkeypatch.setattr(
            registry, "entry_points", lambda group: [e for e in entries if group == registry.GROUP]
        )
        registry.operators.cache_clear()

    yield offer
    monkeypatch.undo()
    registry.operators.cache_clear()


def test_an_operator_by_entry_point(entry_point):
    entry_point(importlib.metadata.EntryPoint("every_other", f"{__name__}:every_other", registry.GROUP))
    made = derived([cls("a"), cls("b", {"every_other": {"of": "a"}})], {"a": BALL})
    assert 0 < made.mask("b").sum() < BALL.sum()
    assert not (made.mask("b") & ~BALL).any()
    assert "every_other" in Catalog([cls("a"), cls("b", {"every_other": {"of": "a"}})]).graph.recipe("b").key


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("x", "paxray.no_such:thing", "cannot be loaded"),
        ("x", "paxray.errors:suggest", "no operator"),
        ("dilate", f"{__name__}:every_other", "two operators 'dilate'"),
    ],
)
def test_a_wrong_entry_point_is_named(entry_point, name, value, what):
    entry_point(importlib.metadata.EntryPoint(name, value, registry.GROUP))
    with pytest.raises(ConfigError, match=what) as caught:
        registry.operators()
    assert value in str(caught.value)


def test_parameters_that_yaml_cannot_give_are_refused():
    with pytest.raises(ConfigError, match="YAML"):

        @recipes.operator
        def odd(scene: recipes.Scene, of: recipes.Region, table: dict) -> recipes.Region:
            """No."""
            return of


def test_what_may_be_missing_is_left_out_with_a_note():
    classes = [cls("a"), cls("b"), cls("c")]
    classes += [
        cls("less", {"difference": {"of": "a", "minus": "b", "minus_if_known": ["c"]}}),
        cls("more", {"union": {"of": ["a"], "and_if_known": ["c"]}}),
    ]
    hole = ball(GRID, 3)
    made = derived(classes, {"a": BALL, "b": hole})
    assert_array_equal(made.mask("less"), BALL & ~hole)
    assert_array_equal(made.mask("more"), BALL)
    for name in ("less", "more"):
        assert made.status[name] is Status.PRESENT
        assert "without 'c'" in made.notes[name]
    made = derived(classes, {"a": BALL, "b": hole, "c": LEFT_HALF})
    assert_array_equal(made.mask("less"), BALL & ~hole & ~LEFT_HALF)
    assert_array_equal(made.mask("more"), BALL | LEFT_HALF)
    assert made.notes == {}
