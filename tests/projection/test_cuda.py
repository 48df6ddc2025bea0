"""The CUDA projector: its text built for the host against the plain backend, compiled for GPUs, and run on one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_consequences as consequences
import test_oracles as oracles
from cuda_host import Builds, HostEngine, HostTorchEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_same
from scenes import affine_of, labelled, one_class, random_scene, rotation

from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.volume import Volume
from paxray.projection import device as devices
from paxray.projection.channels import Channels
from paxray.projection.cuda import kernels
from paxray.projection.cuda.kernels import Variant, compile_cubin, need_extra
from paxray.projection.cuda.march import follow
from paxray.projection.cuda.resident import FIXED_MAX, Resident, hold
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Projection, project, resolve_device
from paxray.projection.rays import IndexRays, stepping_axes
from paxray.projection.scene import flags_of
from paxray.projection.view import View
from paxray.projection.want import Maps, Want

ALL = ("image", "presence", "path", "depth", "share", "incomplete", "facts")
BUILD = ("image", "presence", "facts", "incomplete")
SHAPE = (18, 15, 21)
FIELDS = ("image", "presence", "path", "entry", "exit", "share", "incomplete", "facts")


@pytest.fixture
def engine(builds: Builds) -> HostEngine:
    return HostEngine(builds)


def resident_of(mu: Volume, labels: LabelVolume | None, engine: Any, storage: Any = "float32") -> Resident:
    atoms = np.zeros((1, 1, 1), np.uint16) if labels is None else labels.atoms
    return Resident(mu.array, atoms, storage, engine)


def maps_of(resident: Resident, mu: Volume, labels: LabelVolume, view: View, want: Any, **more: Any) -> Maps:
    want = Want.of(want)
    return follow(
        resident, Channels.classes(labels), flags_of(labels, want, "body", "unscanned"), IndexRays.of(view, mu.grid),
        stepping_axes(view, mu.grid), want, **more,
    )  # fmt: skip


def scene(seed: int = 1, turned: bool = True, **more: Any) -> tuple[Volume, LabelVolume]:
    affine = affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11) if turned else None)
    return random_scene(seed, SHAPE, affine, **more)


def view_of(
    mu: Volume, name: str = "rao", beam: Any = "cone", sdd_mm: float = 1800.0, size: Any = (23, 29)
) -> View:
    return place(
        Pose.named(name), Setup(beam=beam, sdd_mm=sdd_mm, size=size, margin_mm=3), mu.grid.corners_mm
    )


@pytest.mark.parametrize("per", ["class", "atom"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("beam", "sdd_mm"), [("parallel", 1800.0), ("cone", 1800.0), ("cone", 35.0)])
@pytest.mark.parametrize("name", ["pa", "ap", "lateral_left", "rao"])
def test_agrees_with_reference(
    engine: HostEngine, name: str, beam: str, sdd_mm: float, turned: bool, per: Any
) -> None:
    """Every output; frontal, lateral, oblique; wide fans of several stepping axes; straight and oblique grids."""
    mu, labels = scene(turned=turned)
    view = view_of(mu, name, beam, sdd_mm)
    plain = project(mu, labels, view, ALL, per=per, backend="reference")
    assert_same(project(mu, labels, view, ALL, per=per, resident=resident_of(mu, labels, engine)), plain)
    engine.check()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    angles=st.tuples(st.floats(-180, 180), st.floats(-60, 60), st.floats(-180, 180)),
    turn=st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
    beam=st.sampled_from(["cone", "parallel"]),
    sdd_mm=st.sampled_from([60.0, 300.0]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 1000),
)
def test_agrees_with_reference_everywhere(
    builds: Builds,
    shape: Any,
    spacing: Any,
    angles: Any,
    turn: Any,
    beam: Any,
    sdd_mm: float,
    size: Any,
    seed: int,
) -> None:
    mu, labels = random_scene(seed, shape, affine_of(spacing, shape, rotation(*turn)))
    view = place(Pose("own", *angles), Setup(beam=beam, sdd_mm=sdd_mm, size=size), mu.grid.corners_mm)
    plain = project(mu, labels, view, ALL, backend="reference")
    engine = HostEngine(builds)
    found = project(mu, labels, view, ALL, resident=resident_of(mu, labels, engine))
    engine.check()
    assert plain.image is not None
    # Where all rays but a few that graze the volume miss it, its maximum is no measure: a voxel's integral is.
    scale = max(plain.image.max(), float(mu.array.max()) * min(spacing))
    np.testing.assert_allclose(found.image, plain.image, atol=1e-5 * scale)
    assert plain.path_mm is not None
    assert found.path_mm is not None
    # A sample within float32's reach of a voxel's border may fall on either side of it.
    assert (found.incomplete != plain.incomplete).mean() <= 0.02
    away = np.abs(found.path_mm - plain.path_mm)
    assert (away > 1e-4).mean() <= 0.01
    assert away.max(initial=0) <= 6 * max(spacing)


def test_labels_at_the_scale_of_a_scan(engine: HostEngine) -> None:
    """100 slabs, 100 classes: integrals within 1e-5 of the maximum, fewer than .01 % of the labels' bits differ."""
    shape = (70, 100, 90)
    affine = affine_of((2.1, 1.9, 2.4), shape, rotation(7, 3))
    mu, labels = random_scene(3, shape, affine, atoms=60, classes=100)
    view = view_of(mu, "pa", size=(72, 80))
    plain = project(mu, labels, view, ["image", "presence"], backend="reference")
    found = project(mu, labels, view, ["image", "presence"], resident=resident_of(mu, labels, engine))
    assert plain.image is not None
    assert plain.presence is not None
    assert found.presence is not None
    np.testing.assert_allclose(found.image, plain.image, atol=1e-5 * plain.image.max())
    differ = np.unpackbits((found.presence ^ plain.presence).view(np.uint8)).sum()
    assert differ < 1e-4 * len(labels.names) * plain.image.size


