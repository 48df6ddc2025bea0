"""The rib rule: what the areas of a rib and of its two halves must obey, whatever the picture shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RibAreas:
    """Areas of a rib and its halves, summed over pictures, pixels.

    A rib is the union of its halves, also in a projection, where they may overlap. Hence
    ``max(anterior, posterior) <= rib <= anterior + posterior``, for each picture and for any sum.
    """

    side: str
    number: int
    rib: int
    anterior: int
    posterior: int

    @property
    def holds(self) -> bool:
        """Whether the rule holds."""
        return max(self.anterior, self.posterior) <= self.rib <= self.anterior + self.posterior

    def __str__(self) -> str:
        return f"rib_{self.side}_{self.number}: rib {self.rib}, anterior {self.anterior}, posterior {self.posterior}"


def rib_areas(names: Sequence[str], areas: NDArray[np.int64]) -> list[RibAreas]:
    """Pick the areas of the 24 ribs by their channels' names.

    Parameters
    ----------
    names
        A name per channel, as PAXRay writes them: ``rib_left_4``, ``rib_left_anterior_4``.
    areas
        ``(channels,)`` pixels.
    """
    area: Mapping[str, int] = dict(zip(names, areas.tolist(), strict=True))
    return [
        RibAreas(
            side,
            number,
            area[f"rib_{side}_{number}"],
            area[f"rib_{side}_anterior_{number}"],
            area[f"rib_{side}_posterior_{number}"],
        )
        for side in ("left", "right")
        for number in range(1, 13)
    ]
