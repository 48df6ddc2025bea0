"""The `image`: 8 bits for people and loaders, bone white, as a chest film hangs on the wall."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.parallel import together

#: Line integrals below this are direct exposure, beside the patient.
DIRECT_EXPOSURE = 0.15


#: A line integral of mid-chest, about 15 cm of water: there compressing the coarse scale changes nothing.
MID_CHEST = 3.0


@dataclass(frozen=True)
class Display:
    """How line integrals become grey levels, as the processing of digital chest radiography does.

    A chest spans more than a film can show. The coarse scale (what the patient's thickness does) is compressed by a
    power, medium and fine structure keep or gain contrast, and an S-shaped curve as of film ends it.

    Parameters
    ----------
    compression
        Exponent on the coarse scale: 1 leaves it, smaller evens out thin and thick parts.
    detail, edge
        Gain of structure finer than `detail_radius`, and of that finer than `edge_radius` on top.
    detail_radius, edge_radius
        Standard deviations of the Gaussians that part the scales, as fractions of the image height.
    low_percentile, high_percentile
        The window's ends, as percentiles over the exposed patient (rays that are neither direct exposure nor
        incomplete).
    slope
        Steepness of the S-shaped curve; 0 is straight.
    base
        Grey level (0..1) of the window's lower end; what is thinner than the patient runs down to black.
    """

    compression: float = 0.35
    detail: float = 1.2
    detail_radius: float = 0.035
    edge: float = 1.4
    edge_radius: float = 0.007
    low_percentile: float = 3.0
    high_percentile: float = 99.3
    slope: float = 5.5
    base: float = 0.06


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
    image : ``(rows, columns)`` uint8, 0 where nothing attenuates.
    parameters : what was applied, the window's ends included, to be stored with the image.
    """
    display = display or Display()
    value = line_integral.astype(np.float64)
    exposed = value > DIRECT_EXPOSURE
    if not exposed.any():
        return np.zeros(value.shape, np.uint8), {**asdict(display), "window_low": None, "window_high": None}
    coarse, fine = together(
        lambda: _smooth(value, exposed, display.detail_radius),
        lambda: _smooth(value, exposed, display.edge_radius),
    )
    shown = coarse**display.compression * MID_CHEST ** (1 - display.compression)
    shown += display.detail * (value - coarse)
    shown += display.edge * (value - fine)
    chosen = exposed if incomplete is None else exposed & ~incomplete
    sample = shown[chosen] if chosen.any() else shown[exposed]
    low, high = np.percentile(sample, [display.low_percentile, display.high_percentile])
    span = max(float(high - low), 1e-6)
    grey = display.base + (1 - display.base) * _s_curve((shown - low) / span, display.slope)
    # Skin and clothes thinner than the patient run down to black, without a step at the threshold.
    grey *= np.clip(value / (2 * DIRECT_EXPOSURE), 0, 1)
    image = np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return image, {**asdict(display), "window_low": float(low), "window_high": float(high)}


def _smooth(value: NDArray[np.float64], inside: NDArray[np.bool_], radius: float) -> NDArray[np.float64]:
    """Gaussian mean over the patient only, or the skin line would ring; `value` itself outside."""
    from paxray.radiography.gaussian import gaussian

    sigma = max(radius * value.shape[0], 0.5)
    weight = gaussian(inside.astype(np.float64), sigma)
    mean = gaussian(np.where(inside, value, 0.0), sigma) / np.maximum(weight, 1e-9)
    return np.where(inside, np.maximum(mean, 0.0), value)


def _s_curve(x: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    """A logistic curve through (0, 0) and (1, 1), clipped there; straight for slope 0."""
    x = np.clip(x, 0, 1)
    if slope <= 0:
        return x
    end = np.tanh(slope / 4)
    return 0.5 + 0.5 * np.tanh(slope / 2 * (x - 0.5)) / end
