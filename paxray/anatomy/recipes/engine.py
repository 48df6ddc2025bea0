"""Recipes computed: the classes asked for and what they need, each once, in the boxes where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.recipes.graph import Graph
from paxray.anatomy.recipes.parse import LevelNode, Node, class_node
from paxray.anatomy.recipes.region import Level, Region, Underivable, join, union_of
from paxray.anatomy.recipes.scene import Scene
from paxray.anatomy.unions import KNOWN
from paxray.anatomy.unions import derive as derive_unions
from paxray.anatomy.voxels import Int64, look_up, value_boxes
from paxray.errors import CaseError
from paxray.io.volume import Volume

#: Entered around the making of each node, which may make others inside.
Watch = Callable[[Node], AbstractContextManager[None]]


def _nobody(node: Node) -> AbstractContextManager[None]:
    return nullcontext()


def derive(
    labels: LabelVolume,
    catalog: Catalog,
    ct: Volume | None = None,
    names: Iterable[str] | None = None,
    *,
    unscanned: str = "unscanned",
    threads: int = 0,
    watch: Watch = _nobody,
    withheld: Mapping[str, str] | None = None,
) -> LabelVolume:
    """Add the catalog's derived classes to a label volume: recipes first, then unions.

    A class that a source names stays as the source drew it; otherwise its recipe is computed. Both are then closed over
    their parts (`paxray.anatomy.unions.derive`, which also says what status a union has).

    Parameters
    ----------
    labels
        Classes with sources of their own.
    catalog
        What is made of what.
    ct
        HU on the labels' lattice. Without it, what needs HU is unknown.
    names
        Classes wanted, synonyms allowed; by default all. Recipes that none of them needs are not computed.
    unscanned
        The class of voxels that the scanner did not reconstruct, if there is one: there, anatomy goes on unseen.
    threads
        For distance transforms; 0 takes as many as there are processors.
    watch
        To measure what a class costs.
    withheld
        Classes of which nothing may be known, none of them in `labels`, with the reason: their own recipes are not
        followed, and what needs them gives the reason.

    Returns
    -------
    Labels with `LabelVolume.notes` saying why a class is unknown, or what stood in for a landmark.

    Raises
    ------
    CaseError
        The CT has another lattice (code ``bad_labels``).
    RecipeError
        A recipe cannot be used as written; `load_catalog` refuses such a catalog.
    """
    if ct is not None and ct.shape != labels.shape:
        raise CaseError(
            "the CT has another shape than the labels",
            expected=str(labels.shape),
            found=str(ct.shape),
            code="bad_labels",
        )
    if ct is not None and not np.allclose(ct.affine, labels.affine, rtol=0, atol=1e-6):
        raise CaseError(
            "the CT lies elsewhere than the labels",
            expected=f"affine {labels.affine.tolist()}",
            found=str(ct.affine.tolist()),
            do="read the masks with this CT: paxray.read_masks(..., ct)",
            code="bad_labels",
        )
    graph = catalog.graph
    wanted = list(catalog) if names is None else [catalog.resolve(name) for name in names]
    run = _Run(labels, catalog, graph, ct, unscanned, threads, watch, withheld or {})
    made = run.make(wanted)
    told = dict(labels.notes)
    notes = {name: "; ".join(region.notes) for name, region in made.items() if region.notes}
    was_known = {name for name, status in labels.status.items() if status is not Status.UNKNOWN}
    if names is not None:
        films = (name for name in wanted if name in catalog and catalog[name].film is not None)
        notes |= dict.fromkeys(films, "a class of the film: it has pixels in a view and no voxels")
    for name, region in made.items():
        made[name] = replace(region, notes=())
    if made:
        builder = LabelBuilder.resume(labels, without=tuple(made))
        for name, region in made.items():
            if region.known:
                builder.add_mask(name, region.box, region.mask, status=region.status)
        known = [name for name, region in made.items() if region.known]
        kept = [name for name in labels.names if name not in made]
        labels = builder.build(labels.affine, [*kept, *known])
    extra = {name for name in wanted if name in catalog} if names is not None else None
    derived = derive_unions(labels, catalog, extra)
    # Why a source cannot tell of a class says nothing of one that was made nevertheless, and more than why its recipe
    # cannot either.
    still = {n for n in told if n in was_known or derived.status.get(n, Status.UNKNOWN) is Status.UNKNOWN}
    notes |= {name: told[name] for name in told if name in still}
    return replace(derived, notes=notes)._keep_counts(derived.atom_counts())


class _Run:
    """One case's evaluation. Results are dropped as soon as nobody needs them any more."""

    def __init__(
        self,
        labels: LabelVolume,
        catalog: Catalog,
        graph: Graph,
        ct: Volume | None,
        unscanned: str,
        threads: int,
        watch: Watch,
        withheld: Mapping[str, str],
    ) -> None:
        self._withheld = withheld
        self._labels, self._catalog, self._graph = labels, catalog, graph
        self._cache: dict[str, Region] = {}
        self._uses: Counter[str] = Counter()
        self._hu = None if ct is None else ct.array
        self._unscanned, self._threads, self._watch = unscanned, threads, watch

    def make(self, wanted: Iterable[str]) -> dict[str, Region]:
        """The regions of all classes that come from recipes, among those wanted and their parts."""
        recipes: dict[str, Node] = {
            name: node
            for name in self._with_parts(wanted)
            if self._by_recipe(name) and (node := self._graph.recipe(name)) is not None
        }
        for node in recipes.values():
            self._count(node)
        made = {}
        for name, node in recipes.items():
            made[name] = self._get(node)
            self._release(node)
        return made

    def _with_parts(self, wanted: Iterable[str]) -> list[str]:
        """Wanted classes and all that their unions are made of, in catalog order."""
        reached: set[str] = set()
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name not in reached:
                reached.add(name)
                stack += self._graph.proper_parts(name)
        return [name for name in self._catalog if name in reached]

    def _by_recipe(self, name: str) -> bool:
        """Whether the class's recipe is used: it has one, no source names it, and it is not withheld."""
        if name in self._withheld:
            return False
        unknown = self._labels.status.get(name, Status.UNKNOWN) is Status.UNKNOWN
        return unknown and self._graph.recipe(name) is not None

    # Results by node, and who still needs them

    def _needs(self, node: Node) -> list[Node]:
        """The nodes that a node is computed from, each once."""
        if node.operator is not None:
            return list(node.children())
        if node.name in self._plain:
            return []
        needs = [class_node(part) for part in self._graph.proper_parts(node.name)]
        recipe = self._graph.recipe(node.name) if self._by_recipe(node.name) else None
        return [*needs, recipe] if recipe is not None else needs

    def _count(self, node: Node) -> None:
        self._uses[node.key] += 1
        if self._uses[node.key] == 1:
            for child in self._needs(node):
                self._count(child)

    def _release(self, node: Node) -> None:
        self._uses[node.key] -= 1
        if self._uses[node.key] <= 0:
            self._cache.pop(node.key, None)

    def _get(self, node: Node) -> Region:
        if node.key not in self._cache:
            with self._watch(node):
                made = self._class(node.name) if node.operator is None else self._call(node)
            self._cache[node.key] = made
            for child in self._needs(node):
                self._release(child)
        return self._cache[node.key]

    # Classes

    @cached_property
    def _plain(self) -> frozenset[str]:
        """Classes for which no recipe is used, nor for anything that they are made of: the table has them."""
        plain: dict[str, bool] = {}

        def judge(name: str) -> bool:
            if name not in plain:
                parts = self._graph.proper_parts(name)
                plain[name] = not self._by_recipe(name) and all(judge(part) for part in parts)
            return plain[name]

        return frozenset(name for name in self._catalog if judge(name))

    @cached_property
    def _table(self) -> LabelVolume:
        return derive_unions(self._labels, self._catalog, self._plain)

    @cached_property
    def _scene(self) -> Scene:
        given = self._unscanned in self._labels.names
        beyond = self._drawn(self._labels, self._unscanned) if given else None
        return Scene(self._labels.grid, self._hu, beyond, self._threads)

    @cached_property
    def _atom_boxes(self) -> Int64:
        return value_boxes(self._labels.atoms, len(self._labels.membership))

    def _drawn(self, labels: LabelVolume, name: str) -> Region:
        """A class of a table, cut to its box."""
        status = labels.status[name]
        column = np.ascontiguousarray(labels.membership[:, labels.index(name)])
        used = np.flatnonzero(column & (self._labels.atom_counts() > 0))
        box = join(
            (slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1))
            for (i0, j0, k0), (i1, j1, k1) in self._atom_boxes[used].tolist()
        )
        if status is Status.UNKNOWN:
            return Region.nothing(status, self._why_unknown(name))
        return Region(box, look_up(column, self._labels.atoms[box]), status)

    def _why_unknown(self, name: str) -> str:
        why = self._withheld.get(name)
        return f"nothing looked for '{name}'" if why is None else f"'{name}' was {why}"

    def _class(self, name: str) -> Region:
        """A class as recipes see it: source or recipe, closed over the parts that do not come from it."""
        if name in self._plain:
            return self._drawn(self._table, name)
        graph, status = self._graph, self._labels.status.get(name, Status.UNKNOWN)
        if self._by_recipe(name):
            recipe = graph.recipe(name)
            assert recipe is not None
            own = self._get(recipe)
        elif status is not Status.UNKNOWN:
            own = self._drawn(self._labels, name)
        else:
            own = Region.nothing(Status.UNKNOWN)
        parts = {part: self._get(class_node(part)) for part in graph.proper_parts(name)}
        if not parts:
            return own
        required = [
            region for part, region in parts.items() if region.known or not self._catalog[part].optional
        ]
        # What a recipe that cannot be computed would have added to the parts is missing.
        made_of_parts = (
            bool(required) and not self._by_recipe(name) and not self._catalog[name].more_than_parts
        )
        whole = own.status in KNOWN or (made_of_parts and all(r.status in KNOWN for r in required))
        both = union_of([own, *parts.values()])
        if both.empty:
            return Region.nothing(Status.ABSENT) if whole else Region.nothing(Status.UNKNOWN, *both.notes)
        return replace(both, status=Status.PRESENT if whole else Status.PARTIAL)

    # Operators

    def _call(self, node: Node) -> Region:
        assert node.operator is not None
        given: dict[str, Any] = {}
        inputs: list[Region] = []
        left_out: list[str] = []
        material: list[Region] = []  # whose voxels the outcome is made of
        for word, value in node.arguments.items():
            parameter = node.operator.parameters[word]
            if isinstance(value, Node):
                region = self._get(value)
                lacking = not region.known
                if lacking and parameter.may_be_unknown:
                    given[word] = None
                    left_out += value.classes()
                    continue
                given[word] = region
                inputs.append(region)
                material += [] if parameter.landmark else [region]
            elif isinstance(value, tuple):
                given[word] = [self._get(item) for item in value]
                if parameter.may_be_unknown:
                    left_out += [
                        name for item in value if not self._get(item).known for name in item.classes()
                    ]
                    given[word] = [region for region in given[word] if region.known]
                inputs += given[word]
                material += [] if parameter.landmark else given[word]
            elif isinstance(value, LevelNode):
                of = None if value.of is None else self._get(value.of)
                given[word] = Level(value.kind, of, value.offset_mm)
                inputs += [] if of is None else [of]
            else:
                given[word] = value
        missing = [note for region in inputs if not region.known for note in region.notes]
        if not node.operator.tolerant and any(not region.known for region in inputs):
            return Region.nothing(Status.UNKNOWN, *dict.fromkeys(missing))
        notes = [f"made without '{name}', of which nothing is known" for name in left_out]
        try:
            made = node.operator.run(self._scene, given)
        except Underivable as error:
            return Region.nothing(Status.UNKNOWN, str(error))
        notes = list(dict.fromkeys([note for r in (*inputs, made) for note in r.notes] + notes))
        if node.operator.tolerant:
            return replace(made, notes=tuple(notes))
        partial = any(region.status is Status.PARTIAL for region in material)
        if made.empty and partial:
            return Region.nothing(
                Status.UNKNOWN, *notes, "nothing was found, and not all that it is made of is known"
            )
        if made.empty:
            return Region.nothing(Status.ABSENT, *notes)
        return replace(made, status=Status.PARTIAL if partial else Status.PRESENT, notes=tuple(notes))
