"""Several rays a pixel: means, soft coverage, and a finer detector that nests in the coarse one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import affine_of, labelled, one_class, random_scene, rotation

from paxray.errors import ConfigError
from paxray.io.volume import Volume
from paxray.projection import scene as scenes_module
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Projection, project
from paxray.projection.view import View
from paxray.projection.want import reduce_facts

ALL = ("image", "presence", "path", "depth", "share", "incomplete", "facts", "coverage")
SHAPE = (18, 15, 21)
FIELDS = (
    "image", "presence", "path_mm", "entry_mm", "exit_mm", "share", "incomplete", "facts", "coverage", "materials",
)  # fmt: skip


def view_of(mu: Volume, name: str = "lao", beam: Any = "cone", sdd_mm: float = 1800.0) -> View:
    return place(
        Pose.named(name), Setup(beam=beam, sdd_mm=sdd_mm, size=(19, 13), margin_mm=3), mu.grid.corners_mm
    )


def apart(fine: Any, n: int) -> Any:
    """``(..., rows, columns, n * n)``: the rays of each pixel."""
    *lead, rows, columns = fine.shape
    cut = fine.reshape(*lead, rows // n, n, columns // n, n)
    return np.moveaxis(cut, -3, -2).reshape(*lead, rows // n, columns // n, n * n)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("beam", ["cone", "parallel"])
def test_the_finer_detector_nests(n: int, beam: str) -> None:
    mu = Volume(np.zeros(SHAPE, np.float32), affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11)))
    view = view_of(mu, beam=beam)
    fine = view.finer(n)
    row, column = np.indices(fine.size)
    inside = view.project_points(fine.pixel_mm(column, row))
    # Each fine centre lies in its coarse pixel, at the middle of its own part of it.
    expected = np.stack([column, row], axis=-1)
    np.testing.assert_allclose(inside, (expected + 0.5) / n - 0.5, atol=1e-9)
    centers = np.moveaxis(apart(np.moveaxis(fine.pixel_mm(column, row), -1, 0), n).mean(axis=-1), 0, -1)
    row, column = np.indices(view.size)
    np.testing.assert_allclose(centers, view.pixel_mm(column, row), atol=1e-9)
    assert fine.pixel_area_mm2 * n * n == pytest.approx(view.pixel_area_mm2)


@pytest.mark.parametrize("backend", ["", "reference"])
@pytest.mark.parametrize(("beam", "sdd_mm"), [("parallel", 1800.0), ("cone", 1800.0), ("cone", 35.0)])
@pytest.mark.parametrize("n", [2, 4])
def test_reduced_from_the_finer_view(n: int, beam: str, sdd_mm: float, backend: Any) -> None:
    """Every output is told by the rays of its pixel, projected on their own."""
    mu, labels = random_scene(3, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11)))
    view = view_of(mu, beam=beam, sdd_mm=sdd_mm)
    found: Any = project(mu, labels, view, ALL, supersample=n, device="cpu", backend=backend)
    fine: Any = project(mu, labels, view.finer(n), ALL, device="cpu", backend=backend)
    for name in ("image", "path_mm", "share"):
        np.testing.assert_allclose(
            getattr(found, name), apart(getattr(fine, name), n).mean(axis=-1, dtype=np.float64), rtol=1e-6
        )
    met = np.stack([apart(fine.mask(name), n) for name in labels.names])
    np.testing.assert_array_equal(np.stack([found.mask(n) for n in labels.names]), met.any(axis=-1))
    np.testing.assert_array_equal(found.coverage, met.mean(axis=-1))
    np.testing.assert_array_equal(found.incomplete, apart(fine.incomplete, n).any(axis=-1))
    entry, exit_ = apart(fine.entry_mm, n), apart(fine.exit_mm, n)
    np.testing.assert_array_equal(found.entry_mm, np.fmin.reduce(entry, axis=-1))
    np.testing.assert_array_equal(found.exit_mm, np.fmax.reduce(exit_, axis=-1))
    expected = reduce_facts(met.any(axis=-1), found.path_mm, found.entry_mm, found.exit_mm)
    for name in expected.dtype.names or ():
        np.testing.assert_allclose(found.facts[name], expected[name], rtol=1e-12, err_msg=name)
    assert found.view is view


@pytest.mark.parametrize("word", ALL)
def test_each_output_alone_is_the_same(word: str) -> None:
    mu, labels = random_scene(4, SHAPE, affine_of((1, 1, 1), SHAPE))
    everything, alone = (
        project(mu, labels, view_of(mu), want, supersample=2, device="cpu") for want in (ALL, [word])
    )
    wanted = {"path": ["path_mm"], "depth": ["entry_mm", "exit_mm"]}.get(word, [word])
    for name in FIELDS:
        if name in wanted and word in ("image", "share"):
            # Alone and together, the image is summed in another order.
            np.testing.assert_allclose(getattr(alone, name), getattr(everything, name), rtol=1e-6)
        elif name in wanted:
            assert getattr(alone, name).tobytes() == getattr(everything, name).tobytes(), name
        else:
            assert getattr(alone, name) is None, name


def test_one_ray_a_pixel_is_no_supersampling() -> None:
    """Bit for bit; and coverage is then presence."""
    mu, labels = random_scene(4, SHAPE, affine_of((1, 1, 1), SHAPE))
    plain: Any = project(mu, labels, view_of(mu), ALL[:-1], device="cpu")
    one: Any = project(mu, labels, view_of(mu), ALL, supersample=1, device="cpu")
    for name in FIELDS[:-2]:
        assert getattr(one, name).tobytes() == getattr(plain, name).tobytes(), name
    np.testing.assert_array_equal(one.coverage, np.stack([plain.mask(name) for name in plain.names]))
    assert one.coverage.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(
    n=st.sampled_from([1, 2, 4, 8]),
    pitch=st.tuples(st.floats(0.3, 9.0), st.floats(0.3, 9.0)),
    shift=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    low=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    extent=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_coverage_of_a_box_is_the_share_of_rays_within(
    n: int,
    pitch: tuple[float, float],
    shift: tuple[float, float],
    low: tuple[int, int],
    extent: tuple[int, int],
) -> None:
    """A box seen along an axis: a ray meets it where its own position lies between the box's sides."""
    shape, spacing = (20, 6, 20), (1.3, 2.0, 0.9)
    affine = affine_of(spacing, shape)
    box = np.zeros(shape, bool)
    box[low[1] : low[1] + extent[1], 2:4, low[0] : low[0] + extent[0]] = True
    mu = Volume(np.zeros(shape, np.float32), affine)
    view = View(
        "own", "parallel", np.array([0, -100.0, 0]), np.array([0, 1.0, 0]), np.array([shift[0], 50.0, shift[1]]),
        np.array([1.0, 0, 0]), np.array([0, 0, -1.0]), pitch, (9, 11),
    )  # fmt: skip
    found = project(mu, one_class(box, affine), view, ["coverage", "path"], supersample=n, device="cpu")
    row, column = np.indices(view.finer(n).size)
    index = mu.grid.to_index(view.finer(n).pixel_mm(column, row))
    nearest = np.floor(np.round(index[..., [0, 2]], 9) + 0.5)
    within = ((nearest >= low) & (nearest < np.add(low, extent))).all(axis=-1)
    expected = apart(within, n).mean(axis=-1)
    assert found.coverage is not None
    assert found.path_mm is not None
    np.testing.assert_array_equal(found.coverage[0], expected)
    # The box is two voxels of 2 mm deep.
    np.testing.assert_allclose(found.path_mm[0], 4.0 * expected, rtol=1e-6)


