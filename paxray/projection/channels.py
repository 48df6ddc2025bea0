"""Which output channels each atom feeds: one channel per class, or one per atom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume, suggest_class
from paxray.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Channels:
    """Names of the output channels and the atom x channel table behind them.

    Parameters
    ----------
    names
        One per channel, unique.
    table
        ``(n_atoms, n_channels)`` bool; row 0 is the background.
    """

    names: tuple[str, ...]
    table: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.names)

    @cached_property
    def start(self) -> NDArray[np.int32]:
        """``(n_atoms + 1,)``: atom a feeds ``members[start[a]:start[a + 1]]``."""
        return np.concatenate([[0], np.cumsum(self.table.sum(axis=1))]).astype(np.int32)

    @cached_property
    def members(self) -> NDArray[np.int32]:
        """Channel numbers, atom by atom."""
        return np.nonzero(self.table)[1].astype(np.int32)

    @classmethod
    def classes(cls, labels: LabelVolume, names: tuple[str, ...] | None = None) -> Channels:
        """One channel per class, all of the label volume's or those named."""
        if names is None:
            return cls(labels.names, labels.membership)
        unknown = [name for name in names if name not in labels.names]
        if unknown:
            raise ConfigError(
                f"the label volume has no class '{unknown[0]}'",
                found=f"{len(labels.names)} other classes",
                do=suggest_class(unknown[0], labels.names),
                code="unknown_class",
            )
        return cls(names, labels.membership[:, [labels.names.index(name) for name in names]])

    @classmethod
    def atoms(cls, labels: LabelVolume) -> Channels:
        """One channel per atom, the background (atom 0) included: a partition of space."""
        n = len(labels.membership)
        return cls(tuple(f"atom_{a}" for a in range(n)), np.eye(n, dtype=bool))
