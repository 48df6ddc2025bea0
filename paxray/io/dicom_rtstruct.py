"""DICOM RT Structure Sets: closed contours on the CT's slices, filled pixel by pixel.

DICOM PS3.3, ROI Contour Module (C.8.8.6). A pixel belongs to a region where its centre lies inside an odd number of the
slice's contours: a contour within another is a hole, whether it is drawn apart or by a keyhole, whose two sides cancel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.contours import fill
from paxray.io.dicom_header import References, reading, require_origin
from paxray.io.lattice import EMPTY_BOX, Box
from paxray.io.planes import ClassMask, Piece, stacked
from paxray.io.segments import Segment, SegmentFile
from paxray.io.stored import unreadable
from paxray.io.volume import Float64, Grid

#: A contour lies on a slice that it is nearer to than this share of the slices' distance: what is written with one
#: decimal is not exact, and no contour that was drawn on another series passes by chance on all its slices.
OFF_SLICE = 0.1
#: As many gaps of one width in a row are no chance: a region in pieces does not repeat itself.
SAME_GAPS = 3
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_CONTOUR_DATA = 0x30060050


class Contours(SegmentFile):
    """The regions of an RTSTRUCT file.

    Raises
    ------
    CaseError
        ``unreadable``.
    """

    word = "region"

    def __init__(self, path: Path, where: str, *, header_only: bool = False) -> None:
        import pydicom

        self.where = where
        tags = ["StructureSetROISequence", "ReferencedFrameOfReferenceSequence"]
        with reading(where):
            dataset = pydicom.dcmread(
                path, specific_tags=tags if header_only else [*tags, "ROIContourSequence"]
            )
            for keyword in tags[:1] if header_only else ("StructureSetROISequence", "ROIContourSequence"):
                if not dataset.get(keyword):
                    raise unreadable(where, f"no {keyword}: a file without regions, or cut short")
            regions = list(dataset.StructureSetROISequence)
            self.segments = tuple(_segment(item, where) for item in regions)
            numbers = [int(item.ROINumber) for item in regions]
            if len(set(numbers)) < len(numbers):
                raise unreadable(where, "two regions of one number")
            self.references = _references(dataset, regions)
            self._frame_of = [str(item.get("ReferencedFrameOfReferenceUID") or "") for item in regions]
            drawn = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or ()}
            self._items = [drawn.get(number) for number in numbers]

    def masks(
        self, grid: Grid, wanted: Collection[int], fraction: float | None = None
    ) -> Iterator[tuple[int, ClassMask]]:
        """As `SegmentFile.masks`; also ``wrong_frame`` and ``bad_contours``."""
        for at in sorted(wanted):
            segment = self.segments[at]
            frame = self._frame_of[at]
            references = References(frame_uids=frozenset({frame})) if frame else self.references
            require_origin(grid, references, segment.where, by_series=False)
            with reading(segment.where):
                contours = _closed_contours(self._items[at], segment.where)
            yield at, _mask(segment, contours, grid)


def _segment(item: Any, where: str) -> Segment:
    name = str(item.get("ROIName") or "").strip()
    return Segment(name, f"{where}: region {int(item.ROINumber)}" + (f" '{name}'" if name else ""))


def _references(dataset: Any, regions: list[Any]) -> References:
    frames = {str(item.get("ReferencedFrameOfReferenceUID") or "") for item in regions}
    series: set[str] = set()
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        frames.add(str(frame.get("FrameOfReferenceUID") or ""))
        for study in frame.get("RTReferencedStudySequence") or ():
            for one in study.get("RTReferencedSeriesSequence") or ():
                series.add(str(one.get("SeriesInstanceUID") or ""))
    return References(frozenset(series - {""}), frozenset(frames - {""}))


def _closed_contours(item: Any, where: str) -> list[Float64]:
    """Return a region's contours, ``(points, 3)`` LPS mm each; none for a region that nobody drew."""
    out = []
    for contour in (item.get("ContourSequence") if item is not None else None) or ():
        kind = str(contour.get("ContourGeometricType") or "").upper()
        points = _points(contour)
        if kind not in _CLOSED:
            raise _bad(where, "closed planar contours", f"a contour of type {kind or 'unknown'}")
        if points.size % 3 or points.size < 9 or not np.isfinite(points).all():
            raise _bad(where, "three points or more, three finite numbers each", f"{points.size} numbers")
        out.append(points.reshape(-1, 3))
    return out


