"""Parallel rays along an axis of the volume: the short cut gives what the general march and the plain one give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from parity import assert_same
from scenes import affine_of, orientations, random_scene, relaid, rotation

from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Grid, Volume
from paxray.projection import aligned
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Projection, project
from paxray.projection.rays import IndexRays, stepping_axes
from paxray.projection.view import View
from paxray.projection.want import FACTS, Want

#: All that the short cut gives; shares of the line integral are left to the general march.
GIVEN = ("image", "presence", "path", "depth", "incomplete", "facts")
MAPS = ("image", "presence", "path_mm", "entry_mm", "exit_mm", "incomplete", "facts")
SHAPE = (18, 37, 21)


def looking_along(
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    axis: int,
    sign: int,
    roll_deg: float = 0.0,
    tilt_deg: float = 0.0,
    pitch_mm: tuple[float, float] = (1.0, 1.0),
    size: tuple[int, int] = (20, 23),
    shift_mm: tuple[float, float] = (0.0, 0.0),
) -> View:
    """Parallel rays along index axis 0, 1, 2; the detector rolled in its plane, and tilted to the rays."""
    direction = sign * affine[:3, axis] / np.linalg.norm(affine[:3, axis])
    across = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction))])
    across /= np.linalg.norm(across)
    up = np.cross(direction, across)
    roll, tilt = np.radians([roll_deg, tilt_deg])
    u = np.cos(roll) * across + np.sin(roll) * up
    v = np.cos(tilt) * (np.cos(roll) * up - np.sin(roll) * across) + np.sin(tilt) * direction
    middle = affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + affine[:3, 3]
    return View(
        name="own",
        beam="parallel",
        source_mm=middle - 70 * direction,
        direction=direction,
        center_mm=middle + 50 * direction + shift_mm[0] * u + shift_mm[1] * v,
        u=u,
        v=v / np.linalg.norm(v),
        pitch_mm=pitch_mm,
        size=size,
    )


def on_columns(grid: Grid, axis: int) -> View:
    """One pixel on each column of voxels along an axis of an upright grid; rows and columns ascend with the indices."""
    b, c = (x for x in range(3) if x != axis)
    return View(
        name="own",
        beam="parallel",
        source_mm=grid.to_world([0, 0, 0]),
        direction=np.eye(3)[axis],
        center_mm=grid.center_mm,
        u=np.eye(3)[b],
        v=np.eye(3)[c],
        pitch_mm=(grid.spacing_mm[b], grid.spacing_mm[c]),
        size=(grid.shape[2 - c], grid.shape[2 - b]),
    )


def taken(mu: Volume, view: View, want: tuple[str, ...] = GIVEN) -> bool:
    """Whether the short cut is taken."""
    rays, axes = IndexRays.of(view, mu.grid), stepping_axes(view, mu.grid)
    return aligned.applies(rays, axes, mu.shape, Want.of(want))


def compare(found: Projection, expected: Projection) -> None:
    """As `assert_same`, without shares, and with depths that agree to float32."""
    image = np.asarray(expected.image)
    np.testing.assert_allclose(found.image, image, rtol=0, atol=2e-6 * max(float(image.max()), 1e-9))
    np.testing.assert_array_equal(found.presence, expected.presence)
    np.testing.assert_array_equal(found.incomplete, expected.incomplete)
    np.testing.assert_allclose(found.path_mm, expected.path_mm, rtol=1e-6)
    np.testing.assert_allclose(found.entry_mm, expected.entry_mm, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found.exit_mm, expected.exit_mm, rtol=1e-6, atol=1e-5)
    for name in FACTS.names or ():
        np.testing.assert_allclose(
            found.facts[name], expected.facts[name], rtol=1e-9, atol=1e-9, err_msg=name
        )  # type: ignore[index]


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(*[st.one_of(st.integers(2, 12), st.sampled_from([33, 70]))] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    turn=st.sampled_from([(0.0, 0.0), (90.0, 0.0), (23.0, -41.0)]),
    shear=st.sampled_from([0.0, 0.3]),
    axis=st.integers(0, 2),
    sign=st.sampled_from([-1, 1]),
    roll_deg=st.one_of(st.sampled_from([0.0, 90.0, 180.0, 270.0]), st.floats(-180, 180)),
    tilt_deg=st.sampled_from([0.0, 25.0]),
    pitch_mm=st.tuples(*[st.sampled_from([0.15, 0.7, 1.0, 2.3])] * 2),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    shift_mm=st.tuples(*[st.floats(-12, 12)] * 2),
    seed=st.integers(0, 1000),
)
def test_equals_the_plain_march(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    turn: tuple[float, float],
    shear: float,
    axis: int,
    sign: int,
    roll_deg: float,
    tilt_deg: float,
    pitch_mm: tuple[float, float],
    size: tuple[int, int],
    shift_mm: tuple[float, float],
    seed: int,
) -> None:
    """Any axis, sign, roll, tilt, pitch and offset; more and fewer pixels than voxels; beside the volume, too."""
    affine = affine_of(spacing, shape, rotation(*turn))
    affine[:3, (axis + 1) % 3] += shear * affine[:3, axis]
    mu, labels = random_scene(seed, shape, affine)
    view = looking_along(affine, shape, axis, sign, roll_deg, tilt_deg, pitch_mm, size, shift_mm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligned, "MOST_COLUMNS_PER_PIXEL", np.inf)
        # Where a slanted neighbour of a sheared axis is finer, rays step along that one instead.
        along = abs(int(stepping_axes(view, mu.grid)[0, 0])) - 1 == axis
        assert taken(mu, view) == along
        found = project(mu, labels, view, GIVEN, device="cpu")
    compare(found, project(mu, labels, view, GIVEN, backend="reference"))


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Projection]:
    """`project` on the CPU without the short cut."""

    def run(*args: object, **kwargs: object) -> Projection:
        with monkeypatch.context() as patch:
            patch.setattr(aligned, "applies", lambda *_: False)
            return project(*args, device="cpu", **kwargs)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("per", ["class", "atom"])
@pytest.mark.parametrize("roll_deg", [0.0, 90.0, 37.0])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_equals_the_general_march(
    general: Callable[..., Projection], axis: int, sign: int, roll_deg: float, per: str
) -> None:
    affine = affine_of((1.1, 1.3, 1.6), SHAPE)
    mu, labels = random_scene(2, SHAPE, affine)
    view = looking_along(affine, SHAPE, axis, sign, roll_deg, pitch_mm=(0.83, 1.21), size=(31, 44))
    assert taken(mu, view)
    found = project(mu, labels, view, GIVEN, per=per, device="cpu")  # type: ignore[arg-type]
    assert np.asarray(found.image).max() > 0
    compare(found, general(mu, labels, view, GIVEN, per=per))


def test_all_memory_layouts_give_one_picture() -> None:
    """Each axis in turn is the stepping one; no pixel lies on the border of two voxels, where a flip would matter."""
    affine = affine_of((1.1, 1.3, 1.6), SHAPE)
    mu, labels = random_scene(3, SHAPE, affine)
    view = looking_along(affine, SHAPE, 1, 1, pitch_mm=(0.613, 0.877), size=(40, 50))
    first = project(mu, labels, view, GIVEN, device="cpu")
    for axes, flips in orientations():
        array, moved = relaid(mu.array, affine, axes, flips)
        ids, _ = relaid(labels.atoms, affine, axes, flips)
        other_mu = Volume(array, moved)
        other = LabelVolume(ids, labels.membership, labels.names, moved, labels.status)
        assert taken(other_mu, view)
        compare(project(other_mu, other, view, GIVEN, device="cpu"), first)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("word", GIVEN)
def test_each_output_alone_is_the_same(word: str, axis: int) -> None:
    affine = affine_of((1, 1, 1), SHAPE)
    mu, labels = random_scene(4, SHAPE, affine)
    view = looking_along(affine, SHAPE, axis, 1, roll_deg=12)
    assert taken(mu, view, (word,))
    everything, alone = (project(mu, labels, view, words, device="cpu") for words in (GIVEN, [word]))
    fields = {"path": ["path_mm"], "depth": ["entry_mm", "exit_mm"]}.get(word, [word])
    for key in (*MAPS, "share"):
        if key in fields:
            assert getattr(alone, key).tobytes() == getattr(everything, key).tobytes()
        else:
            assert getattr(alone, key) is None, f"{key} was not asked for"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_thread_count_changes_nothing(axis: int) -> None:
    affine = affine_of((1, 1, 1), SHAPE)
    mu, labels = random_scene(5, SHAPE, affine)
    view = looking_along(affine, SHAPE, axis, -1, roll_deg=12, pitch_mm=(0.3, 0.3), size=(64, 64))
    one, two = (project(mu, labels, view, GIVEN, device="cpu", threads=n) for n in (1, 2))
    for key in MAPS:
        assert getattr(one, key).tobytes() == getattr(two, key).tobytes(), key


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_many_classes_and_wide_atoms(axis: int, dtype: type[np.unsignedinteger]) -> None:
    """Noise: a run ends at nearly every voxel, so many more than are held at once; 130 classes need three words."""
    shape = (40, 70, 67)
    rng = np.random.default_rng(0)
    affine = affine_of((1, 1, 1), shape)
    ids = rng.integers(0, 140, shape).astype(dtype)
    membership = rng.random((140, 130)) < 0.05
    membership[0] = False
    names = tuple(f"c{n}" for n in range(130))
    labels = LabelVolume(ids, membership, names, affine, dict.fromkeys(names, "present"))  # type: ignore[arg-type]
    mu = Volume(rng.random(shape, dtype=np.float32), affine)
    view = on_columns(mu.grid, axis)
    assert taken(mu, view)
    found = project(mu, labels, view, ["presence", "path"], device="cpu")
    np.testing.assert_array_equal(found.path_mm, np.moveaxis(membership[ids].sum(axis=2 - axis), -1, 0))
    for c, name in enumerate(names):
        np.testing.assert_array_equal(found.mask(name), np.asarray(found.path_mm)[c] > 0)


def test_a_sum_over_an_axis() -> None:
    """Pixels on voxel columns: the image is numpy's sum in float64, to the stated bound, whatever the size."""
    for shape in ((3, 700, 5), (600, 3, 40), (4, 3, 1030), (5, 13, 9)):
        rng = np.random.default_rng(1)
        mu = Volume(rng.random(shape, dtype=np.float32), affine_of((1, 1, 1), shape))
        axis = 2 - int(np.argmax(shape))
        view = on_columns(mu.grid, axis)
        assert taken(mu, view, ("image",))
        image = np.asarray(project(mu, None, view, ["image"], device="cpu").image)
        np.testing.assert_allclose(image, mu.array.sum(axis=2 - axis, dtype=np.float64), rtol=2e-6)


