"""The compiled loop of `paxray.physics.attenuation`; it runs without the interpreter's lock."""

from __future__ import annotations

from paxray.compiling import loop


@loop(nogil=True)
def look_up_within(table, values, keep, out):  # type: ignore[no-untyped-def]
    """``out = table[values]`` where ``keep`` is set and 0 elsewhere, all rows of one length."""
    for n in range(values.size):
        out[n] = table[values[n]] if keep[n] else 0
