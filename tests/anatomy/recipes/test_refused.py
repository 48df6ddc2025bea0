"""Recipes that would load and give nothing, everything or nonsense: each is refused, by its key."""

import pytest

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.check import check_catalog, notes_on_own
from paxray.anatomy.recipes import BadArgument, Scene, operator
from paxray.anatomy.recipes.parse import RecipeError, parse
from paxray.anatomy.recipes.region import Region
from paxray.anatomy.recipes.registry import operators
from paxray.errors import ConfigError

#: A sound call of every operator.
SOUND = {
    "union": {"of": ["aorta", "heart"], "and_if_known": ["liver"]},
    "intersection": {"of": ["aorta", "heart"]},
    "difference": {"of": "aorta", "minus": ["heart"], "minus_if_known": ["liver"]},
    "hu_window": {"of": "aorta", "from_hu": 0, "to_hu": 100},
    "dilate": {"of": "aorta", "by_mm": 5},
    "erode": {"of": "aorta", "by_mm": 5},
    "open": {"of": "aorta", "by_mm": 5},
    "close": {"of": "aorta", "by_mm": 5},
    "near": {"of": "aorta", "to": "heart", "within_mm": 5},
    "shell": {"of": "aorta", "thickness_mm": 5, "where": "both"},
    "nearest_of": {"of": "aorta", "seeds": ["heart", "liver"], "to": "liver"},
    "largest": {"of": "aorta"},
    "component": {"of": "aorta", "n": 2},
    "drop_small": {"of": "aorta", "below_mm3": 50},
    "fill": {"of": "aorta", "per": "axial"},
    "hull": {"of": "aorta", "per": "axial"},
    "side": {"of": "aorta", "side": "left", "spine": "vertebrae", "sternum": "sternum"},
    "split": {"of": "aorta", "keep": "above", "at": {"top_of": "heart"}},
    "slab": {"of": "aorta", "from": {"bottom_of": "heart"}, "to": {"top_of": "heart"}, "along": "up"},
    "between": {"of": ["lung_left", "lung_right"], "within": "body"},
    "covered": {"of": "subdiaphragm", "by": "lungs"},
    "below": {"of": "lungs", "within": "body", "roof": "liver", "cushioned": "heart"},
    "mediastinal_compartment": {"of": "aorta", "part": "middle", "organs": ["heart"], "spine": "vertebrae"},
    "trachea_part": {"of": "trachea", "part": "above"},
    "aorta_part": {"of": "aorta", "part": "arch"},
    "course": {"of": "rib_left_4", "part": "anterior", "spine": "vertebrae", "sternum": "sternum"},
}
#: What no argument of a kind may be.
NEVER = {
    "region": [5, None, [], {}, "aortaa", {"dilat": {}}, ["aorta"]],
    "regions": [5, None, [], "aortaa", ["aorta", 5], ["aorta", "Aorta"]],
    "level": [
        None,
        "top",
        {},
        {"top_of": "haert"},
        {"top_of": "heart", "offset_mm": 1e4},
        float("nan"),
        True,
    ],
    "number": [None, "5", True, float("nan"), float("inf"), [5]],
    "integer": [None, "5", True, 1.5, 0, -1],
    "choice": [None, "nowhere", 5, ["left"]],
}
LENGTHS = [0, -3, -0.5, 1e6]
OUT_OF_RANGE = {"mm": LENGTHS, "mm3": [0, -3, 1e12], "hu": [1e6, -1e6, 30711, -10241]}


def read(recipe):
    return parse(recipe, load_catalog().resolve)


def wrong_values():
    for name, given in SOUND.items():
        for word, parameter in operators()[name].parameters.items():
            assert word in given, f"say what {name}: {word} may be"
            unit = word.rpartition("_")[2] if parameter.kind == "number" else ""
            for value in NEVER[parameter.kind] + OUT_OF_RANGE.get(unit, []):
                yield pytest.param(name, word, value, id=f"{name}-{word}-{value}")


def test_every_operator_has_a_sound_call():
    assert operators().keys() == SOUND.keys()
    for name, given in SOUND.items():
        assert read({name: given}).name == name


@pytest.mark.parametrize(("name", "word", "value"), list(wrong_values()))
def test_no_argument_takes_what_it_cannot_be(name, word, value):
    with pytest.raises(RecipeError) as caught:
        read({name: {**SOUND[name], word: value}})
    assert caught.value.path[:2] == (name, word)


@pytest.mark.parametrize("name", SOUND)
def test_what_is_needed_must_be_given(name):
    for word, parameter in operators()[name].parameters.items():
        if parameter.required:
            with pytest.raises(RecipeError, match=word):
                read({name: {k: v for k, v in SOUND[name].items() if k != word}})


# Sound one by one, and not together

