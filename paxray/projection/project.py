"""The one face of all projectors: attenuation and labels along the same rays of a view."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, ResourceError, suggest
from paxray.io.volume import Volume
from paxray.projection.channels import Channels
from paxray.projection.rays import IndexRays, stepping_axes
from paxray.projection.view import View
from paxray.projection.want import BODY, PADDING, Maps, Want, unpack

if TYPE_CHECKING:
    from paxray.projection.cuda.resident import Resident

Device = Literal["auto", "cpu", "cuda"]
Method = Literal["joseph", "exact"]


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: c for c, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Channel number of a class."""
        if name not in self._index:
            raise ConfigError(
                f"the projection has no class '{name}'",
                found=f"{len(self.names)} other classes",
                do=suggest(name, self.names),
            )
        return self._index[name]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """``(rows, columns)`` where a class is met; needs ``presence``."""
        if self.presence is None:
            raise ConfigError("presence was not asked for", do="project(..., want=['presence'])")
        return unpack(self.presence, self.index(name))


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
    backend: Literal["", "reference"] = "",
    threads: int | None = None,
    resident: Resident | None = None,
    body: str = "body",
    unscanned: str = "unscanned",
) -> Projection:
    """Project attenuation and labels along the same rays, in one traversal.

    Parameters
    ----------
    mu
        Attenuation per mm, ``(nk, nj, ni)``; from `paxray.attenuate`. Outside the lattice it is zero.
    labels
        Atoms on the same grid, or None when no output per class is wanted.
    view
        Where the rays run.
    want
        Any of ``image, presence, path, depth, share, incomplete, facts``.
    classes
        Channels in this order; all of the label volume's by default.
    per
        ``atom``: one channel per atom instead, background included.
    method
        ``joseph``: bilinear in each slab, label of the nearest voxel. ``exact``: every voxel crossed, for image,
        presence and path only; constant attenuation within a voxel.
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
    body, unscanned
        Classes that ``incomplete`` is told from; without an `unscanned` class only the array's faces end the scan.

    Raises
    ------
    CaseError
        ``mask_mismatch`` where labels and attenuation are not on one grid.
    ConfigError
        For an unknown output or class.
    ResourceError
        Where CUDA is asked for and there is none.
    """
    want = Want.of(want)
    names = None if classes is None else tuple(classes)
    if labels is None:
        if want.any_class or want.incomplete:
            raise ConfigError("labels are needed for any output but the image", do="pass a LabelVolume")
        channels = Channels((), np.zeros((1, 0), bool))
        atoms = np.zeros((1, 1, 1), np.uint16)
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
        channels = Channels.atoms(labels) if per == "atom" else Channels.classes(labels, names)
        atoms = labels.atoms
        flags = _flags(labels, want, body, unscanned)
    field, atoms = _two_voxels_at_least(mu.array, atoms)
    rays = IndexRays.of(view, mu.grid)
    if resident is not None and (
        device == "cpu" or backend or method == "exact" or resident.shape != mu.shape
    ):
        raise ConfigError(
            "a volume that stays on the GPU is projected there, by Joseph's method, with its own labels",
            expected=f"device auto or cuda, no backend, method joseph, shape {mu.shape}",
            found=f"device {device}, backend '{backend}', method {method}, shape {resident.shape}",
        )
    if method == "exact":
        used, maps = "exact", _exact(field, atoms, channels, rays, want)
    else:
        axes = stepping_axes(view, mu.grid)
        used, maps = _march(
            field, atoms, channels, flags, rays, axes, want, device, backend, threads, resident
        )
    return Projection(
        view=view,
        names=channels.names,
        backend=used,
        image=maps.image,
        presence=maps.presence,
        path_mm=maps.path,
        entry_mm=maps.entry,
        exit_mm=maps.exit,
        share=maps.share,
        incomplete=maps.incomplete,
        facts=maps.facts,
    )


