"""The report: one self-contained HTML page, made from what lies on disk alone."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from paxray._version import __version__
from paxray.dataset.reader import Dataset, Sample
from paxray.errors import ConfigError
from paxray.files import write_text
from paxray.report.summary import ClassRow, Summary, choose_samples, summarise

TEMPLATE = "page.html"

#: A class that covers more of the image than this is an envelope (body, skin, fat): it would tint all others.
ENVELOPE_SHARE = 0.4
#: Groups of classes that the preset "bones" shows.
BONE_GROUPS = ("bone", "rib", "spine")
LUNGS_AND_HEART = ("lung_left", "lung_right", "heart")
#: What a first look shows where the data set has it: much of the anatomy, little of it in each other's way.
OVERVIEW = (
    "lung_left", "lung_right", "heart", "aorta", "trachea",
    *(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)),
    "clavicula_left", "clavicula_right",
    *(f"vertebrae_{level}" for level in [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 6)]),
    "liver", "stomach",
)  # fmt: skip


def write_report(
    dataset: Dataset,
    out: Path | None = None,
    *,
    samples: int = 24,
    on_sample: Callable[[str], None] | None = None,
) -> Path:
    """Write the report of a data set: counts, a gallery with its labels, tables.

    The page needs no network and no other file. It comes out for a data set without samples, with failures
    only or with an interrupted build as well. The same data set gives the same bytes.

    Parameters
    ----------
    dataset
        All of it is reported on, also where it was opened with one split.
    out
        The page; ``DATASET/report/index.html`` unless given.
    samples
        How many samples the gallery shows at most; each adds its PNG and masks to the page.
    on_sample
        Told the id of each sample that goes in.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError
        `out` is no HTML file, or `samples` is negative.
    DamageError
        The data set cannot be read.
    """
    dataset = Dataset(dataset.root)
    page = dataset.root / "report" / "index.html" if out is None else Path(out)
    if page.suffix not in (".html", ".htm") or page.is_dir():
        raise ConfigError("a report is one HTML file", where=page.name, expected="a name that ends in .html")
    if samples < 0:
        raise ConfigError("the number of samples in the gallery", expected=">= 0", found=str(samples))
    summary = summarise(dataset)
    shown = []
    for row in choose_samples(summary.samples, samples):
        shown.append(dataset[row.sample_id])
        if on_sample is not None:
            on_sample(row.sample_id)
    write_text(page, _render(dataset, summary, shown))
    return page


def _render(dataset: Dataset, summary: Summary, shown: list[Sample]) -> str:
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paxray", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"view_label": _view_label, "percent": _percent}
    manifest = dataset.manifest
    return environment.get_template(TEMPLATE).render(
        manifest=manifest,
        summary=summary,
        gallery=_gallery(summary, shown),
        cards=[_card(sample) for sample in shown],
        segmenters=_segmenters(manifest),
        seen=sum(row.seen > 0 for row in summary.classes),
        pipeline=yaml.safe_dump(manifest["pipeline"], sort_keys=False, allow_unicode=True),
        version=__version__,
    )


def _segmenters(manifest: Mapping[str, Any]) -> list[str]:
    """What drew masks, with what tells one version of it from another."""
    said = []
    for one in manifest.get("segmenters") or []:
        plain = {
            key.removeprefix("identity."): value for key, value in one.items() if key.startswith("identity.")
        }
        facts = [
            f"{key} {value}" for key, value in plain.items() if isinstance(value, str | int) and value != ""
        ]
        said.append(f"{one['segmenter']} ({', '.join([*facts, 'on ' + one['device']])})")
    return said


def _label(name: str) -> str:
    """A class as people write it."""
    return name.replace("_", " ")


def _view_label(name: str) -> str:
    """A view as people write it: PA, lateral left."""
    return name.upper() if len(name) <= 3 else name.replace("_", " ")


def _percent(share: float) -> str:
    """Two significant digits."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %" if value >= 0.095 else f"{value:.2g} %"