def _points(contour: Any) -> Float64:
    raw = contour.get_item(_CONTOUR_DATA)
    value = raw.value if raw is not None else None
    if isinstance(value, bytes):  # as it stands in the file: pydicom's own numbers take ten times as long
        value = value.strip(b" \0").split(b"\\") if value.strip(b" \0") else []
    return np.array([] if value is None else value, dtype=np.float64)


def _mask(segment: Segment, contours: list[Float64], grid: Grid) -> ClassMask:
    whole: Box = tuple(slice(0, size) for size in grid.shape)  # type: ignore[assignment]
    empty = ClassMask(segment.name, EMPTY_BOX, np.zeros((0, 0, 0), bool), whole, segment.where)
    if not contours:
        return empty
    index = [grid.to_index(points) for points in contours]
    # The CT's axis that the contours stand across; k, but for a CT whose array has another order.
    across = int(np.max([np.ptp(points, axis=0) for points in index], axis=0).argmin())
    by_slice = _by_slice(index, across, grid, segment.where)
    _require_no_gaps(sorted(by_slice), segment.where)
    column, row = (axis for axis in range(3) if axis != across)  # of i, j, k
    shape = (grid.shape[2 - row], grid.shape[2 - column])
    pieces = []
    for n, polygons in by_slice.items():
        if 0 <= n < grid.shape[2 - across]:
            found = fill([points[:, [column, row]] for points in polygons], shape)
            if found is not None:
                pieces.append(Piece(n, *found))
    if not any(0 <= n < grid.shape[2 - across] for n in by_slice):
        raise CaseError(
            "the contours lie outside the CT",
            where=segment.where,
            expected=f"slices 0 to {grid.shape[2 - across] - 1}",
            found=f"slices {min(by_slice)} to {max(by_slice)}",
            do="check that contours and CT belong together",
            code="mask_mismatch",
        )
    if not pieces:
        return empty
    box, array = stacked(pieces)
    to = 2 - across
    parts = [box[1], box[2]]
    parts.insert(to, box[0])
    array = np.ascontiguousarray(np.moveaxis(array, 0, to))
    return ClassMask(segment.name, (parts[0], parts[1], parts[2]), array, whole, segment.where)


def _by_slice(
    index: list[NDArray[np.float64]], across: int, grid: Grid, where: str
) -> dict[int, list[NDArray[np.float64]]]:
    """Sort contours by the slice that each lies on."""
    out: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    worst = 0.0
    for points in index:
        n = int(np.rint(points[:, across].mean()))
        worst = max(worst, float(np.abs(points[:, across] - n).max()))
        out[n].append(points)
    if worst > OFF_SLICE:
        apart_mm = grid.spacing_mm[across]
        raise CaseError(
            "the contours do not lie on the CT's slices",
            where=where,
            expected=f"every point within {OFF_SLICE * apart_mm:.4g} mm of a slice, {OFF_SLICE:.0%} of their distance",
            found=f"a point {worst * apart_mm:.4g} mm off",
            do="draw the contours on this very CT, or resample them onto its slices with the program that drew them",
            code="mask_mismatch",
        )
    return out


def _require_no_gaps(slices: list[int], where: str) -> None:
    """Refuse a region that was drawn on some of its slices only: what lies between would be missing.

    Pieces apart leave a gap between them, and neighbours within. Drawing thinned out has more gaps than neighbours, or
    `SAME_GAPS` of one width in a row.
    """
    steps = np.diff(slices)
    gaps = steps[steps > 1]
    rows = (steps[n : n + SAME_GAPS] for n in range(len(steps) - SAME_GAPS + 1))
    regular = any(row[0] > 1 and (row == row[0]).all() for row in rows)
    if regular or len(gaps) > len(steps) / 2:
        raise _bad(
            where,
            "a contour on every slice that the region crosses",
            f"{len(gaps)} of {len(steps)} steps from contour to contour are {int(gaps.min())} slices or more",
            "interpolate the contours with the program that drew them",
        )


def _bad(where: str, expected: str, found: str, do: str = "") -> CaseError:
    return CaseError(
        "the region's contours are no solid",
        where=where,
        expected=expected,
        found=found,
        do=do or "leave the region out in the vocabulary (NAME: null), or draw it with closed contours",
        code="bad_contours",
    )
