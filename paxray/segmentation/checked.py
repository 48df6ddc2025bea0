"""A segmenter run on one CT, and what it promises checked before anything relies on it."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError, PaxrayError
from paxray.io.cases import MaskSource
from paxray.io.volume import Volume
from paxray.parallel import threads
from paxray.segmentation.contract import Request, Segmenter

_HAS_VOXELS = (Status.PRESENT, Status.PARTIAL)


def device_of(segmenter: Segmenter, device: Literal["cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Where a segmenter computes in a build that projects on a device: there, if it can use it."""
    return device if device in segmenter.devices else "cpu"


def run_segmenter(
    segmenter: Segmenter,
    ct: Volume,
    catalog: Catalog,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    where: str = "",
    masks: Sequence[MaskSource] = (),
    base: Path | None = None,
) -> LabelVolume:
    """Segment one CT within this process's limit of threads, in a scratch folder that is removed afterwards.

    Parameters
    ----------
    segmenter, ct, catalog
        What segments what, and the classes known.
    device
        Resolved; a segmenter that cannot use it computes on the CPU, as `Segmenter.devices` says openly.
    where
        How messages name the CT.
    masks, base
        As in `Request`.

    Raises
    ------
    CaseError
        What the segmenter raises; ``segmenter_failed`` for an exception that is not of this package;
        ``segmenter_empty`` where it found nothing at all; ``bad_segmentation`` where it breaks its contract.
    ResourceError
        The segmenter found out only now what the machine lacks.
    """
    with tempfile.TemporaryDirectory(prefix="paxray-segment-") as scratch:
        request = Request(
            ct=ct,
            catalog=catalog,
            scratch=Path(scratch),
            device=device_of(segmenter, device),
            threads=threads(),
            where=where,
            masks=tuple(masks),
            base=base,
        )
        try:
            labels = segmenter.segment(request)
        except PaxrayError:
            raise
        except (MemoryError, ImportError):
            raise  # each has a code of its own
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            # An OSError's words hold paths of this machine.
            words = (error.strerror or "") if isinstance(error, OSError) else str(error)
            raise CaseError(
                f"segmenter '{segmenter.name}' failed",
                where=where,
                found=f"{type(error).__name__}: {words}",
                code="segmenter_failed",
            ) from error
    require_promise(labels, segmenter, ct, catalog, where)
    if not any(status in _HAS_VOXELS for status in labels.status.values()):
        raise CaseError(
            f"segmenter '{segmenter.name}' found nothing at all",
            where=where,
            expected="at least one class with voxels",
            do="check that the CT shows what this segmenter looks for, in HU and lying as its header says",
            code="segmenter_empty",
        )
    return _in_order(labels, ct, catalog)


def _in_order(labels: LabelVolume, ct: Volume, catalog: Catalog) -> LabelVolume:
    """The same masks with atoms and classes in the order that reading them from a file gives."""
    named = {name: note for name, note in labels.notes.items() if name in labels.names}
    builder = LabelBuilder.resume(replace(labels, notes=named, added_voxels={}))
    return builder.finish(ct.affine, catalog)


def require_promise(
    labels: LabelVolume, segmenter: Segmenter, ct: Volume, catalog: Catalog, where: str = ""
) -> None:
    """Raise `CaseError` (code ``bad_segmentation``) where a result is not what every segmenter promises."""

    def broken(what: str, expected: str = "", found: str = "") -> CaseError:
        return CaseError(
            f"segmenter '{segmenter.name}': {what}",
            where=where,
            expected=expected,
            found=found,
            do="report it to whoever wrote the segmenter",
            code="bad_segmentation",
        )

    if not isinstance(labels, LabelVolume):
        raise broken("its result is not a LabelVolume", found=type(labels).__name__)
    if labels.shape != ct.shape:
        raise broken("its masks have another shape than the CT", str(ct.shape), str(labels.shape))
    if not np.allclose(labels.affine, ct.affine, rtol=0, atol=1e-6):
        raise broken(
            "its masks lie elsewhere than the CT", str(ct.affine.tolist()), str(labels.affine.tolist())
        )
    labels.check()
    for name in labels.names:
        if name not in catalog:
            raise broken(f"'{name}' is not the canonical name of a class")
    strangers = sorted(set(labels.names) - set(segmenter.classes(catalog)))
    if strangers:
        raise broken("its masks hold a class that it does not say it names", found=strangers[0])
    for name, voxels in labels.voxel_counts().items():
        status = labels.status[name]
        if (voxels > 0) != (status in _HAS_VOXELS):
            raise broken(f"'{name}' is said to be {status.value}", found=f"{voxels} voxels")
        if status is Status.UNKNOWN and not labels.notes.get(name):
            raise broken(f"'{name}' is unknown, and no note says why")
    for name, confidence in labels.confidence.items():
        if labels.status.get(name) not in _HAS_VOXELS:
            raise broken(f"it rates '{name}', which has no voxels")
        if not 0 <= confidence <= 1:
            raise broken(f"its confidence in '{name}' is out of range", "0 to 1", str(confidence))
