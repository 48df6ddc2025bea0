"""Every class of a label volume in 3D: volume, surface, HU, centre, extent. Two passes over the voxels for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume
from paxray.compiling import loop
from paxray.errors import CaseError
from paxray.io.volume import Volume
from paxray.measure.surface import surfaces_mm2
from paxray.projection.lanes import claim
from paxray.projection.threads import in_all_threads

Float64 = NDArray[np.float64]

#: Planes are shared out among threads in this many blocks, added up in order: results do not depend on threads.
BLOCKS = 16


@dataclass(frozen=True, eq=False)
class Solid:
    """A class in 3D; all positions LPS mm.

    Attributes
    ----------
    volume_mm3
        Voxels times the volume of one.
    surface_mm2
        See `paxray.measure.surface`; without what the scan cuts.
    hu_mean, hu_sd
        Mean and standard deviation (of the population) of its voxels.
    centroid_mm
        ``(3,)`` mean of its voxel centres.
    extent_mm
        ``(6,)`` x, y, z where it begins and x, y, z where it ends, from the outer corners of its voxels.
    """

    volume_mm3: float
    surface_mm2: float
    hu_mean: float
    hu_sd: float
    centroid_mm: Float64
    extent_mm: Float64


def solids(labels: LabelVolume, ct: Volume) -> Mapping[str, Solid]:
    """Measure every class that has voxels.

    Parameters
    ----------
    labels
        Any number of overlapping classes.
    ct
        HU, on the same lattice.

    Raises
    ------
    CaseError
        Labels and CT are not on one lattice (code ``mask_mismatch``).
    """
    if labels.shape != ct.shape:
        raise CaseError(
            "labels and CT are not on one lattice",
            expected=f"shape {ct.shape}",
            found=f"shape {labels.shape}",
            code="mask_mismatch",
        )
    if not np.allclose(labels.affine, ct.affine, rtol=0, atol=1e-6):
        raise CaseError(
            "labels and CT do not lie in the same place",
            expected=f"affine {ct.affine.tolist()}",
            found=str(labels.affine.tolist()),
            code="mask_mismatch",
        )
    grid, table = labels.grid, labels.membership
    sums, low, high = atom_sums(labels, ct)
    of_class = table.T.astype(np.float64) @ sums
    surface = surfaces_mm2(labels.atoms, table, grid)
    margin = np.abs(grid.affine[:3, :3]).sum(axis=1) / 2
    out = {}
    for column, name in enumerate(labels.names):
        count = of_class[column, 0]
        if count == 0:
            continue
        mine = table[:, column] & (sums[:, 0] > 0)
        mean = of_class[column, 4] / count
        out[name] = Solid(
            volume_mm3=float(count * grid.voxel_volume_mm3),
            surface_mm2=float(surface[column]),
            hu_mean=float(mean),
            hu_sd=float(np.sqrt(max(of_class[column, 5] / count - mean**2, 0.0))),
            centroid_mm=grid.to_world(of_class[column, 1:4] / count),
            extent_mm=np.concatenate([low[mine].min(axis=0) - margin, high[mine].max(axis=0) + margin]),
        )
    return out


def atom_sums(labels: LabelVolume, ct: Volume) -> tuple[Float64, Float64, Float64]:
    """Sums over the voxels of each atom, in one pass; the background stays empty.

    Returns
    -------
    sums
        ``(n_atoms, 6)``: voxels, sums of i, j, k, of HU and of HU squared.
    low, high
        ``(n_atoms, 3)`` smallest and largest x, y, z of its voxel centres, mm.
    """
    count = len(labels.membership)
    sums = np.zeros((BLOCKS, count, 6))
    low, high = np.full((BLOCKS, count, 3), np.inf), np.full((BLOCKS, count, 3), -np.inf)
    atoms: NDArray[Any] = np.ascontiguousarray(labels.atoms)
    hu = np.ascontiguousarray(ct.array)
    in_all_threads(lambda turn: _sum_atoms(turn, atoms, hu, labels.grid.affine, sums, low, high), BLOCKS)
    return sums.sum(axis=0), low.min(axis=0), high.max(axis=0)


@loop(nogil=True, _nrt=False)
def _sum_atoms(turn, atoms, hu, affine, sums, low, high):  # type: ignore[no-untyped-def]
    nk, nj, ni = atoms.shape
    blocks = sums.shape[0]
    block = claim(turn)
    while block < blocks:
        mine, mine_low, mine_high = sums[block], low[block], high[block]
        for k in range(block * nk // blocks, (block + 1) * nk // blocks):
            for j in range(nj):
                row, values = atoms[k, j], hu[k, j]
                i = 0
                while i < ni:
                    # A run of one atom: its ends bound its extent, since world position is linear along it.
                    first, atom = i, row[i]
                    i += 1
                    while i < ni and row[i] == atom:
                        i += 1
                    if atom == 0:
                        continue
                    n, last = i - first, i - 1
                    total, squares = 0.0, 0.0
                    for at in range(first, i):
                        value = float(values[at])
                        total += value
                        squares += value * value
                    mine[atom, 0] += n
                    mine[atom, 1] += n * (first + last) / 2
                    mine[atom, 2] += n * j
                    mine[atom, 3] += n * k
                    mine[atom, 4] += total
                    mine[atom, 5] += squares
                    for axis in range(3):
                        rest = affine[axis, 1] * j + affine[axis, 2] * k + affine[axis, 3]
                        begins, ends = rest + affine[axis, 0] * first, rest + affine[axis, 0] * last
                        mine_low[atom, axis] = min(mine_low[atom, axis], min(begins, ends))
                        mine_high[atom, axis] = max(mine_high[atom, axis], max(begins, ends))
        block = claim(turn)
