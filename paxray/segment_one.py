"""One CT, one segmenter: its masks as files that paxray and other tools read, and a picture of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import ConfigError
from paxray.io.ct import read_ct
from paxray.io.stored import image_suffix
from paxray.projection.project import Device, resolve_device
from paxray.segmentation.checked import device_of, run_segmenter
from paxray.segmentation.files import parse_source
from paxray.segmentation.registry import make_segmenter
from paxray.segmentation.written import vocabulary_file_of, write_class_files, write_label_map

LABEL_MAP = ".nii.gz"


def segment_one(
    ct_file: Path,
    segmenter: str,
    out: Path,
    *,
    settings: Mapping[str, Any] | None = None,
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
    ct_file, segmenter, settings
        What is segmented by what. Paths among the settings are relative to the working directory.
    out
        Ends in ``.nii.gz``: one label map with its vocabulary beside (`write_label_map`). Otherwise a folder with one
        file per class and what is known of each (`write_class_files`).
    masks, vocabulary
        Mask files, for the segmenter ``files``.
    catalog_file
        Classes of one's own.
    device
        ``auto``, ``cpu`` or ``cuda``.
    preview
        Also draw it, into a PNG beside `out`.
    force
        Overwrite a label map.

    Returns
    -------
    ``out``, ``vocabulary`` (None for a folder), ``preview`` (None unless asked for), and ``classes``: name, status,
    volume, confidence and note of each.

    Raises
    ------
    ConfigError, ResourceError, CaseError
    """
    _require_writable(out, force)
    catalog = load_catalog(catalog_file)
    chosen = make_segmenter(segmenter, settings)
    where = device_of(chosen, resolve_device(device))
    chosen.preflight(where)
    sources = [parse_source(text, vocabulary) for text in masks]
    ct = read_ct(ct_file)
    found = run_segmenter(chosen, ct, catalog, device=where, where=ct_file.name, masks=sources)
    beside = None
    if out.name.endswith(LABEL_MAP):
        beside = write_label_map(out, found, segmenter)
    else:
        write_class_files(out, found, segmenter)
    picture = None
    if preview:
        from paxray.preview import preview_all

        picture = out.with_name(out.name.removesuffix(LABEL_MAP) + ".png")
        preview_all(ct, found, catalog, picture)
    return {
        "out": str(out),
        "vocabulary": None if beside is None else str(beside),
        "preview": None if picture is None else str(picture),
        "classes": [_facts(found, name) for name in found.names],
    }


def _require_writable(out: Path, force: bool) -> None:
    """Before minutes are spent on what cannot be written."""
    if out.name.endswith(LABEL_MAP):
        standing = [path.name for path in (out, vocabulary_file_of(out)) if path.exists()]
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


def _facts(labels: LabelVolume, name: str) -> dict[str, Any]:
    known = labels.status[name] is not Status.UNKNOWN
    ml = labels.voxel_counts()[name] * labels.grid.voxel_volume_mm3 / 1000
    return {
        "class": name,
        "status": labels.status[name].value,
        "volume_ml": ml if known else None,
        "confidence": labels.confidence.get(name),
        "note": labels.notes.get(name),
    }
