"""Several views of one volume, and one view in stretches of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_host import Builds, HostEngine
from scenes import affine_of, random_scene, rotation

import paxray
from paxray.anatomy.labels import LabelVolume
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.volume import Volume
from paxray.projection import scene as scenes_module
from paxray.projection.cuda import resident as residents
from paxray.projection.cuda.resident import Resident
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project, project_many, project_tiles
from paxray.projection.rays import IndexRays
from paxray.projection.view import View
from paxray.projection.want import FACTS, merge_facts, unpack

ALL = ("image", "presence", "path", "depth", "share", "incomplete", "facts", "coverage")
SHAPE = (18, 15, 21)
ROWS_FIRST = ("image", "presence", "incomplete")
MAPS = (*ROWS_FIRST, "path_mm", "entry_mm", "exit_mm", "share", "coverage")


def scene(seed: int = 1) -> tuple[Volume, LabelVolume]:
    return random_scene(seed, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE, rotation(17, 11)))


def view_of(mu: Volume, name: str = "rao", beam: Any = "cone", sdd_mm: float = 1800.0) -> View:
    return place(
        Pose.named(name), Setup(beam=beam, sdd_mm=sdd_mm, size=(43, 29), margin_mm=3), mu.grid.corners_mm
    )


def tilted(mu: Volume) -> View:
    """A parallel beam that meets its detector at a slant: pixels lie at different depths."""
    view = view_of(mu, "pa", "parallel")
    slant = view.direction + 0.3 * view.v - 0.2 * view.u
    return View(
        "tilted", "parallel", view.source_mm, slant / np.linalg.norm(slant), view.center_mm, view.u, view.v,
        view.pitch_mm, view.size,
    )  # fmt: skip


VIEWS = ["cone", "parallel", "wide", "tilted"]


def named(mu: Volume, name: str) -> View:
    if name == "tilted":
        return tilted(mu)
    return view_of(
        mu, beam="parallel" if name == "parallel" else "cone", sdd_mm=35 if name == "wide" else 1800
    )


@pytest.mark.parametrize("name", VIEWS)
def test_a_part_of_a_view_has_the_same_pixels(name: str) -> None:
    mu, _ = scene()
    view = named(mu, name)
    part, rays = view.part(11, 6), IndexRays.of(view, mu.grid)
    row, column = np.indices(part.size)
    np.testing.assert_allclose(part.pixel_mm(column, row), view.pixel_mm(column, row + 11), atol=1e-9)
    for found, expected in zip(part.ray(column, row), view.ray(column, row + 11), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    point = mu.grid.center_mm + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(part.project_points(point) + [0, 11], view.project_points(point), atol=1e-9)
    stretch = rays.part(11, 6)
    np.testing.assert_allclose(stretch.pixels(), rays.pixels()[11:17], atol=1e-9)
    np.testing.assert_allclose(stretch.directions(), rays.directions()[11:17], atol=1e-12)
    np.testing.assert_allclose(stretch.depth_of_pixels_mm(), rays.depth_of_pixels_mm()[11:17], atol=1e-9)


@pytest.mark.parametrize(("top", "height"), [(-1, 3), (0, 0), (40, 4)])
def test_a_part_beyond_the_detector_is_refused(top: int, height: int) -> None:
    with pytest.raises(ConfigError, match="no such rows"):
        view_of(scene()[0]).part(top, height)


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("where", ["cpu", "reference", "cuda"])
@pytest.mark.parametrize("name", VIEWS)
def test_stretches_of_rows_make_up_the_view(builds: Builds, name: str, where: str, supersample: int) -> None:
    mu, labels = scene(5)
    view = named(mu, name)
    options: Any = {"supersample": supersample}
    if where == "cuda":
        options["resident"] = Resident(mu.array, labels.atoms, engine=HostEngine(builds))
    else:
        options |= {"device": "cpu", "backend": "reference" if where == "reference" else ""}
    whole = project(mu, labels, view, ALL, **options)
    found = list(project_tiles(mu, labels, view, ALL, max_bytes=60_000 * supersample**3, **options))
    assert len(found) > 1
    assert [tile.first_row for tile in found] == np.cumsum([0, *(t.view.rows for t in found[:-1])]).tolist()
    for field in MAPS:
        axis = 0 if field in ROWS_FIRST else 1
        joined = np.concatenate([getattr(tile, field) for tile in found], axis=axis)
        assert joined.dtype == getattr(whole, field).dtype
        np.testing.assert_allclose(joined, getattr(whole, field), rtol=1e-6, atol=1e-9, err_msg=field)
    for channel, of in enumerate(whole.names):
        masks = [unpack(part.presence, channel) for part in (whole, *found)]
        for part, mask in zip((whole, *found), masks, strict=True):
            np.testing.assert_array_equal(part.mask(of), mask)
        np.testing.assert_array_equal(np.concatenate(masks[1:]), masks[0])
    facts = merge_facts([tile.facts for tile in found])  # type: ignore[misc]
    assert whole.facts is not None
    for field in FACTS.names or ():
        np.testing.assert_allclose(facts[field], whole.facts[field], rtol=1e-6, err_msg=field)


def test_stretches_keep_to_their_budget() -> None:
    mu, labels = scene()
    view = view_of(mu)
    for supersample in (1, 2):
        for max_bytes in (60_000 * supersample**3, 600_000):
            for tile in project_tiles(
                mu, labels, view, ["path", "depth", "presence"], max_bytes=max_bytes, supersample=supersample
            ):
                size = sum(
                    getattr(tile, name).nbytes for name in ("path_mm", "entry_mm", "exit_mm", "presence")
                )
                assert size * (1 + (supersample > 1) * supersample**2) <= max_bytes


def test_a_budget_that_is_too_small_is_refused_at_once() -> None:
    mu, labels = scene()
    with pytest.raises(ResourceError, match="8 rows of maps do not fit") as caught:
        project_tiles(mu, labels, view_of(mu), ["path"], max_bytes=1000)
    assert caught.value.code == "tile_memory"


def test_many_views_are_as_each_alone() -> None:
    mu, labels = scene()
    views = [view_of(mu, name) for name in ("pa", "lateral_left", "rao")]
    found = paxray.project_many(mu, labels, iter(views), ALL, device="cpu", supersample=2)
    for view in views:
        one, alone = next(found), project(mu, labels, view, ALL, device="cpu", supersample=2)
        assert one.view is view
        for field in (*MAPS, "facts"):
            assert getattr(one, field).tobytes() == getattr(alone, field).tobytes(), field
    with pytest.raises(StopIteration):
        next(found)


def test_what_is_wrong_is_said_before_the_first_view() -> None:
    mu, labels = scene()
    with pytest.raises(ConfigError, match="no class 'hart'"):
        project_many(mu, labels, [], ["presence"], classes=["hart"])
    moved = Volume(mu.array, mu.affine + np.eye(4)[:, [3, 3, 3, 0]])
    with pytest.raises(CaseError, match="not on one grid"):
        project_tiles(moved, labels, view_of(mu), ["presence"])


def test_on_a_gpu_the_volume_is_sent_once(monkeypatch: pytest.MonkeyPatch, builds: Builds) -> None:
    """All views, and all stretches of a view."""

    class Counting(HostEngine):
        adopted = 0

        def adopt(self, array: Any) -> Any:
            self.adopted += array.size == np.prod(SHAPE)
            return super().adopt(array)

    engine = Counting(builds)
    monkeypatch.setattr(scenes_module, "resolve_device", lambda device: "cuda")
    monkeypatch.setattr(residents, "current_engine", lambda: engine)
    mu, labels = scene()
    views = [view_of(mu, name) for name in ("pa", "ap", "pa")]
    for found, view in zip(project_many(mu, labels, views, ALL), views, strict=True):
        plain: Any = project(mu, labels, view, ALL, backend="reference")
        assert found.backend == "cuda"
        np.testing.assert_array_equal(found.presence, plain.presence)
        np.testing.assert_array_equal(found.coverage, plain.coverage)
        np.testing.assert_allclose(found.image, plain.image, atol=1e-5 * plain.image.max())
    assert engine.adopted == 2
    assert len(list(project_tiles(mu, labels, views[0], ALL, max_bytes=60_000))) > 1
    assert engine.adopted == 4
    engine.check()


def test_arguments_that_are_easily_mistaken_are_told() -> None:
    mu, labels = scene()
    with pytest.raises(ConfigError, match=r"expected: Volume\n +found: ndarray"):
        project(mu.array, None, view_of(mu), ["image"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected: Volume\n +found: ndarray"):
        paxray.attenuate(mu.array)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"needs a View.*\n?.*'pa'"):
        project(mu, labels, "pa", ["image"])  # type: ignore[arg-type]
    hu = Volume(mu.array - np.float32(1000), mu.affine)
    with pytest.raises(ConfigError, match="such as HU"):
        project(hu, labels, view_of(mu), ["image"])
    clipped = Volume((1000 * mu.array / mu.array.max()).clip(0), mu.affine)
    with pytest.raises(ConfigError, match=r"such as HU(.|\n)*to 1000"):
        project(clipped, labels, view_of(mu), ["image"])
    one = project(mu, labels, view_of(mu), ["presence"], classes=labels.names[0])
    assert one.names == labels.names[:1]
