"""The lungs' surface, their lobes and fissures, and what their parenchyma measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.phantom.canvas import Float32
from paxray.phantom.shapes import ellipse, smooth_union


def lung_surface(
    x: Float32, y: Float32, z: float, spine_y: float, cavity: Float32, above: Float32
) -> Float32:
    """Return the distance to the lungs' surface before heart and vessels are laid over them.

    Parameters
    ----------
    x, y
        Coordinates on the slice, ``(1, ni)`` and ``(nj, 1)``.
    z, spine_y
        Its level, and where the vertebral bodies stand on it.
    cavity
        Distance to the pleura, negative inside, ``(nj, ni)``.
    above
        Height above the diaphragm, ``(nj, ni)``.
    """
    ax = np.abs(x)
    # Paraspinal lines wave with the vertebrae; behind the heart the right lung comes nearer the midline.
    wave = float(np.sin(z / 11.0))
    column = ellipse(ax, y - np.float32(spine_y + 14.0), 20.0 + 0.8 * wave, 33.0)
    recess = np.float32(4.0 * np.exp(-(((z + 35.0) / 40.0) ** 2))) * (x < 0)
    # The mediastinum is thin behind the breastbone, wide at the great vessels, wide again at the inlet.
    depth = np.clip((np.float32(spine_y - 12.0) - y) / np.float32(85.0), 0.0, 1.0)
    inlet = float(np.clip((z - 60.0) / 70.0, 0.0, 1.0))
    half = (np.float32(17.0) - recess) * (1 - depth * (1 - 0.6 * inlet) * 0.68) + np.float32(3.0 * inlet)
    mid = np.where(y < spine_y + 10.0, ax - half, np.float32(50.0))
    column = smooth_union(column, mid.astype(np.float32), 12.0)
    return np.maximum(np.maximum(cavity, -above * np.float32(0.78)), -column)


def lung_hu(y: Float32, spine_y: float, z: float) -> Float32:
    """Return the parenchyma's CT number: denser behind (supine) and a little towards the bases."""
    behind = np.clip((y - np.float32(spine_y - 130.0)) / np.float32(160.0), 0.0, 1.0)
    return np.float32(-878.0) + 58.0 * np.square(behind) - np.float32(0.08 * min(z, 60.0))


def oblique_level(x: Float32, y: Float32) -> Float32:
    """Return the height of the oblique fissures: from T4 behind to the front of the diaphragm."""
    left = np.where(x > 0, np.float32(7.0), np.float32(0.0))
    ahead = np.float32(20.0) - y
    wave = np.float32(3.0) * np.sin(x / np.float32(19.0) + left) + np.float32(2.5) * np.sin(
        y / np.float32(23.0)
    )
    return np.float32(60.0) + left + wave - np.float32(0.66) * ahead - np.float32(0.0009) * np.square(ahead)


def horizontal_level(x: Float32, y: Float32) -> Float32:
    """Return the height of the right lung's horizontal fissure."""
    wave = np.float32(2.5) * np.sin(x / np.float32(21.0) + y / np.float32(17.0))
    return np.float32(1.0) + wave - np.float32(0.05) * (y + 100) - np.float32(0.0012) * np.square(x + 60)


def lobes(x: Float32, y: Float32, z: float) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return name and half-space (not limited to the lung) of each lobe on a slice."""
    low = np.float32(z) <= oblique_level(x, y)
    below = np.float32(z) <= horizontal_level(x, y)
    left = x > 0
    return [
        ("lung_upper_lobe_left", left & ~low),
        ("lung_lower_lobe_left", left & low),
        ("lung_upper_lobe_right", ~left & ~low & ~below),
        ("lung_middle_lobe_right", ~left & ~low & below),
        ("lung_lower_lobe_right", ~left & low),
    ]


def fissures(x: Float32, y: Float32, z: float) -> Float32:
    """Return the distance to the fissures: sheets of two layers of pleura."""
    oblique = (np.float32(z) - oblique_level(x, y)) * np.float32(0.8)
    level = np.where(
        (x < 0) & (oblique > 0), np.abs(np.float32(z) - horizontal_level(x, y)), np.float32(99.0)
    )
    return np.minimum(np.abs(oblique), level) - np.float32(0.45)