def test_coverage_measures_area_better_than_one_ray() -> None:
    """A disc of 20 pixels across: its area by soft coverage is nearer than by hard presence."""
    shape = (160, 2, 160)
    affine = affine_of((0.25, 0.25, 0.25), shape)
    k, _, i = np.indices(shape)
    disc = (i - 77.3) ** 2 + (k - 81.9) ** 2 <= 70.0**2
    mu = Volume(np.zeros(shape, np.float32), affine)
    truth = disc[:, 0].sum() * 0.25**2

    def area(n: int) -> float:
        view = place(Pose.named("pa"), Setup(beam="parallel", size=(23, 23), margin_mm=0), mu.grid.corners_mm)
        found = project(mu, one_class(disc, affine), view, ["coverage"], supersample=n, device="cpu")
        assert found.coverage is not None
        return float(found.coverage.sum(dtype=float)) * view.pixel_area_mm2

    errors = [abs(area(n) / truth - 1) for n in (1, 8)]
    assert errors[1] < 1e-3
    assert errors[1] < errors[0]


@pytest.mark.parametrize("sdd_mm", [1800.0, 35.0])
def test_the_height_of_tiles_changes_nothing(monkeypatch: pytest.MonkeyPatch, sdd_mm: float) -> None:
    mu, labels = random_scene(5, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11)))
    view = view_of(mu, sdd_mm=sdd_mm)

    def found() -> Projection:
        return project(mu, labels, view, ALL, supersample=2, device="cpu")

    whole = found()
    monkeypatch.setattr(scenes_module, "SUPERSAMPLE_BYTES", 1)
    tiled = found()
    for name in FIELDS[:-1]:
        assert getattr(tiled, name).tobytes() == getattr(whole, name).tobytes(), name


