"""Line integrals of basis materials on the CPU: the march of `cpu`, for several coefficients a voxel.

A table is looked up at the corners, before interpolating: voxels are read as they are stored, once for all materials,
and no volume is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from paxray.errors import ResourceError
from paxray.projection.lanes import gather, get, put
from paxray.projection.materials import Materials
from paxray.projection.rays import POSITION_DECIMALS, IndexRays
from paxray.projection.threads import one_at_a_time

#: Rays that are set up at a time; bounds the memory that they take.
_RAYS_AT_A_TIME = 2**16

F32, I32 = np.float32, np.int32


def march(
    materials: Materials, rays: IndexRays, axes: NDArray[np.int8], threads: int | None = None
) -> NDArray[np.float32]:
    """Follow all rays of a view.

    Parameters
    ----------
    materials
        Coefficients on the lattice that `rays` are in, at least two voxels along each axis.
    rays, axes, threads
        As in `paxray.projection.cpu.march`.

    Returns
    -------
    ``(materials, rows, columns)`` float32, in the coefficients' unit x mm.
    """
    rows, columns = rays.size
    out = np.zeros((materials.count, rows, columns), F32)
    if materials.voxels.size >= 2**31:
        raise ResourceError(
            "the materials are too large for the CPU projector",
            expected="fewer than 2^31 voxels in all",
            found=f"{materials.voxels.size} of shape {materials.voxels.shape}",
            do="crop the CT, or give what it stores and a table instead of volumes",
        )
    shape = np.array(materials.shape[::-1], np.int64)
    voxels = materials.voxels.reshape(-1)
    height = max(1, _RAYS_AT_A_TIME // columns)
    with one_at_a_time(threads):
        for top in range(0, rows, height):
            part = rays.part(top, min(height, rows - top))
            mine = axes if axes.size == 1 else axes[top : top + height]
            target = out[:, top : top + height]
            for axis in sorted({int(a) for a in np.unique(mine)}):
                lines = _lines(part, axis, np.broadcast_to(mine == axis, part.size), shape)
                state = (lines.b, lines.c, lines.db, lines.dc, lines.first, lines.last, lines.step_mm)
                if materials.table is None:
                    _march_volumes(voxels, shape, axis, *state, target)
                else:
                    # One material's entries lie together, where neighbouring rays look up neighbouring values.
                    table = np.ascontiguousarray(materials.table.T)
                    _march_table(voxels, table.reshape(-1), materials.first, shape, axis, *state, target)
    return out


@dataclass(frozen=True, eq=False)
class _Lines:
    """Rays as ``b + s db``, ``c + s dc`` in voxels, s = 0, 1, ... counting slabs in the ray's order.

    All are ``(rows, columns)``. `first` and `last` bound the slabs that can meet the lattice, between source and
    pixel; none where first > last.
    """

    b: NDArray[np.float64]
    c: NDArray[np.float64]
    db: NDArray[np.float64]
    dc: NDArray[np.float64]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    step_mm: NDArray[np.float64]


def _lines(rays: IndexRays, signed_axis: int, active: NDArray[np.bool_], shape: NDArray[np.int64]) -> _Lines:
    """Set rays up for steps along an axis, with the roundings that `cpu` makes."""
    a = abs(signed_axis) - 1
    b, c = (x for x in range(3) if x != a)
    slabs = int(shape[a])
    at = rays.pixels()
    way = at - rays.source if rays.cone else np.broadcast_to(rays.direction, at.shape)
    along = np.where(active, way[..., a], 1.0)
    per_slab = np.abs(1.0 / along)
    t0 = ((0 if signed_axis > 0 else slabs - 1) - at[..., a]) / along
    low, high = np.zeros(rays.size), np.full(rays.size, slabs - 1.0)
    if rays.cone:
        # t0 counts from the pixel: the source is at -1. Keep source < sample <= pixel.
        tiny = 10.0**-POSITION_DECIMALS
        low = np.maximum(low, np.floor((-1.0 - t0) / per_slab + tiny) + 1.0)
        high = np.minimum(high, np.floor(-t0 / per_slab + tiny))
    position, slope = [], []
    for x in (b, c):
        start = np.round(at[..., x] + t0 * way[..., x], POSITION_DECIMALS)
        drift = per_slab * way[..., x]
        # A drift too small to reach the last rounded decimal over the whole march is none.
        drift = np.where(np.abs(drift) * slabs < 0.5 * 10.0**-POSITION_DECIMALS, 0.0, drift)
        with np.errstate(divide="ignore", invalid="ignore"):
            s0, s1 = (-1.0 - start) / drift, (shape[x] - start) / drift
        flat = drift == 0.0
        never = flat & ((start <= -1.0) | (start >= shape[x]))
        low = np.where(flat, low, np.maximum(low, np.floor(np.fmin(s0, s1))))
        high = np.where(never, -1.0, np.where(flat, high, np.minimum(high, np.ceil(np.fmax(s0, s1)))))
        position.append(start)
        slope.append(drift)
    none = ~active | (low > high)
    low, high = np.where(none, slabs, low), np.where(none, -1.0, high)
    return _Lines(
        b=position[0],
        c=position[1],
        db=slope[0],
        dc=slope[1],
        first=np.clip(low, 0, slabs).astype(np.int32),
        last=np.clip(high, -1, slabs - 1).astype(np.int32),
        step_mm=per_slab * np.sqrt(np.einsum("...a,ab,...b->...", way, rays.metric, way)),
    )


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _corners(  # type: ignore[no-untyped-def]
    b, c, slope_b, slope_c, ds, step, first, last, top_b, top_c, stride_b, stride_c, at, w00, w01, w10, w11
):  # fmt: skip
    """Where each ray of a row meets a slab: its lowest corner, and the weights of all four."""
    one, zero = F32(1), F32(0)
    for u in range(at.size):
        bb = get(b, u) + ds * get(slope_b, u)
        cc = get(c, u) + ds * get(slope_c, u)
        low_b = min(max(np.floor(bb), zero), top_b)
        low_c = min(max(np.floor(cc), zero), top_c)
        # Tent weights around clamped corners: zero outside the lattice, without a branch.
        b_low, b_high = max(zero, one - abs(bb - low_b)), max(zero, one - abs(bb - low_b - one))
        c_low, c_high = max(zero, one - abs(cc - low_c)), max(zero, one - abs(cc - low_c - one))
        between = one if (get(first, u) <= step) & (step <= get(last, u)) else zero
        put(at, u, I32(I32(low_b) * stride_b + I32(low_c) * stride_c))
        put(w00, u, between * b_low * c_low)
        put(w01, u, between * b_low * c_high)
        put(w10, u, between * b_high * c_low)
        put(w11, u, between * b_high * c_high)


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _add(volumes, base, stride_b, stride_c, at, w00, w01, w10, w11, total):  # type: ignore[no-untyped-def]
    """Add a slab of one material's volume to a row of rays."""
    for u in range(at.size):
        corner = get(at, u)
        value = (
            get(w00, u) * gather(volumes, base, corner)
            + get(w01, u) * gather(volumes, base + stride_c, corner)
            + get(w10, u) * gather(volumes, base + stride_b, corner)
            + get(w11, u) * gather(volumes, base + stride_b + stride_c, corner)
        )
        put(total, u, get(total, u) + value)


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _entries(stored, base, corner, first, end, at, entry):  # type: ignore[no-untyped-def]
    """Which entry of the table each ray's corner takes."""
    for u in range(at.size):
        value = I32(gather(stored, base + corner, get(at, u))) - first
        put(entry, u, I32(min(max(value, I32(0)), end)))


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _add_entries(table, base, e00, e01, e10, e11, w00, w01, w10, w11, total):  # type: ignore[no-untyped-def]
    """Add a slab of one material, looked up in its part of the table, to a row of rays."""
    for u in range(total.size):
        value = (
            get(w00, u) * gather(table, base, get(e00, u))
            + get(w01, u) * gather(table, base, get(e01, u))
            + get(w10, u) * gather(table, base, get(e10, u))
            + get(w11, u) * gather(table, base, get(e11, u))
        )
        put(total, u, get(total, u) + value)


