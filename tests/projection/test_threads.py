"""Concurrent calls and forks, each in a process of its own: what goes wrong there ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SCENE = """
import os, sys, threading
import numpy as np
from scenes import affine_of, random_scene
from paxray.projection.materials import Materials
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project

shape = (18, 15, 21)
mu, labels = random_scene(1, shape, affine_of((1, 1, 1), shape))
view = place(Pose.named("lao"), Setup(size=(64, 64)), mu.grid.corners_mm)
materials = Materials(("same",), mu.array[None])

def march(threads=None):
    found = project(
        mu, labels, view, ["image", "materials", "presence"], materials=materials, device="cpu", threads=threads
    )
    return found.image.tobytes() + found.materials.tobytes() + found.presence.tobytes()

def walk():
    return project(mu, labels, view, ["image", "path"], method="exact").path_mm.tobytes()
"""

CONCURRENT = """
expected = {march: march(), walk: walk()}
wrong, ready = [], threading.Barrier(4)

def call(job):
    ready.wait()
    for n in range(12):
        if job() != expected[job]:
            wrong.append(job)

threads = [threading.Thread(target=call, args=(job,)) for job in (march, march, walk, walk)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("wrong:", len(wrong))
"""

FORK = """
expected = march()
child = os.fork()
if child == 0:
    os._exit(0 if march() == expected else 4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FORK_WHILE_BUSY = """
from paxray.projection import threads as module

march()
held, done = threading.Event(), threading.Event()

def hold():
    with module._lock:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    march()
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
print("child", code)
"""


LATE = """
import time
view = place(Pose.named("pa"), Setup(size=(64, 64), beam="parallel"), mu.grid.corners_mm)

def late():
    time.sleep(0.5)
    project(mu, labels, view, ["image"], device="cpu", threads=2)
    print("projected", flush=True)

threading.Thread(target=late).start()
"""


def run(script: str, tmp_path: Path) -> str:
    """Run a script, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCENE + script],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{TESTS}:{TESTS.parents[1]}",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_concurrent_calls_take_turns(tmp_path: Path) -> None:
    assert run(CONCURRENT, tmp_path) == "wrong: 0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_projects(tmp_path: Path) -> None:
    """It has none of the threads of the process that projected before."""
    assert run(FORK, tmp_path) == "0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_while_another_thread_projects_does_not_hang(tmp_path: Path) -> None:
    assert run(FORK_WHILE_BUSY, tmp_path).split() == ["child", "0"]


def test_a_thread_that_outlives_the_main_one_projects(tmp_path: Path) -> None:
    """Python's executors take no work any more by then."""
    assert run(LATE, tmp_path) == "projected\n"
