"""Small validators that together say whether a catalog is sound."""

from __future__ import annotations

import csv
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paxray.anatomy.anatomy_class import LATERALITY_CODES
from paxray.anatomy.catalog import DATA_FOLDER, Catalog, load_catalog, normal_word
from paxray.anatomy.vocabulary import vocabulary_names
from paxray.errors import suggest

TOTALSEGMENTATOR_MAPPING = "TotalSegmentator mapping"
PYDICOM_CODES = "pydicom codes.SCT"
#: Least distance in CIE L*a*b* (1976) between two colours of a group; some 2.3 is what an eye just notices.
COLOUR_DISTANCE = 5.0
#: What paxray's own segmenter draws, which no vocabulary names.
SEGMENTED = ("body",)
#: Of a class that only a source can draw.
NOT_DERIVED = "it has no recipe and no parts: only a mask file can bring it"
_OPPOSITE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a class: its name, the catalog file's key concerned (with dots), what it is, what to do."""

    name: str
    key: str
    what: str
    do: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.key}: {self.what}" + (f" ({self.do})" if self.do else "")


def check_catalog(catalog: Catalog) -> list[str]:
    """Return everything that is wrong with a catalog, one sentence each, with file and line; empty for a sound one.

    Besides the structure, each code is looked up in the source that it says it comes from, colours of a group
    must be distinct to the eye, and something must be able to make each built-in class.
    """
    problems = structural_problems(catalog)
    # What follows walks from class to class, and so needs a sound structure.
    if not problems:
        problems = [problem for check in _FURTHER for problem in check(catalog)]
    return [_with_place(catalog, problem) for problem in problems]


def _with_place(catalog: Catalog, problem: Problem) -> str:
    """``file:line: classes.NAME.key: what``; a class from no file by its name."""
    place = catalog.place(problem.name, problem.key)
    return f"{place}: {problem.what}" + (f" ({problem.do})" if problem.do else "") if place else str(problem)


def notes_on_own(own: Catalog) -> list[str]:
    """Return what a user's files do to the built-in catalog, a sentence each: what is sound and may not be meant."""
    from paxray.anatomy.recipes.sense import doubtful

    standard = load_catalog()
    groups = {item.group for item in standard.values()}
    notes = []
    if added := [name for name in own if name not in standard]:
        notes.append(f"adds {', '.join(added)}")
    for name, item in standard.items():
        fields = [
            f.name for f in dataclasses.fields(item) if getattr(item, f.name) != getattr(own[name], f.name)
        ]
        if fields:
            notes.append(f"changes {name}, a built-in class: {', '.join(fields)}")
    for group in dict.fromkeys(item.group for item in own.values() if item.group not in groups):
        notes.append(f"'{group}' is a new group. {suggest(group, groups)}".rstrip())
    for name in added:
        if not own[name].parts and own[name].recipe is None and own[name].film is None:
            notes.append(f"{name}: {NOT_DERIVED}")
    for name, item in own.items():
        for path, what in doubtful(item):
            notes.append(f"{own.place(name, '.'.join(map(str, path))) or name}: {what}")
    return notes


def structural_problems(catalog: Catalog) -> list[Problem]:
    """Return what is wrong with the catalog in itself, without looking codes up anywhere."""
    return [problem for check in _STRUCTURE for problem in check(catalog)]


def _words_are_unique(catalog: Catalog) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    place = {name: n for n, name in enumerate(catalog)}
    for name in catalog:
        other = owner.setdefault(normal_word(name), name)
        if other != name:
            yield Problem(name, "", f"is '{other}' in another spelling")
    for name, item in catalog.items():
        for word in item.synonyms:
            other = owner.setdefault(normal_word(word), name)
            if other != name and normal_word(word) == normal_word(other) and place[other] > place[name]:
                # The one that stands later took the other's word for its name.
                what = f"'{word}' already means '{name}', as its synonym"
                yield Problem(other, "", what, f"to change that class, write '{name}'")
            elif other != name:
                yield Problem(name, "synonyms", f"'{word}' already means '{other}'")


def _parts_are_known(catalog: Catalog) -> Iterator[Problem]:
    for name, item in catalog.items():
        for part in item.parts:
            if part not in catalog:
                yield Problem(name, "parts", f"there is no class '{part}'", suggest(part, catalog))
        if len(set(item.parts)) != len(item.parts):
            yield Problem(name, "parts", "a part stands twice")


def _no_cycle(catalog: Catalog) -> Iterator[Problem]:
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done or name not in catalog:
            return ()
        for part in catalog[name].parts:
            if found := walk(part, (*path, name)):
                return found
        done.add(name)
        return ()

    for name in catalog:
        if found := walk(name, ()):
            yield Problem(name, "parts", f"is a part of itself: {' > '.join(found)}")
            return  # every class above the cycle would report it again


