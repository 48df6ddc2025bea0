"""Which classes can come out of given masks."""

from __future__ import annotations

from collections.abc import Iterable

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.recipes.parse import LevelNode, Node


def reachable(catalog: Catalog, given: Iterable[str]) -> frozenset[str]:
    """Return the classes that are known where those in `given` are: given, derived, or unions of such.

    A recipe that needs a landmark may still not find it in a case, and its class is then unknown there.

    Parameters
    ----------
    given
        Names or synonyms of classes that have sources of their own.
    """
    sources = set(map(catalog.resolve, given))
    known = dict.fromkeys(sources, True)

    def reach(name: str) -> bool:
        if name not in known:
            recipe, film = catalog.graph.recipe(name), catalog[name].film
            if film is not None:
                known[name] = all(map(reach, film.inputs))
                return known[name]
            proper = catalog.graph.proper_parts(name)
            # A division is cut out of the class itself, and so helps to make it only where it is given.
            parts = {part: reach(part) if part in proper else part in sources for part in catalog[name].parts}
            # A recipe adds to the proper parts, so that these alone do not make the class.
            divided = len(proper) < len(parts)
            groups = (proper, tuple(parts)) if recipe is None else (tuple(parts),) if divided else ()
            made = [
                [parts[part] for part in some if parts[part] or not catalog[part].optional] for some in groups
            ]
            known[name] = (recipe is not None and can(recipe)) or any(all(found) for found in made if found)
        return known[name]

    def can(node: Node) -> bool:
        if node.operator is None:
            return reach(node.name)
        for word, value in node.arguments.items():
            for item in value if isinstance(value, tuple) else (value,):
                needed = item.of if isinstance(item, LevelNode) else item
                optional = node.operator.parameters[word].may_be_unknown
                if isinstance(needed, Node) and not optional and not can(needed):
                    return False
        return True

    return frozenset(name for name in catalog if reach(name))
