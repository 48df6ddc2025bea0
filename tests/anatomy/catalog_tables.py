"""The tables of docs/catalog.md, made from the catalog. Run this file to write them anew."""

from __future__ import annotations

from pathlib import Path

from paxray.anatomy.catalog import DATA_FOLDER, load_catalog
from paxray.anatomy.channels import load_channels
from paxray.anatomy.check import SEGMENTED
from paxray.anatomy.document import read_document
from paxray.anatomy.reach import reachable
from paxray.anatomy.vocabulary import load_vocabulary, vocabulary_names

PAGE = Path(__file__).parents[2] / "docs" / "catalog.md"
CATALOG = load_catalog()
FREE_TASKS = ("lung_vessels_4", "trunk_cavities", "breasts")


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def groups() -> str:
    names = list(dict.fromkeys(item.group for item in CATALOG.values()))
    rows: list[list[object]] = []
    for group in [*names, "all"]:
        items = [item for item in CATALOG.values() if group in (item.group, "all")]
        derived = [item for item in items if item.recipe is not None or item.film is not None]
        unions = [item for item in items if item.parts and item not in derived]
        drawn = len(items) - len(derived) - len(unions)
        coded = sum(bool(item.snomed_ct) for item in items)
        rows.append([group, len(items), drawn, len(unions), len(derived), coded])
    return table(["group", "classes", "drawn", "unions", "derived", "with a code"], rows)


def vocabularies() -> str:
    rows: list[list[object]] = []
    for name in vocabulary_names():
        of_labels = "labels" in read_document(DATA_FOLDER / "vocabularies" / f"{name}.yaml").data
        count = len(load_channels(name, catalog=CATALOG))
        rows.append([f"`{name}`", f"{count} {'labels' if of_labels else 'channels'}"])
    return table(["vocabulary", "names"], rows)


def sources() -> str:
    orders = [load_channels(name, catalog=CATALOG) for name in ("paxray_166", "pax_ray_plus_plus_159")]
    rows: list[list[object]] = []
    for words, names in (
        ("TotalSegmentator v1", ["totalsegmentator_v1"]),
        ("TotalSegmentator v2", ["totalsegmentator_v2"]),
        (
            "v2 and its tasks lung_vessels, trunk_cavities, breasts",
            ["totalsegmentator_v2", *(f"totalsegmentator_{task}" for task in FREE_TASKS)],
        ),
        (
            "the same and heartchambers_highres",
            [
                "totalsegmentator_v2",
                "totalsegmentator_heartchambers_highres",
                *(f"totalsegmentator_{task}" for task in FREE_TASKS),
            ],
        ),
    ):
        given = set(SEGMENTED)
        for name in names:
            given.update(load_vocabulary(name, catalog=CATALOG).labels.values())
        out = reachable(CATALOG, given)
        rows.append([words, len(out), *(sum(c in out for c in order.classes) for order in orders)])
    return table(["masks", "classes", "of PAXRay's 166", "of PAX-Ray++'s 159"], rows)


def page(text: str) -> str:
    """The page with each table in its place, between ``<!-- NAME -->`` and ``<!-- end -->``."""
    for name, content in (("groups", groups()), ("sources", sources()), ("vocabularies", vocabularies())):
        before, rest = text.split(f"<!-- {name} -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        text = f"{before}<!-- {name} -->\n{content}\n<!-- end -->{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
