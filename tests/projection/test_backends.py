"""Every backend against the plain one."""

from __future__ import annotations

import itertools
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_same
from scenes import affine_of, one_class, random_scene, rotation

from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.volume import Grid, Volume
from paxray.parallel import at_most, processors
from paxray.projection import exact
from paxray.projection.cpu_buffers import SLOTS
from paxray.projection.pages import sparse_zeros
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Projection, project, resolve_device
from paxray.projection.rays import IndexRays, stepping_axes
from paxray.projection.scene import prepare
from paxray.projection.threads import in_all_threads
from paxray.projection.view import View
from paxray.projection.want import Want, reduce_facts

ALL = ("image", "presence", "path", "depth", "share", "incomplete", "facts")
SHAPE = (18, 15, 21)


@pytest.mark.parametrize("per", ["class", "atom"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("beam", "sdd_mm"), [("parallel", 1800.0), ("cone", 1800.0), ("cone", 35.0)])
@pytest.mark.parametrize("name", ["pa", "ap", "lateral_left", "rao"])
def test_backends_agree(name: str, beam: str, sdd_mm: float, turned: bool, per: str) -> None:
    """Frontal, lateral, oblique; wide fans of several stepping axes; straight and oblique grids."""
    affine = affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11) if turned else None)
    mu, labels = random_scene(1, SHAPE, affine)
    view = place(
        Pose.named(name), Setup(beam=beam, sdd_mm=sdd_mm, size=(23, 29), margin_mm=3), mu.grid.corners_mm
    )  # type: ignore[arg-type]
    plain = project(mu, labels, view, ALL, per=per, backend="reference")  # type: ignore[arg-type]
    assert_same(project(mu, labels, view, ALL, per=per, device="cpu"), plain)  # type: ignore[arg-type]


def test_a_wide_fan_steps_along_several_axes() -> None:
    """The case above with 35 mm really is the wide one."""
    affine = affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11))
    mu, _ = random_scene(1, SHAPE, affine)
    near = place(Pose.named("pa"), Setup(sdd_mm=35, size=(23, 29)), mu.grid.corners_mm)
    far = place(Pose.named("pa"), Setup(sdd_mm=1800, size=(23, 29)), mu.grid.corners_mm)
    assert len(np.unique(stepping_axes(near, mu.grid))) > 1
    assert stepping_axes(far, mu.grid).shape == (1, 1)


def test_the_axes_of_a_wide_fan_take_little_memory() -> None:
    """A byte for each ray, however fine the detector; and each ray gets the axis that it is fastest along."""
    affine = affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11))
    grid = Grid(SHAPE, affine)
    view = place(Pose.named("pa"), Setup(sdd_mm=35, size=(1024, 1024)), grid.corners_mm)
    tracemalloc.start()
    axes = stepping_axes(view, grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert axes.shape == view.size
    assert peak < axes.nbytes + 2**24
    row, column = np.indices(view.size)[:, ::7, ::5]
    step = view.ray(column, row)[1] @ grid.inverse[:3, :3].T
    chosen = axes[::7, ::5, None].astype(int)
    along = np.take_along_axis(step, np.abs(chosen) - 1, axis=-1) * np.sign(chosen)
    assert (along[..., 0] >= np.abs(step).max(axis=-1) * (1 - 1e-5)).all()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    angles=st.tuples(st.floats(-180, 180), st.floats(-60, 60), st.floats(-180, 180)),
    turn=st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
    beam=st.sampled_from(["cone", "parallel"]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 1000),
)
def test_compiled_equals_plain_everywhere(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    turn: tuple[float, float],
    beam: str,
    size: tuple[int, int],
    seed: int,
) -> None:
    affine = affine_of(spacing, shape, rotation(*turn))
    mu, labels = random_scene(seed, shape, affine)
    view = place(Pose("own", *angles), Setup(beam=beam, sdd_mm=300, size=size), mu.grid.corners_mm)  # type: ignore[arg-type]
    plain = project(mu, labels, view, ALL, backend="reference")
    fast = project(mu, labels, view, ALL, device="cpu")
    assert plain.image is not None
    np.testing.assert_allclose(
        fast.image, plain.image, atol=1e-5 * max(plain.image.max(), mu.array.max() * min(spacing))
    )
    # A sample within float32's reach of a voxel's border may fall on either side of it.
    assert plain.presence is not None
    assert fast.presence is not None
    step = max(spacing) * 3
    assert plain.path_mm is not None
    assert fast.path_mm is not None
    different = np.abs(fast.path_mm - plain.path_mm) > 1e-4
    assert different.mean() <= 0.01
    assert np.abs(fast.path_mm - plain.path_mm).max(initial=0) <= 2 * step


