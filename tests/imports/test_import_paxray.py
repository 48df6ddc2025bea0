"""The released PAXRay, made by hand with its misnamed channels: right names, the rib rule, and refusals."""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.channels import load_channels
from paxray.anatomy.document import read_document
from paxray.cli import app
from paxray.errors import ConfigError, DamageError, PaxrayError
from paxray.imports import paxray as module
from paxray.imports.paxray import ImportResult, import_paxray
from paxray.imports.rib_rule import RibAreas

CATALOG = load_catalog()
RIGHT = load_channels("paxray_166", catalog=CATALOG).names
NEVER_FILLED = ("c1", "sacrum", "cocygis", "t13")
SIZE = (36, 40)


def released_names() -> list[str]:
    """Rib halves named side by side, all left ones first; the ends of the aorta swapped."""
    names = list(RIGHT)
    names[21], names[23] = names[23], names[21]
    halves = [
        f"rib_{side}_{half}_{number}"
        for side in ("left", "right")
        for number in range(1, 13)
        for half in ("anterior", "posterior")
    ]
    names[115:163] = halves
    return names


def draw(seed: int) -> dict[str, np.ndarray]:
    """A picture's masks by right name: ribs are the unions of their halves, which overlap and differ in size."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(SIZE) < rng.uniform(0.02, 0.4) for name in RIGHT}
    for side_number, side in enumerate(("left", "right")):
        for number in range(1, 13):
            # Sizes grow by more than the small half: no rib's halves can pass for another's.
            ant, post = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
            ant.flat[:4] = True
            post.flat[3 : 3 + 10 * number + side_number] = True
            masks[f"rib_{side}_anterior_{number}"] = ant
            masks[f"rib_{side}_posterior_{number}"] = post
            masks[f"rib_{side}_{number}"] = ant | post
    for name in NEVER_FILLED:
        masks[name] = np.zeros(SIZE, bool)
    return masks


STEMS = {
    "train": ["RibFrac1frontal", "RibFrac1lateral", "RibFrac2frontal"],
    "val": ["RibFrac3frontal"],
    "test": ["RibFrac4lateral"],
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "paxray_dataset"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    seed = 0
    for stems in STEMS.values():
        for stem in stems:
            seed += 1
            masks = draw(seed)
            np.save(root / "labels" / f"{stem}.npy", np.stack([masks[name] for name in RIGHT]))
            grey = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
            Image.fromarray(grey).save(root / "images" / f"{stem}.png")
    write_listing(root, released_names())
    return root


def write_listing(root: Path, names: list[str] | tuple[str, ...], **changed: Any) -> None:
    entries = {
        split: [{"image": f"images/{stem}.png", "target": f"labels/{stem}.npy"} for stem in stems]
        for split, stems in STEMS.items()
    }
    content = {"label_dict": {str(n): name for n, name in enumerate(names)}, **entries, **changed}
    (root / "paxray.json").write_text(json.dumps(content))


def run(release: Path, out: Path, **options: Any) -> ImportResult:
    return import_paxray(release, out, catalog=CATALOG, **options)


def read(folder: Path, names: str) -> dict[str, dict[str, np.ndarray]]:
    """Every picture's masks by the names under a key of paxray.json, as a loader of PAXRay reads them."""
    content = json.loads((folder / "paxray.json").read_text())
    back = {}
    for split in STEMS:
        for entry in content[split]:
            stack = np.load(folder / entry["target"])
            back[Path(entry["image"]).stem] = {content[names][str(n)]: mask for n, mask in enumerate(stack)}
    return back


def test_right_names_meet_their_masks(release: Path, tmp_path: Path) -> None:
    result = run(release, tmp_path / "out")
    assert len(result.renamed) == 46
    assert [n for n, _, _ in result.renamed] == [21, 23, *range(117, 161)]
    assert result.images == 5
    for seed, (_, masks) in enumerate(read(result.folder, "label_dict").items(), start=1):
        truth = draw(seed)
        for name, mask in masks.items():
            if name != "mediastinum_upper":  # stands twice
                np.testing.assert_array_equal(mask, truth[name], err_msg=name)


def test_the_rib_rule_tells_right_names_from_released_ones(release: Path, tmp_path: Path) -> None:
    result = run(release, tmp_path / "out")
    assert all(rib.holds for rib in result.ribs)
    # Where the release's order and the right one meet.
    assert [(r.side, r.number) for r in result.ribs_as_released if r.holds] == [("left", 1), ("right", 12)]


