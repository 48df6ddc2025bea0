"""Signal and display."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from paxray.radiography.display import Display, render_display
from paxray.radiography.gaussian import gaussian
from paxray.radiography.overlay import draw_overlay
from paxray.radiography.signal import SIGNAL_SCALE, decode_signal, encode_signal


@given(largest=st.floats(0, 200), seed=st.integers(0, 100))
def test_signal_round_trip(largest: float, seed: int) -> None:
    """Half a level at most, nothing clipped, whatever the thickness."""
    line = np.random.default_rng(seed).random((20, 30)) * largest
    signal = encode_signal(line)
    back = decode_signal(signal.values, signal.scale, signal.offset)
    assert np.abs(back - line).max() <= signal.scale / 2 + 1e-5 * largest
    assert signal.scale == SIGNAL_SCALE or largest > 16


@settings(deadline=None)  # the first example compiles
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sigma=st.floats(0.5, 9),
    seed=st.integers(0, 100),
)
def test_the_gaussian_is_scipys(shape: tuple[int, int], sigma: float, seed: int) -> None:
    image = np.random.default_rng(seed).random(shape)
    np.testing.assert_allclose(gaussian(image, sigma), ndimage.gaussian_filter(image, sigma), rtol=1e-12)


def chest_like() -> np.ndarray:
    """A thick disc with two thin discs in it and a dense bar: torso, lungs, spine."""
    y, x = np.indices((128, 128)) - 63.5
    line = np.where(x**2 + y**2 < 55**2, 5.0, 0.0)
    for side in (-25, 25):
        line[((x - side) / 16) ** 2 + (y / 30) ** 2 < 1] = 2.0
    line[(np.abs(x) < 5) & (np.abs(y) < 50)] += 2.0
    return line


def test_bone_is_white_and_lung_dark_and_air_black() -> None:
    image, parameters = render_display(chest_like())
    spine, lung, air, soft = image[64, 64], image[64, 38], image[2, 2], image[100, 40]
    assert spine > soft > lung > air == 0
    assert image.dtype == np.uint8
    assert image.max() > 240
    assert parameters["window_low"] < parameters["window_high"]


@pytest.mark.parametrize("display", [Display(), Display(compression=1, detail=1, edge=0, slope=0)])
def test_scales_with_nothing_lost_at_the_ends(display: Display) -> None:
    """A plain wedge keeps its order: more attenuation is never darker, away from the borders of the picture."""
    wedge = np.tile(np.linspace(0.4, 6.0, 200), (60, 1))
    image, _ = render_display(wedge, display)
    assert (np.diff(image[30, 20:-20].astype(int)) >= 0).all()


def test_incomplete_rays_do_not_choose_the_window() -> None:
    line = chest_like()
    line[:20] *= 5
    incomplete = np.zeros(line.shape, bool)
    incomplete[:20] = True
    with_mask, without = render_display(line, None, incomplete)[1], render_display(line)[1]
    assert with_mask["window_high"] < without["window_high"]


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_empty_and_flat_pictures(level: float) -> None:
    image, _ = render_display(np.full((16, 16), level))
    assert image.shape == (16, 16)
    assert (image == image[0, 0]).all()
    assert (image[0, 0] == 0) == (level == 0)


def test_overlay_colours_inside_and_leaves_the_rest() -> None:
    image = np.full((9, 9), 100, np.uint8)
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    over = draw_overlay(image, [(mask, (255, 0, 0))], fill=0.5, outline=1.0)
    assert over[0, 0].tolist() == [100, 100, 100]
    assert over[2, 4].tolist() == [255, 0, 0]
    assert over[4, 4].tolist() == [178, 50, 50]
    assert not np.shares_memory(image, over)


def test_lines_are_drawn_on_top_and_fill_nothing() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    over = draw_overlay(np.full((9, 9), 100, np.uint8), [], [(mask, (200, 0, 100))], outline=1.0)
    inner = np.zeros_like(mask)
    inner[3:6, 3:6] = True
    assert (over[mask & ~inner] == [175, 25, 100]).all()
    assert (over[inner | ~mask] == 100).all()


def test_outlines_stay_thin_when_drawn_larger() -> None:
    """At twice the size the border is one fine pixel wide, along the picture's edge too, and channels mix apart."""
    mask = np.zeros((5, 6), bool)
    mask[0:3, 1:4] = True
    over = draw_overlay(
        np.full((5, 6), 100, np.uint8), [(mask, (200, 0, 100))], fill=0.5, outline=1.0, scale=2
    )
    fine = mask.repeat(2, axis=0).repeat(2, axis=1)
    inner = np.zeros_like(fine)
    inner[1:5, 3:7] = True
    assert (over[fine & ~inner] == [200, 0, 100]).all()
    assert (over[inner] == [150, 50, 100]).all()
    assert (over[~fine] == 100).all()
