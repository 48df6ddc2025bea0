"""Single classes: how large, in how many pieces, and whether two claim the same place."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from paxray.plausibility.evidence import Evidence, Float64
from paxray.plausibility.rules import Finding

#: A second piece counts from this size, and from this share of the class.
PIECE_ML, PIECE_SHARE = 1.0, 0.05
#: Between pieces that count as far apart lies at least this much, mm, and twice the largest voxel spacing: on coarse
#: voxels thin bones break up.
APART_MM = 20.0
#: Cells in which voxels are first gathered into pieces, mm.
CELL_MM = 5.0
#: An overlap counts from this size, and from this share of the smaller class.
OVERLAP_ML, OVERLAP_SHARE = 0.5, 0.1

#: ml. Wide sanity bounds for adults: several times beyond what is usual in health and common disease, so that what
#: lies outside is worth a look; they are no reference values. Keys are patterns of class names.
VOLUMES_ML: dict[str, tuple[float, float]] = {
    r"lung_(left|right)": (300, 6000),
    r"lung_(upper|lower)_lobe_(left|right)": (30, 4000),
    r"lung_middle_lobe_right": (10, 2000),
    r"heart": (150, 2500),
    r"heart_(atrium|ventricle)_(left|right)": (15, 1000),
    r"heart_myocardium": (30, 700),
    r"aorta": (20, 1500),
    r"trachea": (5, 150),
    r"esophagus": (5, 400),
    r"liver": (400, 6000),
    r"spleen": (15, 4000),
    r"stomach": (20, 4000),
    r"pancreas": (10, 500),
    r"gallbladder": (0.5, 600),
    r"kidney_(left|right)": (20, 1500),
    r"adrenal_gland_(left|right)": (0.3, 200),
    r"urinary_bladder": (3, 3000),
    r"thyroid_gland": (1, 500),
    r"brain": (700, 2200),
    r"vertebrae_C\d": (3, 60),
    r"vertebrae_T\d+": (5, 120),
    r"vertebrae_L\d": (20, 200),
    r"sacrum": (50, 700),
    r"rib_(left|right)_(1|11|12)": (0.3, 60),
    r"rib_(left|right)_([2-9]|10)": (2, 100),
    r"sternum": (15, 250),
    r"clavicula_(left|right)": (5, 120),
    r"scapula_(left|right)": (20, 300),
    r"hip_(left|right)": (100, 900),
    r"skull": (150, 2000),
}
_BOUNDS = [(re.compile(pattern), bounds) for pattern, bounds in VOLUMES_ML.items()]

#: Solids of which no two have a voxel in common.
_SOLID = re.compile(
    r"lung_(left|right)|lung_(upper|lower|middle)_lobe_(left|right)|rib_(left|right)_\d+|vertebrae_[CTL]\d+|sternum"
    r"|(clavicula|scapula|humerus|femur|hip|kidney)_(left|right)|sacrum|skull|heart|aorta|trachea|liver|spleen|stomach"
    r"|brain|urinary_bladder|pancreas|gallbladder"
)
#: What is one piece in every body: solids, and long things that nothing interrupts.
_ONE_PIECE = re.compile(
    _SOLID.pattern
    + r"|heart_(atrium|ventricle)_(left|right)|heart_myocardium|esophagus|(superior|inferior)_vena_cava"
    r"|brachiocephalic_trunk|subclavian_artery_(left|right)|adrenal_gland_(left|right)|spinal_cord|prostate"
)


def bounds_ml(name: str) -> tuple[float, float] | None:
    """The least and the greatest plausible volume of a class, if it has bounds."""
    return next((bounds for pattern, bounds in _BOUNDS if pattern.fullmatch(name)), None)


def judge_volumes(evidence: Evidence) -> Iterator[Finding]:
    """`volume_out_of_range`."""
    for name in evidence.catalog:
        bounds = bounds_ml(name)
        if bounds is None or not evidence.present(name):
            continue
        volume = evidence.volume_ml(name)
        if volume > bounds[1] or (volume < bounds[0] and not evidence.cut(name)):
            limit = bounds[volume > bounds[1]]
            word = "more" if volume > bounds[1] else "less"
            yield Finding(
                "volume_out_of_range",
                (name,),
                f"{name} has {volume:.4g} ml, {word} than {limit:g} ml",
                value=volume,
                limit=limit,
                unit="ml",
            )


def judge_pieces(evidence: Evidence) -> Iterator[Finding]:
    """`far_pieces`."""
    apart_mm = APART_MM + 2 * max(evidence.labels.grid.spacing_mm)
    for name in evidence.drawn:
        if not _ONE_PIECE.fullmatch(name):
            continue
        if not evidence.placed(name) or evidence.cut(name):
            continue
        shares = far_shares(evidence.points(name), apart_mm)
        if len(shares) > 1 and shares[1] >= PIECE_SHARE and shares[1] * evidence.volume_ml(name) >= PIECE_ML:
            yield Finding(
                "far_pieces",
                (name,),
                f"{name} has {int((shares >= PIECE_SHARE).sum())} pieces at least {apart_mm:.3g} mm apart; the "
                f"second has {100 * shares[1]:.0f} % of it",
                value=float(shares[1]),
                limit=PIECE_SHARE,
                unit="share of voxels",
            )


def far_shares(points: Float64, apart_mm: float) -> Float64:
    """The shares of points in each group that lies so far or farther from all others, the largest first.

    Parameters
    ----------
    points
        ``(n, 3)`` mm.
    apart_mm
        At least 18 mm.
    """
    from scipy import ndimage
    from scipy.spatial import KDTree

    # Cells that touch belong together whatever lies in them: 2 x 5 mm x sqrt(3) < 18 mm.
    cells = (points // CELL_MM).astype(np.int64)
    cells -= cells.min(axis=0)
    filled = np.zeros(cells.max(axis=0) + 1, bool)
    filled[tuple(cells.T)] = True
    touching = np.ones((3, 3, 3), bool)
    pieces, n = ndimage.label(filled, touching)
    of_point = pieces[tuple(cells.T)] - 1
    group = np.arange(n)
    if n > 1:
        # The line between two pieces' nearest points leaves each through a cell at its rim.
        rim = np.argwhere(filled & ~ndimage.binary_erosion(filled, touching))
        near = KDTree(rim * CELL_MM).query_pairs(apart_mm + CELL_MM * np.sqrt(3), output_type="ndarray")
        pairs = np.sort((pieces[tuple(rim.T)] - 1)[near], axis=1)
        members = np.split(points[np.argsort(of_point, kind="stable")], np.cumsum(np.bincount(of_point))[:-1])
        trees: dict[int, KDTree] = {}
        for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
            if group[a] == group[b]:
                continue
            small, large = sorted((a, b), key=lambda piece: len(members[piece]))
            if large not in trees:
                trees[large] = KDTree(members[large])
            if trees[large].query(members[small])[0].min() < apart_mm:
                group[group == group[b]] = group[a]
    sizes = np.bincount(group[of_point], minlength=n)
    return np.sort(sizes[sizes > 0])[::-1] / len(points)


def judge_overlap(evidence: Evidence) -> Iterator[Finding]:
    """`contradictory_overlap`."""
    names = tuple(name for name in evidence.drawn if _SOLID.fullmatch(name) and evidence.present(name))
    if len(names) < 2:
        return
    shared = evidence.shared_ml(names)
    volume = np.diag(shared)
    for a, b in np.argwhere(np.triu(shared, 1) > OVERLAP_ML).tolist():
        share = shared[a, b] / min(volume[a], volume[b])
        if share <= OVERLAP_SHARE or _nested(evidence, names[a], names[b]):
            continue
        yield Finding(
            "contradictory_overlap",
            (names[a], names[b]),
            f"{names[a]} and {names[b]} share {shared[a, b]:.3g} ml, {100 * share:.0f} % of the smaller",
            value=float(share),
            limit=OVERLAP_SHARE,
            unit="share of the smaller",
        )


def _nested(evidence: Evidence, a: str, b: str) -> bool:
    catalog = evidence.catalog
    return a in catalog.ancestors(b) or b in catalog.ancestors(a)
