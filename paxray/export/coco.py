"""COCO: one annotation file per split, masks as compressed run lengths, pictures as PNG.

The format is that of https://cocodataset.org/#format-data, as pycocotools, faster-coco-eval and torchvision's
``CocoDetection(root="images/train", annFile="annotations/instances_train.json")`` read it. What it has no key
for stands in keys of its own, which those readers pass over. Three keys of an image say what its missing
annotations mean; the first two are named as in LVIS (https://www.lvisdataset.org/dataset):

``neg_category_ids``
    Looked for and without a pixel here.
``not_exhaustive_category_ids``
    Unions of which a part was not looked for: the mask may lack pixels.
``unknown_category_ids``
    Nothing looked for them: no annotation does not mean absent.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from paxray._version import __version__
from paxray.dataset.layout import SPLITS, Layout
from paxray.dataset.reader import Dataset, Sample
from paxray.errors import ConfigError
from paxray.export.folder import ExportResult, new_folder, place_of, require_whole
from paxray.export.pictures import write_picture

NAME = "coco"
#: What the images' `license` points to where the case table says nothing.
NO_LICENSE = "not stated"

_FACTS = (
    "status", "view_status", "cut_by_ct", "volume_mm3", "centroid_px",
    "path_mean_mm", "path_max_mm", "entry_mean_mm", "exit_mean_mm", "unhidden_share",
)  # fmt: skip
_INSTANCE_FACTS = (
    "instance_id", "station", "station_source", "long_axis_mm", "short_axis_mm", "centroid_mm",
    *(key for key in _FACTS if key != "status"),
)  # fmt: skip


def export_coco(
    dataset: Dataset,
    out: Path | None = None,
    *,
    bits: Literal[8, 16] = 8,
    on_sample: Callable[[str], None] | None = None,
) -> ExportResult:
    """Export a data set to COCO.

    Image and annotation ids count from 1 over the whole data set, in the order of splits, shards and samples;
    category ids are the data set's own. The same data set gives the same bytes. One shard is held in memory
    at a time.

    Parameters
    ----------
    dataset
        The whole of it, as `paxray.load` opens it.
    out
        Where to; ``DATASET/exports/coco`` unless given. An older export there is replaced when the new one is
        complete.
    bits
        8 for the display (the stored bytes, bone white); 16 for the signal (line integrals of attenuation:
        ``offset + scale * pixel``, scale and offset in the image's entry). Loaders that convert to 8-bit RGB
        show a 16-bit picture as white.
    on_sample
        Told the id of each sample when it is written.

    Raises
    ------
    ConfigError
        The data set is unfinished, opened in part or without samples, or the place is taken.
    DamageError
        A case id or view that cannot be part of a file name, or two samples with the same one.
    """
    if bits not in (8, 16):
        raise ConfigError("no such picture", expected="8 or 16 bits", found=f"{bits} bits")
    marker = {"format": NAME, "dataset": dataset.name, "bits": bits, "paxray": __version__}
    folder = place_of(dataset, NAME, out, marker)
    require_whole(dataset)
    licenses = {name: number for number, name in enumerate(_licenses(dataset), start=1)}
    images = annotations = 0
    files = []
    with new_folder(folder, marker) as partial:
        (partial / "annotations").mkdir()
        (partial / "README.md").write_text(_readme(dataset, bits), encoding="utf-8")
        for split in SPLITS:
            part = Dataset(dataset.root, split)
            if not len(part):
                continue
            pictures = partial / "images" / split
            pictures.mkdir(parents=True)
            name = f"annotations/instances_{split}.json"
            with _annotation_file(partial / name, _head(dataset, split, licenses)) as (
                add_image,
                add_annotation,
            ):
                for sample in part:
                    images += 1
                    content = sample.images["image" if bits == 8 else "signal"]
                    file_name = write_picture(pictures, sample, content)
                    add_image(_image(sample, images, file_name, bits, licenses))
                    for annotation in _annotations(sample, images, annotations + 1):
                        annotations = annotation["id"]
                        add_annotation(annotation)
                    if on_sample is not None:
                        on_sample(sample.id)
            files.append(folder / name)
    return ExportResult(folder, tuple(files), images, annotations, len(dataset.categories))


def _licenses(dataset: Dataset) -> list[str]:
    """Every licence that samples name, in alphabetical order."""
    import pyarrow.parquet as pq

    layout = Layout(dataset.root)
    found: set[str] = set()
    for shard in dataset.shards:
        column = pq.read_table(layout.samples(shard), columns=["license"])["license"]
        found.update(name or NO_LICENSE for name in column.unique().to_pylist())
    return sorted(found)


def _head(dataset: Dataset, split: str, licenses: dict[str, int]) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "info": {
            "description": manifest["description"] or f"{dataset.name}: pseudo X-rays projected from CT",
            "version": f"paxray {manifest['environment']['paxray']}",
            "name": dataset.name,
            "split": split,
            "notice": "A research data set, not for clinical use.",
            "exported_by": f"paxray {__version__}",
        },
        "licenses": [{"id": number, "name": name, "url": ""} for name, number in licenses.items()],
        "categories": dataset.categories,
    }


_README = """# {name} as COCO

`annotations/instances_SPLIT.json` beside `images/SPLIT/`, {bits}-bit greyscale PNG.
**A research data set, not for clinical use.**

```python
from torchvision.datasets import CocoDetection

train = CocoDetection("images/train", "annotations/instances_train.json")
```

Classes overlap, as anatomy does in a radiograph: one annotation per class and image that has pixels, its
mask as compressed run lengths. A class that was drawn lesion by lesion has one annotation per lesion instead, with its
`instance_id`, station and axes in mm. A class without an annotation is absent only where the image's
`neg_category_ids` names it; nothing looked for those in `unknown_category_ids`. `incomplete` marks the rays
that leave the body where the scan ends: good for an ignore region. `geometry` is in mm, LPS; its `matrix`
takes world mm to pixel (column, row).
"""


def _readme(dataset: Dataset, bits: int) -> str:
    return _README.format(name=dataset.name, bits=bits)


def _image(
    sample: Sample, number: int, file_name: str, bits: int, licenses: dict[str, int]
) -> dict[str, Any]:
    row = sample.row
    rows, columns = sample.size
    entry = {
        "id": number,
        "file_name": file_name,
        "width": columns,
        "height": rows,
        "license": licenses[row["license"] or NO_LICENSE],
        "sample_id": sample.id,
        "case_id": sample.case_id,
        "patient_id": sample.patient_id,
        "view": row["view"],
        "source": row["source"] or "",
        "bits": bits,
    }
    if bits == 16:
        entry |= {"signal_scale": row["signal_scale"], "signal_offset": row["signal_offset"]}
    return entry | {
        "geometry": _geometry(row),
        "incomplete": {"size": [rows, columns], "counts": sample.incomplete_rle},
        "body_px": row["body_px"],
        "neg_category_ids": _ids(
            sample, lambda r: r["status"] in ("present", "absent") and r["mask"] is None
        ),
        "not_exhaustive_category_ids": _ids(sample, lambda r: r["status"] == "partial"),
        "unknown_category_ids": _ids(sample, lambda r: r["status"] == "unknown"),
    }


def _ids(sample: Sample, chosen: Callable[[dict[str, Any]], bool]) -> list[int]:
    return [row["category_id"] for row in sample.labels if chosen(row)]


def _geometry(row: dict[str, Any]) -> dict[str, Any]:
    """The view, LPS mm; matrices as nested rows, ``K`` null for a parallel beam."""
    plain = ("beam", "sdd_mm", "source_mm", "direction", "center_mm", "u", "v")
    return {
        **{key: row[key] for key in plain},
        "pitch_mm": [row["pitch_u_mm"], row["pitch_v_mm"]],
        "matrix": _nested(row["matrix"], 4),
        "K": None if row["K"] is None else _nested(row["K"], 3),
        "R": _nested(row["R"], 3),
        "t": row["t"],
    }


def _nested(flat: list[float], width: int) -> list[list[float]]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _annotations(sample: Sample, image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    """One entry for each class that has pixels in a sample; of a class drawn lesion by lesion, one for each lesion."""
    lesions = [row for row in sample.instance_rows if row["mask"] is not None]
    one_by_one = {row["class"] for row in lesions}
    seen: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        (row, _FACTS) for row in sample.labels if row["mask"] is not None and row["class"] not in one_by_one
    ]
    seen += [(row, _INSTANCE_FACTS) for row in lesions]
    for number, (row, facts) in enumerate(seen, start=first_id):
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": row["category_id"],
            "segmentation": {"size": list(sample.size), "counts": row["mask"]},
            "area": row["area_px"],
            "bbox": row["bbox"],
            "iscrowd": 0,
            **{key: _finite(row[key]) for key in facts},
        }


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null stands for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _annotation_file(
    path: Path, head: dict[str, Any]
) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[dict[str, Any]], None]]]:
    """Give two functions that add an image and an annotation; memory does not grow with what is added.

    The lists come one after the other in the file but grow together, so that annotations wait in a nameless
    temporary file on the same disk.
    """
    with (
        path.open("w", encoding="utf-8") as file,
        tempfile.TemporaryFile("w+", dir=path.parent, encoding="utf-8") as waiting,
    ):
        file.write("{")
        for key, value in head.items():
            file.write(f"{_json(key)}: {_json(value)},\n")
        file.write('"images": [\n')
        images, annotations = _Listed(file), _Listed(waiting)
        yield images.add, annotations.add
        file.write('\n],\n"annotations": [\n')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        file.write("\n]}\n")


class _Listed:
    """Entries of a JSON list, one a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._between = ""

    def add(self, entry: dict[str, Any]) -> None:
        self._file.write(self._between + _json(entry))
        self._between = ",\n"


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)
