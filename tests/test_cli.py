"""The command line, called in process: what it prints, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dataset_fixture import CLASSES, make_dataset
from PIL import Image
from typer.testing import CliRunner

from paxray._version import __version__
from paxray.cli import app, keep_command
from paxray.cli.build import _segmented_note
from paxray.config import Pipeline, parse_pipeline
from paxray.io.cases import read_case_table

runner = CliRunner()
ROOT = Path(__file__).parents[1]


def call(*arguments: object, exit_code: int = 0) -> str:
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == exit_code, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture
def pipeline_file(tmp_path: Path, small_pipeline: Pipeline) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(small_pipeline.effective()))
    return path


def test_help_imports_nothing_heavy() -> None:
    """A stand-in for the time that --help takes, which a busy machine would blur."""
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom paxray.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'numpy', 'numba', 'pandas', 'pyarrow', 'scipy', 'dask', 'distributed', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cpu_build_imports_no_torch(tmp_path: Path, phantom_table: Path, pipeline_file: Path) -> None:
    script = (
        "import sys\nfrom paxray.api import build\n"
        f"build({str(pipeline_file)!r}, {str(phantom_table)!r}, {str(tmp_path / 'out')!r}, limit=1, device='cpu')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_one_projection_imports_no_scipy(tmp_path: Path, phantom_table: Path) -> None:
    """To import it takes longer than to project, and numba would bring it in."""
    case = phantom_table.parent / "phantom-0001"
    arguments = [
        "project", str(case / "ct.nii.gz"), "--labels", f"{case / 'labels.nii.gz'}=phantom",
        "--device", "cpu", "--out", str(tmp_path),
    ]  # fmt: skip
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom paxray.cli import app\n"
        f"made = CliRunner().invoke(app, {arguments!r})\n"
        "assert made.exit_code == 0, made.output\n"
        "print(sorted({'scipy.linalg', 'scipy.ndimage', 'torch', 'dask', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("project", {"project"}),
        ("import-paxray", {"import-paxray"}),
        ("classes", {"classes"}),
        ("projct", None),
        ("", None),
    ],
)
def test_one_command_is_made_ready_or_all(
    word: str, kept: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that is no command's leaves all, of which the message or the help then tells."""
    kinds = ("registered_commands", "registered_groups")
    for kind in kinds:
        monkeypatch.setattr(app, kind, list(getattr(app, kind)))

    def names() -> set[str]:
        return {each.name for kind in kinds for each in getattr(app, kind)}

    every = names()
    assert {"scan", "build", "project", "export", "classes", "import-paxray"} < every
    keep_command(word)
    assert names() == (every if kept is None else kept)


def test_a_process_that_ends_at_once_has_said_all(tmp_path: Path, phantom_table: Path) -> None:
    """`paxray project` leaves without taking its modules down; what it printed arrives through a pipe all the same."""
    case = phantom_table.parent / "phantom-0001"
    arguments = [
        "project", str(case / "ct.nii.gz"), "--labels", f"{case / 'labels.nii.gz'}=phantom",
        "--device", "cpu", "--size", "32", "--out", str(tmp_path / "look"), "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "paxray", *arguments], capture_output=True, text=True, check=True
    )
    [view] = json.loads(done.stdout)["views"]
    masks = list((tmp_path / "look" / "pa_masks").glob("*.png"))
    assert len(masks) == view["classes"] > 0
    for path in (Path(view["image"]), Path(view["overlay"]), *masks):
        Image.open(path).load()  # whole


