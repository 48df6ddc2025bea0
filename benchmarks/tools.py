"""What every measured tool looks like here, and paxray as the first of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes import Scene
from paxray.projection.project import Projection, project

#: What a tool's label maps hold: mm in the class, the class's part of the line integral, or whether it is met.
Kind = Literal["path", "share", "presence"]


class Tool(ABC):
    """A projector under measurement.

    One object holds one scene. `load` does what a user would do once for a volume (conversions, copies) and is not
    timed; `image` and the label methods do the work of one view, and are.

    Attributes
    ----------
    name
        In tables and result rows.
    package
        The distribution whose version is stated; empty where `version` knows better.
    image_is, labels_are
        What is computed, for the reader of the table; `labels_are` is empty where the tool has no labels.
    kind
        What the label maps hold.
    one_pass
        Whether one call yields the image and all classes. If not, `one_class` is timed, and image + labels
        is reckoned as the image and one such pass for each class.
    slow_labels
        Whether such a pass takes as long as an image; a quick run leaves it out.
    """

    name: str = ""
    package: str = ""
    image_is: str = ""
    labels_are: str = ""
    kind: Kind = "path"
    one_pass: bool = True
    slow_labels: bool = False

    def __init__(self, threads: int, device: str = "cpu") -> None:
        self.threads = threads
        self.device = device

    def missing(self) -> str:
        """Say why the tool cannot run here; empty if it can."""
        try:
            metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return f"{self.package} is not installed"
        return ""

    def available(self) -> bool:
        """Whether the tool can run here."""
        return not self.missing()

    def version(self) -> str:
        """Version of the tool."""
        return metadata.version(self.package)

    def takes(self, scene: Scene) -> bool:
        """Whether the tool can compute this scene's view."""
        return scene.view.beam == "cone"

    @abstractmethod
    def load(self, scene: Scene) -> None:
        """Take in the scene."""

    @abstractmethod
    def image(self) -> NDArray[np.floating]:
        """``(rows, columns)`` line integral of attenuation."""

    def image_and_labels(self) -> tuple[NDArray[np.floating], NDArray[Any]]:
        """Image, and ``(classes, rows, columns)`` maps of `kind`; for tools with `one_pass`."""
        raise NotImplementedError(f"{self.name} has no labels in one pass")

    def one_class(self, number: int) -> NDArray[Any]:
        """``(rows, columns)`` map of one class; for tools without `one_pass`."""
        raise NotImplementedError(f"{self.name} has no pass per class")

    def own_seconds(self) -> float | None:
        """Time of the last call by the tool's own clock, where calling it from outside would cost more."""
        return None


class Paxray(Tool):
    """This package."""

    name = "paxray"
    package = "paxray"
    image_is = "Joseph, bilinear in each slab"
    labels_are = "path length (mm) and presence of every class, overlap allowed"

    def missing(self) -> str:
        """It is what is being measured; a GPU that is asked for and not there stops the run."""
        return ""

    def version(self) -> str:
        """Of the source tree that is measured, installed or not."""
        from paxray._version import __version__

        return __version__

    def takes(self, scene: Scene) -> bool:
        """Any view."""
        return True

    def load(self, scene: Scene) -> None:
        """Nothing to convert."""
        self.scene = scene

    def image(self) -> NDArray[np.floating]:
        """Without labels."""
        found = self._project(["image"]).image
        assert found is not None
        return found

    def image_and_labels(self) -> tuple[NDArray[np.floating], NDArray[Any]]:
        """Path lengths; presence comes with them."""
        found = self._project(["image", "presence", "path"])
        assert found.image is not None
        assert found.path_mm is not None
        return found.image, found.path_mm

    def _project(self, want: list[str]) -> Projection:
        threads = self.threads if self.device == "cpu" else None
        device: Literal["cpu", "cuda"] = "cpu" if self.device == "cpu" else "cuda"
        return project(
            self.scene.mu, self.scene.labels, self.scene.view, want, device=device, threads=threads
        )


def our_map(scene: Scene, kind: Kind, classes: list[str], threads: int) -> NDArray[Any]:
    """``(classes, rows, columns)`` what paxray says of a few classes, to hold another tool's answer against."""
    found = project(
        scene.mu, scene.labels, scene.view, [kind], classes=classes, device="cpu", threads=threads
    )
    if kind == "presence":
        return np.stack([found.mask(name) for name in classes])
    answer = found.path_mm if kind == "path" else found.share
    assert answer is not None
    return answer
