"""One DICOM CT series to a volume in HU; slices are ordered by position, never by name or number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError, ResourceError
from paxray.io.dicom_series import Frame, Inventory, Series, find_ct_series
from paxray.io.hu import to_hu
from paxray.io.stored import located_grid, unreadable
from paxray.io.volume import Float64, Grid, Volume

_EVEN_TOLERANCE = 0.01  # of the slice spacing
_SAME_POSITION_MM = 0.01
_NAMED = 5  # at most so many positions stand in a message


def read_dicom_ct(folder: Path, *, where: str = "") -> Volume:
    """Read the one CT series of a folder.

    Slices are ordered along the slice normal. The step from slice to slice is the vector between their
    positions, so a gantry tilt gives a sheared affine. Values are each slice's own
    ``slope * stored + intercept``, padding included.

    Raises
    ------
    CaseError
        ``no_ct_series``, ``several_series`` (also: one series of several sizes or orientations),
        ``uneven_slices``, ``duplicate_slices`` (one position, different pixels), ``not_hu``,
        ``no_orientation``, ``unreadable``, ``bad_values``.
    ResourceError
        ``missing_decoder`` where no installed package decodes the compression.
    """
    where = where or folder.name
    series = _only(find_ct_series(folder, where=where), where)
    return read_series(series, where=where)


def read_series(series: Series, *, where: str) -> Volume:
    """Read the slices of one series; errors as `read_dicom_ct`."""
    for frame in series.frames:
        _rescale(frame, where)  # refused before any pixel is decoded
    stack = _stack(series.frames)
    grid = stack_grid(series, where=where)
    array = to_hu(_planes(stack, where), grid.shape, where=where)
    return Volume(array, grid.affine, grid.origin)


def stack_grid(series: Series, *, where: str) -> Grid:
    """Return the lattice of a series from its headers alone.

    Raises
    ------
    CaseError
        ``uneven_slices`` where a slice lies more than 1 % of the spacing off an even stack, ``bad_shape`` for
        fewer than two slices.
    """
    stack = _stack(series.frames)
    first = stack[0][0]
    if len(stack) < 2:
        raise CaseError(
            "a single slice is no volume",
            where=where,
            expected="two slices or more at different positions",
            found=series.describe(),
            do="export the whole series",
            code="bad_shape",
        )
    positions = np.array([group[0].position_mm for group in stack])
    step = (positions[-1] - positions[0]) / (len(stack) - 1)
    _require_even(positions, step, first.normal, where)
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.spacing_mm[1]
    affine[:3, 1] = first.column_direction * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return replace(located_grid((len(stack), first.rows, first.columns), affine, where), origin=series.origin)


def _only(inventory: Inventory, where: str) -> Series:
    if not inventory.series:
        left_out = ", ".join(f"{count} x {reason}" for reason, count in sorted(inventory.left_out.items()))
        raise CaseError(
            "the folder holds no DICOM CT series",
            where=where,
            expected="the slices of one CT series directly in the folder",
            found=left_out or "an empty folder",
            do="name the folder in which the slices lie",
            code="no_ct_series",
        )
    if len(inventory.series) > 1:
        raise CaseError(
            "the folder holds more than one CT series, or one of several sizes or orientations",
            where=where,
            expected="one series",
            found="; ".join(series.describe() for series in inventory.series),
            do="give each series a folder of its own",
            code="several_series",
        )
    return inventory.series[0]


def _rescale(frame: Frame, where: str) -> tuple[float, float]:
    """Return slope and intercept to HU; RescaleType may be absent or unspecified (US) in older files."""
    if frame.slope is None or frame.intercept is None:
        found = "a slice without RescaleSlope and RescaleIntercept"
    elif frame.unit not in ("", "HU", "US"):
        found = f"RescaleType {frame.unit}"
    else:
        return frame.slope, frame.intercept
    raise CaseError(
        "the series is not in Hounsfield units",
        where=f"{where}/{frame.path.name}",
        expected="RescaleSlope and RescaleIntercept to HU",
        found=found,
        do="export the CT image series itself",
        code="not_hu",
    )


def _stack(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the frames in the order of their positions along the normal, those at one position together."""
    normal = frames[0].normal
    ordered = sorted(frames, key=lambda frame: (float(frame.position_mm @ normal), frame.path.name))
    stack = [[ordered[0]]]
    for frame in ordered[1:]:
        if np.linalg.norm(frame.position_mm - stack[-1][0].position_mm) <= _SAME_POSITION_MM:
            stack[-1].append(frame)
        else:
            stack.append([frame])
    return stack


