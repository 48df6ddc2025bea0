"""What stands in a data set, what is asked for, and how the two differ."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from paxray._version import __version__
from paxray.anatomy.catalog import Catalog
from paxray.config import Pipeline, flatten
from paxray.dataset.layout import SCHEMA_VERSION
from paxray.dataset.schema import sample_schema
from paxray.dataset.shard import CaseRecord
from paxray.errors import ConfigError
from paxray.files import digest
from paxray.inputs import Vocabularies
from paxray.io.cases import Case
from paxray.measure.occlusion import ENVELOPES
from paxray.measure.radiology import FOUND_IN
from paxray.measure.stations import BORDERS
from paxray.stages import STAGE_VERSIONS

#: Stands among a case's inputs for what segments it.
SEGMENTATION = "segmentation"
#: Packages whose versions decide the bytes of a data set.
ENVIRONMENT_PACKAGES = (
    "numpy",
    "scipy",
    "edt",
    "numba",
    "pillow",
    "pyarrow",
    "pycocotools",
    "nibabel",
    "SimpleITK",
    "pydicom",
)


def basis_of(
    pipeline: Pipeline, catalog: Catalog, classes: tuple[str, ...], numerics: str, extra: list[str]
) -> dict[str, Any]:
    """All that every case's outcome depends on."""
    content = pipeline.content()
    del content["splits"], content["shard_cases"]
    content["labels"].pop("catalog")
    # What segments a case is part of its own identity: many cases bring their masks.
    del content["segmentation"]
    return {
        "schema": SCHEMA_VERSION,
        "stages": STAGE_VERSIONS,
        "numerics": numerics,
        "catalog": {name: catalog.fingerprint([name])[:16] for name in classes},
        "measured": _measured_on(catalog),
        "judged": _judged_on(catalog),
        "extra_columns": extra,
        "pipeline": content,
    }


def _measured_on(catalog: Catalog) -> str:
    """Digest of what landmarks, measures and shares unhidden depend on beside the classes put out."""
    found_in = catalog.fingerprint(name for name in (*FOUND_IN, *BORDERS) if name in catalog)
    envelopes = sorted(name for name, item in catalog.items() if item.group in ENVELOPES)
    return digest([found_in, envelopes])[:16]


def _judged_on(catalog: Catalog) -> str:
    """Digest of what findings depend on: side, twin, group and parts of what sources draw, recipes apart."""
    facts = [
        (name, item.laterality, item.mirror, item.group, item.parts)
        for name, item in sorted(catalog.items())
        if item.recipe is None and item.film is None and (item.laterality or not item.parts)
    ]
    return digest(facts)[:16]


def case_identity(case: Case, inputs: dict[str, str], vocabularies: Vocabularies) -> dict[str, Any]:
    """What the outcome depends on for this case alone: its files' content, and what of its row reaches its samples."""
    return {
        "inputs": inputs,
        "patient_id": case.patient_id,
        "vocabularies": [vocabularies.digest_of(source) for source in case.masks],
        "instances": [source.vocabulary for source in case.instances],
        "source": case.source,
        "license": case.license,
        "extra": case.extra,
    }


def differences_of(manifest: dict[str, Any] | None, basis: dict[str, Any], pipeline: Pipeline) -> list[str]:
    """One line for each setting that differs; none without a manifest."""
    if manifest is None:
        return []
    out = _class_differences(manifest["basis"]["catalog"], basis["catalog"])
    file = manifest["pipeline"].get("labels", {}).get("catalog")
    if out and file and pipeline.labels.catalog is None:
        out.insert(0, f"it was built with --classes {file}, and this call names no classes of your own")
    # Shares of splits change nothing that stands, but whom later patients join: that should be meant.
    before_all = {**manifest["basis"], "splits": manifest["pipeline"]["splits"]}
    after_all = {**basis, "splits": pipeline.effective()["splits"]}
    old, new = (flatten({k: v for k, v in b.items() if k != "catalog"}) for b in (before_all, after_all))
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "(not set)"), new.get(key, "(not set)")
        if before != after:
            out.append(f"{key}: stands {_brief(before)}, asked for {_brief(after)}")
    return out


def _class_differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What became of the classes: gone (a class file left out?), new, defined otherwise."""
    kinds = {
        "classes that stand and are not asked for": sorted(old.keys() - new.keys()),
        "classes asked for that do not stand": sorted(new.keys() - old.keys()),
        "classes defined otherwise": sorted(
            name for name in old.keys() & new.keys() if old[name] != new[name]
        ),
    }
    return [f"{kind}: {_brief(', '.join(names))}" for kind, names in kinds.items() if names]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def changed(differences: list[str]) -> ConfigError:
    """The error that shows the differences."""
    shown = differences[:12] + ([f"and {len(differences) - 12} more"] if len(differences) > 12 else [])
    return ConfigError(
        "what is asked for differs from what stands:\n    " + "\n    ".join(shown),
        do="--update to redo exactly what depends on it, or another --out to keep both",
        code="pipeline_changed",
    )


def what_moved(record: CaseRecord, new: dict[str, str]) -> str:
    """What of a case is not what was built from."""
    names = [n for n in sorted(new.keys() | record.inputs.keys()) if new.get(n) != record.inputs.get(n)]
    if names == [SEGMENTATION]:
        return "segmented by another segmenter, or by other settings, another version or weights"
    return f"other content in {', '.join(names)}" if names else "its row or vocabulary changed"


def extra_columns_of(cases: list[Case], manifest: dict[str, Any] | None) -> list[str]:
    """Columns of the case table that reach the samples; a standing data set keeps those it has."""
    here = list(dict.fromkeys(name for case in cases for name in case.extra))
    old: list[str] = [] if manifest is None else manifest["basis"]["extra_columns"]
    columns = old + [name for name in here if name not in old]
    sample_schema(columns)  # refuses names that are taken
    return columns


def categories_of(classes: tuple[str, ...], manifest: dict[str, Any] | None) -> dict[str, int]:
    """Class to id from 1; ids once given stay."""
    ids = {row["name"]: row["id"] for row in manifest["categories"]} if manifest else {}
    for name in classes:
        if name not in ids:
            ids[name] = max(ids.values(), default=0) + 1
    return ids


def category_rows(categories: dict[str, int], catalog: Catalog) -> list[dict[str, Any]]:
    """The categories as the manifest lists them."""
    rows = []
    for name, number in categories.items():
        known = catalog.get(name)
        rows.append(
            {
                "id": number,
                "name": name,
                "supercategory": known.group if known else "",
                "parts": list(known.parts) if known else [],
                "laterality": known.laterality if known else "",
                "snomed_ct": known.snomed_ct if known else "",
                "snomed_laterality": known.snomed_laterality if known else "",
                "colour": list(known.colour) if known else [128, 128, 128],
                "rule": known.rule if known else "",
            }
        )
    return rows


def manifest_of(
    pipeline: Pipeline,
    basis: dict[str, Any],
    categories: dict[str, int],
    catalog: Catalog,
    made_by: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """``dataset.json`` of a build that has begun; `made_by` is what segmented cases, if any were."""
    return {
        "schema": SCHEMA_VERSION,
        "name": pipeline.name,
        "description": pipeline.description,
        "notice": "A research data set, not for clinical use.",
        "counts": None,  # until a build has come to its end
        "duplicates": [],
        "pipeline": pipeline.effective(),
        "basis": basis,
        "segmenters": [dict(one) for one in made_by],
        "environment": {
            "paxray": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ENVIRONMENT_PACKAGES},
        },
        "categories": category_rows(categories, catalog),
    }
