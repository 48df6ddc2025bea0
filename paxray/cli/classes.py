"""The anatomy classes: list, show, tree, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from paxray.cli.common import ClassesFile, Json, further_labels, guarded, out, print_json, print_table
from paxray.errors import EXIT_USAGE, ConfigError, counted

if TYPE_CHECKING:
    from rich.table import Table

    from paxray.anatomy.catalog import Catalog
    from paxray.anatomy.channels import Channels
    from paxray.dataset.reader import Dataset


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
    vocabulary: Annotated[
        str, typer.Option(help="The channels of this vocabulary, in its order, instead of all classes.")
    ] = "",
    dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="In how many of its cases each channel (or each of its classes) came out present, cut, ...",
        ),
    ] = None,
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """List the classes known, or the channels of a vocabulary."""
    catalog = _catalog(classes)
    data = None
    if dataset is not None:
        from paxray.dataset.reader import load
        from paxray.dataset.stack import catalog_with

        data = load(dataset)
        catalog = catalog_with(data.categories, catalog)
    groups = sorted({item.group for item in catalog.values()})
    if group and group not in groups:
        raise ConfigError(f"no group '{group}'", expected=", ".join(groups))
    if vocabulary:
        from paxray.anatomy.channels import load_channels

        _list_channels(catalog, load_channels(vocabulary, catalog=catalog), group, data, as_json)
        return
    if data is not None:
        from paxray.anatomy.channels import Channels

        held = Channels.of_classes((row["name"] for row in data.categories), "the data set's classes")
        _list_channels(catalog, held, group, data, as_json)
        return
    names = [name for name in catalog if not group or catalog[name].group == group]
    if as_json:
        print_json([_class_facts(catalog, name) for name in names])
        return
    table = _table("class", "group", "parts", "SNOMED CT")
    for name in names:
        item = catalog[name]
        parts = f"{len(item.parts)}" if item.parts else ""
        table.add_row(f"{_swatch(item.colour)} {name}", item.group, parts, item.snomed_ct)
    print_table(table)
    out.print(f"{len(names)} classes")


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _list_channels(
    catalog: Catalog, channels: Channels, group: str, dataset: Dataset | None, as_json: bool
) -> None:
    """List channels, with how they came out in a data set where one is given."""
    chosen = [n for n, name in enumerate(channels.classes) if not group or catalog[name].group == group]
    rows: list[dict[str, Any]] = [
        {"channel": n, "name": channels.names[n], "class": channels.classes[n]} for n in chosen
    ]
    total: dict[str, int] = {}
    n_cases = 0
    if dataset is not None:
        from paxray.dataset.coverage import coverage

        found = coverage(dataset, channels)
        n_cases = sum(found[0].cases.values())
        for row in rows:
            item = found[row["channel"]]
            row |= {**item.cases, "cut": item.cut}
        total = {key: sum(row[key] for row in rows) for key in (*found[0].cases, "cut")}
    if as_json:
        print_json(rows)
        return
    table = _table(*(rows[0] if rows else ("channel", "name", "class")))
    for row in rows:
        swatch = _swatch(catalog[row["class"]].colour)
        table.add_row(*(f"{swatch} {v}" if k == "class" else escape(str(v)) for k, v in row.items()))
    print_table(table)
    out.print(f"{len(rows)} channels, {len({row['class'] for row in rows})} classes")
    if dataset is not None:
        cut = total.pop("cut")
        said = ", ".join(f"{count} {status}" for status, count in total.items())
        cases = counted(n_cases, "case")
        out.print(f"in {cases}: {said}; the scan cuts {cut} of those that have voxels")


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
        print_json(facts)
        return
    import yaml

    for key, value in {**facts, "written in": catalog.place(facts["name"])}.items():
        if value not in ("", [], (), False, None):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            if key == "recipe":  # as the file has it
                shown = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
                shown = shown.removesuffix("...\n").strip()
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


STARTER = """\
# A class of your own. See docs/classes.md for all operators; `paxray classes check --classes THIS`
# looks for mistakes,
# `paxray classes preview {name} CT --labels MASKS --classes THIS` draws it.
classes:
  {name}:
    group: {group}                # supercategory: a lower-case word
    colour: [250, 200, 60]        # red, green, blue from 0 to 255; left out, it comes from the name
    rule: "what it is, in your words; it stands in the data set"
    # synonyms: [another name]
    # parts: [heart, aorta]       # classes that it contains; it is closed over them

    # How it is derived where no mask file draws it. Remove this if your masks bring the class, or for a plain union.
    recipe:
      # what lies within 5 mm around the aorta, the aorta left out
      difference: {{of: {{dilate: {{of: aorta, by_mm: 5}}}}, minus: aorta}}
      # calcium in the heart:    hu_window: {{of: heart, from_hu: 130}}
      # the left half:           side: {{of: liver, side: left}}
      # the part above T4:       split: {{of: esophagus, keep: above, at: {{bottom_of: vertebrae_T4}}}}
      # a rind of 3 mm:          shell: {{of: lung_left, thickness_mm: 3, where: inside}}

  # `{{side}}` writes an entry out for left and right, each the other's mirror:
  # {name}_{{side}}:
  #   group: {group}
  #   recipe:
  #     side: {{of: {name}, side: "{{side}}"}}
