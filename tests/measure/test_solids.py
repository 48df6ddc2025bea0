"""Volume, surface, HU, centre and extent of shapes that have them in closed form."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_shapes import TURN, ball, box, grid_of, points, volume_of

from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError
from paxray.io.volume import Grid, Volume
from paxray.measure.solids import atom_sums, solids
from paxray.measure.surface import line_weights, surfaces_mm2

LATTICES = [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5), (2.0, 3.0, 4.0), (2.5, 0.7, 0.7)]


def lattice_for(radius: float, spacing: tuple[float, float, float], turn: np.ndarray | None = None) -> Grid:
    shape = tuple(int(2 * radius / s) + 8 for s in spacing[::-1])
    return grid_of(shape, spacing, turn)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", LATTICES)
@pytest.mark.parametrize("turn", [None, TURN], ids=["straight", "turned"])
def test_sphere(spacing: tuple[float, float, float], turn: np.ndarray | None) -> None:
    """Ten voxels of radius along the coarsest axis: surface within 1 %, volume within 1 %."""
    radius = 10 * max(spacing)
    grid = lattice_for(radius, spacing, turn)
    center = (0.3, -0.2, 0.1)
    labels = volume_of(grid, {"liver": ball(grid, center, radius)})
    solid = solids(labels, Volume(np.zeros(grid.shape, np.int16), grid.affine))["liver"]
    assert solid.surface_mm2 == pytest.approx(4 * np.pi * radius**2, rel=0.01)
    assert solid.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)
    np.testing.assert_allclose(solid.centroid_mm, center, atol=0.05 * max(spacing))
    # Extent reaches from outer corner to outer corner of voxels, so by at most a voxel's reach too far.
    reach = np.abs(grid.affine[:3, :3]).sum(axis=1)
    assert (
        np.abs(solid.extent_mm - np.concatenate([center, center]) - np.repeat([-radius, radius], 3))
        <= np.tile(reach, 2)
    ).all()


@pytest.mark.parametrize("spacing", LATTICES)
def test_box(spacing: tuple[float, float, float]) -> None:
    """Volume, centre and extent are exact; each face's area is within the stated error of a plane."""
    grid = grid_of((24, 26, 28), spacing)
    half = np.array([8, 7, 6]) * spacing
    labels = volume_of(grid, {"liver": box(grid, tuple(-half), tuple(half))})
    solid = solids(labels, Volume(np.zeros(grid.shape, np.int16), grid.affine))["liver"]
    assert solid.volume_mm3 == pytest.approx(8 * half.prod(), rel=1e-12)
    np.testing.assert_allclose(solid.extent_mm, [*-half, *half], atol=1e-9)
    np.testing.assert_allclose(solid.centroid_mm, 0, atol=1e-9)
    faces = 8 * (half[0] * half[1] + half[1] * half[2] + half[0] * half[2])
    _, _, error = line_weights(grid)
    # Lines that cross an edge of the box meet it once for two faces: some of the surface at edges is lost.
    edges = 4 * 2 * half.sum() * max(spacing)
    assert (1 - error) * faces - edges < solid.surface_mm2 < (1 + error) * faces


