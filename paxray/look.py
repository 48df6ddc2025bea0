"""One case, one look: project a single CT and write image, masks and an overlay to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paxray.anatomy.catalog import Catalog
from paxray.config import parse_pipeline
from paxray.dataset.rle import decode_mask
from paxray.files import write_bytes, write_json
from paxray.io.cases import BY_NAME, Case, MaskSource
from paxray.plausibility.rules import RULES
from paxray.produce import Clock, catalog_of, peak_memory_mib, prepare, shoot, views_of
from paxray.projection.project import Device, Projection
from paxray.radiography.overlay import draw_overlay
from paxray.radiography.signal import encode_signal
from paxray.rows import finding_rows, png_bytes, rows_of_view
from paxray.segmentation.body import BODY
from paxray.segmentation.files import parse_source
from paxray.subject import Shot, Subject


def look(
    ct: Path,
    labels: Sequence[str],
    views: Sequence[str],
    folder: Path,
    *,
    vocabulary: str = "totalsegmentator_v2",
    further_labels: Mapping[int, str] | None = None,
    catalog_file: Path | None = None,
    beam: str = "cone",
    sdd_mm: float = 1800.0,
    size: int = 512,
    device: Device | str = "auto",
    full: bool = False,
) -> dict[str, Any]:
    """Project one case and write what is to be seen.

    Writes for each view ``VIEW.png`` (display), ``VIEW_signal.png`` (16 bits), ``VIEW_overlay.png``, ``VIEW.json``
    (geometry, facts) and a 1-bit PNG per class under ``VIEW_masks/``.

    Parameters
    ----------
    ct, labels
        The CT; masks as ``PATH`` or ``PATH=VOCABULARY``, in order of precedence.
    views
        Names of poses.
    folder
        Where to write.
    vocabulary, further_labels
        What the values of a label map mean.
    catalog_file
        Classes of one's own.
    beam, sdd_mm, size
        Geometry, as in a pipeline.
    device
        ``auto``, ``cpu`` or ``cuda``.
    full
        Also the classes that the built-in catalog's recipes make, surfaces, landmarks, measures and findings, as a
        build has them; nothing is dropped for a finding. Recipes in `catalog_file` are followed in any case.

    Returns
    -------
    What was made, as JSON values.
    """
    pipeline = parse_pipeline(
        {
            "name": "project",
            "views": list(views),
            "geometry": {"beam": beam, "sdd_mm": sdd_mm, "rows": size, "columns": size},
            "labels": {"catalog": None if catalog_file is None else str(catalog_file)},
            # Whoever looks at a case wants to see what is wrong with it.
            "plausibility": dict.fromkeys(RULES, "warn"),
        },
        where="command line",
    )
    catalog = catalog_of(pipeline)
    clock = Clock()
    sources = tuple(source_of(text, vocabulary, further_labels or {}) for text in labels)
    case = Case(case_id="case", patient_id="case", ct=ct, ct_where=str(ct), masks=sources)
    subject = prepare(case, pipeline, catalog, clock, device=device, full=full)  # type: ignore[arg-type]
    categories = {name: n for n, name in enumerate(subject.classes, start=1)}
    made = []
    backend = ""
    for view in views_of(subject, pipeline):
        shot = shoot(subject, view, pipeline, clock, device)  # type: ignore[arg-type]
        backend = shot.projection.backend
        with clock.stage("write"):
            made.append(_write(folder, subject, shot, catalog, categories))
    return {
        "views": made,
        "findings": [{k: v for k, v in row.items() if k != "action"} for row in finding_rows(subject)],
        "backend": backend,
        "seconds": clock.seconds,
        "memory_mib": peak_memory_mib(),
    }


def source_of(text: str, vocabulary: str, further: Mapping[int, str]) -> MaskSource:
    """A mask source as the command line writes it, with further labels for its vocabulary."""
    source = parse_source(text, vocabulary)
    if source.vocabulary == BY_NAME:
        return source
    return replace(
        source, vocabulary=source.vocabulary + "".join(f"+{value}:{name}" for value, name in further.items())
    )


def _write(
    folder: Path, subject: Subject, shot: Shot, catalog: Catalog, categories: dict[str, int]
) -> dict[str, Any]:
    from PIL import Image

    projection, name = shot.projection, shot.projection.view.name
    assert projection.image is not None
    assert projection.incomplete is not None
    folder.mkdir(parents=True, exist_ok=True)
    masks = folder / f"{name}_masks"
    masks.mkdir(exist_ok=True)
    for stale in masks.glob("*.png"):
        stale.unlink()
    assert projection.facts is not None
    signal = encode_signal(projection.image)
    met = {of for of, fact in zip(projection.names, projection.facts, strict=True) if fact["pixels"]}
    seen = [of for of in subject.classes if of in met]

    def save_mask(of: str) -> None:
        Image.fromarray(projection.mask(of)).save(masks / f"{of}.png")

    def save_overlay() -> None:
        overlay = draw_overlay(
            shot.image,
            [(projection.mask(of), catalog[of].colour) for of in overlay_classes(projection, seen, catalog)],
            fill=0.12,
            scale=2 if max(shot.image.shape) <= 1024 else 1,
        )
        write_bytes(folder / f"{name}_overlay.png", png_bytes(overlay))

    with ThreadPoolExecutor(2) as pool:
        drawing = pool.submit(save_overlay)
        saving = pool.map(save_mask, seen)
        tables = rows_of_view(subject, projection, categories)
        write_bytes(folder / f"{name}.png", png_bytes(shot.image))
        write_bytes(folder / f"{name}_signal.png", png_bytes(signal.values))
        write_json(
            folder / f"{name}.json",
            {
                "geometry": projection.view.to_dict(),
                "signal": {"scale": signal.scale, "offset": signal.offset},
                "appearance": shot.appearance,
                "classes": [_plain(row) for row in tables["labels"]],
                **{
                    kind: [_plain(row) for row in tables[kind]]
                    for kind in ("landmarks", "measures")
                    if kind in tables
                },
            },
        )
        for row in tables["labels"]:
            if row["class"] in subject.films and "mask" in row:
                mask = decode_mask(row["mask"], shot.image.shape)
                Image.fromarray(mask).save(masks / f"{row['class']}.png")
        drawing.result()
        list(saving)
    body = projection.mask(BODY) if BODY in projection.names else projection.image > 0
    incomplete = 100 * float((projection.incomplete & body).sum()) / max(1, int(body.sum()))
    return {
        "view": name,
        "classes": len(seen),
        "incomplete_percent": incomplete,
        "image": str(folder / f"{name}.png"),
        "overlay": str(folder / f"{name}_overlay.png"),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON for people: what is known, without the mask that lies beside as a picture."""
    return {k: v for k, v in row.items() if k not in ("mask", "category_id")}


def overlay_classes(projection: Projection, seen: Sequence[str], catalog: Catalog) -> list[str]:
    """What an overlay shows: no class that its parts draw already, nor the layers that cover everything."""
    shown = []
    for name in seen:
        parts = [projection.mask(part) for part in catalog[name].parts if part in seen]
        if parts and (np.logical_or.reduce(parts) == projection.mask(name)).all():
            continue
        if catalog[name].group not in ("body", "muscle"):
            shown.append(name)
    return shown
