"""The released PAXRay (Seibold et al., BMVC 2022), its 46 misnamed channels put right.

The release is a folder with ``paxray.json``, ``images/`` and ``labels/``; `paxray.export.paxray` describes the
layout. It holds no geometry and no line integrals, so it cannot become a data set of paxray's own. What is written
is the same layout with right names, which a loader of `paxray export paxray` reads too, and COCO with run lengths.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray._version import __version__
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.channels import Channels, load_channels
from paxray.dataset.layout import SPLITS
from paxray.dataset.rle import encode_mask
from paxray.errors import ConfigError, DamageError
from paxray.export.folder import new_folder, require_replaceable
from paxray.files import write_json
from paxray.imports.listing import names_of, read_listing, renamed_channels
from paxray.imports.rib_rule import RibAreas, rib_areas

VOCABULARY = "paxray_166"
#: Endings of the release's file names; what stands before is the case.
_VIEWS = ("frontal", "lateral")


@dataclass(frozen=True)
class ImportResult:
    """What an import found and wrote.

    Attributes
    ----------
    folder
        The new folder.
    images
        Pictures in all splits.
    renamed
        ``(channel, name in paxray.json, right name)`` of each channel that was put right.
    ribs
        The 24 ribs' areas under the names that were written.
    ribs_as_released
        The same under the names of paxray.json.
    never_filled
        Names of channels without a pixel in any picture: nothing shows that they were looked for.
    notes
        What else a reader should know.
    """

    folder: Path
    images: int
    renamed: tuple[tuple[int, str, str], ...]
    ribs: tuple[RibAreas, ...]
    ribs_as_released: tuple[RibAreas, ...]
    never_filled: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Gathered:
    """What one pass over the pictures brings together."""

    areas: NDArray[np.int64]
    entries: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    images: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    annotations: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    splits_of: dict[str, set[str]] = field(default_factory=dict)


def import_paxray(
    source: Path,
    out: Path,
    *,
    catalog: Catalog,
    as_released: bool = False,
    on_image: Callable[[str], None] | None = None,
) -> ImportResult:
    """Read a released PAXRay, put its channels' names right, check the ribs, and write it anew.

    Pictures and stacks of masks are linked where the disk allows, and copied otherwise; one stack is in memory
    at a time.

    Parameters
    ----------
    source
        The folder with ``paxray.json``.
    out
        Where to; an older import there is replaced when the new one is complete.
    catalog
        Gives the classes.
    as_released
        Keep the names of ``paxray.json``.
    on_image
        Told each picture's name when it is read.

    Raises
    ------
    ConfigError
        No release here (``no_release``), or the place is taken.
    DamageError
        ``paxray.json`` is of another kind or names its channels in a third way (``names``), a file is missing
        or of another shape (``bad_labels``, ``bad_image``), or the rib rule fails (``rib_rule``).
    """
    listing = read_listing(source)
    channels = load_channels(VOCABULARY, catalog=catalog)
    found = names_of(listing)
    renamed = renamed_channels(found, channels)
    class_of = dict(zip(channels.names, channels.classes, strict=True))
    written = Channels(VOCABULARY, found, tuple(class_of[n] for n in found)) if as_released else channels
    folder = out.resolve()
    if folder == source.resolve() or source.resolve() in folder.parents:
        raise ConfigError(
            "an import does not go into the release's own folder",
            where=folder.name,
            do="choose another folder",
            code="place",
        )
    marker = {"format": "paxray import", "as_released": as_released, "paxray": __version__}
    require_replaceable(folder, marker)
    with new_folder(folder, marker) as partial:
        gathered = _Gathered(np.zeros(len(written), np.int64))
        categories = _categories(written, catalog)
        ids = {category["name"]: category["id"] for category in categories}
        for split in SPLITS:
            for entry in listing[split]:
                _take(source, partial, split, entry, written, ids, gathered)
                if on_image is not None:
                    on_image(Path(entry["image"]).name)
        ribs = tuple(rib_areas(written.names, gathered.areas))
        if not as_released:
            _require_rib_rule(ribs)
        empty = np.flatnonzero(gathered.areas == 0).tolist()
        result = ImportResult(
            folder,
            sum(map(len, gathered.images.values())),
            () if as_released else renamed,
            ribs,
            tuple(rib_areas(found, gathered.areas)),
            tuple(written.names[n] for n in empty),
            tuple(_straddling(gathered)),
        )
        _write(partial, written, categories, ids, empty, gathered, result)
    return result


def _categories(channels: Channels, catalog: Catalog) -> list[dict[str, Any]]:
    """COCO categories in the order of channels; two channels of one class are one category."""
    return [
        {
            "id": number,
            "name": name,
            "supercategory": catalog[name].group,
            "parts": [part for part in catalog[name].parts if part in channels.classes],
            "laterality": catalog[name].laterality,
            "snomed_ct": catalog[name].snomed_ct,
            "snomed_laterality": catalog[name].snomed_laterality,
            "rule": catalog[name].rule,
            "colour": list(catalog[name].colour),
        }
        for number, name in enumerate(dict.fromkeys(channels.classes), start=1)
    ]


def _take(
    source: Path,
    partial: Path,
    split: str,
    entry: dict[str, Any],
    channels: Channels,
    ids: dict[str, int],
    gathered: _Gathered,
) -> None:
    """Link one picture and its masks, and note what they hold."""
    image, target = source / entry["image"], source / entry["target"]
    case, view = _case_of(image.stem)
    stack = _read_stack(target, len(channels))
    _require_size(image, stack.shape[1:])
    for path, kind in ((image, "images"), (target, "labels")):
        _link(path, partial / kind / path.name)
    gathered.areas += stack.sum(axis=(1, 2), dtype=np.int64)
    gathered.splits_of.setdefault(case, set()).add(split)
    gathered.entries[split].append({"image": f"images/{image.name}", "target": f"labels/{target.name}"})
    before = [len(gathered.images[name]) for name in SPLITS]
    number = sum(before) + 1
    gathered.images[split].append(
        {
            "id": number,
            "file_name": image.name,
            "width": stack.shape[2],
            "height": stack.shape[1],
            "license": 1,
            "sample_id": f"{case}/{view}",
            "case_id": case,
            "view": view,
        }
    )
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, mask in zip(channels.classes, stack, strict=True):
        masks[name] = masks[name] | mask if name in masks else mask
    for name, mask in masks.items():
        if mask.any():
            gathered.annotations[split].append(_annotation(number, ids[name], mask))


def _case_of(stem: str) -> tuple[str, str]:
    for view in _VIEWS:
        if stem.endswith(view) and stem != view:
            return stem.removesuffix(view).rstrip("_-"), view
    raise DamageError(
        "a picture's name does not say its view",
        where="paxray.json",
        expected="a name that ends in frontal or lateral",
        found=stem,
        code="names",
    )


def _read_stack(path: Path, n_channels: int) -> NDArray[np.bool_]:
    try:
        stack = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DamageError(
            "masks cannot be read", where=f"labels/{path.name}", found=str(error), code="bad_labels"
        ) from error
    if stack.dtype != np.bool_ or stack.ndim != 3 or len(stack) != n_channels:
        raise DamageError(
            "not a stack of masks",
            where=f"labels/{path.name}",
            expected=f"bool ({n_channels}, rows, columns)",
            found=f"{stack.dtype} {stack.shape}",
            code="bad_labels",
        )
    return np.asarray(stack)


def _require_size(path: Path, size: Sequence[int]) -> None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            found = image.size[::-1]
    except OSError as error:
        raise DamageError(
            "picture cannot be read", where=f"images/{path.name}", found=str(error), code="bad_image"
        ) from error
    if found != tuple(size):
        raise DamageError(
            "picture and masks differ in size",
            where=f"images/{path.name}",
            expected=f"{tuple(size)} as its masks",
            found=str(found),
            code="bad_image",
        )


def _link(path: Path, new: Path) -> None:
    """Link a file where both places are on one disk that can, copy it otherwise."""
    new.parent.mkdir(exist_ok=True)
    if new.exists():
        raise DamageError("two entries have one file name", where="paxray.json", found=new.name, code="names")
    try:
        os.link(path.resolve(), new)
    except OSError:
        shutil.copyfile(path, new)


def _annotation(image_id: int, category_id: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    v, u = np.nonzero(mask)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": {"size": list(mask.shape), "counts": encode_mask(mask)},
        "area": len(v),
        "bbox": [int(u.min()), int(v.min()), int(np.ptp(u)) + 1, int(np.ptp(v)) + 1],
        "iscrowd": 0,
    }


def _require_rib_rule(ribs: Sequence[RibAreas]) -> None:
    broken = [rib for rib in ribs if not rib.holds]
    if broken:
        raise DamageError(
            f"the rib rule fails for {len(broken)} of {len(ribs)} ribs: these masks are not those that the names "
            "belong to",
            where="labels/",
            expected="max(anterior, posterior) <= rib <= anterior + posterior, in pixels over all pictures",
            found=str(broken[0]),
            do="take the release anew; --as-released imports it with the names it gives",
            code="rib_rule",
        )


def _straddling(gathered: _Gathered) -> list[str]:
    return [
        f"case {case} is in several splits: {', '.join(sorted(splits))}"
        for case, splits in sorted(gathered.splits_of.items())
        if len(splits) > 1
    ]


def _write(
    partial: Path,
    channels: Channels,
    categories: list[dict[str, Any]],
    ids: dict[str, int],
    empty: list[int],
    gathered: _Gathered,
    result: ImportResult,
) -> None:
    """Write the listing, COCO and the import's own account."""
    filled = {name for n, name in enumerate(channels.classes) if n not in empty}
    unknown_ids = [number for name, number in ids.items() if name not in filled]
    for split in SPLITS:
        for entry in gathered.entries[split]:
            entry |= {"unknown": empty, "partial": []}
    write_json(
        partial / "paxray.json",
        {
            "label_dict": {str(n): name for n, name in enumerate(channels.names)},
            "class_dict": {str(n): name for n, name in enumerate(channels.classes)},
            **gathered.entries,
        },
    )
    (partial / "annotations").mkdir()
    number = 0
    for split in SPLITS:
        if not gathered.images[split]:
            continue
        seen: dict[int, set[int]] = {image["id"]: set() for image in gathered.images[split]}
        for annotation in gathered.annotations[split]:
            number += 1
            annotation["id"] = number
            seen[annotation["image_id"]].add(annotation["category_id"])
        for image in gathered.images[split]:
            rest = set(ids.values()) - seen[image["id"]] - set(unknown_ids)
            image |= {
                "neg_category_ids": sorted(rest),
                "not_exhaustive_category_ids": [],
                "unknown_category_ids": unknown_ids,
            }
        content = {
            "info": {
                "description": "PAXRay (Seibold et al., BMVC 2022), imported",
                "split": split,
                "notice": "A research data set, not for clinical use.",
                "exported_by": f"paxray {__version__}",
            },
            "licenses": [{"id": 1, "name": "as PAXRay's own terms say", "url": ""}],
            "categories": categories,
            "images": gathered.images[split],
            "annotations": gathered.annotations[split],
        }
        with (partial / "annotations" / f"instances_{split}.json").open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, allow_nan=False)
    write_json(
        partial / "import.json",
        {
            "images": result.images,
            "renamed": [{"channel": n, "released": old, "name": new} for n, old, new in result.renamed],
            "rib_rule": {
                "fails_under_names_written": [str(rib) for rib in result.ribs if not rib.holds],
                "fails_under_names_found": [str(rib) for rib in result.ribs_as_released if not rib.holds],
            },
            "never_filled": list(result.never_filled),
            "notes": list(result.notes),
        },
    )
