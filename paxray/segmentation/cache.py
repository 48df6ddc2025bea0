"""Segmentations kept on disk under what made them, so that no CT is segmented twice."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.errors import PaxrayError, ResourceError
from paxray.files import digest, sha256_of, sync_folder, write_json
from paxray.io.cases import MaskSource
from paxray.io.volume import Grid
from paxray.segmentation.contract import Segmenter
from paxray.segmentation.files import read_masks
from paxray.segmentation.written import write_label_map
from paxray.stages import STAGE_VERSIONS

#: Raised when what lies in the cache would be read otherwise.
CACHE_VERSION = 1
_LABELS, _VOCABULARY, _ENTRY = "labels.nii.gz", "labels.yaml", "entry.json"
#: A hidden folder: an entry that is being written, or one on its way out.
_HIDDEN = re.compile(r"\..+-[0-9a-f]{32}\..+")
#: Nobody works on a hidden folder in which nothing was written for so long; an entry takes seconds.
LEFT_AFTER_S = 3600.0


def fingerprint(segmenter: Segmenter, catalog: Catalog, device: str) -> dict[str, Any]:
    """All that decides a segmentation beside the CT's content, as JSON values.

    Parameters
    ----------
    segmenter
        Its name, settings, version and weights, by `Segmenter.identity`.
    catalog
        Classes are kept under its names, and it says which of a model's labels is which (`Segmenter.meanings`).
    device
        Where the segmenter computes.
    """
    return {
        "segmenter": segmenter.name,
        "device": device,
        "io": STAGE_VERSIONS["io"],
        "classes": digest([segmenter.classes(catalog), segmenter.meanings(catalog)])[:16],
        **{f"identity.{key}": value for key, value in segmenter.identity().items()},
    }


class SegmentationCache:
    """A folder of segmentations, shared at will between data sets and processes.

    An entry is a folder named by its key: a label map with its vocabulary (`paxray.segmentation.written`), which any
    command reads as masks, and ``entry.json`` with what made them and their SHA-256. It is written under a hidden name
    of its own and renamed, so it is whole or not there; one that has changed since is made again.

    Any number of processes on any number of hosts may use one folder at a time; nothing is locked. What a killed
    process leaves is a hidden folder, which the next `put` after an hour (`LEFT_AFTER_S`) removes. Its age decides, by
    the clock of whoever stores the folder: the id of a process tells nothing to another host or container. Who stood
    still for an hour in the midst of writing an entry therefore fails its case.

    Parameters
    ----------
    folder
        Made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require_writable(self) -> None:
        """Write into the folder, or where it is to be made, so that hours of segmenting do not end at a closed door.

        Raises
        ------
        ResourceError
            It cannot be made or written to.
        """
        try:
            standing = self.folder
            while not standing.exists():
                standing = standing.parent
            # Where the folder is to be made, so that none has to be taken away again under another process.
            with tempfile.TemporaryDirectory(dir=standing, prefix=".paxray-"):
                pass
        except OSError as error:
            raise ResourceError(
                "segmentations cannot be kept",
                where=str(self.folder),
                expected="a folder that can be made and written to",
                found=error.strerror or str(error),
                do="name another one with --segmentations",
            ) from error

    def path_of(self, ct_hash: str, made_by: Mapping[str, Any]) -> Path:
        """Where the segmentation of a CT lies, whether it is there or not."""
        key = digest({"cache": CACHE_VERSION, "ct": ct_hash, **made_by})
        return self.folder / f"{made_by['segmenter']}-{key[:32]}"

    def get(
        self, ct_hash: str, made_by: Mapping[str, Any], grid: Grid, catalog: Catalog
    ) -> tuple[LabelVolume | None, str]:
        """What is kept of a CT, and what is wrong with it.

        Returns
        -------
        labels, complaint
            No labels where nothing is kept, or where what is kept is damaged; then the complaint is not empty.
        """
        path = self.path_of(ct_hash, made_by)
        if not path.is_dir():
            return None, f"{path.name} is no folder" if os.path.lexists(path) else ""
        try:
            entry = json.loads((path / _ENTRY).read_text(encoding="utf-8"))
            for name in (_LABELS, _VOCABULARY):
                if sha256_of(path / name) != entry["sha256"][name]:
                    return None, f"{path.name}/{name} is not what was written"
            source = MaskSource(path / _LABELS, str(path.absolute() / _VOCABULARY), f"{path.name}/{_LABELS}")
            return read_masks([source], grid, catalog), ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"{path.name} cannot be read ({type(error).__name__})"
        except PaxrayError as error:
            return None, f"{path.name}: {error.what}"

    def put(self, ct_hash: str, made_by: Mapping[str, Any], labels: LabelVolume, catalog: Catalog) -> None:
        """Keep a segmentation, unless one that can be read is kept by now; a damaged one makes way.

        So of several processes that segmented the same CT at the same time, none fails and the first one's stays.
        """
        path = self.path_of(ct_hash, made_by)
        hidden = _hidden(path)
        try:
            write_label_map(hidden / _LABELS, labels, segmenter=str(made_by["segmenter"]))
            sums = {name: sha256_of(hidden / name) for name in (_LABELS, _VOCABULARY)}
            write_json(hidden / _ENTRY, {"ct": ct_hash, "made_by": dict(made_by), "sha256": sums})
            # A turn is lost only where another process moved its own in meanwhile, as each does once.
            while not _moved_in(hidden, path):
                if self.get(ct_hash, made_by, labels.grid, catalog)[0] is not None:
                    break
                _move_away(path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        _remove_leftovers(self.folder)


def _hidden(path: Path) -> Path:
    """A name beside an entry that no other process has, on whatever host."""
    return path.with_name(f".{path.name}.{uuid4().hex}")


def _moved_in(new: Path, path: Path) -> bool:
    """Rename a folder into place, unless something stands there."""
    try:
        new.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    sync_folder(path.parent)
    return True


def _move_away(path: Path) -> None:
    """Rename what stands at an entry's place out of the way, unless another process has done so, and remove it.

    Of a link the link alone goes.
    """
    old = _hidden(path)
    try:
        path.rename(old)
    except FileNotFoundError:
        return
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove hidden folders in which nothing was written for `LEFT_AFTER_S` before the last change of `folder`."""
    now_s = folder.stat().st_mtime
    for path in folder.iterdir():
        if not _HIDDEN.fullmatch(path.name):
            continue
        try:
            written_s = max(file.stat().st_mtime for file in (path, *path.iterdir()))
        except OSError:
            continue  # it has just been finished or removed
        if now_s - written_s > LEFT_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)