@pytest.mark.parametrize(
    ("watch", "written"),
    [
        (["cProfile"], "function calls"),
        (["trace", "--count", "--summary", "--coverdir", "."], "lines   cov%"),
    ],
)
def test_a_process_that_is_watched_does_not_end_at_once(
    watch: list[str], written: str, tmp_path: Path
) -> None:
    """Or what was measured would be lost."""
    (tmp_path / "called.py").write_text("from paxray.cli import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, "-m", *watch, "called.py", "project", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert written in done.stdout


def test_ending_at_once_without_a_stdout() -> None:
    done = subprocess.run(
        f"exec {sys.executable} -m paxray project --help >&-", shell=True, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_version_and_every_help_text() -> None:
    assert __version__ in call("--version")
    for command in (
        "scan", "build", "project", "doctor", "report", "verify", "phantom", "export coco",
        "classes list", "classes show", "classes tree", "classes check",
    ):  # fmt: skip
        assert "Usage" in call(*command.split(), "--help")


def test_phantom_scan_build_export_verify_report(
    tmp_path: Path, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way of a newcomer with CTs of their own; coarse ones, as `make dataset` makes the fine ones."""
    from paxray.phantom import write

    monkeypatch.setattr(write, "write_phantoms", partial(write.write_phantoms, spacing_mm=(5.0, 5.0, 5.0)))
    call("phantom", "--cases", 3, "--seed", 5, "--out", tmp_path / "ct")
    table = tmp_path / "cases.csv"
    found = json.loads(call("scan", tmp_path / "ct", "-o", table, "--vocabulary", "phantom", "--json"))
    assert len(found["cases"]) == 3
    assert "exists already" in call("scan", tmp_path / "ct", "-o", table, exit_code=2)
    out = tmp_path / "dataset"
    common = ("build", pipeline_file, "--cases", table, "--out", out)
    assert "nothing written" in call(*common, "--dry-run")
    assert not out.exists()
    plan = json.loads(call(*common, "--dry-run", "--json"))
    assert (plan["cases"], plan["samples"]) == (3, 6)
    assert "6 samples of 3 ok cases" in call(*common, "-v")
    assert "nothing to do" in call(*common)
    assert json.loads(call(*common, "--json"))["cases"] == {"ok": 3}
    assert list((out / "logs").glob("build-*.log"))
    assert "sound" in call("verify", out, "--deep")
    exported = json.loads(call("export", "coco", out, "--json"))
    assert exported["images"] == 6
    assert Path(exported["folder"]) == out / "exports" / "coco"
    assert "index.html" in call("report", out).replace("\n", "")
    assert (out / "report" / "index.html").exists()
    # Exports and report are no part of what is verified.
    assert "sound" in call("verify", out)
    changed = call(*common, "--set", "geometry.rows=64", exit_code=2)
    assert "pipeline.geometry.rows: stands 96, asked for 64" in changed
    assert "6 samples" in call(*common, "--set", "geometry.rows=64", "--update")


@pytest.mark.parametrize(
    ("segmenter", "which", "bare", "note"),
    [
        (
            "thorax",
            "without_masks",
            1,
            "1 of 3 cases have no masks: segmented by thorax (pipeline key `segmentation`)",
        ),
        ("thorax", "without_masks", 0, ""),
        (
            [],
            "without_masks",
            3,
            "3 of 3 cases have no masks: only their body is labelled, since the pipeline names no segmenter",
        ),
        ([], "without_masks", 0, ""),
        (
            "thorax",
            "all",
            1,
            "(pipeline key `segmentation`, `cases: all`); 2 have masks, which come first",
        ),
        ("thorax", "all", 0, "; 3 have masks, which come first"),
        ("thorax", "all", 3, ", and none has masks"),
    ],
)
def test_a_build_says_what_it_segments(
    segmenter: str | list[str], which: str, bare: int, note: str, phantom_table: Path
) -> None:
    """With `cases: all` it does not read as if those with masks were left alone."""
    rows = [
        replace(row, masks=() if n < bare else row.masks)
        for n, row in enumerate(read_case_table(phantom_table)[:3])
    ]
    chosen = parse_pipeline(
        {"name": "some", "views": ["pa"], "segmentation": {"segmenter": segmenter, "cases": which}}
    ).segmentation
    told = _segmented_note(rows, chosen)
    assert told.endswith(note) if note else not told
    assert told.startswith("all 3 cases are segmented by thorax") == (which == "all")


def test_exit_codes(tmp_path: Path, built: Path, phantom_table: Path, pipeline_file: Path) -> None:
    broken = tmp_path / "cases"
    shutil.copytree(phantom_table.parent, broken)
    next(broken.glob("*/ct.nii.gz")).write_bytes(b"")
    output = call(
        "build", pipeline_file, "--cases", broken / phantom_table.name, "--out", tmp_path / "o", exit_code=3
    )
    assert "1 case failed" in output
    assert "unreadable" in output
    assert "1 failed, 3 ok" in output
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    victim = copy / "samples" / "train-00000.parquet"
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    assert "samples/train-00000.parquet" in call("verify", copy, exit_code=5)
    assert json.loads(call("verify", copy, "--json", exit_code=5))["findings"][0]["file"].startswith(
        "samples/"
    )
    call("verify", tmp_path / "nowhere", exit_code=2)
    call("build", tmp_path / "no.yaml", "--cases", phantom_table, "--out", tmp_path / "x", exit_code=2)
    call("build", pipeline_file, "--cases", tmp_path / "no.csv", "--out", tmp_path / "x", exit_code=2)
    call("build", "--no-such-option", exit_code=2)
    unknown = call(
        "build",
        pipeline_file,
        "--cases",
        phantom_table,
        "--out",
        tmp_path / "x",
        "--set",
        "veiws=[pa]",
        exit_code=2,
    )
    assert "did you mean 'views'" in unknown
    import torch

    if not torch.cuda.is_available():
        gpu = ("build", pipeline_file, "--cases", phantom_table, "--out", tmp_path / "x", "--device", "cuda")
        assert "no CUDA device" in call(*gpu, exit_code=4)
    assert not (tmp_path / "x").exists(), "a refused build leaves nothing behind"


def test_interrupt_gives_130(tmp_path: Path, phantom_table: Path, pipeline_file: Path) -> None:
    """SIGINT once the first shard stands: it is kept, and the same command makes the rest."""
    out = tmp_path / "o"
    arguments = ["build", pipeline_file, "--cases", phantom_table, "--out", out]
    # The signal comes from within, at one place: from without it would come when the machine's load lets it.
    (tmp_path / "interrupting.py").write_text(
        "import os, signal, sys\nimport paxray.cli as cli, paxray.run as run\n"
        "write = run.write_shard\n"
        "def interrupted(*shard):\n    write(*shard)\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "run.write_shard = interrupted\n"
        # Whoever runs the tests in the background has SIGINT ignored, which children inherit.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = {['paxray', *map(str, arguments)]!r}\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupting"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
    assert "what was committed stands" in done.stderr
    (commit,) = (out / "commits").iterdir()
    stands = {path: path.read_bytes() for path in (commit, *out.glob(f"*/{commit.stem}.parquet"))}
    assert len(stands) > 2
    assert "4 ok" in call(*arguments)
    assert {path: path.read_bytes() for path in stands} == stands


def test_interrupt_inside_an_exec_gives_130_too(tmp_path: Path) -> None:
    """Run with ``-m``, CPython would end itself by the signal there, handled or not."""
    script = (
        "import paxray.cli.classes as c, paxray.cli as cli, sys\n"
        "def interrupted(classes): exec('raise KeyboardInterrupt')\n"
        "c._catalog = interrupted\nsys.argv = ['paxray', 'classes', 'check']\ncli.main()\n"
    )
    (tmp_path / "interrupting.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "interrupting"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr


def test_project_one_case(tmp_path: Path, phantom_table: Path) -> None:

    folder = next(phantom_table.parent.glob("phantom-0001"))
    result = json.loads(
        call(
            "project", folder / "ct.nii.gz", "--labels", f"{folder / 'labels.nii.gz'}=phantom",
            "--view", "pa", "--view", "lateral_left", "--size", 128, "--out", tmp_path / "p", "--json",
        )
    )  # fmt: skip
    assert [view["view"] for view in result["views"]] == ["pa", "lateral_left"]
    stored = json.loads((tmp_path / "p" / "pa.json").read_text())
    seen = [row for row in stored["classes"] if row.get("area_px")]
    assert len(seen) == result["views"][0]["classes"] > 80
    for row in seen:
        mask = np.asarray(Image.open(tmp_path / "p" / "pa_masks" / f"{row['class']}.png"))
        assert mask.sum() == row["area_px"]
    assert Image.open(tmp_path / "p" / "pa_signal.png").mode.startswith("I;16")
    assert Image.open(tmp_path / "p" / "pa_overlay.png").mode == "RGB"
    assert stored["geometry"]["beam"] == "cone"


def test_project_without_masks_draws_the_picture(tmp_path: Path, phantom_table: Path) -> None:
    folder = next(phantom_table.parent.glob("phantom-0001"))
    result = json.loads(call("project", folder / "ct.nii.gz", "--size", 64, "--out", tmp_path, "--json"))
    assert result["views"][0]["classes"] == 1  # the body
    assert (tmp_path / "pa.png").exists()
    assert "landmarks" not in json.loads((tmp_path / "pa.json").read_text())


def test_project_in_full_follows_recipes_and_measures(tmp_path: Path, phantom_table: Path) -> None:
    folder = next(phantom_table.parent.glob("phantom-0001"))
    call("project", folder / "ct.nii.gz", "--size", 64, "--out", tmp_path, "--full")
    told = json.loads((tmp_path / "pa.json").read_text())
    seen = {row["class"]: row for row in told["classes"] if row.get("area_px")}
    assert set(seen) == {"body", "skin"}  # the skin follows from the body
    assert seen["skin"]["surface_mm2"] > seen["body"]["surface_mm2"] > 0
    assert told["landmarks"]


def test_project_follows_recipes_of_ones_own(tmp_path: Path, phantom_table: Path) -> None:
    folder = next(phantom_table.parent.glob("phantom-0001"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "classes:\n  inner_body:\n    group: body\n    colour: [10, 200, 10]\n"
        "    recipe: {erode: {of: body, by_mm: 5}}\n"
        # By a recipe of the built-in catalog, which is followed for this class alone.
        "  wrapping:\n    group: body\n    parts: [skin]\n    more_than_parts: false\n"
        "  aura:\n    group: body\n    colour: [200, 10, 10]\n    recipe: {dilate: {of: body, by_mm: 60}}\n"
    )
    result = json.loads(
        call("project", folder / "ct.nii.gz", "--size", 64, "--out", tmp_path, "--classes", mine, "--json")
    )
    seen = {"body": "whole", "inner_body": "whole", "wrapping": "whole", "aura": "cut"}
    assert {path.stem for path in (tmp_path / "pa_masks").iterdir()} == set(seen)
    told = json.loads((tmp_path / "pa.json").read_text())["classes"]
    assert {row["class"]: row["view_status"] for row in told if "view_status" in row} == seen
    assert result["findings"] is None  # there are no masks to be wrong


def test_project_only_some_classes(tmp_path: Path, phantom_table: Path) -> None:
    """What was asked for and nothing else, by synonyms, unions and recipes too; what has no pixels says why."""

    from paxray.anatomy.catalog import load_catalog
    from paxray.radiography.lettering import mark_sides

    folder = next(phantom_table.parent.glob("phantom-0001"))
    arguments = (
        "project",
        folder / "ct.nii.gz",
        "--labels",
        f"{folder / 'labels.nii.gz'}=phantom",
        "--size",
        64,
    )
    asked = ("heart", "lungs", "skin", "prostate")
    only = [word for name in asked for word in ("--only", name)]
    result = json.loads(call(*arguments, *only, "--out", tmp_path, "--json"))
    view = result["views"][0]
    assert view["classes"] == 3
    assert set(view["unseen"]) == {"prostate"}
    assert view["unseen"]["prostate"].startswith("unknown")
    assert {path.stem for path in (tmp_path / "pa_masks").iterdir()} == {"heart", "lungs", "skin"}
    told = json.loads((tmp_path / "pa.json").read_text())
    assert {row["class"] for row in told["classes"]} == set(asked)

    sheet = np.asarray(Image.open(tmp_path / "pa_overlay.png"))
    over, under = sheet[:128].astype(int), sheet[128:]
    # The letters at its edges are in colour, too.
    ground = np.full((128, 128, 3), 7, np.uint8)
    grey = (over == over[..., :1]).all(axis=2) | (mark_sides(ground, [1, 0, 0], [0, 0, -1]) != ground).any(
        axis=2
    )
    drawn = np.zeros(grey.shape, bool)
    for name in ("heart", "lungs", "skin"):
        mask = np.asarray(Image.open(tmp_path / "pa_masks" / f"{name}.png"))
        drawn |= mask.repeat(2, axis=0).repeat(2, axis=1)
    assert grey[~drawn].all()
    assert not grey[drawn].all()
    catalog = load_catalog()
    assert all((under == catalog[name].colour).all(axis=2).any() for name in ("heart", "lungs", "skin"))

    text = call(*arguments, "--only", "prostate", "--out", tmp_path)
    assert "no pixels prostate: unknown" in text
    assert "did you mean 'heart'" in call(*arguments, "--only", "haert", "--out", tmp_path, exit_code=2)


def test_project_says_that_masks_do_not_fit_the_ct(tmp_path: Path, phantom_table: Path) -> None:
    """The pictures look right then, to anyone but a radiologist; without --full, too."""
    folder = phantom_table.parent / "phantom-0001"
    common = (
        "--labels",
        f"{folder / 'labels.nii.gz'}=phantom",
        "--size",
        16,
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert json.loads(call("project", folder / "ct.nii.gz", *common))["findings"] is None
    ct = nib.load(folder / "ct.nii.gz")
    turned = nib.Nifti1Image(np.asarray(ct.dataobj)[::-1], ct.affine, ct.header)
    nib.save(turned, tmp_path / "turned.nii.gz")
    (finding,) = json.loads(call("project", tmp_path / "turned.nii.gz", *common))["findings"]
    assert (finding["finding"], finding["severity"]) == ("masks_off_the_ct", "error")


def test_project_overlay_of_all_is_of_the_main_structures(tmp_path: Path, phantom_table: Path) -> None:
    from paxray.anatomy.catalog import load_catalog
    from paxray.look import FILLED, OUTLINED, chosen, legend

    catalog, nothing = load_catalog(), np.zeros((2, 2), bool)
    assert all(catalog.resolve(name) == name for name in (*FILLED, *OUTLINED))
    assert chosen(["heart", "rib_left_1", "body", "heart_ventricle_left"], lambda _: nothing, catalog) == (
        ["heart"],
        ["rib_left_1"],
    )
    assert legend(["heart"], ["clavicula_left", "rib_left_1", "rib_right_1"], catalog) == [
        ("heart", catalog["heart"].colour),
        ("outlined: clavicula, rib", None),
    ]
    # Nothing of a chest: everything but what covers the rest.
    assert chosen(["body", "brain"], lambda _: nothing, catalog) == (["brain"], [])
    mine = tmp_path / "mine.yaml"
    mine.write_text("classes:\n  wall:\n    group: body\n    recipe: {erode: {of: body, by_mm: 5}}\n")
    assert chosen(["heart", "wall"], lambda _: nothing, load_catalog(mine)) == (["heart", "wall"], [])


def test_project_mistakes(tmp_path: Path, phantom_table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told before anything is read or loaded."""
    from paxray import look

    def prepare(*_: object, **__: object) -> None:
        raise AssertionError("prepared")

    monkeypatch.setattr(look, "prepare", prepare)
    ct = phantom_table.parent / "phantom-0001" / "ct.nii.gz"
    assert "did you mean 'lateral_left'" in call("project", ct, "--view", "lateral_lft", exit_code=2)
    assert "--label needs VALUE=CLASS" in call("project", ct, "--label", "118", exit_code=2)
    assert "missing_file" in call("project", tmp_path / "none.nii.gz", exit_code=3)
    assert "missing_file" in call("project", ct, "--labels", tmp_path / "no_folder", exit_code=3)
    assert "did you mean 'heart'" in call("project", ct, "--only", "haert", exit_code=2)


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "what"),
    [
        (["project", "NO_FILE", "--out", "OUT"], "missing_file", 3, "no such file"),
        (["project", "NO_FILE", "--out", "OUT", "--view", "pda"], "config", 2, "unknown view 'pda'"),
        (["project", "NO_FILE", "--no-such-option"], "usage", 2, "No such option"),
        (["project"], "usage", 2, "Missing argument"),
        (["--bogus"], "usage", 2, "No such option"),
        (["clases"], "usage", 2, "No such command"),
        (["classes", "list", "--json=1"], "usage", 2, "does not take a value"),
        (["scan", "NO_FILE"], "missing_file", 2, ""),
        (["build", "NO_FILE", "--cases", "c.csv", "--out", "OUT"], "config", 2, ""),
        (["segment", "NO_FILE", "--out", "OUT"], "missing_file", 3, ""),
        (["import-paxray", "NO_FILE", "OUT"], "no_release", 2, "no PAXRay here"),
        (["export", "coco", "NO_FILE"], "config", 2, ""),
        (["export", "paxray", "NO_FILE"], "config", 2, ""),
        (["verify", "NO_FILE"], "config", 2, "no such folder"),
        (["classes", "list", "--group", "lugn"], "config", 2, "no group 'lugn'"),
        (["classes", "show", "hart"], "unknown_class", 2, "hart"),
        (["classes", "preview", "hart", "NO_FILE"], "unknown_class", 2, "hart"),
    ],
)
def test_errors_are_json_where_json_is_asked_for(
    arguments: list[str], code: str, exit_code: int, what: str, tmp_path: Path
) -> None:
    """On stdout one document, whatever happens; the words for people are on stderr as ever."""
    places = {"NO_FILE": str(tmp_path / "none"), "OUT": str(tmp_path / "out")}
    made = runner.invoke(app, [*(places.get(a, a) for a in arguments), "--json"])
    assert made.exit_code == exit_code, made.output
    told = json.loads(made.stdout)["error"]
    assert set(told) == {"code", "what", "where", "expected", "found", "do", "exit_code"}
    assert (told["code"], told["exit_code"]) == (code, exit_code)
    assert what in told["what"]
    assert told["what"].split("'")[0][:20] in made.stderr


def test_every_command_with_json_takes_part() -> None:
    """The option's own name is what the rule goes by."""
    from typer.main import get_command

    def commands(group: Any) -> Iterator[Any]:
        for command in group.commands.values():
            yield from commands(command) if hasattr(command, "commands") else [command]

    with_json = [c for c in commands(get_command(app)) if any("--json" in p.opts for p in c.params)]
    assert len(with_json) > 10
    for command in with_json:
        (option,) = (p for p in command.params if "--json" in p.opts)
        assert option.name == "as_json", command.name
        assert hasattr(command.callback, "__wrapped__"), f"{command.name} is not guarded"


def test_a_bug_and_an_interrupt_are_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from paxray.cli import classes

    for error, code in ((KeyboardInterrupt(), "interrupted"), (ZeroDivisionError("none"), "internal")):

        def fails(_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(classes, "_catalog", fails)
        made = runner.invoke(app, ["classes", "list", "--json"])
        assert json.loads(made.stdout)["error"]["code"] == code
        assert made.exit_code == json.loads(made.stdout)["error"]["exit_code"]


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["classes", "list"], 0),
        (["classes", "list", "--json"], 0),
        (["classes", "tree"], 0),
        # What it has found counts, though nobody reads what it is.
        (["classes", "check", "--classes", "wrong.yaml"], 2),
    ],
)
def test_whoever_stops_reading_breaks_nothing(arguments: list[str], exit_code: int, tmp_path: Path) -> None:
    """`paxray classes list | head -1` ends as if all had been read."""
    twins = "{%s: {group: own, colour: [9, 9, 200]}, %s: {group: own, colour: [9, 9, 200]}}"
    (tmp_path / "wrong.yaml").write_text("classes: " + twins % ("one", "other"))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "paxray", *arguments],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (exit_code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        ("classes list --json", 4, "[environment]"),
        ("classes show heart --json", 4, "[environment]"),
        ("classes show hart --json", 2, "[unknown_class]"),
        ("classes list", 4, "[environment]"),
        ("--version", 4, "[environment]"),
    ],
)
def test_a_full_disk_under_stdout_is_no_bug(arguments: str, exit_code: int, words: str) -> None:
    """What went wrong is told on stderr and by the exit code, whether or not it can be told as JSON."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "paxray", *arguments.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.startswith(f"error {words}")
    assert "Traceback" not in done.stderr


def test_classes() -> None:
    listed = json.loads(call("classes", "list", "--json"))
    names = [item["name"] for item in listed]
    assert len(names) == len(set(names)) >= 200
    assert "rib_left_4" in names
    assert json.loads(call("classes", "show", "heart", "--json"))["snomed_ct"] == "80891009"
    assert "did you mean" in call("classes", "show", "hart", exit_code=2)
    assert "vertebrae_T4" in call("classes", "tree", "spine")
    assert "no problems" in call("classes", "check")
    assert len(json.loads(call("classes", "list", "--vocabulary", "totalsegmentator_v2", "--json"))) == 117
    assert all(i["group"] == "rib" for i in json.loads(call("classes", "list", "--group", "rib", "--json")))


def test_a_class_is_shown_as_its_file_has_it(tmp_path: Path) -> None:
    recipe = "{shell: {of: aorta, thickness_mm: 3, where: inside}}"
    (tmp_path / "mine.yaml").write_text(f"classes:\n  wall:\n    group: vessel\n    recipe: {recipe}\n")
    text = call("classes", "show", "wall", "--classes", tmp_path / "mine.yaml")
    assert recipe in text
    assert f"{tmp_path / 'mine.yaml'}:2" in text
    assert "None" not in text


def test_a_piped_table_is_not_cut() -> None:
    """No terminal, no width to keep: whoever greps must find whole names."""
    rows = json.loads(call("classes", "list", "--vocabulary", "paxray_166", "--json"))
    text = call("classes", "list", "--vocabulary", "paxray_166")
    assert all(row["class"] in text and row["name"] in text for row in rows)
    assert "…" not in text


def test_channels_of_a_data_sets_own_classes_need_no_class_file(tmp_path: Path) -> None:
    """The data set says itself what its classes are."""
    own = [(f"own_{name}", group, [f"own_{part}" for part in parts]) for name, group, parts in CLASSES]
    folder = make_dataset(tmp_path / "set", classes=own)
    names = [name for name, _, _ in own]
    (tmp_path / "mychan.yaml").write_text(json.dumps({"channels": names[::-1]}))
    spec = tmp_path / "mychan.yaml"
    done = json.loads(call("export", "paxray", folder, "--channels", spec, "--json"))
    content = json.loads((Path(done["folder"]) / "paxray.json").read_text())
    assert list(content["class_dict"].values()) == names[::-1]
    rows = json.loads(call("classes", "list", "--vocabulary", spec, "--dataset", folder, "--json"))
    assert [row["class"] for row in rows] == names[::-1]
    assert any(row["present"] for row in rows)
    plain = json.loads(call("classes", "list", "--dataset", folder, "--json"))
    assert plain == [row | {"channel": n} for n, row in enumerate(rows[::-1])]
    spec.write_text(json.dumps({"channels": ["own_hart"]}))
    assert "did you mean 'own_heart'" in call("export", "paxray", folder, "--channels", spec, exit_code=2)


def test_classes_of_ones_own_reach_the_data_set(
    tmp_path: Path, phantom_table: Path, pipeline_file: Path
) -> None:
    from paxray.api import load

    own = tmp_path / "mine.yaml"
    own.write_text(
        "classes:\n  heart_and_liver:\n    parts: [heart, liver]\n    group: mediastinum\n    colour: [200, 40, 40]\n"
    )
    call(
        "build",
        pipeline_file,
        "--cases",
        phantom_table,
        "--out",
        tmp_path / "o",
        "--limit",
        1,
        "--classes",
        own,
    )
    for sample in load(tmp_path / "o"):
        both = sample.masks["heart"] | sample.masks["liver"]
        np.testing.assert_array_equal(sample.masks["heart_and_liver"], both)
    coco = json.loads(call("export", "coco", tmp_path / "o", "--json"))
    content = json.loads((Path(coco["folder"]) / "annotations" / "instances_train.json").read_text())
    (category,) = [c for c in content["categories"] if c["name"] == "heart_and_liver"]
    assert sum(a["category_id"] == category["id"] for a in content["annotations"]) == 2
