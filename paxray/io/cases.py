"""The case table: a plain CSV that says which CT goes with which masks, whose it is and under what terms."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paxray.errors import ConfigError

COLUMNS = ("case_id", "patient_id", "ct", "masks", "vocabulary", "source", "license", "instances")
REQUIRED = ("case_id", "ct")
BY_NAME = "by_name"  # the vocabulary of masks whose file names are their classes
SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # no leading dot: a case id becomes part of file names

#: A vocabulary's file, whose path may have blanks; labels of a row's own may follow (``a.yaml+118:liver``).
_VOCABULARY_FILE = re.compile(r"\.ya?ml(\+|$)")


@dataclass(frozen=True)
class MaskSource:
    """A mask file or folder and the vocabulary that names its channels.

    Parameters
    ----------
    path
        One multilabel file, or a folder or a file whose masks bear names.
    vocabulary
        Name of the vocabulary; ``by_name`` where the catalog alone says what names mean.
    where
        The path as the table writes it.
    """

    path: Path
    vocabulary: str
    where: str


@dataclass(frozen=True)
class Case:
    """One CT and what belongs to it; a row of the case table.

    Parameters
    ----------
    case_id
        Unique; letters, digits, ``.``, ``_`` and ``-``.
    patient_id
        What splits are keyed by.
    ct
        CT file or DICOM folder.
    ct_where
        The path as the table writes it.
    masks
        In order of precedence: a later one never overrides an earlier one.
    source, license
        Free text, may be empty.
    instances
        Masks with one id per lesion; their `MaskSource.vocabulary` is the class of the lesions, or empty.
    patient_assumed
        The table names no patient, so the case counts as a patient of its own.
    extra
        The table's other columns.
    """

    case_id: str
    patient_id: str
    ct: Path
    ct_where: str
    masks: tuple[MaskSource, ...] = ()
    source: str = ""
    license: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    patient_assumed: bool = False
    instances: tuple[MaskSource, ...] = ()


def read_case_table(path: Path) -> list[Case]:
    """Read a case table.

    Columns ``case_id`` and ``ct`` are required; ``patient_id`` is the case id unless given. ``masks`` is one
    path, whose vocabulary the column ``vocabulary`` names, or ``PATH=VOCABULARY`` several times, separated by
    ``;``. ``instances`` is ``PATH=CLASS``, separated by ``;``: masks with one id per lesion of a class. Paths
    are relative to the table; whether they exist is not looked at here.

    Raises
    ------
    ConfigError
        For a table that cannot be used as written, naming file, line and column.
    """
    path = Path(path)
    rows = _records(path)
    if not rows:
        raise ConfigError(
            "the case table is empty", where=path.name, expected=f"a header row: {', '.join(COLUMNS)}"
        )
    header = _header(rows[0][1], path.name)
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for line, cells in rows[1:]:
        where = f"{path.name}:{line}"
        if len(cells) != len(header):
            raise ConfigError(
                "the row does not have one cell per column",
                where=where,
                expected=f"{len(header)} cells",
                found=f"{len(cells)}",
                do="quote cells that contain commas",
            )
        case = _case(dict(zip(header, cells, strict=True)), path.parent, where)
        if case.case_id.casefold() in lines:
            raise ConfigError(
                "the case id is used twice",
                where=f"{where}, column case_id",
                expected="an id of its own for every case",
                found=f"'{case.case_id}', which line {lines[case.case_id.casefold()]} has already (upper and lower "
                "case count as the same, as they do in some file systems)",
                do="rename one of them",
            )
        lines[case.case_id.casefold()] = line
        cases.append(case)
    return cases


def write_case_table(path: Path, rows: Iterable[Case]) -> None:
    """Write a case table that `read_case_table` reads back; complete under its name, or not there at all.

    Paths are written relative to the table, also a vocabulary's that is absolute; each mask's with its vocabulary where
    a case has several.

    Raises
    ------
    ConfigError
        For what a table cannot express: an unsafe or repeated case id, ``;`` or a line break in a path, an
        extra column with the name of a standard one.
    """
    path = Path(path)
    cases = list(rows)
    extra = sorted({name for case in cases for name in case.extra})
    seen: set[str] = set()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # Few tables have lesions: the column stands where one does.
    with_instances = any(case.instances for case in cases)
    writer.writerow([*(name for name in COLUMNS if name != "instances" or with_instances), *extra])
    for case in cases:
        where = f"{path.name}, case '{case.case_id}'"
        _require_safe_id(case.case_id, where)
        if case.case_id in seen:
            raise ConfigError("the case id is used twice", where=where, do="rename one of them")
        seen.add(case.case_id)
        if clash := sorted(set(case.extra) & set(COLUMNS)):
            raise ConfigError("an extra column has the name of a standard one", where=where, found=clash[0])
        masks, vocabulary = _masks_cells(case.masks, path.parent, where)
        ct = _relative(case.ct, path.parent, where)
        cells = [case.case_id, case.patient_id, ct, masks, vocabulary, case.source, case.license]
        if with_instances:
            cells.append(_instances_cell(case.instances, path.parent, where))
        writer.writerow([*cells, *(case.extra.get(name, "") for name in extra)])
    _write_atomically(path, text.getvalue())


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Return the table's rows with the line each begins at; blank lines are left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "the case table cannot be opened",
            where=str(path),
            found=error.strerror or "",
            code="missing_file",
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "the case table is not UTF-8",
            where=path.name,
            found=f"line {content[: error.start].count(10) + 1}",
            do="save it as UTF-8 CSV",
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(
            "the row is not valid CSV", where=f"{path.name}:{line}", found=str(error)
        ) from error
    return rows


def _header(cells: Sequence[str], name: str) -> list[str]:
    where = f"{name}:1"
    for column in REQUIRED:
        if column not in cells:
            raise ConfigError(
                "a required column is missing",
                where=f"{where}, column {column}",
                expected=f"the columns {', '.join(REQUIRED)} at least",
                found=", ".join(cells),
                do=_missing_column(column, cells),
            )
    for column in COLUMNS:
        typo = difflib.get_close_matches(column, [c for c in cells if c not in COLUMNS], n=1, cutoff=0.8)
        if column not in cells and typo:
            raise ConfigError(
                f"there is no column '{typo[0]}'",
                where=where,
                expected=f"'{column}', if that is meant; other columns of your own are kept as they are",
                do="rename the column",
            )
    for index, column in enumerate(cells):
        if not column or column in cells[:index]:
            raise ConfigError(
                "every column needs a name of its own",
                where=f"{where}, column {index + 1}",
                found=f"'{column}'",
                do="rename or remove the column",
            )
    return list(cells)


def _missing_column(column: str, cells: Sequence[str]) -> str:
    """What to do about a missing column: another separator, another spelling, or a new column."""
    if len(cells) == 1 and any(mark in cells[0] for mark in ";\t"):
        return "separate cells by commas: this table seems to use " + ("';'" if ";" in cells[0] else "tabs")
    close = difflib.get_close_matches(column, [cell for cell in cells if cell], n=1, cutoff=0.5)
    return f"rename the column '{close[0]}' to '{column}'" if close else f"add the column {column}"


def _case(row: Mapping[str, str], folder: Path, where: str) -> Case:
    for column in REQUIRED:
        if not row[column]:
            raise ConfigError("a required cell is empty", where=f"{where}, column {column}", do="fill it in")
    _require_safe_id(row["case_id"], f"{where}, column case_id")
    return Case(
        case_id=row["case_id"],
        patient_id=row.get("patient_id") or row["case_id"],
        ct=folder / row["ct"],
        ct_where=_shown(row["ct"]),
        masks=_masks(row.get("masks", ""), row.get("vocabulary", ""), folder, where),
        source=row.get("source", ""),
        license=row.get("license", ""),
        extra={name: cell for name, cell in row.items() if name not in COLUMNS},
        patient_assumed=not row.get("patient_id"),
        instances=_instances(row.get("instances", ""), folder, where),
    )


def _shown(path: str) -> str:
    """How messages name a file: as the table does, but an absolute path, which tells of a machine, by its end."""
    return Path(path).name if Path(path).is_absolute() else path


def _require_safe_id(case_id: str, where: str) -> None:
    if not SAFE_ID.fullmatch(case_id):
        raise ConfigError(
            "the case id cannot be used in a file name",
            where=where,
            expected="letters, digits, '.', '_' and '-', not beginning with '.'",
            found=f"'{case_id}'",
            do="rename the case",
        )


def _masks(cell: str, vocabulary: str, folder: Path, where: str) -> tuple[MaskSource, ...]:
    if not cell:
        if vocabulary:
            raise ConfigError(
                "a vocabulary is named, but no masks",
                where=f"{where}, column masks",
                expected="the path of the masks",
                do="fill it in, or empty the column vocabulary",
            )
        return ()
    from paxray.io.segments import names_its_segments  # with numpy, which a table alone does not need

    sources = []
    for item in (part.strip() for part in cell.split(";")):
        named, _, own = (part.strip() for part in item.rpartition("=")) if "=" in item else (item, "", "")
        word = own if "=" in item else vocabulary
        if not word and named and names_its_segments(folder / named):
            word = BY_NAME
        if "=" in item and vocabulary:
            raise ConfigError(
                "the vocabulary is named twice",
                where=f"{where}, column vocabulary",
                expected="PATH=VOCABULARY in the column masks, or the column vocabulary, not both",
                found=f"'{item}' and '{vocabulary}'",
            )
        if not named or not word or (";" in cell and "=" not in item and word != BY_NAME):
            raise ConfigError(
                "the masks are not fully named",
                where=f"{where}, column masks",
                expected="one PATH, named by the column vocabulary; or PATH=VOCABULARY, separated by ';'; or masks "
                "that bear names: a folder with one file per class, .seg.nrrd, DICOM SEG or RTSTRUCT",
                found=f"'{item}'",
            )
        sources.append(MaskSource(folder / named, word, _shown(named)))
    return tuple(sources)


def _instances(cell: str, folder: Path, where: str) -> tuple[MaskSource, ...]:
    sources = []
    for item in (part.strip() for part in cell.split(";")) if cell else ():
        path, _, name = (part.strip() for part in item.rpartition("=")) if "=" in item else (item, "", "")
        if not path or ("=" in item and not name):
            raise ConfigError(
                "the instances are not fully named",
                where=f"{where}, column instances",
                expected="PATH=CLASS, separated by ';'; the class may be left out where a JSON file beside says it",
                found=f"'{item}'",
            )
        sources.append(MaskSource(folder / path, name, _shown(path)))
    return tuple(sources)


def _instances_cell(instances: Sequence[MaskSource], folder: Path, where: str) -> str:
    cells = []
    for source in instances:
        path = _relative(source.path, folder, where)
        if re.search(r"[;=\s]", source.vocabulary) or (not source.vocabulary and "=" in path):
            raise ConfigError(
                "the instances cannot stand in a case table",
                where=where,
                found=f"'{path}={source.vocabulary}'",
            )
        cells.append(f"{path}={source.vocabulary}" if source.vocabulary else path)
    return ";".join(cells)


def _masks_cells(masks: Sequence[MaskSource], folder: Path, where: str) -> tuple[str, str]:
    vocabularies = [_vocabulary(mask.vocabulary, folder, where) for mask in masks]
    paths = [_relative(mask.path, folder, where) for mask in masks]
    if len(masks) == 1 and "=" not in paths[0]:
        return paths[0], vocabularies[0]
    return ";".join(f"{path}={own}" for path, own in zip(paths, vocabularies, strict=True)), ""


def can_name(path: Path, folder: Path) -> bool:
    """Whether a case table in a folder can name a CT or masks: their path from there can be read back."""
    try:
        _relative(path, folder, "")
    except ConfigError:
        return False
    return True


def can_name_vocabulary(path: Path, folder: Path) -> bool:
    """Whether a case table in a folder can name a vocabulary's file: its path from there has no ``;`` and no ``=``."""
    try:
        _vocabulary(str(path.absolute()), folder, "")
    except ConfigError:
        return False
    return True


def _vocabulary(spec: str, folder: Path, where: str) -> str:
    """A vocabulary's name as it is; the path of a file relative to the table, as `read_case_table` takes it."""
    is_file = _VOCABULARY_FILE.search(spec) is not None
    text = _relative(Path(spec), folder, where) if Path(spec).is_absolute() else spec
    if not text or text != text.strip() or re.search(r"[;=\r\n]" if is_file else r"[;=\s]", text):
        raise ConfigError(
            "the vocabulary's name cannot stand in a case table", where=where, found=f"'{text}'"
        )
    return text


def _relative(path: Path, folder: Path, where: str) -> str:
    text = os.path.relpath(path.absolute(), folder.absolute())
    if re.search(r"[;\r\n]", text) or text != text.strip():
        raise ConfigError(
            "the path cannot stand in a case table",
            where=where,
            expected="no ';', no line break, no space at either end",
            found=repr(text),
            do="rename the file or folder",
        )
    return text


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's 0600 would hide the table from colleagues
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