@pytest.mark.parametrize("word", ALL)
def test_each_output_alone_is_the_same(word: str) -> None:
    mu, labels = random_scene(4, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("lao"), Setup(size=(20, 20), margin_mm=3), mu.grid.corners_mm)
    everything, alone = (
        project(mu, labels, view, ALL, device="cpu"),
        project(mu, labels, view, [word], device="cpu"),
    )
    fields = {"path": ["path_mm"], "depth": ["entry_mm", "exit_mm"]}.get(word, [word])
    for key in ("image", "presence", "path_mm", "entry_mm", "exit_mm", "share", "incomplete", "facts"):
        if key in fields:
            np.testing.assert_allclose(
                np.asarray(getattr(alone, key)).view(np.uint8) if word == "facts" else getattr(alone, key),
                np.asarray(getattr(everything, key)).view(np.uint8)
                if word == "facts"
                else getattr(everything, key),
                rtol=1e-6,
            )
        else:
            assert getattr(alone, key) is None, f"{key} was not asked for"


def test_the_thread_count_changes_nothing() -> None:
    mu, labels = random_scene(5, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("lao"), Setup(size=(64, 64)), mu.grid.corners_mm)
    one, two = (project(mu, labels, view, ALL, device="cpu", threads=n) for n in (1, 2))
    for key in ("image", "presence", "path_mm", "entry_mm", "exit_mm", "share", "incomplete", "facts"):
        assert getattr(one, key).tobytes() == getattr(two, key).tobytes(), key


def test_32_bit_atoms() -> None:
    mu, labels = random_scene(6, SHAPE, affine_of((1, 1, 1), SHAPE))
    wide = LabelVolume(
        labels.atoms.astype(np.uint32), labels.membership, labels.names, labels.affine, labels.status
    )
    view = place(Pose.named("pa"), Setup(size=(20, 20)), mu.grid.corners_mm)
    np.testing.assert_array_equal(
        project(mu, wide, view, ["presence"], device="cpu").presence,
        project(mu, labels, view, ["presence"], device="cpu").presence,
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("place_of", ["outside", "source inside", "detector inside"])
def test_more_atoms_in_a_row_than_are_held(place_of: str, dtype: type[np.unsignedinteger]) -> None:
    """Noise of 700 atoms: slots are emptied again and again within a row; every output, 79 columns, an odd volume."""
    shape = (17, 33, 23)
    affine = affine_of((1.1, 1.3, 1.6), shape, rotation(17, 11))
    rng = np.random.default_rng(3)
    membership = rng.random((700, 70)) < 0.1
    membership[0] = False
    names = ("body", "unscanned", *(f"c{n}" for n in range(2, 70)))
    labels = LabelVolume(
        rng.integers(0, 700, shape).astype(dtype),
        membership,
        names,
        affine,
        dict.fromkeys(names, "present"),  # type: ignore[arg-type]
    )
    mu = Volume(rng.random(shape, dtype=np.float32) * 0.02, affine)
    middle, (direction, u, v) = mu.grid.center_mm, Pose("own", 8, 5, 3).axes()
    before, behind = {"outside": (300, 40), "source inside": (3, 40), "detector inside": (300, 3)}[place_of]
    pitch = (0.6, 2.3) if place_of != "source inside" else (0.2, 0.8)
    view = View(
        "own",
        "cone",
        middle - before * direction,
        direction,
        middle + behind * direction,
        u,
        v,
        pitch,
        (9, 79),
    )
    assert_same(
        project(mu, labels, view, ALL, device="cpu"), project(mu, labels, view, ALL, backend="reference")
    )
    in_a_row = project(mu, labels, view, ["presence"], per="atom", device="cpu").presence
    assert in_a_row is not None
    met = np.bitwise_or.reduce(in_a_row, axis=1).view(np.uint8)
    held = np.unpackbits(met, axis=1).sum(axis=1)
    assert held.min() > (SLOTS if place_of != "source inside" else 0)


@pytest.mark.parametrize("columns", [1023, 1089, 2500])
def test_a_row_of_more_columns_than_a_word_has_groups_of(columns: int) -> None:
    """Columns with steps are held as 64 bits: beyond 1024 each stands for more, and the last for fewer."""
    mu, labels = random_scene(5, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE))
    view = place(Pose.named("rao"), Setup(size=(3, columns), margin_mm=3), mu.grid.corners_mm)
    assert view.columns == columns
    assert_same(
        project(mu, labels, view, ALL, device="cpu"), project(mu, labels, view, ALL, backend="reference")
    )