"""


@guarded
def classes_add(
    name: Annotated[str, typer.Argument(help="The new class: letters, digits and underscores.")],
    file: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write. Default: NAME.yaml")
    ] = None,
    group: Annotated[str, typer.Option(help="Its supercategory (lung, heart, vessel, ...).")] = "own",
) -> None:
    """Write a commented file to start a class of your own from."""
    from paxray.anatomy.catalog import load_catalog
    from paxray.files import write_bytes

    catalog = load_catalog()
    if name in catalog:
        raise ConfigError(
            f"the catalog has a class '{name}' already",
            do=f"paxray classes show {name}; to change it, write its name and the fields that differ into a file",
        )
    path = file or Path(f"{name}.yaml")
    if path.exists():
        raise ConfigError("the file exists already", where=str(path), do="choose another -o")
    text = STARTER.format(name=name, group=group)
    write_bytes(path, text.encode())
    try:
        load_catalog(path)
    except ConfigError:
        path.unlink()
        raise
    out.print(
        f"[bold]{escape(str(path))}[/]: edit it, then give it to any command as --classes {escape(str(path))}"
    )


@guarded
def classes_preview(
    name: Annotated[str, typer.Argument(help="A class or one of its synonyms.")],
    ct: Annotated[
        Path, typer.Argument(metavar="CT", help="NIfTI, NRRD, MHA, or a folder with a DICOM series.")
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="MASKS[=VOCABULARY]",
            help="A label map; or a folder of one file per class, a .seg.nrrd, a DICOM SEG or RTSTRUCT.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("-o", "--out", help="The picture to write. Default: NAME.png")
    ] = None,
    vocabulary: Annotated[
        str, typer.Option(help="What the values of a label map mean.")
    ] = "totalsegmentator_v2",
    names: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="VALUE=CLASS", help="A further label of the vocabulary."),
    ] = None,
    classes: ClassesFile = None,
    as_json: Json = False,
) -> None:
    """Draw one class in a CT: three planes, two radiographs, its volume, and what to beware of."""
    from paxray.preview import preview

    result = preview(
        name,
        ct,
        labels or [],
        picture or Path(f"{name}.png"),
        vocabulary=vocabulary,
        further_labels=further_labels(names),
        catalog_file=classes,
    )
    if as_json:
        print_json(result)
        return
    out.print(f"{result['class']}: {result['status']}, {result['volume_ml']:.1f} ml")
    out.print(f"rule: {escape(result['rule'])}", soft_wrap=True)
    for sentence in result["warnings"]:
        out.print(f"[yellow]beware[/] {escape(sentence)}", soft_wrap=True)
    if result["picture"]:
        out.print(f"look at [bold]{escape(result['picture'])}[/]", soft_wrap=True)


@guarded
def classes_check(classes: ClassesFile = None) -> None:
    """Check the catalog: names, parts, twins, codes, colours."""
    from paxray.anatomy.check import check_catalog, notes_on_own

    catalog = _catalog(classes)
    for note in notes_on_own(catalog) if classes is not None else ():
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    problems = check_catalog(catalog)
    for problem in problems:
        out.print(f"[red]problem[/] {escape(str(problem))}", soft_wrap=True)
    if problems:
        raise typer.Exit(EXIT_USAGE)
    out.print(f"{len(catalog)} classes, no problems")
