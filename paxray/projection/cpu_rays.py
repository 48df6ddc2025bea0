"""The rays of one detector row as the compiled march takes them: straight lines through the slabs of the volume."""

from __future__ import annotations

import numpy as np

from paxray.compiling import helper
from paxray.projection.rays import POSITION_DECIMALS

#: Samples this close (voxels) to the lattice's edge are not *inside*: positions are float32 in the march.
EDGE = 1e-3
_ROUND = 10.0**POSITION_DECIMALS


@helper(error_model="numpy")
def set_up_row(  # type: ignore[no-untyped-def]
    row, axes, signed_axis, axis_b, axis_c, shape, cone, pixel, du, dv, source, direction, pixel_depth, metric,
    b0, c0, db, dc, step_mm, depth0, s_first, s_last, meets_first, meets_last, inside_first, inside_last,
):  # fmt: skip
    """Write each ray of a row as b = b0 + s db, c = c0 + s dc, s = 0, 1, ... counting slabs in the ray's order.

    Ranges of steps, both ends included: ``s`` between source and detector; ``meets`` what may touch the
    lattice, with a slab more to either side; ``inside`` what surely has all four neighbours.
    """
    a = abs(signed_axis) - 1
    n_a = shape[a]
    forward = signed_axis > 0
    for u in range(meets_first.size):
        at_pixel = (
            pixel[0] + u * du[0] + row * dv[0], pixel[1] + u * du[1] + row * dv[1], pixel[2] + u * du[2] + row * dv[2]
        )  # fmt: skip
        if cone:
            way = (at_pixel[0] - source[0], at_pixel[1] - source[1], at_pixel[2] - source[2])
        else:
            way = (direction[0], direction[1], direction[2])
        mine = axes[0, 0] if axes.size == 1 else axes[row, u]
        if mine != signed_axis:
            b0[u], c0[u], db[u], dc[u] = -10.0, -10.0, 0.0, 0.0
            step_mm[u], depth0[u] = 0.0, 0.0
            s_first[u], s_last[u] = 1, 0
            meets_first[u], meets_last[u], inside_first[u], inside_last[u] = n_a, -1, n_a, -1
            continue
        length2 = 0.0
        ahead = 0.0
        for x in range(3):
            for y in range(3):
                length2 += way[x] * metric[x, y] * way[y]
                ahead += direction[x] * metric[x, y] * (at_pixel[y] - pixel[y])
        per_slab = abs(1.0 / way[a])
        slab0 = 0 if forward else n_a - 1
        t0 = (slab0 - at_pixel[a]) / way[a]
        b0[u], db[u] = at_pixel[axis_b] + t0 * way[axis_b], per_slab * way[axis_b]
        c0[u], dc[u] = at_pixel[axis_c] + t0 * way[axis_c], per_slab * way[axis_c]
        b0[u], c0[u] = np.rint(b0[u] * _ROUND) / _ROUND, np.rint(c0[u] * _ROUND) / _ROUND
        # A drift too small to reach the last rounded decimal over the whole march is none.
        if abs(db[u]) * n_a * _ROUND < 0.5:
            db[u] = 0.0
        if abs(dc[u]) * n_a * _ROUND < 0.5:
            dc[u] = 0.0
        step_mm[u] = per_slab * np.sqrt(length2)
        low, high = 0.0, n_a - 1.0
        if cone:
            # t0 counts from the pixel: the source is at -1. Keep source < sample <= pixel. A detector may
            # lie in a plane of voxels, where the last bit must not decide either.
            depth0[u] = (t0 + 1.0) * np.sqrt(length2)
            low = max(low, np.floor((-1.0 - t0) / per_slab + 1.0 / _ROUND) + 1.0)
            high = min(high, np.floor(-t0 / per_slab + 1.0 / _ROUND))
        else:
            depth0[u] = t0 * np.sqrt(length2) + pixel_depth + ahead
        s_first[u], s_last[u] = int(max(low, -1.0)), int(max(high, -1.0))
        in_low, in_high = low, high
        for x in range(2):
            at0, slope, edge = (b0[u], db[u], shape[axis_b]) if x == 0 else (c0[u], dc[u], shape[axis_c])
            if abs(slope) < 1e-12:
                if at0 <= -1.0 or at0 >= edge:
                    high = -1.0
                if at0 < 0.0 or at0 > edge - 1.0:
                    in_high = -1.0
            else:
                s0, s1 = (-1.0 - at0) / slope, (edge - at0) / slope
                low, high = max(low, min(s0, s1) - 1.0), min(high, max(s0, s1) + 1.0)
                s0, s1 = (EDGE - at0) / slope, (edge - 1.0 - EDGE - at0) / slope
                in_low = max(in_low, np.ceil(min(s0, s1)))
                in_high = min(in_high, np.floor(max(s0, s1)))
        if low <= high:
            meets_first[u], meets_last[u] = max(int(low), 0), min(int(high), n_a - 1)
        else:
            meets_first[u], meets_last[u] = n_a, -1
        if in_low <= in_high:
            inside_first[u], inside_last[u] = int(in_low), int(in_high)
        else:
            inside_first[u], inside_last[u] = n_a, -1
