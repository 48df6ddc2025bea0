"""Which mask belongs to which CT: by voxel lattice, then place, then name; never by a toss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paxray.errors import CaseError
from paxray.io.dicom_header import References
from paxray.io.lattice import match_lattice
from paxray.io.naming import is_general
from paxray.io.volume import Grid

MaskKind = Literal["folder", "class", "segments", "multilabel"]


@dataclass(frozen=True)
class Note:
    """Something that a scan left out or did not understand: where, a code, and why in words."""

    where: str
    code: str
    message: str


@dataclass(frozen=True, eq=False)
class FoundCT:
    """A CT that a scan found.

    Parameters
    ----------
    path, where
        Absolute or as given, and relative to the scanned folder.
    parts
        Folders from the scanned one down to the one that holds it.
    words
        What it shares with its masks by name.
    grid
        Its lattice.
    patient_id, case_name
        Names for the case table; the case name may need a suffix to be unique.
    shared
        Whether its folder may hold several patients' files.
    inside
        For a DICOM series, the folder that holds the slices, where masks may lie as well.
    """

    path: Path
    where: str
    parts: tuple[str, ...]
    words: tuple[str, ...]
    grid: Grid
    patient_id: str
    case_name: str
    shared: bool
    inside: tuple[str, ...] | None = None

    @property
    def folder_names_patient(self) -> bool:
        """Whether the patient id came from the folder (not from the file's name or a DICOM header)."""
        return not self.shared and self.inside is None


@dataclass(frozen=True, eq=False)
class FoundMask:
    """A mask file or a folder of masks.

    Parameters
    ----------
    parts
        The folder that holds it.
    grids
        All its lattices; contours have none.
    references
        Of a DICOM segmentation, the series and frame of reference that it names, which decide before place and name.
    fits
        Raises `CaseError` for a CT on whose lattice it does not lie, where `grids` cannot say so.
    """

    path: Path
    where: str
    parts: tuple[str, ...]
    words: tuple[str, ...]
    grids: tuple[Grid, ...]
    kind: MaskKind
    references: References | None = None
    fits: Callable[[Grid], object] | None = None


def pair(cts: Sequence[FoundCT], masks: Sequence[FoundMask]) -> tuple[dict[str, list[FoundMask]], list[Note]]:
    """Return the masks of each CT (by its ``where``), and a note for every mask that has no one CT.

    Candidates are the CTs in the mask's folder, in the folder above it (unless both may be of other
    patients), and those that share its name's own words anywhere. The lattice decides among them, then the
    name. A DICOM segmentation goes by the series that it names.
    """
    by_place: dict[tuple[str, ...], list[FoundCT]] = defaultdict(list)
    by_words: dict[tuple[str, ...], list[FoundCT]] = defaultdict(list)
    for ct in cts:
        by_place[ct.parts].append(ct)
        if ct.inside is not None and ct.inside != ct.parts:
            by_place[ct.inside].append(ct)
        if ct.words:
            by_words[ct.words].append(ct)
    found: dict[str, list[FoundMask]] = defaultdict(list)
    notes: list[Note] = []
    for mask in sorted(masks, key=lambda mask: mask.where):
        near = by_place[mask.parts] + (by_place[mask.parts[:-1]] if _belongs_above(mask.parts) else [])
        alike = by_words[mask.words] if mask.words else []
        candidates = list({ct.where: ct for ct in near + alike}.values())
        if mask.references is not None:
            candidates = _referred(mask.references, cts, candidates)
            if mask.fits is None:
                # Contours are mm in a frame of reference: nothing else ties them to a CT.
                candidates = [ct for ct in candidates if ct.grid.origin is not None]
        chosen = _choose(mask, candidates, notes)
        if chosen is not None:
            found[chosen.where].append(mask)
    return dict(found), notes


def _referred(references: References, cts: Sequence[FoundCT], candidates: list[FoundCT]) -> list[FoundCT]:
    """Return the CTs of the series, or else of the frame of reference, that a mask names; wherever they lie.

    Where none of them is here, those nearby that are no DICOM: a series may have been converted.
    """
    dicom = [(ct, ct.grid.origin) for ct in cts if ct.grid.origin is not None]
    of_series = [ct for ct, origin in dicom if origin.series_uid in references.series_uids]
    of_frame = [ct for ct, origin in dicom if origin.frame_uid in references.frame_uids]
    return of_series or of_frame or [ct for ct in candidates if ct.grid.origin is None]


def _belongs_above(parts: tuple[str, ...]) -> bool:
    return bool(parts) and (is_general(parts[-1]) or not all(is_general(name) for name in parts[:-1]))


def _choose(mask: FoundMask, candidates: list[FoundCT], notes: list[Note]) -> FoundCT | None:
    if not candidates:
        text = "no CT in its folder, in the one above, or of its name"
        if mask.references is not None:
            text = "no CT of the series or frame of reference that it names"
        notes.append(Note(mask.where, "no_ct", text))
        return None
    fitting, misfit = [], ""
    for ct in candidates:
        try:
            covers = [match_lattice(grid, ct.grid, where=mask.where) for grid in mask.grids]
            if mask.fits is not None:
                mask.fits(ct.grid)
        except CaseError as error:
            misfit = misfit or f"{error.what} of {ct.where} ({error.found})"
            continue
        whole = all(
            tuple(part.stop - part.start for part in match.extent) == ct.grid.shape for match in covers
        )
        # Among several patients' files a partial overlap alone proves nothing; the name has to agree.
        if whole or ct.words == mask.words or not ct.shared:
            fitting.append(ct)
        else:
            misfit = misfit or f"covers a part of {ct.where}, whose name is another"
    if not fitting:
        notes.append(Note(mask.where, "mask_mismatch", misfit))
        return None
    if len(fitting) > 1:
        named = [ct for ct in fitting if ct.words == mask.words]
        beside = [ct for ct in named if ct.parts == mask.parts]
        fitting = beside if len(beside) == 1 else named or fitting
    if len(fitting) > 1:
        listed = ", ".join(ct.where for ct in fitting[:5])
        notes.append(Note(mask.where, "ambiguous", f"it fits {len(fitting)} CTs: {listed}"))
        return None
    return fitting[0]
