"""Masks that exist already: label maps with a vocabulary, and files or folders whose masks bear names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.naming import Names, load_names
from paxray.anatomy.vocabulary import Told, Vocabulary, load_vocabulary
from paxray.errors import CaseError, ConfigError
from paxray.io.cases import BY_NAME, MaskSource
from paxray.io.masks import read_label_map
from paxray.io.segments import SEG_NRRD, names_its_segments, open_segments
from paxray.io.stored import require_file, sidecar_of
from paxray.io.volume import Grid
from paxray.segmentation.named import class_masks
from paxray.segmentation.told import read_told, require_unknown, status_of


def parse_source(text: str | Path, vocabulary: str = "") -> MaskSource:
    """Read ``PATH=VOCABULARY``.

    Without a vocabulary a file has the one that lies beside it (``a.yaml`` for ``a.nii.gz``, as `paxray segment`
    writes); else masks that bear names are `BY_NAME`, and a label map has the one given.
    """
    path, equals, named = str(text).rpartition("=")
    if not equals:
        path = str(text)
        beside = sidecar_of(Path(path), ".yaml")
        if beside.is_file() and not Path(path).is_dir():
            named = str(beside)
        else:
            named = BY_NAME if names_its_segments(Path(path)) else vocabulary
    return MaskSource(Path(path), named, path)


def read_masks(
    sources: Iterable[MaskSource],
    grid: Grid,
    catalog: Catalog,
    overrides: Mapping[str, Mapping[int, str]] | None = None,
    base: Path | None = None,
) -> LabelVolume:
    """Read all masks of a case onto its CT's lattice.

    Parameters
    ----------
    sources
        In order of precedence: a class that an earlier source names is not taken from a later one.
    grid
        The CT's.
    catalog
        Resolves class names.
    overrides
        Vocabulary name to further labels, e.g. ``{"totalsegmentator_v2": {118: "costal_cartilages"}}``.
    base
        Folder to which a vocabulary file in a source is relative.

    Raises
    ------
    CaseError
        ``missing_file``, ``unreadable``, ``mask_mismatch``, ``unknown_label``, ``unknown_class``, ``no_masks``,
        ``bad_labels``, ``bad_vocabulary``; of DICOM and .seg.nrrd also ``wrong_series``, ``wrong_frame``,
        ``bad_contours``, ``fractional``, ``not_segments``.
    """
    builder = LabelBuilder(grid.shape)
    for source in sources:
        names = _names_of(source, catalog, base)
        if names is not None:
            _add_named(builder, source, names, grid, catalog)
        else:
            vocabulary = vocabulary_of(source, catalog, overrides, base)
            found = read_label_map(source.path, grid, where=source.where)
            builder.add_label_map(found.array, vocabulary, found.extent, found.where)
    return builder.finish(grid.affine, catalog)


def _add_named(builder: LabelBuilder, source: MaskSource, names: Names, grid: Grid, catalog: Catalog) -> None:
    """Add the masks of a source that bear names, with what a folder's own JSON says of them."""
    files = open_segments(source.path, where=source.where)
    told = read_told(source.path, names, catalog, source.where)
    for name, mask in class_masks(files, names, catalog, grid, source.where):
        said, n_voxels = told.pop(name, Told()), int(np.count_nonzero(mask.array))
        builder.add_mask(
            name,
            mask.box,
            mask.array,
            mask.extent,
            mask.where,
            status=status_of(said, n_voxels, name, mask.where),
            note=said.note,
            confidence=said.confidence if n_voxels else None,
        )
    nowhere, nothing = (slice(0, 0),) * 3, np.zeros((0, 0, 0), bool)
    require_unknown(told, source.where)
    for name, said in told.items():
        builder.add_mask(name, nowhere, nothing, status=Status.UNKNOWN, note=said.note)


def vocabulary_of(
    source: MaskSource,
    catalog: Catalog,
    overrides: Mapping[str, Mapping[int, str]] | None = None,
    base: Path | None = None,
) -> Vocabulary:
    """Return the vocabulary that a source names, with the pipeline's further labels."""
    if not source.vocabulary:
        raise CaseError(
            "a label map needs a vocabulary that says what its values mean",
            where=source.where,
            do=f"{source.where}=totalsegmentator_v2, or another; in a case table, its column 'vocabulary'",
            code="bad_vocabulary",
        )
    try:
        vocabulary = load_vocabulary(source.vocabulary, base=base, catalog=catalog)
        further = (overrides or {}).get(source.vocabulary, {})
        more = {value: catalog.resolve(name) for value, name in further.items()}
    except ConfigError as error:
        raise _bad_vocabulary(error, source) from error
    also = {value: names for value, names in vocabulary.also.items() if value not in more}
    return replace(vocabulary, labels=vocabulary.labels | more, also=also)


def _names_of(source: MaskSource, catalog: Catalog, base: Path | None) -> Names | None:
    """Return what a source's names mean; None for a label map, whose values a vocabulary names."""
    if source.vocabulary == BY_NAME or (not source.vocabulary and names_its_segments(source.path)):
        return Names(BY_NAME)
    if not source.vocabulary:
        require_file(source.path, source.where)
        return None
    try:
        names = load_names(source.vocabulary, base=base, catalog=catalog)
    except ConfigError as error:
        raise _bad_vocabulary(error, source) from error
    if names is not None and names.values and not names_its_segments(source.path):
        return None
    values_are_named = source.path.name.lower().endswith(SEG_NRRD)  # one layer of it is a label map, too
    if names is None and names_its_segments(source.path) and not values_are_named:
        raise CaseError(
            "the masks bear names, and the vocabulary has values alone",
            where=source.where,
            expected=f"vocabulary '{BY_NAME}', or a YAML file with `names`",
            found=f"vocabulary '{source.vocabulary}'",
            code="bad_vocabulary",
        )
    return names


def _bad_vocabulary(error: ConfigError, source: MaskSource) -> CaseError:
    return CaseError(
        error.what,
        where=error.where or source.where,
        expected=error.expected,
        found=error.found,
        do=error.do,
        code="bad_vocabulary",
    )
