"""Masks that come with a case, under the contract that all segmenters keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError
from paxray.segmentation.contract import Request, Segmenter, require_known_settings
from paxray.segmentation.files import read_masks


class GivenMasks(Segmenter):
    """Reads the mask files of the case table; what they are is said there, so it has no settings."""

    name = "files"
    devices = ("cpu",)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Path) -> GivenMasks:  # noqa: D102
        require_known_settings(cls.name, settings, ())
        return cls()

    def classes(self, catalog: Catalog) -> tuple[str, ...]:
        """Whatever the catalog knows: files may name any class."""
        return tuple(catalog)

    def identity(self) -> Mapping[str, Any]:
        """The content of the files is part of a case's own identity."""
        return {}

    def preflight(self, device: Literal["cpu", "cuda"]) -> None:
        """Needs nothing beyond this package."""

    def segment(self, request: Request) -> LabelVolume:
        """Read the masks onto the CT's lattice; `CaseError` as `read_masks`, and ``no_masks`` where none are given."""
        if not request.masks:
            raise CaseError(
                "no masks are given with this case",
                where=request.where,
                do="name them in the case table, or choose another segmenter",
                code="no_masks",
            )
        return read_masks(request.masks, request.ct.grid, request.catalog, base=request.base)
