"""Shapes whose line integrals are known in closed form, in every orientation and pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import affine_of, centers_mm, labelled, one_class, orientations, relaid, rotation

from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Grid, Volume
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project
from paxray.projection.view import View

POSES = ["pa", "ap", "lateral_left", "lateral_right", "rao", "lpo", "own"]


def pose_of(name: str) -> Pose:
    return Pose("own", 23.0, -14.0, 9.0) if name == "own" else Pose.named(name)


def gaussian_ball(sigma_mm: float, center_mm: tuple[float, float, float], turn: bool) -> Volume:
    """exp(-r^2 / 2 sigma^2) / mm on a grid that holds six sigma on every side."""
    spacing = (1.7, 1.5, 2.1)
    shape = tuple(int(np.ceil(13 * sigma_mm / s)) for s in reversed(spacing))
    grid = Grid(shape, affine_of(spacing, shape, rotation(20, 12) if turn else None, center_mm))  # type: ignore[arg-type]
    off_center = np.array(center_mm) + [0.31, -0.22, 0.47]
    r2 = ((centers_mm(grid) - off_center) ** 2).sum(axis=-1)
    return Volume(np.exp(-r2 / (2 * sigma_mm**2)).astype(np.float32), grid.affine)


@pytest.mark.parametrize("beam", ["cone", "parallel"])
@pytest.mark.parametrize("name", POSES)
@pytest.mark.parametrize("turn", [False, True])
def test_a_balls_centroid_is_where_the_matrix_says(name: str, beam: str, turn: bool) -> None:
    """Intensity centroid within 0.01 px of the stored matrix; the peak is the ball's integral sqrt(2 pi) sigma."""
    sigma, center = 7.0, (12.0, -35.0, 21.0)
    ball = gaussian_ball(sigma, center, turn)
    room = np.array([[x, y, z] for x in (-90, 90) for y in (-90, 90) for z in (-90, 90)], float)
    view = place(pose_of(name), Setup(beam=beam, size=(200, 220)), room)  # type: ignore[arg-type]
    image = project(ball, None, view, ["image"], device="cpu").image
    assert image is not None
    row, column = np.indices(image.shape)
    weight = image.astype(np.float64)
    found = np.array([(column * weight).sum(), (row * weight).sum()]) / weight.sum()
    expected = view.project_points(np.array(center) + [0.31, -0.22, 0.47])
    assert np.abs(found - expected).max() < 0.01
    # The ray next to the centre misses it by less than a pixel of the detector.
    miss = max(view.pitch_mm) / np.sqrt(2)
    # Bilinear interpolation cuts a peak of curvature 1 / sigma^2 by at most h^2 / 8 sigma^2 along each axis.
    blur = sum(h**2 for h in ball.spacing_mm) / (8 * sigma**2)
    peak = np.sqrt(2 * np.pi) * sigma
    assert peak * np.exp(-(miss**2) / (2 * sigma**2)) * (1 - blur) < image.max() < peak * 1.001


@pytest.mark.parametrize("name", ["pa", "lateral_left", "own"])
def test_gaussian_line_integrals(name: str) -> None:
    """Every pixel against the closed form: sqrt(2 pi) sigma exp(-d^2 / 2 sigma^2), d the ray's distance."""
    sigma = 9.0
    ball = gaussian_ball(sigma, (0.0, 0.0, 0.0), True)
    view = place(pose_of(name), Setup(size=(90, 90), sdd_mm=1200), ball.grid.corners_mm)
    image = project(ball, None, view, ["image"], device="cpu").image
    row, column = np.indices(view.size)
    origin, direction = view.ray(column, row)
    away = np.linalg.norm(np.cross(np.array([0.31, -0.22, 0.47]) - origin, direction), axis=-1)
    peak = np.sqrt(2 * np.pi) * sigma
    error = image - peak * np.exp(-(away**2) / (2 * sigma**2))
    # Joseph's linear interpolation widens a Gaussian by about the spacing squared over eight sigma squared.
    assert np.sqrt((error**2).mean()) < 3e-3 * peak
    assert np.abs(error).max() < 1.5e-2 * peak