@pytest.mark.parametrize("columns", [65, 300, 2500])
def test_facts_count_what_the_maps_show(columns: int) -> None:
    """Pixels, box and sums of pixel numbers, exactly: small classes anywhere in rows of several words."""
    shape = (7, 9, 61)
    mu, labels = random_scene(6, shape, affine_of((1.1, 1.3, 1.6), shape), atoms=200, classes=150)
    rng = np.random.default_rng(6)
    membership = labels.membership & (rng.random(labels.membership.shape) < 0.03)
    sparse = LabelVolume(labels.atoms, membership, labels.names, labels.affine, labels.status)
    view = place(Pose.named("rao"), Setup(size=(11, columns), margin_mm=3), mu.grid.corners_mm)
    found = project(mu, sparse, view, ["path", "facts"], device="cpu")
    assert found.path_mm is not None
    assert found.facts is not None
    expected = reduce_facts(found.path_mm > 0, found.path_mm, None, None)
    assert (expected["pixels"] == 0).any()
    assert (expected["column_min"][expected["pixels"] > 0] > 0).any()
    for name in ("pixels", "column_min", "column_max", "row_min", "row_max", "column_sum", "row_sum"):
        np.testing.assert_array_equal(found.facts[name], expected[name], err_msg=name)


def test_as_many_slabs_as_16_bits_count() -> None:
    """A ray through all of them is as long as they are; one voxel more is refused, in words."""
    longest = 2**15 - 1

    def through(length: int) -> Projection:
        affine = affine_of((0.01, 1.0, 1.0), (2, 2, length))
        mu = Volume(np.full((2, 2, length), 1e-3, np.float32), affine)
        view = place(Pose.named("lateral_left"), Setup(size=(5, 5)), mu.grid.corners_mm)
        assert abs(stepping_axes(view, mu.grid)).item() == 1
        everywhere = one_class(np.ones(mu.shape, bool), affine)
        return project(mu, everywhere, view, ["path", "depth", "facts"], device="cpu")

    found = through(longest)
    assert found.path_mm is not None
    assert found.entry_mm is not None
    assert found.exit_mm is not None
    assert found.facts is not None
    assert found.path_mm[0, 2, 2] == pytest.approx(longest * 0.01, rel=1e-4)
    assert (found.exit_mm - found.entry_mm)[0, 2, 2] == pytest.approx(longest * 0.01, rel=1e-4)
    assert found.facts["path_max_mm"][0] == pytest.approx(found.path_mm.max(), rel=1e-6)
    with pytest.raises(ResourceError, match="too long for the CPU projector"):
        through(longest + 1)


