"""Growing and shrinking by millimetres, by exact Euclidean distances between voxel centres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from paxray.anatomy.recipes.bits import ball_rows, dilate_by_rows
from paxray.anatomy.recipes.region import Box, Region, Underivable, grow, join, overlap, shape_of, within
from paxray.anatomy.recipes.registry import BadArgument, operator
from paxray.anatomy.recipes.scene import Scene
from paxray.anatomy.voxels import BoolArray

#: A ball of more rows of voxels than this is left to a distance transform, which does not mind how far it goes.
MOST_ROWS = 600


def _two_regions(given: Mapping[str, Any]) -> None:
    if given["of"].key == given["to"].key:
        raise BadArgument("to", "all of a region is near itself", expected="another region than under `of`")


def _one_of_the_seeds(given: Mapping[str, Any]) -> None:
    if len(given["seeds"]) < 2:
        raise BadArgument("seeds", "one seed gets everything", expected="two seeds or more")
    if all(given["to"].key != seed.key for seed in given["seeds"]):
        raise BadArgument("to", "this is none of the seeds", expected="one of those under `seeds`")


@operator
def dilate(scene: Scene, of: Region, by_mm: float) -> Region:
    """All within ``by_mm`` of a region, the region included."""
    if of.empty:
        return of
    box = scene.around(of.box, by_mm)
    return Region.of_mask(_within(scene, of.inside(box), by_mm), box, _too_fine(scene, by_mm))


@operator
def erode(scene: Scene, of: Region, by_mm: float) -> Region:
    """The voxels of a region that lie deeper in it than ``by_mm``.

    Beyond the array, and where the scanner reconstructed nothing, the region goes on: what the scan cuts has no
    surface there.
    """
    if of.empty:
        return of
    return Region.of_mask(of.mask & ~_near_outside(scene, of, by_mm), of.box, _too_fine(scene, by_mm))


@operator(name="open")
def open_(scene: Scene, of: Region, by_mm: float) -> Region:
    """A region without what is thinner than twice ``by_mm``: eroded, then dilated again."""
    eroded = erode(scene, of, by_mm)
    if eroded.empty:
        return eroded
    mask = of.mask & dilate(scene, eroded, by_mm).inside(of.box)
    return Region.of_mask(mask, of.box, _too_fine(scene, by_mm))


@operator
def close(scene: Scene, of: Region, by_mm: float) -> Region:
    """A region with gaps narrower than twice ``by_mm`` filled: dilated, then eroded again."""
    if of.empty:
        return of
    return erode(scene, dilate(scene, of, by_mm), by_mm)


@operator(check=_two_regions)
def near(scene: Scene, of: Region, to: Region, within_mm: float) -> Region:
    """What of a region lies within ``within_mm`` of another one."""
    reach = overlap(of.box, scene.around(to.box, within_mm)) if not to.empty else None
    if of.empty or reach is None:
        return Region.nothing()
    # Targets farther from the common box than the distance cannot matter.
    around = scene.around(reach, within_mm)
    close_by = _within(scene, to.inside(around), within_mm)
    mask = of.mask[within(reach, of.box)] & close_by[within(reach, around)]
    return Region.of_mask(mask, reach)


@operator
def shell(
    scene: Scene, of: Region, thickness_mm: float, where: Literal["inside", "outside", "both"] = "inside"
) -> Region:
    """The rind of a region: voxels within ``thickness_mm`` of the other side of its surface, and in any case those
    that touch it. One that is thinner than a voxel is as thick as voxels are, and says so in a note.

    ``inside`` is part of the region, ``outside`` is not, and ``both`` has ``thickness_mm`` on either side. Where the
    scan cuts the region it has no surface.
    """
    if of.empty:
        return of
    box = scene.around(grow(of.box, (1, 1, 1), scene.shape), thickness_mm)
    mask = of.inside(box)
    outside = ~mask & ~scene.unscanned.inside(box)
    out = np.zeros(mask.shape, np.bool_)
    if where in ("inside", "both"):
        out |= mask & (_within(scene, outside, thickness_mm) | _touching(outside))
    if where in ("outside", "both"):
        out |= outside & (_within(scene, mask, thickness_mm) | _touching(mask))
    voxel_mm = max(scene.grid.spacing_mm)
    note = f"a shell of {thickness_mm:g} mm is thinner than a voxel of {voxel_mm:.3g} mm: its volume means little"
    return Region.of_mask(out, box, [note] if thickness_mm < voxel_mm - 1e-6 else [])


@operator(check=_one_of_the_seeds)
def nearest_of(scene: Scene, of: Region, seeds: list[Region], to: Region) -> Region:
    """What of a region is nearest to one of several seeds: one cell of a partition of the region.

    ``to`` is one of the seeds. A voxel as near to two seeds belongs to the one that stands first; an empty seed gets
    nothing. Seeds may lie outside the region.
    """
    which = next((n for n, seed in enumerate(seeds) if seed is to), None)
    if which is None:
        raise Underivable("nearest_of: what stands under `to` is not one of the seeds")
    if of.empty or to.empty:
        return Region.nothing()
    box = join([of.box, *(seed.box for seed in seeds if not seed.empty)])
    inner = within(of.box, box)
    best = np.full(shape_of(of.box), np.inf, np.float32)
    owner = np.full(shape_of(of.box), -1, np.int16)
    for n, seed in enumerate(seeds):
        if not seed.empty:
            distance = scene.distance_mm(seed.inside(box), np.inf)[inner]
            nearer = distance < best
            owner[nearer] = n
            best = np.minimum(best, distance)
    return Region.of_mask(of.mask & (owner == which), of.box)


def _within(scene: Scene, mask: BoolArray, by_mm: float) -> BoolArray:
    """Voxels within a distance; a thousandth of a percent more, so that rounding does not decide a lattice's ties."""
    upper_mm = by_mm * (1 + 1e-5)
    margin = scene.margin(upper_mm)
    if (2 * margin[0] + 1) * (2 * margin[1] + 1) <= MOST_ROWS:
        return dilate_by_rows(mask, ball_rows(scene.grid.affine[:3, :3], upper_mm, margin))
    out: BoolArray = scene.distance_mm(mask, upper_mm) <= upper_mm
    return out


def _near_outside(scene: Scene, of: Region, by_mm: float) -> BoolArray:
    """Which voxels of the region's box are within a distance of what is certainly not in the region."""
    box: Box = scene.around(of.box, by_mm)
    outside = ~of.inside(box)
    outside &= ~scene.unscanned.inside(box)
    return _within(scene, outside, by_mm)[within(of.box, box)]


def _touching(mask: BoolArray) -> BoolArray:
    """A mask widened by its 6-neighbours."""
    out = mask.copy()
    for axis in range(3):
        into, from_ = np.moveaxis(out, axis, 0), np.moveaxis(mask, axis, 0)
        into[1:] |= from_[:-1]
        into[:-1] |= from_[1:]
    return out


def _too_fine(scene: Scene, by_mm: float) -> list[str]:
    """A note where a distance is less than a voxel, so that nothing happens."""
    finest = min(scene.grid.spacing_mm)
    return (
        [f"{by_mm:g} mm is less than a voxel of {finest:.3g} mm: it changes nothing"]
        if by_mm < finest
        else []
    )
