"""What the rules look at: counts, and a sample of each class's voxels a few millimetres apart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.division import slice_axis
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.unions import derive
from paxray.io.volume import Volume
from paxray.segmentation.body import BODY, UNSCANNED

Float64 = NDArray[np.float64]

#: Voxels are looked at no more than this apart, unless told otherwise. What is smaller is judged by its volume alone.
SAMPLE_MM = 3.0
#: A class of fewer sampled voxels has no place to speak of.
FEWEST = 5
SPINE = (*(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 14)), *(f"L{n}" for n in range(1, 7)))


class Evidence:
    """A case's masks as the rules see them.

    Parameters
    ----------
    labels
        What sources drew, before recipes.
    catalog
        Sides, twins and parts.
    cut
        Whether the scan cuts a class, of those in `labels`.
    ct
        HU on the masks' lattice; without it densities are not judged.
    sample_mm
        Voxels are looked at no more than this apart.
    """

    def __init__(
        self,
        labels: LabelVolume,
        catalog: Catalog,
        cut: Mapping[str, bool],
        ct: Volume | None = None,
        sample_mm: float = SAMPLE_MM,
    ) -> None:
        self.labels, self.catalog, self.ct, self.sample_mm = labels, catalog, ct, sample_mm
        self.drawn = tuple(
            name for name in labels.names if name in catalog and labels.status[name] is not Status.UNKNOWN
        )
        self._unions = derive(labels, catalog)
        self._voxels = self._unions.voxel_counts()
        self._cut = cut
        self._points: dict[str, Float64] = {}

    # What is known of a class; unions of what sources drew count

    def status(self, name: str) -> Status:
        """Unknown where nothing looked for it."""
        return self._unions.status.get(name, Status.UNKNOWN)

    def present(self, name: str) -> bool:
        """It has voxels."""
        return self._voxels.get(name, 0) > 0

    def cut(self, name: str) -> bool:
        """The scan cuts it, or its source covers part of the scan only: there is more of it than is seen."""
        return self.status(name) is Status.PARTIAL or self.cut_by_scan(name)

    def cut_by_scan(self, name: str) -> bool:
        """It, or what it is made of, reaches a face of the scan or what was not reconstructed."""
        leaves = (name,) if name in self._cut else self.catalog.leaves(name)
        return any(self._cut.get(leaf, False) for leaf in leaves)

    def volume_ml(self, name: str) -> float:
        """Of all its voxels."""
        return self._voxels.get(name, 0) * self.labels.grid.voxel_volume_mm3 / 1000

    def shared_ml(self, names: tuple[str, ...]) -> Float64:
        """``(n, n)`` what each two classes have in common."""
        columns = self._unions.membership[:, [self._unions.index(name) for name in names]].astype(np.float64)
        shared: Float64 = columns.T @ (columns * self._unions.atom_counts()[:, None])
        return shared * self.labels.grid.voxel_volume_mm3 / 1000

    # Sampled voxels

    @cached_property
    def step(self) -> tuple[int, int, int]:
        """Every how many voxels along k, j, i one is looked at."""
        k, j, i = (max(1, int(self.sample_mm / mm)) for mm in reversed(self.labels.grid.spacing_mm))
        return k, j, i

    @cached_property
    def sampled(self) -> NDArray[np.integer]:
        """``[k, j, i]`` atoms of the voxels that are looked at."""
        return np.ascontiguousarray(self.labels.atoms[tuple(slice(s // 2, None, s) for s in self.step)])

    @cached_property
    def _by_atom(self) -> list[NDArray[np.int64]]:
        """Flat places in `sampled`, by atom."""
        flat = self.sampled.reshape(-1)
        places = np.flatnonzero(flat)
        atoms = flat[places]
        order = np.argsort(atoms, kind="stable")
        ends = np.searchsorted(atoms[order], np.arange(1, len(self.labels.membership)))
        return np.split(places[order], ends)

    def points(self, name: str) -> Float64:
        """``(n, 3)`` LPS mm of a class's sampled voxels."""
        if name not in self._points:
            places = self._places(name)
            k, j, i = (
                at * s + s // 2
                for at, s in zip(np.unravel_index(places, self.sampled.shape), self.step, strict=True)
            )
            self._points[name] = self.labels.grid.to_world(np.column_stack([i, j, k]))
        return self._points[name]

    def _places(self, name: str) -> NDArray[np.int64]:
        """Flat places in `sampled` of a class's voxels."""
        if not self.present(name):
            return np.zeros(0, np.int64)
        atoms = np.flatnonzero(self._unions.membership[:, self._unions.index(name)])
        return np.concatenate([self._by_atom[atom] for atom in atoms])

    @cached_property
    def _sampled_hu(self) -> NDArray[np.number]:
        """Flat, as `sampled`; NaN where nothing was reconstructed."""
        assert self.ct is not None
        hu = self.ct.array[tuple(slice(s // 2, None, s) for s in self.step)].astype(np.float32)
        if UNSCANNED in self.labels.names:
            hu[self.labels.membership[:, self.labels.index(UNSCANNED)][self.sampled]] = np.nan
        return hu.reshape(-1)

    def hu(self, names: tuple[str, ...]) -> NDArray[np.number] | None:
        """``(n,)`` HU of the sampled voxels of classes, those in several repeated; None without a CT."""
        if self.ct is None:
            return None
        hu = np.concatenate([self._sampled_hu[:0], *(self._sampled_hu[self._places(name)] for name in names)])
        return hu[~np.isnan(hu)]

    def placed(self, name: str) -> bool:
        """It has enough sampled voxels to say where it lies."""
        return self.present(name) and len(self.points(name)) >= FEWEST

    def centroid_mm(self, name: str) -> Float64:
        """``(3,)`` LPS mm of a class that is `placed`."""
        return np.asarray(self.points(name).mean(axis=0))

    @cached_property
    def body_at_sides(self) -> float:
        """Of the slices across the patient that show the body, the share in which the scan cuts it off at a side."""
        if not self.present(BODY):
            return 0.0
        planes = np.moveaxis(self.sampled, slice_axis(self.labels.grid), 0)
        body = self.labels.membership[:, self.labels.index(BODY)][planes]
        beyond = np.ones((len(planes), planes.shape[1] + 2, planes.shape[2] + 2), bool)
        beyond[:, 1:-1, 1:-1] = (
            self.labels.membership[:, self.labels.index(UNSCANNED)][planes]
            if UNSCANNED in self.labels.names
            else False
        )
        beside = beyond[:, :-2, 1:-1] | beyond[:, 2:, 1:-1] | beyond[:, 1:-1, :-2] | beyond[:, 1:-1, 2:]
        touching = (body & beside).any(axis=(1, 2)).sum()
        return float(touching / max(1, body.any(axis=(1, 2)).sum()))

    def mirror_in_scan(self, name: str) -> bool:
        """Most of where a class would lie on the other side of the midline was scanned; False without a midline."""
        if not self.has_midline():
            return False
        points = self.points(name).copy()
        points[:, 0] -= 2 * self.leftward_mm(points)
        at = np.floor(self.labels.grid.to_index(points) + 0.5).astype(int)[:, ::-1]
        inside = np.asarray(((at >= 0) & (at < self.labels.shape)).all(axis=1))
        if UNSCANNED in self.labels.names:
            atoms = self.labels.atoms[tuple(at[inside].T)]
            inside[inside] = ~self.labels.membership[atoms, self.labels.index(UNSCANNED)]
        return bool(inside.mean() > 0.5)

    @cached_property
    def ends_mm(self) -> tuple[float, float]:
        """Heights of the scan's lowest and highest voxel centre."""
        k, j, i = self.labels.shape
        corners = [[a, b, c] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)]
        heights = self.labels.grid.to_world(np.array(corners, float))[:, 2]
        return float(heights.min()), float(heights.max())

    # The spine, and the midline through it

    @cached_property
    def vertebrae(self) -> dict[str, Float64]:
        """Level (C1 ... L6) to centroid, in the order of the names, of those that are placed."""
        return {level: self.centroid_mm(name) for level in SPINE if self.placed(name := f"vertebrae_{level}")}

    @cached_property
    def spine(self) -> list[str]:
        """The levels of `vertebrae` as they lie, from head to foot, whatever they are called.

        From the lowest each time to the nearest that is left: a bent neck runs forward rather than up.
        """
        left = dict(self.vertebrae)
        chain: list[str] = []
        while left:
            if chain:
                here = self.vertebrae[chain[-1]]
                chain.append(min(left, key=lambda level: float(np.linalg.norm(left[level] - here))))
            else:
                chain.append(min(left, key=lambda level: float(left[level][2])))
            del left[chain[-1]]
        return chain[::-1]

    def along_spine_mm(self, points: Float64) -> Float64:
        """``(n,)`` how far down the line through the centroids of `spine` points lie, at the place nearest to them.

        Beyond its ends the line goes on straight; two vertebrae at least.
        """
        line = np.array([self.vertebrae[level] for level in self.spine])
        start, step = line[:-1], np.diff(line, axis=0)
        length = np.linalg.norm(step, axis=1)
        share = ((points[:, None] - start) * step).sum(axis=2) / length**2
        low, high = np.zeros(len(step)), np.ones(len(step))
        low[0], high[-1] = -np.inf, np.inf
        share = np.clip(share, low, high)
        away = np.linalg.norm(start + share[..., None] * step - points[:, None], axis=2)
        nearest = np.arange(len(points)), away.argmin(axis=1)
        before = np.concatenate([[0.0], np.cumsum(length)[:-1]])
        return np.asarray((before + share * length)[nearest])

    @cached_property
    def _midline(self) -> tuple[Float64, Float64] | None:
        """Heights, rising, and the midline's x there."""
        if self.vertebrae:
            x, _, z = np.array(sorted(self.vertebrae.values(), key=lambda at: float(at[2]))).T
            return z, x
        if self.placed(BODY) and not self.body_at_sides:
            x, _, z = self.points(BODY).T
            return np.array([z.mean()]), np.array([(x.min() + x.max()) / 2])
        return None

    def has_midline(self) -> bool:
        """There is a vertebra, or else a body that the scan does not cut at its sides, to tell left from right by."""
        return self._midline is not None

    def leftward_mm(self, points: Float64) -> Float64:
        """``(n,)`` how far points lie to the patient's left of the midline at their height."""
        assert self._midline is not None
        heights, x = self._midline
        return np.asarray(points[:, 0] - np.interp(points[:, 2], heights, x))


def listed(names: list[str] | tuple[str, ...], most: int = 6) -> str:
    """Names for a sentence, the others counted."""
    shown = list(names[:most])
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
