"""A volume and its labels made ready once, for any number of views and for stretches of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, suggest
from paxray.io.volume import Grid, Volume
from paxray.projection.channels import Channels
from paxray.projection.device import Device, resolve_device
from paxray.projection.materials import Materials
from paxray.projection.rays import IndexRays, stepping_axes
from paxray.projection.tensors import Kind, kind_of, on_host
from paxray.projection.tiles import row_bytes, tile_rows
from paxray.projection.view import View
from paxray.projection.want import BODY, PADDING, Maps, Want, merge_facts, shift_facts, words_for

if TYPE_CHECKING:
    from paxray.projection.cuda.resident import Resident

Method = Literal["joseph", "exact"]
Backend = Literal["", "reference"]

#: No attenuation per mm is below this, nor above: gold has 150 at 20 keV, cortical bone 0.1 at 65. HU are.
LEAST_PER_MM, MOST_PER_MM = -100.0, 200.0
#: Memory for the maps of the fine rays of a tile, where pixels are supersampled.
SUPERSAMPLE_BYTES = 2**26
#: Maps that run over pixels first, `(rows, columns, ...)`; the others have a leading axis.
_ROWS_FIRST = ("image", "presence", "incomplete")
_MAPS = (*_ROWS_FIRST, "path", "entry", "exit", "share", "coverage", "materials")


class Options(TypedDict, total=False):
    """What `paxray.project` takes by name."""

    classes: Iterable[str] | None
    per: Literal["class", "atom"]
    method: Method
    device: Device
    backend: Backend
    threads: int | None
    resident: Resident | None
    materials: Materials | None
    supersample: int
    body: str
    unscanned: str


@dataclass(frozen=True, eq=False)
class Tile:
    """The maps of `height` rows of a view, from row `top` on; rows of facts are counted from the view's own top."""

    top: int
    height: int
    maps: Maps
    blocks: list[NDArray[np.void]]


