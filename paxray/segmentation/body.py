"""The patient's body in a CT: everything inside the skin, without the table and without what was not scanned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError
from paxray.io.volume import Grid, Volume

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
    deep = ct.array < PADDING_HU
    if deep.any():
        out = deep & _reaches_border(deep, ct)
        return _widened(out, _long_axis(ct)) if out.any() else out
    circle = _constant_outside_circle(ct)
    return np.zeros(ct.shape, bool) if circle is None else circle


def _long_axis(ct: Volume) -> int:
    """The array axis nearest to the patient's long axis."""
    return 2 - int(np.argmax(np.abs(ct.affine[2, :3]) / np.asarray(ct.spacing_mm)))


def _reaches_border(mask: NDArray[np.bool_], ct: Volume) -> NDArray[np.bool_]:
    """Coarse blocks of what hangs together with a side face of the array, blown up to voxels."""
    from scipy import ndimage

    factor = _coarse_factor(ct)
    blocks = _block_any(mask, factor)
    pieces, _ = ndimage.label(blocks)
    on_side = np.zeros(pieces.max() + 1, bool)
    for axis in range(3):
        if axis != _long_axis(ct):
            for index in (0, -1):
                on_side[np.unique(np.take(pieces, index, axis=axis))] = True
    on_side[0] = False
    return _repeat(on_side[pieces], factor, ct.shape)


def _widened(mask: NDArray[np.bool_], long_axis: int, voxels: int = 2) -> NDArray[np.bool_]:
    """Grow by voxels, in the planes across one axis."""
    out = mask.copy()
    for _ in range(voxels):
        grown = out.copy()
        for axis in range(3):
            if axis != long_axis:
                low, high = [slice(None)] * 3, [slice(None)] * 3
                low[axis], high[axis] = slice(None, -1), slice(1, None)
                grown[tuple(low)] |= out[tuple(high)]
                grown[tuple(high)] |= out[tuple(low)]
        out = grown
    return out


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
    from scipy import ndimage

    factor = _coarse_factor(ct)
    spacing = np.array([s * f for s, f in zip(reversed(ct.spacing_mm), factor, strict=True)])
    coarse = _block_mean(ct.array, factor)
    solid = coarse > SKIN_HU
    core = _ball_opening(solid, spacing, OPENING_MM)
    pieces, count = ndimage.label(core)
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
    known = None if include is None or not include.any() else _block_any(include, factor)
    keep = sizes >= 0.25 * sizes.max()
    if known is not None:
        held = np.bincount(pieces[known], minlength=count + 1)
        held[0] = 0
        if held.any():
            # A few stray label voxels in a mattress do not make it the patient.
            keep = held > 0.01 * held.max()
    keep[0] = False
    patient = keep[pieces]
    # The opening rounds off corners (fingers, skin folds): give back what lies within one coarse voxel.
    near = ndimage.binary_dilation(patient, iterations=1) & (solid | patient)
    if known is not None:
        near |= known
    filled = _fill(near)
    inner = ndimage.binary_erosion(filled, iterations=2, border_value=1)
    near = ndimage.binary_dilation(near, iterations=1)
    body = _repeat(near, factor, ct.shape)
    body &= ct.array > SKIN_HU
    body |= _repeat(inner, factor, ct.shape)
    if include is not None:
        body |= include
    return body


def with_body(ct: Volume, labels: LabelVolume) -> tuple[LabelVolume, NDArray[np.bool_]]:
    """Add the body, unless a source drew it, and what was not scanned.

    Returns
    -------
    labels, body
        The labels with the classes `BODY` and, where the CT has padding, `UNSCANNED`; and the body's mask.
    """
    unscanned = unscanned_mask(ct)
    labelled = labels.atoms > 0
    drawn = BODY in labels.names and labels.status[BODY] is Status.PRESENT
    if drawn:
        body = labelled  # what the source drew, closed over all other classes
    else:
        body = body_mask(ct, include=labelled)
        body &= ~unscanned
        body |= labelled
    unscanned &= ~body
    added = {} if drawn and (body == labels.mask(BODY)).all() else {BODY: body}
    if unscanned.any():
        added[UNSCANNED] = unscanned
    if not added:
        return labels, body
    builder = LabelBuilder.resume(labels, without=tuple(added))
    everywhere = tuple(slice(0, n) for n in labels.shape)
    for name, mask in added.items():
        builder.add_mask(name, everywhere, mask, status=Status.PRESENT)
    return builder.build(labels.affine, list(dict.fromkeys((*labels.names, *added)))), body


def body_extent(body: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """``(n, 3)`` world points whose hull is the body, out to its voxels' borders.

    The outer faces of the first and last voxel of each row along i, at their four corners.
    """
    ends = row_ends(body)
    first, last = ends[: len(ends) // 2] - [0.5, 0, 0], ends[len(ends) // 2 :] + [0.5, 0, 0]
    around = [[0, dj, dk] for dj in (-0.5, 0.5) for dk in (-0.5, 0.5)]
    return grid.to_world(np.concatenate([part + step for part in (first, last) for step in around]))


def row_ends(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``(2 n, 3)`` voxels ``(i, j, k)``: the first of each of n rows along i that are not empty, then the last."""
    k, j = np.nonzero(mask.any(axis=2))
    rows = mask[k, j]
    first = rows.argmax(axis=1)
    last = mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    return np.concatenate([np.column_stack([i, j, k]) for i in (first, last)])


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


def _block_mean(array: NDArray[np.number], factor: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean over blocks; the last block of an axis repeats the last voxels."""
    pad = [(0, -n % f) for n, f in zip(array.shape, factor, strict=True)]
    out = np.pad(array, pad, mode="edge") if any(p[1] for p in pad) else array
    for axis, f in enumerate(factor):
        shape = (*out.shape[:axis], out.shape[axis] // f, f, *out.shape[axis + 1 :])
        out = out.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return out.astype(np.float32, copy=False)


def _block_any(array: NDArray[np.bool_], factor: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether any voxel of each block is set."""
    pad = [(0, -n % f) for n, f in zip(array.shape, factor, strict=True)]
    out = np.pad(array, pad)
    for axis, f in enumerate(factor):
        if f > 1:
            out = np.logical_or.reduceat(out, np.arange(0, out.shape[axis], f), axis=axis)
    return out


def _repeat(array: NDArray[np.bool_], factor: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Blow coarse voxels up to the blocks that they stand for."""
    for axis, f in enumerate(factor):
        array = np.repeat(array, f, axis=axis)
    return array[tuple(slice(n) for n in shape)]


def _ball_opening(
    solid: NDArray[np.bool_], spacing: NDArray[np.float64], radius_mm: float
) -> NDArray[np.bool_]:
    """Opening with a ball in mm, by two distance transforms; beyond the array the body goes on."""
    from scipy import ndimage

    width = [int(np.ceil(radius_mm / s)) + 1 for s in spacing]
    padded = np.pad(solid, [(w, w) for w in width], mode="edge")
    eroded = ndimage.distance_transform_edt(padded, sampling=spacing) > radius_mm
    opened = ndimage.distance_transform_edt(~eroded, sampling=spacing) <= radius_mm
    return opened[tuple(slice(w, w + n) for w, n in zip(width, solid.shape, strict=True))] & solid


def _fill(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what is enclosed in any plane across one of the three axes: lungs are open only along the body."""
    from scipy import ndimage

    filled = solid.copy()
    for axis in range(3):
        for plane, out in zip(np.moveaxis(solid, axis, 0), np.moveaxis(filled, axis, 0), strict=True):
            out |= ndimage.binary_fill_holes(plane)
    return filled
