"""The anatomy classes: list, show, tree, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from paxray.cli.common import ClassesFile, Json, guarded, out
from paxray.errors import EXIT_USAGE, ConfigError

if TYPE_CHECKING:
    from paxray.anatomy.catalog import Catalog


def _catalog(classes: Path | None) -> Catalog:
    from paxray.anatomy.catalog import load_catalog

    return load_catalog(classes)


def _swatch(colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    return f"[#{red:02x}{green:02x}{blue:02x}]■[/]"


def _class_facts(catalog: Catalog, name: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(catalog[name]), "ancestors": list(catalog.ancestors(name))}


@guarded
def classes_list(
    group: Annotated[str, typer.Option(help="Only this group (lung, heart, rib, ...).")] = "",
    vocabulary: Annotated[str, typer.Option(help="Only the classes that this vocabulary names.")] = "",
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """List the classes known."""
    catalog = _catalog(classes)
    names = list(catalog)
    if vocabulary:
        from paxray.anatomy.vocabulary import load_vocabulary

        in_it = set(load_vocabulary(vocabulary, catalog=catalog).labels.values())
        names = [name for name in names if name in in_it]
    groups = sorted({item.group for item in catalog.values()})
    if group and group not in groups:
        raise ConfigError(f"no group '{group}'", expected=", ".join(groups))
    names = [name for name in names if not group or catalog[name].group == group]
    if as_json:
        print(json.dumps([_class_facts(catalog, name) for name in names]))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("class", "group", "parts", "SNOMED CT"):
        table.add_column(column)
    for name in names:
        item = catalog[name]
        swatch = _swatch(item.colour)
        parts = f"{len(item.parts)}" if item.parts else ""
        table.add_row(f"{swatch} {name}", item.group, parts, item.snomed_ct)
    out.print(table)
    out.print(f"{len(names)} classes")


@guarded
def classes_show(
    name: Annotated[str, typer.Argument(help="A class or one of its synonyms.")],
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of a class."""
    catalog = _catalog(classes)
    facts = _class_facts(catalog, catalog.resolve(name))
    if as_json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        if value not in ("", [], (), False):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            out.print(f"[bold]{key:>17}[/]  {escape(str(shown))}", soft_wrap=True)


@guarded
def classes_tree(
    name: Annotated[str, typer.Argument(help="Start here; all roots by default.")] = "",
    classes: ClassesFile = None,
) -> None:
    """Draw how classes nest."""
    from rich.tree import Tree

    catalog = _catalog(classes)

    def grow(tree: Tree, at: str) -> None:
        branch = tree.add(f"{_swatch(catalog[at].colour)} {at}")
        for part in catalog[at].parts:
            grow(branch, part)

    roots = [catalog.resolve(name)] if name else [n for n in catalog if not catalog.ancestors(n)]
    top = Tree("", hide_root=True)
    for start in roots:
        grow(top, start)
    out.print(top)


@guarded
def classes_check(classes: ClassesFile = None) -> None:
    """Check the catalog: names, parts, twins, codes, colours."""
    from paxray.anatomy.check import check_catalog

    catalog = _catalog(classes)
    problems = check_catalog(catalog)
    for problem in problems:
        out.print(f"[red]problem[/] {escape(str(problem))}", soft_wrap=True)
    if problems:
        raise typer.Exit(EXIT_USAGE)
    out.print(f"{len(catalog)} classes, no problems")
