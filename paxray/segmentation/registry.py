"""Which segmenters there are: those built in, and those that installed packages offer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from paxray.errors import ConfigError, ResourceError, suggest
from paxray.segmentation.contract import Segmenter

#: Entry points of this group name a `Segmenter` each, under the name that pipelines write.
GROUP = "paxray.segmenters"
#: Name to ``module:class``; a module is imported only when its segmenter is asked for.
BUILT_IN = {
    "thorax": "paxray.segmentation.thorax.segmenter:Thorax",
    "files": "paxray.segmentation.given:GivenMasks",
    "totalsegmentator": "paxray.segmentation.totalsegmentator:TotalSegmentator",
    "nnunet": "paxray.segmentation.nnunet:NnUnet",
}


def segmenter_names() -> list[str]:
    """All names that a pipeline may write, built-in ones first."""
    return list(dict.fromkeys([*BUILT_IN, *sorted(point.name for point in entry_points(group=GROUP))]))


def segmenter_class(name: str) -> type[Segmenter]:
    """Import a segmenter's class.

    Raises
    ------
    ConfigError
        No such segmenter (``unknown_segmenter``), or two packages offer the name.
    ResourceError
        ``package_missing`` where it cannot be imported.
    """
    offers = [(f"package {_package(point)}", point.value) for point in entry_points(group=GROUP, name=name)]
    if name in BUILT_IN:
        offers.insert(0, ("paxray", BUILT_IN[name]))
    if not offers:
        known = segmenter_names()
        raise ConfigError(
            f"there is no segmenter '{name}'",
            where="segmentation.segmenter",
            expected=", ".join(known),
            do=suggest(name, known)
            or f"install the package that offers it by an entry point of the group {GROUP}",
            code="unknown_segmenter",
        )
    if len(offers) > 1:
        raise ConfigError(
            f"several packages offer a segmenter '{name}'",
            where="segmentation.segmenter",
            found=", ".join(owner for owner, _ in offers),
            do="uninstall all but one of them",
            code="unknown_segmenter",
        )
    [(owner, value)] = offers
    module, _, attribute = value.partition(":")
    try:
        found = getattr(import_module(module.strip()), attribute.strip())
    except (ImportError, AttributeError) as error:
        raise ResourceError(
            f"segmenter '{name}' cannot be imported",
            where=owner,
            found=str(error),
            do="install what it needs (docs/segmentation.md)",
            code="package_missing",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Segmenter)):
        raise ConfigError(
            f"what stands under the name '{name}' is no segmenter",
            where=owner,
            expected="a class that inherits paxray.segmentation.contract.Segmenter",
            found=value,
            code="unknown_segmenter",
        )
    return found


def make_segmenter(
    name: str, settings: Mapping[str, Any] | None = None, base: Path | None = None
) -> Segmenter:
    """Make a segmenter by its name.

    Parameters
    ----------
    name
        One of `segmenter_names`.
    settings
        Its own; `ConfigError` for one that it does not know.
    base
        Folder that paths among the settings are relative to; the working directory by default.
    """
    return segmenter_class(name).from_settings(settings or {}, base or Path())


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
