"""The data set's own card: a README that says what it is, how it was made and how to read it."""

from __future__ import annotations

from paxray.dataset.layout import TABLES, Layout
from paxray.dataset.shard import read_commit
from paxray.files import read_json, write_text

_CARD = """---
configs:
{configs}
---

# {name}

{description}Pseudo X-rays projected from CT, with 2D anatomical label maps projected along the same rays.
Made with paxray {version}. **A research data set, not for clinical use.**

| | train | val | test | all |
|---|---|---|---|---|
| samples | {train} | {val} | {test} | {samples} |

{patients} patients, {cases} cases ({status}). Views: {views}; {beam} beam, {rows} x {columns} pixels.
{classes} classes; a class that nothing looked for is `unknown`, one that was looked for and not found `absent`.
CTs are taken lying down: diaphragms stand higher than in an erect film.
{duplicates}
## Reading it

```python
import paxray

for sample in paxray.load("."):
    sample.image          # uint8, bone white
    sample.signal         # float32 line integrals of attenuation
    sample.masks["heart"] # bool
    sample.view.matrix    # 3x4, LPS mm to pixel (column, row)
    sample.facts          # a row per class: status, area, depth, path length, volume, surface, HU
    sample.landmarks      # a row per landmark: position in mm, pixel
    sample.measures       # a row per radiological measure: value, unit, status
    sample.instances      # a row per lesion: axes, volume, mask
    sample.findings       # a row per finding: what is implausible about the case's masks
```

Each folder of Parquet files is one table that `pandas`, `dask.dataframe` and Hugging Face `datasets` read as it is.
`cases.parquet` lists every planned case with its status; `dataset.json` holds the pipeline, the classes and their ids.
Check the files with `sha256sum -c SHA256SUMS` or `paxray verify`.

Sources and licences of the CTs stand in the columns `source` and `license` of each sample.
"""


def write_card(layout: Layout) -> None:
    """Write ``README.md`` from the manifest."""
    manifest = read_json(layout.manifest)
    counts, pipeline = manifest["counts"], manifest["pipeline"]
    geometry = pipeline["geometry"]
    samples = counts["samples"]
    splits = _splits_with_rows(layout)
    filled = [kind for kind in TABLES if kind in ("samples", "labels") or splits[kind]]
    text = _CARD.format(
        configs="\n".join(_config(kind, splits[kind]) for kind in filled),
        name=manifest["name"],
        description=f"{manifest['description'].strip()}\n\n" if manifest["description"].strip() else "",
        version=manifest["environment"]["paxray"],
        train=samples["train"],
        val=samples["val"],
        test=samples["test"],
        samples=sum(samples.values()),
        patients=counts["patients"],
        cases=sum(counts["cases"].values()),
        status=", ".join(f"{n} {status}" for status, n in sorted(counts["cases"].items())),
        views=", ".join(view["name"] for view in pipeline["views"]),
        beam=geometry["beam"],
        rows=geometry["rows"],
        columns=geometry["columns"],
        classes=len(manifest["categories"]),
        duplicates="".join(f"\nBeware: {sentence}.\n" for sentence in manifest["duplicates"]),
    )
    write_text(layout.card, text)


def _splits_with_rows(layout: Layout) -> dict[str, list[str]]:
    """Of each table the splits that have any: files without a row at all cannot be loaded as a split."""
    found: dict[str, list[str]] = {kind: [] for kind in TABLES}
    for path in layout.commits():
        commit = read_commit(path)
        for name, facts in commit["files"].items():
            kind = name.split("/")[0]
            if facts["rows"] and commit["split"] not in found[kind]:
                found[kind].append(commit["split"])
    return found


def _config(kind: str, splits: list[str]) -> str:
    """A table's entry in the card's header, as Hugging Face `datasets` reads it."""
    files = "\n".join(f"  - {{split: {split}, path: {kind}/{split}-*.parquet}}" for split in splits) or "  []"
    default = "\n  default: true" if kind == "samples" else ""
    return f"- config_name: {kind}{default}\n  data_files:\n{files}"
