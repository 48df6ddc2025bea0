"""The patient's body in a CT: everything inside the skin, without the table and without what was not scanned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import with_flags
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError
from paxray.io.volume import Grid, Volume
from paxray.parallel import share, together
from paxray.segmentation.blocks import any_in_blocks, block_means

#: Classes that this module adds. `UNSCANNED` is no anatomy: it tells rays that leave the body through the edge of
#: the reconstruction circle.
BODY, UNSCANNED = "body", "unscanned"
#: Below this a voxel is not even air: scanners store -2048 or -3024 outside their reconstruction circle.
PADDING_HU = -1200
#: Skin against air: half way between them, and above lung, foam and cloth.
SKIN_HU = -400
#: The coarse grid on which the body is told from the table.
COARSE_MM = 3.5
#: Half the thickness of what counts as table, blanket or cable: shells thinner than twice this are cut off.
OPENING_MM = 7.0


def unscanned_mask(ct: Volume) -> NDArray[np.bool_]:
    """Find what the scanner did not reconstruct.

    Padding below -1200 HU that hangs together with the array's border (a dark streak beside metal does not), widened by
    two voxels in the planes across the patient, since resampling blurs its edge. Where padding was clipped to air, the
    reconstruction circle shows as a corner of perfectly constant air in every slice: real air has noise.

    Returns
    -------
    ndarray
        ``(nk, nj, ni)`` bool.
    """
    return _unscanned(ct, block_means(ct.array, _coarse_factor(ct))[1] < PADDING_HU)


def _unscanned(ct: Volume, blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """As `unscanned_mask`, given the coarse blocks that hold padding."""
    from paxray.segmentation import body_loops

    if not blocks.any():
        circle = _constant_outside_circle(ct)
        return np.zeros(ct.shape, bool) if circle is None else circle
    wanted = _reaching_border(blocks, ct)
    if not wanted.any():
        return np.zeros(ct.shape, bool)
    deep, factor = np.empty(ct.shape, bool), _coarse_factor(ct)
    hu = np.ascontiguousarray(ct.array)
    share(
        len(deep),
        lambda start, stop: body_loops.below_within(hu, PADDING_HU, wanted, factor, start, stop, deep),
    )
    across = np.moveaxis(deep, _long_axis(ct), 0)
    share(len(across), lambda start, stop: body_loops.widen(across, 2, start, stop))
    return deep


def _long_axis(ct: Volume) -> int:
    """The array axis nearest to the patient's long axis."""
    return 2 - int(np.argmax(np.abs(ct.affine[2, :3]) / np.asarray(ct.spacing_mm)))


def _reaching_border(blocks: NDArray[np.bool_], ct: Volume) -> NDArray[np.bool_]:
    """The coarse blocks that hang together with a side face of the array."""
    return _reaching(blocks, (0, 1, 2), [axis for axis in range(3) if axis != _long_axis(ct)])


def _reaching(mask: NDArray[np.bool_], along: Sequence[int], sides: Sequence[int]) -> NDArray[np.bool_]:
    """The pieces of a mask, neighbours along some axes, that reach a face of the array across one of the `sides`."""
    pieces, count = _pieces(mask, along)
    reaching = np.zeros(count + 1, bool)
    for axis in sides:
        for index in (0, -1):
            reaching[np.take(pieces, index, axis=axis)] = True
    reaching[0] = False  # not of the mask
    return reaching[pieces]


def _pieces(mask: NDArray[np.bool_], along: Sequence[int] = (0, 1, 2)) -> tuple[NDArray[np.int32], int]:
    """Number what hangs together by neighbours along some axes, as `scipy.ndimage.label` does, and count it."""
    from paxray.segmentation import body_loops

    out = np.empty(mask.shape, np.int32)
    joins = (0 in along, 1 in along, 2 in along)
    return out, body_loops.number_pieces(np.ascontiguousarray(mask), joins, out)


def _grown(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """Add the neighbours along the axes, so many times over."""
    for _ in range(voxels):
        before, mask = mask, mask.copy()
        for axis in range(mask.ndim):
            to, came = np.moveaxis(mask, axis, 0), np.moveaxis(before, axis, 0)
            to[1:] |= came[:-1]
            to[:-1] |= came[1:]
    return mask


def _constant_outside_circle(ct: Volume) -> NDArray[np.bool_] | None:
    """The outside of the inscribed circle of each slice, if it is one constant value throughout; else None."""
    across = [axis for axis in range(3) if axis != _long_axis(ct)]
    sizes = [ct.shape[axis] for axis in across]
    spacing = [ct.spacing_mm[2 - axis] for axis in across]
    at = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(sizes, spacing, strict=True)]
    radius = min(n * s for n, s in zip(sizes, spacing, strict=True)) / 2
    away = np.hypot(at[0][:, None], at[1][None, :])
    outside = away > radius + 1.5 * max(spacing)
    planes = np.moveaxis(ct.array, _long_axis(ct), 0)
    corners = planes[:, outside]
    if corners.size == 0 or corners.min() != corners.max() or corners.flat[0] > -900:
        return None
    # Air inside the circle has noise; a volume whose air is constant everywhere tells nothing of a circle.
    ring = (away < radius - 2 * max(spacing)) & (away > radius - 8 * max(spacing))
    if np.ptp(planes[:, ring].astype(np.float32)) == 0:
        return None
    out = np.zeros(planes.shape, bool)
    out[:] = away > radius - 1.5 * max(spacing)
    return np.ascontiguousarray(np.moveaxis(out, 0, _long_axis(ct)))