def test_plane_error_is_what_is_stated() -> None:
    """Any plane, by the exact number of lines that cross it: within the bound, and right on average."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for spacing in [*LATTICES, (0.7, 0.7, 5.0), (0.6, 0.7, 0.8)]:
        grid = grid_of((4, 4, 4), spacing)
        steps, area, error = line_weights(grid)
        # Lines along a step: one crosses a plane of area A in A |n . step| / voxel volume places.
        along = steps @ grid.affine[:3, :3].T
        estimate = np.abs(normals @ along.T) @ area / grid.voxel_volume_mm3
        assert np.abs(estimate - 1).max() < error + 2e-3
        assert estimate.mean() == pytest.approx(1, abs=2e-3)
        assert error < 0.08


def test_nothing_depends_on_the_arrays_layout() -> None:
    """All 48 ways to store a volume give one surface, one centre, one extent."""
    rng = np.random.default_rng(3)
    base = rng.random((5, 6, 7)) > 0.5
    affine = np.diag([0.7, 0.9, 2.0, 1.0])
    hu = rng.integers(-1000, 1000, base.shape).astype(np.int16)
    found = []
    for axes in permutations(range(3)):
        for flips in product((1, -1), repeat=3):
            step = tuple(slice(None, None, f) for f in flips)
            mask, values = (np.ascontiguousarray(a.transpose(axes)[step]) for a in (base, hu))
            # Column c of the new affine is the old axis that array axis 2 - c came from.
            new = np.eye(4)
            origin = np.zeros(3)
            for column in range(3):
                old, flip = 2 - axes[2 - column], flips[2 - column]
                new[:3, column] = affine[:3, old] * flip
                if flip < 0:
                    origin[old] = base.shape[2 - old] - 1
            new[:3, 3] = affine[:3, :3] @ origin
            labels = LabelVolume(
                mask.astype(np.uint16), np.array([[False], [True]]), ("a",), new, {"a": Status.PRESENT}
            )
            s = solids(labels, Volume(values, new))["a"]
            found.append([s.volume_mm3, s.surface_mm2, s.hu_mean, s.hu_sd, *s.centroid_mm, *s.extent_mm])
    np.testing.assert_allclose(found, np.tile(found[0], (48, 1)), rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_overlapping_classes_against_numpy(seed: int) -> None:
    """Mean, SD, centre, count: from atoms the same as from each mask alone."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 9, 3))
    grid = grid_of(shape, (0.8, 1.1, 2.3), TURN)  # type: ignore[arg-type]
    masks = {name: rng.random(shape) > 0.6 for name in ("a", "b", "c")}
    for mask in masks.values():
        mask.flat[0] = True
    masks["both"] = masks["a"] | masks["b"]
    hu = rng.normal(0, 500, shape).astype(np.float32)
    found = solids(volume_of(grid, masks), Volume(hu, grid.affine))
    at = points(grid)
    margin = np.abs(grid.affine[:3, :3]).sum(axis=1) / 2
    for name, mask in masks.items():
        inside = hu[mask].astype(float)
        assert found[name].volume_mm3 == pytest.approx(mask.sum() * grid.voxel_volume_mm3)
        assert found[name].hu_mean == pytest.approx(inside.mean(), abs=1e-6)
        assert found[name].hu_sd == pytest.approx(inside.std(), abs=1e-4)
        np.testing.assert_allclose(found[name].centroid_mm, at[mask].mean(axis=0), atol=1e-9)
        expected = np.concatenate([at[mask].min(axis=0) - margin, at[mask].max(axis=0) + margin])
        np.testing.assert_allclose(found[name].extent_mm, expected, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_surface_of_each_class_does_not_depend_on_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(2, 12, 3))
    grid = grid_of(shape, (0.7, 0.7, 2.5))  # type: ignore[arg-type]
    masks = {name: rng.random(shape) > 0.5 for name in ("a", "b")}
    for mask in masks.values():
        mask.flat[0] = True
    together = volume_of(grid, masks)
    surface = surfaces_mm2(together.atoms, together.membership, grid)
    for column, (name, mask) in enumerate(masks.items()):
        alone = volume_of(grid, {name: mask})
        assert surface[column] == pytest.approx(
            surfaces_mm2(alone.atoms, alone.membership, grid)[0], rel=1e-12
        )


def test_a_class_that_fills_the_scan_has_no_surface() -> None:
    grid = grid_of((5, 6, 7))
    labels = volume_of(grid, {"body": np.ones(grid.shape, bool)})
    assert surfaces_mm2(labels.atoms, labels.membership, grid)[0] == 0


def test_background_is_left_out_and_wide_ids_work() -> None:
    grid = grid_of((3, 4, 5))
    labels = volume_of(grid, {"a": np.ones(grid.shape, bool)})
    wide = LabelVolume(
        labels.atoms.astype(np.uint32), labels.membership, labels.names, labels.affine, labels.status
    )
    sums, _, _ = atom_sums(wide, Volume(np.full(grid.shape, 3, np.int16), grid.affine))
    assert sums[0].tolist() == [0] * 6
    assert sums[1, 0] == 60
    assert sums[1, 5] == 9 * 60


def test_another_lattice_is_refused() -> None:
    grid = grid_of((3, 4, 5))
    labels = volume_of(grid, {"a": np.ones(grid.shape, bool)})
    with pytest.raises(CaseError) as caught:
        solids(labels, Volume(np.zeros((3, 4, 6), np.int16), grid.affine))
    assert caught.value.code == "mask_mismatch"
