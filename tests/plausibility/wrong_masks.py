"""Masks made wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.labels import LabelVolume, Status


def renamed(labels: LabelVolume, names: Mapping[str, str]) -> LabelVolume:
    """Classes under other names; ``{a: b, b: a}`` exchanges two."""
    new = tuple(names.get(name, name) for name in labels.names)
    status = {names.get(name, name): word for name, word in labels.status.items()}
    return replace(labels, names=new, status=status, notes={}, added_voxels={})


def exchanged(labels: LabelVolume, *pairs: tuple[str, str]) -> LabelVolume:
    """Names of twins, or of any two classes, exchanged."""
    return renamed(labels, {a: b for pair in pairs for a, b in (pair, pair[::-1])})


def without(labels: LabelVolume, names: Iterable[str], status: Status = Status.ABSENT) -> LabelVolume:
    """Classes looked for and not found, or (`Status.UNKNOWN`) not looked for."""
    gone = set(names)
    builder = LabelBuilder.resume(labels, without=gone)
    if status is Status.ABSENT:
        whole = tuple(slice(0, n) for n in labels.shape)
        for name in gone:
            builder.add_mask(name, whole, np.zeros(labels.shape, bool), status=status)
        return builder.build(labels.affine, labels.names)
    return builder.build(labels.affine, [name for name in labels.names if name not in gone])


def moved(mask: NDArray[np.bool_], by_ijk: tuple[int, int, int]) -> NDArray[np.bool_]:
    """A mask moved by whole voxels; what leaves the array is lost."""
    out = np.zeros_like(mask)
    to, came = [], []
    for n, by in zip(mask.shape, by_ijk[::-1], strict=True):
        to.append(slice(max(by, 0), n + min(by, 0)))
        came.append(slice(max(-by, 0), n + min(-by, 0)))
    out[tuple(to)] = mask[tuple(came)]
    return out


def cropped(labels: LabelVolume, **ranges: slice) -> LabelVolume:
    """A smaller field of view, by ranges along ``i``, ``j``, ``k``."""
    box = tuple(ranges.get(axis, slice(None)) for axis in "kji")
    first = [part.indices(n)[0] for part, n in zip(box[::-1], labels.shape[::-1], strict=True)]
    affine = labels.affine.copy()
    affine[:3, 3] = labels.grid.to_world(np.array(first, float))
    part = LabelVolume(
        np.ascontiguousarray(labels.atoms[box]), labels.membership, labels.names, affine, labels.status
    )
    # What is not in it is not there.
    counts = part.voxel_counts()
    status = {
        name: word if counts[name] or word is Status.UNKNOWN else Status.ABSENT
        for name, word in labels.status.items()
    }
    return replace(part, status=status)


def mirrored(labels: LabelVolume) -> LabelVolume:
    """Every voxel on the other side, under the name it had: masks flipped left to right."""
    return replace(labels, atoms=np.ascontiguousarray(labels.atoms[:, :, ::-1]))


def stored_otherwise(labels: LabelVolume) -> LabelVolume:
    """The same voxels in the same places, with axes in another order and one reversed."""
    nk = labels.shape[0]
    atoms = np.ascontiguousarray(labels.atoms.transpose(2, 0, 1)[:, ::-1])  # [i, k reversed, j]
    # New (i', j', k') = (j, nk - 1 - k, i).
    old_from_new = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, nk - 1], [0, 0, 0, 1.0]])
    return replace(labels, atoms=atoms, affine=labels.affine @ old_from_new)
