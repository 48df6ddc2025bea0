"""One case, one look: project a single CT and write image, masks and an overlay to a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.config import parse_pipeline
from paxray.dataset.rle import decode_mask
from paxray.earlier import ViewFiles, identity, make_way, standing_views
from paxray.files import write_bytes, write_json
from paxray.io.cases import BY_NAME, Case, MaskSource
from paxray.io.stored import require_there
from paxray.io.volume import Volume
from paxray.plausibility.rules import RULES
from paxray.produce import (
    Clock,
    catalog_of,
    classes_of,
    develop,
    expose,
    peak_memory_mib,
    prepare,
    views_of,
)
from paxray.projection.project import Device, Projection
from paxray.radiography.lettering import mark_sides, with_legend
from paxray.radiography.overlay import draw_overlay
from paxray.radiography.signal import encode_signal
from paxray.rows import finding_rows, png_bytes, rows_of_view
from paxray.segmentation.files import parse_source
from paxray.subject import Shot, Subject

#: What an overlay fills, and on top of it outlines, of all classes that a chest CT's masks name and add up to: the
#: silhouettes and the bones by which a chest film is read. More hides the picture.
FILLED = ("lung_left", "lung_right", "heart", "aorta", "trachea", "liver", "spleen", "stomach")
OUTLINED = (
    "clavicula_left", "clavicula_right", "scapula_left", "scapula_right", "spine",
    *(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)),
)  # fmt: skip


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
    only: Sequence[str] = (),
    read: Callable[[], Volume] | None = None,
) -> dict[str, Any]:
    """Project one case and write what is to be seen.

    Writes for each view ``VIEW.png`` (display), ``VIEW_signal.png`` (16 bits), ``VIEW_overlay.png`` (the patient's
    sides at its edges, a legend under it), ``VIEW.json`` (geometry, facts) and a 1-bit PNG per class under
    ``VIEW_masks/``.

    Parameters
    ----------
    ct, labels
        The CT; masks as ``PATH`` or ``PATH=VOCABULARY``, in order of precedence.
    views
        Names of poses.
    folder
        Where to write. What an earlier call wrote there of these views makes way; its other views stand (``standing``).
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
        build has them; nothing is dropped for a finding. Classes in `catalog_file` come out in any case, and so does
        the finding that the masks are off the CT.
    only
        Names of the classes that come out, synonyms allowed, and recipes of the built-in catalog among them are
        followed; all by default.
    read
        Gives the CT where something reads it already (`paxray.io.ct.read_ahead`).

    Returns
    -------
    What was made, as JSON values.

    Raises
    ------
    ConfigError
        A view, class or setting that there is not; the message suggests the nearest. ``no_folder``,
        ``not_written_here``, ``other_case``: see `paxray.earlier.standing_views`.
    CaseError
        As `paxray.produce.prepare`.
    """
    pipeline = parse_pipeline(
        {
            "name": "project",
            "views": list(views),
            "geometry": {"beam": beam, "sdd_mm": sdd_mm, "rows": size, "columns": size},
            "labels": {
                "catalog": None if catalog_file is None else str(catalog_file),
                "classes": list(only) or "all",
            },
            # Whoever looks at a case wants to see what is wrong with it.
            "plausibility": dict.fromkeys(RULES, "warn"),
        },
        where="command line",
    )
    catalog = catalog_of(pipeline)
    clock = Clock()
    sources = tuple(source_of(text, vocabulary, further_labels or {}) for text in labels)
    # What was mistyped is told before anything is loaded, which may take compiling.
    classes = classes_of(pipeline, catalog)
    for path, where in ((ct, str(ct)), *((source.path, source.where) for source in sources)):
        require_there(path, where)
    standing = standing_views(folder, [view.pose().name for view in pipeline.views], identity(ct), classes)
    case = Case(case_id="case", patient_id="case", ct=ct, ct_where=str(ct), masks=sources)
    subject = prepare(case, pipeline, catalog, clock, device=device, full=full, read=read)  # type: ignore[arg-type]
    categories = {name: n for n, name in enumerate(subject.classes, start=1)}
    made = []
    backend = ""
    with ThreadPoolExecutor(1) as beside:
        for view in views_of(subject, pipeline):
            projection = expose(subject, view, clock, device)  # type: ignore[arg-type]
            backend = projection.backend
            # Masks need no picture, and take as long to compress as the picture to be drawn and painted over.
            found = beside.submit(_Found.of, subject, projection, categories)
            masks = beside.submit(lambda of: of.result().packed(), found)
            shot = develop(projection, pipeline, clock)
            with clock.stage("write"):
                made.append(
                    _write(folder, case, shot, found.result(), masks, catalog, beside, all_drawn=bool(only))
                )
    return {
        "views": made,
        "standing": standing,
        # None where little was looked for, and nothing found.
        "findings": [{k: v for k, v in row.items() if k != "action"} for row in finding_rows(subject)]
        or ([] if full else None),
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


@dataclass(frozen=True, eq=False)
class _Found:
    """What a view shows.

    Parameters
    ----------
    projection
        The view.
    tables
        Its rows, by table.
    seen
        The classes that have pixels, in catalog order.
    films
        Run lengths of those that are classes of the film.
    """

    projection: Projection
    tables: dict[str, list[dict[str, Any]]]
    seen: list[str]
    films: dict[str, Any]

    @classmethod
    def of(cls, subject: Subject, projection: Projection, categories: dict[str, int]) -> _Found:
        """What a subject's projection shows."""
        assert projection.facts is not None
        tables = rows_of_view(subject, projection, categories)
        met = {of for of, fact in zip(projection.names, projection.facts, strict=True) if fact["pixels"]}
        films = {
            row["class"]: row["mask"]
            for row in tables["labels"]
            if row["class"] in subject.films and "mask" in row
        }
        return cls(projection, tables, [of for of in subject.classes if of in met or of in films], films)

    def mask(self, of: str) -> NDArray[np.bool_]:
        """``(rows, columns)`` pixels of a class."""
        if of in self.films:
            return decode_mask(self.films[of], self.projection.view.size)
        return self.projection.mask(of)

    def packed(self) -> dict[str, bytes]:
        """Each seen class's mask as a PNG."""
        return {of: png_bytes(self.mask(of)) for of in self.seen}


