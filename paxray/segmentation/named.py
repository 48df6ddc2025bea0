"""Named segments to classes: by a vocabulary of names, the catalog's names and synonyms, and SNOMED CT codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from paxray.anatomy.catalog import Catalog, normal_word
from paxray.anatomy.codes import CodeIndex
from paxray.anatomy.naming import Names
from paxray.errors import CaseError, ConfigError, suggest
from paxray.io.masks import ClassMask
from paxray.io.segments import Segment, SegmentFile, Term
from paxray.io.volume import Grid

_NAMED = 20  # at most so many segments stand in a message


class _Part(NamedTuple):
    """One segment of one file of a source, and the classes it stands for."""

    file: SegmentFile
    at: int
    classes: tuple[str, ...]
    by_vocabulary: bool

    @property
    def segment(self) -> Segment:
        return self.file.segments[self.at]


def class_masks(
    files: Sequence[SegmentFile], names: Names, catalog: Catalog, grid: Grid, where: str
) -> Iterator[tuple[str, ClassMask]]:
    """Yield the mask of each class that a source names, on a CT's lattice.

    A segment is what the vocabulary says, or else what its name is in the catalog, or else what its codes are. Where
    name and code both have a class, one must contain the other, and the name holds. Segments that the vocabulary gives
    one class are united; two that come to one class in another way are refused.

    Parameters
    ----------
    files
        The source, opened.
    names
        The vocabulary; an empty one leaves all to the catalog.
    where
        The source's name in messages.

    Raises
    ------
    CaseError
        ``unknown_class`` with all segments that mean no class, ``bad_labels`` for two of one class or a name that
        contradicts its code; and what reading the masks raises.
    """
    parts = list(_resolved(files, names, catalog, where))
    of_class: dict[str, list[_Part]] = {}
    for part in parts:
        for name in part.classes:
            of_class.setdefault(name, []).append(part)
    for name, group in of_class.items():
        if len(group) > 1 and not all(part.by_vocabulary for part in group):
            raise CaseError(
                f"two {group[0].file.word}s name the same class, '{name}'",
                where=where,
                found=f"{group[0].segment.where} and {group[1].segment.where}",
                do="keep one of them, or give both that class in a vocabulary's `names`, which unites them",
                code="bad_labels",
            )
    waiting: dict[str, list[ClassMask]] = {}
    for file in files:
        here = {part.at: part for part in parts if part.file is file}
        wanted = [at for at, part in here.items() if part.classes]
        for at, mask in file.masks(grid, wanted, names.fraction) if wanted else ():
            for name in here[at].classes:
                known = waiting.setdefault(name, [])
                known.append(mask)
                if len(known) == len(of_class[name]):
                    yield name, _united(waiting.pop(name))


def recognised(segment: Segment, catalog: Catalog, codes: CodeIndex) -> tuple[str, ...]:
    """Return the class that a segment's name and codes mean, without a vocabulary; nothing for none.

    Raises
    ------
    CaseError
        ``bad_labels`` where name and code contradict each other.
    """
    by_code = _by_code(segment, codes)
    try:
        name = catalog.resolve(segment.name)
    except ConfigError:
        return by_code if len(by_code) == 1 else ()
    if len(by_code) == 1 and not _related(name, by_code[0], catalog):
        raise CaseError(
            "the segment's name and its code mean different structures",
            where=segment.where,
            expected=f"a code of '{name}', or of what contains it or is part of it",
            found=f"the code of '{by_code[0]}'",
            do="correct the file, or say which it is in a vocabulary's `names`",
            code="bad_labels",
        )
    return (name,)


def recogniser(catalog: Catalog) -> Callable[[Segment], bool]:
    """Return a test whether a segment means a class without a vocabulary; contradictory ones are not settled here."""
    codes = CodeIndex(catalog)

    def means(segment: Segment) -> bool:
        try:
            return bool(recognised(segment, catalog, codes))
        except CaseError:
            return True  # reading it says what contradicts what

    return means


def _resolved(files: Sequence[SegmentFile], names: Names, catalog: Catalog, where: str) -> Iterator[_Part]:
    codes = CodeIndex(catalog)
    unknown: list[_Part] = []
    for file in files:
        for at, segment in enumerate(file.segments):
            told = names.find(segment.name)
            found = recognised(segment, catalog, codes) if told is None else told
            part = _Part(file, at, found, told is not None)
            if told is None and not found:
                unknown.append(part)
            yield part
    if unknown:
        raise _unknown(unknown, names, catalog, codes, where)


def _unknown(unknown: list[_Part], names: Names, catalog: Catalog, codes: CodeIndex, where: str) -> CaseError:
    """Say which segments mean no class, and what to write for them."""
    listed = [
        f"'{part.segment.name}'"
        + (f" ({'; '.join(several)})" if (several := _by_code(part.segment, codes)) else "")
        for part in unknown
    ]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    word = unknown[0].file.word
    first = unknown[0].segment
    what = (
        f"the {word} name '{first.name}' is not the name of a class"
        if len(unknown) == 1
        else f"{len(unknown)} {word}s mean no class of the catalog"
    )
    hint = suggest(normal_word(first.name), catalog) if len(unknown) == 1 else ""
    rename = "rename the file, or " if word == "file" else ""
    return CaseError(
        what,
        where=first.where if len(unknown) == 1 else where,
        expected="a class name or a synonym (paxray classes list)"
        + ("" if word == "file" else ", or a SNOMED CT code of one")
        + (f", or a name in {names.spec}" if names.classes else ""),
        found=", ".join(listed[:_NAMED]) + more,
        do=(f"{hint} Else " if hint else "")
        + f"{rename}name as its vocabulary a YAML file such as {{names: {{'{first.name}': CLASS}}}}; null instead of a "
        f"class leaves a {word} out",
        code="unknown_class",
    )


def _by_code(segment: Segment, codes: CodeIndex) -> tuple[str, ...]:
    kind = segment.kind
    if kind is not None and not codes.is_general(kind.code):
        return _find(kind, codes)
    return () if segment.region is None else _find(segment.region, codes)


def _find(term: Term, codes: CodeIndex) -> tuple[str, ...]:
    return codes.find(term.code, term.side)


def _related(one: str, other: str, catalog: Catalog) -> bool:
    return one == other or one in catalog.ancestors(other) or other in catalog.ancestors(one)


def _united(masks: list[ClassMask]) -> ClassMask:
    """Return the union of masks; it covers what all of them cover."""
    if len(masks) == 1:
        return masks[0]
    drawn = [mask for mask in masks if mask.array.size]
    first = masks[0]
    if not drawn:
        return first
    box = [
        slice(min(m.box[axis].start for m in drawn), max(m.box[axis].stop for m in drawn))
        for axis in range(3)
    ]
    array = np.zeros([part.stop - part.start for part in box], bool)
    for mask in drawn:
        part = [slice(m.start - b.start, m.stop - b.start) for m, b in zip(mask.box, box, strict=True)]
        array[tuple(part)] |= mask.array
    extent = [
        slice(max(m.extent[axis].start for m in masks), min(m.extent[axis].stop for m in masks))
        for axis in range(3)
    ]
    return ClassMask(
        first.name, (box[0], box[1], box[2]), array, (extent[0], extent[1], extent[2]), first.where
    )
