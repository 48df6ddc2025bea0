"""The compiled loop of `paxray.radiography.overlay`."""

from __future__ import annotations

from paxray.compiling import loop


@loop(nogil=True)
def paint(out, mask, scale, colour, fill, outline):  # type: ignore[no-untyped-def]
    """Mix a colour into ``out``, ``scale`` times the mask's size, where it is set; more so on its inner border."""
    rows, columns = mask.shape
    for r in range(rows):
        for c in range(columns):
            if not mask[r, c]:
                continue
            above, below = r == 0 or not mask[r - 1, c], r == rows - 1 or not mask[r + 1, c]
            before, behind = c == 0 or not mask[r, c - 1], c == columns - 1 or not mask[r, c + 1]
            for y in range(scale):
                on_row = (above and y == 0) or (below and y == scale - 1)
                for x in range(scale):
                    border = on_row or (before and x == 0) or (behind and x == scale - 1)
                    opacity = outline if border else fill
                    for channel in range(3):
                        value = out[r * scale + y, c * scale + x, channel]
                        out[r * scale + y, c * scale + x, channel] = value + opacity * (
                            colour[channel] - value
                        )
