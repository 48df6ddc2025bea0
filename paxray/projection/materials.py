"""Basis materials: how much of each a voxel holds, as volumes or as a table of what the voxel stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError, ConfigError


@dataclass(frozen=True, eq=False)
class Materials:
    """Coefficients of basis materials in each voxel, in any unit: g/cm3, a volume's share, 1/mm.

    Attenuation at any energy is a sum of the materials' own, weighted by these coefficients; so is its line
    integral, of theirs. Beyond the lattice they are zero.

    Parameters
    ----------
    names
        The materials.
    voxels
        Without a table ``(materials, nk, nj, ni)`` float32: the coefficients themselves. With one, ``(nk, nj, ni)``
        int16 or uint16: what the voxels store, such as HU. Not copied where they lie in C order.
    table
        ``(entries, materials)``: the coefficients of a voxel that stores ``first + entry``. They are looked up at
        each corner and then interpolated. What lies beyond the table takes its first or its last entry.
    first
        What the table's first entry stands for.

    Raises
    ------
    ConfigError
        Names, voxels and table that do not fit together (code ``bad_materials``).
    """

    names: tuple[str, ...]
    voxels: NDArray[np.number]
    table: NDArray[np.float32] | None = None
    first: int = 0

    def __post_init__(self) -> None:
        names, voxels = tuple(self.names), np.asarray(self.voxels)
        if not names or len(set(names)) != len(names):
            raise _bad("materials need names, each its own", "one or more", str(names))
        if self.table is None:
            if voxels.ndim != 4 or len(voxels) != len(names) or voxels.dtype.kind not in "fiu":
                raise _bad(
                    "the volumes do not fit the names",
                    f"({len(names)}, nk, nj, ni) numbers",
                    f"{voxels.dtype} {voxels.shape}",
                )
            voxels = np.ascontiguousarray(voxels, np.float32)
        else:
            table = np.ascontiguousarray(self.table, np.float32)
            if table.ndim != 2 or not len(table) or table.shape[1] != len(names):
                raise _bad("the table does not fit the names", f"(entries, {len(names)})", str(table.shape))
            if not np.isfinite(table).all():
                raise _bad("the table holds values that are not finite", "numbers", "NaN or infinity")
            if voxels.ndim != 3 or voxels.dtype not in (np.int16, np.uint16):
                raise _bad(
                    "a table needs voxels that store whole numbers",
                    "(nk, nj, ni) int16 or uint16",
                    f"{voxels.dtype} {voxels.shape}",
                )
            if not -(2**16) < self.first < 2**16:
                raise _bad("no voxel stores what the table begins with", "16 bits", str(self.first))
            object.__setattr__(self, "table", table)
            voxels = np.ascontiguousarray(voxels)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "voxels", voxels)
        object.__setattr__(self, "first", int(self.first))

    @property
    def count(self) -> int:
        """Number of materials."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(nk, nj, ni)``."""
        nk, nj, ni = self.voxels.shape[-3:]
        return int(nk), int(nj), int(ni)

    def of_slab(self, step_axis: int, n: int) -> NDArray[np.float32]:
        """``(materials, n_c, n_b)``: the coefficients of one slab across index axis 0, 1, 2 (i, j, k)."""
        slab = np.take(self.voxels, n, axis=self.voxels.ndim - 1 - step_axis)
        if self.table is None:
            return slab
        entry = np.clip(slab.astype(np.int64) - self.first, 0, len(self.table) - 1)
        return np.moveaxis(self.table[entry], -1, 0)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise `CaseError` (``mask_mismatch``) unless they have the voxels of a volume of that shape."""
        if self.shape != shape:
            raise CaseError(
                "materials and attenuation are not on one grid",
                expected=f"shape {shape}",
                found=f"shape {self.shape}",
                code="mask_mismatch",
            )


def _bad(what: str, expected: str, found: str) -> ConfigError:
    return ConfigError(what, where="Materials", expected=expected, found=found, code="bad_materials")