@pytest.mark.parametrize(
    ("rib", "anterior", "posterior", "holds"),
    [
        (10, 6, 5, True),
        (11, 6, 5, True),
        (6, 6, 5, True),
        (12, 6, 5, False),
        (5, 6, 5, False),
        (0, 0, 0, True),
    ],
)
def test_rib_rule(rib: int, anterior: int, posterior: int, holds: bool) -> None:
    assert RibAreas("left", 4, rib, anterior, posterior).holds is holds


def test_coco_agrees_with_the_stacks(release: Path, tmp_path: Path) -> None:
    folder = run(release, tmp_path / "out").folder
    stacks = read(folder, "class_dict")
    unknown = {load_channels("paxray_166", catalog=CATALOG).classes[RIGHT.index(n)] for n in NEVER_FILLED}
    seen = 0
    for split in STEMS:
        with redirect_stdout(io.StringIO()):
            coco = COCO(str(folder / "annotations" / f"instances_{split}.json"))
        for image in coco.imgs.values():
            assert (folder / "images" / image["file_name"]).is_file()
            stack = stacks[Path(image["file_name"]).stem]
            found = {
                coco.cats[a["category_id"]]["name"]: coco.annToMask(a).astype(bool)
                for a in coco.loadAnns(coco.getAnnIds(image["id"]))
            }
            for name, mask in found.items():
                if name != "mediastinum_upper":
                    np.testing.assert_array_equal(mask, stack[name], err_msg=name)
            empty = {coco.cats[n]["name"] for n in image["neg_category_ids"]}
            assert {coco.cats[n]["name"] for n in image["unknown_category_ids"]} == unknown
            assert len(coco.cats) == 165 == len(found) + len(empty) + len(unknown)
            seen += len(found)
    assert seen == 5 * (165 - len(NEVER_FILLED))


def test_two_channels_of_one_class_are_one_mask_in_coco(release: Path, tmp_path: Path) -> None:
    folder = run(release, tmp_path / "out").folder
    stack = np.load(release / "labels" / "RibFrac3frontal.npy")
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "annotations" / "instances_val.json"))
    (annotation,) = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(["mediastinum_upper"])))
    np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), stack[12] | stack[16])


def test_what_was_never_filled_is_unknown(release: Path, tmp_path: Path) -> None:
    result = run(release, tmp_path / "out")
    assert result.never_filled == NEVER_FILLED
    content = json.loads((result.folder / "paxray.json").read_text())
    for entry in content["train"]:
        assert [RIGHT[n] for n in entry["unknown"]] == list(NEVER_FILLED)


def test_as_released_keeps_the_names(release: Path, tmp_path: Path) -> None:
    result = run(release, tmp_path / "out", as_released=True)
    content = json.loads((result.folder / "paxray.json").read_text())
    assert list(content["label_dict"].values()) == released_names()
    assert content["class_dict"]["117"] == "rib_left_2_anterior"
    assert result.renamed == ()
    assert sum(rib.holds for rib in result.ribs) == 2


def test_right_names_are_left_alone(release: Path, tmp_path: Path) -> None:
    write_listing(release, RIGHT)
    result = run(release, tmp_path / "out")
    assert result.renamed == ()
    assert list(json.loads((result.folder / "paxray.json").read_text())["label_dict"].values()) == list(RIGHT)


def test_masks_that_break_the_rule_are_refused(release: Path, tmp_path: Path) -> None:
    """Released names over masks that stand in another order: nothing is written."""
    for path in (release / "labels").iterdir():
        stack = np.load(path)
        stack[[RIGHT.index("rib_left_5"), RIGHT.index("rib_left_9")]] = stack[
            [RIGHT.index("rib_left_9"), RIGHT.index("rib_left_5")]
        ]
        np.save(path, stack)
    with pytest.raises(DamageError) as caught:
        run(release, tmp_path / "out")
    assert caught.value.code == "rib_rule"
    assert "2 of 24" in str(caught.value)
    assert not (tmp_path / "out").exists()
    run(release, tmp_path / "kept", as_released=True)


