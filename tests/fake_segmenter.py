"""A segmenter as a third party would offer it: quick, and able to fail in every way that a segmenter can."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import ResourceError
from paxray.segmentation.child import run_child
from paxray.segmentation.contract import Request, Segmenter, require_known_settings

#: What each instance was asked to do, in order; tests clear it.
CALLS: list[str] = []
CLASSES = ("body", "bones", "heart", "breast_left", "rib_left_1")


class Fake(Segmenter):
    """Bones by a threshold, soft tissue as heart, no breast; of a rib it says that it cannot tell."""

    name = "fake"
    devices = ("cpu",)

    def __init__(self, mode: str, threshold_hu: float) -> None:
        self.mode, self.threshold_hu = mode, threshold_hu

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Path) -> Fake:
        require_known_settings("fake", settings, ("mode", "threshold_hu"))
        return cls(settings.get("mode", "sound"), settings.get("threshold_hu", 200))

    def classes(self, catalog: Catalog) -> tuple[str, ...]:
        return tuple(name for name in catalog if name in CLASSES)

    def identity(self) -> Mapping[str, Any]:
        return {"version": 1, "threshold_hu": self.threshold_hu}

    def preflight(self, device: str) -> None:
        CALLS.append(f"preflight {device}")
        if self.mode == "no_weights":
            raise ResourceError("no weights", where="fake", do="fetch them", code="weights_missing")
        if self.mode == "no_licence":
            raise ResourceError("no licence", where="fake", do="get one", code="licence_refused")

    def segment(self, request: Request) -> LabelVolume:
        CALLS.append(f"segment {request.where}")
        hu = request.ct.array
        if self.mode in ("die", "hang"):
            limit_s = 0.3 if self.mode == "hang" else 60.0
            run_child(work, {"mode": self.mode}, request, segmenter="fake", time_limit_s=limit_s)
        if self.mode == "raise":
            raise ValueError("index 3 is out of bounds")
        if self.mode == "no_result":
            return None  # type: ignore[return-value]
        everywhere = tuple(slice(0, n) for n in hu.shape)
        builder = LabelBuilder(hu.shape)
        empty = np.zeros(hu.shape, bool)
        bones, heart = (
            (empty, empty) if self.mode == "empty" else (hu > self.threshold_hu, (hu > 20) & (hu < 60))
        )
        builder.add_mask("bones", everywhere, bones, confidence=0.25 if bones.any() else None)
        builder.add_mask("heart", everywhere, heart)
        if self.mode == "stranger":
            builder.add_mask("liver", everywhere, heart)
        builder.add_mask(
            "breast_left", everywhere, empty, confidence=0.5 if self.mode == "rates_absent" else None
        )
        note = "" if self.mode == "no_reason" else "it never can"
        builder.add_mask("rib_left_1", everywhere, empty, status=Status.UNKNOWN, note=note)
        affine = request.ct.affine
        if self.mode == "elsewhere":
            affine = affine + np.outer([1, 0, 0, 0], [0, 0, 0, 5])
        return builder.finish(affine, request.catalog)


def work(mode: str) -> None:
    """What the child process does."""
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def install(folder: Path) -> Path:
    """Write what pip would leave of a package that offers it; the folder then belongs on the path."""
    info = folder / "fake_segmenter-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake_segmenter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paxray.segmenters]\nfake = fake_segmenter:Fake\n")
    return folder
