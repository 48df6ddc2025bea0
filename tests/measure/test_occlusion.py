"""What nothing denser hides: spheres before and behind one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_shapes import ball, grid_of, points, volume_of

from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Volume
from paxray.measure.occlusion import DENSER_BY_HU, hiders, unhidden_pixels
from paxray.measure.solids import Solid, solids
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project
from paxray.projection.want import pack

GROUPS = {
    "body": "body",
    "lung": "lung",
    "bone": "bone",
    "heart": "heart",
    "part": "lung",
    "muscle": "muscle",
}


def scene(hu: dict[str, float], masks: dict[str, np.ndarray]) -> tuple[LabelVolume, dict[str, Solid], Volume]:
    labels = volume_of(GRID, masks)
    values = np.zeros(GRID.shape, np.float32)
    for name, mask in masks.items():
        values[mask] = hu[name]
    return labels, dict(solids(labels, Volume(values, GRID.affine))), Volume(values * 0, GRID.affine)


GRID = grid_of((70, 70, 70), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("behind", [False, True])
def test_a_small_dense_ball_hides_its_disc_of_a_large_one(behind: bool) -> None:
    """Parallel rays: the free share is 1 - (r / R)^2, whichever lies before the other."""
    large, small = 24.0, 12.0
    y = 8 if behind else -8
    masks = {
        "body": np.linalg.norm(points(GRID)[..., ::2], axis=-1) < 33,
        "lung": ball(GRID, (0, y, 0), large) & (points(GRID)[..., 1] * np.sign(y) > 0),
        "bone": ball(GRID, (0, -1.5 * y, 0), small) & (points(GRID)[..., 1] * np.sign(y) < 0),
    }
    labels, found, mu = scene({"body": 0, "lung": -800, "bone": 400}, masks)
    extent = points(GRID)[masks["body"]]
    view = place(Pose.named("pa"), Setup(beam="parallel", size=(280, 280)), extent, (extent, extent))
    projection = project(mu, labels, view, ["presence", "facts"])
    free = unhidden_pixels(projection.presence, hiders(projection.names, labels, found, GROUPS))
    share = dict(zip(projection.names, free / projection.facts["pixels"], strict=True))
    assert share["lung"] == pytest.approx(1 - (small / large) ** 2, abs=0.02)
    assert share["bone"] == 1
    assert share["body"] == 1, "nothing hides its own whole"


def test_who_hides_whom() -> None:
    part = ball(GRID, (0, 0, 0), 6)
    masks = {
        "body": ball(GRID, (0, 0, 0), 30),
        "lung": ball(GRID, (0, 0, 0), 12),
        "part": part,
        "heart": ball(GRID, (20, 0, 0), 5),
        "bone": ball(GRID, (-20, 0, 0), 5),
        "muscle": ball(GRID, (0, 20, 0), 5),
        "lesion#1": ball(GRID, (0, -20, 0), 5),
    }
    hu = {
        "body": 0,
        "lung": -800,
        "part": 900,
        "heart": 50,
        "bone": 50 + DENSER_BY_HU,
        "muscle": 60,
        "lesion#1": 3000,
    }
    labels, found, _ = scene(hu, masks)
    table = hiders(labels.names, labels, found, GROUPS)
    hidden_by = {
        name: {labels.names[a] for a in np.flatnonzero(row)}
        for name, row in zip(labels.names, table, strict=True)
    }
    assert hidden_by["lung"] == {"heart", "bone"}, "not by its part, a muscle, a lesion or the body"
    assert hidden_by["heart"] == {"part", "bone"}, "just as much denser as it takes"
    assert hidden_by["bone"] == {"part"}
    assert hidden_by["lesion#1"] == set()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 150))
def test_counting_bits_against_masks(seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    met = rng.random((channels, 40, 7)) > 0.7
    hides = rng.random((channels, channels)) > 0.97
    expected = [int((met[c] & ~met[hides[c]].any(axis=0)).sum()) for c in range(channels)]
    assert unhidden_pixels(pack(met), hides).tolist() == expected
