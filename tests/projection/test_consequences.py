"""What follows from one traversal (the design's list), on noise, on a phantom and on a real chest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scenes import affine_of, one_class, random_scene, rotation

from paxray import api
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Grid, Volume
from paxray.projection.pose import Pose, Setup
from paxray.projection.pose import place as place_at
from paxray.projection.project import project
from paxray.projection.view import View

Scene = tuple[Volume, LabelVolume]


def _noise() -> Scene:
    shape = (24, 20, 28)
    return random_scene(2, shape, affine_of((1.2, 0.9, 1.7), shape, rotation(9, 5)))


def _phantom() -> Scene:
    from paxray.anatomy.builder import LabelBuilder
    from paxray.anatomy.vocabulary import load_vocabulary
    from paxray.phantom.thorax import make_phantom

    made = make_phantom(3, (4.0, 4.0, 4.0))
    catalog = load_catalog()
    builder = LabelBuilder(made.ct.shape)
    builder.add_label_map(made.labels.array, load_vocabulary("phantom", catalog=catalog))
    labels = api.derive(api.segment(made.ct, builder.finish(made.ct.affine, catalog)))
    return api.attenuate(made.ct, labels), labels


def _chest(real_data: Path) -> Scene:
    folder = real_data / "lidc-idri-0001"
    ct = api.read_ct(folder / "ct_2.5mm.nii.gz")
    source = f"{folder / 'totalsegmentator_v2_2.5mm.nii.gz'}=totalsegmentator_v2+118:costal_cartilages"
    labels = api.derive(api.segment(ct, api.read_masks(source, ct)))
    return api.attenuate(ct, labels), labels


@pytest.fixture(scope="module", params=["noise", "phantom", pytest.param("chest", marks=pytest.mark.real)])
def scene(request: pytest.FixtureRequest) -> Scene:
    if request.param == "chest":
        return _chest(request.getfixturevalue("real_data"))
    make: Callable[[], Scene] = {"noise": _noise, "phantom": _phantom}[request.param]
    return make()


VIEWS = [("pa", "cone"), ("lateral_left", "cone"), ("lao", "cone"), ("pa", "parallel"), ("rpo", "parallel")]


def view_at(scene: Scene, name: str, beam: str, **setup: object) -> View:
    mu, _ = scene
    settings = {"size": (60, 70), "margin_mm": 3.0} | setup
    return place_at(Pose.named(name), Setup(beam=beam, **settings), mu.grid.corners_mm)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "beam"), VIEWS)
def test_path_lengths_sum_to_the_slabs_inside(scene: Scene, name: str, beam: str) -> None:
    """All atoms, background included: the number of slabs whose sample lies in the voxel box, times the step."""
    mu, labels = scene
    view = view_at(scene, name, beam)
    found = project(mu, labels, view, ["path"], per="atom", device="cpu")
    box = LabelVolume(np.zeros(mu.shape, np.uint16), np.zeros((1, 0), bool), (), mu.affine, {})
    slabs = project(mu, box, view, ["path"], per="atom", backend="reference")
    assert found.path_mm is not None
    assert slabs.path_mm is not None
    total = found.path_mm.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(total, slabs.path_mm[0], rtol=1e-5, atol=1e-9)
    assert (total > 0).mean() > 0.2


@pytest.mark.parametrize(("name", "beam"), VIEWS)
def test_exact_paths_sum_to_the_chord_through_the_box(scene: Scene, name: str, beam: str) -> None:
    mu, labels = scene
    view = view_at(scene, name, beam)
    found = project(mu, labels, view, ["path"], per="atom", method="exact")
    assert found.path_mm is not None
    np.testing.assert_allclose(found.path_mm.sum(axis=0), _chord(view, mu), rtol=1e-9, atol=1e-6)


def _chord(view: View, mu: Volume) -> np.ndarray:
    """Length of each ray inside the voxel box, from the six planes."""
    row, column = np.indices(view.size)
    origin, direction = view.ray(column, row)
    index, step = mu.grid.to_index(origin), direction @ mu.grid.inverse[:3, :3].T
    near, far = np.full(view.size, -np.inf), np.full(view.size, np.inf)
    if view.beam == "cone":
        near, far = np.zeros(view.size), np.linalg.norm(view.pixel_mm(column, row) - view.source_mm, axis=-1)
    for axis, n in enumerate(mu.shape[::-1]):
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (-0.5 - index[..., axis]) / step[..., axis], (n - 0.5 - index[..., axis]) / step[..., axis]
        flat = np.abs(step[..., axis]) < 1e-14
        out = flat & ((index[..., axis] < -0.5) | (index[..., axis] >= n - 0.5))
        near = np.where(flat, near, np.maximum(near, np.fmin(a, b)))
        far = np.where(flat, far, np.minimum(far, np.fmax(a, b)))
        far = np.where(out, -np.inf, far)
    return np.where(far > near, far - near, 0.0)


@pytest.mark.parametrize(("name", "beam"), VIEWS)
def test_shares_sum_to_the_line_integral(scene: Scene, name: str, beam: str) -> None:
    """The radiograph decomposes into its atoms, hence into any partition of them."""
    mu, labels = scene
    found = project(mu, labels, view_at(scene, name, beam), ["image", "share"], per="atom", device="cpu")
    assert found.image is not None
    assert found.share is not None
    total = found.share.sum(axis=0, dtype=np.float64)
    assert np.abs(total - found.image).max() <= 1e-5 * found.image.max()


def test_body_and_its_outside_are_a_partition(scene: Scene) -> None:
    mu, labels = scene
    view = view_at(scene, "pa", "cone")
    body = project(mu, labels, view, ["image", "share"], classes=["body"], device="cpu")
    atoms = project(mu, labels, view, ["share"], per="atom", device="cpu")
    assert body.share is not None
    assert body.image is not None
    assert atoms.share is not None
    outside = atoms.share[~labels.membership[:, labels.names.index("body")]].sum(axis=0, dtype=np.float64)
    assert np.abs(body.share[0] + outside - body.image).max() <= 1e-5 * body.image.max()


@pytest.mark.parametrize(("name", "beam"), VIEWS)
def test_unions_and_parts_nest_in_2d(scene: Scene, name: str, beam: str) -> None:
    """A union's mask is the OR of its parts'; so no part reaches beyond its parent."""
    mu, labels = scene
    found = project(mu, labels, view_at(scene, name, beam), ["presence"], device="cpu")
    catalog = load_catalog()
    checked = 0
    for parent in labels.names:
        if parent not in catalog:
            continue
        parts = [part for part in catalog[parent].parts if part in labels.names]
        for part in parts:
            assert not (found.mask(part) & ~found.mask(parent)).any(), f"{part} beyond {parent}"
        made_of_parts = labels.membership[:, [labels.names.index(p) for p in parts]].any(axis=1)
        if parts and (made_of_parts == labels.membership[:, labels.names.index(parent)]).all():
            either = np.logical_or.reduce([found.mask(part) for part in parts])
            np.testing.assert_array_equal(found.mask(parent), either)
            checked += 1
    if "spine" in labels.names:
        assert checked > 10


def test_union_of_random_classes_is_their_or() -> None:
    mu, labels = _noise()
    both = labels.membership[:, 1] | labels.membership[:, 2]
    wider = LabelVolume(
        labels.atoms, np.column_stack([labels.membership, both]), (*labels.names, "either"), labels.affine,
        {**labels.status, "either": labels.status["body"]},
    )  # fmt: skip
    view = view_at((mu, labels), "lao", "cone")
    found = project(mu, wider, view, ["presence"], device="cpu")
    np.testing.assert_array_equal(found.mask("either"), found.mask("class_1") | found.mask("class_2"))


def _on_columns(mu: Volume, axis: str, per_voxel: int = 1) -> View:
    """A parallel view with a pixel (or several) on each voxel column of an axis-aligned volume."""
    nk, nj, ni = mu.shape
    si, sj, sk = mu.spacing_mm
    name, across, pitch = ("pa", ni, si) if axis == "y" else ("lateral_left", nj, sj)
    pose = Pose.named(name)
    direction, u, v = pose.axes()
    center = mu.grid.center_mm + 500 * direction
    return View(
        name, "parallel", center - 1000 * direction, direction, center, u, v,
        (pitch / per_voxel, sk / per_voxel), (nk * per_voxel, across * per_voxel),
    )  # fmt: skip


@pytest.mark.parametrize("axis", ["y", "x"])
def test_path_times_pixel_area_is_the_volume(axis: str) -> None:
    for scene in (_aligned_noise(), _phantom()):
        _assert_volumes(scene, axis)


@pytest.mark.real
@pytest.mark.parametrize("axis", ["y", "x"])
def test_path_times_pixel_area_is_the_volume_of_a_real_chest(real_data: Path, axis: str) -> None:
    _assert_volumes(_chest(real_data), axis)


def _aligned_noise() -> Scene:
    shape = (13, 17, 11)
    return random_scene(11, shape, affine_of((0.8, 1.3, 2.5), shape))


def _assert_volumes(scene: Scene, axis: str) -> None:
    """Pixels on voxel columns, different pitches in u and v: exact, 1e-6 relative."""
    mu, labels = scene
    view = _on_columns(mu, axis)
    found = project(mu, labels, view, ["path", "facts"], device="cpu")
    assert found.path_mm is not None
    assert found.facts is not None
    volumes = np.array(list(labels.voxel_counts().values())) * mu.grid.voxel_volume_mm3
    summed = found.path_mm.sum(axis=(1, 2), dtype=np.float64) * view.pixel_area_mm2
    np.testing.assert_allclose(summed, volumes, rtol=1e-6)
    np.testing.assert_allclose(found.facts["path_sum_mm"] * view.pixel_area_mm2, volumes, rtol=1e-6)


@pytest.mark.parametrize("fine", [1, 2])
def test_frontal_and_lateral_share_their_rows(fine: int) -> None:
    """With one v grid, no coarser than the voxels, a structure occupies the same rows in both."""
    for mu, labels in (_aligned_noise(), _phantom()):
        frontal, lateral = (
            project(mu, labels, _on_columns(mu, axis, fine), ["presence"], device="cpu")
            for axis in ("y", "x")
        )
        for name in labels.names:
            np.testing.assert_array_equal(
                frontal.mask(name).any(axis=1), lateral.mask(name).any(axis=1), err_msg=name
            )


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 12, 7), (-70, -25, 0)])
def test_volume_within_one_percent_on_a_fine_free_detector(scene: Scene, angles: tuple[float, ...]) -> None:
    """Any pose: path length x pixel area is each class's volume within 1 %.

    The pitch is a quarter of the smallest spacing at most, and finer for small classes: rays are points, and a
    class only a few voxels wide needs more than four of them per voxel before its staircase edge averages out.
    """
    _, labels = scene
    for name, voxels in labels.voxel_counts().items():
        if not voxels:
            continue
        mask, grid = _cropped(labels, name)
        finer = next(
            fine for least, fine in ((20_000, 1), (2_000, 2), (500, 4), (100, 6), (0, 12)) if voxels > least
        )
        pitch = min(grid.spacing_mm) / (4 * finer)
        direction, u, v = Pose("own", *angles).axes()
        corners = grid.corners_mm - grid.center_mm
        size = tuple(int(np.ceil(2 * np.abs(corners @ axis).max() / pitch)) + 2 for axis in (v, u))
        center = grid.center_mm + 600 * direction
        view = View(
            "own", "parallel", center - 1200 * direction, direction, center, u, v, (pitch, pitch), size
        )  # type: ignore[arg-type]
        nothing = Volume(np.zeros(mask.shape, np.float32), grid.affine)
        found = project(nothing, one_class(mask, grid.affine), view, ["facts"], device="cpu")
        assert found.facts is not None
        measured = found.facts["path_sum_mm"][0] * view.pixel_area_mm2
        ratio = measured / (voxels * grid.voxel_volume_mm3)
        assert abs(ratio - 1) < 0.01, f"{name}: {voxels} voxels, {ratio:.4f} at pitch {pitch:.3f} mm"


def _cropped(labels: LabelVolume, name: str) -> tuple[np.ndarray, Grid]:
    """A class in its bounding box, with a voxel of margin."""
    mask = labels.mask(name)
    where = np.argwhere(mask)
    first, last = where.min(axis=0), where.max(axis=0) + 1
    box = np.pad(mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))], 1)
    affine = labels.affine.copy()
    affine[:3, 3] = labels.grid.to_world(first[::-1] - 1)
    return box, Grid(box.shape, affine)  # type: ignore[arg-type]
