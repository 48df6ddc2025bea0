"""Line integrals of basis materials: on every backend, from volumes and from a table of what voxels store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_host import Builds, HostEngine, HostTorchEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import affine_of, one_class, random_scene, rotation

import paxray
from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.volume import Volume
from paxray.physics.attenuation import linear_attenuation_per_mm
from paxray.projection import cpu_materials
from paxray.projection.cuda.kernels import Variant, compile_cubin
from paxray.projection.cuda.resident import Resident
from paxray.projection.materials import Materials
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Projection, project
from paxray.projection.rays import IndexRays, stepping_axes
from paxray.projection.view import View
from paxray.projection.want import Want

SHAPE = (18, 15, 21)
WHERE = ["reference", "cpu", "cuda"]


def affine(turned: bool = True) -> NDArray[np.float64]:
    return affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11) if turned else None)


def view_of(mu: Volume, name: str = "rao", beam: Any = "cone", sdd_mm: float = 1800.0) -> View:
    return place(
        Pose.named(name), Setup(beam=beam, sdd_mm=sdd_mm, size=(23, 29), margin_mm=3), mu.grid.corners_mm
    )


def found_on(
    where: str,
    builds: Builds,
    mu: Volume,
    labels: LabelVolume | None,
    view: View,
    want: Any,
    materials: Materials,
    **more: Any,
) -> Projection:
    """Project there; the CUDA kernels by their C++ build."""
    if where != "cuda":
        backend: Any = "reference" if where == "reference" else ""
        return project(mu, labels, view, want, materials=materials, device="cpu", backend=backend, **more)
    engine = HostEngine(builds)
    atoms = np.zeros((1, 1, 1), np.uint16) if labels is None else labels.atoms
    resident = Resident(mu.array, atoms, engine=engine, materials=materials)
    found = project(mu, labels, view, want, resident=resident, **more)
    engine.check()
    return found


def stored_scene(seed: int, dtype: Any = np.int16) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Random stored values, and a table of three materials that is far from linear."""
    rng = np.random.default_rng(seed)
    low = -1100 if dtype == np.int16 else 32000
    return rng.integers(low, low + 3000, SHAPE).astype(dtype), rng.random((2000, 3)).astype(np.float32)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("beam", "sdd_mm"), [("parallel", 1800.0), ("cone", 1800.0), ("cone", 35.0)])
@pytest.mark.parametrize("name", ["pa", "lateral_left", "rao"])
def test_a_volume_is_projected_as_attenuation_is(
    builds: Builds, where: str, name: str, beam: str, sdd_mm: float
) -> None:
    """The coefficients' line integral is what the image would be of each volume."""
    mu, labels = random_scene(1, SHAPE, affine())
    volumes = np.stack([mu.array, np.random.default_rng(2).random(SHAPE, dtype=np.float32)])
    view = view_of(mu, name, beam, sdd_mm)
    materials = Materials(("one", "other"), volumes)
    found = found_on(where, builds, mu, labels, view, ["image", "materials", "path"], materials)
    assert found.material_names == ("one", "other")
    for m, volume in enumerate(volumes):
        plain = project(Volume(volume, mu.affine), None, view, ["image"], backend="reference").image
        assert plain is not None
        assert found.materials is not None
        np.testing.assert_allclose(found.materials[m], plain, atol=1e-5 * plain.max())
    np.testing.assert_allclose(found.material("one"), found.image, atol=1e-5 * volumes[0].max() * 60)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("sdd_mm", [1800.0, 35.0])