@pytest.mark.parametrize("beam", ["cone", "parallel"])
@pytest.mark.parametrize("name", ["pa", "lateral_left", "lao", "own"])
def test_sphere_chords(name: str, beam: str) -> None:
    """Path length in a sphere against its chord: within two voxel steps everywhere, and .2 mm on average."""
    radius, spacing, shape = 30.0, (1.1, 1.0, 1.3), (60, 78, 70)
    affine = affine_of(spacing, shape, rotation(13, 8), (5.0, -8.0, 3.0))
    grid = Grid(shape, affine)
    sphere = ((centers_mm(grid) - [5.0, -8.0, 3.0]) ** 2).sum(axis=-1) <= radius**2
    view = place(pose_of(name), Setup(beam=beam, size=(120, 120)), grid.corners_mm)  # type: ignore[arg-type]
    nothing = Volume(np.zeros(shape, np.float32), affine)
    found = project(nothing, one_class(sphere, affine), view, ["path", "depth"], device="cpu")
    assert found.path_mm is not None
    assert found.entry_mm is not None
    assert found.exit_mm is not None
    row, column = np.indices(view.size)
    origin, direction = view.ray(column, row)
    along = ((np.array([5.0, -8.0, 3.0]) - origin) * direction).sum(axis=-1)
    away2 = ((np.array([5.0, -8.0, 3.0]) - origin) ** 2).sum(axis=-1) - along**2
    half = np.sqrt(np.maximum(radius**2 - away2, 0))
    error = found.path_mm[0] - 2 * half
    assert abs(error[half > 0].mean()) < 0.2
    inner = half > 10  # away from the rim, where a chord grows steeply
    assert np.abs(error[inner]).max() < 5.0
    assert np.sqrt((error[inner] ** 2).mean()) < 1.2
    np.testing.assert_allclose(found.entry_mm[0][inner], (along - half)[inner], atol=3.0)
    np.testing.assert_allclose(found.exit_mm[0][inner], (along + half)[inner], atol=3.0)


def inside_a_quadric(shape: str, away: np.ndarray) -> np.ndarray:
    """Whether points, relative to the centre in the body's own axes, lie in an ellipsoid or a cylinder along z."""
    x, y, z = np.moveaxis(away, -1, 0)
    if shape == "ellipsoid":
        return (x / 34) ** 2 + (y / 24) ** 2 + (z / 29) ** 2 <= 1
    return (x**2 + y**2 <= 26**2) & (np.abs(z) <= 31)


