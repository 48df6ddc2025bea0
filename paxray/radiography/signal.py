"""The `signal`: line integrals as 16-bit integers with their scale and offset."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Line integral per grey level: 65535 levels reach 16.4, a photon in thirteen million.
SIGNAL_SCALE = 2.5e-4


class Signal(NamedTuple):
    """``line integral = offset + scale * values``; values ``(rows, columns)`` uint16."""

    values: NDArray[np.uint16]
    scale: float
    offset: float


def encode_signal(line_integral: NDArray[np.floating]) -> Signal:
    """Quantise line integrals (dimensionless, >= 0) to 16 bits.

    The scale is `SIGNAL_SCALE`, doubled until the largest value fits, so that nothing is ever clipped; the
    error is at most half a level.
    """
    scale = SIGNAL_SCALE
    largest = float(line_integral.max(initial=0.0))
    while largest / scale > 65535:
        scale *= 2
    values = np.rint(line_integral / scale).clip(0, 65535).astype(np.uint16)
    return Signal(values, scale, 0.0)


def decode_signal(values: NDArray[np.uint16], scale: float, offset: float) -> NDArray[np.float32]:
    """Return line integrals as float32."""
    return (offset + scale * values.astype(np.float64)).astype(np.float32)