def projector(engine: HostEngine) -> Callable[..., Projection]:
    """`project` with the host's build in place of the CPU backend."""

    def on_host(
        mu: Volume, labels: Any, view: View, want: Any = ("image", "presence"), **more: Any
    ) -> Projection:
        if more.get("backend") or more.get("method") == "exact":
            return project(mu, labels, view, want, **more)
        more.pop("device", None)
        return project(mu, labels, view, want, resident=resident_of(mu, labels, engine), **more)

    return on_host


ORACLES: list[tuple[Any, tuple[Any, ...]]] = [
    (oracles.test_a_balls_centroid_is_where_the_matrix_says, ("own", "cone", True)),
    (oracles.test_a_balls_centroid_is_where_the_matrix_says, ("lateral_right", "parallel", False)),
    (oracles.test_gaussian_line_integrals, ("own",)),
    (oracles.test_gaussian_line_integrals, ("lateral_left",)),
    (oracles.test_sphere_chords, ("lao", "cone")),
    (oracles.test_sphere_chords, ("pa", "parallel")),
    (oracles.test_unit_impulse_integrates_to_its_voxel, ()),
    (oracles.test_linear_in_attenuation, ()),
    (oracles.test_padding_with_air_changes_nothing, ()),
    (oracles.test_48_orientations_give_one_picture, ("pa", "cone")),
    (oracles.test_a_known_voxel_lands_on_its_pixel, ()),
    (oracles.test_incomplete_rays, ()),
    (oracles.test_a_body_that_touches_the_detector_is_complete, ("pa",)),
    (oracles.test_a_body_that_touches_the_detector_is_complete, ("lao",)),
    (consequences.test_union_of_random_classes_is_their_or, ()),
]


