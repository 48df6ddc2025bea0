"""The floor of the chest, on shapes whose floor is known, on phantoms' own diaphragms, and on a real chest."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_erosion
from shapes import full, region, turned

from paxray import api
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.recipes import Region, Scene, Underivable, spaces
from paxray.anatomy.recipes.floor import TOUCH_MM, Upright, _harmonic, _sheet, find_floor
from paxray.anatomy.recipes.scene import BACK, UP
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.io.volume import Grid

CATALOG = load_catalog()
VOXEL_MM = np.array([3.0, 2.0, 2.5])  # x, y, z


def chest(shape=(70, 110, 84)):
    """A scene of 252 x 220 x 175 mm and its voxel centres' x, y, z, the origin in its middle."""
    affine = np.diag([*VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (np.array(shape[::-1]) - 1) / 2
    scene = Scene(Grid(shape, affine))
    k, j, i = np.indices(shape)
    return scene, *np.moveaxis(scene.grid.to_world(np.stack([i, j, k], axis=-1)), -1, 0)


def below(scene, lung, **others):
    """What of the whole array lies below."""
    everything = region(np.ones(scene.shape, bool))
    return full(scene, spaces.below(scene, region(lung), everything, **others))


def covered(scene, lung):
    """What of all that is no lung the lung covers."""
    return full(scene, spaces.covered(scene, region(~lung), region(lung)))


def surface(below, z):
    """Height of the highest voxel's centre in each column."""
    return np.where(below, z, -np.inf).max(axis=0)


def test_a_steep_dome_is_followed_to_its_rim():
    """Slopes of up to 60 degrees, steeper than many a wall leans: none is taken for a wall."""
    scene, x, y, z = chest()
    r = np.hypot(x, y)
    dome = 50 - r**2 / 80
    inside = r < 88
    lung = inside & (z > dome)
    found = below(scene, lung)
    assert np.ptp(dome[:, r[0] < 88]) > 90
    assert_array_equal(found[inside], (z <= dome)[inside])


def test_a_dome_covers_what_lies_under_it_to_its_rim():
    """Not the wall around, however far down the lung reaches there."""
    scene, x, y, z = chest()
    inside = np.hypot(x, y) < 88
    below_dome = z <= 50 - np.hypot(x, y) ** 2 / 80
    assert_array_equal(covered(scene, inside & ~below_dome), inside & below_dome)


@pytest.mark.parametrize("lean", [0.3, 1.0])
def test_the_wall_that_a_lung_lies_on_is_not_covered(lean):
    """The floor falls to a recess, behind which the lung rises over the wall: what lies below it there is wall."""
    scene, x, y, z = chest()
    floor, wall = 10 - 0.75 * np.abs(y + 25), -30 + (y - 30) / lean
    lung = (np.abs(x) < 110) & (y < 80) & (z > np.maximum(floor, wall)) & (z < 70)
    found = covered(scene, lung)
    depth_mm = (
        2 * VOXEL_MM[2] * lean + VOXEL_MM[1]
    )  # how far the wall is followed in a slice or two of its height
    middle = np.abs(x) < 50  # whose nearest rim is that behind
    assert_array_equal(found[middle & (y < 28)], (~lung & (z <= floor))[middle & (y < 28)])
    assert not found[middle & (y > 30 + depth_mm)].any()
    assert not found[y > 80].any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    shares=st.tuples(*[st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0])] * 2),
)
def test_whatever_the_masks_what_is_covered_has_something_above(seed, shape, shares):
    rng = np.random.default_rng(seed)
    scene = Scene(Grid(shape, np.diag([*rng.uniform(0.4, 25, 3), 1.0])))
    of, lung = (rng.random(shape) < share for share in shares)
    found = full(scene, spaces.covered(scene, region(of), region(lung)))
    above = np.cumsum(lung[::-1], axis=0)[::-1] > 0
    assert not (found & ~(of & ~lung & above)).any()


@pytest.mark.parametrize("lean", [0.3, 1.0])
def test_a_wall_that_leans_outwards_is_no_floor(lean):
    """The floor falls to the back, where the lung rises over the wall's slope by up to 50 mm: behind, it stays low."""
    scene, x, y, z = chest()
    sides = np.abs(x) < 90
    recess = -30.0
    floor, wall = 10 - 0.75 * np.abs(y + 25), recess + (y - 30) / lean
    lung = sides & (y > -90) & (y < 80) & (z > np.maximum(floor, wall)) & (z < 70)
    found = below(scene, lung)
    depth = surface(found, z)
    before = sides[0] & (y[0] > -90) & (y[0] < 28)
    assert_array_equal(depth[before], surface(z <= floor, z)[before])
    behind = sides[0] & (y[0] > 36) & (y[0] < 100)
    assert depth[behind].max() < recess + 2 * VOXEL_MM[2] + 1
    assert depth[behind].min() > recess - 2 * VOXEL_MM[2]
    assert not (found & lung).any()