@njit(inline="always")
def _frame(shape, signed_axis):  # type: ignore[no-untyped-def]
    """Slabs, strides and the last lower corners of steps along an axis."""
    a = abs(signed_axis) - 1
    b = 1 if a == 0 else 0
    c = 1 if a == 2 else 2
    stride = (np.int64(1), shape[0], shape[0] * shape[1])
    return shape[a], stride[a], I32(stride[b]), I32(stride[c]), F32(shape[b] - 2), F32(shape[c] - 2)


@njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _march_volumes(  # type: ignore[no-untyped-def]
    volumes, shape, signed_axis, b, c, db, dc, first, last, step_mm, out
):  # fmt: skip
    count, rows, columns = out.shape
    slabs, stride_a, stride_b, stride_c, top_b, top_c = _frame(shape, signed_axis)
    voxels = shape[0] * shape[1] * shape[2]
    for row in prange(rows):
        from_slab, to_slab = first[row].min(), last[row].max()
        middle = (from_slab + to_slab) // 2
        b_mid, b_slope = (b[row] + middle * db[row]).astype(F32), db[row].astype(F32)
        c_mid, c_slope = (c[row] + middle * dc[row]).astype(F32), dc[row].astype(F32)
        at, total = np.empty(columns, np.int32), np.zeros((count, columns), F32)
        weight = np.empty((4, columns), F32)
        # One volume after the other: together, what a row of rays reads of them does not stay in the cache.
        for m in range(count):
            for s in range(from_slab, to_slab + 1):
                base = (s if signed_axis > 0 else slabs - 1 - s) * stride_a
                _corners(
                    b_mid, c_mid, b_slope, c_slope, F32(s - middle), I32(s), first[row], last[row],
                    top_b, top_c, stride_b, stride_c, at, weight[0], weight[1], weight[2], weight[3],
                )  # fmt: skip
                _add(volumes, m * voxels + base, stride_b, stride_c, at,
                     weight[0], weight[1], weight[2], weight[3], total[m])  # fmt: skip
        for m in range(count):
            for u in range(columns):
                if first[row, u] <= last[row, u]:
                    out[m, row, u] = total[m, u] * F32(step_mm[row, u])


@njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _march_table(  # type: ignore[no-untyped-def]
    stored, table, table_first, shape, signed_axis, b, c, db, dc, first, last, step_mm, out
):  # fmt: skip
    count, rows, columns = out.shape
    slabs, stride_a, stride_b, stride_c, top_b, top_c = _frame(shape, signed_axis)
    entries = table.size // count
    begin, end = I32(table_first), I32(entries - 1)
    for row in prange(rows):
        from_slab, to_slab = first[row].min(), last[row].max()
        middle = (from_slab + to_slab) // 2
        b_mid, b_slope = (b[row] + middle * db[row]).astype(F32), db[row].astype(F32)
        c_mid, c_slope = (c[row] + middle * dc[row]).astype(F32), dc[row].astype(F32)
        at, total = np.empty(columns, np.int32), np.zeros((count, columns), F32)
        weight, entry = np.empty((4, columns), F32), np.empty((4, columns), np.int32)
        for s in range(from_slab, to_slab + 1):
            base = (s if signed_axis > 0 else slabs - 1 - s) * stride_a
            _corners(
                b_mid, c_mid, b_slope, c_slope, F32(s - middle), I32(s), first[row], last[row], top_b, top_c,
                stride_b, stride_c, at, weight[0], weight[1], weight[2], weight[3],
            )  # fmt: skip
            _entries(stored, base, 0, begin, end, at, entry[0])
            _entries(stored, base, stride_c, begin, end, at, entry[1])
            _entries(stored, base, stride_b, begin, end, at, entry[2])
            _entries(stored, base, stride_b + stride_c, begin, end, at, entry[3])
            for m in range(count):
                _add_entries(table, m * entries, entry[0], entry[1], entry[2], entry[3],
                             weight[0], weight[1], weight[2], weight[3], total[m])  # fmt: skip
        for m in range(count):
            for u in range(columns):
                if first[row, u] <= last[row, u]:
                    out[m, row, u] = total[m, u] * F32(step_mm[row, u])