@pytest.mark.parametrize("want", [["image"], ["image", "share"]])
def test_a_voxel_that_is_no_number_spoils_its_own_rays_alone(want: list[str]) -> None:
    """In both marches, so that the picture tells of it; `project` then refuses the volume."""
    mu, labels = random_scene(9, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE))
    mu.array[8, 7, 9] = np.nan
    view = place(Pose.named("lao"), Setup(size=(40, 40)), mu.grid.corners_mm)
    rays, axes = IndexRays.of(view, mu.grid), stepping_axes(view, mu.grid)
    plain, found = (
        prepare(mu, labels, want, **options)._follow(rays, axes, Want.of(want)).image  # type: ignore[arg-type]
        for options in ({"backend": "reference"}, {"device": "cpu"})
    )
    assert plain is not None
    assert found is not None
    assert 0 < np.isnan(plain).mean() < 0.1
    np.testing.assert_array_equal(np.isnan(found), np.isnan(plain))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("beam", "want", "options"),
    [
        ("cone", ["image"], {"device": "cpu"}),
        ("cone", ["share"], {"device": "cpu"}),
        ("cone", ["image"], {"device": "cpu", "supersample": 2}),
        ("parallel", ["image", "presence"], {"device": "cpu"}),
        ("cone", ["image"], {"backend": "reference"}),
        ("cone", ["image"], {"method": "exact"}),
    ],
)
def test_attenuation_that_is_no_number_is_refused(
    beam: Any, want: list[str], options: dict[str, Any], value: float
) -> None:
    """With the voxel that it is."""
    mu, labels = random_scene(9, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE))
    mu.array[8, 7, 9] = value
    view = place(Pose.named("pa"), Setup(beam=beam, size=(40, 40)), mu.grid.corners_mm)
    with pytest.raises(CaseError, match=r"at 1 places, the first at voxel \(k, j, i\) \(8, 7, 9\)") as error:
        project(mu, labels, view, want, **options)
    assert error.value.code == "bad_attenuation"


def test_a_projection_prints_in_one_line() -> None:
    mu, labels = random_scene(9, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE))
    view = place(Pose.named("pa"), Setup(size=(16, 20)), mu.grid.corners_mm)
    found = project(mu, labels, view, ["image", "presence", "facts"], device="cpu")
    assert repr(found) == "Projection('pa', 16 x 20, 5 channels, cpu: image, presence, facts)"


def test_maps_of_classes_take_the_memory_of_what_is_written() -> None:
    """As zeros do, and those of a size that numpy would give huge pages."""
    for shape in ((3, 5, 7), (90, 128, 128)):
        maps = sparse_zeros(shape, np.float32)
        assert maps.shape == shape
        assert maps.dtype == np.float32
        assert not maps.any()
        maps[1] = 2
        assert maps.sum() == 2 * maps[1].size
        assert pickle.loads(pickle.dumps(maps)).sum() == maps.sum()


def test_the_exact_method_keeps_to_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """And walks no class for the image alone."""
    used: list[Any] = []

    def walk(
        turn: Any, mu: Any, atoms: Any, origin: Any, way: Any, limit: Any, cone: Any, *rest: Any
    ) -> None:
        used.append(turn)
        assert rest[2].shape == (0, 5, 6)

    monkeypatch.setattr(exact, "_walk", walk)
    mu, labels = random_scene(1, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("lao"), Setup(size=(5, 6)), mu.grid.corners_mm)
    project(mu, labels, view, ["image"], method="exact", threads=1)
    assert len(used) == 1


def test_more_classes_than_a_word_has_bits() -> None:
    """130 classes: presence of each equals its mask's own projection."""
    rng = np.random.default_rng(0)
    affine = affine_of((1, 1, 1), SHAPE)
    ids = rng.integers(0, 140, SHAPE).astype(np.uint16)
    membership = rng.random((140, 130)) < 0.05
    membership[0] = False
    names = tuple(f"c{n}" for n in range(130))
    labels = LabelVolume(ids, membership, names, affine, dict.fromkeys(names, "present"))  # type: ignore[arg-type]
    mu = Volume(np.zeros(SHAPE, np.float32), affine)
    view = place(Pose.named("pa"), Setup(beam="parallel", size=(18, 18)), mu.grid.corners_mm)
    both = project(mu, labels, view, ["presence", "path"], device="cpu")
    assert both.path_mm is not None
    for c, name in enumerate(names):
        np.testing.assert_array_equal(both.mask(name), both.path_mm[c] > 0)


