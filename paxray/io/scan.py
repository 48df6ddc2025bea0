"""Look through a folder for CTs and the masks that go with them: the start of a case table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from paxray.errors import CaseError, ConfigError
from paxray.io.cases import BY_NAME, Case, MaskSource, can_name, can_name_vocabulary
from paxray.io.dicom import stack_grid
from paxray.io.dicom_rtstruct import Contours
from paxray.io.dicom_seg import DicomSegments
from paxray.io.dicom_series import find_ct_series, has_dicom_magic
from paxray.io.naming import is_general, keyed_hash, matching_key, own_words, patient_name, short_hash, slug
from paxray.io.pairing import FoundCT, FoundMask, MaskKind, Note, pair
from paxray.io.probe import probe_image
from paxray.io.seg_nrrd import SlicerSegments
from paxray.io.segments import SEG_NRRD, Segment, open_segments
from paxray.io.stored import image_stem, image_suffix, sidecar_of
from paxray.io.walk import Folder, walk

#: Codes of notes on masks that reach no row.
UNUSED_MASK = ("unnamable_mask", "vocabulary_unknown", "mask_mismatch", "ambiguous", "no_ct")
#: Code of the note on a CT that no case table can name.
UNNAMABLE_CT = "unnamable_ct"
_MANY_CTS = 8
_UNNAMABLE = (
    "left out: its path cannot stand in a case table; rename the folder or file that has ';' or a line break in its "
    "name, or a space at an end"
)
_NEVER_DICOM = (".json", ".txt", ".md", ".csv", ".xlsx", ".pdf", ".png", ".jpg", ".xml", ".gz", ".raw")


@dataclass(frozen=True)
class ScanResult:
    """Cases found, by case id, and what was left out or not understood, by path."""

    cases: tuple[Case, ...]
    notes: tuple[Note, ...]


@dataclass
class _Findings:
    cts: list[FoundCT] = field(default_factory=list)
    masks: list[FoundMask] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def note(self, error: CaseError) -> None:
        detail = f" ({error.found})" if error.found else ""
        self.notes.append(Note(error.where, error.code, error.what + detail))


def scan(
    folder: Path,
    *,
    key: str,
    known_classes: Collection[str] = (),
    known_segment: Callable[[Segment], bool] | None = None,
    default_vocabulary: str = "totalsegmentator_v2",
    is_vocabulary: Callable[[Path], bool] = lambda file: True,
    table_folder: Path | None = None,
) -> ScanResult:
    """Find CTs (NIfTI, NRRD, MetaImage, DICOM) and their masks below a folder.

    What is a CT is decided by content; what goes together, by voxel lattice first, then place, then name; a DICOM SEG
    or RTSTRUCT goes by the series that it names, wherever it lies. A folder with one file per class is recognised by
    the class names. Nothing is guessed where two answers fit: it is noted instead.

    Parameters
    ----------
    key
        Secret under which DICOM patient ids are hashed; the same key gives the same ids again.
    known_classes
        Names by which files and segments of single classes are recognised, whatever their case.
    known_segment
        Whether a file's name or a named segment means a class; by ``known_classes`` unless given.
    default_vocabulary
        Vocabulary of multilabel files beside which there is none (``a.yaml`` for ``a.nii.gz``).
    is_vocabulary
        Whether a YAML file beside a multilabel file is one; ConfigError where it is, and cannot be used. Unless given,
        each is taken for one unread.
    table_folder
        Where the case table is to lie, which names such files from there; ``folder`` unless given.

    Returns
    -------
    Cases whose paths are relative to ``folder``; the order depends on the paths alone.

    Raises
    ------
    ConfigError
        Where ``folder`` is no folder, or ``key`` is empty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError("there is no such folder to scan", where=str(folder), code="missing_file")
    if not key:
        raise ConfigError(
            "the key for patient ids is empty",
            expected="a secret of your own",
            do="choose one and keep it: without it the ids could be undone by trying",
        )
    findings = _Findings()
    known = frozenset(name.casefold() for name in known_classes)
    means = known_segment or (lambda segment: segment.name.casefold() in known)
    for place in walk(folder, findings.notes):
        _look_at_images(place, folder, means, findings)
        _look_at_dicom(place, folder, key, means, findings)
    masks, notes = pair(findings.cts, findings.masks)
    findings.notes += notes
    cases = []
    beside = _Beside(default_vocabulary, is_vocabulary, table_folder or folder)
    for ct, case_id in zip(findings.cts, _case_ids(findings.cts), strict=True):
        if not can_name(ct.path, beside.table_folder):
            findings.notes.append(Note(ct.where, UNNAMABLE_CT, _UNNAMABLE))
            continue
        sources = _sources(ct, masks.get(ct.where, []), beside, findings.notes)
        cases.append(Case(case_id, ct.patient_id, ct.path, ct.where, sources))
    findings.notes += _crowded(findings.cts)
    return ScanResult(
        tuple(sorted(cases, key=lambda case: case.case_id)),
        tuple(sorted(findings.notes, key=lambda note: (note.where, note.code, note.message))),
    )