def test_names_of_a_third_kind_are_refused(release: Path, tmp_path: Path) -> None:
    names = released_names()
    names[130] = "rib_left_posterior_13"
    write_listing(release, names)
    with pytest.raises(DamageError) as caught:
        run(release, tmp_path / "out")
    assert caught.value.where == "paxray.json: label_dict.130"
    assert caught.value.found == "rib_left_posterior_13"


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ({"image": "../../secret.png", "target": "labels/RibFrac1frontal.npy"}, "below the folder"),
        ({"image": "/etc/passwd", "target": "labels/RibFrac1frontal.npy"}, "below the folder"),
        ({"image": "images/RibFrac1frontal.png"}, "below the folder"),
        ("images/RibFrac1frontal.png", "below the folder"),
        ({"image": "images/RibFrac1frontal.png", "target": "labels/none.npy"}, "cannot be read"),
        ({"image": "images/none_frontal.png", "target": "labels/RibFrac1frontal.npy"}, "cannot be read"),
        ({"image": "images/oblique.png", "target": "labels/RibFrac1frontal.npy"}, "does not say its view"),
    ],
)
def test_bad_entries_are_refused(release: Path, tmp_path: Path, entry: Any, hint: str) -> None:
    write_listing(release, released_names(), val=[entry])
    with pytest.raises(DamageError, match=hint):
        run(release, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stack", "hint"),
    [
        (np.zeros((166, *SIZE), np.uint8), "bool"),
        (np.zeros((165, *SIZE), bool), "166"),
        (np.zeros((166, 8, 8), bool), "differ in size"),
        (np.array([{}], object), "cannot be read"),
    ],
)
def test_bad_stacks_are_refused(release: Path, tmp_path: Path, stack: np.ndarray, hint: str) -> None:
    np.save(release / "labels" / "RibFrac3frontal.npy", stack, allow_pickle=True)
    with pytest.raises(DamageError, match=hint):
        run(release, tmp_path / "out")


@pytest.mark.parametrize("text", ["{", "[]", '{"label_dict": {}}', '{"label_dict": 1, "train": []}'])
def test_a_listing_of_another_kind_is_refused(release: Path, tmp_path: Path, text: str) -> None:
    (release / "paxray.json").write_text(text)
    with pytest.raises(PaxrayError) as caught:
        run(release, tmp_path / "out")
    assert caught.value.code == "names"


def test_a_folder_without_a_release_and_bad_places_are_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no PAXRay here"):
        run(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="own folder"):
        run(release, release / "fixed")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="no export"):
        run(release, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_patient_in_two_splits_is_told(release: Path, tmp_path: Path) -> None:
    shown = {"image": "images/RibFrac1lateral.png", "target": "labels/RibFrac1lateral.npy"}
    write_listing(release, released_names(), train=[
        {"image": "images/RibFrac1frontal.png", "target": "labels/RibFrac1frontal.npy"}
    ], val=[shown])  # fmt: skip
    assert run(release, tmp_path / "out").notes == ("case RibFrac1 is in several splits: train, val",)


def test_the_release_is_untouched_and_a_copy_serves_where_links_do_not(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in release.rglob("*") if p.is_file()}
    linked = run(release, tmp_path / "out").folder
    one = "labels/RibFrac1frontal.npy"
    assert (linked / one).samefile(release / one)

    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(module.os, "link", refuse)
    copied = run(release, tmp_path / "copy").folder
    assert not (copied / one).samefile(release / one)
    assert (copied / one).read_bytes() == (release / one).read_bytes()
    assert {p: p.read_bytes() for p in release.rglob("*") if p.is_file()} == before


def test_command(release: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["import-paxray", str(release), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "46 misnamed channels put right: 21, 23, 117-160" in result.output
    assert "names found: holds for 2 of 24" in result.output
    assert "names written: holds for 24 of 24" in result.output
    assert "c1, sacrum, cocygis, t13" in result.output
    again = CliRunner().invoke(app, ["import-paxray", str(release), str(tmp_path / "out"), "--json"])
    assert len(json.loads(again.output)["renamed"]) == 46


@pytest.mark.real
def test_the_misnamed_channels_are_the_published_ones(real_data: Path) -> None:
    path = real_data.parent / "reference" / "paxray_166_channels.csv"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    published = {int(r["channel"]): r["name_in_released_json"] for r in rows}
    known = read_document(Path(module.__file__).with_name("paxray_released.yaml")).data["misnamed"]
    assert {**dict(enumerate(RIGHT)), **known} == published
