"""DICOM Segmentation objects: binary, fractional and label map, with sparse and overlapping frames.

DICOM PS3.3, Segmentation (A.51), Segmentation Image Module (C.8.20.2). A frame that is not there is empty: the standard
lets a writer leave it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError, ResourceError
from paxray.io.dicom_header import References, first, reading, require_origin, term_of
from paxray.io.dicom_series import LABEL_MAP_SEGMENTATION
from paxray.io.lattice import LATTICE_TOLERANCE, Box, LatticeMatch, match_lattice
from paxray.io.planes import ClassMask, Piece, class_mask, is_blank, tight_piece
from paxray.io.segments import Segment, SegmentFile
from paxray.io.stored import located_grid, unreadable
from paxray.io.volume import Float64, Grid

_SAME_DIRECTION = 1e-4  # of a direction cosine
_SIDE_OF_KIND = "SegmentedPropertyTypeModifierCodeSequence"
_SIDE_OF_REGION = "AnatomicRegionModifierSequence"


@dataclass(frozen=True, eq=False)
class Planes:
    """Where a file's frames lie.

    Parameters
    ----------
    shape
        Rows and columns.
    along_row, along_column
        Steps in LPS mm from a pixel to the next in its row, and in its column.
    positions_mm
        ``(frames, 3)`` LPS centres of the first pixels.
    """

    shape: tuple[int, int]
    along_row: Float64
    along_column: Float64
    positions_mm: Float64

    def on(self, ct: Grid, where: str) -> tuple[LatticeMatch, NDArray[np.int64], Box]:
        """Find the frames' place on a CT's lattice; how far they lie apart is the CT's business, as some are missing.

        Returns
        -------
        match, planes, extent
            How the stack of frames lies in the CT, each frame's number in that stack, and the part of the CT that the
            file speaks of: all of it across the frames.

        Raises
        ------
        CaseError
            ``mask_mismatch``.
        """
        steps = np.abs(ct.inverse[:3, :3] @ np.stack([self.along_row, self.along_column], axis=1))
        taken = {int(np.argmax(steps[:, 0]))}
        taken.add(int(np.argmax([-1 if axis in taken else steps[axis, 1] for axis in range(3)])))
        (across,) = {0, 1, 2} - taken
        step = ct.affine[:3, across]
        index = ct.to_index(self.positions_mm)[:, across]
        planes = np.rint(index - index.min()).astype(np.int64)
        origins = self.positions_mm - planes[:, None] * step
        origin = (origins.min(axis=0) + origins.max(axis=0)) / 2
        off_mm = float(np.linalg.norm(origins - origin, axis=1).max())
        tolerance_mm = LATTICE_TOLERANCE * min(ct.spacing_mm)
        if off_mm > tolerance_mm:
            raise CaseError(
                "the frames do not lie on the CT's slices",
                where=where,
                expected=f"every frame within {tolerance_mm:.4f} mm of a slice, {ct.spacing_mm[across]:.5g} mm apart",
                found=f"a frame {off_mm:.4g} mm off",
                do="segment this very CT, or resample the segmentation onto its grid (nearest neighbour)",
                code="mask_mismatch",
            )
        affine = np.eye(4)
        affine[:3] = np.stack([self.along_row, self.along_column, step, origin], axis=1)
        grid = located_grid((int(planes.max()) + 1, *self.shape), affine, where)
        match = match_lattice(grid, ct, where=where)
        extent = list(match.extent)
        extent[2 - across] = slice(0, ct.shape[2 - across])
        return match, planes, (extent[0], extent[1], extent[2])


class DicomSegments(SegmentFile):
    """The segments of a DICOM SEG file.

    Raises
    ------
    CaseError
        ``unreadable``; ``no_orientation`` for frames without a place; ``bad_shape`` for a segmentation of a slide.
    """

    def __init__(self, path: Path, where: str) -> None:
        import pydicom

        self.path, self.where = path, where
        with reading(where):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            kind = str(header.get("SegmentationType") or "").upper()
            label_map = str(header.SOPClassUID) == LABEL_MAP_SEGMENTATION or kind == "LABELMAP"
            self.kind = "LABELMAP" if label_map else kind
            if self.kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
                raise unreadable(where, f"SegmentationType '{kind}'", "BINARY, FRACTIONAL or LABELMAP")
            self.references = _references(header)
            background = int(header.get("PixelPaddingValue") or 0) if label_map else 0
            items = [item for item in header.SegmentSequence if int(item.SegmentNumber) != background]
            self._numbers = [int(item.SegmentNumber) for item in items]
            self._background = background
            self.segments = tuple(_segment(item, where) for item in items)
            self._top = float(header.get("MaximumFractionalValue") or 255)
            self.planes, self._segment_of = _frames(header, label_map, where)
        if len(set(self._numbers)) < len(self._numbers):
            raise unreadable(where, "two segments of one number")
        undescribed = sorted({n for n in self._segment_of if n is not None} - set(self._numbers))
        if undescribed:
            raise self._undescribed(undescribed)

    def masks(
        self, grid: Grid, wanted: Collection[int], fraction: float | None = None
    ) -> Iterator[tuple[int, ClassMask]]:
        """As `SegmentFile.masks`; also ``wrong_series``, ``wrong_frame``, ``fractional``."""
        require_origin(grid, self.references, self.where, by_series=True)
        match, planes, extent = self.planes.on(grid, self.where)
        index = {number: at for at, number in enumerate(self._numbers)}
        frames = [
            frame
            for frame, number in enumerate(self._segment_of)
            if number is None or index[number] in wanted
        ]
        pieces: dict[int, list[Piece]] = defaultdict(list)
        for frame, pixels in zip(frames, self._pixels(frames), strict=True):
            number, plane = self._segment_of[frame], int(planes[frame])
            if number is not None:
                inside = self._inside(pixels, fraction)
                if (piece := tight_piece(plane, inside)) is not None:
                    pieces[index[number]].append(piece)
                continue
            for value, piece in self._labelled(plane, pixels):
                if index[value] in wanted:
                    pieces[index[value]].append(piece)
        for at in sorted(wanted):
            segment = self.segments[at]
            yield at, class_mask(segment.name, pieces.pop(at, []), match, extent, segment.where)

    def _inside(self, pixels: NDArray[Any], fraction: float | None) -> NDArray[np.bool_]:
        if self.kind == "FRACTIONAL":
            if fraction is not None:
                return pixels >= fraction * self._top
            if not ((pixels == 0) | (pixels == self._top)).all():
                raise CaseError(
                    "the segmentation holds shares of voxels, not whole ones",
                    where=self.where,
                    expected="0 and the maximum alone",
                    found=f"stored values up to {int(pixels.max())} of {self._top:g}, and between",
                    do="say from which share on a voxel counts: `fraction: 0.5` in the vocabulary's file",
                    code="fractional",
                )
        return pixels != 0

    def _labelled(self, plane: int, pixels: NDArray[Any]) -> Iterator[tuple[int, Piece]]:
        """Take a frame of a label map apart."""
        from scipy.ndimage import find_objects

        if self._background:
            pixels = np.where(pixels == self._background, 0, pixels)
        if is_blank(pixels):
            return
        for value, box in enumerate(find_objects(pixels), start=1):
            if box is not None:
                if value not in self._numbers:
                    raise self._undescribed([value])
                yield value, Piece(plane, box[0], box[1], pixels[box] == value)

    def _pixels(self, frames: list[int]) -> Iterator[NDArray[Any]]:
        """Decode the frames wanted, one by one."""
        import pydicom
        from pydicom.pixels import get_decoder

        if not frames:
            return
        with reading(self.where):
            dataset = pydicom.dcmread(self.path)
            syntax = dataset.file_meta.TransferSyntaxUID
            if int(dataset.BitsAllocated) == 1 and syntax.is_little_endian and not syntax.is_encapsulated:
                yield from self._bits(dataset.PixelData, frames)
                return
            try:
                decoder = get_decoder(syntax)
                available = decoder.is_available
            except NotImplementedError:
                available = False
            if not available:
                raise ResourceError(
                    "no installed package decodes this segmentation",
                    where=self.where,
                    expected="a decoder for " + syntax.name,
                    do="pip install python-gdcm, or store it uncompressed",
                    code="missing_decoder",
                )
            for pixels, _ in decoder.iter_array(dataset, indices=frames, raw=True):
                if pixels.shape != self.planes.shape:
                    rows, columns = self.planes.shape
                    raise unreadable(
                        self.where, f"pixels of shape {pixels.shape}", f"{rows} x {columns} pixels"
                    )
                yield pixels

    def _bits(self, data: bytes, frames: list[int]) -> Iterator[NDArray[Any]]:
        """Unpack frames of single bits, which follow each other without a gap: a frame may begin within a byte.

        pydicom 3.0.2 cuts the last ones short.
        """
        rows, columns = self.planes.shape
        size = rows * columns
        buffer = np.frombuffer(data, np.uint8)
        for frame in frames:
            first_bit, end_bit = frame * size, (frame + 1) * size
            part = buffer[first_bit // 8 : -(-end_bit // 8)]
            if len(buffer) * 8 < end_bit:
                raise unreadable(
                    self.where, f"{len(buffer)} bytes of pixels", f"{-(-end_bit // 8)} bytes or more"
                )
            bits = np.unpackbits(part, bitorder="little")
            yield bits[first_bit % 8 :][:size].reshape(rows, columns)

    def _undescribed(self, numbers: list[int]) -> CaseError:
        return CaseError(
            "a segment has pixels but no description",
            where=self.where,
            expected="an item in SegmentSequence for every segment",
            found=f"segment {', '.join(map(str, numbers[:8]))}",
            do="write the segmentation anew",
            code="bad_labels",
        )


def _references(header: Any) -> References:
    series = {
        str(item.get("SeriesInstanceUID") or "") for item in header.get("ReferencedSeriesSequence") or ()
    }
    frame = str(header.get("FrameOfReferenceUID") or "")
    return References(frozenset(series - {""}), frozenset({frame} - {""}))


def _segment(item: Any, where: str) -> Segment:
    number = int(item.SegmentNumber)
    name = str(item.get("SegmentLabel") or "").strip()
    return Segment(
        name,
        f"{where}: segment {number}" + (f" '{name}'" if name else ""),
        term_of(first(item, "SegmentedPropertyTypeCodeSequence"), _SIDE_OF_KIND),
        term_of(first(item, "AnatomicRegionSequence"), _SIDE_OF_REGION),
    )


def _frames(header: Any, label_map: bool, where: str) -> tuple[Planes, list[int | None]]:
    """Return the frames' places, and each one's segment (None for all of them, in a label map)."""
    shared = first(header, "SharedFunctionalGroupsSequence")
    groups = header.PerFrameFunctionalGroupsSequence
    count = int(header.get("NumberOfFrames") or 1)
    if len(groups) != count:
        raise unreadable(where, f"{len(groups)} functional groups for {count} frames")

    def macro(own: Any, keyword: str) -> Any:
        return first(own, keyword) or first(shared, keyword)

    positions, turns, spacings = [], [], []
    segment_of: list[int | None] = []
    for own in groups:
        place = macro(own, "PlanePositionSequence")
        turn = macro(own, "PlaneOrientationSequence")
        measures = macro(own, "PixelMeasuresSequence")
        if place is None or turn is None or measures is None:
            raise CaseError(
                "a frame does not say where it lies",
                where=where,
                expected="PlanePosition, PlaneOrientation and PixelMeasures for every frame",
                do="write the segmentation anew; an orientation is never guessed",
                code="no_orientation",
            )
        positions.append([float(value) for value in place.ImagePositionPatient])
        turns.append([float(value) for value in turn.ImageOrientationPatient])
        spacings.append([float(value) for value in measures.PixelSpacing])
        if label_map:
            segment_of.append(None)
        else:
            segment_of.append(int(macro(own, "SegmentIdentificationSequence").ReferencedSegmentNumber))
    turn_all, spacing_all = np.array(turns), np.array(spacings)
    if np.ptp(turn_all, axis=0).max() > _SAME_DIRECTION or not np.allclose(
        spacing_all, spacing_all[0], rtol=1e-5
    ):
        raise CaseError(
            "the frames have several orientations or pixel sizes",
            where=where,
            expected="one stack of parallel frames",
            do="split the segmentation",
            code="bad_shape",
        )
    planes = Planes(
        (int(header.Rows), int(header.Columns)),
        turn_all[0, :3] * spacing_all[0, 1],
        turn_all[0, 3:] * spacing_all[0, 0],
        np.array(positions),
    )
    return planes, segment_of
