"""Phantoms on disk: CT and labels as NIfTI, and the case table that a build reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paxray.errors import ConfigError
from paxray.files import sha256_of, write_json
from paxray.io.cases import Case, MaskSource, write_case_table
from paxray.io.nifti import write_nifti
from paxray.phantom.patient import Patient
from paxray.phantom.thorax import DEFAULT_SPACING_MM, make_phantom

ANATOMY_VERSION = 1  # raise it when the same patient comes out different
SOURCE = "paxray phantom"
LICENSE = "CC0-1.0"


def write_phantoms(
    out: Path,
    cases: int,
    seed: int,
    spacing_mm: tuple[float, float, float] = DEFAULT_SPACING_MM,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``cases`` different phantoms and their case table.

    Each goes to ``OUT/phantom-0001/`` and so on: ``ct.nii.gz`` (int16 HU), ``labels.nii.gz`` (uint8,
    vocabulary ``phantom``) and ``phantom.json``, which says how both were made and is written last. A phantom
    that stands already, made in the same way and with both files as written, is left as it is.

    Parameters
    ----------
    out
        Folder, made where it does not exist.
    cases
        How many.
    seed
        Of the whole set: patient n is the same whatever the number of cases.
    spacing_mm
        Voxel spacing along x, y, z.
    progress
        Called with the case id when a case stands.

    Returns
    -------
    Path
        ``OUT/cases.csv``.

    Raises
    ------
    ConfigError
        Fewer than one case, a negative seed (code ``bad_phantoms``), a spacing out of range.
    """
    if cases < 1 or seed < 0:
        raise ConfigError(
            "phantoms cannot be made as asked",
            where="write_phantoms",
            expected="at least one case and a seed of at least 0",
            found=f"{cases} cases, seed {seed}",
            code="bad_phantoms",
        )
    out = Path(out)
    rows = []
    for number in range(1, cases + 1):
        case_id = f"phantom-{number:04d}"
        patient = Patient.from_seed(_patient_seed(seed, number))
        folder = out / case_id
        recipe = {
            "anatomy_version": ANATOMY_VERSION,
            "spacing_mm": [float(step) for step in spacing_mm],
            "patient": patient.as_dict(),
        }
        if not _stands(folder, recipe):
            _write_one(folder, patient, spacing_mm, recipe)
        rows.append(_case(case_id, folder, patient))
        if progress is not None:
            progress(case_id)
    table = out / "cases.csv"
    write_case_table(table, rows)
    return table


def _patient_seed(seed: int, number: int) -> int:
    """Return an independent seed for patient ``number`` of the set."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _write_one(
    folder: Path, patient: Patient, spacing_mm: tuple[float, float, float], recipe: dict[str, Any]
) -> None:
    phantom = make_phantom(patient, spacing_mm)
    (folder / "phantom.json").unlink(missing_ok=True)
    write_nifti(folder / "ct.nii.gz", phantom.ct)
    write_nifti(folder / "labels.nii.gz", phantom.labels)
    sums = {name: sha256_of(folder / name) for name in ("ct.nii.gz", "labels.nii.gz")}
    write_json(folder / "phantom.json", {**recipe, "sha256": sums})


def _stands(folder: Path, recipe: dict[str, Any]) -> bool:
    """Return whether a phantom of this recipe is on disk, undamaged."""
    note = folder / "phantom.json"
    if not note.is_file():
        return False
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return False  # torn or foreign: made anew
    if not isinstance(found, dict) or {**recipe, "sha256": found.get("sha256")} != found:
        return False
    sums = found["sha256"]
    return isinstance(sums, dict) and all(
        (folder / name).is_file() and sums.get(name) == sha256_of(folder / name)
        for name in ("ct.nii.gz", "labels.nii.gz")
    )


def _case(case_id: str, folder: Path, patient: Patient) -> Case:
    ct, labels = folder / "ct.nii.gz", folder / "labels.nii.gz"
    told = patient.as_dict()
    extra = {
        "sex": patient.sex,
        "phantom_seed": str(patient.seed),
        **{name: f"{told[name]:.4g}" for name in Patient.field_names() if name not in ("seed", "sex")},
    }
    return Case(
        case_id=case_id,
        patient_id=case_id,
        ct=ct,
        ct_where=f"{case_id}/{ct.name}",
        masks=(MaskSource(labels, "phantom", f"{case_id}/{labels.name}"),),
        source=SOURCE,
        license=LICENSE,
        extra=extra,
    )
