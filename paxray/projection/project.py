"""The one face of all projectors: attenuation and labels along the same rays of a view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume, suggest_class
from paxray.errors import ConfigError, suggest
from paxray.io.volume import Volume
from paxray.projection.device import Device, resolve_device
from paxray.projection.scene import Backend, Materials, Method, Options, Scene, prepare
from paxray.projection.tensors import handed_back
from paxray.projection.view import View
from paxray.projection.want import Maps, Want, unpack

if TYPE_CHECKING:
    from paxray.projection.cuda.resident import Resident

__all__ = ["Device", "Method", "Projection", "project", "project_many", "project_tiles", "resolve_device"]


@dataclass(frozen=True, eq=False, repr=False)
class Projection:
    """What one traversal of a view's rays yields; None where it was not asked for.

    Attributes
    ----------
    view
        The geometry.
    names
        The channels: classes, or atoms.
    image
        ``(rows, columns)`` line integral of attenuation, dimensionless.
    presence
        ``(rows, columns, words)`` uint64: bit c % 64 of word c // 64 tells whether channel c is met.
    path_mm, entry_mm, exit_mm, share
        ``(channels, rows, columns)``: length within the class; depth where it begins and ends (NaN where it
        is not met), counted from the source or a parallel beam's depth plane; part of the line integral.
    incomplete
        ``(rows, columns)`` bool: the ray leaves the body where the scan ends.
    facts
        ``(channels,)`` structured array, see `paxray.projection.want.FACTS`.
    coverage
        ``(channels, rows, columns)``: the part of a pixel's rays that meet the class, 0 to 1.
    materials
        ``(materials, rows, columns)`` line integral of each basis material, in its coefficients' unit x mm.
    material_names
        One per material.
    first_row
        Of the detector, where the projection is a stretch of its rows (`project_tiles`); `view` is then the
        stretch's own. Rows in `facts` are counted from the detector's top in any case.
    backend
        What computed it.
    """

    view: View
    names: tuple[str, ...]
    backend: str
    image: NDArray[np.floating] | None = None
    presence: NDArray[np.uint64] | None = None
    path_mm: NDArray[np.floating] | None = None
    entry_mm: NDArray[np.floating] | None = None
    exit_mm: NDArray[np.floating] | None = None
    share: NDArray[np.floating] | None = None
    incomplete: NDArray[np.bool_] | None = None
    facts: NDArray[np.void] | None = None
    coverage: NDArray[np.floating] | None = None
    materials: NDArray[np.floating] | None = None
    material_names: tuple[str, ...] = ()
    first_row: int = 0

    def __repr__(self) -> str:
        """What there is, without the numbers."""
        held = [
            f.name for f in fields(self)
            if f.name not in ("view", "names", "backend", "material_names", "first_row")
            and getattr(self, f.name) is not None
        ]  # fmt: skip
        rows, columns = self.view.size
        return (
            f"Projection('{self.view.name}', {rows} x {columns}, {len(self.names)} channels, {self.backend}: "
            f"{', '.join(held)})"
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: c for c, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Channel number of a class."""
        if name not in self._index:
            raise ConfigError(
                f"the projection has no class '{name}'",
                found=f"{len(self.names)} other classes",
                do=suggest_class(name, self.names),
                code="unknown_class",
            )
        return self._index[name]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """``(rows, columns)`` where a class is met; needs ``presence``."""
        if self.presence is None:
            raise ConfigError("presence was not asked for", do="project(..., want=['presence'])")
        channel = self.index(name)
        if self.facts is None or not isinstance(self.presence, np.ndarray):
            mask: NDArray[np.bool_] = unpack(self.presence, channel)
            return mask
        # Facts tell the rows that a class lies in: most classes are small.
        mask, fact = np.zeros(self.presence.shape[:2], np.bool_), self.facts[channel]
        if fact["pixels"]:
            rows = slice(fact["row_min"] - self.first_row, fact["row_max"] - self.first_row + 1)
            mask[rows] = unpack(self.presence[rows], channel)
        return mask

    def material(self, name: str) -> NDArray[np.floating]:
        """``(rows, columns)`` line integral of a basis material; needs ``materials``."""
        if self.materials is None or name not in self.material_names:
            raise ConfigError(
                f"the projection has no material '{name}'",
                found=", ".join(self.material_names) or "none",
                do=suggest(name, self.material_names) or "project(..., want=['materials'], materials=...)",
            )
        return self.materials[self.material_names.index(name)]


