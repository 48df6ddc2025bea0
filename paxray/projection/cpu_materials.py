"""Line integrals of basis materials on the CPU: the march of `cpu`, for several coefficients a voxel.

A table is looked up at the corners, before interpolating: voxels are read as they are stored, once for all materials,
and no volume is made of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.compiling import helper, loop
from paxray.errors import ResourceError
from paxray.projection.cpu_rays import set_up_row
from paxray.projection.lanes import claim, gather, get, put
from paxray.projection.materials import Materials
from paxray.projection.rays import IndexRays
from paxray.projection.threads import in_all_threads

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
    geometry = (
        shape, axes, rays.cone, rays.pixel, rays.du, rays.dv, rays.source, rays.direction, rays.pixel_depth_mm,
        rays.metric,
    )  # fmt: skip
    march = _march_volumes
    stored: tuple[Any, ...] = (voxels,)
    if materials.table is not None:
        march = _march_table
        # One material's entries lie together, where neighbouring rays look up neighbouring values.
        table = np.ascontiguousarray(materials.table.T).reshape(-1)
        # Two's complement: compiled once for voxels with and without a sign.
        bits = I32(-1) if voxels.dtype == np.int16 else I32(0xFFFF)
        stored = (voxels.view(np.int16), bits, table, materials.first)
    for axis in sorted({int(a) for a in np.unique(axes)}):

        def work(turn: NDArray[np.int64], axis: int = axis) -> None:
            march(turn, *stored, axis, *geometry, out)

        in_all_threads(work, rows, threads)
    return out


@helper(fastmath={"contract"}, error_model="numpy")
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


@helper(fastmath={"contract"}, error_model="numpy")
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


@helper(fastmath={"contract"}, error_model="numpy")
def _entries(stored, bits, base, corner, first, end, at, entry):  # type: ignore[no-untyped-def]
    """Which entry of the table each ray's corner takes."""
    for u in range(at.size):
        value = (I32(gather(stored, base + corner, get(at, u))) & bits) - first
        put(entry, u, I32(min(max(value, I32(0)), end)))


@helper(fastmath={"contract"}, error_model="numpy")
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


@helper(inline="always")
def _frame(shape, signed_axis):  # type: ignore[no-untyped-def]
    """Slabs, strides and the last lower corners of steps along an axis."""
    a = abs(signed_axis) - 1
    b = 1 if a == 0 else 0
    c = 1 if a == 2 else 2
    stride = (np.int64(1), shape[0], shape[0] * shape[1])
    return shape[a], stride[a], I32(stride[b]), I32(stride[c]), F32(shape[b] - 2), F32(shape[c] - 2)


@helper(error_model="numpy")
def _row(  # type: ignore[no-untyped-def]
    row, axes, signed_axis, shape, cone, pixel, du, dv, source, direction, pixel_depth, metric,
    b_mid, b_slope, c_mid, c_slope, first, last, step_mm,
):  # fmt: skip
    """Set a row of rays up about its middle slab; returns its first, last and middle step."""
    columns = first.size
    at, slope, range_ = np.empty((2, columns)), np.empty((2, columns)), np.empty((4, columns), np.int32)
    a = abs(signed_axis) - 1
    set_up_row(
        row, axes, signed_axis, 1 if a == 0 else 0, 1 if a == 2 else 2, shape, cone, pixel, du, dv, source, direction,
        pixel_depth, metric, at[0], at[1], slope[0], slope[1], step_mm, np.empty(columns),
        range_[0], range_[1], first, last, range_[2], range_[3],
    )  # fmt: skip
    from_slab, to_slab = first.min(), last.max()
    middle = (from_slab + to_slab) // 2
    for u in range(columns):
        b_mid[u], b_slope[u] = at[0, u] + middle * slope[0, u], slope[0, u]
        c_mid[u], c_slope[u] = at[1, u] + middle * slope[1, u], slope[1, u]
    return from_slab, to_slab, middle


