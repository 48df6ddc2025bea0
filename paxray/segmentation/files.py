"""Masks that exist already: label maps with a vocabulary, or folders with one file per class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.anatomy.vocabulary import Vocabulary, load_vocabulary
from paxray.errors import CaseError, ConfigError
from paxray.io.cases import BY_NAME, MaskSource
from paxray.io.masks import ClassMask, read_class_mask, read_label_map, read_mask_folder
from paxray.io.stored import sidecar_of
from paxray.io.volume import Grid


def parse_source(text: str | Path, vocabulary: str = "") -> MaskSource:
    """Read ``PATH=VOCABULARY``.

    Without a vocabulary a folder is `BY_NAME`, and a file has the one that lies beside it (``a.yaml`` for
    ``a.nii.gz``, as `paxray segment` writes), or else the one given.
    """
    path, equals, named = str(text).rpartition("=")
    if not equals:
        path = str(text)
        beside = sidecar_of(Path(path), ".yaml")
        named = BY_NAME if Path(path).is_dir() else str(beside) if beside.is_file() else vocabulary
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
        ``missing_file``, ``unreadable``, ``mask_mismatch``, ``unknown_label``, ``unknown_class``, ``no_masks``.
    """
    builder = LabelBuilder(grid.shape)
    for source in sources:
        if source.path.is_dir() or source.vocabulary == BY_NAME:
            if source.vocabulary not in ("", BY_NAME):
                raise CaseError(
                    "a folder of masks names its classes by its file names",
                    where=source.where,
                    expected=f"vocabulary '{BY_NAME}'",
                    found=f"vocabulary '{source.vocabulary}'",
                    code="bad_vocabulary",
                )
            if source.path.is_dir():
                masks: Iterable[ClassMask] = read_mask_folder(source.path, grid, where=source.where)
            else:
                masks = [read_class_mask(source.path, grid, where=source.where)]
            file_of: dict[str, str] = {}
            for mask in masks:
                name = _class_of(mask, catalog)
                if name in file_of:
                    raise CaseError(
                        f"two files name the same class, '{name}'",
                        where=source.where,
                        found=f"{file_of[name]} and {mask.where}",
                        do="keep one of them",
                        code="bad_labels",
                    )
                file_of[name] = mask.where
                builder.add_mask(name, mask.box, mask.array, mask.extent, mask.where)
        else:
            vocabulary = vocabulary_of(source, catalog, overrides, base)
            found = read_label_map(source.path, grid, where=source.where)
            builder.add_label_map(found.array, vocabulary, found.extent, found.where)
    return builder.finish(grid.affine, catalog)


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
            do="name one in the case table's column 'vocabulary', e.g. totalsegmentator_v2",
            code="bad_vocabulary",
        )
    try:
        vocabulary = load_vocabulary(source.vocabulary, base=base, catalog=catalog)
        further = (overrides or {}).get(source.vocabulary, {})
        more = {value: catalog.resolve(name) for value, name in further.items()}
    except ConfigError as error:
        raise CaseError(
            error.what,
            where=error.where or source.where,
            expected=error.expected,
            found=error.found,
            do=error.do,
            code="bad_vocabulary",
        ) from error
    also = {value: names for value, names in vocabulary.also.items() if value not in more}
    return replace(vocabulary, labels=vocabulary.labels | more, also=also)


def _class_of(mask: ClassMask, catalog: Catalog) -> str:
    """The canonical class of a file's name."""
    try:
        return catalog.resolve(mask.name)
    except ConfigError as error:
        raise CaseError(
            f"the file name '{mask.name}' is not the name of a class",
            where=mask.where,
            expected="a class name or a synonym (paxray classes list)",
            do=error.do or "rename the file, or add the class to a catalog of your own",
            code="unknown_class",
        ) from error
