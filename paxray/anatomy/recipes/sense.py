"""Recipes that can be computed and make no sense: known from what they name, before any case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paxray.anatomy.anatomy_class import AnatomyClass
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.recipes.parse import RecipeError, parse

#: What a CT of 12 bits holds, HU; more only on an extended scale.
USUAL_HU = (-1024.0, 3071.0)
#: The group of classes that have a carina.
AIRWAYS = "airways"


def senseless(
    item: AnatomyClass, catalog: Catalog, built_in: Mapping[str, AnatomyClass]
) -> RecipeError | None:
    """What in a class's recipe, sound in itself, can only be a mistake: the carina of what is no airway.

    A class of a user's own may be an airway under any name.
    """
    for path, word, given in _written(item.recipe, ("recipe",)):
        at, of = {
            "carina_of": (path, given),
            "trachea_part": ((*path, "of"), given.get("of") if isinstance(given, dict) else None),
        }.get(word, (path, None))
        if of is None:
            continue
        named = set(parse(of, catalog.resolve).classes())
        if named <= built_in.keys() and not any(
            catalog[part].group == AIRWAYS for name in named for part in (name, *catalog.leaves(name))
        ):
            return RecipeError(
                at,
                "only an airway has a carina",
                expected="trachea, airways, or a class made of them",
                found=", ".join(sorted(named)),
            )
    return None


def doubtful(item: AnatomyClass) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Where a class's recipe asks for what few CTs have, and why."""
    low, high = USUAL_HU
    for path, word, given in _written(item.recipe, ("recipe",)):
        if word != "hu_window":
            continue
        for end, empty in (("from_hu", lambda hu: hu > high), ("to_hu", lambda hu: hu < low)):
            if end in given and empty(given[end]):
                yield (
                    (*path, end),
                    f"{given[end]:g} HU lies beyond what a CT of 12 bits holds ({low:g} to {high:g} HU): the window "
                    "is empty in all but CTs of an extended scale",
                )


def _written(recipe: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str, Any]]:
    """Every key of a recipe as YAML writes it, with where it stands and what stands under it."""
    if isinstance(recipe, dict):
        for key, value in recipe.items():
            yield (*path, key), key, value
            yield from _written(value, (*path, key))
    elif isinstance(recipe, list):
        for n, value in enumerate(recipe):
            yield from _written(value, (*path, n))
