"""CTs as networks know them: on straight axes, in the order of the images that they were trained on."""

from __future__ import annotations

import numpy as np

from paxray.io.volume import Volume, reindex

_WORLD_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
LPS = "LPS"


def is_orientation(letters: object) -> bool:
    """Whether it is three letters, one each of L/R, P/A and S/I."""
    return isinstance(letters, str) and sorted(_WORLD_AXIS.get(letter, -1) for letter in letters) == [0, 1, 2]


def straightened(volume: Volume) -> Volume:
    """Return the same array on a lattice of the same spacing and nearest axes, without obliquity, shear and place.

    A network sees voxels and spacing alone; ITK, through which it reads them, refuses a sheared lattice.
    """
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for n, (letter, step_mm) in enumerate(zip(volume.grid.orientation, volume.spacing_mm, strict=True)):
        affine[_WORLD_AXIS[letter], n] = step_mm if letter in LPS else -step_mm
    return Volume(volume.array, affine)


def turned(volume: Volume, letters: str) -> Volume:
    """Return a volume with its array re-indexed so that i, j, k grow towards the given sides of the patient."""
    now = volume.grid.orientation
    # Of each new axis i, j, k: which old one it is, and whether it runs the other way.
    old = [
        next(n for n, letter in enumerate(now) if _WORLD_AXIS[letter] == _WORLD_AXIS[wanted])
        for wanted in letters
    ]
    flip = [now[n] != wanted for n, wanted in zip(old, letters, strict=True)]
    array = reindex(volume.array, [2 - n for n in reversed(old)], flip[::-1])
    affine = volume.affine.copy()
    size = volume.shape[::-1]
    for column, (n, reverse) in enumerate(zip(old, flip, strict=True)):
        step = volume.affine[:, n]
        affine[:, column] = -step if reverse else step
        if reverse:
            affine[:, 3] += step * (size[n] - 1)
    return Volume(array, affine)
