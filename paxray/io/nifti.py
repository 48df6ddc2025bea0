"""NIfTI-1 and NIfTI-2 single files, plain or gzipped, in LPS mm.

The voxels go from the file into one array, through ISA-L where they are gzipped, which is two to four times as fast
as zlib.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.files import write_atomic
from paxray.io.nifti_header import NiftiHeader, rotation
from paxray.io.stored import Header, Stored, located_grid, require_file, unreadable
from paxray.io.volume import Float64, Grid, Volume

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units, low three bits: unknown, metre, mm, micron
_GZIP = b"\x1f\x8b"
_DEFLATE_LIMIT = 1032  # no deflate stream grows by more than this factor
_ORIENTATION_TOLERANCE = 0.01  # of the smallest spacing


def read_nifti_header(path: Path, *, where: str = "") -> Header:
    """Read the header of a NIfTI file; the voxels are not touched.

    Raises
    ------
    CaseError
        Codes ``missing_file``, ``unreadable``, ``bad_shape``, ``bad_type``, ``bad_units``, ``bad_affine``,
        ``no_orientation`` (neither sform nor qform set) and ``affine_conflict`` (both set, and different).
    """
    where = where or path.name
    with _opened(path, where) as stream:
        return _parse(_raw_header(stream, where), where)


def read_nifti(path: Path, *, where: str = "") -> Stored:
    """Read a NIfTI file whole.

    Raises
    ------
    CaseError
        As `read_nifti_header`; a truncated or corrupt file is ``unreadable``.
    """
    where = where or path.name
    with _opened(path, where) as stream:
        raw = _raw_header(stream, where)
        header = _parse(raw, where)
        nbytes = math.prod(header.grid.shape) * header.dtype.itemsize
        # Before memory is taken: a header that promises more than its file can hold is damaged.
        possible = path.stat().st_size * (_DEFLATE_LIMIT if _is_gzip(path) else 1)
        if nbytes > possible:
            raise unreadable(where, f"a file of {path.stat().st_size} bytes", f"{nbytes} bytes of voxels")
        unpacked = _unpack(path, raw.offset + nbytes)
        if unpacked is not None:
            voxels = np.frombuffer(unpacked, raw.dtype, math.prod(header.grid.shape), raw.offset)
            return Stored(header, voxels.reshape(header.grid.shape).astype(header.dtype))
        array = np.empty(header.grid.shape, raw.dtype)
        stream.seek(raw.offset)
        _fill(stream, array, where)
        while stream.read(1 << 20):
            pass  # to the end of the stream, where gzip's check sum stands
    return Stored(header, array.astype(header.dtype, copy=False))


def _unpack(path: Path, nbytes: int) -> bytes | None:
    """Decompress a gzip file in a single call; None where it is none, or does not end by saying that it holds `nbytes`.

    Reading it as a stream takes hundreds of calls, each of which waits for the interpreter's lock while other threads
    load modules: four times as long. What has several members or goes on behind the voxels is read so all the same.
    """
    from isal import igzip_lib

    with path.open("rb") as stream:
        if stream.read(2) != _GZIP:
            return None
        stream.seek(-4, 2)
        if int.from_bytes(stream.read(), "little") != nbytes % 2**32:
            return None
    packed = np.fromfile(path, np.uint8)
    unpacked = igzip_lib.decompress(packed, flag=igzip_lib.DECOMP_GZIP, bufsize=nbytes)
    return unpacked if len(unpacked) == nbytes else None


def write_nifti(path: Path, volume: Volume) -> None:
    """Write a volume as gzipped NIfTI-1 in millimetres, sform and qform both set and equal.

    A sheared lattice, which no qform can tell, has an sform alone.

    The array's order is kept (i fastest); the affine is taken from LPS to NIfTI's RAS. The same volume
    gives the same bytes: no time and no name goes into the gzip header.
    """
    import nibabel as nib

    affine = _LPS_FROM_RAS @ volume.affine
    image = nib.Nifti1Image(volume.array.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    axes = volume.affine[:3, :3] / volume.spacing_mm
    upright = np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=1e-4)
    image.set_qform(affine if upright else None, code="scanner" if upright else "unknown")

    def write(temporary: Path) -> None:
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        ):
            packed.write(image.to_bytes())

    write_atomic(path, write)


def iter_nifti_planes(path: Path, *, where: str = "") -> Iterator[NDArray[Any]]:
    """Yield the stored numbers plane by plane, ``(nj, ni)`` from k = 0, reading no further than asked.

    Where all are taken, gzip's check sum behind the last one is looked at.
    """
    where = where or path.name
    with _opened(path, where) as stream:
        raw = _raw_header(stream, where)
        header = _parse(raw, where)
        stream.seek(raw.offset)
        for _ in range(header.grid.shape[0]):
            plane = np.empty(header.grid.shape[1:], raw.dtype)
            _fill(stream, plane, where)
            yield plane.astype(header.dtype, copy=False)
        while stream.read(1 << 20):
            pass  # to the end of the stream, where gzip's check sum stands


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP


@contextmanager
def _opened(path: Path, where: str) -> Iterator[BinaryIO]:
    """Open a plain or gzipped file by its content; what the stream cannot deliver is ``unreadable``."""
    from isal import igzip
    from isal.igzip_lib import IsalError

    require_file(path, where)
    try:
        with igzip.open(path, "rb") if _is_gzip(path) else path.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except (OSError, EOFError, IsalError) as error:  # type: ignore[misc]  # its stub declares no class
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise unreadable(where, reason) from error


def _fill(stream: BinaryIO, array: NDArray[Any], where: str) -> None:
    target = memoryview(array.reshape(-1).view(np.uint8).data)
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])  # type: ignore[attr-defined]
        if not count:
            raise unreadable(where, f"the file ends after {done} of them", f"{len(target)} bytes of voxels")
        done += count


def _raw_header(stream: BinaryIO, where: str) -> NiftiHeader:
    try:
        raw = NiftiHeader(stream.read(540))
    except ValueError as error:
        raise unreadable(where, str(error), "a NIfTI-1 or NIfTI-2 header") from error
    if not raw.single_file:
        raise unreadable(where, "a header of an .hdr/.img pair", "header and voxels in a single file")
    if not raw.size <= raw.offset < 2**31:
        raise unreadable(where, f"voxels that begin at byte {raw.offset}", f"byte {raw.size} or later")
    return raw


def _parse(raw: NiftiHeader, where: str) -> Header:
    shape = raw.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise CaseError(
            "the image is not a single volume",
            where=where,
            expected="three axes (a fourth of length 1 is accepted)",
            found="shape " + " x ".join(map(str, shape)),
            do="split it into one file per volume",
            code="bad_shape",
        )
    if raw.dtype is None:
        raise CaseError(
            "the voxels are not single numbers of a common type",
            where=where,
            expected="8 to 64 bit integers, or 32 or 64 bit floats",
            found=raw.type_name,
            do="convert the file",
            code="bad_type",
        )
    grid = located_grid(shape[::-1], _LPS_FROM_RAS @ _affine_ras(raw, shape, where), where)
    return Header(grid, raw.dtype.newbyteorder("="), *raw.scale)


def _affine_ras(raw: NiftiHeader, shape: tuple[int, ...], where: str) -> Float64:
    """Return the RAS affine in mm from sform and qform, which must agree where both are set."""
    unit = raw.length_unit
    if unit not in _MM_PER_UNIT:
        raise CaseError(
            "the unit of length is not one that NIfTI defines",
            where=where,
            expected="xyzt_units of metre, mm, micron or unknown (read as mm)",
            found=f"spatial unit code {unit}",
            do="correct the header",
            code="bad_units",
        )
    sform = raw.sform
    try:
        qform = raw.qform
    except ValueError as error:
        raise CaseError(
            "the qform is no rotation with voxel sizes",
            where=where,
            found=str(error),
            do="correct the header",
            code="bad_affine",
        ) from error
    affine = sform if sform is not None else qform
    if affine is None:
        raise CaseError(
            "the file does not say how it lies in the patient",
            where=where,
            expected="an sform or a qform (code > 0)",
            found="sform_code 0 and qform_code 0",
            do="export it again from its source; an orientation is never guessed",
            code="no_orientation",
        )
    if sform is not None and qform is not None:
        _require_agreement(raw, shape, sform, qform, where)
    affine[:3] *= _MM_PER_UNIT[unit]
    return affine


def _require_agreement(
    raw: NiftiHeader, shape: tuple[int, ...], sform: Float64, qform: Float64, where: str
) -> None:
    grid = located_grid(shape[::-1], sform, where)
    tolerance = _ORIENTATION_TOLERANCE * min(grid.spacing_mm)
    off = min(_farthest(grid, each) for each in (qform, _qform_with_w_of(raw, qform, sform)))
    if off > tolerance:
        raise CaseError(
            "sform and qform place the image differently",
            where=where,
            expected=f"the same place within {tolerance:.4f} (1 % of the smallest spacing), or one unset",
            found=f"corners up to {off:.4f} apart",
            do="set the wrong one's code to 0",
            code="affine_conflict",
        )


def _farthest(grid: Grid, other: Float64) -> float:
    outer = grid.corners_mm @ grid.inverse[:3, :3].T + grid.inverse[:3, 3]
    return float(np.linalg.norm(outer @ other[:3, :3].T + other[:3, 3] - grid.corners_mm, axis=1).max())


def _qform_with_w_of(raw: NiftiHeader, qform: Float64, sform: Float64) -> Float64:
    """Return the qform with the one quaternion term that the file does not store taken from the sform.

    The header keeps b, c, d in single precision and leaves w = sqrt(1 - b^2 - c^2 - d^2) to the reader. Near
    w = 0, where every image in LPS order lies, w is thereby uncertain by up to 6e-4, a few tenths of a mm at
    a corner; the sform's w contradicts nothing while its square is within rounding of what the header leaves.
    """
    b, c, d = raw.quaternion
    columns = sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0)
    if np.linalg.det(columns) < 0:
        columns = columns * [1, 1, -1]
    w = _first_quaternion_term(columns)
    if abs(1 - b * b - c * c - d * d - w * w) > 3 * np.finfo(np.float32).eps:
        return qform
    size = np.linalg.norm(qform[:3, :3], axis=0)
    if np.linalg.det(qform[:3, :3]) < 0:
        size = size * [1, 1, -1]
    rebuilt = qform.copy()
    rebuilt[:3, :3] = rotation(w, b, c, d) * size
    return rebuilt


def _first_quaternion_term(turn: Float64) -> float:
    """|w| of the quaternion nearest to a matrix, exact for a rotation (Bar-Itzhack, 10.2514/2.4654)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = turn
    form = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    return abs(float(np.linalg.eigh(form)[1][3, -1]))