def _look_at_images(place: Folder, root: Path, means: Callable[[Segment], bool], findings: _Findings) -> None:
    images = [file for file in place.files if image_suffix(file)]
    named_segments = [file for file in images if file.name.lower().endswith(SEG_NRRD)]
    for file in named_segments:
        _add_segments(file, "/".join([*place.parts, file.name]), place, means, findings)
    images = [file for file in images if file not in named_segments]
    parts = place.parts
    named = {f for f in images if means(Segment(image_stem(f), "/".join([*parts, f.name])))}
    members: list[FoundMask] = []
    others = len(named_segments)
    for file in images:
        where = "/".join([*parts, file.name])
        try:
            probe = probe_image(file, where=where, named_mask=file in named)
        except CaseError as error:
            findings.note(error)
            others += file not in named
            continue
        stem = image_stem(file)
        if probe.kind == "other":
            findings.notes.append(Note(where, "not_understood", probe.reason))
            others += 1
        elif probe.kind == "ct":
            others += 1
            words = matching_key(parts, stem)
            patient = patient_name(parts, stem, root.resolve().name)
            case_name = slug("_".join([*parts, stem]))
            findings.cts.append(
                FoundCT(file, where, parts, words, probe.grid, patient, case_name, place.shared)
            )
        else:
            kind: MaskKind = "class" if file in named else "multilabel"
            members.append(FoundMask(file, where, parts, matching_key(parts, stem), (probe.grid,), kind))
    classes = [mask for mask in members if mask.kind == "class"]
    if parts and classes and not others and 2 * len(classes) > len(members):
        _add_class_folder(place, members, findings)
    else:
        findings.masks += members


def _add_class_folder(place: Folder, members: list[FoundMask], findings: _Findings) -> None:
    *outer, name = place.parts
    where = "/".join(place.parts)
    unknown = [mask.path.name for mask in members if mask.kind != "class"]
    if unknown:
        text = f"{len(unknown)} files whose names are no known class: {', '.join(unknown[:5])}"
        findings.notes.append(Note(where, "unknown_class", text))
    grids = tuple(mask.grids[0] for mask in members)
    words = matching_key(outer, name)
    findings.masks.append(FoundMask(place.path, where, tuple(outer), words, grids, "folder"))


def _add_segments(
    file: Path, where: str, place: Folder, means: Callable[[Segment], bool], findings: _Findings
) -> None:
    """Note a file of named segments as a mask, unless none of its names means a class."""
    try:
        (opened,) = open_segments(file, where=where)
    except CaseError as error:
        findings.note(error)
        return
    unknown = [segment.name for segment in opened.segments if not means(segment)]
    if unknown:
        left_out = len(unknown) == len(opened.segments)
        text = (
            f"{'left out: ' if left_out else ''}{len(unknown)} of {len(opened.segments)} {opened.word}s mean no known "
            f"class: {', '.join(unknown[:5])}; name them in a vocabulary of `names`"
        )
        findings.notes.append(Note(where, "unknown_class", text))
        if left_out:
            return
    stem = file.name[: -len(SEG_NRRD)] if file.name.lower().endswith(SEG_NRRD) else file.stem
    words = matching_key(place.parts, stem)
    found = FoundMask(file, where, place.parts, words, (), "segments")
    if isinstance(opened, SlicerSegments):
        found = replace(found, grids=(opened.header.grid,))
    elif isinstance(opened, DicomSegments):
        planes = opened.planes
        found = replace(found, references=opened.references, fits=lambda grid: planes.on(grid, where))
    elif isinstance(opened, Contours):
        found = replace(found, references=opened.references)
    findings.masks.append(found)


