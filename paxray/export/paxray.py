"""PAXRay's own layout: a stack of masks per picture, and one JSON that says what each channel is.

::

    paxray.json           {"label_dict": {"0": NAME, ...}, "train": [...], "val": [...], "test": [...]}
    images/STEM.png       8-bit display
    labels/STEM.npy       (channels, rows, columns) bool

An entry of a split is ``{"image": "images/STEM.png", "target": "labels/STEM.npy"}``, as in the release of PAXRay
(Seibold et al., BMVC 2022), with two keys of its own that say what an empty channel means: ``unknown`` lists the
channels that nothing looked for, ``partial`` those whose mask may lack pixels. An empty channel that neither lists
is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paxray._version import __version__
from paxray.anatomy.channels import Channels
from paxray.dataset.layout import SPLITS
from paxray.dataset.reader import Dataset
from paxray.errors import ConfigError
from paxray.export.folder import ExportResult, new_folder, place_of, require_whole
from paxray.export.pictures import write_picture
from paxray.files import digest, write_json

NAME = "paxray"


def export_paxray(
    dataset: Dataset,
    channels: Channels,
    out: Path | None = None,
    *,
    on_sample: Callable[[str], None] | None = None,
) -> ExportResult:
    """Export a data set to PAXRay's layout.

    A picture of 512 x 512 pixels with 166 channels takes 44 MB on disk, and in memory, one at a time. The same
    data set gives the same bytes.

    Parameters
    ----------
    dataset
        The whole of it, as `paxray.load` opens it.
    channels
        What the channels show, and in which order.
    out
        Where to; ``DATASET/exports/paxray`` unless given. An older export of the same channels is replaced
        there when the new one is complete.
    on_sample
        Told the id of each sample when it is written.

    Raises
    ------
    ConfigError
        The data set is unfinished, opened in part or without samples, holds none of the channels' classes
        (``no_channel``), or the place is taken, also by an export of other channels (``other_export``).
    DamageError
        A case id or view that cannot be part of a file name, or two samples with the same one.
    """
    marker = {
        "format": NAME,
        "dataset": dataset.name,
        "vocabulary": Path(channels.name).name,
        "channels": len(channels),
        "channels_sha256": digest([channels.names, channels.classes]),
        "paxray": __version__,
    }
    folder = place_of(dataset, NAME, out, marker)
    require_whole(dataset)
    _require_a_channel(dataset, channels)
    content: dict[str, Any] = {
        "label_dict": {str(number): name for number, name in enumerate(channels.names)},
        "class_dict": {str(number): name for number, name in enumerate(channels.classes)},
    }
    images = annotations = 0
    with new_folder(folder, marker) as partial:
        pictures, labels = partial / "images", partial / "labels"
        pictures.mkdir()
        labels.mkdir()
        for split in SPLITS:
            content[split] = entries = []
            for sample in Dataset(dataset.root, split):
                picture = write_picture(pictures, sample, sample.images["image"])
                target = f"{picture.removesuffix('.png')}.npy"
                stack = sample.stack(channels)
                np.save(labels / target, stack.masks)
                entries.append(
                    {
                        "image": f"images/{picture}",
                        "target": f"labels/{target}",
                        "sample_id": sample.id,
                        "unknown": _numbers(stack.status, "unknown"),
                        "partial": _numbers(stack.status, "partial"),
                    }
                )
                images += 1
                annotations += int(np.count_nonzero(stack.masks.any(axis=(1, 2))))
                if on_sample is not None:
                    on_sample(sample.id)
        write_json(partial / "paxray.json", content)
        (partial / "README.md").write_text(_README.format(name=dataset.name), encoding="utf-8")
    return ExportResult(folder, (folder / "paxray.json",), images, annotations, len(channels))


def _numbers(status: tuple[str, ...], word: str) -> list[int]:
    return [number for number, found in enumerate(status) if found == word]


def _require_a_channel(dataset: Dataset, channels: Channels) -> None:
    held = {category["name"] for category in dataset.categories}
    if held.isdisjoint(channels.classes):
        raise ConfigError(
            "the data set holds no class that a channel shows: every mask would be empty",
            where=dataset.root.name,
            expected=f"one of {channels.classes[0]}, {channels.classes[-1]}, ...",
            found=", ".join(sorted(held)[:5]),
            do="choose another vocabulary, or build with the classes it names",
            code="no_channel",
        )


_README = """# {name} in PAXRay's layout

`paxray.json` lists the pictures of each split; `labels/*.npy` are boolean, (channels, rows, columns).
**A research data set, not for clinical use.**

```python
import json
import numpy as np

content = json.load(open("paxray.json"))
entry = content["train"][0]
masks = np.load(entry["target"])
known = [n for n in range(len(masks)) if n not in entry["unknown"]]
```

An empty channel means absent, unless the entry lists it under `unknown` (nothing looked for it: leave it out of
the loss and the score) or `partial` (a part of it was not looked for). `label_dict` names the channels as their
vocabulary does, `class_dict` as paxray does.
"""
