from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import child_work
import numpy as np
import psutil
import pytest

from paxray.anatomy.catalog import load_catalog
from paxray.errors import CaseError, ResourceError
from paxray.io.volume import Volume
from paxray.segmentation.child import run_child
from paxray.segmentation.contract import Request


def _request(scratch: Path, **more: Any) -> Request:
    ct = Volume(np.zeros((1, 1, 1), np.int16), np.eye(4))
    return Request(ct=ct, catalog=load_catalog(), scratch=scratch, where="case-1", **more)


def _run(function: Any, scratch: Path, time_limit_s: float = 60, **arguments: Any) -> Any:
    return run_child(function, arguments, _request(scratch), segmenter="it", time_limit_s=time_limit_s)


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while alive := [pid for pid in pids if _alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_it_has_a_home_threads_and_devices_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    told = run_child(
        child_work.surroundings,
        {"given": "ünïcode"},
        _request(tmp_path, threads=3),
        segmenter="it",
        time_limit_s=60,
        environment={"EXTRA": "1"},
    )
    assert Path(told["home"]) == tmp_path / "home"
    assert Path(told["folder"]) == tmp_path
    assert told["given"] == "ünïcode"
    assert (told["OMP_NUM_THREADS"], told["CUDA_VISIBLE_DEVICES"]) == ("3", "")
    assert (told["XDG_CONFIG_HOME"], told["EXTRA"]) == ("unset", "1")
    # Either in the scratch, or, where that has too long a name for sockets, gone by now.
    assert Path(told["temporary"]) == tmp_path / "tmp" or not Path(told["temporary"]).exists()


@pytest.mark.parametrize(("kind", "expected"), [("case", CaseError), ("resource", ResourceError)])
def test_an_error_of_ours_comes_back_whole(tmp_path: Path, kind: str, expected: type[CaseError]) -> None:
    with pytest.raises(expected) as caught:
        _run(child_work.refuse, tmp_path, kind=kind)
    error = caught.value
    assert type(error) is expected
    assert (error.what, error.where, error.code) == ("not this one", "here", "some_code")
    assert (error.expected, error.found, error.do) == ("a", "b", "c")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_a_crash(tmp_path: Path, number: signal.Signals) -> None:
    with pytest.raises(CaseError, match=number.name) as caught:
        _run(child_work.die_of, tmp_path, number=int(number))
    assert caught.value.code == "segmenter_crashed"
    assert caught.value.where == "case-1"
    assert "about to die" in caught.value.found
    assert ("memory" in caught.value.do) == (number == signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 3])
def test_no_result_is_a_failure_with_the_last_words(tmp_path: Path, code: int) -> None:
    with pytest.raises(CaseError) as caught:
        _run(child_work.leave, tmp_path, code=code, lines=50)
    assert caught.value.code == "segmenter_failed"
    assert f"exit code {code}" in caught.value.found
    assert "line 49 in SCRATCH" in caught.value.found
    assert "line 1 in" not in caught.value.found
    assert str(tmp_path) not in str(caught.value)
    assert "line 1 in" in (tmp_path / "child.log").read_text()


def test_time_is_up_for_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CaseError, match="within 5 s") as caught:
        _run(child_work.family, tmp_path, time_limit_s=5, pids=str(pids))
    assert caught.value.code == "segmenter_timeout"
    _wait_until_gone([int(pid) for pid in pids.read_text().split()])


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = (
        "import sys; from pathlib import Path; import child_work, test_child\n"
        "test_child._run(child_work.family, Path(sys.argv[1]), 100, pids=sys.argv[2])"
    )
    path = os.pathsep.join(sys.path)
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(pids)], env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not pids.exists():
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    _wait_until_gone([int(pid) for pid in pids.read_text().split()])


def test_it_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcomes = _run(child_work.call_home, tmp_path, port=server.getsockname()[1])
    assert outcomes == ["refused"] * 5 + ["fine"]
