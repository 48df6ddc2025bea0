"""Classes of the film in one view, from the masks of a projection."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.film import Film
from paxray.dataset.rle import encode_mask
from paxray.projection.project import Projection


def film_mask(film: Film, projection: Projection) -> NDArray[np.bool_]:
    """``(rows, columns)`` where a ray meets the class and none of those that hide it.

    The projection has presence of all inputs that have voxels.
    """
    mask = projection.mask(film.of).copy()
    for name in film.not_hidden_by:
        if name in projection.names:
            mask &= ~projection.mask(name)
    return mask


def film_columns(film: Film, projection: Projection, view_status: str) -> dict[str, Any]:
    """A class of the film in one view; `view_status` is that of the class looked at.

    Path, depth and what else needs voxels stay empty.
    """
    mask = (
        film_mask(film, projection) if film.of in projection.names else np.zeros(projection.view.size, bool)
    )
    v, u = np.nonzero(mask)
    if not len(v):
        seen = view_status in ("whole", "cut")
        return {"view_status": "hidden" if seen else view_status, "area_px": 0, "area_mm2": 0.0}
    return {
        "view_status": view_status,
        "mask": encode_mask(mask),
        "area_px": len(v),
        "area_mm2": len(v) * projection.view.pixel_area_mm2,
        "bbox": [int(u.min()), int(v.min()), int(np.ptp(u)) + 1, int(np.ptp(v)) + 1],
        "centroid_px": [float(u.mean()), float(v.mean())],
    }