def chord_of_a_quadric(shape: str, origin: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Length within it of the line from `origin` along the unit vector `way`, in the body's own axes."""

    def roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where a t^2 + 2 b t + c < 0; an empty stretch where nowhere."""
        half = np.sqrt(np.maximum(b * b - a * c, 0)) / a
        return -b / a - half, -b / a + half

    if shape == "ellipsoid":
        radii = np.array([34.0, 24.0, 29.0])
        o, d = origin / radii, way / radii
        first, last = roots((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1)
    else:
        o, d = origin[..., :2], way[..., :2]
        first, last = roots((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 26.0**2)
        with np.errstate(divide="ignore"):  # a ray beside the ends meets them nowhere
            ends = np.stack([(-31 - origin[..., 2]) / way[..., 2], (31 - origin[..., 2]) / way[..., 2]])
        first, last = np.maximum(first, ends.min(axis=0)), np.minimum(last, ends.max(axis=0))
    return np.maximum(last - first, 0)


@pytest.mark.parametrize("beam", ["cone", "parallel"])
@pytest.mark.parametrize("name", ["pa", "lateral_left", "lao", "own"])
@pytest.mark.parametrize("body", ["ellipsoid", "cylinder"])
def test_chords_of_an_ellipsoid_and_a_cylinder(body: str, name: str, beam: str) -> None:
    """Bodies turned against their lattice: every ray between two chords in closed form, and 1 % on average."""
    spacing, shape, center = (1.1, 1.0, 1.3), (74, 86, 78), np.array([5.0, -8.0, 3.0])
    own_axes = rotation(24, 16)
    affine = affine_of(spacing, shape, rotation(13, 8), tuple(center))
    grid = Grid(shape, affine)
    solid = inside_a_quadric(body, (centers_mm(grid) - center) @ own_axes)
    assert not solid[[0, -1]].any()
    assert not solid[:, [0, -1]].any()
    assert not solid[:, :, [0, -1]].any()
    view = place(pose_of(name), Setup(beam=beam, size=(120, 120)), grid.corners_mm)  # type: ignore[arg-type]
    nothing = Volume(np.zeros(shape, np.float32), affine)
    found = project(nothing, one_class(solid, affine), view, ["path"], device="cpu").path_mm
    assert found is not None
    row, column = np.indices(view.size)
    origin, direction = view.ray(column, row)
    chord = chord_of_a_quadric(body, (origin - center) @ own_axes, direction @ own_axes)
    assert (chord > 20).mean() > 0.1
    assert abs((found[0] - chord).sum()) < 0.01 * chord.sum()
    # A sample's voxel lies within half a voxel's diagonal of it: the samples counted are at least those in the body
    # shrunk by as much, at most those in the body grown by it, and an end of a chord may miss a step.
    reach, thinnest = np.linalg.norm(spacing) / 2, 24.0 if body == "ellipsoid" else 26.0
    least, most = (
        scale * chord_of_a_quadric(body, (origin - center) @ own_axes / scale, direction @ own_axes)
        for scale in (1 - reach / thinnest, 1 + reach / thinnest)
    )
    step = np.sqrt(3) * max(spacing)
    assert (found[0] >= least - step).all()
    assert (found[0] <= most + step).all()
    assert not found[0][most == 0].any()


def test_oriented_box_exact() -> None:
    """A box of whole voxels, walked voxel by voxel: the chord through the box to rounding."""
    shape = (30, 26, 34)
    affine = affine_of((1.3, 0.9, 1.1), shape, rotation(31, 17))
    mask = np.zeros(shape, bool)
    mask[7:21, 5:19, 9:30] = True
    view = place(pose_of("own"), Setup(size=(60, 60), sdd_mm=700), Grid(shape, affine).corners_mm)
    nothing = Volume(np.zeros(shape, np.float32), affine)
    found = project(nothing, one_class(mask, affine), view, ["path"], method="exact")
    assert found.path_mm is not None
    row, column = np.indices(view.size)
    origin, direction = view.ray(column, row)
    grid = Grid(shape, affine)
    index, step = grid.to_index(origin), direction @ grid.inverse[:3, :3].T
    low, high = np.array([9, 5, 7]) - 0.5, np.array([30, 19, 21]) - 0.5
    a, b = (low - index) / step, (high - index) / step
    chord = np.maximum(np.maximum(a, b).min(axis=-1) - np.minimum(a, b).max(axis=-1), 0)
    np.testing.assert_allclose(found.path_mm[0], chord, atol=1e-9)


def test_unit_impulse_integrates_to_its_voxel() -> None:
    """Parallel beam on a fine grid: the sum over pixels x pixel area is the voxel's volume."""
    shape, spacing = (9, 9, 9), (1.0, 1.2, 0.8)
    affine = affine_of(spacing, shape, rotation(10, 20))
    field = np.zeros(shape, np.float32)
    field[4, 4, 4] = 1.0
    view = place(
        pose_of("own"), Setup(beam="parallel", size=(300, 300), margin_mm=0), Grid(shape, affine).corners_mm
    )
    image = project(Volume(field, affine), None, view, ["image"], device="cpu").image
    assert image is not None
    assert image.sum(dtype=np.float64) * view.pixel_area_mm2 == pytest.approx(np.prod(spacing), rel=2e-3)


def test_linear_in_attenuation() -> None:
    rng = np.random.default_rng(0)
    shape = (12, 14, 16)
    affine = affine_of((1, 1, 1), shape)
    a, b = (rng.random(shape, dtype=np.float32) for _ in range(2))
    view = place(pose_of("lao"), Setup(size=(40, 40)), Grid(shape, affine).corners_mm)
    image = {k: project(Volume(f, affine), None, view, ["image"], device="cpu").image for k, f in
             {"a": a, "b": b, "both": a + 2 * b}.items()}  # fmt: skip
    np.testing.assert_allclose(image["both"], image["a"] + 2 * image["b"], rtol=2e-6, atol=1e-6)


def test_padding_with_air_changes_nothing() -> None:
    """The image, and the path of every class but the background, do not see air around the volume."""
    rng = np.random.default_rng(1)
    shape = (12, 14, 16)
    affine = affine_of((1.1, 0.9, 1.3), shape)
    field, mask = rng.random(shape, dtype=np.float32), rng.random(shape) < 0.3
    more = affine.copy()
    more[:3, 3] -= affine[:3, :3] @ [3, 3, 3]
    view = place(pose_of("rao"), Setup(size=(40, 40), margin_mm=9), Grid(shape, affine).corners_mm)
    plain = project(Volume(field, affine), one_class(mask, affine), view, ["image", "path"], device="cpu")
    padded = project(
        Volume(np.pad(field, 3), more),
        one_class(np.pad(mask, 3), more),
        view,
        ["image", "path"],
        device="cpu",
    )
    assert plain.image is not None
    np.testing.assert_allclose(padded.image, plain.image, atol=1e-5 * plain.image.max())
    np.testing.assert_allclose(padded.path_mm, plain.path_mm, rtol=1e-5)


def near_a_border(view: View, grid: Grid, tolerance: float = 1e-3) -> np.ndarray:
    """Rays with a sample within `tolerance` voxel of the border between two voxels."""
    from paxray.projection.rays import IndexRays, stepping_axes

    rays = IndexRays.of(view, grid)
    axis = abs(int(stepping_axes(view, grid)[0, 0])) - 1
    pixels, way = rays.pixels(), rays.directions()
    near = np.zeros(view.size, bool)
    for n in range(grid.shape[2 - axis]):
        at = pixels + ((n - pixels[..., axis]) / way[..., axis])[..., None] * way
        for other in range(3):
            if other != axis:
                from_border = np.abs((at[..., other] + 0.5) - np.round(at[..., other] + 0.5))
                near |= from_border < tolerance
    return near


def _all_orientations_agree(mu: Volume, labels: LabelVolume, view: View) -> None:
    first = project(mu, labels, view, ["image", "presence"], device="cpu")
    assert first.image is not None
    assert first.presence is not None
    decided = ~near_a_border(view, mu.grid)
    assert decided.mean() > 0.1
    for axes, flips in orientations():
        field, affine = relaid(mu.array, mu.affine, axes, flips)
        atoms, _ = relaid(labels.atoms, mu.affine, axes, flips)
        other = project(
            Volume(field, affine), labelled(atoms, labels.membership, affine, labels.names), view,  # type: ignore[arg-type]
            ["image", "presence"], device="cpu",
        )  # fmt: skip
        assert np.abs(other.image - first.image).max() <= 1e-5 * first.image.max(), (axes, flips)
        assert other.presence is not None
        different = (other.presence != first.presence).any(axis=-1)
        assert not (different & decided).any(), (axes, flips)


@pytest.mark.parametrize(
    ("name", "beam"),
    [("pa", "cone"), ("lateral_left", "cone"), ("lao", "cone"), ("own", "cone"), ("pa", "parallel")],
)
def test_48_orientations_give_one_picture(name: str, beam: str) -> None:
    """However the voxels lie in memory: the same picture (1e-5 of its maximum) and the same masks."""
    shape = (15, 22, 18)
    affine = affine_of((1.2, 1.2, 1.9), shape, None, (3.3, 1.1, -2.7))
    rng = np.random.default_rng(5)
    mu = Volume(rng.random(shape, dtype=np.float32), affine)
    coarse = rng.integers(0, 5, (5, 8, 6)).repeat(3, 0).repeat(3, 1).repeat(3, 2)[:15, :22, :18]
    labels = labelled(coarse.astype(np.uint16), np.eye(5, dtype=bool)[:, 1:], affine, ("a", "b", "c", "d"))
    setup = Setup(beam=beam, size=(37, 41), sdd_mm=900)  # type: ignore[arg-type]
    view = place(pose_of(name), setup, Grid(shape, affine).corners_mm + [0.013, 0.017, 0.011])
    _all_orientations_agree(mu, labels, view)


@pytest.mark.real
@pytest.mark.slow
def test_48_orientations_of_a_real_chest(real_data: Path) -> None:
    from test_consequences import _chest

    mu, labels = _chest(real_data)
    view = place(pose_of("pa"), Setup(size=(64, 64)), mu.grid.corners_mm + [0.013, 0.017, 0.011])
    _all_orientations_agree(mu, labels, view)


def test_a_known_voxel_lands_on_its_pixel() -> None:
    """One bright voxel: brightest where the matrix puts it, and its mask covers that pixel alone in a coarse view."""
    shape = (20, 24, 28)
    affine = affine_of((2.0, 2.0, 2.5), shape, rotation(12, 7))
    grid = Grid(shape, affine)
    field = np.zeros(shape, np.float32)
    field[13, 6, 21] = 1.0
    for name in POSES:
        view = place(pose_of(name), Setup(size=(100, 100)), grid.corners_mm)
        found = project(
            Volume(field, affine), one_class(field > 0, affine), view, ["image", "facts"], device="cpu"
        )
        assert found.image is not None
        assert found.facts is not None
        expected = view.project_points(grid.to_world([21, 6, 13]))
        row, column = np.unravel_index(int(found.image.argmax()), found.image.shape)
        assert np.abs([column, row] - expected).max() <= 1.5
        fact = found.facts[0]
        mean = np.array([fact["column_sum"], fact["row_sum"]]) / fact["pixels"]
        assert np.abs(mean - expected).max() <= 1.0


def test_incomplete_rays() -> None:
    """A body through all slices: rays that leave it through the ends or into padding are incomplete, others not."""
    shape = (20, 40, 40)
    affine = affine_of((1, 1, 1), shape)
    y, x = np.indices((40, 40)) - 19.5
    body = np.broadcast_to(x**2 + y**2 < 12**2, shape).copy()
    padding = np.zeros(shape, bool)
    padding[:, :, 30:] = True  # cuts the body's left side
    body &= ~padding
    atoms = body.astype(np.uint16) + 2 * padding.astype(np.uint16)
    labels = labelled(atoms, np.array([[0, 0], [1, 0], [0, 1]], bool), affine, ("body", "unscanned"))
    mu = Volume(np.zeros(shape, np.float32), affine)
    parallel = place(
        Pose.named("lateral_left"), Setup(beam="parallel", size=(20, 40), field_mm=40), mu.grid.corners_mm
    )
    found = project(mu, labels, parallel, ["incomplete", "presence"], device="cpu")
    assert found.incomplete is not None
    # Across the body, along x: each ray that meets the cut side runs from body into padding.
    half = np.sqrt(12**2 - 9.5**2)  # the last scanned voxel lies at x = 9.5
    column_y = np.arange(40) - 19.5
    np.testing.assert_array_equal(found.incomplete.any(axis=0), np.abs(column_y) < half)
    frontal = place(Pose.named("pa"), Setup(beam="parallel", size=(20, 40), field_mm=40), mu.grid.corners_mm)
    found = project(mu, labels, frontal, ["incomplete"], device="cpu")
    assert found.incomplete is not None
    assert not found.incomplete.any()  # along y no ray leaves the body but through its skin
    steep = place(Pose("up", 0, 60), Setup(beam="parallel", size=(60, 60)), mu.grid.corners_mm)
    found = project(mu, labels, steep, ["incomplete"], device="cpu")
    assert found.incomplete is not None
    assert found.incomplete.any()  # through the first or last slice


@pytest.mark.parametrize("name", ["pa", "lao", "lateral_left"])
def test_a_body_that_touches_the_detector_is_complete(name: str) -> None:
    """An ellipsoid wholly inside its scan, the detector against it: nothing is missing from any ray."""
    shape = (50, 60, 70)
    affine = affine_of((2.0, 2.0, 2.0), shape)
    z, y, x = (np.indices(shape).astype(float) - np.array([[[24.5]], [[29.5]], [[34.5]]])[:, None]).reshape(
        3, *shape
    )
    body = (x / 28) ** 2 + (y / 22) ** 2 + (z / 19) ** 2 < 1
    labels = labelled(body.astype(np.uint16), np.array([[False], [True]]), affine, ("body",))
    mu = Volume(body.astype(np.float32) * 0.02, affine)
    points = Grid(shape, affine).to_world(np.argwhere(body)[:, ::-1])
    for beam in ("cone", "parallel"):
        view = place(pose_of(name), Setup(beam=beam, size=(128, 128)), points)  # type: ignore[arg-type]
        for options in ({"device": "cpu"}, {"backend": "reference"}):
            found = project(mu, labels, view, ["incomplete", "presence"], **options)  # type: ignore[arg-type]
            assert found.incomplete is not None
            assert found.mask("body").sum() > 1000
            assert not found.incomplete.any()
