"""What depends on what in a catalog: recipes' inputs, divisions, circles."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache, cached_property

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.recipes.parse import Node, RecipeError, parse


class Graph:
    """The recipes of a catalog and how its classes depend on each other.

    Raises
    ------
    RecipeError
        On first use of a recipe that cannot be used as written.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._nodes: dict[str, Node | None] = {}
        self._inputs: dict[str, tuple[str, ...]] = {}

    def recipe(self, name: str) -> Node | None:
        """The recipe of a class, or None."""
        if name not in self._nodes:
            item = self._catalog.get(name)
            written = item.recipe if item else None
            self._nodes[name] = None if written is None else parse(written, self._catalog.resolve)
        return self._nodes[name]

    @cached_property
    def divisions(self) -> frozenset[tuple[str, str]]:
        """Pairs (parent, part) of which the part's recipe starts from the parent, so that the parent is there first."""
        reached = {name: self._reach(name) for name in self._catalog if self.recipe(name) is not None}
        return frozenset(
            (name, part)
            for name, item in self._catalog.items()
            for part in item.parts
            if name in reached.get(part, ())
        )

    def proper_parts(self, name: str) -> tuple[str, ...]:
        """The parts that a class is made of: all but its divisions."""
        item = self._catalog.get(name)
        return tuple(p for p in (item.parts if item else ()) if (name, p) not in self.divisions)

    def inputs(self, name: str) -> tuple[str, ...]:
        """The classes that a class's recipe names, or that a class of the film is made from."""
        if name not in self._inputs:
            item, node = self._catalog.get(name), self.recipe(name)
            made_of = () if node is None else tuple(node.classes())
            self._inputs[name] = made_of if item is None or item.film is None else item.film.inputs
        return self._inputs[name]

    def circle(self) -> tuple[str, ...]:
        """Classes that need each other in a circle, the first one repeated at the end; empty without one."""
        done: set[str] = set()

        def walk(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
            if name in path:
                return (*path[path.index(name) :], name)
            if name in done:
                return ()
            for needed in (*self.inputs(name), *self.proper_parts(name)):
                if found := walk(needed, (*path, name)):
                    return found
            done.add(name)
            return ()

        return next((found for name in self._catalog if (found := walk(name, ()))), ())

    def below(self, names: Iterable[str]) -> set[str]:
        """The classes themselves with everything that their voxels depend on."""
        below: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name not in below:
                below.add(name)
                item = self._catalog.get(name)
                stack += [*self.inputs(name), *(item.parts if item else ())]
        return below

    def free_of(self, recipes: Collection[str]) -> list[str]:
        """The classes, in catalog order, that none of these classes' recipes has to make."""
        barred = set(recipes)

        @cache
        def free(name: str) -> bool:
            return name not in barred and all(map(free, (*self.inputs(name), *self.proper_parts(name))))

        return [name for name in self._catalog if free(name)]

    def _reach(self, name: str) -> set[str]:
        """The classes that a class with a recipe depends on, itself only if in a circle."""
        return self.below(self.inputs(name))


def recipe_problem(graph: Graph, name: str) -> RecipeError | None:
    """What is wrong with one class's recipe, if anything."""
    try:
        graph.recipe(name)
    except RecipeError as error:
        return error
    return None