@pytest.mark.parametrize("with_roof", [False, True])
def test_under_a_heart_in_its_fat_the_floor_goes_on(with_roof):
    """A ball rests on a plane; fat reaches 18 mm up around it. The lung lies on the fat, and shows the plane beyond."""
    scene, x, y, z = chest()
    r = np.hypot(x - 10, y)
    heart = (r**2 + (z - 40) ** 2) < 40**2
    fat = ~heart & (z > 0) & (z < 18 * (1 - np.clip(r - 40, 0, 25) / 25))
    lung = (z > 0) & ~heart & ~fat
    roof = {"roof": region((z < -4) & (z > -40) & (x < -60))} if with_roof else {}
    depth = surface(below(scene, lung | heart, cushioned=region(heart), **roof), z)
    flat = surface(z <= 0, z)
    assert (np.abs(depth - flat) <= VOXEL_MM[2]).all()  # heights within a slice are one height
    assert_array_equal(depth[r[0] > 66], flat[r[0] > 66])
    if not with_roof:  # and without a word of the heart what lies on the fat is taken for the floor
        high = surface(below(scene, lung | heart), z)
        assert high[(r[0] > 20) & (r[0] < 40)].mean() > 8


def test_a_heart_that_touches_an_organ_tells_the_floor():
    """Where an organ lies no further below it than a diaphragm is thick; else the organ only holds the sheet up."""
    scene, x, y, z = chest()
    r = np.hypot(x, y)
    heart = (r < 30) & (z > 25) & (z < 70)
    lung = (r >= 60) & (z > 0)
    for gap_mm, expected_mm in ((TOUCH_MM - 3, 25), (TOUCH_MM + 8, 25 - TOUCH_MM - 8)):
        roof = region((z < 25 - gap_mm) & (r < 40))
        depth = surface(below(scene, lung | heart, cushioned=region(heart), roof=roof), z)
        assert_array_equal(depth[r[0] < 20], surface(z < expected_mm, z)[r[0] < 20])


def test_no_floor_lies_above_a_heart_that_sinks_below_the_lungs():
    """Where nothing tells how far below the heart the floor is, its underside bounds it."""
    scene, x, y, z = chest()
    r = np.hypot(x, y)
    heart = (r < 30) & (z > -12) & (z < 40)
    found = below(scene, (r >= 60) & (z > 0) | heart, cushioned=region(heart))
    assert_array_equal(found[:, r[0] < 30], (z < -12)[:, r[0] < 30])


def test_a_lung_beside_the_mediastinum_hangs_over():
    """Between two lungs on a plane their inner borders hang over what lies there: no hill rises in the middle."""
    scene, x, _, z = chest()
    lung = (np.abs(x) > 24) & (z > 0) | (np.abs(x) > 9) & (z > 35)
    found = below(scene, lung)
    assert_array_equal(found, z <= 0)


def test_a_roof_of_which_a_part_is_missing_is_no_upper_limit():
    """The right dome stays when only the lower organs of the left are known."""
    scene, x, _, z = chest()
    floor = np.where(x < 0, 40 - np.abs(x + 60) / 4, 5.0)
    lung = z > floor
    spleen = (x > 40) & (z < 0)
    whole, part = region(spleen), region(spleen)
    part = Region(part.box, part.mask, spaces.Status.PARTIAL)
    assert_array_equal(below(scene, lung, roof=part), ~lung)
    assert below(scene, lung, roof=whole).sum() < (~lung).sum()


@pytest.mark.parametrize("absent", [None, Region.nothing()], ids=["unknown", "absent"])
def test_without_roof_and_heart_the_lungs_alone_tell(absent):
    """An abdomen's scan holds no heart, a chest's no organs: what is not there neither bounds nor tells."""
    scene, x, y, z = chest()
    dome = 20 - (x**2 + y**2) / 400
    lung = (np.hypot(x, y) < 88) & (z > dome)
    found = below(scene, lung, roof=absent, cushioned=absent)
    assert_array_equal(found[np.hypot(x, y) < 88], (z <= dome)[np.hypot(x, y) < 88])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    shares=st.tuples(*[st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0])] * 3),
)
def test_whatever_the_masks_nothing_above_is_below_and_all_of_the_roof_is(seed, shape, shares):
    rng = np.random.default_rng(seed)
    scene = Scene(Grid(shape, np.diag([*rng.uniform(0.4, 25, 3), 1.0])))
    lung, roof, heart = (rng.random(shape) < share for share in shares)
    try:
        found = below(scene, lung, roof=region(roof), cushioned=region(heart))
    except Underivable:
        # Nothing lies above, or nothing but what is cushioned, over no roof.
        assert not lung.any() or (heart.any() and not roof.any())
        return
    assert not (found & lung).any()
    assert found[roof & ~lung].all()