def test_subset_and_order_of_classes() -> None:
    mu, labels = random_scene(7, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("pa"), Setup(size=(20, 20)), mu.grid.corners_mm)
    full = project(mu, labels, view, ["presence"], device="cpu")
    some = project(mu, labels, view, ["presence"], classes=["class_3", "class_1"], device="cpu")
    assert some.names == ("class_3", "class_1")
    for name in some.names:
        np.testing.assert_array_equal(some.mask(name), full.mask(name))


def test_errors_say_what_is_wrong() -> None:
    mu, labels = random_scene(8, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("pa"), Setup(size=(5, 5)), mu.grid.corners_mm)
    with pytest.raises(ConfigError, match="did you mean 'presence'"):
        project(mu, labels, view, ["presense"])
    with pytest.raises(ConfigError, match="no class 'hart'"):
        project(mu, labels, view, ["presence"], classes=["hart"])
    with pytest.raises(ConfigError, match="labels are needed"):
        project(mu, None, view, ["presence"])
    moved = Volume(mu.array, mu.affine + _shift(7.0))
    with pytest.raises(CaseError, match="not on one grid"):
        project(moved, labels, view, ["presence"])
    with pytest.raises(ConfigError, match="nothing is wanted"):
        project(mu, None, view, [])
    thin = Volume(np.zeros((1, 5, 5), np.float32), np.eye(4))
    with pytest.raises(CaseError, match="thinner than two voxels"):
        project(thin, None, view, ["image"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "cuda"}, "no backend 'cuda'(.|\n)*device='cuda'"),
        ({"backend": "cpu"}, "no backend 'cpu'"),
        ({"method": "siddon"}, "no method 'siddon'"),
        ({"per": "atoms"}, "did you mean 'atom'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"method": "exact", "device": "cuda"}, "no GPU runs"),
        ({"backend": "reference", "device": "cuda"}, "no GPU runs"),
        ({"method": "exact", "backend": "reference"}, "leave out method or backend"),
        ({"per": "atom", "classes": ["body"]}, "per atom"),
        ({"supersample": 2.0}, "1, 2, 4 or 8"),
    ],
)
def test_options_that_nothing_knows_are_refused(options: Any, said: str) -> None:
    """And not read as their defaults."""
    mu, labels = random_scene(8, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("pa"), Setup(size=(5, 5)), mu.grid.corners_mm)
    with pytest.raises(ConfigError, match=said):
        project(mu, labels, view, ["presence"], **options)


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"backend": "reference"}, {"method": "exact"}])
def test_an_atom_beyond_the_table_is_refused(options: Any) -> None:
    mu, labels = random_scene(8, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = place(Pose.named("pa"), Setup(size=(5, 5)), mu.grid.corners_mm)
    labels.atoms[3, 4, 5] = len(labels.membership)
    with pytest.raises(CaseError, match="the membership table lacks") as caught:
        project(mu, labels, view, ["presence"], **options)
    assert caught.value.code == "bad_labels"


def _shift(mm: float) -> np.ndarray:
    out = np.zeros((4, 4))
    out[0, 3] = mm
    return out


def test_cuda_without_a_device_is_an_error() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ResourceError, match="no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("failing", ["the first", "the last"])
def test_what_fails_in_a_thread_is_raised(failing: str) -> None:
    """Whichever of them it is."""
    numbers, threads = itertools.count(), min(2, processors())

    def work(turn: Any) -> None:
        if next(numbers) == (0 if failing == "the first" else threads - 1):
            raise MemoryError

    with pytest.raises(MemoryError):
        in_all_threads(work, threads)
    assert next(numbers) == threads


def test_no_more_threads_than_asked_for() -> None:
    """By the call, and by the worker that it runs in."""
    calls: list[Any] = []
    in_all_threads(calls.append, 99, threads=1)
    assert len(calls) == 1
    with at_most(1):
        in_all_threads(calls.append, 99)
    assert len(calls) == 2


@pytest.mark.parametrize("pieces", [0, 1, 2, 99])
def test_no_more_threads_than_pieces(pieces: int) -> None:
    calls: list[Any] = []
    in_all_threads(calls.append, pieces)
    assert len(calls) == max(1, min(pieces, processors()))
    assert all(turn is calls[0] and turn.tolist() == [0] for turn in calls)
