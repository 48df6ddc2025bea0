"""Who waits for the compiler is told, once; who does not is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OURS = """
import numpy as np
from paxray.anatomy.loops import look_up
from paxray.physics.loops import look_up_within

table, values, out = np.arange(4.0), np.array([3, 1], np.uint8), np.empty(2)
look_up(table, values, out)
look_up_within(table, values, values > 2, out)
print(out.tolist())
"""
ANOTHERS = """
from numba import njit
import paxray.compiling

print(njit(lambda n: n + 1)(1))
made = {}
exec("def without_a_module(n): return n + 1", made)
print(njit(made["without_a_module"])(1))
"""


def run(script: str, cache: Path) -> tuple[str, list[str]]:
    """What a process prints, and the lines of its stderr, where numba keeps its code in `cache`."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr.splitlines()


def test_compiling_is_told_once_and_only_where_it_happens(tmp_path: Path) -> None:
    found, told = run(OURS, tmp_path)
    assert found == "[3.0, 0.0]\n"
    assert len(told) == 1
    assert told[0].startswith("paxray: numba compiles")
    assert run(OURS, tmp_path) == (found, [])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(ANOTHERS, id="loops of others"),
        pytest.param(
            "import logging\nlogging.getLogger('paxray').setLevel(logging.ERROR)\n" + OURS, id="unwanted"
        ),
    ],
)
def test_nothing_is_told_of(script: str, tmp_path: Path) -> None:
    assert run(script, tmp_path)[1] == []


@pytest.mark.parametrize("module", ["projection.cpu", "measure.surface"])
def test_whatever_part_compiles_first_tells(module: str) -> None:
    """Importing a part of the package that compiles brings in `paxray.compiling`."""
    script = f"import sys, paxray.{module}\nassert 'paxray.compiling' in sys.modules"
    assert run(script, Path()) == ("", [])
