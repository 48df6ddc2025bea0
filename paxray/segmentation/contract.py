"""What every segmenter promises: a CT goes in, named masks on its own lattice come out, or a coded error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume
from paxray.errors import ConfigError, suggest
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
        Already resolved, and one of `Segmenter.devices`. A segmenter told ``cuda`` must compute there, or fail.
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


class Segmenter(ABC):
    """CT to named masks. Implementations are cheap to make; all that is heavy happens in `segment`.

    A package offers one of its own by an entry point of the group ``paxray.segmenters``, and tests it by inheriting
    ``paxray.segmentation.conformance.SegmenterConformance``.
    """

    #: As pipelines write it.
    name: ClassVar[str]
    #: Where it can compute. One that has no use for a GPU says ``("cpu",)`` and is never told another.
    devices: ClassVar[tuple[Literal["cpu", "cuda"], ...]] = ("cpu", "cuda")

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
            For an unknown key (`require_known_settings`) or a value that cannot be used, naming it.
        """

    @abstractmethod
    def classes(self, catalog: Catalog) -> tuple[str, ...]:
        """Canonical names of all classes that it may name, in catalog order."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that decides its masks beside the CT, as JSON: version, settings, digest of the weights.

        Machine, paths and times are no part of it.

        Raises
        ------
        ResourceError
            As `preflight`, where what it is made of (weights, a package) is not there.
        """

    def meanings(self, catalog: Catalog) -> Any:
        """What its own labels stand for in a catalog, as JSON; kept masks count only while this is the same.

        One that turns labels into classes by a catalog's names and synonyms says which label is which class. For others
        the classes are enough.
        """
        return list(self.classes(catalog))

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
    def segment(self, request: Request) -> LabelVolume:
        """Segment one CT.

        Returns
        -------
        LabelVolume
            On the CT's lattice, its classes among `classes`. A class is present, absent (it looked, and there is none),
            partial (it could not look everywhere), or unknown with a note that says why; a class left out is unknown.
            `LabelVolume.confidence` for present classes that it rates.

        Raises
        ------
        CaseError
            ``segmenter_crashed``, ``segmenter_timeout``, ``segmenter_fell_back`` (it used another device than told),
            ``segmenter_failed`` with its own words; and what the CT itself gives cause for. Who calls adds
            ``segmenter_empty`` and ``bad_segmentation`` (`paxray.segmentation.checked`).
        """


def require_known_settings(segmenter: str, settings: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse the first setting that a segmenter does not know, and suggest the nearest that it does."""
    known = list(known)
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"segmenter '{segmenter}' has no setting '{key}'",
                where="segmentation.segmenter",
                expected=", ".join(known) or "no settings",
                do=suggest(str(key), known),
            )