def _write(
    folder: Path,
    case: Case,
    shot: Shot,
    found: _Found,
    masks: Future[dict[str, bytes]],
    catalog: Catalog,
    beside: Executor,
    *,
    all_drawn: bool,
) -> dict[str, Any]:
    projection, name = shot.projection, shot.projection.view.name
    assert projection.image is not None
    assert projection.incomplete is not None
    files = ViewFiles.of(folder, name)
    signal = encode_signal(projection.image)
    tables, seen = found.tables, found.seen

    make_way(folder, name, seen)
    # The first to be written: it tells of all others.
    write_json(
        files.facts,
        {
            "case": identity(case.ct),
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
        lasting=False,
    )
    files.masks.mkdir(exist_ok=True)

    def save_rest() -> None:
        for of, content in masks.result().items():
            (files.masks / f"{of}.png").write_bytes(content)
        write_bytes(files.image, png_bytes(shot.image), lasting=False)
        write_bytes(files.signal, png_bytes(signal.values), lasting=False)

    saving = beside.submit(save_rest)
    filled, outlined = (
        (drawn(seen, found.mask, catalog), []) if all_drawn else chosen(seen, found.mask, catalog)
    )
    overlay = draw_overlay(
        shot.image,
        [(found.mask(of), catalog[of].colour) for of in filled],
        [(found.mask(of), catalog[of].colour) for of in outlined],
        fill=0.16,
        scale=2 if max(shot.image.shape) <= 1024 else 1,
    )
    view = projection.view
    drawing = with_legend(mark_sides(overlay, view.u, view.v), legend(filled, outlined, catalog))
    write_bytes(files.overlay, png_bytes(drawing), lasting=False)
    saving.result()
    body = projection.image > 0  # whichever classes are asked for
    incomplete = 100 * float((projection.incomplete & body).sum()) / max(1, int(body.sum()))
    return {
        "view": name,
        "classes": len(seen),
        "incomplete_percent": incomplete,
        "image": str(files.image),
        "overlay": str(files.overlay),
        # Of classes asked for, the others are the rule.
        **(
            {"unseen": {r["class"]: _why(r) for r in tables["labels"] if r["class"] not in seen}}
            if all_drawn
            else {}
        ),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON for people: what is known, without the mask that lies beside as a picture."""
    return {k: v for k, v in row.items() if k not in ("mask", "category_id")}


def _why(row: dict[str, Any]) -> str:
    """Why a class has no pixels: nothing found it, or where it lies."""
    return str(row.get("view_status") or row["status"]) + (f": {row['note']}" if row["note"] else "")


def chosen(
    seen: Sequence[str], mask_of: Callable[[str], NDArray[np.bool_]], catalog: Catalog
) -> tuple[list[str], list[str]]:
    """What an overlay fills and outlines where nobody says: the main structures of a chest, and classes of one's own.

    Where none of these has pixels, it fills all but what covers everything.
    """
    standard = load_catalog()
    own = [name for name in seen if catalog[name] != standard.get(name)]
    filled = [name for name in FILLED if name in seen and name not in own] + drawn(own, mask_of, catalog)
    outlined = [name for name in OUTLINED if name in seen and name not in own]
    if filled or outlined:
        return filled, outlined
    return drawn(
        [name for name in seen if catalog[name].group not in ("body", "muscle")], mask_of, catalog
    ), []


def legend(
    filled: Sequence[str], outlined: Sequence[str], catalog: Catalog
) -> list[tuple[str, tuple[int, int, int] | None]]:
    """What an overlay's colours stand for: each class that is filled, and of what others the outlines are."""
    entries: list[tuple[str, tuple[int, int, int] | None]] = [(name, catalog[name].colour) for name in filled]
    if outlined:
        kinds = dict.fromkeys(name.partition("_")[0] for name in outlined)  # not each rib by itself
        entries.append((f"outlined: {', '.join(kinds)}", None))
    return entries


def drawn(names: Sequence[str], mask_of: Callable[[str], NDArray[np.bool_]], catalog: Catalog) -> list[str]:
    """Of classes those to draw together: none that its parts draw already."""
    shown = []
    for name in names:
        parts = [mask_of(part) for part in catalog[name].parts if part in names]
        if not parts or (np.logical_or.reduce(parts) != mask_of(name)).any():
            shown.append(name)
    return shown
