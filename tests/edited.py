"""Label volumes changed for a test, by the builder that all of the package changes them by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.labels import LabelVolume, Status


def with_mask(labels: LabelVolume, name: str, mask: NDArray[np.bool_], status: Status) -> LabelVolume:
    """A copy in which a class is exactly the mask, whatever it was before; a new one becomes the last column."""
    builder = LabelBuilder.resume(labels, without=(name,))
    builder.add_mask(name, tuple(slice(0, n) for n in labels.shape), mask, status=status)
    return builder.build(labels.affine, list(dict.fromkeys((*labels.names, name))))
