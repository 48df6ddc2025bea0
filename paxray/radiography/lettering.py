"""Letters on a picture: which way is which, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

#: Height of letters and distance from the picture's edge, in pixels.
LETTER_PX, MARGIN_PX = 20, 6
#: Light on a dark rim, to be read on bone and on air.
LETTER_RGB, RIM_RGB = (255, 235, 120), (0, 0, 0)
#: What stands beside the point, such as a remark in a legend.
REMARK_RGB = (170, 170, 170)
#: The ends of the world's axes (LPS) as pictures are marked: left, posterior, head; right, anterior, feet.
_PLUS, _MINUS = "LPH", "RAF"


def side_letter(direction: ArrayLike) -> str:
    """The side of the patient to which a direction in world LPS points most: L, R, P, A, H or F."""
    way = np.asarray(direction, np.float64)
    axis = int(np.abs(way).argmax())
    return (_PLUS if way[axis] > 0 else _MINUS)[axis]


def mark_sides(picture: NDArray[np.uint8], column_way: ArrayLike, row_way: ArrayLike) -> NDArray[np.uint8]:
    """Write on the four edges of a picture which side of the patient lies there.

    Parameters
    ----------
    picture
        ``(rows, columns, 3)`` uint8.
    column_way, row_way
        Where its columns and its rows run, in world LPS: to image right, and down.

    Returns
    -------
    A new picture of the same shape.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), _font()
    right, bottom = image.width - 1 - MARGIN_PX, image.height - 1 - MARGIN_PX
    places = (
        ((right, image.height // 2), "rm", column_way),
        ((MARGIN_PX, image.height // 2), "lm", -np.asarray(column_way)),
        ((image.width // 2, bottom), "ms", row_way),
        ((image.width // 2, MARGIN_PX), "mt", -np.asarray(row_way)),
    )
    for at, anchor, way in places:
        draw.text(at, side_letter(way), LETTER_RGB, font, anchor=anchor, stroke_width=2, stroke_fill=RIM_RGB)
    return np.asarray(image)


def with_caption(picture: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """A picture with lines of text under it, on black; what is too long for it loses its beginning.

    Parameters
    ----------
    picture
        ``(rows, columns, 3)`` uint8.

    Returns
    -------
    The same columns, and further rows for the text.
    """
    from PIL import Image, ImageDraw

    line_px = LETTER_PX + MARGIN_PX
    strip = Image.new("RGB", (picture.shape[1], line_px * len(lines) + MARGIN_PX))
    draw, font = ImageDraw.Draw(strip), _font()
    room = strip.width - 2 * MARGIN_PX
    for n, line in enumerate(lines):
        start = 0
        while start < len(line) and draw.textlength(_from(line, start), font) > room:
            start += 1
        at = (MARGIN_PX, n * line_px + MARGIN_PX)
        draw.text(at, _from(line, start), LETTER_RGB, font)
    return np.concatenate([picture, np.asarray(strip)])


def with_legend(
    picture: NDArray[np.uint8], entries: Sequence[tuple[str, tuple[int, int, int] | None]]
) -> NDArray[np.uint8]:
    """A picture with a legend under it, on black, in as many lines as it needs; without entries, as it is.

    Parameters
    ----------
    picture
        ``(rows, columns, 3)`` uint8.
    entries
        Words, each behind a square of its colour ``(red, green, blue)``; a remark has none.

    Returns
    -------
    The same columns, and further rows for the legend. Words too long for a line are cut at the picture's edge.
    """
    from PIL import Image, ImageDraw

    if not entries:
        return picture
    font, square_px, line_px = _font(), LETTER_PX - 6, LETTER_PX + MARGIN_PX
    columns = picture.shape[1]
    placed: list[tuple[int, int]] = []
    x = y = MARGIN_PX
    for words, colour in entries:
        width = round(font.getlength(words)) + (square_px + MARGIN_PX if colour else 0)
        if x > MARGIN_PX and x + width > columns - MARGIN_PX:
            x, y = MARGIN_PX, y + line_px
        placed.append((x, y))
        x += width + 3 * MARGIN_PX
    strip = Image.new("RGB", (columns, y + line_px))
    draw = ImageDraw.Draw(strip)
    for (x, y), (words, colour) in zip(placed, entries, strict=True):
        if colour:
            top = y + (LETTER_PX - square_px) // 2 + 2
            draw.rectangle((x, top, x + square_px - 1, top + square_px - 1), colour)
            x += square_px + MARGIN_PX
        draw.text((x, y), words, LETTER_RGB if colour else REMARK_RGB, font)
    return np.concatenate([picture, np.asarray(strip)])


def _from(line: str, start: int) -> str:
    return f"...{line[start:]}" if start else line


def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(LETTER_PX)
