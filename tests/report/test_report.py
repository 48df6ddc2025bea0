from __future__ import annotations

import base64
import json
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_fixture import CLASSES, RATED, UNKNOWN, WHY_UNKNOWN, FakeCase, make_dataset
from hypothesis import given
from hypothesis import strategies as st

from paxray.dataset.reader import Dataset
from paxray.dataset.rle import decode_mask, encode_mask
from paxray.errors import ConfigError
from paxray.report.html import write_report
from paxray.report.summary import SampleRow, choose_samples, summarise

EVIL = "</script><script>alert('1')</script><img src=x onerror=\"alert(2)\"> & <!-- {{ 7 * 7 }} ü\u2028"


class Page(HTMLParser):
    """What a browser would find: tags with attributes, the text, and the embedded data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: list[str] = []
        self.content = path.read_text(encoding="utf-8")
        self.feed(self.content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.raw.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.raw[-1] += data
        elif self.cdata_elem is None:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self) -> Any:
        places = [n for n, attributes in enumerate(self.of("script")) if attributes.get("id") == "data"]
        return json.loads(self.raw[places[0]])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(
        make_dataset(tmp_path / "set", duplicates=["the same CT stands under several patients: x, y"])
    )


def test_default_place_and_content(dataset: Dataset) -> None:
    path = write_report(dataset)
    assert path == dataset.root / "report" / "index.html"
    text = Page(path).text
    for words in (
        "by hand", "Rectangles and noise.", "not for clinical use", "Patients 5", "Cases 5 4 ok, 1 failed",
        "Samples 8 train 4 · val 2 · test 2", "PA, lateral left", "cone source to detector 1800 mm",
        "the same CT stands under several patients: x, y", "sdd_mm: 1800.0", "unreadable",
        "ct.nii: the file cannot be read found: another beginning",
    ):  # fmt: skip
        assert words in text.replace("\xa0", " "), words
    assert "has not come to its end" not in text


def test_nothing_is_fetched(dataset: Dataset) -> None:
    page = Page(write_report(dataset))
    assert not page.of("link")
    assert not page.of("iframe")
    addresses = [
        a[key] for _, a in page.tags for key in ("src", "href", "srcset", "action", "data") if key in a
    ]
    assert len(addresses) == 8
    assert all(str(address).startswith("data:image/png;base64,") for address in addresses)
    assert not [
        word for word in ("http:", "https:", "url(", "@import", "fetch(", "XMLHttp") if word in page.content
    ]
    policy = [a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy[0]).startswith("default-src 'none'")


def test_pictures_are_the_stored_bytes(dataset: Dataset) -> None:
    page = Page(write_report(dataset))
    shown = {base64.b64decode(str(a["src"]).partition(",")[2]) for a in page.of("img")}
    assert shown == {sample.images["image"] for sample in dataset}
    assert {(a["width"], a["height"]) for a in page.of("img")} == {("56", "40")}


def test_masks_are_the_stored_ones(dataset: Dataset) -> None:
    data = Page(write_report(dataset)).data
    assert UNKNOWN not in [entry["name"] for entry in data["classes"]]
    names = [row.sample_id for row in choose_samples(summarise(dataset).samples, 24)]
    for name, shown in zip(names, data["samples"], strict=True):
        sample = dataset[name]
        stored = {label: mask for label, mask in sample.masks.items() if mask.any()}
        found = {data["classes"][int(n)]["name"]: counts for n, counts in shown["masks"].items()}
        assert found.keys() == stored.keys()
        for label, mask in stored.items():
            np.testing.assert_array_equal(decode_mask(found[label], tuple(shown["size"])), mask)
        np.testing.assert_array_equal(
            decode_mask(shown["incomplete"], tuple(shown["size"])), sample.incomplete
        )
        disputed = {data["classes"][int(n)]["name"]: counts for n, counts in shown["disputed"].items()}
        assert disputed.keys() == {label for label, mask in sample.disputed.items() if mask.any()}
        for label, counts in disputed.items():
            np.testing.assert_array_equal(decode_mask(counts, tuple(shown["size"])), sample.disputed[label])
    assert any(shown["disputed"] for shown in data["samples"])


def test_presets_name_known_classes(dataset: Dataset) -> None:
    data = Page(write_report(dataset)).data
    names = [entry["name"] for entry in data["classes"]]
    presets = {preset["name"]: {names[n] for n in preset["classes"]} for preset in data["presets"]}
    assert presets["Lungs + heart"] == {"lung_left", "lung_right", "heart"}
    assert presets["Bones"] == {"rib_left_1"}
    assert presets["Overview"] == presets["All leaves"] == {"lung_left", "lung_right", "heart", "rib_left_1"}


def test_overview_of_another_anatomy(tmp_path: Path) -> None:
    classes = [("femur", "leg", []), ("tibia", "leg", []), ("breast_left", "x", []), ("skull", "x", [])]
    data = Page(write_report(Dataset(make_dataset(tmp_path / "set", classes=classes)))).data
    assert data["presets"][0]["name"] == "Overview"
    assert len(data["presets"][0]["classes"]) == 2


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    case = FakeCase(EVIL, patient_id=EVIL, license=EVIL, source=EVIL, views=("pa", EVIL))
    failed = FakeCase("bad" + EVIL, message=EVIL)
    root = make_dataset(
        tmp_path / "set", [case, failed], name=EVIL, description=EVIL, duplicates=[EVIL],
        classes=[(EVIL, EVIL, []), ("breast_left", "x", []), ("skull", "x", [])],
    )  # fmt: skip
    page = Page(write_report(Dataset(root)))
    assert len(page.of("script")) == 2
    assert len(page.of("img")) == 2
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert page.data["classes"][0]["name"] == EVIL
    assert page.text.count(" ".join(EVIL.split())) >= 8
    assert "49" not in page.text
    plain = Page(
        write_report(Dataset(make_dataset(tmp_path / "plain", [FakeCase("a"), FakeCase("b", message="no")])))
    )
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"ul", "li"}


def test_script_builds_no_markup_from_text() -> None:
    template = files("paxray.report").joinpath("page.html").read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "| safe"):
        assert word not in template


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([], "This data set has no samples."),
        ([FakeCase("bad", message="no")], "see below why its cases failed"),
    ],
    ids=["none", "failed"],
)
def test_without_samples(tmp_path: Path, cases: list[FakeCase], words: str) -> None:
    page = Page(write_report(Dataset(make_dataset(tmp_path / "set", cases))))
    assert words in page.text
    assert not page.of("img")
    assert not page.of("canvas")


def test_unfinished_build(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", finished=False)
    (root / "commits" / "test-00000.json").unlink()
    (root / "cases.parquet").unlink()
    page = Page(write_report(Dataset(root)))
    assert "has not come to its end" in page.text
    assert "Cases 5 3 ok, 1 failed, 1 pending" in page.text
    assert len(page.of("img")) == 6


def test_odd_samples(tmp_path: Path) -> None:
    cases = [FakeCase("empty", empty=True, license=None, source="")]
    page = Page(write_report(Dataset(make_dataset(tmp_path / "set", cases, beam="parallel"))))
    assert page.data["presets"] == []
    assert page.data["classes"] == []
    assert "None" not in page.text
    assert "no magnification" in page.text


def test_limit(dataset: Dataset, tmp_path: Path) -> None:
    told: list[str] = []
    page = Page(write_report(dataset, tmp_path / "few.html", samples=3, on_sample=told.append))
    assert len(page.of("img")) == len(told) == 3
    assert len({dataset[name].split for name in told}) == 3
    assert "3 of 8 samples" in page.text
    none = Page(write_report(dataset, tmp_path / "none.html", samples=0))
    assert "the data set has 8" in none.text


def test_bad_arguments(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.html"):
        write_report(dataset, tmp_path)
    with pytest.raises(ConfigError, match="-1"):
        write_report(dataset, samples=-1)


def test_deterministic_and_of_the_whole_data_set(dataset: Dataset, tmp_path: Path) -> None:
    first = write_report(dataset, tmp_path / "a.html").read_bytes()
    assert write_report(Dataset(dataset.root, "val"), tmp_path / "b.html").read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_an_old_page_stays_until_the_new_one_is_complete(dataset: Dataset) -> None:
    path = write_report(dataset)
    before = path.read_bytes()

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(dataset, samples=2, on_sample=stop)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_page_size_is_that_of_its_content(tmp_path: Path) -> None:
    dataset = Dataset(make_dataset(tmp_path / "set", size=(256, 256)))
    pictures = sum(len(sample.images["image"]) for sample in dataset)
    masks = sum(len(label["mask"] or "") for sample in dataset for label in sample.labels)
    # Base64 costs a third; in JSON inside HTML `<`, `>` and backslash grow, 3 of run lengths' 64 characters.
    assert write_report(dataset).stat().st_size < 1.34 * pictures + 1.3 * masks + 60_000


# --- counting ------------------------------------------------------------------------------------------


def test_summary_agrees_with_the_masks(dataset: Dataset) -> None:
    summary = summarise(dataset)
    samples = list(dataset)
    assert summary.patients == 5
    assert summary.case_counts == {"ok": 4, "failed": 1}
    assert summary.sample_counts == {"train": 4, "val": 2, "test": 2}
    assert [case.case_id for case in summary.problems] == ["bad"]
    assert [row.category["name"] for row in summary.classes] == [name for name, _, _ in CLASSES]
    for row in summary.classes:
        name = row.category["name"]
        shares = [s.masks[name].mean() for s in samples if name in s.masks and s.masks[name].any()]
        assert row.seen == len(shares)
        assert row.unknown == sum(name not in s.masks for s in samples)
        assert row.absent == sum(
            r["status"] == "absent" for s in samples for r in s.labels if r["class"] == name
        )
        facts = [r for s in samples for r in s.labels if r["class"] == name and r["area_px"]]
        if name == RATED:
            assert row.confidence == pytest.approx(np.median([r["confidence"] for r in facts]))
            assert row.disputed == pytest.approx(
                np.median(
                    [
                        s.disputed[name].sum() / r["area_px"]
                        for s, r in zip((s for s in samples if s.masks[name].any()), facts, strict=True)
                    ]
                )
            )
        else:
            assert row.confidence is None
            assert row.disputed is None
        assert row.reason == (WHY_UNKNOWN if name == UNKNOWN else "")
        if shares:
            assert row.median_share == pytest.approx(np.median(shares), rel=1e-6)
        else:
            assert row.median_share is None


def test_what_is_known_of_masks_is_on_the_page(dataset: Dataset, tmp_path: Path) -> None:
    """Confidence, disputed pixels, why a class is unknown, whose masks they are; columns only where needed."""
    manifest = json.loads((dataset.root / "dataset.json").read_text())
    thorax = {"segmenter": "thorax", "device": "cpu", "classes": "ab", "identity.version": 7}
    (dataset.root / "dataset.json").write_text(json.dumps(manifest | {"segmenters": [thorax]}))
    page = Page(write_report(Dataset(dataset.root)))
    text = page.text
    assert "disputed" in [a.get("id") for a in page.of("input")]
    [heart] = [row for row in summarise(dataset).classes if row.category["name"] == RATED]
    assert heart.confidence is not None
    for words in (
        "Confidence",
        "Disputed",
        f"{heart.confidence:.2f}",
        WHY_UNKNOWN,
        "are of thorax (version 7, on cpu).",
    ):
        assert words in text, words
    plain = make_dataset(tmp_path / "plain", classes=[c for c in CLASSES if c[0] != RATED])
    page = Page(write_report(Dataset(plain)))
    assert "disputed" not in [a.get("id") for a in page.of("input")]
    for words in ("Confidence", "Disputed", "did not come with a CT"):
        assert words not in page.text, words


@st.composite
def sample_rows(draw: st.DrawFn) -> tuple[SampleRow, ...]:
    rows = []
    for split in ("test", "train", "val"):
        for number in range(draw(st.integers(0, 12))):
            views = draw(st.integers(1, 3))
            case = f"{split}{number}"
            rows += [SampleRow(f"{case}/{view}", case, split, str(view)) for view in range(views)]
    return tuple(rows)


@given(sample_rows(), st.integers(0, 40))
def test_choice(rows: tuple[SampleRow, ...], count: int) -> None:
    chosen = choose_samples(rows, count)
    assert len(set(chosen)) == len(chosen) <= count
    assert set(chosen) <= set(rows)
    splits = {row.split for row in rows}
    assert len({row.split for row in chosen}) == min(len(splits), count)
    if all(row.view == "0" for row in rows):
        assert len(chosen) == min(count, len(rows))


def test_choice_shows_everything_where_it_fits() -> None:
    rows = tuple(SampleRow(f"{c}/{v}", c, "train", v) for c in "abc" for v in ("pa", "lateral_left"))
    assert choose_samples(rows, 24) == rows
    assert [row.case_id for row in choose_samples(rows, 4)] == ["a", "a", "b", "b"]


# --- the script's reading of masks ---------------------------------------------------------------------

_DRIVER = """
class Path2D {
  constructor() { this.loops = []; }
  moveTo(x, y) { this.loops.push([[x, y]]); }
  lineTo(x, y) { this.loops.at(-1).push([x, y]); }
  closePath() {}
}
function crossings(loops, x, y) {
  let odd = false;
  for (const loop of loops) loop.forEach(([ax, ay], n) => {
    const [bx, by] = loop[(n + 1) % loop.length];
    if ((ay > y) !== (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax)) odd = !odd;
  });
  return odd;
}
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(([counts, rows, columns]) => {
  const ends = decodeEnds(counts), {loops} = outline(ends, rows, columns);
  const grid = test => Array.from({length: rows}, (_, r) => Array.from({length: columns}, (_, c) => +test(r, c)));
  return [grid((r, c) => isInside(ends, c * rows + r)), grid((r, c) => crossings(loops, c + .5, r + .5))];
})));
"""


def test_script_decodes_and_outlines_masks() -> None:
    """In node: run lengths decode to the mask, and the outline holds exactly the centres of the mask's pixels."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: it runs the page's script")
    template = files("paxray.report").joinpath("page.html").read_text(encoding="utf-8")
    script = template.partition("/* MASKS BEGIN */")[2].partition("/* MASKS END */")[0]
    assert "decodeEnds" in script
    rng = np.random.default_rng(0)
    masks = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.eye(6, 9, dtype=bool)]
    masks += [
        rng.random(rng.integers(1, 30, 2)) < share for share in (0.03, 0.2, 0.5, 0.8, 0.97) for _ in range(8)
    ]
    large = np.zeros((700, 300), bool)
    large[10:690, 20:280] = True  # runs of many characters, and differences below zero
    large[100:500, 50:90] = False
    masks.append(large)
    given_cases = json.dumps([[encode_mask(mask), *mask.shape] for mask in masks])
    done = subprocess.run(
        [node, "-e", script + _DRIVER],
        input=given_cases,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for mask, (decoded, outlined) in zip(masks, json.loads(done.stdout), strict=True):
        np.testing.assert_array_equal(np.array(decoded, bool).reshape(mask.shape), mask)
        np.testing.assert_array_equal(np.array(outlined, bool).reshape(mask.shape), mask)
