"""Other people's data sets: import-paxray."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from paxray.cli.common import Json, guarded, out, print_json
from paxray.errors import counted


@guarded
def import_paxray(
    release: Annotated[Path, typer.Argument(metavar="DIR", help="The unpacked release, with paxray.json.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    as_released: Annotated[
        bool, typer.Option("--as-released", help="Keep the channels' names as paxray.json gives them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import the released PAXRay, whose paxray.json misnames 46 channels, with the names put right.

    OUT gets the same layout with right names, and COCO with run lengths. The areas of ribs and their halves show
    whether names and masks belong together; where they do not, nothing is written.
    """
    from paxray.anatomy.catalog import load_catalog
    from paxray.imports.paxray import import_paxray as run_import

    result = run_import(release, folder, catalog=load_catalog(), as_released=as_released)
    if as_json:
        print_json({**asdict(result), "folder": str(result.folder)})
        return
    if result.renamed:
        channels = _spans([channel for channel, _, _ in result.renamed])
        out.print(f"{len(result.renamed)} misnamed channels put right: {channels} (listed in import.json)")
    elif as_released:
        out.print("names kept as paxray.json gives them")
    else:
        out.print("paxray.json names its channels right: nothing to change")
    for name, ribs in (("names found", result.ribs_as_released), ("names written", result.ribs)):
        held = sum(rib.holds for rib in ribs)
        out.print(f"rib rule, {name}: holds for {held} of {len(ribs)} ribs")
    if result.never_filled:
        out.print(f"unknown, without a pixel in any picture: {', '.join(result.never_filled)}")
    for note in result.notes:
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    out.print(
        f"PAXRay: {counted(result.images, 'image')} in [bold]{escape(str(result.folder))}[/]", soft_wrap=True
    )


def _spans(numbers: list[int]) -> str:
    """Write ``1, 3, 5-9`` for sorted whole numbers."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
