"""Segmentation as a step of a build: which cases need it, what it is known by, and a case's masks with what it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.config import Pipeline
from paxray.files import digest
from paxray.io.cases import Case
from paxray.io.volume import Volume
from paxray.segmentation.combine import MARK, Rule, consensus, require_distinct

if TYPE_CHECKING:
    from paxray.segmentation.contract import Segmenter

#: Where results are kept unless told: beside the data set, for all that are built there.
FOLDER = "paxray_segmentations"


def is_segmented(case: Case, pipeline: Pipeline) -> bool:
    """Whether a pipeline's segmenters look at a case."""
    chosen = pipeline.segmentation
    return bool(chosen.segmenter) and (chosen.cases == "all" or not case.masks)


def segmenters_of(pipeline: Pipeline) -> tuple[Segmenter, ...]:
    """Make a pipeline's segmenters, in order of precedence; `ConfigError` for a name or a setting that is not known."""
    from paxray.segmentation.registry import make_segmenter

    return tuple(
        make_segmenter(one.name, one.settings, pipeline.base) for one in pipeline.segmentation.segmenter
    )


@dataclass(frozen=True)
class Segmentations:
    """What segments the cases of a build, and where the results are kept; small enough to go to a worker.

    Attributes
    ----------
    folder
        The cache's.
    made_by
        Each segmenter's fingerprint, in order of precedence.
    combine
        What several make together.
    """

    folder: Path
    made_by: tuple[Mapping[str, Any], ...]
    combine: Rule = "order"

    @classmethod
    def of(
        cls, pipeline: Pipeline, catalog: Catalog, device: Literal["cpu", "cuda"], folder: Path
    ) -> Segmentations:
        """Work out the segmenters' fingerprints, which may mean reading weights.

        Raises
        ------
        ConfigError, ResourceError
            As `segmenters_of`, `Segmenter.identity` and `require_distinct`.
        """
        from paxray.segmentation.cache import fingerprint
        from paxray.segmentation.checked import device_of

        segmenters = segmenters_of(pipeline)
        made_by = tuple(fingerprint(one, catalog, device_of(one, device)) for one in segmenters)
        require_distinct(made_by, "segmentation.segmenter")
        return cls(folder, made_by, pipeline.segmentation.combine)

    @property
    def identity(self) -> str:
        """Digest of all that decides the masks beside the CT."""
        return digest([self.combine, *(dict(one) for one in self.made_by)])

    def missing(self, ct_hashes: Iterable[str]) -> tuple[int, ...]:
        """Which segmenters have work to do on any of these CTs."""
        from paxray.segmentation.cache import SegmentationCache

        cache, hashes = SegmentationCache(self.folder), list(ct_hashes)
        return tuple(
            n
            for n, made_by in enumerate(self.made_by)
            if any(not cache.path_of(ct, made_by).is_dir() for ct in hashes)
        )

    def require_writable(self) -> None:
        """As `SegmentationCache.require_writable`."""
        from paxray.segmentation.cache import SegmentationCache

        SegmentationCache(self.folder).require_writable()

    def add_to(
        self,
        labels: LabelVolume,
        ct: Volume,
        case: Case,
        ct_hash: str,
        pipeline: Pipeline,
        catalog: Catalog,
        base: Path | None = None,
        tell: Callable[[str, str], None] = lambda kind, message: None,
    ) -> LabelVolume:
        """Add what the segmenters find to a case's own masks, which come first, and where segmenters disagree.

        Parameters
        ----------
        labels
            Masks given with the case, on the CT's lattice.
        ct_hash
            Content of the CT's files.
        base
            Folder that vocabulary files in the case table are relative to.
        tell
            Called with ``segmenting`` and the segmenter's name before it starts, and with ``note`` and a sentence
            where something that was kept cannot be used.

        Raises
        ------
        CaseError
            As `paxray.segmentation.checked.run_segmenter`.
        """
        from paxray.segmentation.cache import SegmentationCache
        from paxray.segmentation.checked import run_segmenter

        cache = SegmentationCache(self.folder)
        parts = []
        for segmenter, made_by in zip(segmenters_of(pipeline), self.made_by, strict=True):
            found, complaint = cache.get(ct_hash, made_by, ct.grid, catalog)
            if complaint:
                tell("note", f"kept segmentation {complaint}: segmented again")
            if found is None:
                tell("segmenting", segmenter.name)
                found = run_segmenter(
                    segmenter,
                    ct,
                    catalog,
                    device=made_by["device"],
                    where=case.ct_where,
                    masks=case.masks,
                    base=base,
                )
                cache.put(ct_hash, made_by, found, catalog)
            parts.append(found)
        together = consensus(parts, self.combine, catalog) if len(parts) > 1 else parts[0]
        given = {name for name, status in labels.status.items() if status is not Status.UNKNOWN}
        disputed = [
            name for name in together.names if name.endswith(MARK) and name.removesuffix(MARK) not in given
        ]
        builder = LabelBuilder.resume(labels)
        builder.add_labels(
            together.keep([name for name in together.names if not name.endswith(MARK)] + disputed)
        )
        named = {*labels.names, *together.names}
        return builder.build(ct.affine, [*(name for name in catalog if name in named), *disputed])
