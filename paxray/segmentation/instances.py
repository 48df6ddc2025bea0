"""Lesions one by one: mask files that hold one id per lymph node, nodule or fracture.

Beside ``nodes.nii.gz`` may stand ``nodes.json``, which says of ids what their mask cannot:
``{"3": {"class": "lymph_nodes", "station": "4R"}}``. Stations of the IASLC map (Rusch et al., J Thorac Oncol 2009) are
taken as given; where none is, `paxray.measure.stations` tells it if it can.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.voxels import look_up
from paxray.errors import CaseError, ConfigError
from paxray.io.cases import MaskSource
from paxray.io.masks import read_label_map
from paxray.io.stored import sidecar_of

#: Stations of the IASLC map; 8 to 9 may name a side, 10 to 14 must.
STATIONS = frozenset(
    {"1R", "1L", "2R", "2L", "3A", "3P", "4R", "4L", "5", "6", "7", "8", "9", "8R", "8L", "9R", "9L"}
    | {f"{n}{side}" for n in range(10, 15) for side in "RL"}
)
Box = tuple[slice, ...]
#: The largest id.
MOST = 65535
#: Stands between class and id in the names of label columns; no class of the catalog has it.
MARK = "#"


@dataclass(frozen=True)
class Lesion:
    """One lesion of a case.

    Attributes
    ----------
    number
        Its id in the mask file, from 1.
    name
        Canonical class.
    station
        IASLC station as given, or empty.
    status
        ``present``, or ``partial`` where its file covers part of the CT.
    """

    number: int
    name: str
    station: str
    status: Status

    @property
    def column(self) -> str:
        """Its name in the label volume: the projector treats it as a class of its own."""
        return f"{self.name}{MARK}{self.number}"


def with_lesions(
    labels: LabelVolume, sources: Iterable[MaskSource], catalog: Catalog
) -> tuple[LabelVolume, tuple[Lesion, ...]]:
    """Add every lesion as a column of its own, and its class where no mask source named it.

    Parameters
    ----------
    labels
        What the case's masks say.
    sources
        Instance files; `MaskSource.vocabulary` is the class of all ids for which the sidecar names none, or empty.
    catalog
        Resolves class names.

    Returns
    -------
    labels, lesions
        Lesions by class in catalog order, and by id. A class that the sources looked for without finding any is absent.
        A class that a mask source drew is closed over its lesions, which `LabelVolume.added_voxels` counts; that it was
        drawn where no lesion is stands in the notes.

    Raises
    ------
    CaseError
        ``unknown_class``, ``bad_instances`` (no class, one id twice, a station or key that is not known, an id that
        the mask lacks), and what reading a mask raises.
    """
    found: dict[Lesion, tuple[tuple[slice, ...], NDArray[np.bool_], tuple[slice, ...]]] = {}
    classes: dict[str, NDArray[np.bool_]] = {}
    looked: dict[str, list[Box]] = {}  # where somebody looked for a class
    for source in sources:
        told = _read_sidecar(source)
        read = read_label_map(source.path, labels.grid, where=source.where)
        ids = _ids(read.array)
        if ids and ids[-1] > MOST:
            raise _bad(source, "an id is too large", expected=f"1 to {MOST}", found=str(ids[-1]))
        _require_known(told, ids, source)
        whole = all(part == slice(0, n) for part, n in zip(read.extent, labels.shape, strict=True))
        named = {
            n: _class_of(told.get(n, {}).get("class") or source.vocabulary, n, source, catalog) for n in ids
        }
        if source.vocabulary:
            name = _class_of(source.vocabulary, 0, source, catalog)
            classes.setdefault(name, np.zeros(labels.shape, bool))
            looked.setdefault(name, []).append(read.extent)
        boxes = _boxes(read.array, ids)
        for number, name in named.items():
            status = Status.PRESENT if whole else Status.PARTIAL
            lesion = Lesion(number, name, told.get(number, {}).get("station", ""), status)
            if any((old.name, old.number) == (name, number) for old in found):
                raise _bad(source, f"id {number} of '{name}' is used twice in one case")
            found[lesion] = (boxes[number], read.array[boxes[number]] == number, read.extent)
        for name in sorted(set(named.values())):
            mask = classes.setdefault(name, np.zeros(labels.shape, bool))
            if name != source.vocabulary and read.extent not in looked.setdefault(name, []):
                looked[name].append(read.extent)
            chosen = np.zeros(int(read.array.max()) + 1, bool)
            chosen[[n for n, of in named.items() if of == name]] = True
            mask |= look_up(chosen, read.array)
    if not classes:
        return labels, ()
    order = {name: n for n, name in enumerate(catalog)}
    lesions = sorted(found, key=lambda lesion: (order[lesion.name], lesion.number))
    builder = LabelBuilder.resume(labels)
    everywhere = tuple(slice(0, n) for n in labels.shape)
    for name, mask in classes.items():
        whole = _cover(looked[name], labels.shape)
        found_some = (Status.PARTIAL, Status.PRESENT)[whole]
        status = found_some if mask.any() else (Status.UNKNOWN, Status.ABSENT)[whole]
        # Does nothing where a mask source named the class.
        builder.add_mask(name, everywhere, mask, status=status)
    for lesion in lesions:
        box, mask, _ = found[lesion]
        builder.add_mask(lesion.column, box, mask, status=lesion.status)
    names = [*labels.names, *sorted(set(classes) - set(labels.names), key=order.__getitem__)]
    built = builder.build(labels.affine, [*names, *(lesion.column for lesion in lesions)])
    drawn = [name for name in classes if name in labels.names]
    return _closed(built, drawn, lesions), tuple(lesions)


def _closed(labels: LabelVolume, drawn: Iterable[str], lesions: Iterable[Lesion]) -> LabelVolume:
    """Close classes that a mask source drew over their lesions, and note what it drew beside these."""
    table, counts = labels.membership.copy(), labels.atom_counts()
    status, added, notes = dict(labels.status), dict(labels.added_voxels), dict(labels.notes)
    for name in drawn:
        mine = [labels.index(lesion.column) for lesion in lesions if lesion.name == name]
        of_lesions = labels.membership[:, mine].any(axis=1)
        column = table[:, labels.index(name)]
        new, beside = int(counts[of_lesions & ~column].sum()), int(counts[column & ~of_lesions].sum())
        column |= of_lesions
        added[name] = (added.get(name) or 0) + new
        if new and status[name] in (Status.ABSENT, Status.UNKNOWN):
            status[name] = Status.PRESENT if status[name] is Status.ABSENT else Status.PARTIAL
        if beside:
            ml = beside * labels.grid.voxel_volume_mm3 / 1000
            notes[name] = f"{ml:.3g} ml ({beside} voxels) that the masks draw belong to no instance"
    closed = replace(labels, membership=table, status=status, added_voxels=added, notes=notes)
    return closed._keep_counts(counts)


def _cover(boxes: Iterable[Box], shape: tuple[int, int, int]) -> bool:
    """Whether boxes together fill an array."""
    boxes = list(boxes)
    ends = [
        sorted({0, n, *(end for b in boxes for end in (b[a].start, b[a].stop))}) for a, n in enumerate(shape)
    ]
    # Between neighbouring ends every box is whole or not there: one cell tells.
    return all(
        any(all(part.start <= at < part.stop for part, at in zip(box, cell, strict=True)) for box in boxes)
        for cell in itertools.product(*(axis[:-1] for axis in ends))
    )


def _ids(array: NDArray[Any]) -> list[int]:
    """The ids in a mask, ascending."""
    return [int(n) for n in np.unique(array[array > 0])]


def _boxes(array: NDArray[Any], ids: list[int]) -> dict[int, tuple[slice, ...]]:
    from scipy import ndimage

    found = ndimage.find_objects(array.astype(np.int32, copy=False)) if ids else []
    return {n: found[n - 1] for n in ids}


def _read_sidecar(source: MaskSource) -> dict[int, dict[str, str]]:
    path = sidecar_of(source.path)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _bad(source, f"{path.name} cannot be read as JSON", found=str(error)) from error
    if not isinstance(content, dict):
        raise _bad(source, f"{path.name} does not map ids to what is known of them")
    out = {}
    for key, entry in content.items():
        where = f"{path.name}, id {key}"
        if not key.isdecimal() or int(key) < 1 or not isinstance(entry, dict):
            raise _bad(source, f"{where}: not an id with a mapping", expected='"3": {"station": "4R"}')
        unknown = sorted(set(entry) - {"class", "station"})
        if unknown:
            raise _bad(source, f"{where}: unknown key '{unknown[0]}'", expected="class, station")
        station = str(entry.get("station", "")).upper()
        if station and station not in STATIONS:
            raise _bad(
                source,
                f"{where}: no lymph node station of the IASLC map",
                expected="1R to 14L, e.g. 4R, 5, 7, 10L",
                found=str(entry["station"]),
            )
        out[int(key)] = {"class": str(entry.get("class", "")), "station": station}
    return out


def _require_known(told: dict[int, dict[str, str]], ids: list[int], source: MaskSource) -> None:
    missing = sorted(set(told) - set(ids))
    if missing:
        raise _bad(
            source, f"{sidecar_of(source.path).name} tells of id {missing[0]}, which the mask does not hold"
        )


def _class_of(word: str, number: int, source: MaskSource, catalog: Catalog) -> str:
    if not word:
        raise _bad(
            source, f"nothing says what id {number} is", expected="PATH=CLASS, or a class in the JSON beside"
        )
    try:
        return catalog.resolve(word)
    except ConfigError as error:
        raise CaseError(
            error.what, where=source.where, expected=error.expected, do=error.do, code="unknown_class"
        ) from error


def _bad(source: MaskSource, what: str, *, expected: str = "", found: str = "") -> CaseError:
    return CaseError(what, where=source.where, expected=expected, found=found, code="bad_instances")
