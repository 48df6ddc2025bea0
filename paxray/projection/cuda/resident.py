"""A volume that stays on the GPU: sent once, for as many views as are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.projection.cuda.engine import Buffer, Engine, current_engine
from paxray.projection.cuda.kernels import PARAMS, Variant

if TYPE_CHECKING:
    from paxray.anatomy.labels import LabelVolume
    from paxray.io.volume import Volume
    from paxray.projection.materials import Materials

#: ``float32``: attenuation as it came. ``fixed16``: multiples of a 65535th of its maximum, half the memory traffic.
#: Fixed point and not half precision, whose steps in water's attenuation are 1 / 2048 of it: a homogeneous body would
#: be off by up to 2.4e-4 everywhere alike, against 1e-5 here.
Storage = Literal["float32", "fixed16"]
FIXED_MAX = 65535


@dataclass(frozen=True, eq=False)
class Order:
    """The arrays in one order in memory.

    `stride` are the distances of neighbours along i, j, k, in voxels; `mark` stands behind the work that makes them;
    `stored` are the voxels of the materials, where there are any.
    """

    mu: Buffer
    atoms: Buffer
    stride: tuple[int, int, int]
    mark: Any
    stored: Buffer | None = None


class Resident:
    """Attenuation and atoms on a GPU.

    Returns at once: the arrays travel while earlier work goes on, and the first view waits for them.

    Parameters
    ----------
    mu
        ``(nk, nj, ni)`` float32 attenuation per mm, at least two voxels along each axis: numpy, or anything on the
        engine's device that torch or DLPack can read, which is used where it lies and must not change.
    atoms
        ``(nk, nj, ni)`` 16- or 32-bit unsigned (or signed of the same bits); any shape where no labels are wanted.
    storage
        How attenuation is kept.
    engine
        Where; torch's current CUDA device by default.
    materials
        Basis materials on the same lattice.

    Raises
    ------
    CaseError
        Shapes that do not fit (``bad_shape``, ``mask_mismatch``), or negative attenuation with ``fixed16``.
    ResourceError
        2^31 voxels or more (positions in a slab have 32 bits), no extra ``gpu``, or too little memory.
    """

    def __init__(
        self,
        mu: Any,
        atoms: Any,
        storage: Storage = "float32",
        engine: Engine | None = None,
        materials: Materials | None = None,
    ) -> None:
        if storage not in ("float32", "fixed16"):
            raise ConfigError("unknown storage", expected="float32 or fixed16", found=str(storage))
        self.shape: tuple[int, int, int] = tuple(int(n) for n in mu.shape)  # type: ignore[assignment]
        if len(self.shape) != 3 or min(self.shape) < 2:
            raise CaseError(
                "the volume is thinner than two voxels",
                expected="at least 2 along each of 3 axes",
                found=f"shape {self.shape}",
                code="bad_shape",
            )
        if np.prod(self.shape, dtype=np.int64) >= 2**31:
            raise ResourceError(
                "the volume is too large for the CUDA projector",
                expected="fewer than 2^31 voxels",
                found=f"shape {self.shape}",
                do="crop the CT, or resample it to larger voxels",
            )
        self._samples = _sample(mu), _sample(atoms)
        self.engine = current_engine() if engine is None else engine
        self.storage = storage
        self.labelled = tuple(atoms.shape) == self.shape
        self.atom_bits = _atom_bits(atoms)
        self._mu = self.engine.adopt(np.ascontiguousarray(mu, np.float32) if _on_host(mu) else _float32(mu))
        self._atoms = self.engine.adopt(np.ascontiguousarray(atoms) if _on_host(atoms) else atoms)
        self.materials = materials
        self._stored: Buffer | None = None
        #: ``(entries, materials)`` float32 on the device, where the materials are looked up.
        self.table: Buffer | None = None
        if materials is not None:
            materials.check(self.shape)
            self._stored = self.engine.adopt(materials.voxels)
            if materials.table is not None:
                self.table = self.engine.adopt(materials.table)
        self._mark = self.engine.arrived()
        self._unit: float | None = None
        self._orders: dict[bool, Order] = {}

    def check(self, mu: Any, atoms: Any | None) -> None:
        """Raise `ConfigError` (``other_volume``) where these are not the arrays that were sent.

        Told from some thousands of voxels spread evenly, so that a copy passes and no pass over all voxels is made;
        atoms are not looked at where either side has none.
        """
        given = [("attenuation", mu, self._samples[0])]
        if atoms is not None and self.labelled:
            given.append(("labels", atoms, self._samples[1]))
        for what, array, sent in given:
            given_now = _sample(array)
            if sent is None or given_now is None:
                continue
            found, expected = _numbers(given_now), _numbers(sent)
            if found.shape != expected.shape or not np.array_equal(found, expected, equal_nan=True):
                raise ConfigError(
                    f"the {what} given are not those that stay on the GPU",
                    where="resident",
                    expected="the volume and labels that `hold` was given",
                    found="other voxels",
                    do="hold(mu, labels) anew, or leave out resident",
                    code="other_volume",
                )

    @property
    def mu_bits(self) -> int:
        """Bits of stored attenuation."""
        return 32 if self.storage == "float32" else 16

    @property
    def unit_per_mm(self) -> float:
        """What a stored 1 stands for, per mm."""
        self._settle()
        assert self._unit is not None  # _settle has set it
        return self._unit

    @property
    def error_per_mm(self) -> float:
        """Bound of the storage's own error: a line integral is off by at most this times its length in the volume."""
        return self.unit_per_mm / 2 if self.storage == "fixed16" else 0.0

    def order(self, step_axis: int) -> Order:
        """The arrays in an order that suits steps along an axis (0, 1, 2 for i, j, k).

        Neighbouring rays should read neighbouring voxels. Steps along i, in memory the fastest, get a second copy
        ``[i, k, j]``; it is made when first asked for, and kept.
        """
        self._settle()
        along_i, engine = step_axis == 0, self.engine
        if along_i not in self._orders:
            nk, nj, ni = self.shape
            if along_i:
                # Behind the work on the arrays as they came; views may run on other streams than the first did.
                engine.await_(self._mark, self._buffers())
                turn = (2, 0, 1)
                atoms = engine.turned(self._atoms, turn) if self.labelled else self._atoms
                mu = engine.turned(self._mu, turn)
                stored = self._stored
                if stored is not None:
                    stored = engine.turned(stored, turn if len(stored.shape) == 3 else (0, 3, 1, 2))
                self._orders[True] = Order(mu, atoms, (nk * nj, 1, nj), engine.done(), stored)
            else:
                self._orders[False] = Order(self._mu, self._atoms, (1, ni, nj * ni), self._mark, self._stored)
        order = self._orders[along_i]
        engine.await_(order.mark, [b for b in (order.mu, order.atoms, order.stored) if b is not None])
        return order

    def _buffers(self) -> list[Buffer]:
        """The arrays as they came."""
        return [b for b in (self._mu, self._atoms, self._stored, self.table) if b is not None]

    def _settle(self) -> None:
        """Turn attenuation to how it is kept."""
        if self._unit is not None:
            return
        engine = self.engine
        if self.storage == "float32":
            self._unit = 1.0
            return
        engine.await_(self._mark, [self._mu, self._atoms])
        low, high = engine.extremes(self._mu)
        if low < 0:
            raise CaseError(
                "attenuation below zero cannot be stored as 'fixed16'",
                expected="0 or more per mm",
                found=f"{low:.6g} per mm",
                do="store it as 'float32'",
                code="bad_attenuation",
            )
        unit = high / FIXED_MAX if high > 0 else 1.0
        codes = engine.empty(self.shape, np.uint16)
        params = np.zeros(1, PARAMS)
        params["mu_in"], params["mu_out"] = engine.address(self._mu), engine.address(codes)
        params["count"], params["mu_unit"] = np.prod(self.shape, dtype=np.int64), unit
        engine.run("quantise", Variant(), (int(params["count"][0]),), engine.send(params.view(np.uint8)))
        self._mu, self._unit, self._mark = codes, unit, engine.done()


