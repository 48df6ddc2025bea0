"""The released ``paxray.json``: which pictures there are, and what their channels are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paxray.anatomy.channels import Channels
from paxray.anatomy.document import read_document
from paxray.dataset.layout import SPLITS
from paxray.errors import ConfigError, DamageError


def read_listing(source: Path) -> dict[str, Any]:
    """Read ``paxray.json``: ``label_dict`` and a list of ``{"image", "target"}`` per split.

    Raises
    ------
    ConfigError
        There is none (code ``no_release``).
    DamageError
        It is of another kind, or an entry leads out of the folder (code ``names``).
    """
    path = source / "paxray.json"
    if not path.is_file():
        raise ConfigError(
            "no PAXRay here",
            where=str(source),
            expected="a folder with paxray.json, images/ and labels/",
            do="name the folder that paxray_dataset.zip was unpacked to",
            code="no_release",
        )
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamageError(
            "is not readable as JSON", where=path.name, found=str(error), code="names"
        ) from error
    sound = isinstance(listing, dict) and isinstance(listing.get("label_dict"), dict)
    if not sound or not all(isinstance(listing.get(split), list) for split in SPLITS):
        raise DamageError(
            "is of another kind",
            where=path.name,
            expected="a mapping with label_dict, train, val and test",
            found=", ".join(map(str, listing)) if isinstance(listing, dict) else type(listing).__name__,
            code="names",
        )
    for split in SPLITS:
        for number, entry in enumerate(listing[split]):
            _require_entry(source, entry, f"{path.name}: {split}[{number}]")
    return listing


def _require_entry(source: Path, entry: object, where: str) -> None:
    files = [entry.get(key) for key in ("image", "target")] if isinstance(entry, dict) else []
    root = source.resolve()
    if not files or not all(
        isinstance(file, str) and (root / file).resolve().is_relative_to(root) for file in files
    ):
        raise DamageError(
            "an entry names no image and target below the folder",
            where=where,
            expected='{"image": "images/...", "target": "labels/..."}',
            found=json.dumps(entry)[:80],
            code="names",
        )


def names_of(listing: dict[str, Any]) -> tuple[str, ...]:
    """The channels' names in order."""
    label_dict = listing["label_dict"]
    if set(label_dict) != {str(n) for n in range(len(label_dict))}:
        raise DamageError(
            "label_dict does not number its channels from 0 without a gap", where="paxray.json", code="names"
        )
    return tuple(str(label_dict[str(n)]) for n in range(len(label_dict)))


def renamed_channels(found: tuple[str, ...], channels: Channels) -> tuple[tuple[int, str, str], ...]:
    """Which channels have to be put right: those the release is known to misname, or none."""
    document = read_document(Path(__file__).with_name("paxray_released.yaml"))
    released = list(channels.names)
    for channel, name in document.data["misnamed"].items():
        released[channel] = name
    if found == channels.names:
        return ()
    if found == tuple(released):
        return tuple(
            (n, old, new)
            for n, (old, new) in enumerate(zip(found, channels.names, strict=True))
            if old != new
        )
    if len(found) != len(released):
        raise DamageError(
            "label_dict has another number of channels",
            where="paxray.json",
            expected=str(len(released)),
            found=str(len(found)),
            code="names",
        )
    first = next(n for n, name in enumerate(found) if name not in (released[n], channels.names[n]))
    raise DamageError(
        "channels are named neither as in the release nor right",
        where=f"paxray.json: label_dict.{first}",
        expected=" or ".join(dict.fromkeys((released[first], channels.names[first]))),
        found=found[first],
        code="names",
    )