def test_incomplete_where_the_body_meets_padding() -> None:
    """Padding behind the body, beside it, and a face of the array, along both directions of the ray."""
    ids = np.zeros((4, 9, 3), np.uint16)
    ids[:, 3:6] = 1
    ids[1, 6:8] = 2
    ids[2, 0:3] = 1
    ids[3, 1:3] = 2
    affine = affine_of((1, 1, 1), ids.shape)  # type: ignore[arg-type]
    membership = np.array([[False, False], [True, False], [False, True]])
    labels = LabelVolume(
        ids, membership, ("body", "unscanned"), affine, dict.fromkeys(("body", "unscanned"), "present")
    )  # type: ignore[arg-type]
    mu = Volume(np.zeros(ids.shape, np.float32), affine)
    for sign in (-1, 1):
        view = looking_along(affine, ids.shape, 1, sign, size=(8, 8))  # type: ignore[arg-type]
        found = project(mu, labels, view, ["incomplete"], device="cpu").incomplete
        plain = project(mu, labels, view, ["incomplete"], backend="reference").incomplete
        np.testing.assert_array_equal(found, plain)
        assert np.asarray(found).sum() == 3 * 3


def test_what_is_left_to_the_general_march() -> None:
    affine = affine_of((1.1, 1.3, 1.6), SHAPE)
    mu, labels = random_scene(6, SHAPE, affine)
    straight = looking_along(affine, SHAPE, 1, 1)
    assert taken(mu, straight)
    assert not taken(mu, straight, (*GIVEN, "share"))
    assert not taken(mu, looking_along(affine, SHAPE, 1, 1, size=(2, 2), pitch_mm=(20.0, 20.0)))
    cone = place(Pose.named("pa"), Setup(sdd_mm=1800, size=(20, 20)), mu.grid.corners_mm)
    assert not taken(mu, cone)
    for drift_deg, expected in ((1e-12, True), (1e-6, False)):
        turned = Volume(mu.array, affine_of((1.1, 1.3, 1.6), SHAPE, rotation(drift_deg)))
        assert taken(turned, straight) is expected
    assert_same(
        project(mu, labels, straight, (*GIVEN, "share"), device="cpu"),
        project(mu, labels, straight, (*GIVEN, "share"), backend="reference"),
    )