@dataclass(frozen=True, eq=False)
class Scene:
    """What all views of a volume share; made by `prepare`."""

    field: NDArray[np.float32]
    atoms: NDArray[np.unsignedinteger]
    grid: Grid
    channels: Channels
    flags: NDArray[np.uint8]
    want: Want
    method: Method
    backend: str
    threads: int | None
    resident: Resident | None
    materials: Materials | None
    supersample: int
    kind: Kind

    @property
    def material_names(self) -> tuple[str, ...]:
        """The basis materials, where they are wanted."""
        return self.materials.names if self.materials is not None and self.want.materials else ()

    def whole(self, view: View) -> Maps:
        """Follow all rays of a view."""
        _need_view(view)
        if self.supersample == 1:
            (tile,) = self.tiles(view, view.rows)
            return tile.maps
        out = Maps(size=view.size, want=self.want)
        blocks: list[NDArray[np.void]] = []
        height = tile_rows(self._bytes_per_row(view), view.rows, SUPERSAMPLE_BYTES)
        for tile in self.tiles(view, height):
            rows = slice(tile.top, tile.top + tile.height)
            for name in _MAPS:
                part = getattr(tile.maps, name)
                if part is None:
                    continue
                if getattr(out, name) is None:
                    shape = (view.rows, *part.shape[1:]) if name in _ROWS_FIRST else (len(part), *view.size)
                    setattr(out, name, np.empty(shape, part.dtype))
                getattr(out, name)[rows if name in _ROWS_FIRST else np.s_[:, rows]] = part
            blocks += tile.blocks
        out.facts = merge_facts(blocks) if self.want.facts else None
        return out

    def tiles(self, view: View, height: int) -> Iterator[Tile]:
        """Follow the rays of a view `height` rows at a time; the stepping axis is the whole view's."""
        n = self.supersample
        fine = view.finer(n)
        rays, axes = IndexRays.of(fine, self.grid), stepping_axes(fine, self.grid)
        for top in range(0, view.rows, height):
            rows = min(height, view.rows - top)
            whole = rows == view.rows
            part = rays if whole else rays.part(top * n, rows * n)
            mine = axes if whole or axes.size == 1 else axes[top * n : (top + rows) * n]
            maps, blocks = self._reduced(part, mine)
            if maps.facts is not None:
                blocks = [maps.facts]
            blocks = blocks if whole else [shift_facts(block, top) for block in blocks]
            maps.facts = merge_facts(blocks) if self.want.facts else None
            yield Tile(top, rows, maps, blocks)

    def rows_within(self, view: View, max_bytes: int) -> int:
        """Rows whose maps fit into a budget. `ResourceError` (code ``tile_memory``) where not even a few do."""
        return tile_rows(self._bytes_per_row(view), view.rows, max_bytes, strict=True)

    def _bytes_per_row(self, view: View) -> int:
        """Memory of one row of a view: its maps, and those of its fine rays."""

        def of(want: Want, columns: int) -> int:
            return row_bytes(
                columns=columns,
                channels=self.channels.count,
                words=words_for(self.channels.count),
                maps=want.path + 2 * want.depth + want.share + want.coverage,
                planes=want.image + want.incomplete + len(self.material_names),
                bits=want.presence,
                itemsize=8 if self.backend == "reference" or self.method == "exact" else 4,
            )

        n = self.supersample
        if n == 1:
            return of(self.want, view.columns)
        from paxray.projection.supersample import needed

        return of(self.want, view.columns) + n * of(needed(self.want, n), view.columns * n)

    def _reduced(self, rays: IndexRays, axes: NDArray[np.int8]) -> tuple[Maps, list[NDArray[np.void]]]:
        """Follow rays, several a pixel where that is asked for, and reduce them."""
        if self.supersample == 1 and not self.want.coverage:
            return self._march(rays, axes, self.want), []
        from paxray.projection.supersample import needed, reduce_maps

        maps = self._march(rays, axes, needed(self.want, self.supersample))
        return reduce_maps(maps, self.supersample, self.channels.count, self.want)

    def _march(self, rays: IndexRays, axes: NDArray[np.int8], want: Want) -> Maps:
        """Call the backend, and refuse what has met attenuation that is no number."""
        maps = self._follow(rays, axes, want)
        # Told from the picture, which no such voxel that a ray meets leaves finite, without a pass over the volume.
        seen = maps.image if maps.image is not None else maps.share
        if isinstance(seen, np.ndarray) and not np.isfinite(seen.sum(dtype=np.float64)):
            _refuse_no_numbers(self.field, seen)
        return maps

    def _follow(self, rays: IndexRays, axes: NDArray[np.int8], want: Want) -> Maps:
        """Call the backend."""
        if self.method == "exact":
            return _exact(self.field, self._atoms_everywhere(), self.channels, rays, want, self.threads)
        if self.backend == "reference":
            return self._reference(rays, axes, want)
        if self.resident is not None:
            from paxray.projection.cuda import march as cuda

            # What is reduced further is reduced on the host.
            stay = self.kind == "cuda" and self.supersample == 1 and not self.want.coverage
            return cuda.follow(self.resident, self.channels, self.flags, rays, axes, want, on_device=stay)
        from paxray.projection import cpu

        only_materials = want == Want(materials=True)
        maps = Maps(rays.size, want)
        if not only_materials:
            maps = cpu.march(
                self.field, self.atoms, self.channels, self.flags, rays, axes, want, self.threads
            )
        if want.materials:
            from paxray.projection import cpu_materials

            assert self.materials is not None  # `prepare` refuses to go without
            maps.materials = cpu_materials.march(self.materials, rays, axes, self.threads)
        return maps

    def _reference(self, rays: IndexRays, axes: NDArray[np.int8], want: Want) -> Maps:
        from paxray.projection import reference

        parts = [
            reference.march(
                self.field,
                self._atoms_everywhere(),
                self.channels,
                self.flags,
                rays,
                int(axis),
                np.broadcast_to(axes == axis, rays.size),
                want,
                self.materials,
            )
            for axis in np.unique(axes)
        ]
        return _merge(parts).finish()

    def _atoms_everywhere(self) -> NDArray[np.unsignedinteger]:
        """Background where there are no labels."""
        return self.atoms if self.atoms.shape == self.grid.shape else np.zeros(self.grid.shape, np.uint16)


def _refuse_no_numbers(field: NDArray[np.floating], picture: NDArray[np.floating]) -> None:
    """Say which voxels are no numbers; where the volume lies on a GPU only, which pixels met them."""
    bad = np.argwhere(~np.isfinite(field))
    what = "voxel (k, j, i)" if len(bad) else "pixel (row, column)"
    if not len(bad):
        bad = np.argwhere(~np.isfinite(picture))[:, -2:]
    if not len(bad):  # a sum beyond float64 of numbers that are finite
        return
    raise CaseError(
        "attenuation holds values that are not finite",
        where="mu",
        expected="a number of every voxel",
        found=f"NaN or infinity at {len(bad)} places, the first at {what} {tuple(bad[0].tolist())}",
        do="replace them, e.g. numpy.nan_to_num(mu, nan=0, posinf=0, neginf=0)",
        code="bad_attenuation",
    )


