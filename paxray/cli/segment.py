"""One CT segmented: ``paxray segment``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from paxray.cli.common import ClassesFile, DeviceName, Json, guarded, out, print_json
from paxray.errors import ConfigError

_MOST = 5  # at most so many classes are named on which segmenters differ


class CombineName(StrEnum):
    """What several segmenters make together."""

    ORDER = "order"
    MAJORITY = "majority"


@guarded
def segment(
    ct: Annotated[
        Path, typer.Argument(metavar="CT", help="NIfTI, NRRD, MHA, or a folder with a DICOM series.")
    ],
    target: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="OUT",
            help="FILE.nii.gz: one label map with its vocabulary beside. Else a folder, one file per class.",
        ),
    ],
    segmenters: Annotated[
        list[str] | None,
        typer.Option(
            "--segmenter",
            metavar="NAME",
            help="thorax (the default), totalsegmentator, ...; or with its settings, '{name: nnunet, model: DIR}'. "
            "Given again, several make masks together.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the one segmenter; may be given again."
        ),
    ] = None,
    combine: Annotated[
        CombineName | None,
        typer.Option(
            help="Of several segmenters: the first that knows of a class draws it (order, the default), or more than "
            "half of them have to (majority, from three on)."
        ),
    ] = None,
    disputed: Annotated[
        Path | None,
        typer.Option(
            "--disputed",
            metavar="OUT",
            help="Also write where several segmenters differ on each class, as FILE.nii.gz or a folder.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", metavar="MASKS[=VOCABULARY]", help="What the segmenter `files` reads."),
    ] = None,
    vocabulary: Annotated[
        str, typer.Option(help="What the values of a label map mean.")
    ] = "totalsegmentator_v2",
    classes: ClassesFile = None,
    device: Annotated[
        DeviceName, typer.Option(help="Where a network computes; auto takes CUDA where there is one.")
    ] = DeviceName.AUTO,
    preview: Annotated[
        bool, typer.Option("--preview", help="Draw it: three planes and a radiograph.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite an existing label map and preview.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Segment one CT: named masks that paxray and other tools read.

    Several segmenters vote as in a pipeline: those that found a class, or looked for it and found nothing.

    A folder has TotalSegmentator's layout and names: a class looked for and not found is an empty file, one of which
    nothing is known has no file. paxray_classes.json beside them says what masks cannot: partial, notes, confidences.
    """
    from paxray.config import SegmenterConfig, parse_segmenter, set_value
    from paxray.segment_one import segment_one
    from paxray.segmentation.registry import BUILT_IN

    chosen = [parse_segmenter(text) for text in segmenters or ["thorax"]]
    names = [one.name for one in chosen]
    if labels and "files" not in names and all(name in BUILT_IN for name in names):
        raise ConfigError(
            f"--labels is for the segmenter `files`, and '{names[0]}' looks at the CT alone",
            found=", ".join(labels),
            do="--segmenter files to convert these masks, or leave --labels away",
        )
    if "files" in names and not labels:
        raise ConfigError(
            "the segmenter `files` reads masks that exist, and none are given",
            do="--labels MASKS, or --labels MASKS=VOCABULARY",
        )
    if len(chosen) > 1 and settings:
        raise ConfigError(
            "--set does not say which of several segmenters it is for",
            found=", ".join(settings),
            do=f"--segmenter '{{name: {names[0]}, KEY: VALUE}}' for each",
        )
    if len(chosen) == 1 and combine is not None:
        raise ConfigError(
            "one segmenter has none to combine with", do="name others too, or leave --combine away"
        )
    if settings:
        own = chosen[0].settings
        for entry in settings:
            set_value(own, entry)
        if "name" in own:
            raise ConfigError("--set gives settings, no other segmenter", do="--segmenter NAME")
        chosen = [SegmenterConfig(name=names[0], **own)]
    result = segment_one(
        ct,
        chosen,
        target,
        combine="order" if combine is None else combine.value,
        disputed_out=disputed,
        masks=labels or [],
        vocabulary=vocabulary,
        catalog_file=classes,
        device=device.value,
        preview=preview,
        force=force,
    )
    if as_json:
        print_json(result)
        return
    _print(result)


def _print(result: dict[str, Any]) -> None:
    by_status: dict[str, list[dict[str, Any]]] = {}
    for item in result["classes"]:
        by_status.setdefault(item["status"], []).append(item)
    counts = ", ".join(f"{len(items)} {status}" for status, items in by_status.items())
    out.print(
        f"{escape(result['segmenter'])}: classes {counts}: [bold]{escape(result['out'])}[/]", soft_wrap=True
    )
    reasons: dict[str, list[str]] = {}
    for item in by_status.get("unknown", []):
        reasons.setdefault(item["note"], []).append(item["class"])
    for reason, names in reasons.items():
        out.print(f"  [yellow]unknown[/] {', '.join(names)}: {escape(reason)}", soft_wrap=True)
    differ = sorted(
        (item for item in result["classes"] if item["disputed_ml"]), key=lambda item: -item["disputed_ml"]
    )
    if differ:
        most = ", ".join(f"{item['class']} {_ml(item['disputed_ml'])}" for item in differ[:_MOST])
        more = f" and {len(differ) - _MOST} more" if len(differ) > _MOST else ""
        out.print(f"  they differ on {most}{more}", soft_wrap=True)
    if result["vocabulary"]:
        out.print(f"what its values stand for: [bold]{escape(result['vocabulary'])}[/]", soft_wrap=True)
    if result["disputed"]:
        out.print(f"where they differ: [bold]{escape(result['disputed'])}[/]", soft_wrap=True)
    if result["preview"]:
        out.print(f"look at [bold]{escape(result['preview'])}[/]", soft_wrap=True)


def _ml(volume_ml: float) -> str:
    return f"{volume_ml:.0f} ml" if volume_ml >= 10 else f"{volume_ml:.2g} ml"