@pytest.mark.parametrize("pixel_mm", [(5.0, 5.0), (2.5, 5.0)])
def test_a_sheet_keeps_a_slope_and_goes_on_level(pixel_mm):
    """Laplace's equation: linear between two edges, constant beyond, and nowhere beyond what it is hung from."""
    width = 12
    height = np.full((8, width), np.nan)
    height[:, 2], height[:, 8] = 10.0, 40.0
    expected = np.interp(np.arange(width), [2, 8], [10.0, 40.0])
    assert_allclose(_harmonic(height, list(pixel_mm)), np.broadcast_to(expected, height.shape), atol=1e-9)
    rng = np.random.default_rng(1)
    known = rng.random((60, 70)) < 0.05
    told = np.where(known, rng.normal(0, 30, known.shape), np.nan)
    spanned = _sheet(told, (2.0, 1.5))
    assert_array_equal(spanned[known], told[known])
    assert np.nanmin(told) - 1e-9 <= spanned.min() <= spanned.max() <= np.nanmax(told) + 1e-9


@pytest.mark.parametrize("degrees", [(-75, -30, -40), (-75, -30, 50), (-15, -50, -60)])
def test_however_a_lattice_is_tilted_and_stored_a_map_has_two_axes_of_its_own(degrees):
    """Also where one array axis is the nearest to the head and to the back: turned about z, x and y."""
    about_z, about_x, about_y = degrees
    axes = turned(about_z, (0, 0, 1)) @ turned(about_x, (1, 0, 0)) @ turned(about_y, (0, 1, 0))
    axes = axes @ np.diag([1.0, 1.5, 2.0])
    lung = np.zeros((14, 13, 12), bool)  # as i, j, k, which belong to the columns of `axes`
    lung[4:9, 4:9, 5:9] = True
    lung[4:6, 4:6, 3:5] = True
    outcomes = []
    for order in permutations(range(3)):
        affine = np.eye(4)
        affine[:3, :3] = axes[:, order]
        stored = np.ascontiguousarray(lung.transpose(order).transpose())
        scene = Scene(Grid(stored.shape, affine))
        assert scene.array_axis(UP) == scene.array_axis(BACK), "else the test shows nothing"
        heights = Upright(scene).heights(region(stored), lowest=True)
        assert sorted(heights.shape) == sorted(
            n for at, n in enumerate(stored.shape) if at != scene.long_axis
        )
        found = below(scene, stored)
        assert found.any()
        assert not (found & stored).any()
        outcomes.append(found.transpose().transpose(np.argsort(order)))
    for other in outcomes[1:]:
        assert_array_equal(other, outcomes[0])


def test_nothing_tells_nothing():
    nowhere = np.full((9, 9), np.nan)
    with pytest.raises(Underivable, match="no column"):
        find_floor(nowhere, nowhere, np.zeros((9, 9), bool), (2.0, 2.0), 2.0)


@pytest.mark.parametrize("seed", [7, 23])
def test_a_phantoms_diaphragm_is_found(seed, monkeypatch):
    """Against the surface that the phantom was made from, which no mask shows under the heart."""
    from paxray.phantom import thorax

    fields = []
    paint = thorax.paint_torso
    monkeypatch.setattr(thorax, "paint_torso", lambda *given: fields.append(paint(*given)) or fields[0])
    made = thorax.make_phantom(seed, (4.0, 4.0, 3.0))
    builder = LabelBuilder(made.ct.shape)
    builder.add_label_map(made.labels.array, load_vocabulary("phantom", catalog=CATALOG))
    labels = api.segment(made.ct, builder.finish(made.ct.affine, CATALOG))
    names = ["subdiaphragm", "subdiaphragm_domes", "lungs", "heart", "spine"]
    derived = api.derive(labels, CATALOG, made.ct, names=names)
    found, heart, lungs = (derived.mask(name) for name in ("subdiaphragm", "heart", "lungs"))

    chest = fields[0].cavity < -2.0
    z = np.arange(found.shape[0])[:, None, None] * 3.0
    truth = surface(chest & (fields[0].above_diaphragm < 0), z)
    columns = (chest & (fields[0].above_diaphragm > 0)).any(axis=0)
    columns &= np.isfinite(truth)
    error = np.full(truth.shape, np.nan)
    error[columns] = surface(found, z)[columns] - truth[columns]
    for name, where, rms_mm, off_mm in (
        ("under the heart", heart.any(axis=0), 3.5, 7.0),
        ("beside it", ~heart.any(axis=0), 2.5, 4.0),
    ):
        here = error[where & np.isfinite(error)]
        assert np.sqrt(np.mean(here**2)) < rms_mm, name
        assert np.quantile(np.abs(here), 0.95) < off_mm, name
    assert not (found & (heart | lungs)).any()
    # What a film shows of the lungs, from in front and from the side, against the abdomen that they surround.
    abdomen = (fields[0].cavity < 0) & (fields[0].above_diaphragm < 0) & ~lungs
    for axis in (1, 2):
        bare = lungs.any(axis) & ~(heart | derived.mask("spine")).any(axis)
        true = bare & ~abdomen.any(axis)
        shown, once = (bare & ~derived.mask(name).any(axis) for name in names[1::-1])
        assert (shown ^ true).sum() < 0.01 * true.sum()
        assert (shown ^ true).sum() <= (once ^ true).sum()
    # Behind the lungs, beside the spine, the body below the diaphragm begins no higher than the lungs' recesses there.
    for low, high in ((-100, -40), (40, 100)):
        x = made.ct.grid.to_world(np.argwhere(columns.any(axis=0)) * [1.0, 0, 0])[:, 0]
        side = np.flatnonzero(columns.any(axis=0))[(x > low) & (x < high)]
        for column in side:
            row = np.flatnonzero(columns[:, column]).max()
            last = np.flatnonzero(lungs.any(axis=0)[:, column]).max()
            recess = truth[row - 3 : row + 1, column].max()
            assert surface(found, z)[last + 1 :, column].max() <= recess, (low, column)


