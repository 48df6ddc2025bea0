"""What nothing denser hides: in a radiograph a structure is hidden by denser ones on the same ray, before or behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume
from paxray.compiling import loop
from paxray.measure.solids import Solid
from paxray.projection.lanes import claim
from paxray.projection.threads import in_all_threads

#: How much denser, on average, a structure is that hides another, HU: more than soft tissues differ among each other.
DENSER_BY_HU = 100.0
#: Groups of classes that cover everything: what they hide they hide everywhere, so they count as hiding nothing.
ENVELOPES = ("body", "muscle")
#: Rows of a picture that one thread handles at a time.
ROWS_PER_BLOCK = 32


def hiders(
    names: tuple[str, ...], labels: LabelVolume, solids: Mapping[str, Solid], groups: Mapping[str, str]
) -> NDArray[np.bool_]:
    """Which classes can hide which.

    A hides B where A is a class of the catalog whose group is no envelope, its mean HU lies at least `DENSER_BY_HU`
    above B's, and no voxel belongs to both (a part does not hide its whole).

    Parameters
    ----------
    names
        The channels of a projection.
    labels, solids
        What they are in 3D.
    groups
        Class to group. A class without one (a single lesion) hides nothing.

    Returns
    -------
    ndarray
        ``(names, names)`` bool: row B, column A.
    """
    columns = [labels.index(name) for name in names]
    table = labels.membership[labels.atom_counts() > 0][:, columns].astype(np.float32)
    shared = table.T @ table > 0
    mean = np.array([solids[name].hu_mean if name in solids else np.nan for name in names])
    may = np.array([groups.get(name, "body") not in ENVELOPES for name in names], bool)
    return np.asarray((mean[None, :] >= mean[:, None] + DENSER_BY_HU) & ~shared & may[None, :])


def unhidden_pixels(presence: NDArray[np.uint64], hides: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pixels of each channel whose ray meets nothing that hides it.

    Parameters
    ----------
    presence
        ``(rows, columns, words)``: bit c % 64 of word c // 64 tells whether the ray meets channel c.
    hides
        ``(channels, channels)`` from `hiders`.

    Returns
    -------
    ndarray
        ``(channels,)`` int64.
    """
    channels, words = len(hides), presence.shape[2]
    masks = np.zeros((channels, words), np.uint64)
    for b, a in zip(*np.nonzero(hides), strict=True):
        masks[b, a // 64] |= np.uint64(1) << np.uint64(a % 64)
    blocks = -(-presence.shape[0] // ROWS_PER_BLOCK)
    counts = np.zeros((blocks, channels), np.int64)
    bits = np.ascontiguousarray(presence)
    in_all_threads(lambda turn: _count_unhidden(turn, bits, masks, counts), blocks)
    out: NDArray[Any] = counts.sum(axis=0)
    return out


@loop(nogil=True, _nrt=False)
def _count_unhidden(turn, presence, masks, counts):  # type: ignore[no-untyped-def]
    rows, columns, words = presence.shape
    one = np.uint64(1)
    block = claim(turn)
    while block < counts.shape[0]:
        for row in range(block * ROWS_PER_BLOCK, min(rows, (block + 1) * ROWS_PER_BLOCK)):
            for column in range(columns):
                for channel in range(masks.shape[0]):
                    word, bit = channel // 64, np.uint64(channel % 64)
                    if (presence[row, column, word] >> bit) & one == np.uint64(0):
                        continue
                    hidden = np.uint64(0)
                    for w in range(words):
                        hidden |= presence[row, column, w] & masks[channel, w]
                    if hidden == np.uint64(0):
                        counts[block, channel] += 1
        block = claim(turn)