def body_mask(ct: Volume, include: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Find the body: what survives cutting off thin shells, with its holes filled.

    Of several pieces those that hold a label are the patient's; without any label the largest, and others of at least a
    quarter of its size (two legs).

    Parameters
    ----------
    ct
        HU, any orientation.
    include
        ``(nk, nj, ni)`` voxels known to belong to the patient (any label): they are part of the result, and say which
        pieces are the patient and which a mattress.

    Returns
    -------
    ndarray
        ``(nk, nj, ni)`` bool. Contains every voxel of `include`.

    Raises
    ------
    CaseError
        ``no_body`` where nothing of a patient's size is found.
    """
    factor = _coarse_factor(ct)
    mean, _ = block_means(ct.array, factor)
    return _body(ct, mean, np.zeros(ct.shape, np.uint8) if include is None else include)


def _body(
    ct: Volume, mean: NDArray[np.float32], include: NDArray[np.bool_ | np.unsignedinteger]
) -> NDArray[np.bool_]:
    """As `body_mask`, given the mean of coarse blocks; included is what is not 0."""
    from paxray.segmentation import body_loops

    factor = _coarse_factor(ct)
    spacing = np.array([s * f for s, f in zip(reversed(ct.spacing_mm), factor, strict=True)])
    solid = mean > SKIN_HU
    core = _ball_opening(solid, spacing, OPENING_MM)
    pieces, count = _pieces(core)
    if count == 0:
        raise CaseError(
            "no body found in the CT",
            expected=f"tissue above {SKIN_HU} HU thicker than {2 * OPENING_MM:g} mm",
            found=f"HU from {ct.array.min()} to {ct.array.max()}",
            do="check that the file is a CT in HU",
            code="no_body",
        )
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    included = np.ascontiguousarray(include.view(np.uint8) if include.dtype == np.bool_ else include)
    known = any_in_blocks(included, factor)
    keep = sizes >= 0.25 * sizes.max()
    if known.any():
        held = np.bincount(pieces[known], minlength=count + 1)
        held[0] = 0
        if held.any():
            # A few stray label voxels in a mattress do not make it the patient.
            keep = held > 0.01 * held.max()
    keep[0] = False
    patient = keep[pieces]
    # The opening rounds off corners (fingers, skin folds): give back what lies within one coarse voxel.
    near = _grown(patient, 1) & (solid | patient)
    near |= known
    filled = _fill(near)
    inner = ~_grown(~filled, 2)
    blocks = np.where(inner, np.uint8(2), _grown(near, 1))
    hu, body = np.ascontiguousarray(ct.array), np.empty(ct.shape, bool)
    share(
        len(body),
        lambda start, stop: body_loops.solid_within(hu, SKIN_HU, blocks, factor, included, start, stop, body),
    )
    return body


def with_body(ct: Volume, labels: LabelVolume) -> tuple[LabelVolume, NDArray[np.bool_]]:
    """Add the body, unless a source drew it, and what was not scanned.

    Returns
    -------
    labels, body
        The labels with the classes `BODY` and, where the CT has padding, `UNSCANNED`; and the body's mask.
    """
    from paxray.segmentation import body_loops

    drawn = BODY in labels.names and labels.status[BODY] is Status.PRESENT
    mean, lowest = block_means(ct.array, _coarse_factor(ct))
    unscanned, body = together(
        lambda: _unscanned(ct, lowest < PADDING_HU),
        # What a source drew is closed over all other classes.
        lambda: np.zeros(ct.shape, bool) if drawn else _body(ct, mean, labels.atoms),
    )
    flags = np.empty(ct.shape, np.uint8)
    atoms = np.ascontiguousarray(labels.atoms)
    share(len(flags), lambda start, stop: body_loops.settle(atoms, body, unscanned, start, stop, flags))
    # All that is labelled is body, so what remains to be counted is what no label holds.
    pairs = np.zeros((len(labels.membership), 3), np.int64)
    pairs[:, 1] = labels.atom_counts()
    labelled, within, outside = int(pairs[1:, 1].sum()), np.count_nonzero(body), np.count_nonzero(unscanned)
    pairs[0] = body.size - within - outside, within - labelled, outside
    names = [BODY, UNSCANNED] if outside else [BODY]
    pairs = np.pad(pairs, [(0, 0), (0, 1)]) if outside else pairs[:, :2]
    if drawn and (body == labels.mask(BODY)).all():
        names, flags = names[1:], np.right_shift(flags, 1, out=flags)
        pairs = pairs[:, 0::2] + pairs[:, 1::2]
    return (with_flags(labels, flags, names, pairs) if names else labels), body


def body_extent(body: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """``(n, 3)`` world points whose hull is the body, out to its voxels' borders.

    The outer faces of the voxels of `row_ends`, at their four corners.
    """
    begin, end = row_ends(body)
    first, last = begin - [0.5, 0, 0], end + [0.5, 0, 0]
    around = [[0, dj, dk] for dj in (-0.5, 0.5) for dk in (-0.5, 0.5)]
    return grid.to_world(np.concatenate([part + step for part in (first, last) for step in around]))


def row_ends(
    array: NDArray[np.bool_ | np.unsignedinteger], wanted: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels ``(n, 3)`` as ``(i, j, k)`` whose hull is a mask's: the first and the last of rows along i.

    Rows that end within the chord of two others, as far from them to either side, are left out: no corner of the hull.

    Parameters
    ----------
    array
        ``(nk, nj, ni)``: the mask, or integers.
    wanted
        Which integers the mask is made of.
    """
    from paxray.segmentation import body_loops

    ni = array.shape[2]
    values = np.ascontiguousarray(array.view(np.uint8) if array.dtype == np.bool_ else array)
    among = np.array([False, True]) if wanted is None else np.ascontiguousarray(wanted)
    inward = np.empty((2, *array.shape[:2]))  # how far from the array's side a row begins, at either end
    share(len(values), lambda start, stop: body_loops.row_inset(values, among, start, stop, inward))
    corner = np.isfinite(inward)
    for axis in (1, 2):
        along, keep = np.moveaxis(inward, axis, 0), np.moveaxis(corner, axis, 0)
        step = 1
        while 2 * step < len(along):
            keep[step:-step] &= ~(2 * along[step:-step] > along[: -2 * step] + along[2 * step :])
            step *= 2
    ends = []
    for side in (0, 1):
        k, j = np.nonzero(corner[side])
        i = inward[side, k, j].astype(np.int64)
        ends.append(np.column_stack([i if side == 0 else ni - 1 - i, j, k]))
    return ends[0], ends[1]


def body_faces(body: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The body's points in the first and the last slice along the patient's long axis."""
    along = int(np.argmax(np.abs(grid.affine[2, :3]) / np.asarray(grid.spacing_mm)))
    faces = []
    for index in (0, body.shape[2 - along] - 1):
        plane = np.argwhere(np.take(body, index, axis=2 - along)).astype(np.float64)[:, ::-1]
        faces.append(grid.to_world(np.insert(plane, along, index, axis=1)))
    return faces[0], faces[1]


def _coarse_factor(ct: Volume) -> tuple[int, ...]:
    """Voxels along k, j, i in a block of about `COARSE_MM`."""
    return tuple(max(1, round(COARSE_MM / s)) for s in reversed(ct.spacing_mm))


def _ball_opening(
    solid: NDArray[np.bool_], spacing: NDArray[np.float64], radius_mm: float
) -> NDArray[np.bool_]:
    """Opening with a ball in mm; beyond the array the body goes on."""
    width = [int(np.ceil(radius_mm / s)) + 1 for s in spacing]
    padded = np.pad(solid, [(w, w) for w in width], mode="edge")
    eroded = ~_ball_dilation(~padded, spacing, radius_mm)
    opened = _ball_dilation(eroded, spacing, radius_mm)
    return opened[tuple(slice(w, w + n) for w, n in zip(width, solid.shape, strict=True))] & solid


def _ball_dilation(
    mask: NDArray[np.bool_], spacing: NDArray[np.float64], radius_mm: float
) -> NDArray[np.bool_]:
    """All voxels whose centre is within a radius of a set voxel's; a few voxels' radius makes shifts the quickest."""
    dk, dj, di = (np.arange(int(radius_mm / s) + 1) * s for s in spacing)
    within = np.sqrt(dk[:, None, None] ** 2 + dj[:, None] ** 2 + di**2) <= radius_mm
    rows = [mask]  # grown along i by 0, 1, ... voxels
    for step in range(1, within.shape[2]):
        grown = rows[-1].copy()
        grown[..., step:] |= mask[..., :-step]
        grown[..., :-step] |= mask[..., step:]
        rows.append(grown)
    out = np.zeros_like(mask)
    for k, j in zip(*np.nonzero(within[:, :, 0]), strict=True):
        row = rows[np.count_nonzero(within[k, j]) - 1]
        for to_k, from_k in (_shift(k), _shift(-k)):
            for to_j, from_j in (_shift(j), _shift(-j)):
                out[to_k, to_j] |= row[from_k, from_j]
    return out


def _shift(by: int) -> tuple[slice, slice]:
    """Where voxels go and where they come from when an array is moved along an axis."""
    return (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by or None), slice(-by, None))


def _fill(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what is enclosed in any plane across one of the three axes: lungs are open only along the body."""
    gaps = ~solid
    open_in_all = gaps
    for axis in range(3):
        in_plane = [other for other in range(3) if other != axis]
        open_in_all = open_in_all & _reaching(gaps, in_plane, in_plane)
    return ~open_in_all
