"""The benchmark measures what it says: closed forms, turns, agreement before timing, rows; no figures here."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import command, derive, limits, machine, masks, nnunet, projector, report
from benchmarks.compare import TOOLS, compare, disagreement, label_disagreement
from benchmarks.scenes import (
    CASES,
    PEAK_PER_MM,
    Ball,
    Scene,
    balls,
    cone_view,
    make_scene,
    overlapping_labels,
    renamed_labels,
)
from benchmarks.timing import LEAST_ROUNDS, Call, Times, take_turns
from benchmarks.tools import Paxray, Tool
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.io.nifti import read_nifti
from paxray.io.volume import Grid, Volume
from paxray.phantom.thorax import label_ids
from paxray.projection.project import project
from paxray.segmentation.files import read_masks

SHRINK = 4
KEYS = {"tool", "case", "outputs", "classes", "seconds", "rms_error"}


@pytest.fixture(scope="module")
def cone() -> Scene:
    return make_scene("cone-256", SHRINK)


@pytest.fixture(scope="module")
def parallel() -> Scene:
    return make_scene("parallel-512x512x300", SHRINK)


def test_a_balls_line_integral_is_the_sum_along_the_ray() -> None:
    ball, view = Ball((12.0, -30.0, 25.0), 11.0), cone_view(30, 20, pixels=8)
    origin, direction = view.ray(*np.meshgrid(np.arange(8), np.arange(8)))
    depth = np.arange(1300.0, 1800.0, 0.5)
    at = origin[..., None, :] + depth[:, None] * direction[..., None, :]
    distance2 = ((at - ball.center_mm) ** 2).sum(-1)
    summed = PEAK_PER_MM * np.exp(-distance2 / (2 * ball.sigma_mm**2)).sum(-1) * 0.5
    np.testing.assert_allclose(ball.line_integral(view), summed, rtol=1e-9, atol=1e-12)


def test_the_phantom_lies_inside_every_volume() -> None:
    for ball in balls():
        assert np.abs(ball.center_mm).max() + 6 * ball.sigma_mm <= 175.0 + 1e-9


def test_classes_are_all_there_and_exclusive(cone: Scene) -> None:
    counts = cone.labels.atom_counts()
    assert len(cone.labels.names) == 105
    assert counts[1:].min() > 0
    assert (cone.labels.membership.sum(axis=1)[1:] == 1).all()


def test_overlapping_catalog_keeps_structures_and_nests(cone: Scene) -> None:
    overlapping = overlapping_labels(cone.labels)
    for c in (0, 50, 100):
        mask = overlapping.mask(f"class_{c}")
        np.testing.assert_array_equal(mask, cone.labels.mask(f"organ_{c}"))
        group = overlapping.mask(f"class_{105 + c // 8}")
        assert not (mask & ~group).any()
        assert group.sum() > mask.sum()
    assert (overlapping.membership[1:].sum(axis=1) == 6).all()
    assert (overlapping.atom_counts()[1:] > 0).all()


def test_renaming_changes_names_alone(cone: Scene) -> None:
    renamed = renamed_labels(cone.labels, 4)
    assert renamed.atoms is cone.labels.atoms
    assert sum(renamed.voxel_counts().values()) == sum(cone.labels.voxel_counts().values())


def test_calls_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == list("ababab")


def test_a_tools_own_clock_counts() -> None:
    times = take_turns({"a": Call(lambda: None, lambda: 7.0)}, 2)["a"]
    assert times.median == times.low == times.high == 7.0
    assert Times((1.0, 2.0)).plus(Times((10.0, 20.0)), 3) == Times((31.0, 62.0))


def test_when_time_is_up_the_least_rounds_are_still_run() -> None:
    times = take_turns({"a": lambda: None}, 50, until=time.perf_counter() - 1)
    assert len(times["a"].seconds) == LEAST_ROUNDS


@pytest.mark.parametrize("wrong", ["flipped", "shifted", "scaled", "transposed", "empty"])
def test_an_image_that_is_not_ours_is_noticed(cone: Scene, wrong: str) -> None:
    image = project(cone.mu, None, cone.view, ["image"], device="cpu").image
    assert image is not None
    assert disagreement(cone, image) == ""
    changed: dict[str, Any] = {
        "flipped": image[:, ::-1],
        "shifted": np.roll(image, 1, axis=1),
        "scaled": image * 0.1,
        "transposed": image.T,
        "empty": np.zeros_like(image),
    }
    with np.errstate(invalid="ignore"):
        assert "differs" in disagreement(cone, changed[wrong])


def test_labels_that_are_not_ours_are_noticed(cone: Scene) -> None:
    tool = Paxray(1)
    tool.load(cone)
    maps = tool.image_and_labels()[1][[0, 52, 104]]
    assert label_disagreement(tool, cone, [0, 52, 104], maps, 1) == ""
    assert "differ" in label_disagreement(tool, cone, [1, 52, 104], maps, 1)


def test_a_tool_with_another_geometry_is_left_out(cone: Scene) -> None:
    class Flipped(Paxray):
        name = "flipped"

        def image(self) -> Any:
            return super().image()[::-1]

    rows, left_out = compare(cone, [Paxray, Flipped], repeats=1, threads=1, say=lambda _: None)
    assert {row.tool for row in rows} == {"paxray"}
    (one,) = left_out
    assert one.tool == "flipped"
    assert "correlation" in one.reason


@pytest.mark.parametrize("tool", [t for t in TOOLS if t is not Paxray], ids=lambda t: t.name)
def test_each_peer_sees_the_same_scene(tool: type[Tool], cone: Scene, parallel: Scene) -> None:
    peer = tool(1)
    if peer.missing():
        pytest.skip(peer.missing())
    scene = parallel if peer.takes(parallel) else cone
    turned = scene if scene is parallel else scene.seen_from(cone_view(-35, 0, pixels=128))
    peer.load(turned)
    image = peer.image()
    # Constant voxels (Siddon) of 5.6 mm blur the smallest balls; nothing else may come near this.
    assert np.corrcoef(image.ravel(), turned.expected.ravel())[0, 1] > 0.99
    assert (image * turned.expected).sum() / (turned.expected**2).sum() == pytest.approx(1, abs=0.02)
    if not peer.labels_are:
        return
    chosen = [0, 30]
    if peer.one_pass:
        whole, maps = peer.image_and_labels()
        np.testing.assert_allclose(whole, image, atol=1e-4 * image.max())
        maps = maps[chosen]
    else:
        maps = np.stack([peer.one_class(c) for c in chosen])
    assert label_disagreement(peer, turned, chosen, maps, 1) == ""


def test_samples_of_a_parallel_view_are_its_voxels(parallel: Scene) -> None:
    assert limits.count_samples(parallel) == parallel.mu.array.size


def test_ceilings_are_positive_and_machine_is_anonymous() -> None:
    assert min(machine.ceilings(1, seconds=0.01).values()) > 0
    assert set(machine.describe()) == {"date", "cpu", "cores", "system", "load_before"}


def test_numbers_read_well() -> None:
    assert [report.number(x) for x in (0, 0.25, 1.5, 123.4, 12345.0, 2e-5)] == [
        "0", "0.250", "1.50", "123", "12,345", "2.00e-05",
    ]  # fmt: skip
    assert report.duration(0.0123) == "12.3 ms"


def test_quick_run_writes_rows_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file = tmp_path / "rows.json"
    arguments = ["--quick", "--shrink", str(SHRINK), "--repeats", "2", "--threads", "1"]
    arguments += ["--tools", "paxray", "numpy", "--json", str(rows_file), "--out", str(tmp_path / "results")]
    assert projector.main(arguments, class_numbers=(2, 16)) == 0
    rows = json.loads(rows_file.read_text())
    assert all(set(row) == KEYS for row in rows)
    found = {(row["tool"], row["case"], row["outputs"]): row for row in rows}
    for case in CASES:
        for outputs, classes in (("image", 0), ("image+labels", 105)):
            row = found["paxray", f"{case}/{SHRINK}", outputs]
            assert row["classes"] == classes
            assert row["seconds"] > 0
            assert 0 < row["rms_error"] < 0.02
    assert ("numpy", f"parallel-512x512x300/{SHRINK}", "image+labels") in found
    everything = json.loads((tmp_path / "results" / "projector.json").read_text())
    assert set(everything["machine"]) >= {"date", "cpu", "cores"}
    assert everything["versions"]["paxray"]
    assert {"title", "note", "rows"} == set(everything["tables"][0])
    text = (tmp_path / "results" / "projector.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "figures mean nothing" in text
    assert platform.node() not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tools", "RKT"], "did you mean 'RTK'"),
        (["--cases", "cone-255"], "did you mean 'cone-256'"),
        (["--repeats", "0"], "at least 1"),
        (["--shrink", "5"], "at most 4"),
    ],
)
def test_words_and_numbers_that_make_no_sense(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert projector.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert projector.main(["--device", "cuda", "--shrink", "4"]) == 4
    assert "no CUDA device" in capsys.readouterr().err


def test_memory_is_seen_and_others_are_told_apart() -> None:
    # So large that a huge page filled in part, at either end, stays within the bound.
    found = machine.peak_beyond(lambda: np.ones(2**24))
    others = machine.OthersUse().share(1.0)
    if found is None or others is None:
        pytest.skip("resident memory and processor use are read from /proc")
    assert found[1] == pytest.approx(2**27, rel=0.05)
    assert others >= 0


def test_command_table_and_ratios() -> None:
    def runs(factor: float) -> list[command.Run]:
        return [command.Run(factor * n, factor * n / 2, {"read": 0.25 * n}, 100.0 * n) for n in (1, 2, 4)]

    table = command.table({"paxray": runs(1.0), "other": runs(2.0)})
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["whole process, wall"][1].median == 4.0
    assert cells["start, imports, placing, exit"][0].seconds == (0.75, 1.5, 3.0)
    assert "wall 0.500 (0.500 to 0.500)" in command.ratios({"paxray": runs(1.0), "other": runs(2.0)})


def test_command_needs_the_real_chest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PAXRAY_REAL_DATA", raising=False)
    assert command.main([]) == 2
    assert "PAXRAY_REAL_DATA" in capsys.readouterr().err


@pytest.mark.real
def test_command_runs_the_whole_process(real_data: Path, tmp_path: Path) -> None:
    assert command.main(["--coarse", "--repeats", "1", "--out", str(tmp_path)]) == 0
    (one,) = json.loads((tmp_path / "command.json").read_text())["runs"]["paxray"]
    assert 0 < sum(one["stages_s"].values()) < one["wall_s"]
    assert one["processor_s"] > 0
    assert "| whole process, wall |" in (tmp_path / "command.md").read_text()


def test_shared_results_are_booked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes share a step: what it takes counts for the first, and everything adds up to the whole."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes:\n"
        "  one: {group: vessel, recipe: {erode: {of: {dilate: {of: aorta, by_mm: 2}}, by_mm: 1}}}\n"
        "  two: {group: vessel, recipe: {erode: {of: {dilate: {of: aorta, by_mm: 2}}, by_mm: 2}}}\n"
        "  three: {group: vessel, recipe: {union: [two, liver]}}\n"
    )
    catalog = load_catalog(path)
    ledger, clock = derive.Ledger(catalog), iter(range(100))
    monkeypatch.setattr(derive.time, "perf_counter", lambda: next(clock))
    builder = LabelBuilder((8, 8, 8))
    box = slice(2, 6), slice(2, 6), slice(2, 6)
    for name in ("aorta", "liver"):
        builder.add_mask(name, box, np.ones((4, 4, 4), bool))
    labels = builder.finish(np.eye(4), catalog)
    derive.derive(labels, catalog, names=["one", "two", "three"], watch=ledger.watch)
    # A tick for every reading of the clock: a node's own work takes 1, and 1 more for each node made inside it.
    assert dict(ledger.by_operator) == {derive.DRAWN: 3, "dilate": 2, "erode": 3, "union": 3}
    assert dict(ledger.by_class) == {"aorta": 1, "one": 4, "two": 2, "liver": 1, "three": 3}
    assert ledger.total_s == 11


def test_derive_tables() -> None:
    rounds = [
        derive.Round({"recipes": n, "facts": 1.0}, {"slow": n, "fast": 0.001, "faster": 0.0}, {"union": n}, 3)
        for n in (1.0, 2.0, 4.0)
    ]
    stages, operators, classes = derive.tables(rounds)
    assert dict(stages.rows)["all"].seconds == (2.0, 3.0, 5.0)
    assert dict(operators.rows)["union"].median == 2.0
    assert [name for name, _ in classes.rows] == ["slow", "2 others"]


@pytest.mark.real
def test_derive_runs_on_the_chest(real_data: Path, tmp_path: Path) -> None:
    assert derive.main(["--coarse", "--repeats", "1", "--threads", "1", "--out", str(tmp_path)]) == 0
    (one,) = json.loads((tmp_path / "derive.json").read_text())["rounds"]
    assert one["by_class_s"].keys() >= {"mediastinum", "skin", "rib_left_4_anterior"}
    assert sum(one["by_class_s"].values()) == pytest.approx(sum(one["by_operator_s"].values()))
    assert "| course |" in (tmp_path / "derive.md").read_text()


def test_masks_say_the_same_in_every_format(tmp_path: Path) -> None:
    """What `benchmarks.masks` reads is one set of masks, so that its rows compare."""
    affine = np.diag([0.75, 0.5, 2.5, 1.0])
    values = np.random.default_rng(0).integers(0, 118, (5, 12, 10)).astype(np.uint8)
    masks.write_sources(Volume(values, affine), tmp_path)
    catalog = load_catalog()
    names = load_vocabulary("totalsegmentator_v2", catalog=catalog).labels
    for source in masks.sources_in(tmp_path).values():
        labels = read_masks([source], Grid(values.shape, affine), catalog)
        for value, name in names.items():
            np.testing.assert_array_equal(labels.mask(name), values == value)


def test_a_data_set_for_nnunet_holds_the_largest_structures_under_their_own_names(tmp_path: Path) -> None:
    [case] = nnunet.phantoms([4], 6.0)
    classes = nnunet.largest([case], 5)
    nnunet.write_dataset(tmp_path, [case], classes)
    written = read_nifti(tmp_path / "labelsTr" / "phantom_00004.nii.gz").array
    told = json.loads((tmp_path / "dataset.json").read_text())
    assert told["labels"].pop("background") == 0
    assert set(told["labels"]) <= set(load_catalog())
    sizes = [int((written == value).sum()) for value in told["labels"].values()]
    for name, value in told["labels"].items():
        np.testing.assert_array_equal(written == value, case.labels.array == label_ids()[name])
    others = [int((case.labels.array == n).sum()) for name, n in label_ids().items() if name not in classes]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= max(others)
    image = read_nifti(tmp_path / "imagesTr" / "phantom_00004_0000.nii.gz").array
    np.testing.assert_array_equal(image, case.ct.array)
