"""What every segmenter promises: a CT goes in, named masks on its own lattice come out, or a coded error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.io.cases import MaskSource
from paxray.io.volume import Volume


@dataclass(frozen=True, eq=False)
class Request:
    """One CT to segment, and what a segmenter may use for it.

    Attributes
    ----------
    ct
        HU on its own lattice. A segmenter that needs a file writes this one: file formats are read in one place.
    catalog
        The classes known; masks carry its canonical names.
    scratch
        An empty folder of the caller's, deleted afterwards.
    device
        Already resolved. A segmenter told ``cuda`` must compute there, or fail.
    threads
        How many the segmenter may use.
    where
        How messages name the CT.
    masks
        Mask files given with the case, for segmenters that read them.
    base
        Folder that vocabulary files in `masks` are relative to.
    """

    ct: Volume
    catalog: Catalog
    scratch: Path
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    where: str = ""
    masks: tuple[MaskSource, ...] = ()
    base: Path | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a segmenter found.

    Attributes
    ----------
    labels
        On the CT's lattice. A class that the segmenter names is present, absent (it looked, and there is none), partial
        (it could not look everywhere) or unknown, with a note that says why.
    confidence
        0 to 1, for present classes that the segmenter rates: that the name is right and the mask good. Not a
        probability.
    """

    labels: LabelVolume
    confidence: Mapping[str, float] = field(default_factory=dict)


class Segmenter(ABC):
    """CT to named masks. Implementations are cheap to make; all that is heavy happens in `segment`.

    A package offers one of its own by an entry point of the group ``paxray.segmenters``, and tests it by inheriting
    ``paxray.segmentation.conformance.SegmenterConformance``.
    """

    #: As pipelines write it.
    name: str

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Mapping[str, Any], base: Path) -> Segmenter:
        """Make one as a pipeline asks for.

        Parameters
        ----------
        settings
            The pipeline's keys but ``name``.
        base
            Folder that paths among them are relative to.

        Raises
        ------
        ConfigError
            For an unknown key or a value that cannot be used, naming it.
        """

    @abstractmethod
    def classes(self, catalog: Catalog) -> tuple[str, ...]:
        """Canonical names of all classes that it looks for, in catalog order."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that decides its masks beside the CT, as JSON: version, settings, digest of the weights.

        Machine, paths and times are no part of it.
        """

    @abstractmethod
    def preflight(self, device: Literal["cpu", "cuda"]) -> None:
        """Check before a build starts that it can run here, without segmenting.

        Raises
        ------
        ResourceError
            ``package_missing``, ``weights_missing`` (with the folder looked in and the command that gets them),
            ``licence_refused``, ``environment``.
        """

    @abstractmethod
    def segment(self, request: Request) -> Segmentation:
        """Segment one CT.

        Raises
        ------
        CaseError
            ``segmenter_crashed``, ``segmenter_timeout``, ``segmenter_empty``, ``segmenter_fell_back`` (it used another
            device than told), ``segmenter_failed`` with its own words; and what the CT itself gives cause for.
        """
