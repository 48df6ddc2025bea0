"""3D Slicer's .seg.nrrd: layers of label values, and in the header what each value in each layer is.

https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.itk import read_itk_layers, read_itk_layers_header, text_header
from paxray.io.lattice import EMPTY_BOX, Box, LatticeMatch, match_lattice
from paxray.io.planes import ClassMask, placed_mask
from paxray.io.segments import Code, Segment, SegmentFile, Term
from paxray.io.stored import unreadable
from paxray.io.volume import Grid

_KEY = re.compile(r"segment(\d+)_(id|name|layer|labelvalue|tags)\Z")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class SlicerSegments(SegmentFile):
    """The segments of a .seg.nrrd file.

    Raises
    ------
    CaseError
        ``unreadable``, ``fractional`` for shares of voxels, and the codes of `read_itk_layers_header`.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where
        fields = text_header(path, where)[0]
        drawn = fields.get("segmentation_sourcerepresentation") or fields.get(
            "segmentation_masterrepresentation", "Binary labelmap"
        )
        if drawn != "Binary labelmap":
            raise CaseError(
                "the file does not hold whole voxels",
                where=where,
                expected="the representation 'Binary labelmap'",
                found=f"'{drawn}'",
                do="save the segmentation as a binary label map",
                code="fractional",
            )
        found: dict[int, dict[str, str]] = {}
        for key, value in fields.items():
            if match := _KEY.match(key):
                found.setdefault(int(match[1]), {})[match[2]] = value
        self.header, self._layers = read_itk_layers_header(path, where=where)
        segments, self._at = [], []
        for n, (number, own) in enumerate(sorted(found.items())):
            name = own.get("name") or own.get("id", "")
            kind, region = _terms(own.get("tags", ""))
            segments.append(Segment(name, f"{where}: segment {number} '{name}'", kind, region))
            # Files from before layers had a volume of ones per segment.
            layer, value = own.get("layer", str(n)), own.get("labelvalue", "1")
            if not layer.isdigit() or not value.isdigit() or int(value) < 1:
                raise unreadable(where, f"segment {number} with layer '{layer}' and value '{value}'")
            self._at.append((int(layer), int(value)))
        if len(set(self._at)) < len(self._at):
            raise unreadable(where, "two segments with one value in one layer")
        self.segments = tuple(segments)
        # A single voxel of 0 stands for no voxels: NRRD cannot hold none. Any other value is a segment's.
        self._empty = self.header.grid.shape == (1, 1, 1) and not read_itk_layers(path, where=where).any()
        if not self._empty and self._at and max(layer for layer, _ in self._at) >= self._layers:
            raise unreadable(where, f"{self._layers} layers", f"{max(layer for layer, _ in self._at) + 1}")
        self._reference = _reference_grid(fields.get("segmentation_conversionparameters", ""))

    def masks(
        self, grid: Grid, wanted: Collection[int], fraction: float | None = None
    ) -> Iterator[tuple[int, ClassMask]]:
        """As `SegmentFile.masks`."""
        whole: Box = tuple(slice(0, size) for size in grid.shape)  # type: ignore[assignment]
        if self._empty:
            for at in sorted(wanted):
                empty = np.zeros((0, 0, 0), bool)
                yield at, ClassMask(self.segments[at].name, EMPTY_BOX, empty, whole, self.segments[at].where)
            return
        match = match_lattice(self.header.grid, grid, where=self.where)
        extent = self._extent(match, grid)
        array = read_itk_layers(self.path, where=self.where)
        for layer in range(self._layers):
            here = [at for at in sorted(wanted) if self._at[at][0] == layer]
            values = np.ascontiguousarray(array[..., layer])
            boxes = self._boxes(values, layer)
            for at in here:
                value = self._at[at][1]
                box = boxes.get(value, EMPTY_BOX)
                inside = values[box] == value
                segment = self.segments[at]
                yield at, placed_mask(segment.name, box, inside, match, extent, segment.where)

    def _boxes(self, values: NDArray[Any], layer: int) -> dict[int, Box]:
        """Return the box round each value of a layer, all of which must be some segment's."""
        from scipy.ndimage import find_objects

        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
            raise CaseError(
                "the file holds values that cannot be labels",
                where=self.where,
                expected="whole numbers from 0 to 65535",
                found=f"{values.dtype}, {values.min()} to {values.max()}",
                code="bad_labels",
            )
        boxes = {
            n: box for n, box in enumerate(find_objects(values.astype(np.int32)), start=1) if box is not None
        }
        known = {value for of, value in self._at if of == layer}
        if unknown := sorted(set(boxes) - known):
            raise CaseError(
                "a value in the file is no segment's",
                where=self.where,
                expected=f"values of layer {layer}: {', '.join(map(str, sorted(known)))}",
                found=", ".join(map(str, unknown[:8])),
                do="save the segmentation again with all its segments",
                code="bad_labels",
            )
        return boxes

    def _extent(self, match: LatticeMatch, grid: Grid) -> Box:
        """What the segmentation speaks of: the image it was drawn on, of which Slicer may save the part in use."""
        if self._reference is None:
            return match.extent
        try:
            drawn_on = match_lattice(self._reference, grid, where=self.where).extent
        except CaseError:
            return (
                match.extent
            )  # drawn on another grid than it was saved on: nothing is known beyond the file
        both = [
            slice(min(a.start, b.start), max(a.stop, b.stop))
            for a, b in zip(match.extent, drawn_on, strict=True)
        ]
        return both[0], both[1], both[2]


def _terms(tags: str) -> tuple[Term | None, Term | None]:
    """Read type and anatomic region from a TerminologyEntry: seven parts by ``~``, codes by ``^``."""
    for tag in tags.split("|"):
        key, _, value = tag.partition(":")
        if key.strip() != "TerminologyEntry":
            continue
        parts = [part.split("^") for part in value.split("~")]
        codes = [Code(part[0], part[1]) if len(part) > 1 and part[1] else None for part in parts]
        codes += [None] * (7 - len(codes))
        _, _, kind, kind_side, _, region, region_side = codes[:7]
        return (Term(kind, kind_side) if kind else None, Term(region, region_side) if region else None)
    return None, None


def _reference_grid(parameters: str) -> Grid | None:
    """Read the image that a segmentation was drawn on: a matrix from voxels to RAS mm and first and last voxels."""
    for parameter in parameters.split("&"):
        name, _, rest = parameter.partition("|")
        numbers = rest.partition("|")[0].strip(";").split(";")
        if name.strip() != "Reference image geometry" or len(numbers) != 22:
            continue
        try:
            values = np.array(numbers, dtype=np.float64)
            first, last = values[16::2], values[17::2]
            affine = _RAS_TO_LPS @ values[:16].reshape(4, 4)
            affine[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
            shape = (last - first + 1)[::-1].astype(int)
            return Grid((shape[0], shape[1], shape[2]), affine)
        except (ValueError, CaseError):
            return None  # it is a hint of Slicer's to itself, not part of the image
    return None
