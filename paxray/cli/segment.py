"""One CT segmented: ``paxray segment``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from paxray.cli.common import ClassesFile, DeviceName, Json, guarded, out
from paxray.errors import ConfigError


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
        typer.Option("--segmenter", metavar="NAME", help="thorax (the default), totalsegmentator, ..."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the segmenter.")
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing label map.")] = False,
    as_json: Json = False,
) -> None:
    """Segment one CT: named masks that paxray and other tools read.

    A folder has TotalSegmentator's layout and names: a class looked for and not found is an empty file, one of which
    nothing is known has no file. paxray_classes.json beside them says what masks cannot: partial, notes, confidences.
    """
    from paxray.config import set_value
    from paxray.segment_one import segment_one
    from paxray.segmentation.registry import BUILT_IN

    if segmenters and len(segmenters) > 1:
        raise ConfigError(
            "--segmenter is given more than once",
            expected="one; here each draws masks of its own",
            found=", ".join(segmenters),
            do="a call for each, or list them in a pipeline (`segmentation`), whose build combines them",
        )
    segmenter = segmenters[0] if segmenters else "thorax"
    if labels and segmenter in BUILT_IN and segmenter != "files":
        raise ConfigError(
            f"--labels is for the segmenter `files`, and '{segmenter}' looks at the CT alone",
            found=", ".join(labels),
            do="--segmenter files to convert these masks, or leave --labels away",
        )
    if segmenter == "files" and not labels:
        raise ConfigError(
            "the segmenter `files` reads masks that exist, and none are given",
            do="--labels MASKS, or --labels MASKS=VOCABULARY",
        )
    chosen: dict[str, Any] = {}
    for entry in settings or []:
        set_value(chosen, entry)
    result = segment_one(
        ct,
        segmenter,
        target,
        settings=chosen,
        masks=labels or [],
        vocabulary=vocabulary,
        catalog_file=classes,
        device=device.value,
        preview=preview,
        force=force,
    )
    if as_json:
        print(json.dumps(result))
        return
    _print(result, segmenter)


def _print(result: dict[str, Any], segmenter: str) -> None:
    by_status: dict[str, list[dict[str, Any]]] = {}
    for item in result["classes"]:
        by_status.setdefault(item["status"], []).append(item)
    counts = ", ".join(f"{len(items)} {status}" for status, items in by_status.items())
    out.print(f"{escape(segmenter)}: classes {counts}: [bold]{escape(result['out'])}[/]", soft_wrap=True)
    reasons: dict[str, list[str]] = {}
    for item in by_status.get("unknown", []):
        reasons.setdefault(item["note"], []).append(item["class"])
    for reason, names in reasons.items():
        out.print(f"  [yellow]unknown[/] {', '.join(names)}: {escape(reason)}", soft_wrap=True)
    if result["vocabulary"]:
        out.print(f"what its values stand for: [bold]{escape(result['vocabulary'])}[/]", soft_wrap=True)
    if result["preview"]:
        out.print(f"look at [bold]{escape(result['preview'])}[/]", soft_wrap=True)
