"""What is seen inside the lungs: arteries and veins that branch from the hila to the periphery."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.phantom.canvas import Box, Canvas, overlap
from paxray.phantom.shapes import Float64, Tube, tube_distance

LOBES = {
    1: ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    -1: ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
}
# Where the large vessels leave the mediastinum, left side; reference mm. Right: mirrored, a little lower.
_ROOTS = {
    "artery": ((48.0, -58.0, 42.0), (53.0, -44.0, 0.0), (50.0, -70.0, 28.0)),
    "vein": ((40.0, -74.0, 14.0), (42.0, -52.0, -16.0), (42.0, -86.0, 0.0)),
}
VESSEL_HU = 50.0
TIP_MM = 0.53  # radius of the smallest vessel that is drawn
FORK_EXPONENT = 2.3  # r^e sums at a fork; measured in human pulmonary arteries: 2.3 (Huang et al. 1996)


def paint_lung_vessels(canvas: Canvas, seed: int, drop_mm: float) -> None:
    """Paint the vascular trees of both lungs into the parenchyma; labels stay the lobes'.

    Parameters
    ----------
    canvas
        With lungs painted.
    seed
        The patient's.
    drop_mm
        How far the hila are moved downwards with the breath, reference mm.
    """
    for side in (1, -1):
        rng = np.random.default_rng([seed, 31 + side])
        where = canvas.mask(*LOBES[side])
        voxels = np.argwhere(where)
        if len(voxels) == 0:
            continue
        (k0, j0, i0), (k1, j1, i1) = voxels.min(axis=0).tolist(), (voxels.max(axis=0) + 1).tolist()
        box = (slice(k0, k1), slice(j0, j1), slice(i0, i1))
        for kind, leaves in (("artery", 320), ("vein", 210)):
            roots = np.array(_ROOTS[kind])
            roots[:, 0] *= side
            roots[:, 2] -= drop_mm + (9.0 if side < 0 else 0.0)
            tips = _world(canvas, voxels[rng.integers(0, len(voxels), leaves)])
            for branch in grow(roots, tips + rng.normal(0.0, 0.5, tips.shape), rng):
                _paint_branch(canvas, branch, box, where)


def _world(canvas: Canvas, voxels: NDArray[np.int64]) -> Float64:
    k, j, i = voxels.T
    return np.stack([canvas.x[k, 0, i], canvas.y[k, j, 0], canvas.z[k, 0, 0]], axis=1).astype(np.float64)


def _paint_branch(canvas: Canvas, branch: Tube, box: Box, where: NDArray[np.bool_]) -> None:
    part = canvas.box(*branch.bounds, margin_mm=canvas.edge_mm)
    room = None if part is None else overlap(part, box)
    if room is not None:
        distance = tube_distance(canvas, branch, room, clearance_mm=canvas.edge_mm)
        canvas.paint(room, distance, None, VESSEL_HU, where=where[room])


def grow(roots: Float64, tips: Float64, rng: np.random.Generator) -> list[Tube]:
    """Join tips to roots by a tree that is short in all and short from root to tip.

    Greedy minimum spanning tree with a penalty on path length (Cuntz et al., PLoS Comput Biol 2010), over
    tips in order of their distance from the roots; ``r ** FORK_EXPONENT`` sums at every fork.

    Parameters
    ----------
    roots
        ``(r, 3)`` mm.
    tips
        ``(n, 3)`` mm.
    rng
        Bends the branches.

    Returns
    -------
    list of Tube
        A branch per tip: from the node that it leaves to the tip.
    """
    balance = 0.4
    order = np.argsort(np.linalg.norm(tips[:, None] - roots[None], axis=2).min(axis=1))
    nodes = [*roots]
    paths = [0.0] * len(roots)
    parent = [-1] * len(roots)
    chains: list[list[int]] = []
    for tip in tips[order]:
        at = np.asarray(nodes)
        reach = np.linalg.norm(at - tip, axis=1)
        from_ = int(np.argmin(reach + balance * np.asarray(paths)))
        # Leave further down the trunk in a curve, as vessels do, through nodes others can fork from.
        straight = tip - at[from_]
        length = float(np.linalg.norm(straight))
        steps = max(1, int(np.ceil(length / 8.0)))
        heading = _heading(at, parent, from_)
        sideways = rng.normal(0.0, 1.0, 3) * 0.06 * length
        chain = [from_]
        for step in range(1, steps + 1):
            s = step / steps
            arch = s * (1 - s)
            nodes.append(at[from_] + straight * s + arch * (sideways + 0.35 * length * heading))
            paths.append(paths[from_] + length * s)
            parent.append(chain[-1])
            chain.append(len(nodes) - 1)
        chains.append(chain)
    leaves = np.zeros(len(nodes))
    for chain in chains:
        leaves[chain[-1]] += 1
    for n in range(len(nodes) - 1, -1, -1):
        if parent[n] >= 0:
            leaves[parent[n]] += leaves[n]
    radius = TIP_MM * np.maximum(leaves, 1.0) ** (1.0 / FORK_EXPONENT)
    place = np.asarray(nodes)
    # A branch starts no thicker than it goes on, however thick the vessel that it leaves.
    return [Tube(place[chain], np.minimum(radius[chain], radius[chain[1]])) for chain in chains]


def _heading(at: Float64, parent: list[int], n: int) -> Float64:
    if parent[n] < 0:
        return np.zeros(3)
    step = at[n] - at[parent[n]]
    return step / max(float(np.linalg.norm(step)), 1e-9)
