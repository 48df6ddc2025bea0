"""What the masks of a sample owe each other: found where it is broken, and never written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray.anatomy.catalog import load_catalog
from paxray.api import build, load
from paxray.config import Pipeline
from paxray.dataset.invariants import contradictions, require_consistent
from paxray.dataset.rle import decode_mask, encode_mask
from paxray.dataset.verify import verify
from paxray.errors import CaseError
from paxray.projection.project import Projection

SIZE = (7, 9)
PARTS = {"lungs": ("lung_left", "lung_right"), "rib_left_3": ("rib_left_3_anterior", "rib_left_3_posterior")}


def row(
    name: str, mask: np.ndarray | None, *, added: int | None = 0, status: str = "present"
) -> dict[str, Any]:
    counts = None if mask is None or not mask.any() else encode_mask(mask)
    return {"class": name, "status": status, "mask": counts, "added_voxels": added}


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


LEFT, RIGHT = box(1, 5, 4, 3), box(1, 0, 4, 4)


def lungs(whole: np.ndarray | None, *, added: int | None = None, **left: Any) -> list[str]:
    rows = [row("lungs", whole, added=added), row("lung_left", LEFT, **left), row("lung_right", RIGHT)]
    return contradictions(rows, SIZE, PARTS)


def test_left_and_right_are_both() -> None:
    assert lungs(LEFT | RIGHT) == []
    # One pixel is enough, in either direction.
    short, long = LEFT | RIGHT, LEFT | RIGHT
    short[1, 5] = False
    long[6, 8] = True
    assert lungs(short) == ["'lung_left' reaches beyond 'lungs', of which it is a part, by 1 px"]
    assert lungs(long) == ["'lungs' has 29 px and its parts 28, though it is made of them alone"]


def test_a_whole_that_its_source_drew_may_be_larger_than_its_parts() -> None:
    assert lungs(box(0, 0, 7, 9), added=0) == []


def test_a_whole_without_a_pixel_contains_nothing() -> None:
    assert len(lungs(None)) == 2


def test_nothing_is_said_of_what_is_not_put_out() -> None:
    whole = box(0, 0, 7, 9)
    assert contradictions([row("lungs", whole, added=None), row("lung_left", LEFT)], SIZE, PARTS) == []
    assert contradictions([row("lung_left", LEFT)], SIZE, PARTS) == []
    assert contradictions([], SIZE, PARTS) == []


def test_an_unknown_part_is_no_pixel() -> None:
    rows = [row("lungs", LEFT, added=None, status="partial"), row("lung_left", LEFT)]
    assert contradictions([*rows, row("lung_right", None, status="unknown")], SIZE, PARTS) == []


@pytest.mark.parametrize(
    ("rib", "status", "found"),
    [
        (LEFT | RIGHT, "present", 0),
        (box(1, 0, 5, 9), "present", 1),  # more than both together
        (box(1, 0, 5, 9), "unknown", 0),  # of one half nothing is known
        (RIGHT, "present", 1),  # less than the halves reach
    ],
)
def test_the_area_of_a_rib_lies_between_its_halves(rib: np.ndarray, status: str, found: int) -> None:
    anterior = None if status == "unknown" else LEFT
    rows = [
        row("rib_left_3", rib),
        row("rib_left_3_anterior", anterior, status=status),
        row("rib_left_3_posterior", RIGHT),
    ]
    assert len(contradictions(rows, SIZE, PARTS)) == found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_any_nest_is_sound_until_a_pixel_is_turned(seed: int, data: st.DataObject) -> None:
    """Masks made by the rules of the catalog hold; turning a pixel of a class on or off breaks what is told of it."""
    catalog = load_catalog()
    rng = np.random.default_rng(seed)
    masks: dict[str, np.ndarray] = {}

    def make(name: str) -> np.ndarray:
        if name not in masks:
            parts = [make(part) for part in catalog[name].parts]
            masks[name] = np.logical_or.reduce(parts) if parts else rng.random(SIZE) < 0.1
        return masks[name]

    for name in ("spine", "rib_cage", "lungs", "mediastinum"):
        make(name)
    parts = {name: catalog[name].parts for name in masks}

    def told() -> list[str]:
        return contradictions([row(n, m, added=None) for n, m in masks.items()], SIZE, parts)

    assert told() == []
    name = data.draw(st.sampled_from(sorted(n for n in masks if parts[n])))
    at = data.draw(st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1)))
    masks[name] = masks[name].copy()
    masks[name][at] ^= True
    assert any(f"'{name}'" in sentence for sentence in told())


def test_the_error_says_where_and_what() -> None:
    rows = [row("lungs", LEFT), row("lung_left", LEFT), row("lung_right", RIGHT)]
    with pytest.raises(CaseError, match=r"a/pa: .*contradict") as caught:
        require_consistent("a/pa", rows, SIZE, PARTS)
    assert caught.value.code == "inconsistent_masks"
    assert caught.value.found == "'lung_right' reaches beyond 'lungs', of which it is a part, by 16 px"
    require_consistent("a/pa", rows[:2], SIZE, PARTS)


def test_a_fault_on_the_way_to_the_masks_fails_the_case(
    tmp_path: Path, phantom_table: Path, small_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projection is right; one pixel of one mask is lost before it is written."""
    honest = Projection.mask

    def losing(self: Projection, name: str) -> Any:
        mask = honest(self, name)
        if name == "lungs" and self.view.name == "lateral_left":
            mask.reshape(-1)[np.flatnonzero(mask)[0]] = False
        return mask

    monkeypatch.setattr(Projection, "mask", losing)
    result = build(small_pipeline, phantom_table, tmp_path / "out")
    assert {record.code for record in result.failed} == {"inconsistent_masks"}
    assert len(result.failed) == 4
    assert all("reaches beyond 'lungs'" in record.message for record in result.failed)
    assert result.samples == len(load(tmp_path / "out")) == 0


def test_deep_verification_looks_at_the_stored_masks(tmp_path: Path, built: Path) -> None:
    """Area, box and checksums agree with a mask that lacks a pixel of its part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from paxray.dataset.checksums import write_checksums
    from paxray.dataset.layout import Layout
    from paxray.files import read_json, sha256_of, write_json

    root = Path(shutil.copytree(built, tmp_path / "dataset"))
    path = root / "labels" / "train-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    sizes = {sample.id: sample.size for sample in load(root)}
    lung = next(r for r in rows if r["class"] == "lungs")
    mask = decode_mask(lung["mask"], sizes[lung["sample_id"]])
    v, u = np.nonzero(mask)
    inside = (v > v.min()) & (v < v.max()) & (u > u.min()) & (u < u.max())
    mask[v[inside][0], u[inside][0]] = False
    lung["mask"], lung["area_px"] = encode_mask(mask), int(mask.sum())
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    commit = root / "commits" / "train-00000.json"
    content = read_json(commit)
    content["files"]["labels/train-00000.parquet"]["sha256"] = sha256_of(path)
    write_json(commit, content)
    (root / "SHA256SUMS").unlink()
    write_checksums(Layout(root))

    assert verify(root).findings == ()
    found = [finding.what for finding in verify(root, deep=True).findings]
    assert found
    assert all("reaches beyond 'lungs'" in what for what in found)
