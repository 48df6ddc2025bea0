"""Read 3D masks onto their CT's grid: one multilabel file, or a folder with one file per class."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray import parallel
from paxray.errors import CaseError
from paxray.io.image import iter_planes, read_header, read_stored
from paxray.io.lattice import Box, match_lattice
from paxray.io.planes import ClassMask, Piece, class_mask, is_blank, tight_piece
from paxray.io.segments import Segment, SegmentFile
from paxray.io.stored import Header, Stored, image_stem, image_suffix
from paxray.io.volume import Grid

_MAX_THREADS = 4


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One integer per voxel of the CT.

    Parameters
    ----------
    array
        The CT's shape, smallest unsigned type; 0 outside `extent`, where nothing is known.
    extent
        The part of the CT's array (k, j, i) that the file covers.
    where
        How errors name the file.
    """

    array: NDArray[Any]
    extent: Box
    where: str


def read_label_map(path: Path, grid: Grid, *, where: str = "") -> LabelMap:
    """Read a multilabel file onto a CT's grid, re-indexed and never interpolated.

    Raises
    ------
    CaseError
        ``mask_mismatch`` (see `match_lattice`), ``bad_labels`` for values that are negative or not whole
        numbers, and the codes of the file's format.
    """
    path = Path(path)
    where = where or path.name
    match = match_lattice(read_header(path, where=where).grid, grid, where=where)
    labels = _labels(read_stored(path, where=where), where)
    inside = match.apply(labels)
    if inside.shape == grid.shape:
        return LabelMap(np.ascontiguousarray(inside), match.extent, where)
    array = np.zeros(grid.shape, labels.dtype)
    array[match.extent] = inside
    return LabelMap(array, match.extent, where)


def read_class_mask(path: Path, grid: Grid, *, where: str = "") -> ClassMask:
    """Read one class's file: 0 outside, one other value inside. Named by the file's stem.

    Raises
    ------
    CaseError
        As `read_label_map`; a file with several labels is ``bad_labels``.
    """
    path = Path(path)
    where = where or path.name
    header = read_header(path, where=where)
    match = match_lattice(header.grid, grid, where=where)
    # Plane by plane, of which only what is not empty is kept: most of a class's file is.
    pieces: list[Piece] = []
    value = 0
    for k, stored in enumerate(iter_planes(path, where=where)):
        if is_blank(stored) and not header.intercept:
            continue
        found = tight_piece(k, _labels(Stored(header, stored), where))
        if found is None:
            continue
        part = found.content
        value = value or int(part.max())
        inside = part == value
        if not (inside | (part == 0)).all():
            raise CaseError(
                "the file of one class holds several labels",
                where=where,
                expected="0 and one other value",
                found=f"{value} and {int(part[~inside & (part != 0)][0])}",
                do="name it as a multilabel file with its vocabulary",
                code="bad_labels",
            )
        pieces.append(Piece(k, found.rows, found.columns, inside))
    return class_mask(image_stem(path), pieces, match, match.extent, where)


def mask_files(folder: Path, *, where: str = "") -> list[Path]:
    """Return the image files of a folder in order of their class names.

    Raises
    ------
    CaseError
        ``no_masks`` for a folder without image files, ``bad_labels`` where two files name one class.
    """
    folder = Path(folder)
    where = where or folder.name
    files = [file for file in folder.iterdir() if image_suffix(file) and not file.name.startswith(".")]
    files.sort(key=lambda file: (image_stem(file), file.name))
    if not files:
        raise CaseError(
            "the folder holds no masks",
            where=where,
            expected="one image file per class, named by the class",
            do="check the path; in a case table it is relative to the table, or leave the masks empty",
            code="no_masks",
        )
    for first, second in pairwise(files):
        if image_stem(first) == image_stem(second):
            raise CaseError(
                "two files name the same class",
                where=where,
                found=f"{first.name} and {second.name}",
                do="keep one of them",
                code="bad_labels",
            )
    return files


class ClassFiles(SegmentFile):
    """Image files of one class each, named by their stems.

    Parameters
    ----------
    files
        In the order in which masks are given out.
    where
        How messages name their folder; empty where `names` names the files.
    """

    word = "file"

    def __init__(self, files: Sequence[Path], where: str, names: Sequence[str] = ()) -> None:
        names = names or [f"{where}/{file.name}" for file in files]
        self._files = list(files)
        self.segments = tuple(
            Segment(image_stem(file), name) for file, name in zip(files, names, strict=True)
        )

    def masks(
        self,
        grid: Grid,
        wanted: Collection[int],
        fraction: float | None = None,
    ) -> Iterator[tuple[int, ClassMask]]:
        """As `SegmentFile.masks`, and errors as `read_class_mask`.

        Files are read by 4 threads, or as many as this process may use; of each a plane is held at a time, and of twice
        as many what is not empty.
        """
        threads = min(_MAX_THREADS, parallel.threads())
        waiting: deque[tuple[int, Future[ClassMask]]] = deque()
        pool = ThreadPoolExecutor(threads)
        try:
            for at in sorted(wanted):
                if len(waiting) == 2 * threads:
                    done, result = waiting.popleft()
                    yield done, result.result()
                where = self.segments[at].where
                waiting.append((at, pool.submit(read_class_mask, self._files[at], grid, where=where)))
            while waiting:
                done, result = waiting.popleft()
                yield done, result.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _labels(stored: Stored, where: str) -> NDArray[Any]:
    """Return the values in the smallest unsigned type; they must be whole and not negative."""
    array = _unscaled(stored.header, stored.array)
    low, high = array.min(), array.max()
    whole = array.dtype.kind in "iu" or all(bool((plane == np.rint(plane)).all()) for plane in array)
    if not (whole and low >= 0 and high < 2**32):
        raise CaseError(
            "the mask holds values that cannot be labels",
            where=where,
            expected="whole numbers from 0 to 4294967295",
            found=f"values from {low:g} to {high:g}" + ("" if whole else ", not all whole"),
            do="write labels, not probabilities or intensities; never resample labels with interpolation",
            code="bad_labels",
        )
    return array.astype(np.min_scalar_type(int(high)), copy=False)


def _unscaled(header: Header, array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) * header.slope + header.intercept if header.scaled else array