def _look_at_dicom(
    place: Folder, root: Path, key: str, means: Callable[[Segment], bool], findings: _Findings
) -> None:
    where = "/".join(place.parts) or root.resolve().name
    if not any(_is_dicom(file, where, findings.notes) for file in place.files):
        return
    try:
        inventory = find_ct_series(place.path, where=where)
        for file in inventory.segmentations:
            _add_segments(file, "/".join([*place.parts, file.name]), place, means, findings)
        if not inventory.series and inventory.segmentations:
            return
        if len(inventory.series) != 1:
            if inventory.series:
                code, text = "several_series", "; ".join(one.describe() for one in inventory.series)
            else:
                code = "no_ct_series"
                text = ", ".join(f"{n} x {why}" for why, n in sorted(inventory.left_out.items()))
            findings.notes.append(Note(where, code, text))
            return
        series = inventory.series[0]
        grid = stack_grid(series, where=where)
    except CaseError as error:
        findings.note(error)
        return
    patient = "p" + keyed_hash(f"id {series.patient_id}" if series.patient_id else f"path {where}", key)
    name = f"{patient}-{keyed_hash(f'series {series.uid}' if series.uid else f'path {where}', key, 8)}"
    ct_where = "/".join(place.parts) or "."
    *outer, own = place.parts or (root.resolve().name,)
    findings.cts.append(
        FoundCT(
            path=place.path,
            where=ct_where,
            parts=tuple(outer),
            words=matching_key(outer, own),
            grid=grid,
            patient_id=patient,
            case_name=name,
            shared=all(is_general(part) for part in outer),
            inside=place.parts,
        )
    )


def _is_dicom(file: Path, where: str, notes: list[Note]) -> bool:
    if image_suffix(file) or file.suffix.lower() in _NEVER_DICOM:
        return False
    try:
        return has_dicom_magic(file)
    except OSError as error:
        notes.append(Note(f"{where}/{file.name}", "unreadable", error.strerror or "cannot be opened"))
        return False


def _case_ids(cts: list[FoundCT]) -> list[str]:
    counts = Counter(ct.case_name for ct in cts)
    return [
        ct.case_name if counts[ct.case_name] == 1 else f"{ct.case_name}-{short_hash(ct.where)}" for ct in cts
    ]


@dataclass(frozen=True)
class _Beside:
    """The vocabularies that lie beside label maps, as `paxray segment` writes them."""

    default: str
    is_vocabulary: Callable[[Path], bool]
    table_folder: Path

    def vocabulary_of(self, label_map: FoundMask, notes: list[Note]) -> str:
        """The one to read a label map by; empty, with a note, where it has its own and that cannot be named or used."""
        file = sidecar_of(label_map.path, ".yaml")
        if not file.is_file():
            return self.default
        try:
            if not self.is_vocabulary(file):
                text = f"{file.name} beside it is no vocabulary: its values are read by {self.default}"
                notes.append(Note(label_map.where, "no_vocabulary", text))
                return self.default
            reason = "" if can_name_vocabulary(file, self.table_folder) else "cannot stand in a case table"
            do = "rename the folder or file that has ';' or '=' in its name"
        except ConfigError as error:
            reason = f"cannot be used: {error.what}" + (f" ({error.found})" if error.found else "")
            do = "correct the file, or take it away"
        if reason:
            text = f"left out: its vocabulary {file.name} {reason}; {do}"
            notes.append(Note(label_map.where, "vocabulary_unknown", text))
            return ""
        return str(file.absolute())


def _sources(
    ct: FoundCT, masks: list[FoundMask], beside: _Beside, notes: list[Note]
) -> tuple[MaskSource, ...]:
    """Return a CT's masks: those that bear names, else its one multilabel file."""
    named = [mask for kind in ("folder", "class", "segments") for mask in masks if mask.kind == kind]
    plain = [mask for mask in masks if mask.kind == "multilabel"]

    def can_stand(mask: FoundMask) -> bool:
        if can_name(mask.path, beside.table_folder):
            return True
        notes.append(Note(mask.where, "unnamable_mask", _UNNAMABLE))
        return False

    sources = [MaskSource(mask.path, BY_NAME, mask.where) for mask in named if can_stand(mask)]
    if len(plain) == 1 and not named:
        [mask] = plain
        if can_stand(mask) and (vocabulary := beside.vocabulary_of(mask, notes)):
            sources.append(MaskSource(mask.path, vocabulary, mask.where))
        return tuple(sources)
    reason = "masks that bear names are there already"
    if not named:
        reason = f"{len(plain)} multilabel files fit {ct.where}, and each may have another vocabulary"
    for mask in plain:
        text = f"left out: {reason}; add it to the row as PATH=VOCABULARY to use it"
        notes.append(Note(mask.where, "vocabulary_unknown", text))
    return tuple(sources)


def _crowded(cts: list[FoundCT]) -> list[Note]:
    """Return a note for every folder taken for one patient that holds many CTs."""
    notes = []
    by_folder = Counter((ct.parts, ct.patient_id) for ct in cts if ct.folder_names_patient)
    for (parts, patient), count in sorted(by_folder.items()):
        distinct = {own_words(image_stem(ct.path)) for ct in cts if ct.parts == parts}
        if count > _MANY_CTS and len(distinct) > _MANY_CTS:
            text = f"{count} CTs in one folder are taken for one patient, '{patient}'"
            notes.append(Note("/".join(parts), "one_patient", text + "; edit patient_id if they are several"))
    return notes