@pytest.mark.parametrize(("oracle", "arguments"), ORACLES, ids=lambda value: getattr(value, "__name__", None))
def test_oracles(
    engine: HostEngine,
    monkeypatch: pytest.MonkeyPatch,
    oracle: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """The closed forms that the CPU backend is held to."""
    monkeypatch.setattr(oracles, "project", projector(engine))
    monkeypatch.setattr(consequences, "project", projector(engine))
    oracle(*arguments)
    engine.check()


def test_sums_of_paths_and_shares(engine: HostEngine) -> None:
    """Over all atoms, paths add up to the slabs inside and shares to the line integral."""
    mu, labels = scene()
    view = view_of(mu)
    box = labelled(np.zeros(SHAPE, np.uint16), np.zeros((1, 1), bool), mu.affine, ("nothing",))
    found = project(
        mu, labels, view, ["image", "path", "share"], per="atom", resident=resident_of(mu, labels, engine)
    )
    inside = project(mu, box, view, ["path"], per="atom", resident=resident_of(mu, box, engine))
    assert found.path_mm is not None
    assert found.share is not None
    assert found.image is not None
    assert inside.path_mm is not None
    np.testing.assert_allclose(found.path_mm.sum(axis=0), inside.path_mm[0], rtol=1e-5)
    np.testing.assert_allclose(found.share.sum(axis=0), found.image, atol=1e-5 * found.image.max())


def test_error_does_not_grow_with_the_slabs(engine: HostEngine) -> None:
    """A homogeneous column of 6000 slabs, which plain float32 sums get wrong by more than 1e-5."""
    shape = (2, 6000, 2)
    mu = Volume(np.full(shape, 0.0193, np.float32), affine_of((1.0, 0.7, 1.0), shape))
    view = place(Pose.named("pa"), Setup(beam="parallel", size=(1, 1)), mu.grid.corners_mm)
    image = project(mu, None, view, ["image"], resident=resident_of(mu, None, engine)).image
    assert image is not None
    expected = float(np.float32(0.0193)) * 6000 * 0.7
    assert image[0, 0] == pytest.approx(expected, rel=5e-7)
    plain = np.float32(0)
    for value in np.full(6000, 0.0193, np.float32):
        plain += value
    assert abs(plain * 0.7 / expected - 1) > 1e-5


@pytest.mark.parametrize("spacing_mm", [0.7, 1.3])
def test_a_detector_in_a_plane_of_voxels(engine: HostEngine, spacing_mm: float) -> None:
    """Samples in the detector's own plane count, those in the source's do not, in every pixel alike."""
    shape, last = (40, 30, 40), 17
    affine = affine_of((1.1, spacing_mm, 0.9), shape, center_mm=(3.3, -21.7, 8.9))
    mu = Volume(np.zeros(shape, np.float32), affine)
    labels = one_class(np.ones(shape, bool), affine)
    middle = mu.grid.to_world([19.5, 0.0, 19.5])
    for first in (-200, 3):
        source, center = middle + [0, first * spacing_mm, 0], middle + [0, last * spacing_mm, 0]
        view = View(
            "own", "cone", source, np.array([0.0, 1, 0]), center, np.array([1.0, 0, 0]), np.array([0.0, 0, -1]),
            (0.13, 0.17), (83, 91),
        )  # fmt: skip
        found = project(mu, labels, view, ["path"], resident=resident_of(mu, labels, engine)).path_mm
        row, column = np.indices(view.size)
        step_mm = spacing_mm / view.ray(column, row)[1][..., 1]
        assert found is not None
        slabs = last - max(first, -1)
        np.testing.assert_allclose(found[0] / step_mm, slabs, rtol=1e-6)


@pytest.mark.parametrize("word", ALL)
def test_each_output_alone_is_the_same(engine: HostEngine, word: str) -> None:
    """Nothing else is computed, and what is comes out bit for bit."""
    mu, labels = scene(4)
    resident, view = resident_of(mu, labels, engine), view_of(mu)
    everything, alone = (maps_of(resident, mu, labels, view, want) for want in (ALL, [word]))
    for name in FIELDS:
        if name == word or (word == "depth" and name in ("entry", "exit")):
            assert getattr(alone, name).tobytes() == getattr(everything, name).tobytes(), name
        else:
            assert getattr(alone, name) is None


@pytest.mark.parametrize("sdd_mm", [1800.0, 35.0])
def test_tiles_and_order_of_threads_change_nothing(builds: Builds, sdd_mm: float) -> None:
    mu, labels = scene(5)
    view = view_of(mu, sdd_mm=sdd_mm, size=(41, 37))
    engine, other = HostEngine(builds), HostEngine(builds, backwards=True)
    whole = maps_of(resident_of(mu, labels, engine), mu, labels, view, ALL)
    tiled = maps_of(resident_of(mu, labels, engine), mu, labels, view, ALL, tile_bytes=1)
    backwards = maps_of(resident_of(mu, labels, other), mu, labels, view, ALL)
    for name in FIELDS:
        assert getattr(tiled, name).tobytes() == getattr(whole, name).tobytes(), name
        assert getattr(backwards, name).tobytes() == getattr(whole, name).tobytes(), name
    engine.check()
    other.check()


def test_32_bit_atoms_and_more_classes_than_a_word_has_bits(engine: HostEngine) -> None:
    rng = np.random.default_rng(0)
    affine = affine_of((1, 1, 1), SHAPE)
    ids = rng.integers(0, 140, SHAPE).astype(np.uint32) + np.uint32(70_000)
    membership = np.zeros((70_140, 130), bool)
    membership[70_000:] = rng.random((140, 130)) < 0.05
    labels = labelled(ids, membership, affine, tuple(f"c{n}" for n in range(130)))  # type: ignore[arg-type]
    mu = Volume(np.zeros(SHAPE, np.float32), affine)
    view = view_of(mu, "pa", "parallel", size=(18, 18))
    resident = resident_of(mu, labels, engine)
    assert resident.atom_bits == 32
    found = project(mu, labels, view, ["presence"], resident=resident)
    expected = project(mu, labels, view, ["presence"], device="cpu")
    np.testing.assert_array_equal(found.presence, expected.presence)


def test_no_class_at_all(engine: HostEngine) -> None:
    """Empty maps, not an error: a subset of classes may be empty in a case."""
    mu, labels = scene()
    found = project(mu, labels, view_of(mu), ALL, classes=[], resident=resident_of(mu, labels, engine))
    expected = project(mu, labels, view_of(mu), ALL, classes=[], backend="reference")
    assert found.path_mm is not None
    assert found.path_mm.shape == (0, 23, 29)
    np.testing.assert_array_equal(found.presence, expected.presence)
    np.testing.assert_array_equal(found.incomplete, expected.incomplete)


@pytest.mark.parametrize("name", ["pa", "lateral_left"])
@pytest.mark.parametrize("metal", [1.0, 15.0])
def test_fixed16_states_its_error(engine: HostEngine, name: str, metal: float) -> None:
    """Homogeneous water with a grain of bone, or of metal 15 times water: the bound holds, and is below 2e-4."""
    shape = (20, 40, 40)
    water = np.full(shape, 0.0193, np.float32)
    water[10, 20, 20] *= max(metal, 2.7)
    mu = Volume(water, affine_of((4, 4, 4), shape))
    view = view_of(mu, name)
    resident = resident_of(mu, None, engine, "fixed16")
    found = project(mu, None, view, ["image"], resident=resident).image
    plain = project(mu, None, view, ["image"], backend="reference").image
    assert found is not None
    assert plain is not None
    length_mm = float(np.linalg.norm(np.array(shape) * 4))
    bound = resident.error_per_mm * length_mm
    assert np.abs(found - plain).max() <= bound + 1e-5 * plain.max()
    assert bound <= 2e-4 * plain.max()
    # On the same stored volume, the march itself is as exact as with float32.
    codes = np.rint(water / resident.unit_per_mm)
    assert codes.max() == FIXED_MAX
    stored = Volume((codes * resident.unit_per_mm).astype(np.float32), mu.affine)
    same = project(stored, None, view, ["image"], backend="reference").image
    assert same is not None
    np.testing.assert_allclose(found, same, atol=1e-5 * same.max())


def test_fixed16_of_nothing_is_nothing(engine: HostEngine) -> None:
    empty = Volume(np.zeros(SHAPE, np.float32), affine_of((1, 1, 1), SHAPE))
    resident = resident_of(empty, None, engine, "fixed16")
    image = project(empty, None, view_of(empty), ["image"], resident=resident).image
    assert image is not None
    assert not image.any()


def test_volume_is_sent_once(builds: Builds) -> None:
    """Several views of a resident volume: one copy of it, and one more in another order for steps along i."""

    class Counting(HostEngine):
        adopted, turns = 0, 0

        def adopt(self, array: Any) -> Any:
            self.adopted += array.size >= np.prod(SHAPE)
            return super().adopt(array)

        def turned(self, buffer: Any, axes: Any) -> Any:
            self.turns += axes == (2, 0, 1)
            return super().turned(buffer, axes)

    engine = Counting(builds)
    mu, labels = scene(turned=False)
    resident = resident_of(mu, labels, engine)
    for name in ("pa", "ap", "lateral_left", "lateral_right", "pa"):
        assert_same(
            project(mu, labels, view_of(mu, name), ALL, resident=resident),
            project(mu, labels, view_of(mu, name), ALL, backend="reference"),
        )
    # Attenuation and atoms each; a turned copy is adopted by the host engine too.
    assert (engine.adopted, engine.turns) == (4, 2)


def test_another_volumes_resident_is_refused(engine: HostEngine) -> None:
    """Told from voxels, not from the object: a copy passes, another patient's scan of that shape does not."""
    (mu, labels), (other_mu, other_labels) = scene(1), scene(2)
    view, resident = view_of(mu), resident_of(mu, labels, engine)
    copy = Volume(mu.array.copy(), mu.affine)
    project(copy, labels, view, ["image", "presence"], resident=resident)
    project(mu, None, view, ["image"], resident=resident)
    for a, b, what in ((other_mu, labels, "attenuation"), (mu, other_labels, "labels")):
        with pytest.raises(ConfigError, match=f"the {what} given are not those") as error:
            project(a, b, view, ["image", "presence"], resident=resident)
        assert error.value.code == "other_volume"


class OnDevice:
    """An array that only DLPack can read."""

    def __init__(self, tensor: Any) -> None:
        self._tensor, self.shape, self.dtype = tensor, tensor.shape, tensor.dtype

    def __dlpack__(self, **more: Any) -> Any:
        return self._tensor.__dlpack__(**more)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


@pytest.mark.parametrize("wrapped", [False, True])
def test_torch_tensors_in_and_out(builds: Builds, wrapped: bool) -> None:
    """Tensors are used where they lie, and maps can stay tensors; several tiles are joined there."""
    import torch

    mu, labels = scene(6)
    field, atoms = torch.from_numpy(mu.array), torch.from_numpy(labels.atoms.astype(np.int32))
    engine = HostTorchEngine(builds)
    resident = Resident(*(OnDevice(t) if wrapped else t for t in (field, atoms)), engine=engine)
    assert engine.address(resident.order(1).mu) == field.data_ptr()
    assert engine.address(resident.order(1).atoms) == atoms.data_ptr()
    expected = maps_of(resident_of(mu, labels, HostEngine(builds)), mu, labels, view_of(mu), ALL)
    here = maps_of(resident, mu, labels, view_of(mu), ALL)
    there = maps_of(resident, mu, labels, view_of(mu), ALL, on_device=True, tile_bytes=1)
    assert there.presence.dtype == torch.uint64  # type: ignore[union-attr]
    for name in FIELDS:
        assert getattr(here, name).dtype == getattr(expected, name).dtype
        for found in (here, there):
            assert np.asarray(getattr(found, name)).tobytes() == getattr(expected, name).tobytes(), name
    narrow = Resident(field, torch.from_numpy(labels.atoms), "fixed16", engine)
    assert narrow.atom_bits == 16
    image = maps_of(narrow, mu, labels, view_of(mu), ALL).image
    np.testing.assert_allclose(image, expected.image, atol=1e-4)


def test_errors_say_what_is_wrong(engine: HostEngine) -> None:
    mu, labels = scene()
    view = view_of(mu)
    with pytest.raises(CaseError, match="thinner than two voxels"):
        Resident(np.zeros((1, 5, 5), np.float32), labels.atoms, engine=engine)
    huge = np.broadcast_to(np.float32(0), (2048, 1024, 1024))
    with pytest.raises(ResourceError, match="too large for the CUDA projector"):
        Resident(huge, labels.atoms, engine=engine)
    with pytest.raises(ConfigError, match="unknown storage"):
        Resident(mu.array, labels.atoms, "half", engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="16 or 32 bits"):
        Resident(mu.array, labels.atoms.astype(np.int64), engine=engine)
    negative = Volume(mu.array - 1, mu.affine)
    with pytest.raises(CaseError, match="below zero") as caught:
        project(negative, None, view, ["image"], resident=resident_of(negative, None, engine, "fixed16"))
    assert caught.value.code == "bad_attenuation"
    with pytest.raises(CaseError, match="not on one grid"):
        project(mu, labels, view, ["presence"], resident=resident_of(mu, None, engine))
    for bad in ({"device": "cpu"}, {"backend": "reference"}, {"method": "exact"}):
        with pytest.raises(ConfigError, match="projected there"):
            project(mu, labels, view, ["image"], resident=resident_of(mu, labels, engine), **bad)  # type: ignore[arg-type]
    other = Volume(np.zeros((5, 5, 5), np.float32), mu.affine)
    with pytest.raises(ConfigError, match="projected there"):
        project(mu, labels, view, ["image"], resident=resident_of(other, None, engine))
    with pytest.raises(ConfigError, match="must be float32"):
        Resident(OnDevice(_double()), labels.atoms, engine=engine)


def _double() -> Any:
    import torch

    return torch.zeros(SHAPE, dtype=torch.float64)


# --- Compiled for GPUs: needs NVRTC, not a GPU ---


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("want", "mu_bits", "atom_bits"),
    [((), 32, 16), (["image"], 16, 16), (BUILD, 32, 16), (BUILD, 16, 16), (ALL, 32, 32), (ALL, 16, 16)],
    ids=str,
)
def test_compiles_for_gpus(arch: str, want: Any, mu_bits: int, atom_bits: int) -> None:
    pytest.importorskip("cuda.core", reason="the extra 'gpu' is not installed")
    cubin = compile_cubin(Variant(Want.of(want), mu_bits, atom_bits), arch)
    assert cubin.startswith(b"\x7fELF")
    for name in ("march", "finish", "facts_of_lanes", "facts_of_blocks", "quantise"):
        assert f".text.{name}\0".encode() in cubin


