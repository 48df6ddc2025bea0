"""The work that every tool is given: volumes with known line integrals, label volumes, views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.labels import LabelVolume, Status
from paxray.io.volume import Grid, Volume
from paxray.projection.pose import Pose
from paxray.projection.view import View

SDD_MM = 1800.0
#: From the middle of the volume to the detector: clear of its corners in every pose.
CENTER_TO_DETECTOR_MM = 260.0
#: Side of the square detector: the whole volume casts its shadow on it.
FIELD_MM = 480.0
PIXELS = 512
CLASSES = 105
#: Attenuation at the middle of a Gaussian ball; about that of soft tissue.
PEAK_PER_MM = 0.02


@dataclass(frozen=True)
class Ball:
    """Attenuation ``PEAK_PER_MM exp(-r^2 / (2 sigma^2))`` about a centre, all in mm."""

    center_mm: tuple[float, float, float]
    sigma_mm: float

    def line_integral(self, view: View) -> NDArray[np.float64]:
        """``(rows, columns)`` integral along each ray's whole line: sqrt(2 pi) sigma peak exp(-d^2 / (2 sigma^2))."""
        row, column = np.mgrid[: view.rows, : view.columns]
        origin, direction = view.ray(column, row)
        offset = origin - self.center_mm
        along = np.einsum("...x,...x", offset, direction)
        distance2 = np.einsum("...x,...x", offset, offset) - along**2
        return np.asarray(
            PEAK_PER_MM * self.sigma_mm * np.sqrt(2 * np.pi) * np.exp(-distance2 / (2 * self.sigma_mm**2))
        )


def balls() -> tuple[Ball, ...]:
    """A phantom without symmetry, so that a flipped or shifted image cannot pass for the right one.

    Six sigma of each ball lie inside the volume of every scene: cutting it off costs less than 1e-8 of its peak.
    """
    rng = np.random.default_rng(20)
    made = []
    for sigma_mm in (14.0, 12.0, 12.0, 10.0, 10.0, 10.0, *[8.0] * 6, *[6.0] * 8):
        reach = 175.0 - 6 * sigma_mm
        x, y, z = rng.uniform(-reach, reach, 3)
        made.append(Ball((float(x), float(y), float(z)), sigma_mm))
    return tuple(made)


@dataclass(frozen=True, eq=False)
class Scene:
    """One piece of work.

    Attributes
    ----------
    name
        ``cone-256``, ...: the ``case`` of the result rows.
    mu
        Gaussian balls, attenuation per mm, float32.
    labels
        Exclusive classes: atom c + 1 is class c.
    view
        The rays.
    """

    name: str
    mu: Volume
    labels: LabelVolume
    view: View

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        """``(rows, columns)`` the phantom's line integrals in closed form."""
        return np.sum([ball.line_integral(self.view) for ball in balls()], axis=0)

    def rms_error(self, image: NDArray[np.floating]) -> float:
        """RMS difference from the closed form, as a share of its peak."""
        return float(np.sqrt(np.mean((image - self.expected) ** 2)) / self.expected.max())

    def seen_from(self, view: View) -> Scene:
        """The same volume in another view."""
        return replace(self, view=view)


