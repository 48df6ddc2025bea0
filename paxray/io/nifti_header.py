"""The fields of a NIfTI-1 or NIfTI-2 header that say what the voxels are and where (https://nifti.nimh.nih.gov).

The layouts are those of ``nifti1.h`` and ``nifti2.h``. nibabel reads them too, but importing it takes a tenth of a
second, in which no voxel can be read; the tests hold this module against it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np

from paxray.io.volume import Float64

#: Field to its offset and type, after ``sizeof_hdr``; by the header's size.
_LAYOUTS = {
    348: {
        "dim": (40, "8i2"), "datatype": (70, "i2"), "pixdim": (76, "8f4"), "vox_offset": (108, "f4"),
        "scl": (112, "2f4"), "xyzt_units": (123, "u1"), "qform_code": (252, "i2"), "sform_code": (254, "i2"),
        "quatern": (256, "3f4"), "qoffset": (268, "3f4"), "srow": (280, "(3,4)f4"), "magic": (344, "S4"),
    },
    540: {
        "magic": (4, "S4"), "datatype": (12, "i2"), "dim": (16, "8i8"), "pixdim": (104, "8f8"),
        "vox_offset": (168, "i8"), "scl": (176, "2f8"), "qform_code": (344, "i4"), "sform_code": (348, "i4"),
        "quatern": (352, "3f8"), "qoffset": (376, "3f8"), "srow": (400, "(3,4)f8"), "xyzt_units": (500, "i4"),
    },
}  # fmt: skip
#: Codes of ``datatype`` whose voxels are single numbers of a common type.
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_OTHER_TYPES = {
    1: "binary", 32: "complex64", 128: "RGB", 1536: "float128", 1792: "complex128", 2048: "complex256",
    2304: "RGBA",
}  # fmt: skip
#: Below this, what the quaternion's stored terms leave for the first one is rounding of single precision.
_QUATERNION_ROUNDING = 3 * float(np.finfo(np.float32).eps)


class NiftiHeader:
    """A header as stored.

    Parameters
    ----------
    block
        The file's first 540 bytes, or all of a shorter one.

    Raises
    ------
    ValueError
        It is none, or its fields contradict the format; the message says how.
    """

    def __init__(self, block: bytes) -> None:
        sizes: dict[int, Literal["<", ">"]] = {
            int.from_bytes(block[:4], "little"): "<",
            int.from_bytes(block[:4], "big"): ">",
        }
        size = next((n for n in _LAYOUTS if n in sizes and n <= len(block)), 0)
        if not size:
            raise ValueError("another beginning")
        layout, order = _LAYOUTS[size], sizes[size]
        fields = np.dtype(
            {
                "names": list(layout),
                "formats": [np.dtype(form).newbyteorder(order) for _, form in layout.values()],
                "offsets": [offset for offset, _ in layout.values()],
                "itemsize": size,
            }
        )
        self.size, self._order = size, order
        self._fields: Any = np.frombuffer(block[:size], fields)[0]
        if not 1 <= int(self._fields["dim"][0]) <= 7:
            raise ValueError(f"a damaged header: {self._fields['dim'][0]} axes")
        if not np.isfinite(self._fields["vox_offset"]):
            raise ValueError("a damaged header: voxels that begin nowhere")
        if int(self._fields["datatype"]) not in _DTYPES | _OTHER_TYPES:
            raise ValueError(f"a damaged header: data type code {self._fields['datatype']}")
        slope, intercept = self._scl
        if self._is_scaled and not np.isfinite(intercept):
            raise ValueError(f"a damaged header: scaled by {slope:g} and {intercept:g}")

    @property
    def single_file(self) -> bool:
        """Whether the voxels follow in the same file."""
        return bytes(self._fields["magic"]).startswith(b"n+")

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along i, j, k, ..."""
        return tuple(int(n) for n in self._fields["dim"][1 : 1 + int(self._fields["dim"][0])])

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of the stored numbers, in the file's byte order; None where they are not single common numbers."""
        name = _DTYPES.get(int(self._fields["datatype"]))
        return None if name is None else np.dtype(name).newbyteorder(self._order)

    @property
    def type_name(self) -> str:
        """What the data type code means."""
        code = int(self._fields["datatype"])
        return _OTHER_TYPES.get(code) or str(np.dtype(_DTYPES[code]))

    @property
    def offset(self) -> int:
        """Byte at which the voxels begin."""
        return int(self._fields["vox_offset"])

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept; 1 and 0 where the header has none."""
        return self._scl if self._is_scaled else (1.0, 0.0)

    @property
    def length_unit(self) -> int:
        """The code of the unit of length."""
        return int(self._fields["xyzt_units"]) & 7

    @property
    def sform(self) -> Float64 | None:
        """``(4, 4)`` from ``(i, j, k, 1)`` to RAS in the unit of length; None where not set."""
        if int(self._fields["sform_code"]) <= 0:
            return None
        return np.vstack([self._fields["srow"].astype(np.float64), [0.0, 0.0, 0.0, 1.0]])

    @property
    def qform(self) -> Float64 | None:
        """As `sform`, of the quaternion, sizes and offset. `ValueError` where they are no rotation and sizes."""
        if int(self._fields["qform_code"]) <= 0:
            return None
        b, c, d = self.quaternion.astype(np.longdouble)
        rest = 1 - (b * b + c * c + d * d)
        if not rest >= -_QUATERNION_ROUNDING:  # written so that NaN is refused
            raise ValueError(f"the squares of the quaternion's three terms add up to {float(1 - rest):g}")
        a = np.sqrt(rest) if rest >= _QUATERNION_ROUNDING else np.longdouble(0)
        handed, *size = self._fields["pixdim"][:4]
        if not all(0 <= s < np.inf for s in size) or handed not in (-1, 1):
            raise ValueError(f"voxel sizes {', '.join(f'{s:g}' for s in size)}, handedness {handed:g}")
        out = np.eye(4)
        out[:3, :3] = rotation(a, b, c, d) * [size[0], size[1], size[2] * handed]
        out[:3, 3] = self._fields["qoffset"]
        return out

    @property
    def quaternion(self) -> Float64:
        """The three terms b, c, d that are stored."""
        return np.asarray(self._fields["quatern"], np.float64)

    @cached_property
    def _scl(self) -> tuple[float, float]:
        slope, intercept = (float(value) for value in self._fields["scl"])
        return slope, intercept

    @property
    def _is_scaled(self) -> bool:
        return self._scl[0] != 0 and bool(np.isfinite(self._scl[0]))


def rotation(a: Any, b: Any, c: Any, d: Any) -> np.ndarray[Any, Any]:
    """``(3, 3)`` of a quaternion, of unit length or near it."""
    a, b, c, d = np.array([a, b, c, d]) / np.sqrt(a * a + b * b + c * c + d * d)
    return np.array(
        [
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]
    )
