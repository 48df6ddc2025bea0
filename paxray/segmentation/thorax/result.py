"""What the thorax segmenter hands over: a mask with a confidence, or a reason, per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paxray.errors import ConfigError, suggest
from paxray.io.lattice import Box
from paxray.segmentation.thorax.morphology import Bool


@dataclass(frozen=True, eq=False)
class Found:
    """One class.

    Parameters
    ----------
    box, array
        Its bounding box in the CT's array ``[k, j, i]``, and the mask in it.
    confidence
        0..1, that the name is right and the mask good: what the method reaches where it was measured, lowered by what
        this case lacks. Not a probability.
    note
        What the confidence rests on.
    """

    box: Box
    array: Bool
    confidence: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class ThoraxResult:
    """Every class that the segmenter names, either found or unknown.

    Parameters
    ----------
    shape
        The CT's, ``(nk, nj, ni)``.
    found
        Class to mask.
    unknown
        Class to the reason why nothing is said of it.
    carina_mm
        LPS mm; None where it was not found.
    """

    shape: tuple[int, int, int]
    found: Mapping[str, Found]
    unknown: Mapping[str, str]
    carina_mm: tuple[float, float, float] | None

    def mask(self, name: str) -> Bool:
        """``(nk, nj, ni)`` bool on the CT's lattice; `ConfigError` (code ``unknown_class``) for one not found."""
        if name not in self.found:
            raise ConfigError(
                f"the thorax segmenter has no mask of '{name}'",
                found=self.unknown.get(name, "a class that it does not name"),
                do="" if name in self.unknown else suggest(name, (*self.found, *self.unknown)),
                code="unknown_class",
            )
        out = np.zeros(self.shape, bool)
        one = self.found[name]
        out[one.box] = one.array
        return out
