"""2D masks as COCO run lengths: column-major, compressed to a string."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode_mask(mask: NDArray[np.bool_]) -> str:
    """Compressed COCO counts of a ``(rows, columns)`` mask."""
    from pycocotools import mask as coco

    counts: bytes = coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts.decode("ascii")


def decode_mask(counts: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """``(rows, columns)`` bool mask of compressed COCO counts."""
    from pycocotools import mask as coco

    decoded: NDArray[np.uint8] = coco.decode({"size": list(size), "counts": counts.encode("ascii")})
    return decoded.astype(bool)