HEART_TOP, HEART_FRONT = {"top_of": "heart"}, {"front_of": "heart"}
TOGETHER = [
    ("hu_window", {"from_hu": 200, "to_hu": 100}, "from_hu", "ends before it begins"),
    ("intersection", {"of": ["aorta"]}, "of", "intersection of one"),
    ("union", {"and_if_known": ["heart"]}, "and_if_known", "stands under `of` too"),
    ("difference", {"minus": ["aorta"]}, "minus", "nothing is left"),
    ("difference", {"minus_if_known": ["heart"]}, "minus_if_known", "stands under `minus` too"),
    ("difference", {"minus_if_known": ["aorta"]}, "minus_if_known", "nothing is left"),
    ("near", {"to": "aorta"}, "to", "near itself"),
    ("nearest_of", {"to": "spleen"}, "to", "none of the seeds"),
    ("nearest_of", {"seeds": ["liver"]}, "seeds", "two seeds"),
    ("between", {"of": ["lung_left"]}, "of", "takes two"),
    ("between", {"of": ["lung_left", "lung_right", "heart"]}, "of", "takes two"),
    ("between", {"within": "lung_left"}, "within", "between itself"),
    ("below", {"within": "lungs"}, "within", "below itself"),
    ("split", {"keep": "above", "at": HEART_FRONT}, "at", "front and back, and the cut is up and down"),
    ("split", {"keep": "behind", "at": HEART_TOP}, "at", "up and down, and the cut is front and back"),
    ("split", {"keep": "left_of", "at": HEART_TOP}, "at", "expected: for `keep: left_of`: left_of, right_of"),
    ("split", {"at": {"top_of": "aorta"}}, "at", "nothing is kept"),
    ("split", {"at": {"bottom_of": "aorta", "offset_mm": -3}}, "at", "everything is kept"),
    ("split", {"keep": "below", "at": {"top_of": "aorta", "offset_mm": 3}}, "at", "everything is kept"),
    ("slab", {"to": HEART_FRONT}, "to", "front and back, and the cut is up and down"),
    ("slab", {"along": "left"}, "from", "up and down, and the cut is left and right"),
    ("slab", {"from": 30, "to": 30}, "from", "ends where it begins"),
    ("slab", {"from": HEART_TOP, "to": HEART_TOP}, "from", "ends where it begins"),
    ("slab", {"from": HEART_TOP, "to": {"bottom_of": "heart"}}, "from", "ends where it begins"),
]


@pytest.mark.parametrize(("name", "change", "word", "what"), TOGETHER)
def test_arguments_that_do_not_go_together(name, change, word, what):
    with pytest.raises(RecipeError) as caught:
        read({name: {**SOUND[name], **change}})
    error = caught.value
    assert error.path == (name, word)
    assert what in f"{error.what} expected: {error.expected}"


def test_a_window_without_ends():
    with pytest.raises(RecipeError, match="without ends"):
        read({"hu_window": {"of": "aorta"}})


@pytest.mark.parametrize(
    "recipe",
    [
        {"split": {"of": "aorta", "keep": "below", "at": {"top_of": "aorta", "offset_mm": -20}}},
        {"split": {"of": "aorta", "keep": "in_front_of", "at": {"carina_of": "trachea"}}},
        {"split": {"of": "aorta", "keep": "right_of", "at": 12.5}},
        {"slab": {"of": "aorta", "from": {"top_of": "heart", "offset_mm": -20}, "to": HEART_TOP}},
        {"slab": {"of": "aorta", "from": HEART_TOP, "to": {"bottom_of": "heart", "offset_mm": 30}}},
        {"slab": {"of": "aorta", "from": -5, "to": {"centre_of": "heart"}}},
        {"hu_window": {"of": "aorta", "from_hu": 130}},
        {"hu_window": {"of": "aorta", "from_hu": 130, "to_hu": 130}},
    ],
)
def test_what_may_be_right_is_not_refused(recipe):
    assert read(recipe).operator


def test_an_operator_of_ones_own_can_refuse_too():
    def check(given):
        if given["a_mm"] > given["b_mm"]:
            raise BadArgument("a_mm", "too long", expected="a_mm at most b_mm")

    @operator(check=check)
    def mine(scene: Scene, of: Region, a_mm: float, b_mm: float) -> Region:
        """Nothing."""
        return of

    assert mine.__paxray_operator__.check is check