def _recipes_resolve(catalog: Catalog) -> Iterator[Problem]:
    from paxray.anatomy.recipes.graph import recipe_problem

    sound = True
    for name in catalog:
        error = recipe_problem(catalog.graph, name)
        if error is not None:
            sound = False
            key = ".".join(map(str, ("recipe", *error.path)))
            yield Problem(name, key, error.what, error.do, error.expected, error.found)
    if sound and not any(_no_cycle(catalog)) and (circle := catalog.graph.circle()):
        yield Problem(circle[0], "recipe", f"needs itself: {' -> '.join(circle)}")


def _recipes_make_sense(catalog: Catalog) -> Iterator[Problem]:
    from paxray.anatomy.recipes.graph import recipe_problem
    from paxray.anatomy.recipes.sense import senseless

    for name, item in catalog.items():
        if recipe_problem(catalog.graph, name) is None and (
            error := senseless(item, catalog, load_catalog())
        ):
            key = ".".join(map(str, error.path))
            yield Problem(name, key, error.what, error.do, error.expected, error.found)


def _films_resolve(catalog: Catalog) -> Iterator[Problem]:
    """A class of the film is made from classes that have voxels, and nothing that has voxels from it."""
    from paxray.anatomy.recipes.graph import recipe_problem

    films = {name for name, item in catalog.items() if item.film is not None}
    for name, item in catalog.items():
        if item.film is not None:
            if item.parts or item.recipe is not None:
                yield Problem(name, "film", "a class of the film has no voxels, so neither parts nor recipe")
            for other in item.film.inputs:
                if other not in catalog:
                    yield Problem(name, "film", f"there is no class '{other}'", suggest(other, catalog))
                elif other in films:
                    yield Problem(name, "film", f"'{other}' is of the film itself and has no voxels")
            continue
        sound = item.recipe is not None and recipe_problem(catalog.graph, name) is None
        for key, used in (("parts", item.parts), ("recipe", catalog.graph.inputs(name) if sound else ())):
            for other in sorted(films.intersection(used)):
                yield Problem(name, key, f"'{other}' is of the film and has no voxels")


def _twins_agree(catalog: Catalog) -> Iterator[Problem]:
    for name, item in catalog.items():
        if not item.mirror:
            continue
        twin = catalog.get(item.mirror)
        if twin is None:
            yield Problem(name, "mirror", f"there is no class '{item.mirror}'", suggest(item.mirror, catalog))
        elif twin.mirror != name:
            yield Problem(name, "mirror", f"'{twin.name}' does not point back but to '{twin.mirror}'")
        elif _OPPOSITE.get(item.laterality) != twin.laterality:
            yield Problem(name, "laterality", f"'{item.laterality}' and the twin's '{twin.laterality}'")


def _parts_lie_on_their_side(catalog: Catalog) -> Iterator[Problem]:
    for name, item in catalog.items():
        for part in item.parts:
            if part in catalog and item.laterality and catalog[part].laterality == _OPPOSITE[item.laterality]:
                yield Problem(name, "parts", f"lies on the {item.laterality}, and its part '{part}' does not")


def _groups_are_words(catalog: Catalog) -> Iterator[Problem]:
    for name, item in catalog.items():
        if not re.fullmatch(r"[a-z][a-z_]*", item.group):
            yield Problem(name, "group", f"'{item.group}' is not a lower-case word")


def _colours_are_valid(catalog: Catalog) -> Iterator[Problem]:
    for name, item in catalog.items():
        if len(item.colour) != 3 or not all(0 <= level <= 255 for level in item.colour):
            yield Problem(name, "colour", f"{item.colour} is not an 8-bit RGB colour")
        elif max(item.colour) < 100:
            yield Problem(name, "colour", f"{item.colour} cannot be seen on a radiograph", "brighten it")


def _codes_are_well_formed(catalog: Catalog) -> Iterator[Problem]:
    sides = {code: side for side, code in LATERALITY_CODES.items()}
    for name, item in catalog.items():
        if not item.snomed_ct:
            if item.snomed_meaning or item.snomed_laterality or item.code_source:
                yield Problem(name, "snomed", "a meaning, modifier or source without a code")
            continue
        if not item.code_source or not item.snomed_meaning:
            yield Problem(name, "snomed", "a code without its source or meaning")
        if not is_snomed_id(item.snomed_ct):
            yield Problem(
                name, "snomed", f"'{item.snomed_ct}' is not a SNOMED CT identifier: its check digit is wrong"
            )
        if item.snomed_laterality:
            side = sides.get(item.snomed_laterality)
            if side is None or ("" if side == "bilateral" else side) != item.laterality:
                yield Problem(
                    name,
                    "snomed",
                    f"modifier {item.snomed_laterality} does not fit laterality '{item.laterality}'",
                )


