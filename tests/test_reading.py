"""Side by side or one after the other, a case reads alike; and the case of a few voxels loads what a real one needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paxray.anatomy.catalog import load_catalog
from paxray.config import Pipeline
from paxray.errors import CaseError
from paxray.io.cases import Case, MaskSource, read_case_table
from paxray.io.ct import read_ahead
from paxray.parallel import at_most
from paxray.reading import read_case


def test_side_by_side_as_one_after_the_other(phantom_table: Path, small_pipeline: Pipeline) -> None:
    case, catalog = read_case_table(phantom_table)[0], load_catalog()
    with at_most(1):
        alone = read_case(case, small_pipeline, catalog, None)
    with at_most(2):
        both = read_case(case, small_pipeline, catalog, None)
    ahead = read_case(case, small_pipeline, catalog, None, read_ahead(case.ct, where=case.ct_where))
    for ct, labels in (both, ahead):
        np.testing.assert_array_equal(alone[0].array, ct.array)
        np.testing.assert_array_equal(alone[1].atoms, labels.atoms)
        assert alone[1].status == labels.status


@pytest.mark.parametrize("limit", [1, 2])
def test_the_cts_error_comes_before_the_masks(limit: int, tmp_path: Path, small_pipeline: Pipeline) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(b"\x1f\x8b nothing")
    for ct, code in (("ct.nii.gz", "unreadable"), ("gone.nii.gz", "missing_file")):
        masks = (MaskSource(tmp_path / "m.nii.gz", "nonsense", "m.nii.gz"),)
        case = Case(case_id="a", patient_id="a", ct=tmp_path / ct, ct_where=ct, masks=masks)
        for read in (None, read_ahead(case.ct, where=ct)):
            with at_most(limit), pytest.raises(CaseError) as caught:
                read_case(case, small_pipeline, load_catalog(), None, read)
            assert (caught.value.code, caught.value.where) == (code, ct)


def test_warming_up_loads_all_that_a_case_compiles(phantom_table: Path, tmp_path: Path) -> None:
    """After it, no compiled loop of the stages up to the picture meets types that it has not met."""
    case = read_case_table(phantom_table)[0]
    code = f"""
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from paxray.warmup import warm_up
warm_up("cpu")
ours = [module for name, module in sys.modules.items() if name.startswith("paxray.")]
met = {{f: len(f.signatures) for m in ours for f in vars(m).values() if isinstance(f, Dispatcher)}}
assert sum(met.values()) >= 5, met
from paxray.look import look
look(Path({str(case.ct)!r}), [{f"{case.masks[0].path}={case.masks[0].vocabulary}"!r}], ["pa"], Path({str(tmp_path)!r}))
later = {{f.__name__: len(f.signatures) - n for f, n in met.items() if len(f.signatures) != n}}
assert not later, later
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
