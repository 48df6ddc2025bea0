"""The projector in plain numpy, float64, written to be read: the oracle of the other backends.

Joseph's method (P. M. Joseph, IEEE Trans. Med. Imaging 1 (1982) 192-196): step along one axis of the volume,
interpolate bilinearly in each slab, multiply by the length of the ray in a slab. Labels are those of the
nearest voxel in the same slab.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.projection.channels import Channels
from paxray.projection.materials import Materials
from paxray.projection.rays import POSITION_DECIMALS, IndexRays
from paxray.projection.want import BODY, PADDING, Maps, Want

#: Instead of an atom: outside the array; or not on the ray, before its source or behind its detector.
OUTSIDE, BEYOND = -1, -2


def march(
    mu: NDArray[np.floating],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    flags: NDArray[np.uint8],
    rays: IndexRays,
    axis: int,
    active: NDArray[np.bool_],
    want: Want,
    materials: Materials | None = None,
) -> Maps:
    """Follow all rays of a view slab by slab.

    Parameters
    ----------
    mu
        ``(nk, nj, ni)`` attenuation per mm; outside the lattice it is zero.
    atoms
        ``(nk, nj, ni)`` atom ids.
    channels
        Which output channels each atom feeds.
    flags
        ``(n_atoms,)`` bits `BODY` and `PADDING`.
    rays, axis, active
        The rays in index space, their stepping axis (signed, 1-based) and which of them to follow
        ``(rows, columns)``.
    want
        What to return.
    materials
        Coefficients on the same lattice, where they are wanted.

    Returns
    -------
    Maps
        Dense maps, float64; rays that are not active give zeros.
    """
    step_axis, forward = abs(axis) - 1, axis > 0
    b_axis, c_axis = (a for a in range(3) if a != step_axis)
    shape = mu.shape[::-1]
    field = mu.transpose(2 - step_axis, 2 - b_axis, 2 - c_axis)
    label = atoms.transpose(2 - step_axis, 2 - b_axis, 2 - c_axis)
    n_slabs, n_b, n_c = shape[step_axis], shape[b_axis], shape[c_axis]

    direction = rays.directions()
    pixels, pixel_depth = rays.pixels(), rays.depth_of_pixels_mm()
    per_slab = np.where(active, direction[..., step_axis], 1.0)
    length = np.abs(1.0 / per_slab)
    size = rays.size
    maps = Maps.empty(size, channels.count, want, np.float64, materials.count if materials else 0)
    first_depth = pixel_depth + ((0 if forward else n_slabs - 1) - pixels[..., step_axis]) / per_slab
    previous = np.where(rays.cone & (first_depth <= 0), BEYOND, OUTSIDE)

    for step in range(n_slabs):
        n = step if forward else n_slabs - 1 - step
        depth = pixel_depth + (n - pixels[..., step_axis]) / per_slab
        position = np.round(pixels + (depth - pixel_depth)[..., None] * direction, POSITION_DECIMALS)
        b, c = position[..., b_axis], position[..., c_axis]
        between = active.copy()
        if rays.cone:
            # A detector may lie in a plane of voxels, where the last bit must not decide either.
            near = length * 10.0**-POSITION_DECIMALS
            between &= (depth > near) & (depth <= pixel_depth + near)

        value = np.where(between, _bilinear(field[n], b, c), 0.0) * length
        near_b, near_c = np.floor(b + 0.5).astype(int), np.floor(c + 0.5).astype(int)
        inside = between & (near_b >= 0) & (near_b < n_b) & (near_c >= 0) & (near_c < n_c)
        nearest = label[n][near_b.clip(0, n_b - 1), near_c.clip(0, n_c - 1)].astype(np.int64)
        atom = np.where(between, np.where(inside, nearest, OUTSIDE), BEYOND)

        maps.mark_incomplete(_leaves_body(previous, atom, flags))
        previous = atom
        if maps.image is not None:
            maps.image += value
        if maps.materials is not None and materials is not None:
            for m, coefficients in enumerate(materials.of_slab(step_axis, n)):
                maps.materials[m] += np.where(between, _bilinear(coefficients.T, b, c), 0.0) * length
        for channel in range(channels.count):
            hit = inside & channels.table[atom.clip(0), channel]
            maps.add(channel, hit, length, depth)
            if maps.share is not None:
                # What a sample beyond the outermost voxel's border still sees belongs to the background.
                credited = channels.table[atom.clip(0), channel]
                maps.share[channel] += np.where(credited, value, 0.0)
    maps.mark_incomplete(_leaves_body(previous, np.full(size, OUTSIDE), flags))
    return maps


def _bilinear(
    slab: NDArray[np.floating], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate between voxel centres; zero outside the lattice."""
    low_b, low_c = np.floor(b).astype(int), np.floor(c).astype(int)
    total = np.zeros(b.shape)
    for at_b, weight_b in ((low_b, low_b + 1 - b), (low_b + 1, b - low_b)):
        for at_c, weight_c in ((low_c, low_c + 1 - c), (low_c + 1, c - low_c)):
            valid = (at_b >= 0) & (at_b < slab.shape[0]) & (at_c >= 0) & (at_c < slab.shape[1])
            voxel = slab[at_b.clip(0, slab.shape[0] - 1), at_c.clip(0, slab.shape[1] - 1)]
            total += np.where(valid, weight_b * weight_c * voxel, 0.0)
    return total


def _leaves_body(
    before: NDArray[np.int64], after: NDArray[np.int64], flags: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Where a ray passes between body and what was not scanned: padding, or outside the array.

    Where source or detector end a ray inside the body, nothing is missing. Within one atom nothing is passed, even if
    it is said to be of both.
    """
    bits_before = np.where(before >= 0, flags[before.clip(0)], np.where(before == OUTSIDE, PADDING, 0))
    bits_after = np.where(after >= 0, flags[after.clip(0)], np.where(after == OUTSIDE, PADDING, 0))
    leaves = (bits_before & BODY > 0) & (bits_after & PADDING > 0)
    enters = (bits_before & PADDING > 0) & (bits_after & BODY > 0)
    return (leaves | enters) & (before != after)