_STRUCTURE: tuple[Callable[[Catalog], Iterator[Problem]], ...] = (
    _words_are_unique,
    _parts_are_known,
    _no_cycle,
    _recipes_resolve,
    _recipes_make_sense,
    _films_resolve,
    _twins_agree,
    _parts_lie_on_their_side,
    _groups_are_words,
    _colours_are_valid,
    _codes_are_well_formed,
)


def _codes_stand_in_source(catalog: Catalog) -> Iterator[Problem]:
    """Look each code up in the source it names, which must be one that can be looked up."""
    tables = {TOTALSEGMENTATOR_MAPPING: totalsegmentator_codes, PYDICOM_CODES: _pydicom_codes}
    for name, item in catalog.items():
        if not item.snomed_ct:
            continue
        table = tables.get(item.code_source)
        if table is None:
            yield Problem(
                name,
                "snomed",
                f"'{item.code_source}' is no source that codes can be looked up in",
                f"name {' or '.join(tables)}, or leave the code away",
            )
        elif (item.snomed_ct, item.snomed_meaning) not in table():
            yield Problem(
                name,
                "snomed",
                f"{item.snomed_ct} '{item.snomed_meaning}' does not stand in {item.code_source}",
            )


def _colours_can_be_told_apart(catalog: Catalog) -> Iterator[Problem]:
    """Compare the colours of each group's classes in CIE L*a*b*, where distance is what the eye sees."""
    import numpy as np
    from skimage.color import rgb2lab

    groups: dict[str, list[str]] = {}
    for name, item in catalog.items():
        groups.setdefault(item.group, []).append(name)
    for names in groups.values():
        lab = rgb2lab(np.array([[catalog[name].colour for name in names]]) / 255)[0]
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
        for later, earlier in np.argwhere(np.tril(apart < COLOUR_DISTANCE, -1)).tolist():
            if catalog.written_as_numbered(names[later], names[earlier]):
                continue  # one entry with one colour for a whole series, as its author wrote it
            yield Problem(
                names[later],
                "colour",
                f"{catalog[names[later]].colour} can hardly be told from that of '{names[earlier]}', of the same group",
                f"a distance of {COLOUR_DISTANCE:g} in CIE L*a*b* at least; here {apart[later, earlier]:.1f}",
            )


def _every_class_can_be_made(catalog: Catalog) -> Iterator[Problem]:
    """A built-in class that no vocabulary names needs a recipe, or a part that can be made.

    A class of a user's own may come from a mask file of its name, and is not asked for more; lesions come with a case
    that names them.
    """
    from paxray.anatomy.channels import load_channels

    made = set(SEGMENTED) | {
        name for name, item in catalog.items() if item.recipe is not None or item.film is not None
    }
    for vocabulary in vocabulary_names():
        made.update(load_channels(vocabulary, catalog=catalog).classes)
    for name in load_catalog():
        given = name in catalog and catalog[name].group == "lesion"
        if (
            name in catalog
            and not given
            and not made.intersection((name, *catalog[name].parts, *catalog.leaves(name)))
        ):
            yield Problem(
                name,
                "recipe",
                "nothing can make it: no vocabulary names it, and neither it nor its parts have a recipe",
            )


_FURTHER: tuple[Callable[[Catalog], Iterator[Problem]], ...] = (
    _codes_stand_in_source,
    _colours_can_be_told_apart,
    _every_class_can_be_made,
)


@functools.cache
def totalsegmentator_codes() -> frozenset[tuple[str, str]]:
    """Codes and meanings of TotalSegmentator's SNOMED CT mapping (``totalsegmentator_codes.csv``)."""
    with (DATA_FOLDER / "totalsegmentator_codes.csv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(line for line in stream if not line.startswith("#"))
        return frozenset((row["code"], row["meaning"]) for row in rows)


@functools.cache
def _pydicom_codes() -> frozenset[tuple[str, str]]:
    from pydicom.sr.codedict import codes

    return frozenset((concept.value, concept.meaning) for concept in codes.SCT.concepts.values())


# Verhoeff's scheme, SNOMED CT Release File Specifications, "Check-digit".
_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _dihedral_product(a: int, b: int) -> int:
    """Multiply in the symmetry group of the pentagon: 0 to 4 are rotations, 5 to 9 reflections."""
    turned = (a - b if a >= 5 else a + b) % 5
    return turned + (5 if (a >= 5) != (b >= 5) else 0)


def is_snomed_id(text: str) -> bool:
    """Say whether ``text`` is a SNOMED CT identifier: 6 to 18 digits that end in the right check digit."""
    if not re.fullmatch(r"[1-9][0-9]{5,17}", text):
        return False
    check = 0
    for position, digit in enumerate(reversed(text)):
        value = int(digit)
        for _ in range(position % 8):
            value = _PERMUTATION[value]
        check = _dihedral_product(check, value)
    return check == 0