def project(
    mu: Volume,
    labels: LabelVolume | None,
    view: View,
    want: Want | Iterable[str] = ("image", "presence"),
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
) -> Projection:
    """Project attenuation and labels along the same rays, in one traversal.

    Parameters
    ----------
    mu
        Attenuation per mm, ``(nk, nj, ni)``; from `paxray.attenuate`. Outside the lattice it is zero. Its array may
        be a torch tensor, on the CPU or on a GPU: it is read where it lies if it is float32 and contiguous, and maps
        come out as tensors on the same device (`facts` always as numpy).
    labels
        Atoms on the same grid, or None when no output per class is wanted.
    view
        Where the rays run.
    want
        Any of ``image, presence, path, depth, share, incomplete, facts, coverage, materials``.
    classes
        Channels in this order; all of the label volume's by default.
    per
        ``atom``: one channel per atom instead, background included.
    method
        ``joseph``: bilinear in each slab, label of the nearest voxel. ``exact``: every voxel crossed, for image,
        presence, coverage and path only; constant attenuation within a voxel.
    device
        ``cpu``, ``cuda``, or ``auto``: CUDA where there is a device and the extra ``gpu`` is installed.
        `Projection.backend` says which it was.
    backend
        ``reference`` for the plain float64 oracle.
    threads
        CPU threads at most.
    resident
        `mu` and `labels` as `paxray.projection.cuda.resident.hold` keeps them on a GPU, so that several views
        send them once; the projection is then made there.
    materials
        Coefficients of basis materials on the same grid, where ``materials`` is wanted.
    supersample
        1, 2, 4 or 8: that many rays along each side of a pixel, spread evenly over it. Image, path, share and
        materials are their means; presence and incomplete, any of them; entry the first and exit the last; coverage
        the part of them that meets a class. Facts are told from these maps.
    body, unscanned
        Classes that ``incomplete`` is told from; without an `unscanned` class only the array's faces end the scan.

    Raises
    ------
    CaseError
        ``mask_mismatch`` where labels or materials and attenuation are not on one grid; ``bad_attenuation`` where
        image or share meet a voxel that is NaN or infinite (not told where maps stay on a GPU).
    ConfigError
        For an unknown output or class, or options that contradict each other; ``other_volume`` where `resident` was
        made of other voxels.
    ResourceError
        Where CUDA is asked for and there is none.
    """
    scene = prepare(
        mu,
        labels,
        want,
        classes=classes,
        per=per,
        method=method,
        device=device,
        backend=backend,
        threads=threads,
        resident=resident,
        materials=materials,
        supersample=supersample,
        body=body,
        unscanned=unscanned,
    )
    return _projection(scene, view, scene.whole(view), mu.array)


def project_many(
    mu: Volume,
    labels: LabelVolume | None,
    views: Iterable[View],
    want: Want | Iterable[str] = ("image", "presence"),
    **options: Unpack[Options],
) -> Iterator[Projection]:
    """Project several views of one volume, one after the other, as they are asked for.

    What does not depend on the view is done once, before this returns: checks, tables, and on a GPU sending the
    volume. Arguments, results and errors are those of `project`.
    """
    scene = prepare(mu, labels, want, **options)
    return (_projection(scene, view, scene.whole(view), mu.array) for view in views)


def project_tiles(
    mu: Volume,
    labels: LabelVolume | None,
    view: View,
    want: Want | Iterable[str] = ("image", "presence"),
    *,
    max_bytes: int = 2**28,
    **options: Unpack[Options],
) -> Iterator[Projection]:
    """Project a view in stretches of rows, top down, so that maps of every class never exist for the whole detector.

    Parameters
    ----------
    mu, labels, view, want, options
        As in `project`.
    max_bytes
        Memory that the maps of a stretch may take, those of its finer rays included. The volume and a projector's own
        64 MiB are not counted.

    Yields
    ------
    Projection
        With `Projection.first_row`, and the view of these rows alone. `paxray.projection.want.merge_facts` joins the
        facts.

    Raises
    ------
    ResourceError
        ``tile_memory`` where not even 8 rows fit. Others as in `project`.
    """
    scene = prepare(mu, labels, want, **options)
    height = scene.rows_within(view, max_bytes)

    def stretches() -> Iterator[Projection]:
        for tile in scene.tiles(view, height):
            yield _projection(scene, view.part(tile.top, tile.height), tile.maps, mu.array, tile.top)

    return stretches()


def _projection(scene: Scene, view: View, maps: Maps, like: Any, first_row: int = 0) -> Projection:
    """Name the maps, as arrays of the kind that came in."""
    found = {
        name: handed_back(getattr(maps, key), scene.kind, like)
        for name, key in {
            "image": "image", "presence": "presence", "path_mm": "path", "entry_mm": "entry", "exit_mm": "exit",
            "share": "share", "incomplete": "incomplete", "coverage": "coverage", "materials": "materials",
        }.items()
    }  # fmt: skip
    return Projection(
        view=view,
        names=scene.channels.names,
        backend=scene.backend,
        facts=maps.facts,
        material_names=scene.material_names,
        first_row=first_row,
        **found,
    )
