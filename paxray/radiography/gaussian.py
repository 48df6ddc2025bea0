"""A Gaussian mean of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.compiling import loop

#: Standard deviations at which the bell is cut off.
TRUNCATE = 4.0


def gaussian(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth with a Gaussian of `sigma` pixels; the picture goes on as in a mirror that stands on its border.

    What `scipy.ndimage.gaussian_filter` gives, in half its time and without its import: every view of a case is
    smoothed four times.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    away = np.arange(radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * away**2)
    weights /= np.concatenate([weights[:0:-1], weights]).sum()
    for _ in range(2):
        rows = np.empty_like(image)
        _weigh(np.pad(image, [(radius, radius), (0, 0)], mode="symmetric"), weights, rows)
        image = np.ascontiguousarray(rows.T)
    return image


@loop(nogil=True)
def _weigh(padded, weights, out):  # type: ignore[no-untyped-def]
    """Sum the rows around each row by weights for how far away they are."""
    radius = weights.size - 1
    for row in range(len(out)):
        total, here = out[row], padded[row + radius]
        for column in range(total.size):
            total[column] = weights[0] * here[column]
        for away in range(radius, 0, -1):
            weight = weights[away]
            before, behind = padded[row + radius - away], padded[row + radius + away]
            for column in range(total.size):
                total[column] += weight * (before[column] + behind[column])
