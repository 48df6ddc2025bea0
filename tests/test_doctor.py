"""What this machine can do: what `paxray doctor` finds, and that it finds what is taken away from it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paxray.anatomy.catalog import load_catalog
from paxray.cli import app
from paxray.doctor import machine, segmenters
from paxray.doctor.check import Check, State, without_user
from paxray.doctor.examine import examine
from paxray.segmentation.registry import segmenter_names

runner = CliRunner()


def by_name(checks: list[Check] | tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_machine_that_passes_tests_can_run_the_default_pipeline(tmp_path: Path) -> None:
    result = runner.invoke(app, ["doctor", "--json", "--out", str(tmp_path / "not" / "there" / "yet")])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["ok"] is True
    assert {check["section"] for check in report["checks"]} >= {"devices", "segmenters", "packages", "places"}
    names = [check["name"] for check in report["checks"] if check["section"] == "segmenters"]
    assert names == segmenter_names()
    state = {check["name"]: check["state"] for check in report["checks"]}
    assert state["thorax"] == state["files"] == state["cpu"] == state["required"] == "ready"
    assert not (tmp_path / "not").exists()


def test_every_line_that_is_not_ready_says_so_in_words(tmp_path: Path) -> None:
    """What cannot be helped (no GPU in the machine) is the only thing that may lack advice."""
    for check in examine(tmp_path).checks:
        assert check.state is State.READY or check.found, check
        assert check.state is State.READY or check.do or check.name in ("cuda", "extra totalsegmentator"), (
            check
        )


def test_the_printed_report_has_every_line_and_command() -> None:
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    for check in examine(Path()).checks:
        assert check.section in words
        if len(check.name) < 28:
            assert check.name in words
        if check.do and not check.facts.get("download"):
            assert " ".join(check.do.split()) in words
    assert "The default pipeline can run here, on " in words


def test_neither_host_nor_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, weights = tmp_path / "jane.doe", tmp_path / "patients of dr smith"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(weights))
    monkeypatch.chdir(tmp_path)
    output = runner.invoke(app, ["doctor", "--json"]).output
    for word in ("jane", "smith", str(tmp_path), os.uname().nodename):
        assert word not in output, word


def test_folders_become_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", "/home/jane/weights")
    monkeypatch.chdir(tmp_path)
    text = f"/home/jane/weights/Dataset291 /home/jane/.cache {tmp_path}/a"
    assert without_user(text) == "$TOTALSEG_WEIGHTS_PATH/Dataset291 ~/.cache ./a"
    monkeypatch.setenv("HOME", "/")
    assert without_user("/usr/lib") == "/usr/lib"


def test_no_torch_without_a_driver_and_nothing_heavy() -> None:
    """A stand-in for the time that it takes."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom paxray.doctor import machine\n"
        "machine._driver = lambda: (False, 'none')\n"
        "from paxray.doctor.examine import examine\nexamine(Path())\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'dask', 'distributed', 'SimpleITK', 'nnunetv2', 'skimage'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_package_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    versions = {"numpy": "1.26.4", "cuda-core": "1.1", "torch": "2.9.1+cu130"}
    wanted = [
        "numpy>=2.0", "scipy>=1.14", "torch>=2.5", 'colorama; sys_platform == "none"',
        'cuda-core<2,>=1.0; extra == "gpu"', 'nnunetv2>=2.6; extra == "nnunet"',
        'TotalSegmentator>=2.18; python_version < "3" and extra == "totalsegmentator"', 'ruff; extra == "test"',
    ]  # fmt: skip

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", version)
    monkeypatch.setattr(machine, "requires", lambda name: wanted)
    found = by_name(machine.check_packages())
    assert found["required"].state is State.BROKEN
    assert found["required"].found == "numpy 1.26.4, needed >=2.0; scipy is not installed"
    assert found["required"].do == "pip install 'numpy>=2.0' 'scipy>=1.14'"
    assert found["extra gpu"].state is State.READY
    assert (found["extra nnunet"].state, found["extra nnunet"].do) == (
        State.MISSING,
        "pip install 'paxray[nnunet]'",
    )
    assert "there is none for Python" in found["extra totalsegmentator"].found
    examined = examine(tmp_path)
    assert not examined.ok
    assert {check.section for check in examined.checks} == {"packages"}
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 4
    assert "cannot run here: required" in result.output


def test_a_folder_that_cannot_be_written_or_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "data sets, segmentations"
    (tmp_path / "file").touch()
    assert by_name(machine.check_places(tmp_path / "file" / "set"))[place].state is State.BROKEN
    assert by_name(machine.check_places(tmp_path / "set"))[place].state is State.READY
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**9))
    assert by_name(machine.check_places(tmp_path))[place].state is State.LIMITED


def driver(gpus: int) -> types.SimpleNamespace:
    """A driver's library with so many GPUs."""

    def tell(value: int) -> Callable[[Any], int]:
        def told(reference: Any) -> int:
            reference._obj.value = value
            return 0

        return told

    return types.SimpleNamespace(
        cuInit=lambda flags: 0 if gpus else 100,
        cuDeviceGetCount=tell(gpus),
        cuDriverGetVersion=tell(13010),
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Check]]:
    """The checks of CUDA on a machine with such a driver, torch and compiler."""

    def checked(
        gpus: int = 1, *, sees: bool = True, capability: tuple[int, int] = (9, 0)
    ) -> dict[str, Check]:
        one = types.SimpleNamespace(
            name="GPU", total_memory=80 * 2**30, major=capability[0], minor=capability[1]
        )
        cuda = types.SimpleNamespace(
            is_available=lambda: sees, device_count=lambda: gpus, get_device_properties=lambda n: one
        )
        torch = types.SimpleNamespace(
            cuda=cuda, version=types.SimpleNamespace(cuda="13.0"), __version__="2.9"
        )
        nvrtc = types.SimpleNamespace(
            nvrtcVersion=lambda: (0, 13, 0), nvrtcGetSupportedArchs=lambda: (0, [80, 90])
        )
        monkeypatch.setattr(ctypes, "CDLL", lambda name: driver(gpus))
        monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
        for name in ("cuda", "cuda.core"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "cuda.bindings", types.SimpleNamespace(nvrtc=nvrtc))  # type: ignore[arg-type]
        return by_name(machine.check_cuda())

    return checked