def centered_affine(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """``(4, 4)`` of a volume ``(nk, nj, ni)`` whose middle is the world's origin; spacing along i, j, k."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return affine


def gaussian_phantom(grid: Grid) -> Volume:
    """Sample `balls` at voxel centres of an axis-aligned grid."""
    nk, nj, ni = grid.shape
    origin, spacing = grid.to_world([0, 0, 0]), grid.spacing_mm
    mu = np.zeros(grid.shape, np.float32)
    for ball in balls():
        parts, profiles = [], []
        for axis, count in ((2, nk), (1, nj), (0, ni)):
            offset = origin[axis] + np.arange(count) * spacing[axis] - ball.center_mm[axis]
            near = np.flatnonzero(np.abs(offset) < 6 * ball.sigma_mm)
            parts.append(slice(int(near[0]), int(near[-1]) + 1))
            profiles.append(np.exp(-0.5 * (offset[near] / ball.sigma_mm) ** 2).astype(np.float32))
        in_k, in_j, in_i = profiles
        mu[tuple(parts)] += (np.float32(PEAK_PER_MM) * in_k)[:, None, None] * (in_j[:, None] * in_i)
    return Volume(mu, grid.affine)


def organs(shape: tuple[int, int, int], count: int, filled: float = 0.8) -> NDArray[np.uint16]:
    """Ellipsoids of many sizes, the small painted over the large, in a volume's middle: ids 1 to `count`.

    Whatever their number they are given the same total volume, `filled` of the box (overlaps leave about half of it
    occupied), so that more classes mean smaller ones, as in anatomy.
    """
    rng = np.random.default_rng(count)
    size = np.array(shape, dtype=np.float64)
    atoms = np.zeros(shape, np.uint16)
    share = np.sort(rng.lognormal(sigma=0.8, size=count))[::-1]
    share *= filled / share.sum()
    for number, part in enumerate(share, start=1):
        stretch = rng.uniform(0.7, 1.4, 3)
        radius = size * np.cbrt(part * 3 / (4 * np.pi)) * stretch / np.cbrt(stretch.prod())
        radius = np.minimum(radius, 0.45 * size)
        center = rng.uniform(radius, np.maximum(size - radius, radius + 1e-6))
        low = np.maximum(np.floor(center - radius), 0).astype(int)
        high = np.minimum(np.ceil(center + radius) + 1, size).astype(int)
        k, j, i = (
            ((np.arange(low[x], high[x]) - center[x]) / radius[x]).astype(np.float32) ** 2 for x in range(3)
        )
        box = atoms[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        box[k[:, None, None] + (j[:, None] + i) < 1] = number
    return atoms


def label_volume(
    atoms: NDArray[np.uint16], membership: NDArray[np.bool_], affine: NDArray[np.float64], names: list[str]
) -> LabelVolume:
    """Wrap atoms and table; every class counts as present."""
    return LabelVolume(atoms, membership, tuple(names), affine, dict.fromkeys(names, Status.PRESENT))


def exclusive_labels(atoms: NDArray[np.uint16], affine: NDArray[np.float64], count: int) -> LabelVolume:
    """Atom c + 1 is class c."""
    membership = np.vstack([np.zeros((1, count), bool), np.eye(count, dtype=bool)])
    return label_volume(atoms, membership, affine, [f"organ_{c}" for c in range(count)])


def renamed_labels(labels: LabelVolume, count: int) -> LabelVolume:
    """The same bodies under `count` class names, shared out in turn: as many runs along each ray, fewer classes."""
    n_atoms = len(labels.membership)
    membership = np.zeros((n_atoms, count), bool)
    membership[np.arange(1, n_atoms), (np.arange(1, n_atoms) - 1) % count] = True
    return label_volume(labels.atoms, membership, labels.affine, [f"group_{c}" for c in range(count)])


def overlapping_labels(labels: LabelVolume) -> LabelVolume:
    """A catalog that overlaps as anatomy's do: unions in three levels, and zones that cut across all structures.

    Eight zones (four along k, two along j, like lung zones and compartments) make new atoms of the structures
    that they cut. Each atom but the background is in its structure, a group of eight structures, a system of
    about thirty, `all`, and one zone of either kind.
    """
    n_atoms, n_classes = labels.membership.shape
    nk, nj, _ = labels.shape
    in_k = np.arange(nk) * 4 // nk
    in_j = np.arange(nj) * 2 // nj
    zone = (in_k[:, None, None] * 2 + in_j[None, :, None]).astype(np.uint16)
    atoms = np.where(labels.atoms > 0, (labels.atoms - 1) * np.uint16(8) + zone + 1, 0).astype(np.uint16)
    structure, cut = np.divmod(np.arange(8 * (n_atoms - 1)), 8)
    columns = [
        labels.membership[1:][structure],
        structure[:, None] // 8 == np.arange(-(-n_classes // 8)),
        structure[:, None] // 32 == np.arange(-(-n_classes // 32)),
        np.ones((len(structure), 1), bool),
        cut[:, None] // 2 == np.arange(4),
        cut[:, None] % 2 == np.arange(2),
    ]
    table = np.hstack(columns)
    # Only those atoms that some voxel has, as a catalog's builder leaves them.
    used = np.flatnonzero(np.bincount(atoms.reshape(-1), minlength=len(table) + 1)[1:])
    compact = np.zeros(len(table) + 1, np.uint16)
    compact[used + 1] = np.arange(1, len(used) + 1)
    membership = np.vstack([np.zeros((1, table.shape[1]), bool), table[used]])
    names = [f"class_{c}" for c in range(table.shape[1])]
    return label_volume(compact[atoms], membership, labels.affine, names)


def cone_view(
    azimuth_deg: float = 0.0, elevation_deg: float = 0.0, pixels: int = PIXELS, name: str = "pa"
) -> View:
    """A cone beam at the world's origin; the square field stays the same whatever the number of pixels."""
    direction, u, v = Pose(name, azimuth_deg, elevation_deg).axes()
    return View(
        name=name,
        beam="cone",
        source_mm=-(SDD_MM - CENTER_TO_DETECTOR_MM) * direction,
        direction=direction,
        center_mm=CENTER_TO_DETECTOR_MM * direction,
        u=u,
        v=v,
        pitch_mm=(FIELD_MM / pixels, FIELD_MM / pixels),
        size=(pixels, pixels),
    )


def parallel_view(grid: Grid) -> View:
    """Rays along world y, each through a column of voxel centres, as a plain sum over the array takes them."""
    nk, _, ni = grid.shape
    si, _, sk = grid.spacing_mm
    direction, u, v = Pose.named("pa").axes()
    return View(
        name="pa",
        beam="parallel",
        source_mm=-(SDD_MM - CENTER_TO_DETECTOR_MM) * direction,
        direction=direction,
        center_mm=CENTER_TO_DETECTOR_MM * direction,
        u=u,
        v=v,
        pitch_mm=(si, sk),
        size=(nk, ni),
    )


#: Shape ``(nk, nj, ni)`` and spacing along i, j, k in mm of each volume: boxes of about 358 mm.
VOLUMES: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "256": ((256, 256, 256), (1.4, 1.4, 1.4)),
    "512x512x300": ((300, 512, 512), (0.7, 0.7, 1.2)),
}
CASES = ("cone-256", "cone-512x512x300", "parallel-512x512x300")


@lru_cache(maxsize=2)
def make_volume(name: str, shrink: int, classes: int) -> tuple[Volume, LabelVolume]:
    """Phantom and labels of one of `VOLUMES`, kept for the next case that has the same."""
    (nk, nj, ni), (si, sj, sk) = VOLUMES[name]
    shape = (nk // shrink, nj // shrink, ni // shrink)
    grid = Grid(shape, centered_affine(shape, (si * shrink, sj * shrink, sk * shrink)))
    return gaussian_phantom(grid), exclusive_labels(organs(shape, classes), grid.affine, classes)


def make_scene(case: str, shrink: int = 1, classes: int = CLASSES) -> Scene:
    """Build the scene of a case; `shrink` divides all sizes, to try the benchmark itself."""
    beam, volume = case.split("-", 1)
    mu, labels = make_volume(volume, shrink, classes)
    view = cone_view(pixels=PIXELS // shrink) if beam == "cone" else parallel_view(mu.grid)
    return Scene(case if shrink == 1 else f"{case}/{shrink}", mu, labels, view)
