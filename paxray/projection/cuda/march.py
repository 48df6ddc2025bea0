"""The CUDA projector: what `paxray.projection.cpu.march` does, on a GPU.

The host sends the tables, launches the kernels of march.cu tile by tile, and fetches what was asked for. A tile is a
stretch of detector rows whose per-class maps fit into a budget of device memory; nothing depends on its height.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError, ConfigError
from paxray.projection.channels import Channels
from paxray.projection.cuda.engine import Buffer
from paxray.projection.cuda.kernels import LANES, PARAMS, Variant
from paxray.projection.cuda.resident import Resident
from paxray.projection.rays import IndexRays
from paxray.projection.tiles import ROWS_PER_BLOCK, tile_rows
from paxray.projection.want import FACTS, NO_PIXEL, Maps, Want, words_for

#: Device memory that the per-class maps of a tile may take.
TILE_BYTES = 2**30


def follow(
    resident: Resident,
    channels: Channels,
    flags: NDArray[np.uint8],
    rays: IndexRays,
    axes: NDArray[np.int8],
    want: Want,
    *,
    on_device: bool = False,
    tile_bytes: int = TILE_BYTES,
) -> Maps:
    """Follow all rays of a view through a resident volume.

    Parameters
    ----------
    resident
        The volume.
    channels, flags, rays, axes, want
        As in `paxray.projection.cpu.march`.
    on_device
        Leave the maps on the device as torch tensors, ready in the order of torch's current stream; `facts` is
        numpy in any case.
    tile_bytes
        Device memory for the per-class maps of a tile; at least `ROWS_PER_BLOCK` rows are followed at a time.

    Returns
    -------
    Maps
        float32 maps, in numpy unless `on_device`.
    """
    if want.labelled and not resident.labelled:
        raise CaseError(
            "labels and attenuation are not on one grid",
            expected=f"atoms of shape {resident.shape}",
            code="mask_mismatch",
        )
    materials = resident.materials if want.materials else None
    if want.materials and materials is None:
        raise ConfigError("no materials were sent to the GPU", do="hold(mu, labels, materials=materials)")
    variant = Variant(
        want,
        resident.mu_bits,
        resident.atom_bits,
        materials.count if materials else 0,
        materials.voxels.dtype.name if materials else "float32",
    )
    view = _View(resident, variant, channels, flags, rays, axes)
    rows = rays.size[0]
    height = tile_rows(_bytes_per_row(variant, view.count, rays.size[1]), rows, tile_bytes)
    tiles = [view.tile(top, min(height, rows - top), on_device) for top in range(0, rows, height)]
    return _assemble(view, tiles, on_device)


class _View:
    """The tables of a view on the device, and what turns a tile of its rows into maps."""

    def __init__(
        self,
        resident: Resident,
        variant: Variant,
        channels: Channels,
        flags: NDArray[np.uint8],
        rays: IndexRays,
        axes: NDArray[np.int8],
    ) -> None:
        self.resident, self.engine, self.variant = resident, resident.engine, variant
        self.want, self.rays, self.axes = variant.want, rays, axes
        self.count = channels.count if self.want.any_class else 0
        table = channels.table if self.count else np.zeros((len(flags), 0), bool)
        tables = {**_words(table), "flags": flags}
        if axes.size > 1:
            tables["axes"] = axes
        packed, self._offsets = _pack(tables)
        self._tables = self.engine.send(packed)

    def tile(self, top: int, height: int, on_device: bool) -> dict[str, Any]:
        """Follow the rays of some rows; the maps that are wanted, by name."""
        engine, variant, want, count = self.engine, self.variant, self.want, self.count
        columns = self.rays.size[1]
        plane, per_class = (height, columns), (count, height, columns)
        blocks = -(-height // ROWS_PER_BLOCK)
        planes: dict[str, Buffer] = {}
        if want.image:
            planes["image"] = engine.zeros(plane, np.float32)
        if want.incomplete:
            planes["incomplete"] = engine.zeros(plane, np.uint8)
        if variant.classes:
            planes["bits"] = engine.zeros((2 * words_for(count), *plane), np.uint32)
        if want.materials:
            planes["materials"] = engine.zeros((variant.materials, *plane), np.float32)
        if want.share:
            planes["share"] = engine.zeros(per_class, np.float32)
        if variant.steps or want.share:
            planes["step_mm"] = engine.zeros(plane, np.float64)
        if variant.steps:
            planes["steps"] = engine.empty(per_class, np.int32)
        if variant.deep:
            planes["depth0_mm"] = engine.zeros(plane, np.float64)
            planes["first"] = engine.empty(per_class, np.int32)
            planes["last"] = engine.empty(per_class, np.int32)
        if want.facts:
            planes["lanes"] = engine.empty((blocks * count * LANES * FACTS.itemsize,), np.uint8)
            planes["blocks"] = engine.empty((blocks * count * FACTS.itemsize,), np.uint8)

        mine = self.axes if self.axes.size == 1 else self.axes[top : top + height]
        for axis in np.unique(mine):
            params = engine.send(self._params(int(axis), top, plane, planes).view(np.uint8))
            engine.run("march", variant, (columns, height), params)
        if want.facts:
            engine.run("facts_of_lanes", variant, (blocks * count * LANES,), params)
            engine.run("facts_of_blocks", variant, (blocks * count,), params)
        if want.path or want.depth or want.share:
            engine.run("finish", variant, (count * height * columns,), params)
        return self._results(planes, blocks, engine.fetch if not on_device else lambda buffer: buffer)

    def _params(
        self, signed_axis: int, top: int, plane: tuple[int, int], planes: dict[str, Buffer]
    ) -> NDArray[np.void]:
        """Fill the struct of a launch: index space with the stepping axis first."""
        rays, address = self.rays, self.engine.address
        a = abs(signed_axis) - 1
        axes = [a, *(x for x in range(3) if x != a)]
        order = self.resident.order(a)
        params = np.zeros(1, PARAMS)
        for name, buffer in {**planes, "mu": order.mu, "atoms": order.atoms}.items():
            params[name] = address(buffer)
        for name, offset in self._offsets.items():
            params[name] = address(self._tables) + offset
        if "axes" in self._offsets:
            params["axes"] += np.uint64(top * plane[1])
        materials = self.resident.materials
        if self.want.materials and materials is not None:
            params["stored"], params["volume"] = address(order.stored), np.prod(self.resident.shape)
            if materials.table is not None:
                params["table"] = address(self.resident.table)
                params["table_first"], params["table_entries"] = materials.first, len(materials.table)
        for name in ("pixel", "du", "dv", "source", "direction"):
            params[name] = getattr(rays, name)[axes]
        params["metric"] = rays.metric[np.ix_(axes, axes)]
        params["pixel_depth_mm"], params["mu_unit"] = rays.pixel_depth_mm, self.resident.unit_per_mm
        params["shape"] = np.array(self.resident.shape[::-1])[axes]
        params["stride"] = np.array(order.stride)[axes]
        params["cone"], params["signed_axis"] = rays.cone, signed_axis
        params["row0"], params["rows"], params["columns"] = top, *plane
        params["channels"] = self.count
        return params

    def _results(
        self, planes: dict[str, Buffer], blocks: int, take: Callable[[Buffer], Any]
    ) -> dict[str, Any]:
        """The maps of a tile, in the types of `Maps`."""
        engine, want = self.engine, self.want
        out: dict[str, Any] = {}
        if want.image:
            out["image"] = take(planes["image"])
        if want.presence:
            # Two 32-bit words next to each other are a 64-bit one: the machine is little-endian, as CUDA's hosts are.
            out["presence"] = take(engine.viewed(engine.turned(planes["bits"], (1, 2, 0)), np.uint64))
        if want.path:
            out["path"] = take(engine.viewed(planes["steps"], np.float32))
        if want.depth:
            out["entry"] = take(engine.viewed(planes["first"], np.float32))
            out["exit"] = take(engine.viewed(planes["last"], np.float32))
        if want.share:
            out["share"] = take(planes["share"])
        if want.materials:
            out["materials"] = take(planes["materials"])
        if want.incomplete:
            out["incomplete"] = take(engine.viewed(planes["incomplete"], np.bool_))
        if want.facts:
            out["facts"] = engine.fetch(planes["blocks"]).view(FACTS).reshape(blocks, self.count)
        return out


def _bytes_per_row(variant: Variant, channels: int, columns: int) -> float:
    """Device memory of one row of a tile's per-class maps."""
    maps = 4 * (variant.steps + 2 * variant.deep + variant.want.share) * channels * columns
    return maps + variant.want.facts * channels * LANES * FACTS.itemsize / ROWS_PER_BLOCK