def _require_even(positions: Float64, step: Float64, normal: Float64, where: str) -> None:
    along = positions @ normal
    spacing_mm = abs(float(step @ normal))
    even = positions[0] + np.arange(len(positions))[:, None] * step
    off = np.linalg.norm(positions - even, axis=1)
    if float(off.max()) <= _EVEN_TOLERANCE * spacing_mm:
        return
    gaps = np.diff(along)
    usual_mm = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual_mm) > _EVEN_TOLERANCE * usual_mm)
    if odd.size:
        named = [f"{gaps[n]:.4g} mm from {along[n]:.2f} to {along[n + 1]:.2f}" for n in odd[:_NAMED]]
        more = f" and {odd.size - _NAMED} more" if odd.size > _NAMED else ""
        found = ", ".join(named) + more
    else:
        worst = int(off.argmax())
        found = f"the slice at {along[worst]:.2f} is {off[worst]:.4g} mm off an even stack"
    raise CaseError(
        "slices are missing or unevenly spaced",
        where=where,
        expected=f"one spacing (usual {usual_mm:.4g} mm) within 1 %; positions are mm along the slice normal",
        found=found,
        do="export the missing slices, or split or resample the series",
        code="uneven_slices",
    )


def _planes(stack: Sequence[Sequence[Frame]], where: str) -> Iterator[tuple[NDArray[Any], float, float]]:
    pixels = _Pixels(where)
    for group in stack:
        first = group[0]
        rescale = _rescale(first, where)
        plane = pixels.of(first)
        for other in group[1:]:
            again = pixels.of(other)
            if rescale != _rescale(other, where) or not np.array_equal(plane, again):
                raise CaseError(
                    "two slices lie at one position and differ",
                    where=where,
                    expected="one slice per position",
                    found=f"{first.path.name} and {other.path.name}",
                    do="split the phases or reconstructions into one folder each",
                    code="duplicate_slices",
                )
        yield plane, *rescale


class _Pixels:
    """Stored pixel values by frame; a multi-frame file is decoded once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._decoded: tuple[Path, NDArray[Any]] | None = None

    def of(self, frame: Frame) -> NDArray[Any]:
        if self._decoded is None or self._decoded[0] != frame.path:
            self._decoded = (frame.path, _decode(frame.path, f"{self._where}/{frame.path.name}"))
        array = self._decoded[1]
        if frame.index is not None and array.ndim == 3:
            array = array[frame.index] if frame.index < len(array) else array[:0]
        if array.shape != (frame.rows, frame.columns):
            raise unreadable(
                f"{self._where}/{frame.path.name}",
                f"pixels of shape {array.shape}",
                f"{frame.rows} x {frame.columns} pixels",
            )
        return array


def _decode(path: Path, where: str) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels import get_decoder

    try:
        with pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path)
            syntax = dataset.file_meta.TransferSyntaxUID
            if str(dataset.PhotometricInterpretation) != "MONOCHROME2":
                raise unreadable(where, str(dataset.PhotometricInterpretation), "MONOCHROME2 pixels")
            decoder = get_decoder(syntax)
            if decoder.is_available:
                return decoder.as_array(dataset)[0]
    except CaseError:
        raise
    except Exception as error:  # decoders raise whatever their C libraries make them raise
        raise unreadable(where, f"pixels that cannot be decoded ({type(error).__name__})") from error
    raise ResourceError(
        "no installed package decodes this series",
        where=where,
        expected="a decoder for " + syntax.name,
        do="pip install python-gdcm",
        code="missing_decoder",
    )