def test_a_gpu_that_everything_knows(gpu: Callable[..., dict[str, Check]]) -> None:
    found = gpu()
    assert found["NVIDIA driver"].found == "CUDA 13.1, 1 GPU"
    assert "GPU, 80 GiB, sm_90" in found["torch"].found
    assert (found["cuda"].state, found["cuda"].facts["auto"]) == (State.READY, "cuda")


def test_a_gpu_that_the_compiler_does_not_know_breaks_what_auto_would_take(
    gpu: Callable[..., dict[str, Check]],
) -> None:
    found = gpu(capability=(12, 0))
    assert "not for sm_120" in found["NVRTC"].found
    assert found["cuda"].state is State.BROKEN
    assert "--device cpu" in found["cuda"].do


def test_a_driver_without_a_gpu_and_a_torch_that_sees_none(gpu: Callable[..., dict[str, Check]]) -> None:
    found = gpu(0)
    assert "CUDA error 100 (no GPU)" in found["NVIDIA driver"].found
    assert found["cuda"].found == "no: NVIDIA driver missing; `auto` means cpu"
    found = gpu(sees=False)
    assert found["torch"].state is State.MISSING
    assert (found["cuda"].state, found["cuda"].facts["auto"]) == (State.MISSING, "cpu")


MODULE = """
from paxray.errors import ConfigError, ResourceError
from paxray.segmentation.contract import Segmenter
class Mine(Segmenter):
    name = "mine"
    @classmethod
    def from_settings(cls, settings, base):
        return cls()
    def classes(self, catalog): return ("body",)
    def identity(self): return {}
    def segment(self, request): raise NotImplementedError
    def preflight(self, device): pass
class NoWeights(Mine):
    def preflight(self, device):
        raise ResourceError("no weights", found="no such file", do="get-them " + device, code="weights_missing")
class Needs(Mine):
    @classmethod
    def from_settings(cls, settings, base):
        raise ConfigError("cannot use its setting 'm'", expected="a file m")
class Odd(Mine):
    def preflight(self, device): raise ZeroDivisionError("deep inside")
"""


def test_segmenters_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them comes out, whatever it does; none of them stops the default pipeline."""
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "others_segmenters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: others_segmenters\nVersion: 1.0\nLicense-Expression: MIT\n"
    )
    points = {"mine": "Mine", "empty": "NoWeights", "needs": "Needs", "odd": "Odd", "gone": "Gone"}
    lines = "\n".join(f"{name} = others_segmenters:{kind}" for name, kind in points.items())
    (info / "entry_points.txt").write_text(f"[paxray.segmenters]\n{lines}\n")
    (tmp_path / "others_segmenters.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "others_segmenters", raising=False)
    found = by_name(segmenters.check_segmenters("cuda"))
    assert (found["mine"].state, found["mine"].found) == (State.READY, "licence MIT")
    assert (found["empty"].state, found["empty"].do) == (State.MISSING, "get-them cuda")
    assert found["empty"].facts["code"] == "weights_missing"
    assert found["needs"].state is State.READY
    assert "a file m" in found["needs"].found
    assert "ZeroDivisionError: deep inside" in found["odd"].found
    assert "others_segmenters" in found["odd"].do
    assert found["gone"].state is State.MISSING
    assert not [check for check in found.values() if check.state is State.BROKEN]


def test_weights_task_by_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files in place for one mode of one task, that one is there and the rest are not."""
    pytest.importorskip(
        "totalsegmentator", reason="TotalSegmentator is not installed: there is none for Python 3.13"
    )
    from paxray.segmentation.totalsegmentator_tasks import ct_tasks, read_task

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(home))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))
    for model in read_task("total", "fast").models:
        folder = tmp_path / "weights" / model.folder
        for name in ("plans.json", "dataset.json", *(f"fold_{n}/checkpoint_final.pth" for n in model.folds)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    catalog = load_catalog()
    found = by_name(segmenters.check_weights(catalog))
    assert found["total, fast"].state is State.READY
    assert found["total"].state is State.MISSING
    assert found["total"].do == "totalseg_download_weights -t total"
    assert found["lung_vessels"].facts["download"][0] == "lung_vessels"
    free = [
        n
        for n in ct_tasks()
        if not read_task(n, "default").licensed and read_task(n, "default").classes(catalog)
    ]
    assert set(free) <= set(found)
    [licensed] = [check for name, check in found.items() if name.endswith("with a licence")]
    assert "heartchambers_highres" in licensed.facts["tasks"]
    assert "totalseg_set_license" in licensed.do
    (home / "config.json").write_text(json.dumps({"license_number": "x" * 18}))
    assert found.keys() - by_name(segmenters.check_weights(catalog)).keys() == {licensed.name}
    assert (
        by_name(segmenters.check_weights(catalog))["heartchambers_highres"].facts["code"] == "weights_missing"
    )