@pytest.mark.real
def test_no_hump_rises_over_the_left_dome_of_a_real_chest(real_data):
    """Under and before the heart's apex the surface stays below the dome, and behind the lung at its recess."""
    folder = real_data / "lidc-idri-0001"
    ct = api.read_ct(folder / "ct_2.5mm.nii.gz")
    source = f"{folder / 'totalsegmentator_v2_2.5mm.nii.gz'}=totalsegmentator_v2+118:costal_cartilages"
    labels = api.segment(ct, api.read_masks(source, ct))
    names = ["subdiaphragm_left", "lung_left", "heart", "spleen", "stomach", "liver"]
    made = api.derive(labels, CATALOG, ct, names=names)
    found, lung, heart, *organs = (made.mask(name) for name in names)
    z = np.arange(found.shape[0])[:, None, None] * 2.5
    top, roof = surface(found, z), surface(np.logical_or.reduce(organs), z)
    low = np.where(lung, z, np.inf).min(axis=0)
    on_organs = (low > roof) & (low - roof <= TOUCH_MM + 2.5)
    dome = low[on_organs].max()
    over = lung.any(axis=0) | heart.any(axis=0)
    beside = made.grid.to_world(np.argwhere(over.any(axis=0)) * [1.0, 0, 0])[:, 0] > 20
    left = np.flatnonzero(over.any(axis=0))[beside]
    assert top[:, left].max() <= dome + 2.5
    low_at = np.where(np.isfinite(low), low, np.inf)
    for column in np.flatnonzero(lung.any(axis=(0, 1)))[10:-10]:
        last = np.flatnonzero(lung[:, :, column].any(axis=0)).max()
        recess = low_at[last - 25 :, column].min()
        assert top[last + 1 :, column].max() <= recess + 7.5, column


@pytest.mark.real
def test_a_real_lung_is_visible_beside_the_liver(real_data):
    """From in front, farther out than a diaphragm and some fat around the liver; and nowhere where the liver is."""
    folder = real_data / "lidc-idri-0001"
    ct = api.read_ct(folder / "ct_2.5mm.nii.gz")
    source = f"{folder / 'totalsegmentator_v2_2.5mm.nii.gz'}=totalsegmentator_v2+118:costal_cartilages"
    labels = api.segment(ct, api.read_masks(source, ct))
    names = ["lung_right", "heart", "spine", "liver", "subdiaphragm_domes", "subdiaphragm"]
    made = api.derive(labels, CATALOG, ct, names=names)
    lung, heart, spine, liver, domes, below_all = (made.mask(name).any(axis=1) for name in names)
    seen = lung & ~(heart | spine | domes)
    assert not (seen & binary_erosion(liver, np.ones((3, 3)))).any()
    right_mm = -made.grid.to_world(np.arange(lung.shape[1])[:, None] * [1.0, 0, 0])[:, 0]
    farthest = {
        name: np.where(mask, right_mm, -np.inf).max(axis=1)
        for name, mask in (("lung", lung), ("liver", liver))
    }
    beside = lung & liver.any(axis=1, keepdims=True) & (right_mm > farthest["liver"][:, None] + 5)
    # Lower down the liver lies against the chest wall, and what reaches out beyond it is the recess behind.
    against = np.isfinite(farthest["lung"]) & (farthest["liver"] >= farthest["lung"])
    beside[: np.flatnonzero(against).max() + 1] = False
    assert (beside & below_all).any(), "else the test shows nothing"
    assert not (beside & ~seen).any()