# In a file


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        (
            "  mine:\n    group: own\n    recipe:\n      between: {of: [aorta], within: body}\n",
            "5: classes.mine.recipe.between.of",
            "takes two",
        ),
        (
            "  mine:\n    group: own\n    recipe:\n      union:\n        - aorta\n        - heart\n        - aorta\n",
            "5: classes.mine.recipe.union.of.2",
            "stands twice",
        ),
        (
            "  mine: {group: own, film: {of: heart, not_hidden_by: [heart]}}\n",
            "2: classes.mine.film.not_hidden_by",
            "hides itself",
        ),
        ("  mine: {group: own, parts: [heart, heart]}\n", "2: classes.mine.parts", "twice"),
        ("  mine: {group: own, mirror: heart}\n", "2: classes.mine.mirror", "does not point back"),
        ("  windpipe: {group: own}\n", "2: classes.windpipe", "already means 'trachea', as its synonym"),
        ("  {}\n", "1: classes", "not a mapping of classes"),
        (
            "  mine:\n    group: own\n    recipe:\n      split:\n        of: body\n        keep: above\n"
            "        at: {carina_of: {union: [heart, aorta]}}\n",
            "8: classes.mine.recipe.split.at.carina_of",
            "only an airway has a carina",
        ),
        (
            "  mine:\n    group: own\n    recipe:\n      fill:\n        of: {trachea_part: {of: aorta, part: above}}\n"
            "        per: volume\n",
            "6: classes.mine.recipe.fill.of.trachea_part.of",
            "only an airway has a carina",
        ),
        (
            "  mine:\n    group: own\n    recipe:\n      hu_window: {of: aorta, from_hu: 40000}\n",
            "5: classes.mine.recipe.hu_window.from_hu",
            "no CT holds such HU",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_line_and_key(tmp_path, text, place, what):
    path = tmp_path / "mine.yaml"
    path.write_text("classes:\n" + text)
    with pytest.raises(ConfigError) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}:{place}")
    assert what in str(caught.value)


def test_check_says_file_and_line(tmp_path):
    """A field of a built-in class is wrong where the own file gives it; what the file leaves, where it stood."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes:\n"
        "  aorta: {synonyms: [the big vessel]}\n"
        "  mine:\n"
        "    group: vessel\n"
        "    colour: [200, 200, 200]\n"
        "    snomed: {code: 15825003, meaning: Aortic structure, source: pydicom codes.SCT}\n"
        "  other:\n"
        "    group: vessel\n"
        "    colour: [201, 200, 200]\n"
    )
    catalog = load_catalog(path)
    code, colour = check_catalog(catalog)
    assert code.startswith(f"{path}:6: classes.mine.snomed: 15825003")
    assert colour.startswith(f"{path}:9: classes.other.colour: (201, 200, 200) can hardly be told")
    assert catalog.place("aorta", "synonyms") == f"{path}:2: classes.aorta.synonyms"
    assert catalog.place("aorta", "colour").startswith("vessels.yaml:")


def test_a_carina_of_airways_by_any_name(tmp_path):
    """Of a union with the trachea, of what is made of airways, and of a class that only its author knows."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes:\n"
        "  tubes: {group: own, recipe: {hu_window: {of: body, to_hu: -900}}}\n"
        "  a: {group: own, recipe: {split: {of: body, keep: above, at: {carina_of: tubes}}}}\n"
        "  b: {group: own, recipe: {split: {of: body, keep: above, at: {carina_of: bronchi_main}}}}\n"
        "  c: {group: own, recipe: {trachea_part: {of: {union: [trachea, bronchi_main]}, part: above}}}\n"
    )
    assert {"a", "b", "c"} <= load_catalog(path).keys()


def test_windows_that_usual_cts_leave_empty_are_noted(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes:\n"
        "  steel:\n"
        "    group: own\n"
        "    recipe:\n"
        "      union:\n"
        "        - hip_implant\n"
        "        - hu_window: {of: body, from_hu: 10000}\n"
        "  gap: {group: own, recipe: {hu_window: {of: body, to_hu: -1025}}}\n"
        "  open: {group: own, recipe: {hu_window: {of: body, from_hu: 3071, to_hu: 20000}}}\n"
    )
    catalog = load_catalog(path)
    added, _group, *notes = notes_on_own(catalog)
    assert added == "adds steel, gap, open"
    assert len(notes) == 2
    assert notes[0].startswith(
        f"{path}:7: classes.steel.recipe.union.1.hu_window.from_hu: 10000 HU lies beyond"
    )
    assert notes[1].startswith(f"{path}:8: classes.gap.recipe.hu_window.to_hu: -1025 HU lies beyond")
    assert check_catalog(catalog) == []


def test_no_code_is_written_as_null(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes:\n  aorta: {snomed: null}\n  mine: {group: own, snomed: null, colour: [250, 0, 250]}\n"
    )
    catalog = load_catalog(path)
    assert load_catalog()["aorta"].snomed_ct
    for name in ("aorta", "mine"):
        item = catalog[name]
        assert item.snomed_ct == item.snomed_meaning == item.snomed_laterality == item.code_source == ""
    assert check_catalog(catalog) == []
