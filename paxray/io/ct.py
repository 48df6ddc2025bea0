"""Read a CT: a file, or a folder that holds one DICOM series, into HU on an LPS grid."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from paxray.io.hu import require_hu, to_hu
from paxray.io.image import read_header, read_stored
from paxray.io.stored import require_there
from paxray.io.volume import Grid, Volume


def read_ct(path: Path, *, where: str = "") -> Volume:
    """Read a CT.

    Parameters
    ----------
    path
        ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file, or a folder with one DICOM CT
        series directly in it.
    where
        How errors name the input; the file's name unless given.

    Returns
    -------
    HU ``(nk, nj, ni)``, int16 where every value is a whole number that fits, else float32, with the affine
    to LPS mm.

    Raises
    ------
    CaseError
        ``missing_file``, ``unreadable``, ``unknown_format``; ``bad_shape``, ``bad_type``, ``bad_values``,
        ``not_hu``; ``bad_affine``, ``bad_units``, ``no_orientation``, ``affine_conflict``; for DICOM also
        ``no_ct_series``, ``several_series``, ``uneven_slices``, ``duplicate_slices``.
    ResourceError
        ``missing_decoder`` where compressed DICOM needs a package that is not installed.
    """
    path = Path(path)
    where = where or path.name
    require_there(path, where)
    if path.is_dir():
        from paxray.io.dicom import read_dicom_ct

        volume = read_dicom_ct(path, where=where)
    else:
        stored = read_stored(path, where=where)
        header = stored.header
        if stored.array.dtype == np.int16 and not header.scaled:
            array = stored.array  # HU as they stand
        else:
            planes = ((plane, header.slope, header.intercept) for plane in stored.array)
            array = to_hu(planes, header.grid.shape, where=where)
        volume = Volume(array, header.grid.affine)
    require_hu(volume.array, where=where)
    return volume


def read_ahead(path: Path, *, where: str = "") -> Callable[[], Volume]:
    """Begin to read a CT in a thread of its own, beside what the caller does meanwhile.

    Returns
    -------
    A function that waits for the CT; it raises what `read_ct` raises.
    """
    pool = ThreadPoolExecutor(1)
    reading = pool.submit(read_ct, path, where=where)
    pool.shutdown(wait=False)
    return reading.result


def read_ct_grid(path: Path, *, where: str = "") -> Grid:
    """Read the grid of a CT in a single file from its header; errors as `read_ct`'s of the header."""
    path = Path(path)
    where = where or path.name
    require_there(path, where)
    return read_header(path, where=where).grid
