"""Tell a CT from a mask by what a file holds: type, range and texture of a few planes, not its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from paxray.io.image import iter_planes, read_header
from paxray.io.volume import Grid

_AIR_OR_LUNG_HU = -200.0  # below this lies air alone: every CT of a patient has some, no label map has any
_PLANES = 8  # about so many are looked at in half a volume
_ENOUGH_PAIRS = 500
_SAME_NEIGHBOUR = 0.6  # label maps: over 0.9; intensities: under 0.2


@dataclass(frozen=True, eq=False)
class Probe:
    """What an image file seems to be.

    Parameters
    ----------
    kind
        ``ct``, ``labels`` or ``other``.
    grid
        Its lattice.
    reason
        For ``other``, in words.
    """

    kind: Literal["ct", "labels", "other"]
    grid: Grid
    reason: str = ""


def probe_image(path: Path, *, where: str = "", named_mask: bool = False) -> Probe:
    """Classify an image file.

    A CT has values below -200 HU; labels are whole, not negative and mostly equal to their neighbours. Planes
    are read from the start until that is clear, half the volume in a typical label map.

    Parameters
    ----------
    named_mask
        The file bears the name of a class: 8-bit numbers, which cannot be HU, are then taken for its mask
        without a look at the voxels.

    Raises
    ------
    CaseError
        For a file that cannot be read.
    """
    header = read_header(path, where=where)
    if named_mask and header.dtype.itemsize == 1 and not header.scaled:
        return Probe("labels", header.grid)
    count = header.grid.shape[0]
    every = max(1, count // (2 * _PLANES))
    pairs = same = 0
    for k, stored in enumerate(iter_planes(path, where=where)):
        if k % every:
            continue
        values = stored.astype(np.float64) * header.slope + header.intercept
        finite = values[np.isfinite(values)]
        if finite.size and finite.min() < _AIR_OR_LUNG_HU:
            return Probe("ct", header.grid)
        if finite.size < values.size or (finite != np.rint(finite)).any() or finite.min() < 0:
            pairs = -1  # no label map; air may still follow further up
        if pairs >= 0:
            left, right = values[:, :-1], values[:, 1:]
            inside = (left != 0) & (right != 0)
            pairs += int(inside.sum())
            same += int((inside & (left == right)).sum())
            if pairs >= _ENOUGH_PAIRS and k >= count // 2:
                break
    if pairs < 0:
        return Probe("other", header.grid, "values that are neither labels nor, with none below -200, HU")
    if pairs and same < _SAME_NEIGHBOUR * pairs:
        return Probe("other", header.grid, "intensities with none below -200: not HU, and not labels")
    return Probe("labels", header.grid)
