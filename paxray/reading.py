"""A case from disk: the CT and its masks, decompressed side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.config import Pipeline
from paxray.io.cases import Case
from paxray.io.ct import read_ct, read_ct_grid
from paxray.io.volume import Volume
from paxray.parallel import together
from paxray.segmentation.files import read_masks


def read_case(
    case: Case,
    pipeline: Pipeline,
    catalog: Catalog,
    base: Path | None,
    read: Callable[[], Volume] | None = None,
) -> tuple[Volume, LabelVolume]:
    """Read a case's CT and masks.

    Parameters
    ----------
    case, pipeline, catalog
        What to read, and what the masks' values mean.
    base
        Folder that vocabulary files in the case table are relative to.
    read
        Gives the CT where something reads it already (`read_ahead`).

    Raises
    ------
    CaseError
        As `read_ct` and `read_masks`; where both fail, the CT's.
    """
    masks = partial(
        read_masks,
        case.masks,
        catalog=catalog,
        overrides=pipeline.labels.vocabularies,
        base=base,
    )
    read = read or partial(read_ct, case.ct, where=case.ct_where)
    if case.ct.is_dir():  # DICOM: its lattice is known only when all of it is read
        ct = read()
        return ct, masks(ct.grid)
    grid = read_ct_grid(case.ct, where=case.ct_where)
    return together(read, lambda: masks(grid))