@loop(nogil=True, fastmath={"contract"}, error_model="numpy")
def _march_volumes(  # type: ignore[no-untyped-def]
    turn, volumes, signed_axis, shape, axes, cone, pixel, du, dv, source, direction, pixel_depth, metric, out
):  # fmt: skip
    count, rows, columns = out.shape
    slabs, stride_a, stride_b, stride_c, top_b, top_c = _frame(shape, signed_axis)
    voxels = shape[0] * shape[1] * shape[2]
    row = claim(turn)
    while row < rows:
        first, last, step_mm = np.empty(columns, np.int32), np.empty(columns, np.int32), np.empty(columns)
        b_mid, b_slope = np.empty(columns, F32), np.empty(columns, F32)
        c_mid, c_slope = np.empty(columns, F32), np.empty(columns, F32)
        from_slab, to_slab, middle = _row(
            row, axes, signed_axis, shape, cone, pixel, du, dv, source, direction, pixel_depth, metric,
            b_mid, b_slope, c_mid, c_slope, first, last, step_mm,
        )  # fmt: skip
        at, total = np.empty(columns, np.int32), np.zeros((count, columns), F32)
        weight = np.empty((4, columns), F32)
        # One volume after the other: together, what a row of rays reads of them does not stay in the cache.
        for m in range(count):
            for s in range(from_slab, to_slab + 1):
                base = (s if signed_axis > 0 else slabs - 1 - s) * stride_a
                _corners(
                    b_mid, c_mid, b_slope, c_slope, F32(s - middle), I32(s), first, last,
                    top_b, top_c, stride_b, stride_c, at, weight[0], weight[1], weight[2], weight[3],
                )  # fmt: skip
                _add(volumes, m * voxels + base, stride_b, stride_c, at,
                     weight[0], weight[1], weight[2], weight[3], total[m])  # fmt: skip
        for m in range(count):
            for u in range(columns):
                if first[u] <= last[u]:
                    out[m, row, u] = total[m, u] * F32(step_mm[u])
        row = claim(turn)


@loop(nogil=True, fastmath={"contract"}, error_model="numpy")
def _march_table(  # type: ignore[no-untyped-def]
    turn, stored, bits, table, table_first, signed_axis,
    shape, axes, cone, pixel, du, dv, source, direction, pixel_depth, metric, out,
):  # fmt: skip
    count, rows, columns = out.shape
    slabs, stride_a, stride_b, stride_c, top_b, top_c = _frame(shape, signed_axis)
    entries = table.size // count
    begin, end = I32(table_first), I32(entries - 1)
    row = claim(turn)
    while row < rows:
        first, last, step_mm = np.empty(columns, np.int32), np.empty(columns, np.int32), np.empty(columns)
        b_mid, b_slope = np.empty(columns, F32), np.empty(columns, F32)
        c_mid, c_slope = np.empty(columns, F32), np.empty(columns, F32)
        from_slab, to_slab, middle = _row(
            row, axes, signed_axis, shape, cone, pixel, du, dv, source, direction, pixel_depth, metric,
            b_mid, b_slope, c_mid, c_slope, first, last, step_mm,
        )  # fmt: skip
        at, total = np.empty(columns, np.int32), np.zeros((count, columns), F32)
        weight, entry = np.empty((4, columns), F32), np.empty((4, columns), np.int32)
        for s in range(from_slab, to_slab + 1):
            base = (s if signed_axis > 0 else slabs - 1 - s) * stride_a
            _corners(
                b_mid, c_mid, b_slope, c_slope, F32(s - middle), I32(s), first, last, top_b, top_c,
                stride_b, stride_c, at, weight[0], weight[1], weight[2], weight[3],
            )  # fmt: skip
            _entries(stored, bits, base, 0, begin, end, at, entry[0])
            _entries(stored, bits, base, stride_c, begin, end, at, entry[1])
            _entries(stored, bits, base, stride_b, begin, end, at, entry[2])
            _entries(stored, bits, base, stride_b + stride_c, begin, end, at, entry[3])
            for m in range(count):
                _add_entries(table, m * entries, entry[0], entry[1], entry[2], entry[3],
                             weight[0], weight[1], weight[2], weight[3], total[m])  # fmt: skip
        for m in range(count):
            for u in range(columns):
                if first[u] <= last[u]:
                    out[m, row, u] = total[m, u] * F32(step_mm[u])
        row = claim(turn)