def _words(table: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Which bits of which 32-bit words each atom sets: ``table`` in compressed rows."""
    padded = np.pad(table, ((0, 0), (0, 32 * max(1, -(-table.shape[1] // 32)) - table.shape[1])))
    words = np.packbits(padded, axis=1, bitorder="little").view("<u4")
    atom, word = np.nonzero(words)
    start = np.concatenate([[0], np.cumsum(np.bincount(atom, minlength=len(table)))])
    return {
        "word_start": start.astype(np.uint32),
        "word_of": word.astype(np.uint32),
        "word_bits": words[atom, word].astype(np.uint32),
    }


def _pack(arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Put small arrays behind each other, aligned, so that they travel as one; and where each begins, in bytes."""
    parts: list[bytes] = []
    offsets: dict[str, int] = {}
    for name, array in arrays.items():
        offsets[name] = sum(map(len, parts))
        content = array.tobytes()
        parts.append(content + bytes(-len(content) % 16))
    return np.frombuffer(b"".join(parts), np.uint8), offsets


def _assemble(view: _View, tiles: list[dict[str, Any]], on_device: bool) -> Maps:
    """Join the tiles along the rows."""
    maps = Maps(size=view.rays.size, want=view.want)
    join: Callable[[list[Any], int], Any] = view.engine.joined if on_device else _concatenate
    for name in tiles[0]:
        if name != "facts":
            axis = 0 if name in ("image", "presence", "incomplete") else 1
            setattr(maps, name, join([tile[name] for tile in tiles], axis))
    if view.want.facts:
        maps.facts = _merge(np.concatenate([tile["facts"] for tile in tiles]))
    return maps


def _concatenate(parts: list[NDArray[Any]], axis: int) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _merge(blocks: NDArray[np.void]) -> NDArray[np.void]:
    """Reduce ``(blocks, channels)`` facts to ``(channels,)``, block after block."""
    facts = np.zeros(blocks.shape[1], FACTS)
    for name in FACTS.names or ():
        column = blocks[name]
        if name.endswith("_min"):
            facts[name] = column.min(axis=0, initial=NO_PIXEL)
        elif "_max" in name:
            facts[name] = column.max(axis=0, initial=0 if name == "path_max_mm" else -1)
        else:
            facts[name] = column.sum(axis=0)
    return facts