def _need_view(view: Any) -> None:
    if not isinstance(view, View):
        raise ConfigError(
            "a projection needs a View", found=repr(view), do="paxray.place('pa', labels) makes one"
        )


def prepare(
    mu: Volume,
    labels: LabelVolume | None,
    want: Want | Iterable[str],
    *,
    classes: Iterable[str] | None = None,
    per: Literal["class", "atom"] = "class",
    method: Method = "joseph",
    device: Device = "auto",
    backend: Backend = "",
    threads: int | None = None,
    resident: Resident | None = None,
    materials: Materials | None = None,
    supersample: int = 1,
    body: str = "body",
    unscanned: str = "unscanned",
) -> Scene:
    """Check everything that does not depend on a view, and send the volume to the GPU that is to project it.

    Parameters and errors as in `paxray.project`.
    """
    want = Want.of(want)
    _check_words(method, backend, per, device, supersample)
    if not (want.image or want.materials or want.labelled):
        raise ConfigError("nothing is wanted of the projection", do="project(..., want=['image', ...])")
    if not isinstance(mu, Volume):
        raise ConfigError(
            "a projection needs attenuation with its place in the world",
            expected="Volume",
            found=type(mu).__name__,
            do="paxray.attenuate(ct, labels) makes one; paxray.io.volume.Volume(array, affine) wraps an array",
        )
    kind = kind_of(mu.array)
    if kind == "numpy" and _beyond_attenuation(mu.array):
        raise ConfigError(
            "the volume holds numbers that no attenuation per mm can be, such as HU",
            expected="0 of air, 0.02 of water, 0.1 of bone",
            found=f"values from {mu.array.min():g} to {mu.array.max():g}",
            do="paxray.attenuate(ct, labels) makes attenuation of it",
        )
    if method == "exact" and (want.depth or want.share or want.incomplete or want.facts or want.materials):
        raise ConfigError("the exact method yields image, presence, coverage and path only")
    names = None if classes is None else (classes,) if isinstance(classes, str) else tuple(classes)
    if names is not None and per == "atom":
        raise ConfigError(
            "classes are chosen, but channels are asked for per atom", do="leave out one of them"
        )
    if labels is None:
        if want.labelled:
            raise ConfigError(
                "labels are needed for any output but image and materials", do="pass a LabelVolume"
            )
        channels = Channels((), np.zeros((1, 0), bool))
        atoms: NDArray[Any] = np.zeros((1, 1, 1), np.uint16)
        flags = np.zeros(1, np.uint8)
    else:
        if labels.atoms.shape != mu.shape or not np.allclose(labels.affine, mu.affine, rtol=0, atol=1e-6):
            raise CaseError(
                "labels and attenuation are not on one grid",
                expected=f"shape {mu.shape}",
                found=f"shape {labels.atoms.shape}, affines differ by up to "
                f"{np.abs(labels.affine - mu.affine).max():.3g} mm",
                code="mask_mismatch",
            )
        labels.check()
        channels = Channels.atoms(labels) if per == "atom" else Channels.classes(labels, names)
        atoms = np.ascontiguousarray(labels.atoms)
        flags = flags_of(labels, want, body, unscanned)
    if min(mu.shape) < 2:
        raise CaseError(
            "the volume is thinner than two voxels",
            expected="at least 2 along each axis",
            found=f"shape {mu.shape}",
            code="bad_shape",
        )
    materials = _materials(mu, want, materials, resident)
    if resident is not None:
        if device == "cpu" or backend or method == "exact" or resident.shape != mu.shape:
            raise ConfigError(
                "a volume that stays on the GPU is projected there, by Joseph's method, with its own labels",
                expected=f"device auto or cuda, no backend, method joseph, shape {mu.shape}",
                found=f"device {device}, backend '{backend}', method {method}, shape {resident.shape}",
            )
        resident.check(mu.array, None if labels is None else labels.atoms)
    elif backend != "reference" and method != "exact" and _use_cuda(device, kind):
        from paxray.projection.cuda.resident import Resident

        resident = Resident(mu.array if kind == "cuda" else on_host(mu.array), atoms, materials=materials)
    used = "exact" if method == "exact" else backend or ("cuda" if resident is not None else "cpu")
    # What lies on a GPU is not needed on the host as well.
    field = np.zeros((0, 0, 0), np.float32) if used == "cuda" else on_host(mu.array)
    return Scene(
        field=field,
        atoms=atoms,
        grid=mu.grid,
        channels=channels,
        flags=flags,
        want=want,
        method=method,
        backend=used,
        threads=threads,
        resident=resident,
        materials=materials,
        supersample=supersample,
        kind=kind,
    )