def _flags(labels: LabelVolume, want: Want, body: str, unscanned: str) -> NDArray[np.uint8]:
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


def _two_voxels_at_least(
    mu: NDArray[np.number], atoms: NDArray[np.unsignedinteger]
) -> tuple[NDArray[np.float32], NDArray[np.unsignedinteger]]:
    """Bilinear corners need two voxels along each axis: a thinner volume is refused, not padded in silence."""
    if min(mu.shape) < 2:
        raise CaseError(
            "the volume is thinner than two voxels", expected="at least 2 along each axis", found=f"shape {mu.shape}",
            code="bad_shape",
        )  # fmt: skip
    if atoms.shape == (1, 1, 1):
        return np.ascontiguousarray(mu, np.float32), atoms
    return np.ascontiguousarray(mu, np.float32), np.ascontiguousarray(atoms)


def _march(
    mu: NDArray[np.float32],
    atoms: NDArray[np.unsignedinteger],
    channels: Channels,
    flags: NDArray[np.uint8],
    rays: IndexRays,
    axes: NDArray[np.int8],
    want: Want,
    device: Device,
    backend: str,
    threads: int | None,
    resident: Resident | None,
) -> tuple[str, Maps]:
    """Call the backend that device and backend name."""
    if backend == "reference":
        from paxray.projection import reference

        if atoms.shape != mu.shape:
            atoms = np.zeros(mu.shape, np.uint16)
        parts = [
            reference.march(
                mu, atoms, channels, flags, rays, int(axis), np.broadcast_to(axes == axis, rays.size), want
            )
            for axis in np.unique(axes)
        ]
        return "reference", _merge(parts).finish()
    if resident is not None or resolve_device(device) == "cuda":
        from paxray.projection.cuda import march as cuda

        if resident is not None:
            return "cuda", cuda.follow(resident, channels, flags, rays, axes, want)
        return "cuda", cuda.march(mu, atoms, channels, flags, rays, axes, want)
    from paxray.projection import cpu

    return "cpu", cpu.march(mu, atoms, channels, flags, rays, axes, want, threads)


def _merge(parts: list[Maps]) -> Maps:
    """Combine the passes of a wide fan: each ray is in exactly one."""
    out = parts[0]
    for part in parts[1:]:
        for name in ("image", "path", "share"):
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
) -> Maps:
    """Voxel by voxel."""
    from paxray.projection.exact import path_lengths

    if want.depth or want.share or want.incomplete or want.facts:
        raise ConfigError("the exact method yields image, presence and path only")
    if atoms.shape != mu.shape:
        atoms = np.zeros(mu.shape, np.uint16)
    path, image = path_lengths(mu, atoms, channels, rays)
    maps = Maps(rays.size, want, image=image if want.image else None, path=path)
    return maps.finish()


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """Turn ``auto`` into ``cpu`` or ``cuda``, and refuse a CUDA device that is not there.

    torch is imported only where the NVIDIA driver is installed or CUDA is asked for. ``auto`` is ``cpu`` where the
    extra ``gpu`` is missing.
    """
    if device == "cpu":
        return "cpu"
    if device not in ("auto", "cuda"):
        raise ConfigError(f"unknown device '{device}'", expected="auto, cpu or cuda")
    if device == "auto" and not _nvidia_driver():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        from paxray.projection.cuda.kernels import need_extra

        try:
            need_extra()
        except ResourceError:
            if device == "auto":
                return "cpu"
            raise
        return "cuda"
    if device == "auto":
        return "cpu"
    raise ResourceError(
        "no CUDA device",
        expected="an NVIDIA GPU that torch can use",
        found=f"torch {torch.__version__}, CUDA build: {torch.version.cuda or 'none'}",
        do="use --device cpu, or install a CUDA build of torch on a machine with a GPU",
    )


def _nvidia_driver() -> bool:
    """Whether the NVIDIA driver's library can be loaded."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
