"""CT planes of a preview: three different ones, the right way round, however the lattice lies in the patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from paxray.anatomy.recipes.scene import BACK, LEFT, UP, Scene
from paxray.io.volume import Grid, Volume
from paxray.preview import _PLANES, _axis_of, _plane

ANGLE = st.floats(-180, 180)
RED = (255, 0, 0)


def turned(
    a: float, b: float, c: float, spacing: tuple[float, float, float] = (1, 1, 1)
) -> NDArray[np.float64]:
    """An affine: turned about x, y and z by so many degrees."""
    affine = np.eye(4)
    for angle, (first, second) in ((a, (1, 2)), (b, (2, 0)), (c, (0, 1))):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turn = np.eye(4)
        turn[[first, first, second, second], [first, second, first, second]] = cos, -sin, sin, cos
        affine = turn @ affine
    return affine @ np.diag([*spacing, 1.0])


@given(ANGLE, ANGLE, ANGLE)
def test_each_of_the_patients_axes_has_an_array_axis_of_its_own(a: float, b: float, c: float) -> None:
    scene = Scene(Grid((4, 5, 6), turned(a, b, c)))
    chosen = [_axis_of(scene, way) for way in (LEFT, BACK, UP)]
    assert sorted(chosen) == [0, 1, 2]
    nearest = [scene.array_axis(way) for way in (LEFT, BACK, UP)]
    if len(set(nearest)) == 3:
        assert chosen == nearest


#: One array axis is the nearest to two of the patient's.
SHARED = next(
    angles
    for angles in ((a, b, c) for a in range(0, 90, 9) for b in range(0, 90, 9) for c in range(0, 90, 9))
    if len({Scene(Grid((4, 5, 6), turned(*angles))).array_axis(way) for way in (LEFT, BACK, UP)}) < 3
)


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, 10, 0), SHARED], ids=str)
def test_a_plane_shows_all_of_a_block_in_its_own_proportions(angles: tuple[float, float, float]) -> None:
    """The block fills a half of each axis, so that a plane through it shows a quarter of the picture in its colour."""
    shape = (12, 20, 36)
    mask = np.zeros(shape, np.bool_)
    mask[3:9, 5:15, 9:27] = True
    ct = Volume(np.full(shape, -1000, np.int16), turned(*angles, spacing=(1.0, 2.0, 4.0)))
    ratios = []
    for plane in _PLANES:
        picture = _plane(ct, [(mask, RED)], plane).astype(int)
        red = (picture[..., 0] > picture[..., 1]) & (picture[..., 1] == picture[..., 2])
        assert red.mean() == pytest.approx(0.25, abs=0.02)
        ratios.append(picture.shape[1] / picture.shape[0])
    # 36, 40 and 48 mm along i, j, k: three planes, none twice.
    sides = np.array([36.0, 40.0, 48.0])
    scene = Scene(ct.grid)
    left, back, up = (sides[2 - _axis_of(scene, way)] for way in (LEFT, BACK, UP))
    assert ratios == pytest.approx([left / back, left / up, back / up], rel=0.01)