def _beyond_attenuation(array: NDArray[Any]) -> bool:
    """Whether any of up to 32 voxels along each axis is a number below or above what attenuation can be."""
    few = array[tuple(slice(None, None, -(-n // 32)) for n in array.shape)]
    return -np.inf < float(few.min()) < LEAST_PER_MM or MOST_PER_MM < float(few.max()) < np.inf


def _check_words(method: str, backend: str, per: str, device: str, supersample: int) -> None:
    """Refuse options that no branch below would know, and a GPU for what only the CPU does."""
    for name, value, known in (
        ("method", method, ("joseph", "exact")),
        ("backend", backend, ("", "reference")),
        ("per", per, ("class", "atom")),
        ("device", device, ("auto", "cpu", "cuda")),
    ):
        if value not in known:
            raise ConfigError(
                f"no {name} '{value}'",
                expected=" or ".join(repr(word) for word in known),
                do=suggest(str(value), known)
                or ("device='cuda'" if name == "backend" and value == "cuda" else ""),
            )
    if method == "exact" and backend:
        raise ConfigError("the exact method is no march of a backend", do="leave out method or backend")
    if device == "cuda" and (method == "exact" or backend):
        raise ConfigError(
            "no GPU runs the exact method or the reference",
            found=f"device {device}",
            do="use device 'cpu' or 'auto'",
        )
    if isinstance(supersample, bool) or not isinstance(supersample, int) or supersample not in (1, 2, 4, 8):
        raise ConfigError(
            "a pixel cannot be supersampled so",
            expected="supersample of 1, 2, 4 or 8",
            found=str(supersample),
        )


def _materials(
    mu: Volume, want: Want, materials: Materials | None, resident: Resident | None
) -> Materials | None:
    """The materials to project: those given, or those that lie on the GPU already."""
    if resident is not None:
        if materials is not None and materials is not resident.materials:
            raise ConfigError(
                "other materials than those that were sent to the GPU",
                do="hold(mu, labels, materials=materials)",
            )
        materials = resident.materials
    elif materials is not None and not want.materials:
        raise ConfigError("materials are given, but not wanted", do="add 'materials' to want")
    if not want.materials:
        return materials
    if materials is None:
        raise ConfigError(
            "which materials?",
            expected="Materials",
            found="none",
            do="project(..., materials=Materials(...))",
        )
    materials.check(mu.shape)
    return materials


def flags_of(labels: LabelVolume, want: Want, body: str, unscanned: str) -> NDArray[np.uint8]:
    """Bits of each atom that tell incomplete rays."""
    flags = np.zeros(len(labels.membership), np.uint8)
    if not want.incomplete:
        return flags
    if body not in labels.names:
        raise ConfigError(
            f"incomplete rays are told from the class '{body}', which the labels lack",
            do="add it with paxray.with_body, or leave 'incomplete' out of what you want",
        )
    flags[labels.membership[:, labels.names.index(body)]] |= BODY
    if unscanned in labels.names:
        flags[labels.membership[:, labels.names.index(unscanned)]] |= PADDING
    return flags


def _merge(parts: list[Maps]) -> Maps:
    """Combine the passes of a wide fan: each ray is in exactly one."""
    out = parts[0]
    for part in parts[1:]:
        for name in ("image", "path", "share", "materials"):
            if getattr(out, name) is not None:
                getattr(out, name).__iadd__(getattr(part, name))
        if out.incomplete is not None and part.incomplete is not None:
            out.incomplete |= part.incomplete
        for name in ("entry", "exit"):
            if getattr(out, name) is not None:
                setattr(out, name, np.fmin(getattr(out, name), getattr(part, name)))
    return out


def _exact(
    mu: NDArray[np.float32],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    rays: IndexRays,
    want: Want,
    threads: int | None,
) -> Maps:
    """Voxel by voxel."""
    from paxray.projection.exact import path_lengths

    if not want.any_class:
        channels = Channels((), np.zeros((len(channels.table), 0), bool))
    path, image = path_lengths(mu, atoms, channels, rays, threads)
    maps = Maps(rays.size, want, image=image if want.image else None, path=path)
    return maps.finish()


def _use_cuda(device: Device, kind: Kind) -> bool:
    if kind == "cuda" and device == "cpu":
        raise ConfigError(
            "the volume lies on a GPU", expected="device auto or cuda", found="device cpu", do="mu.cpu()"
        )
    return resolve_device("cuda" if kind == "cuda" else device) == "cuda"
