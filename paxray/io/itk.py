"""NRRD and MetaImage files, through SimpleITK, with the checks that ITK leaves out.

ITK invents an identity orientation where a header has none and ignores a stated unit; both are looked up in
the header's own text here (https://teem.sourceforge.net/nrrd/format.html,
https://itk.org/Wiki/ITK/MetaIO/Documentation).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError
from paxray.io.stored import Header, Stored, image_suffix, located_grid, require_file, unreadable

_HEADER_LIMIT_BYTES = 1 << 20


def read_itk_header(path: Path, *, where: str = "") -> Header:
    """Read the header of a .nrrd, .nhdr, .mha or .mhd file.

    Raises
    ------
    CaseError
        Codes ``missing_file`` (also for a detached data file), ``unreadable``, ``bad_shape``, ``bad_type``,
        ``bad_units``, ``bad_affine``, ``no_orientation``.
    """
    where = where or path.name
    return _read_information(path, where)[1]


def read_itk(path: Path, *, where: str = "") -> Stored:
    """Read a .nrrd, .nhdr, .mha or .mhd file whole; errors as `read_itk_header`."""
    import SimpleITK

    where = where or path.name
    reader, header = _read_information(path, where)
    try:
        array = SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise unreadable(where, "voxels that ITK cannot read: truncated or corrupt data") from error
    return Stored(header, array.reshape(header.grid.shape))


def data_files(path: Path, *, where: str = "") -> list[Path]:
    """Return the detached files that a .mhd or .nhdr header names (an empty list for attached data).

    Raises
    ------
    CaseError
        Code ``missing_file`` where one does not exist, ``unreadable`` for a header without the entry.
    """
    where = where or path.name
    fields, rest = text_header(path, where)
    named = fields.get("elementdatafile", fields.get("data file", fields.get("datafile", "")))
    if not named:
        if image_suffix(path) in (".nrrd", ".mha"):
            return []
        raise unreadable(where, "a header that names no data file", "ElementDataFile or data file")
    if named.upper() in ("LOCAL", "LIST") or named.upper().startswith("LIST "):
        names = rest if named.upper() != "LOCAL" else []
    elif "%" in named:
        raise unreadable(where, f"a numbered pattern of data files, '{named}'", "the files by name")
    else:
        names = [named]
    files = [path.parent / name for name in names]
    for file in files:
        if not file.is_file():
            raise CaseError(
                "the header's data file does not exist",
                where=where,
                expected=str(file.relative_to(path.parent))
                if file.is_relative_to(path.parent)
                else file.name,
                do="keep the header and its data together",
                code="missing_file",
            )
    return files


def read_itk_layers_header(path: Path, *, where: str = "") -> tuple[Header, int]:
    """Read the header of an NRRD file that may hold several volumes, listed along an axis of their own.

    Returns
    -------
    Header of each volume, and how many there are. Errors as `read_itk_header`.
    """
    reader, header = _read_information(path, where or path.name, layers=True)
    return header, int(reader.GetNumberOfComponents())


def read_itk_layers(path: Path, *, where: str = "") -> NDArray[Any]:
    """Read such a file whole: ``(nk, nj, ni, layers)``; errors as `read_itk`."""
    import SimpleITK

    where = where or path.name
    reader, header = _read_information(path, where, layers=True)
    try:
        array = SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise unreadable(where, "voxels that ITK cannot read: truncated or corrupt data") from error
    return np.asarray(array).reshape(*header.grid.shape, -1)


def text_header(path: Path, where: str) -> tuple[dict[str, str], list[str]]:
    """Return the header's fields (lower-case keys) and the lines after a ``LIST`` entry."""
    require_file(path, where)
    meta_image = image_suffix(path) in (".mha", ".mhd")
    fields: dict[str, str] = {}
    rest: list[str] = []
    try:
        with path.open("rb") as stream:
            block = stream.read(_HEADER_LIMIT_BYTES)
    except OSError as error:
        raise unreadable(where, error.strerror or "a file that cannot be opened") from error
    if not meta_image and not block.startswith(b"NRRD"):
        raise unreadable(where, "another beginning", "an NRRD header")
    listing = False
    for line in block.split(b"\n"):
        text = line.decode("latin-1").strip()
        if listing:
            rest += [text] if text else []
            continue
        if not text and not meta_image:
            break  # an empty line ends an NRRD header
        mark = "=" if meta_image else ":"
        if mark not in text or text.startswith("#"):
            continue
        key, value = (part.strip() for part in text.split(mark, 1))
        fields[key.lower()] = value.lstrip("=").strip()
        data = key.lower() in ("elementdatafile", "data file", "datafile")
        if data and value.upper().startswith("LIST"):
            listing = True
        elif data and meta_image:
            break
    return fields, rest


def _require_orientation(path: Path, where: str) -> None:
    fields, _ = text_header(path, where)
    if image_suffix(path) in (".mha", ".mhd"):
        direction = any(key in fields for key in ("transformmatrix", "rotation", "orientation"))
        origin = any(key in fields for key in ("offset", "position", "origin"))
        complete, expected = direction and origin, "TransformMatrix and Offset"
    else:
        complete = all(key in fields for key in ("space", "space directions", "space origin"))
        expected = "space, space directions and space origin"
    if not complete:
        raise CaseError(
            "the file does not say how it lies in the patient",
            where=where,
            expected=expected,
            found="a header without them",
            do="export it again from its source; an orientation is never guessed",
            code="no_orientation",
        )
    units = set(fields.get("space units", "").replace('"', " ").split())
    if not units <= {"mm"}:
        raise CaseError(
            "the unit of length is not mm",
            where=where,
            expected='space units "mm"',
            found=" ".join(sorted(units)),
            do="write the file in mm",
            code="bad_units",
        )


def _read_information(path: Path, where: str, *, layers: bool = False) -> tuple[Any, Header]:
    import SimpleITK

    _require_orientation(path, where)
    data_files(path, where=where)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.LoadPrivateTagsOff()
    try:
        reader.ReadImageInformation()
        name = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    except RuntimeError as error:
        raise unreadable(where, "a header that ITK cannot read") from error
    size = reader.GetSize()
    if len(size) != 3 or not (layers or reader.GetNumberOfComponents() == 1):
        raise CaseError(
            "the image is not a single volume of single numbers",
            where=where,
            expected="three axes, one number per voxel",
            found=f"size {' x '.join(map(str, size))}, {reader.GetNumberOfComponents()} numbers per voxel",
            do="split it into one file per volume",
            code="bad_shape",
        )
    dtype = _DTYPES.get(name.removeprefix("vector of ") if layers else name)
    if dtype is None:
        raise CaseError(
            "the voxels are not single numbers of a common type",
            where=where,
            expected="8 to 64 bit integers, or 32 or 64 bit floats",
            found=name,
            do="convert the file",
            code="bad_type",
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.asarray(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return reader, Header(located_grid(size[::-1], affine, where), np.dtype(dtype))


_DTYPES = {
    f"{bits}-bit {sign} integer": f"{letter}{bits // 8}"
    for bits in (8, 16, 32, 64)
    for sign, letter in (("signed", "i"), ("unsigned", "u"))
} | {"32-bit float": "f4", "64-bit float": "f8"}
