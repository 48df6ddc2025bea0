"""Masks drawn over a radiograph: translucent fill, crisp outline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_overlay(
    image: NDArray[np.uint8],
    masks: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]],
    lines: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]] = (),
    *,
    fill: float = 0.22,
    outline: float = 0.9,
    scale: int = 1,
) -> NDArray[np.uint8]:
    """Draw masks over a picture.

    Parameters
    ----------
    image
        ``(rows, columns)`` uint8.
    masks
        ``(mask, (red, green, blue))``, drawn in order.
    lines
        The same, drawn on top by their inner border alone, three quarters as opaque: there may be many.
    fill, outline
        Opacity inside and on the inner border.
    scale
        Draw this many times larger, so that outlines of many classes stay thin; the picture is interpolated.

    Returns
    -------
    ``(rows * scale, columns * scale, 3)`` uint8.
    """
    from paxray.radiography.paint import paint

    if scale > 1:
        from PIL import Image

        size = (image.shape[1] * scale, image.shape[0] * scale)
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    out = np.empty((*image.shape, 3), np.float32)
    out[:] = image[..., None]
    for drawn, inside, border in ((masks, fill, outline), (lines, 0.0, 0.75 * outline)):
        for mask, colour in drawn:
            paint(out, mask, scale, np.asarray(colour, np.float32), np.float32(inside), np.float32(border))
    return np.rint(out, out=out).astype(np.uint8)  # mixtures of levels are levels
