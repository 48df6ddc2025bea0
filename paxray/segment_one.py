"""One CT, one segmenter or several: their masks as files that paxray and other tools read, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.config import SegmenterConfig
from paxray.errors import ConfigError
from paxray.io.ct import read_ct
from paxray.io.stored import image_suffix
from paxray.projection.project import Device, resolve_device
from paxray.segmentation.cache import fingerprint
from paxray.segmentation.checked import device_of, run_segmenter
from paxray.segmentation.combine import MARK, Rule, consensus, disputed_column, require_distinct
from paxray.segmentation.files import parse_source
from paxray.segmentation.registry import make_segmenter
from paxray.segmentation.written import vocabulary_file_of, write_class_files, write_label_map

LABEL_MAP = ".nii.gz"


def segment_one(
    ct_file: Path,
    segmenters: Sequence[SegmenterConfig],
    out: Path,
    *,
    combine: Rule = "order",
    disputed_out: Path | None = None,
    masks: Sequence[str] = (),
    vocabulary: str = "totalsegmentator_v2",
    catalog_file: Path | None = None,
    device: Device = "auto",
    preview: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Segment one CT and write what was found.

    Parameters
    ----------
    ct_file
        The CT.
    segmenters
        In order of precedence. Paths among their settings are relative to the working directory.
    out
        Ends in ``.nii.gz``: one label map with its vocabulary beside (`write_label_map`). Otherwise a folder with one
        file per class and what is known of each (`write_class_files`).
    combine
        What several segmenters make together (`paxray.segmentation.combine.consensus`).
    disputed_out
        Also write, in either form, the voxels of each class on which several segmenters differ.
    masks, vocabulary
        Mask files, for the segmenter ``files``.
    catalog_file
        Classes of one's own.
    device
        ``auto``, ``cpu`` or ``cuda``.
    preview
        Also draw it, into a PNG beside `out`.
    force
        Overwrite a label map, and a picture where the preview goes.

    Returns
    -------
    ``out``, ``vocabulary`` (None for a folder), ``disputed`` and ``preview`` (None unless asked for), and ``classes``:
    name, status, volume, confidence, note and disputed volume of each, the last None where fewer than two segmenters
    know of the class.

    Raises
    ------
    ConfigError, ResourceError, CaseError
    """
    picture = out.with_name(out.name.removesuffix(LABEL_MAP) + ".png") if preview else None
    for path in (out, disputed_out):
        if path is not None:
            _require_writable(path, force)
    if picture is not None and picture.exists() and not force:
        raise ConfigError(
            "the preview's file exists already",
            where=picture.name,
            do="--force to overwrite it, or another --out",
        )
    if disputed_out is not None and len(segmenters) < 2:
        raise ConfigError("one segmenter disputes nothing", do="name a second one, or leave --disputed away")
    if disputed_out is not None:
        _require_apart(out, disputed_out, picture)
    catalog = load_catalog(catalog_file)
    chosen = [make_segmenter(one.name, one.settings) for one in segmenters]
    asked = resolve_device(device)
    for one in chosen:
        one.preflight(device_of(one, asked))
    if len(chosen) > 1:
        require_distinct([fingerprint(one, catalog, device_of(one, asked)) for one in chosen], "--segmenter")
    sources = [parse_source(text, vocabulary) for text in masks]
    ct = read_ct(ct_file)
    parts = [
        run_segmenter(one, ct, catalog, device=asked, where=ct_file.name, masks=sources) for one in chosen
    ]
    together = consensus(parts, combine, catalog) if len(parts) > 1 else parts[0]
    found = together.keep([name for name in together.names if not name.endswith(MARK)])
    who = " and ".join(one.name for one in chosen) + (f" by {combine}" if len(chosen) > 1 else "")
    beside = _write(out, found, who)
    if disputed_out is not None:
        _write(disputed_out, _disputed(together), f"where they differ: {who}")
    if picture is not None:
        from paxray.preview import preview_all

        preview_all(ct, found, catalog, picture)
    return {
        "segmenter": who,
        "out": str(out),
        "vocabulary": None if beside is None else str(beside),
        "disputed": None if disputed_out is None else str(disputed_out),
        "preview": None if picture is None else str(picture),
        "classes": [_facts(together, name) for name in found.names],
    }


def _require_writable(out: Path, force: bool) -> None:
    """Before minutes are spent on what cannot be written."""
    if out.name.endswith(LABEL_MAP):
        standing = [path.name for path in _files_of(out) if path.exists()]
        if standing and not force:
            raise ConfigError(
                "the file exists already", where=standing[0], do="--force to overwrite it, or another --out"
            )
    elif image_suffix(out):
        raise ConfigError(
            "masks are written as NIfTI",
            where=out.name,
            expected="a name that ends in .nii.gz (one label map), or a folder (one file per class)",
        )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("the folder is not empty", where=out.name, do="choose a new or empty --out")


def _files_of(out: Path) -> list[Path]:
    """What masks are written to: a folder, or a label map and its vocabulary beside it."""
    return [out, vocabulary_file_of(out)] if out.name.endswith(LABEL_MAP) else [out]


def _require_apart(out: Path, disputed_out: Path, picture: Path | None) -> None:
    """Refuse masks and disputed voxels that would overwrite or mix with each other, however their paths are written.

    What is written beside them counts: a vocabulary, the preview.
    """
    masks = [*_files_of(out), *([] if picture is None else [picture])]
    for one, other in product(masks, _files_of(disputed_out)):
        first, second = one.resolve(), other.resolve()
        if first == second:
            raise ConfigError(
                "masks and disputed voxels would be written to the same name",
                where=one.name,
                do="choose another --disputed",
            )
        if first in second.parents or second in first.parents:
            raise ConfigError(
                "of masks and disputed voxels one would lie inside the other",
                where=f"{one.name} and {other.name}",
                expected="files or folders beside each other",
                do="choose another --disputed",
            )


def _write(out: Path, labels: LabelVolume, who: str) -> Path | None:
    """Write masks in the form that a name asks for; the vocabulary's path where there is one."""
    if out.name.endswith(LABEL_MAP):
        return write_label_map(out, labels, who)
    write_class_files(out, labels, who)
    return None


def _disputed(together: LabelVolume) -> LabelVolume:
    """The disputed voxels of each class, under its name; a class on which all agree is absent."""
    columns = together.keep([name for name in together.names if name.endswith(MARK)])
    names = tuple(name.removesuffix(MARK) for name in columns.names)
    status = {name.removesuffix(MARK): status for name, status in columns.status.items()}
    return replace(columns, names=names, status=status)


def _facts(labels: LabelVolume, name: str) -> dict[str, Any]:
    known = labels.status[name] is not Status.UNKNOWN
    voxels, voxel_ml = labels.voxel_counts(), labels.grid.voxel_volume_mm3 / 1000
    disputed = voxels.get(disputed_column(name))
    return {
        "class": name,
        "status": labels.status[name].value,
        "volume_ml": voxels[name] * voxel_ml if known else None,
        "confidence": labels.confidence.get(name),
        "note": labels.notes.get(name),
        "disputed_ml": None if disputed is None else disputed * voxel_ml,
    }
