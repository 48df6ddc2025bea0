"""A sample's masks stacked in the order of a vocabulary's channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.anatomy_class import AnatomyClass
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.channels import Channels, load_channels

if TYPE_CHECKING:
    from paxray.dataset.reader import Sample

_UNKNOWN = "unknown"


class Stack(NamedTuple):
    """Masks of all channels, and what is known of each.

    Attributes
    ----------
    masks
        ``(channels, rows, columns)`` bool. A channel of which nothing is known is all False.
    status
        One word per channel: ``present``, ``partial``, ``absent`` or ``unknown``. A class that the data set
        does not hold is unknown.
    """

    masks: NDArray[np.bool_]
    status: tuple[str, ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        """``(channels,)`` bool: whether anything looked for it, so that an empty mask means absent."""
        return np.array([status != _UNKNOWN for status in self.status])


def catalog_with(categories: Iterable[Mapping[str, Any]], catalog: Catalog | None = None) -> Catalog:
    """Return a catalog with the classes of a data set that it lacks.

    Parameters
    ----------
    categories
        As the data set's manifest lists them: ``name``, ``supercategory``, ``colour``.
    catalog
        The built-in one by default.
    """
    known = load_catalog() if catalog is None else catalog
    own = [
        AnatomyClass(row["name"], group=row["supercategory"], colour=tuple(row["colour"]))
        for row in categories
        if row["name"] not in known
    ]
    return Catalog([*known.values(), *own]) if own else known


def channels_of(spec: str, names: Iterable[str]) -> Channels:
    """Load a vocabulary's channels for a data set that has these classes.

    Parameters
    ----------
    spec
        As in `paxray.anatomy.channels.load_channels`.
    names
        The data set's classes; those that the built-in catalog lacks are known by these names.

    Raises
    ------
    ConfigError
        No such vocabulary, or a channel of a class that neither has.
    """
    categories = ({"name": name, "supercategory": "", "colour": (0, 0, 0)} for name in names)
    return load_channels(spec, catalog=catalog_with(categories))


def stack_masks(sample: Sample, channels: Channels) -> Stack:
    """Return a sample's masks in the order of `channels`."""
    status = {row["class"]: str(row["status"]) for row in sample.labels}
    found = tuple(status.get(name, _UNKNOWN) for name in channels.classes)
    masks = np.zeros((len(channels), *sample.size), np.bool_)
    for number, (name, word) in enumerate(zip(channels.classes, found, strict=True)):
        if word != _UNKNOWN:
            masks[number] = sample.masks[name]
    return Stack(masks, found)
