"""The built-in thorax segmenter under the contract that all segmenters keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.segmentation.contract import Request, Segmenter, require_known_settings

#: Raised when `segment_thorax` would give other masks, confidences or reasons.
VERSION = 5


class Thorax(Segmenter):
    """A bare chest CT by anatomical rules: no weights, no settings, no GPU."""

    name = "thorax"
    devices = ("cpu",)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Path) -> Thorax:  # noqa: D102
        require_known_settings(cls.name, settings, ())
        return cls()

    def classes(self, catalog: Catalog) -> tuple[str, ...]:  # noqa: D102
        from paxray.segmentation.thorax.segment import CLASSES

        return tuple(name for name in catalog if name in CLASSES)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return {"version": VERSION}

    def preflight(self, device: Literal["cpu", "cuda"]) -> None:
        """Needs nothing beyond this package."""

    def segment(self, request: Request) -> LabelVolume:
        """Segment one CT; as `paxray.segmentation.thorax.segment.segment_thorax`."""
        from paxray.segmentation.thorax.segment import segment_thorax

        result = segment_thorax(request.ct)
        builder = LabelBuilder(result.shape)
        for name, one in result.found.items():
            builder.add_mask(name, one.box, one.array, note=one.note, confidence=one.confidence)
        nowhere = (slice(0, 0),) * 3
        for name, reason in result.unknown.items():
            builder.add_mask(name, nowhere, np.zeros((0, 0, 0), bool), status=Status.UNKNOWN, note=reason)
        return builder.finish(request.ct.affine, request.catalog)
