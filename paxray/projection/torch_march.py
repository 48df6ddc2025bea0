"""The same march in torch tensor operations: runs on a CUDA device, and on torch's CPU for its parity test.

One slab at a time for all pixels; per-atom sums by scatter, one index per ray, so the result is
deterministic. Simple rather than fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.projection.channels import Channels
from paxray.projection.rays import POSITION_DECIMALS, IndexRays
from paxray.projection.want import BODY, PADDING, Maps, Want


def march(
    mu: NDArray[np.float32],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    flags: NDArray[np.uint8],
    rays: IndexRays,
    axes: NDArray[np.int8],
    want: Want,
    device: str,
) -> Maps:
    """Arguments and result as in `paxray.projection.cpu.march`, on a torch device."""
    import torch

    rows, columns = rays.size
    n_rays, n_atoms, count = rows * columns, len(flags), channels.count
    field = torch.as_tensor(mu, device=device)
    label = torch.as_tensor(atoms.astype(np.int32), device=device)
    labelled = want.any_class or want.incomplete
    deep = want.depth or want.facts
    pixels, way = rays.pixels().reshape(-1, 3), rays.directions().reshape(-1, 3)
    at_pixel = rays.depth_of_pixels_mm().reshape(-1)

    # One row per atom, one for samples outside the array, one for those beyond source or detector.
    image = torch.zeros(n_rays, device=device)
    path = torch.zeros((n_atoms + 2, n_rays), device=device) if want.any_class else None
    share = torch.zeros((n_atoms + 2, n_rays), device=device) if want.share else None
    entry = torch.full((n_atoms + 2, n_rays), torch.inf, device=device) if deep else None
    leave = torch.full((n_atoms + 2, n_rays), -torch.inf, device=device) if deep else None
    incomplete = torch.zeros(n_rays, dtype=torch.bool, device=device)
    bits = torch.as_tensor(np.append(flags, np.array([PADDING, 0], np.uint8)), device=device)

    for signed_axis in np.unique(axes):
        a = abs(int(signed_axis)) - 1
        b, c = (x for x in range(3) if x != a)
        slabs = field.permute(2 - a, 2 - b, 2 - c)
        slab_labels = label.permute(2 - a, 2 - b, 2 - c) if labelled else None
        active = np.broadcast_to(axes == signed_axis, rays.size).reshape(-1)
        per_slab = np.where(active, way[:, a], 1.0)
        first = 0 if signed_axis > 0 else slabs.shape[0] - 1
        depth0 = at_pixel + (first - pixels[:, a]) / per_slab
        position0 = pixels + (depth0 - at_pixel)[:, None] * way
        length64 = np.abs(1.0 / per_slab)
        advance = way * length64[:, None]

        def on_device(array: NDArray[Any], kind: Any = torch.float32) -> Any:
            return torch.tensor(array, dtype=kind, device=device)

        length, mine = on_device(length64), on_device(active, torch.bool)
        starts = rays.cone & (depth0 <= 0)
        previous = torch.tensor(np.where(starts, n_atoms + 1, n_atoms), dtype=torch.int64, device=device)
        for step in range(slabs.shape[0]):
            n = first + step * (1 if signed_axis > 0 else -1)
            # Positions are formed in float64 on the host's grid of steps, then narrowed: no error builds up.
            at_b = on_device(np.round(position0[:, b] + step * advance[:, b], POSITION_DECIMALS))
            at_c = on_device(np.round(position0[:, c] + step * advance[:, c], POSITION_DECIMALS))
            depth = depth0 + step * length64
            valid = mine
            if rays.cone:
                valid = mine & on_device((depth > 0) & (depth <= at_pixel), torch.bool)
            value = torch.where(valid, _bilinear(slabs[n], at_b, at_c), 0.0) * length
            image += value
            if slab_labels is None:
                continue
            atom = _nearest(slab_labels[n], at_b, at_c, valid, n_atoms)
            before, after = bits[previous], bits[atom]
            incomplete |= mine & (
                ((before & BODY > 0) & (after & PADDING > 0)) | ((before & PADDING > 0) & (after & BODY > 0))
            )
            previous = atom
            here = atom[None]
            if path is not None:
                path.scatter_add_(0, here, torch.where(atom < n_atoms, length, 0.0)[None])
            if share is not None:
                share.scatter_add_(0, here, value[None])
            if entry is not None and leave is not None:
                depth32 = on_device(depth)
                entry.scatter_reduce_(0, here, (depth32 - length / 2)[None], "amin")
                leave.scatter_reduce_(0, here, (depth32 + length / 2)[None], "amax")
        incomplete |= mine & (bits[previous] & BODY > 0)

    maps = Maps(size=rays.size, want=want)
    maps.image = image.reshape(rows, columns).cpu().numpy() if want.image else None
    maps.incomplete = incomplete.reshape(rows, columns).cpu().numpy() if want.incomplete else None
    if want.any_class:
        table = torch.as_tensor(channels.table, device=device)

        def reduce(per_atom: Any, how: str, empty: float) -> NDArray[np.float32]:
            out = torch.full((count, n_rays), empty, device=device)
            for channel in range(count):
                chosen = per_atom[:n_atoms][table[:, channel]]
                if len(chosen):
                    out[channel] = chosen.sum(0) if how == "sum" else getattr(chosen, how)(0)
            return out.reshape(count, rows, columns).cpu().numpy()

        maps.path = reduce(path, "sum", 0.0)
        if share is not None:
            share[0] += share[n_atoms] + share[n_atoms + 1]
            maps.share = reduce(share, "sum", 0.0)
        if entry is not None and leave is not None:
            begins, ends = reduce(entry, "amin", np.inf), reduce(leave, "amax", -np.inf)
            met = np.isfinite(begins)
            maps.entry, maps.exit = np.where(met, begins, np.nan), np.where(met, ends, np.nan)
    return maps.finish()


def _bilinear(slab: Any, b: Any, c: Any) -> Any:
    """Bilinear interpolation with tent weights around clamped corners: zero outside the lattice."""
    import torch

    low_b = torch.floor(b).clamp(0, slab.shape[0] - 2)
    low_c = torch.floor(c).clamp(0, slab.shape[1] - 2)
    b0, b1 = (1 - (b - low_b).abs()).clamp(min=0), (1 - (b - low_b - 1).abs()).clamp(min=0)
    c0, c1 = (1 - (c - low_c).abs()).clamp(min=0), (1 - (c - low_c - 1).abs()).clamp(min=0)
    ib, ic = low_b.long(), low_c.long()
    return b0 * (c0 * slab[ib, ic] + c1 * slab[ib, ic + 1]) + b1 * (
        c0 * slab[ib + 1, ic] + c1 * slab[ib + 1, ic + 1]
    )


def _nearest(slab: Any, b: Any, c: Any, valid: Any, outside: int) -> Any:
    """Atom of the nearest voxel; `outside` the array; `outside` + 1 beyond source or detector."""
    import torch

    near_b, near_c = torch.floor(b + 0.5), torch.floor(c + 0.5)
    inside = (near_b >= 0) & (near_b < slab.shape[0]) & (near_c >= 0) & (near_c < slab.shape[1])
    ib = near_b.clamp(0, slab.shape[0] - 1).long()
    ic = near_c.clamp(0, slab.shape[1] - 1).long()
    return torch.where(valid, torch.where(inside, slab[ib, ic].long(), outside), outside + 1)
