"""float32 against float64 on the same stored volume: within the bound that docs/geometry.md states."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_host import Builds, HostEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import affine_of, random_scene, rotation

from paxray.io.volume import Volume
from paxray.projection.cuda.resident import Resident
from paxray.projection.materials import Materials
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project
from paxray.projection.view import View

#: Half a unit in the last place of float32.
U = 2.0**-24


def bound(field: NDArray[np.float32], affine: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    """``(rows, columns)``: u ((n + 12) sum |terms| + 24 (n + 1) jump L), all in float64."""
    size = Volume(np.abs(field), affine)
    terms = project(size, None, view, ["image"], backend="reference").image
    # Attenuation falls to zero within one voxel of the lattice: that is a jump too.
    padded = np.pad(field.astype(np.float64), 1)
    jump = max(float(np.abs(np.diff(padded, axis=axis)).max()) for axis in range(3))
    # Length of the ray between the first and the last slab, at most.
    ones = Volume(np.ones([n + 4 for n in field.shape], np.float32), affine)
    ones = Volume(ones.array, affine - np.pad(2 * affine[:, :3].sum(axis=1)[:, None], ((0, 0), (3, 0))))
    length = project(ones, None, view, ["image"], backend="reference").image
    assert terms is not None
    assert length is not None
    n = max(field.shape)
    return np.asarray(U * ((n + 12) * terms + 24 * (n + 1) * jump * length))


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    angles=st.tuples(st.floats(-180, 180), st.floats(-60, 60), st.floats(-180, 180)),
    turn=st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
    beam=st.sampled_from(["cone", "parallel"]),
    before_mm=st.sampled_from([5.0, 300.0, 1800.0]),
    signed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_within_the_bound(
    builds: Builds,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    turn: tuple[float, float],
    beam: Any,
    before_mm: float,
    signed: bool,
    seed: int,
) -> None:
    """Image and materials, on the CPU and by the CUDA kernels; values of one sign and of both."""
    mu, _ = random_scene(seed, shape, affine_of(spacing, shape, rotation(*turn)))
    mu = Volume(mu.array - np.float32(0.01) * signed, mu.affine)
    sdd_mm = float(np.linalg.norm(np.multiply(shape[::-1], spacing))) + before_mm
    view = place(Pose("own", *angles), Setup(beam=beam, sdd_mm=sdd_mm, size=(9, 11)), mu.grid.corners_mm)
    materials = Materials(("same",), mu.array[None])
    plain = project(mu, None, view, ["image"], backend="reference").image
    atoms = np.zeros((1, 1, 1), np.uint16)
    on_gpu = {"resident": Resident(mu.array, atoms, engine=HostEngine(builds), materials=materials)}
    allowed = bound(mu.array, mu.affine, view)
    for where in ({"device": "cpu", "materials": materials}, on_gpu):
        found: Any = project(mu, None, view, ["image", "materials"], **where)  # type: ignore[arg-type]
        assert plain is not None
        for image in (found.image, found.materials[0]):
            assert image.dtype == np.float32
            assert (np.abs(image - plain) <= allowed).all()


def test_the_bound_is_worth_stating() -> None:
    """A chest's size, 300 slabs of noise: the bound lies below a thousandth of the image, the error far below that."""
    shape = (40, 300, 60)
    mu, _ = random_scene(1, shape, affine_of((0.8, 0.8, 1.0), shape, rotation(3, 2)))
    smooth = Volume(np.full(shape, 0.02, np.float32) + mu.array * np.float32(0.05), mu.affine)
    view = place(Pose.named("pa"), Setup(size=(16, 16)), mu.grid.corners_mm)
    plain = project(smooth, None, view, ["image"], backend="reference").image
    found = project(smooth, None, view, ["image"], device="cpu").image
    assert plain is not None
    assert found is not None
    allowed = bound(smooth.array, smooth.affine, view)
    error = np.abs(found - plain)
    assert (error <= allowed).all()
    assert allowed.max() <= 1e-3 * plain.max()
    assert error.max() <= 1e-5 * plain.max()