def test_a_gpu_that_nvrtc_does_not_know() -> None:
    pytest.importorskip("cuda.core", reason="the extra 'gpu' is not installed")
    with pytest.raises(ResourceError, match="cannot compile the projector for sm_1") as caught:
        compile_cubin(Variant(), "sm_1")
    assert caught.value.code == "nvrtc"


def test_a_mismatch_of_the_structs_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.core", reason="the extra 'gpu' is not installed")
    monkeypatch.setattr(kernels, "PARAMS", np.dtype([("mu", np.uint64)]))
    with pytest.raises(ResourceError, match=r"Params differs from kernels\.PARAMS"):
        compile_cubin(Variant(), "sm_90")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(ResourceError, match=r"pip install 'paxray\[gpu\]'"):
        need_extra()
    with pytest.raises(ResourceError, match="extra 'gpu'"):
        compile_cubin(Variant(), "sm_90")
    # On a machine with a GPU:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_nvidia_driver", lambda: True)
    with pytest.raises(ResourceError, match="extra 'gpu'"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


# --- Run on a GPU ---


@pytest.fixture
def gpu() -> None:
    """Skip where there is no GPU, or no extra to use it with."""
    if not devices._nvidia_driver():
        pytest.skip("no NVIDIA driver on this machine")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    pytest.importorskip("cuda.core", reason="the extra 'gpu' is not installed")


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("beam", "sdd_mm"), [("parallel", 1800.0), ("cone", 1800.0), ("cone", 35.0)])
@pytest.mark.parametrize("name", ["pa", "lateral_left", "rao"])
def test_gpu_agrees_with_reference(name: str, beam: str, sdd_mm: float) -> None:
    mu, labels = scene(9)
    view = view_of(mu, name, beam, sdd_mm)
    plain = project(mu, labels, view, ALL, backend="reference")
    assert_same(project(mu, labels, view, ALL, device="cuda"), plain)
    assert_same(project(mu, labels, view, ALL, resident=hold(mu, labels)), plain)


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("storage", ["float32", "fixed16"])
@pytest.mark.parametrize("name", ["pa", "lateral_left", "rao"])
def test_gpu_at_the_scale_of_a_scan(name: str, storage: Any) -> None:
    shape = (160, 256, 256)
    affine = affine_of((1.4, 1.4, 2.0), shape, rotation(7, 3))
    mu, labels = random_scene(3, shape, affine, atoms=80, classes=104)
    view = view_of(mu, name, size=(256, 256))
    resident = hold(mu, labels, storage)
    if storage == "fixed16":
        codes = np.rint(mu.array.astype(np.float64) / resident.unit_per_mm)
        mu = Volume((codes * resident.unit_per_mm).astype(np.float32), affine)
    plain = project(mu, labels, view, BUILD, device="cpu")
    found, again = (project(mu, labels, view, BUILD, resident=resident) for _ in range(2))
    assert plain.image is not None
    assert plain.presence is not None
    assert found.presence is not None
    np.testing.assert_allclose(found.image, plain.image, atol=1e-5 * plain.image.max())
    assert (found.presence != plain.presence).any(axis=-1).mean() < 1e-4 * len(labels.names)
    for name in ("image", "presence", "facts", "incomplete"):
        assert getattr(found, name).tobytes() == getattr(again, name).tobytes(), name


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_gpu_takes_and_gives_tensors() -> None:
    import torch

    mu, labels = scene(6)
    field = torch.from_numpy(mu.array).cuda()
    atoms = torch.from_numpy(labels.atoms.view(np.int16)).cuda()
    resident = Resident(field, atoms)
    assert resident.engine.address(resident.order(1).mu) == field.data_ptr()
    here = maps_of(resident, mu, labels, view_of(mu), ALL)
    with torch.cuda.stream(torch.cuda.Stream()):
        there = maps_of(resident, mu, labels, view_of(mu), ALL, on_device=True, tile_bytes=1)
        torch.cuda.current_stream().synchronize()
    for name in FIELDS[:-1]:
        tensor: Any = getattr(there, name)
        assert tensor.is_cuda
        assert tensor.cpu().numpy().tobytes() == getattr(here, name).tobytes(), name