def test_a_table_is_looked_up_before_interpolating(
    builds: Builds, where: str, dtype: Any, sdd_mm: float
) -> None:
    """As the volumes that the table makes; stored values beyond it take its ends."""
    stored, table = stored_scene(3, dtype)
    first = int(stored.min()) + 500
    volumes = np.moveaxis(table[np.clip(stored.astype(int) - first, 0, len(table) - 1)], -1, 0)
    mu = Volume(np.zeros(SHAPE, np.float32), affine())
    view = view_of(mu, sdd_mm=sdd_mm)
    by_table = Materials(("a", "b", "c"), stored, table, first)
    found = found_on(where, builds, mu, None, view, ["materials"], by_table).materials
    plain = project(
        mu, None, view, ["materials"], materials=Materials(("a", "b", "c"), volumes), backend="reference"
    ).materials
    assert plain is not None
    np.testing.assert_allclose(found, plain, atol=1e-5 * plain.max())


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    angles=st.tuples(st.floats(-180, 180), st.floats(-60, 60), st.floats(-180, 180)),
    turn=st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
    beam=st.sampled_from(["cone", "parallel"]),
    sdd_mm=st.sampled_from([60.0, 300.0]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 1000),
)
def test_compiled_equals_plain_everywhere(
    builds: Builds,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    turn: tuple[float, float],
    beam: Any,
    sdd_mm: float,
    size: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    mu = Volume(np.zeros(shape, np.float32), affine_of(spacing, shape, rotation(*turn)))
    view = place(Pose("own", *angles), Setup(beam=beam, sdd_mm=sdd_mm, size=size), mu.grid.corners_mm)
    table = rng.random((50, 2)).astype(np.float32)
    materials = Materials(("a", "b"), rng.integers(-30, 40, shape).astype(np.int16), table, -20)
    plain, *found = (
        found_on(where, builds, mu, None, view, ["materials"], materials).materials for where in WHERE
    )
    assert plain is not None
    scale = max(plain.max(), float(table.max()) * min(spacing))
    for other in found:
        np.testing.assert_allclose(other, plain, atol=1e-5 * scale)


@pytest.mark.parametrize("where", WHERE)
def test_a_linear_table_gives_the_image(builds: Builds, where: str) -> None:
    """With attenuation a + b x stored, its integral is the image; with weights, so is a sum of materials."""
    stored = np.random.default_rng(4).integers(-1000, 2000, SHAPE).astype(np.int16)
    values = np.arange(-1000, 2000)
    ramp = 0.02 + 1e-5 * values
    mu = Volume((0.02 + 1e-5 * stored).astype(np.float32), affine())
    share = 0.5 + 0.5 * np.sin(values / 300.0)
    table = np.stack([ramp, ramp * share / 3.0, ramp * (1 - share) / 5.0], axis=1)
    view = view_of(mu)
    materials = Materials(("all", "third", "fifth"), stored, table.astype(np.float32), -1000)
    found = found_on(where, builds, mu, None, view, ["image", "materials"], materials)
    assert found.image is not None
    scale = 1e-5 * found.image.max()
    np.testing.assert_allclose(found.material("all"), found.image, atol=scale)
    mixed = 3.0 * found.material("third") + 5.0 * found.material("fifth")
    np.testing.assert_allclose(mixed, found.image, atol=scale)


@pytest.mark.parametrize("where", WHERE)
def test_a_unit_impulse_integrates_to_its_voxel(builds: Builds, where: str) -> None:
    """One voxel stores the value of a material: the integral over the detector is its volume, in mm3."""
    stored = np.zeros(SHAPE, np.int16)
    stored[9, 7, 10] = 7
    table = np.zeros((9, 2), np.float32)
    table[7] = 2.5, -1.5
    mu = Volume(np.zeros(SHAPE, np.float32), affine())
    view = place(
        Pose.named("rao"),
        Setup(beam="parallel", size=(200, 200), margin_mm=0),
        mu.grid.corners_mm,
    )
    found = found_on(
        where, builds, mu, None, view, ["materials"], Materials(("a", "b"), stored, table)
    ).materials
    assert found is not None
    total = found.sum(axis=(1, 2), dtype=float) * view.pixel_area_mm2
    np.testing.assert_allclose(total, np.array([2.5, -1.5]) * mu.grid.voxel_volume_mm3, rtol=2e-3)


@pytest.mark.parametrize("where", WHERE)
def test_with_every_other_output_and_supersampling(builds: Builds, where: str) -> None:
    """Materials change no other output; supersampled, they are means."""
    mu, labels = random_scene(5, SHAPE, affine())
    stored, table = stored_scene(5)
    materials = Materials(("a", "b", "c"), stored, table, -1000)
    want = ("image", "presence", "path", "depth", "share", "incomplete", "facts", "coverage")
    view = view_of(mu)
    plain: Any = found_on(where, builds, mu, labels, view, want, materials) if where == "cuda" else project(
        mu, labels, view, want, device="cpu", backend="reference" if where == "reference" else ""
    )  # fmt: skip
    found: Any = found_on(where, builds, mu, labels, view, (*want, "materials"), materials)
    for name in ("image", "presence", "path_mm", "entry_mm", "exit_mm", "share", "incomplete", "facts"):
        assert getattr(found, name).tobytes() == getattr(plain, name).tobytes(), name
    fine = found_on(where, builds, mu, None, view.finer(2), ["materials"], materials).materials
    soft = found_on(where, builds, mu, None, view, ["materials"], materials, supersample=2).materials
    assert fine is not None
    mean = fine.reshape(3, 23, 2, 29, 2).mean(axis=(2, 4), dtype=float)
    np.testing.assert_allclose(soft, mean, rtol=1e-6)


def test_the_thread_count_changes_nothing() -> None:
    mu = Volume(np.zeros(SHAPE, np.float32), affine())
    stored, table = stored_scene(6)
    materials = Materials(("a", "b", "c"), stored, table, -1000)
    one, two = (
        project(mu, None, view_of(mu), ["materials"], materials=materials, device="cpu", threads=n).materials
        for n in (1, 2)
    )
    assert one is not None
    assert two is not None
    assert one.tobytes() == two.tobytes()


def test_nothing_is_copied() -> None:
    stored, table = stored_scene(7)
    assert np.shares_memory(Materials(("a", "b", "c"), stored, table).voxels, stored)
    volumes = np.zeros((2, *SHAPE), np.float32)
    assert np.shares_memory(Materials(("a", "b"), volumes).voxels, volumes)


def test_on_torch(builds: Builds) -> None:
    """The code that holds the arrays on a GPU; steps along i read a turned copy."""
    stored, table = stored_scene(8, np.uint16)
    mu = Volume(np.zeros(SHAPE, np.float32), affine(turned=False))
    for materials in (
        Materials(("a", "b", "c"), stored, table, 32000),
        Materials(("a", "b"), np.random.default_rng(1).random((2, *SHAPE), dtype=np.float32)),
    ):
        resident = Resident(
            mu.array, np.zeros((1, 1, 1), np.uint16), engine=HostTorchEngine(builds), materials=materials
        )
        for name in ("pa", "lateral_left"):
            view = view_of(mu, name)
            plain = project(mu, None, view, ["materials"], materials=materials, backend="reference").materials
            assert plain is not None
            found = project(mu, None, view, ["materials"], resident=resident).materials
            np.testing.assert_allclose(found, plain, atol=1e-5 * plain.max())


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("stored", ["float32", "int16", "uint16"])
def test_compiles_for_gpus(arch: str, stored: str) -> None:
    pytest.importorskip("cuda.core", reason="the extra 'gpu' is not installed")
    want = Want.of(["image", "materials", "presence"])
    cubin = compile_cubin(Variant(want, materials=3, stored=stored), arch)
    assert cubin.startswith(b"\x7fELF")


def test_what_does_not_fit_is_refused(builds: Builds) -> None:
    stored, table = stored_scene(9)
    names = ("a", "b", "c")
    for bad, said in (
        (lambda: Materials((), stored, table), "names"),
        (lambda: Materials(("a", "a", "b"), stored, table), "names"),
        (lambda: Materials(names, stored, table[:, :2]), "table does not fit"),
        (lambda: Materials(names, stored, table * np.nan), "not finite"),
        (lambda: Materials(names, stored.astype(np.float32), table), "whole numbers"),
        (lambda: Materials(names, stored, table, 70000), "no voxel stores"),
        (lambda: Materials(names, stored), "volumes do not fit"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            bad()
        assert caught.value.code == "bad_materials"
    mu = Volume(np.zeros(SHAPE, np.float32), affine())
    view, materials = view_of(mu), Materials(names, stored, table)
    with pytest.raises(ConfigError, match="which materials"):
        project(mu, None, view, ["materials"])
    with pytest.raises(ConfigError, match="not wanted"):
        project(mu, None, view, ["image"], materials=materials)
    with pytest.raises(ConfigError, match="the exact method"):
        project(mu, None, view, ["materials"], materials=materials, method="exact")
    other = Volume(np.zeros((5, 6, 7), np.float32), affine())
    with pytest.raises(CaseError, match="materials and attenuation are not on one grid"):
        project(other, None, view, ["materials"], materials=materials)
    with pytest.raises(ConfigError, match="no material 'd'"):
        project(mu, None, view, ["materials"], materials=materials).material("d")
    none = Resident(mu.array, np.zeros((1, 1, 1), np.uint16), engine=HostEngine(builds))
    with pytest.raises(ConfigError, match="which materials"):
        project(mu, None, view, ["materials"], resident=none)
    with pytest.raises(ConfigError, match="other materials"):
        project(mu, None, view, ["materials"], resident=none, materials=materials)
    huge = Materials(("a",), np.broadcast_to(np.float32(0), (1, 2, 2, 2)))
    object.__setattr__(huge, "voxels", np.broadcast_to(np.float32(0), (1, 2048, 1024, 1024)))
    with pytest.raises(ResourceError, match="too large for the CPU projector"):
        cpu_materials.march(huge, IndexRays.of(view, mu.grid), stepping_axes(view, mu.grid))


def test_one_decomposition_serves_every_energy() -> None:
    """The films at two energies are weighted sums of one pair of material integrals; the table is left out."""
    rng = np.random.default_rng(1)
    ct = Volume(rng.integers(-1000, 2500, SHAPE).astype(np.int16), affine())
    body = np.zeros(SHAPE, bool)
    body[3:15, 3:12, 3:18] = True
    labels = one_class(body, ct.affine, "body")
    materials = paxray.decompose(ct, labels)
    view = view_of(ct)
    for energy_kev in (50.0, 80.0):
        mu = paxray.attenuate(ct, labels, energy_kev=energy_kev)
        found = paxray.project(mu, labels, view, ["image", "materials"], materials=materials, device="cpu")
        weighted = sum(
            linear_attenuation_per_mm(name, energy_kev) * found.material(name)
            for name in found.material_names
        )
        assert found.image is not None
        np.testing.assert_allclose(weighted, found.image, atol=1e-5 * found.image.max())
    other = one_class(np.ones((5, 6, 7), bool), ct.affine, "body")
    with pytest.raises(CaseError, match="not on the CT's grid"):
        paxray.decompose(ct, other)
