"""The `image`: 8 bits for people and loaders, bone white, as a chest film hangs on the wall."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Line integrals below this are direct exposure: beside the patient.
DIRECT_EXPOSURE = 0.15


@dataclass(frozen=True)
class Display:
    """How line integrals become grey levels.

    Parameters
    ----------
    low_percentile, high_percentile
        The window's ends, as percentiles of the line integral over the exposed patient (rays that are
        not direct exposure and, where known, not incomplete).
    toe
        Grey level (0..1) of the window's lower end; what is thinner runs down to black.
    contrast
        Slope of the S-shaped curve in mid-window relative to a straight line; 1 is straight.
    detail
        Gain of unsharp masking, 0 for none.
    detail_radius
        Its Gaussian's standard deviation as a fraction of the image height.
    """

    low_percentile: float = 1.0
    high_percentile: float = 99.0
    toe: float = 0.12
    contrast: float = 1.25
    detail: float = 0.6
    detail_radius: float = 0.02


def render_display(
    line_integral: NDArray[np.floating],
    display: Display | None = None,
    incomplete: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Draw an 8-bit radiograph, bone white.

    Parameters
    ----------
    line_integral
        ``(rows, columns)``, dimensionless.
    display
        The look; `Display`'s defaults unless given.
    incomplete
        ``(rows, columns)`` rays left out when the window is chosen.

    Returns
    -------
    image : ``(rows, columns)`` uint8, 0 for direct exposure.
    parameters : what was applied, window ends included, to be stored with the image.
    """
    from scipy import ndimage

    display = display or Display()
    value = line_integral.astype(np.float64)
    exposed = value > DIRECT_EXPOSURE
    chosen = exposed if incomplete is None else exposed & ~incomplete
    if not chosen.any():
        chosen = exposed
    if not chosen.any():
        return np.zeros(value.shape, np.uint8), {**asdict(display), "window_low": None, "window_high": None}
    low, high = np.percentile(value[chosen], [display.low_percentile, display.high_percentile])
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    if display.detail > 0:
        sigma = max(display.detail_radius * value.shape[0], 0.5)
        # Smooth inside the patient only, or the skin line would ring.
        weight = ndimage.gaussian_filter(exposed.astype(np.float64), sigma)
        smooth = ndimage.gaussian_filter(np.where(exposed, value, 0.0), sigma) / np.maximum(weight, 1e-9)
        value = value + display.detail * np.where(exposed, value - smooth, 0.0)
    grey = display.toe + (1 - display.toe) * _s_curve((value - low) / (high - low), display.contrast)
    # Below the window the toe runs down to black at zero attenuation.
    thin = display.toe * np.clip(value / low, 0, 1) if low > 0 else np.zeros_like(value)
    grey = np.where(value < low, thin, grey)
    image = np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return image, {**asdict(display), "window_low": float(low), "window_high": float(high)}


def _s_curve(x: NDArray[np.float64], contrast: float) -> NDArray[np.float64]:
    """Odd about the middle, from (0, 0) to (1, 1), slope `contrast` in the middle, flat beyond the ends."""
    x = np.clip(x, 0, 1)
    if contrast <= 1:
        return x
    half = np.abs(2 * x - 1)
    return 0.5 + 0.5 * np.sign(2 * x - 1) * (1 - (1 - half) ** contrast) / 1.0