def hold(
    mu: Volume,
    labels: LabelVolume | None,
    storage: Storage = "float32",
    materials: Materials | None = None,
) -> Resident:
    """Send a volume and what belongs to it to torch's current CUDA device, for `paxray.project(..., resident=...)`."""
    atoms = np.zeros((1, 1, 1), np.uint16) if labels is None else labels.atoms
    return Resident(mu.array, atoms, storage, materials=materials)


def _sample(array: Any) -> Any:
    """A copy of up to 32 voxels along each axis, where the array lies; None of one that only DLPack can read."""
    if not hasattr(array, "__getitem__"):
        return None
    few = array[tuple(slice(None, None, -(-int(n) // 32)) for n in array.shape)]
    return few.copy() if _on_host(few) else few.clone()


def _numbers(sample: Any) -> Any:
    """A sample as float32 on the host; whether whole numbers have a sign does not matter."""
    found = sample if _on_host(sample) else sample.detach().cpu().numpy()
    if found.dtype.kind == "f":
        return found.astype(np.float32)
    return found.view(f"u{found.dtype.itemsize}").astype(np.uint32)


def _on_host(array: Any) -> bool:
    return isinstance(array, np.ndarray)


def _float32(array: Any) -> Any:
    if str(array.dtype).removeprefix("torch.") != "float32":
        raise ConfigError(
            "attenuation on the device must be float32", found=str(array.dtype), do="mu.to(torch.float32)"
        )
    return array


def _atom_bits(atoms: Any) -> int:
    name = str(atoms.dtype).removeprefix("torch.")
    if name in ("uint16", "int16"):
        return 16
    if name in ("uint32", "int32"):
        return 32
    raise ConfigError("atoms must be integers of 16 or 32 bits", found=name)