def test_no_class_and_many_classes() -> None:
    rng = np.random.default_rng(0)
    affine = affine_of((1, 1, 1), SHAPE)
    ids = rng.integers(0, 140, SHAPE).astype(np.uint16)
    membership = rng.random((140, 130)) < 0.05
    membership[0] = False
    labels = labelled(ids, membership, affine, tuple(f"c{n}" for n in range(130)))
    mu = Volume(np.zeros(SHAPE, np.float32), affine)
    view = view_of(mu)
    many = project(mu, labels, view, ["coverage"], supersample=2, device="cpu")
    fine = project(mu, labels, view.finer(2), ["presence"], device="cpu")
    assert many.coverage is not None
    for c, name in enumerate(labels.names):
        np.testing.assert_array_equal(many.coverage[c], apart(fine.mask(name), 2).mean(axis=-1))
    none = project(mu, labels, view, ["coverage", "facts", "path"], classes=[], supersample=2, device="cpu")
    assert none.coverage is not None
    assert none.facts is not None
    assert none.coverage.shape == (0, *view.size)
    assert none.facts.shape == (0,)


def test_the_exact_method_supersamples_too() -> None:
    mu, labels = random_scene(2, SHAPE, affine_of((1, 1, 1), SHAPE))
    view = view_of(mu)
    want = ["image", "path", "coverage"]
    found: Any = project(mu, labels, view, want, method="exact", supersample=2)
    fine: Any = project(mu, labels, view.finer(2), want, method="exact")
    np.testing.assert_allclose(found.image, apart(fine.image, 2).mean(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(found.path_mm, apart(fine.path_mm, 2).mean(axis=-1), rtol=1e-12)
    np.testing.assert_array_equal(found.coverage, apart(fine.coverage, 2).mean(axis=-1))


@pytest.mark.parametrize("factor", [0, 3, 16, 2.5])
def test_other_factors_are_refused(factor: Any) -> None:
    mu, labels = random_scene(2, SHAPE, affine_of((1, 1, 1), SHAPE))
    with pytest.raises(ConfigError, match="1, 2, 4 or 8"):
        project(mu, labels, view_of(mu), ["image"], supersample=factor)
    with pytest.raises(ConfigError, match="whole number"):
        view_of(mu).finer(0)
