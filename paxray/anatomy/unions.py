"""Union classes, from the membership table alone: no voxel is touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.voxels import BoolArray

#: Statuses of a class that was looked for throughout.
KNOWN = (Status.PRESENT, Status.ABSENT)


def derive(labels: LabelVolume, catalog: Catalog, names: Iterable[str] | None = None) -> LabelVolume:
    """Add the catalog's union classes to a label volume.

    A union's voxels are those of its own source, if it has one, together with those of its parts: a
    parent that its source drew smaller is closed over its parts. Its status:

    ===========  ====================================================================================
    ``present``  it has voxels, and its own source or all of its parts are known (present or absent)
    ``partial``  it has voxels, but neither is so
    ``absent``   it has none, and its own source or all of its parts are known
    ``unknown``  it has none, and neither is so
    ===========  ====================================================================================

    A part marked ``optional`` in the catalog (a thirteenth thoracic vertebra) that nobody looked for is
    left out of this account, unless nothing else is known either; so is a division, a part whose recipe
    starts from the class. Where a class has a recipe, its parts alone are the whole only if it has divisions; where it
    is marked ``more_than_parts`` (a sacrum, of which S1 alone is drawn) they are not.

    Parameters
    ----------
    labels
        Classes with sources of their own.
    catalog
        What is made of what.
    names
        Classes wanted beside those already there, synonyms allowed; one that nothing is known of gets an
        empty column and `Status.UNKNOWN`. By default every class of which something is known.

    Returns
    -------
    The same atoms under more columns, in catalog order, with `LabelVolume.added_voxels`. Deriving again changes
    nothing.
    """
    columns: dict[str, tuple[BoolArray, Status]] = {}

    def work_out(name: str) -> tuple[BoolArray, Status]:
        if name not in columns:
            column = np.zeros(len(labels.membership), np.bool_)
            own = labels.status.get(name, Status.UNKNOWN)
            if name in labels.status:
                column |= labels.membership[:, labels.index(name)]
            item = catalog.get(name)
            parts = [(part, *work_out(part)) for part in item.parts] if item else []
            for _, voxels, _ in parts:
                column |= voxels
            status = own
            if parts:
                # An optional part may be nowhere. A division is cut out of the class itself, so the class does
                # not wait for it; where all parts are known nevertheless, other sources drew them.
                proper = catalog.graph.proper_parts(name)
                asked = {p: s for p, _, s in parts if not (catalog[p].optional and s is Status.UNKNOWN)}
                required = [s for part, s in asked.items() if part in proper]
                # A recipe adds to the proper parts: without it they are not the whole. With divisions all parts are.
                plain = catalog[name].recipe is None and not catalog[name].more_than_parts
                some = ([required] if plain else []) + (
                    [list(asked.values())] if plain or len(required) < len(asked) else []
                )
                known = own in KNOWN or any(found and all(s in KNOWN for s in found) for found in some)
                # Every atom has voxels, so the column tells whether the class has.
                if column.any():
                    status = Status.PRESENT if known else Status.PARTIAL
                else:
                    status = Status.ABSENT if known else Status.UNKNOWN
            columns[name] = column, status
        return columns[name]

    if names is None:
        chosen = {name for name in catalog if work_out(name)[1] is not Status.UNKNOWN}
    else:
        chosen = {catalog.resolve(name) for name in names}
    chosen.update(labels.names)
    ordered = [name for name in catalog if name in chosen]
    ordered += [name for name in labels.names if name not in catalog]
    worked_out = [work_out(name) for name in ordered]
    membership = np.zeros((len(labels.membership), len(ordered)), np.bool_)
    for column, (voxels, _) in enumerate(worked_out):
        membership[:, column] = voxels
    status = {name: s for name, (_, s) in zip(ordered, worked_out, strict=True)}
    counts = labels.atom_counts()
    added: dict[str, int | None] = {}
    for name, (voxels, _) in zip(ordered, worked_out, strict=True):
        drawn = labels.status.get(name, Status.UNKNOWN) is not Status.UNKNOWN
        # What was derived before looks drawn: what was counted then tells.
        before = labels.added_voxels.get(name, 0 if drawn else None)
        if before is not None:
            before += int(counts[voxels & ~labels.membership[:, labels.index(name)]].sum())
        added[name] = before
    derived = replace(labels, membership=membership, names=tuple(ordered), status=status, added_voxels=added)
    return derived._keep_counts(counts)
