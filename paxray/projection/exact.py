"""Exact voxel traversal: the length of each ray in each voxel it crosses, one by one.

Amanatides and Woo's walk (Eurographics 1987) over Siddon's plane crossings (Med. Phys. 12 (1985) 252-255).
Slower than Joseph's march; the reference for path lengths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.compiling import loop
from paxray.projection.channels import Channels
from paxray.projection.lanes import claim
from paxray.projection.rays import IndexRays
from paxray.projection.threads import in_all_threads


def path_lengths(
    mu: NDArray[np.floating],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    rays: IndexRays,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Walk every ray voxel by voxel.

    Parameters
    ----------
    mu, atoms
        ``(nk, nj, ni)`` attenuation per mm (constant within a voxel) and atom ids.
    channels
        Which output channels each atom feeds.
    rays
        The view's rays in index space; a cone's rays run from source to detector, parallel ones without end.
    threads
        At most this many; all processors by default.

    Returns
    -------
    path_mm : ``(channels, rows, columns)`` float64
    image : ``(rows, columns)`` float64, the line integral of `mu`.
    """
    path = np.zeros((channels.count, *rays.size))
    image = np.zeros(rays.size)
    origin = rays.pixels()
    way = np.ascontiguousarray(rays.directions())
    limit = rays.depth_of_pixels_mm() if rays.cone else np.full(rays.size, np.inf)
    arguments = (
        np.ascontiguousarray(mu, dtype=np.float64),
        np.ascontiguousarray(atoms),
        origin,
        way,
        limit,
        rays.cone,
        channels.start,
        channels.members,
        path,
        image,
    )
    in_all_threads(lambda turn: _walk(turn, *arguments), rays.size[0], threads)
    return path, image


@loop(nogil=True, error_model="numpy")
def _walk(turn, mu, atoms, origin, way, limit, cone, start, members, path, image):  # type: ignore[no-untyped-def]
    shape = (mu.shape[2], mu.shape[1], mu.shape[0])
    row = claim(turn)
    while row < origin.shape[0]:
        at, step = np.empty(3, np.int64), np.empty(3, np.int64)
        crossing, per_voxel = np.empty(3), np.empty(3)
        for column in range(origin.shape[1]):
            # Depth is counted from the pixel, negative towards the source; a voxel spans index +- 0.5.
            enter, leave = -np.inf, np.inf
            if cone:
                enter, leave = -limit[row, column], 0.0
            for x in range(3):
                p, d = origin[row, column, x], way[row, column, x]
                if abs(d) < 1e-14:
                    if p < -0.5 or p >= shape[x] - 0.5:
                        leave = -np.inf
                else:
                    t0, t1 = (-0.5 - p) / d, (shape[x] - 0.5 - p) / d
                    enter, leave = max(enter, min(t0, t1)), min(leave, max(t0, t1))
            if not enter < leave:
                continue
            for x in range(3):
                p, d = origin[row, column, x], way[row, column, x]
                here = p + enter * d + 0.5
                cell = int(np.floor(here))
                if d < 0 and here == np.floor(here):
                    cell -= 1
                at[x] = min(max(cell, 0), shape[x] - 1)
                if abs(d) < 1e-14:
                    step[x], crossing[x], per_voxel[x] = 0, np.inf, np.inf
                else:
                    step[x] = 1 if d > 0 else -1
                    edge = at[x] + (0.5 if d > 0 else -0.5)
                    crossing[x], per_voxel[x] = (edge - p) / d, abs(1.0 / d)
            depth = enter
            while depth < leave:
                x = 0
                if crossing[1] < crossing[x]:
                    x = 1
                if crossing[2] < crossing[x]:
                    x = 2
                until = min(crossing[x], leave)
                length = max(until - depth, 0.0)
                atom = atoms[at[2], at[1], at[0]]
                image[row, column] += length * mu[at[2], at[1], at[0]]
                for m in range(start[atom], start[atom + 1]):
                    path[members[m], row, column] += length
                depth = max(depth, until)
                at[x] += step[x]
                crossing[x] += per_voxel[x]
                if at[x] < 0 or at[x] >= shape[x]:
                    break
        row = claim(turn)