def _card(sample: Sample) -> dict[str, Any]:
    """What a gallery card says and shows."""
    row = sample.row
    return {
        "sample": sample,
        "row": row,
        "picture": base64.b64encode(sample.images["image"]).decode("ascii"),
        "classes": sum(label["mask"] is not None for label in sample.labels),
        "incomplete": row["incomplete_px"] / row["body_px"] if row["body_px"] else None,
    }


def _gallery(summary: Summary, shown: list[Sample]) -> dict[str, Any]:
    """What the page's script draws from: classes, presets, and each sample's masks as COCO run lengths.

    Classes are numbered as in the list ``classes``, which holds those with pixels in a sample shown, disputed ones too.
    """
    drawn = ("mask", "disputed")
    seen = {
        label["category_id"]
        for sample in shown
        for label in sample.labels
        if any(label[kind] is not None for kind in drawn)
    }
    rows = [row for row in summary.classes if row.category["id"] in seen]
    index = {row.category["name"]: n for n, row in enumerate(rows)}
    leaves = [row for row in rows if not any(part in index for part in row.category["parts"])]
    return {
        "classes": [
            {
                "name": row.category["name"],
                "label": _label(row.category["name"]),
                "group": row.category["supercategory"] or "other",
                "colour": _vivid(row.category["colour"]),
                "parts": [index[part] for part in row.category["parts"] if part in index],
                "samples": row.seen,
            }
            for row in rows
        ],
        "presets": _presets(rows, leaves, index),
        "samples": [
            {
                "size": list(sample.size),
                **{
                    key: {str(index[r["class"]]): r[kind] for r in sample.labels if r[kind] is not None}
                    for key, kind in zip(("masks", "disputed"), drawn, strict=True)
                },
                "incomplete": sample.incomplete_rle,
                "landmarks": _dots(sample),
            }
            for sample in shown
        ],
    }


def _dots(sample: Sample) -> list[list[Any]]:
    """Name, column and row of every landmark in the picture."""
    seen = sample.landmarks[sample.landmarks["in_field"].astype(bool)]
    return [
        [_label(name.removeprefix("vertebra_")), *(round(at, 1) for at in pixel)]
        for name, pixel in seen["pixel"].items()
    ]


def _presets(rows: list[ClassRow], leaves: list[ClassRow], index: dict[str, int]) -> list[dict[str, Any]]:
    """Named choices of classes; the first is what the page opens with. One without classes is left out."""

    def numbers(names: Iterable[str]) -> list[int]:
        return [index[name] for name in names if name in index]

    small = [row.category["name"] for row in leaves if (row.median_share or 0) <= ENVELOPE_SHARE]
    bones = [row.category["name"] for row in leaves if row.category["supercategory"] in BONE_GROUPS]
    overview = numbers(OVERVIEW)
    if len(overview) < 3:  # another anatomy: the largest of what is not an envelope
        by_area = sorted(leaves, key=lambda row: -(row.median_share or 0))
        overview = numbers(row.category["name"] for row in by_area if row.category["name"] in small)[:16]
    presets = [
        {"name": "Overview", "classes": overview},
        {"name": "Bones", "classes": numbers(bones)},
        {"name": "Lungs + heart", "classes": numbers(LUNGS_AND_HEART)},
        {"name": "All leaves", "classes": numbers(small)},
    ]
    return [preset for preset in presets if preset["classes"]] if rows else []


def _vivid(rgb: list[int]) -> list[int]:
    """A catalog colour made fit to be seen on grey: pale ones (bone is nearly white) gain saturation."""
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in rgb))
    if saturation < 0.05:
        return [200, 200, 200]
    channels = colorsys.hls_to_rgb(hue, min(max(light, 0.45), 0.66), max(saturation, 0.6))
    return [round(255 * value) for value in channels]
