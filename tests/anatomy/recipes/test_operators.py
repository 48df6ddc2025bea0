"""Each operator on shapes with a known answer, on lattices of every kind."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage
from scipy.spatial.distance import cdist
from shapes import KINDS, ball, box, full, lattice, region, world

from paxray.anatomy.labels import Status
from paxray.anatomy.recipes import (
    Level,
    Region,
    Scene,
    Underivable,
    bits,
    cuts,
    morphology,
    pieces,
    sets,
    spaces,
    tubes,
)
from paxray.io.volume import Grid


@pytest.fixture(params=KINDS)
def scene(request):
    return Scene(lattice(request.param))


def nearest_mm(scene, target):
    """Brute force: distance of every voxel centre to the nearest of the target, rounded to 1e-6 mm."""
    at, of = world(scene.grid).reshape(-1, 3), world(scene.grid)[target & ndimage.binary_dilation(~target)]
    if len(of) == 0:
        of = world(scene.grid)[target]
    squares = [cdist(part, of, "sqeuclidean").min(axis=1) for part in np.array_split(at, 32)]
    distance = np.sqrt(np.concatenate(squares)).round(6).reshape(scene.shape)
    distance[target] = 0  # only the target's border was compared with
    return distance


# Sets


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4), fill=st.sampled_from([0.0, 0.002, 0.3]))
def test_set_operators_are_those_of_numpy(seed, n, fill):
    rng = np.random.default_rng(seed)
    scene = Scene(lattice("even", (5, 6, 7)))
    masks = [rng.random(scene.shape) < fill for _ in range(n)]
    regions = [region(mask) for mask in masks]
    assert_array_equal(full(scene, sets.union(scene, regions)), np.logical_or.reduce(masks))
    assert_array_equal(full(scene, sets.intersection(scene, regions)), np.logical_and.reduce(masks))
    rest = sets.difference(scene, regions[0], regions[1:])
    assert_array_equal(
        full(scene, rest), masks[0] & ~np.logical_or.reduce([*masks[1:], np.zeros(scene.shape, bool)])
    )


def test_a_union_knows_what_is_unknown():
    scene, some = Scene(lattice("even")), region(ball(lattice("even"), 3))
    unknown = Region.nothing(Status.UNKNOWN, "nothing looked for 'x'")
    assert sets.union(scene, [some, unknown]).status is Status.PARTIAL
    assert sets.union(scene, [Region.nothing(), unknown]).status is Status.UNKNOWN
    assert sets.union(scene, [Region.nothing(), Region.nothing()]).status is Status.ABSENT


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_hu_windows_hold_their_ends(dtype):
    grid = lattice("even", (1, 2, 5))
    hu = np.array([[[-1000, -31, -30, 129, 130], [131, 400, 401, 0, 0]]], dtype)
    scene = Scene(grid, hu)
    everything = region(np.ones(grid.shape, bool))
    assert sets.hu_window(scene, everything, 130, 400).count() == 3
    assert sets.hu_window(scene, everything, from_hu=130).count() == 4
    assert sets.hu_window(scene, everything, to_hu=-30).count() == 3
    assert sets.hu_window(scene, everything, 129.5, 130.5).count() == 1
    with pytest.raises(Underivable, match="HU"):
        sets.hu_window(Scene(grid), everything, 0, 1)


# Morphology


@pytest.mark.parametrize("by_mm", [0.5, 2.0, 4.7])
def test_dilate_and_erode_go_by_distance(scene, by_mm):
    mask = ball(scene.grid, 7) & ~ball(scene.grid, 4, (3, 0, 0))
    of = region(mask)
    assert_array_equal(full(scene, morphology.dilate(scene, of, by_mm)), nearest_mm(scene, mask) <= by_mm)
    assert_array_equal(
        full(scene, morphology.erode(scene, of, by_mm)), mask & (nearest_mm(scene, ~mask) > by_mm)
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    by_mm=st.floats(0.3, 90),
    columns=st.sampled_from([1, 9, 64, 65, 200]),
)
def test_rows_of_bits_and_distances_agree(seed, kind, by_mm, columns):
    """Both ways to what lies within a distance, also over many words of bits and farther than the array is wide."""
    scene = Scene(lattice(kind, (3, 4, columns)))
    mask = np.random.default_rng(seed).random(scene.shape) < 3 / columns
    rows = bits.ball_rows(scene.grid.affine[:3, :3], by_mm, scene.margin(by_mm))
    distance = scene.distance_mm(mask, by_mm)
    assume(np.abs(distance - by_mm).min() > 1e-4)  # float32 does not decide ties
    assert_array_equal(bits.dilate_by_rows(mask, rows), distance <= by_mm)


def test_distances_finer_than_a_voxel_say_so():
    scene = Scene(lattice("uneven"))
    (note,) = morphology.dilate(scene, region(ball(scene.grid, 5)), 0.4).notes
    assert "0.4 mm" in note
    assert not morphology.dilate(scene, region(ball(scene.grid, 5)), 1.0).notes


@pytest.mark.parametrize("where", ["inside", "outside", "both"])
def test_a_shell_thinner_than_a_voxel_says_so(where):
    """Of a lattice of 0.9 x 1.1 x 1.7 mm, the longest edge counts."""
    scene = Scene(lattice("uneven"))
    of = region(ball(scene.grid, 5))
    (note,) = morphology.shell(scene, of, 1.6, where).notes
    assert note == "a shell of 1.6 mm is thinner than a voxel of 1.7 mm: its volume means little"
    assert not morphology.shell(scene, of, 1.7, where).notes


def test_a_dilated_ball_is_a_larger_ball(scene):
    """Closed form: within a voxel's reach of both radii."""
    grown = full(scene, morphology.dilate(scene, region(ball(scene.grid, 6)), 5))
    reach = max(scene.grid.spacing_mm) * 1.1
    assert (grown >= ball(scene.grid, 11 - reach)).all()
    assert (grown <= ball(scene.grid, 11)).all()


def test_opening_and_closing(scene):
    solid, thin = box(scene.grid, (-9, -9, -9), (3, 9, 9)), box(scene.grid, (3, -0.6, -9), (9, 0.6, 9))
    opened = full(scene, morphology.open_(scene, region(solid | thin), 3))
    assert not (opened & ~(solid | thin)).any()
    assert not (opened & (world(scene.grid)[..., 0] > 6)).any()
    assert opened[box(scene.grid, (-5, -5, -5), (-1, 5, 5))].all()
    halves = box(scene.grid, (-12, -8, -8), (-1.2, 8, 8)) | box(scene.grid, (1.2, -8, -8), (12, 8, 8))
    closed = full(scene, morphology.close(scene, region(halves), 4))
    assert (closed >= halves).all()
    assert closed[box(scene.grid, (-2, -4, -4), (2, 4, 4))].all()


def test_beyond_the_scan_a_region_goes_on():
    scene = Scene(lattice("even", (12, 12, 12)))
    everything = region(np.ones(scene.shape, bool))
    assert morphology.erode(scene, everything, 3).count() == 12**3
    assert morphology.shell(scene, everything, 3).empty
    circle = world(scene.grid)[..., 0] > 2  # not reconstructed
    seen = Scene(scene.grid, unscanned=region(circle))
    assert morphology.erode(seen, region(~circle), 3).count() == (~circle).sum()
    assert morphology.erode(scene, region(~circle), 3).count() < (~circle).sum()
    assert morphology.shell(seen, region(~circle), 2, "outside").empty


@pytest.mark.parametrize("thickness_mm", [0.3, 3.0])
def test_a_shell_lies_on_its_side_of_the_surface(scene, thickness_mm):
    mask = ball(scene.grid, 9)
    of = region(mask)
    inside = full(scene, morphology.shell(scene, of, thickness_mm, "inside"))
    outside = full(scene, morphology.shell(scene, of, thickness_mm, "outside"))
    touching = mask & ndimage.binary_dilation(~mask)
    assert_array_equal(inside, touching | (mask & (nearest_mm(scene, ~mask) <= thickness_mm)))
    touched = ~mask & ndimage.binary_dilation(mask)
    assert_array_equal(outside, touched | (~mask & (nearest_mm(scene, mask) <= thickness_mm)))
    assert_array_equal(full(scene, morphology.shell(scene, of, thickness_mm, "both")), inside | outside)


def test_near(scene):
    a, b = box(scene.grid, (-12, -5, -5), (0, 5, 5)), box(scene.grid, (4, -5, -5), (12, 5, 5))
    found = full(scene, morphology.near(scene, region(a), region(b), 7))
    assert_array_equal(found, a & (nearest_mm(scene, b) <= 7))
    assert morphology.near(scene, region(a), Region.nothing(), 7).empty


def test_nearest_of_is_a_partition(scene):
    of = region(box(scene.grid, (-10, -10, -10), (10, 10, 10)))
    seeds = [region(ball(scene.grid, 3, at)) for at in ((-6, 0, 0), (6, 0, 0), (0, 7, 0))] + [
        Region.nothing()
    ]
    cells = [full(scene, morphology.nearest_of(scene, of, seeds, seed)) for seed in seeds]
    assert_array_equal(sum(cell.astype(int) for cell in cells), full(scene, of).astype(int))
    distances = [nearest_mm(scene, full(scene, seed)) for seed in seeds[:3]]
    for n, cell in enumerate(cells[:3]):
        assert (distances[n][cell] <= np.min(distances, axis=0)[cell] + 1e-4).all()
    assert not cells[3].any()
    with pytest.raises(Underivable, match="to"):
        morphology.nearest_of(scene, of, seeds, of)


# Pieces, holes, hulls


def test_components_by_size(scene):
    balls = [ball(scene.grid, r, at) for r, at in ((7, (-8, 0, 0)), (5, (8, 0, 0)), (2, (0, 14, 0)))]
    of = region(np.logical_or.reduce(balls))
    for n, expected in enumerate(balls, start=1):
        assert_array_equal(full(scene, pieces.component(scene, of, n)), expected)
    assert pieces.component(scene, of, 4).empty
    assert_array_equal(full(scene, pieces.largest(scene, of)), balls[0])
    least = balls[1].sum() * scene.voxel_mm3
    assert_array_equal(full(scene, pieces.drop_small(scene, of, least)), balls[0] | balls[1])
    assert_array_equal(full(scene, pieces.drop_small(scene, of, least * 1.001)), balls[0])


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert pieces.largest(Scene(lattice("even", (2, 2, 2))), region(mask)).count() == 2


def test_fill():
    scene = Scene(lattice("permuted"))
    hollow = ball(scene.grid, 10) & ~ball(scene.grid, 6)
    assert_array_equal(full(scene, pieces.fill(scene, region(hollow))), ball(scene.grid, 10))
    at = world(scene.grid)
    radius = np.hypot(at[..., 0], at[..., 1])  # a tube along the patient is open at its ends
    tube = (radius < 9) & (radius > 5)
    assert_array_equal(full(scene, pieces.fill(scene, region(tube))), tube)
    assert_array_equal(full(scene, pieces.fill(scene, region(tube), "axial")), radius < 9)
    assert_array_equal(full(scene, pieces.fill(scene, region(tube), "coronal")), tube)


def test_the_hull_of_convex_shapes_is_themselves(scene):
    for mask in (ball(scene.grid, 9), box(scene.grid, (-8, -5, -6), (9, 7, 3))):
        for per in ("volume", "axial", "sagittal"):
            assert_array_equal(full(scene, pieces.hull(scene, region(mask), per)), mask)


def test_hulls_of_two_boxes():
    scene = Scene(lattice("uneven"))
    two = box(scene.grid, (-12, -6, -6), (-7, 6, 6)) | box(scene.grid, (7, -6, -6), (12, 6, 6))
    whole = box(scene.grid, (-12, -6, -6), (12, 6, 6))
    for per in ("volume", "axial", "coronal"):
        assert_array_equal(full(scene, pieces.hull(scene, region(two), per)), whole)
    assert_array_equal(full(scene, pieces.hull(scene, region(two), "sagittal")), two)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_hull_2d_is_the_convex_hull(seed):
    from scipy.spatial import ConvexHull, QhullError

    rng = np.random.default_rng(seed)
    plane = rng.random((9, 11)) < 0.08
    points = np.argwhere(plane)
    try:
        equations = ConvexHull(points).equations if len(points) > 2 else None
    except QhullError:
        equations = None
    assume(equations is not None)  # fewer than three points, or points on a line: the next test
    every = np.argwhere(np.ones(plane.shape, bool))
    inside = (every @ equations[:, :2].T + equations[:, 2] <= 1e-9).all(axis=1).reshape(plane.shape)
    assert_array_equal(pieces.hull_2d(plane), inside)


def test_hull_2d_of_lines():
    line = np.zeros((5, 5), bool)
    line[0, 0] = line[4, 4] = True
    assert_array_equal(pieces.hull_2d(line), np.eye(5, dtype=bool))
    assert_array_equal(pieces.hull_2d(line[:1]), line[:1])
    assert not pieces.hull_2d(np.zeros((3, 3), bool)).any()


# Cuts


@pytest.mark.parametrize(
    ("keep", "axis", "upper"),
    [("above", 2, True), ("below", 2, False), ("behind", 1, True), ("in_front_of", 1, False)]
    + [("left_of", 0, True), ("right_of", 0, False)],
)
def test_split_goes_by_world_coordinates(scene, keep, axis, upper):
    mask = ball(scene.grid, 10)
    found = full(scene, cuts.split(scene, region(mask), keep, Level("at_mm", None, 1.37)))
    beyond = world(scene.grid)[..., axis] >= 1.37
    assert_array_equal(found, mask & (beyond if upper else ~beyond))


def test_levels_are_outer_faces(scene):
    of, landmark = region(ball(scene.grid, 11)), region(ball(scene.grid, 4, (0, 0, 2)))
    above = full(scene, cuts.split(scene, of, "above", Level("bottom_of", landmark)))
    assert (above >= full(scene, landmark)).all()
    higher = full(scene, cuts.split(scene, of, "above", Level("top_of", landmark)))
    assert not (higher & full(scene, landmark)).any()
    lower = full(scene, cuts.split(scene, of, "below", Level("bottom_of", landmark, 3.0)))
    edge = cuts.position_mm(scene, Level("bottom_of", landmark), (0, 0, 1))
    assert edge == pytest.approx(-2, abs=2 * max(scene.grid.spacing_mm))
    assert_array_equal(lower, full(scene, of) & (world(scene.grid)[..., 2] < edge + 3))
    middle = cuts.position_mm(scene, Level("centre_of", landmark), (0, 0, 1))
    assert middle == pytest.approx(2, abs=0.5 * max(scene.grid.spacing_mm))


def test_levels_that_cannot_be():
    scene = Scene(lattice("even"))
    of = region(ball(scene.grid, 9))
    with pytest.raises(Underivable, match="not in the scan"):
        cuts.split(scene, of, "above", Level("top_of", Region.nothing()))
    with pytest.raises(Underivable, match="front and back"):
        cuts.split(scene, of, "above", Level("front_of", of))
    with pytest.raises(Underivable, match="wrong order"):
        cuts.slab(scene, of, Level("at_mm", None, 3), Level("at_mm", None, -3))


def test_slabs_partition(scene):
    of = region(ball(scene.grid, 12))
    edges = [-99.0, -4.0, 0.3, 5.0, 99.0]
    for along, axis in (("up", 2), ("back", 1), ("left", 0)):
        parts = [
            full(scene, cuts.slab(scene, of, Level("at_mm", None, a), Level("at_mm", None, b), along))
            for a, b in itertools.pairwise(edges)
        ]
        assert_array_equal(sum(part.astype(int) for part in parts), full(scene, of).astype(int))
        assert (world(scene.grid)[..., axis][parts[1]] < 0.3).all()


def leaning_body(grid, degrees=8.0, shift=4.0):
    """Spine and sternum on one plane that leans: x = shift + slope y."""
    at = world(grid)
    slope = np.tan(np.radians(degrees))
    across = at[..., 0] - shift - slope * at[..., 1]
    column = np.abs(across) < 3
    return (
        column & (at[..., 1] > 6) & (at[..., 1] < 14),
        column & (at[..., 1] < -8) & (at[..., 1] > -14),
        slope,
    )


@pytest.mark.parametrize("kind", ["even", "uneven", "oblique", "flipped", "permuted"])
def test_the_midline_is_the_bodys_own(kind):
    scene = Scene(lattice(kind))
    spine, sternum, slope = leaning_body(scene.grid)
    plane = cuts.fit_midline(scene, region(spine), region(sternum))
    expected = np.array([1, -slope, 0]) / np.hypot(1, slope)
    assert np.degrees(np.arccos(plane.normal @ expected)) < 3
    assert plane.note == ""
    of = region(ball(scene.grid, 12))
    left, right = (
        full(scene, cuts.side(scene, of, side, region(spine), region(sternum))) for side in ("left", "right")
    )
    assert not (left & right).any()
    assert_array_equal(left | right, full(scene, of))
    across = world(scene.grid) @ expected - 4 * expected[0]
    assert across[left].min() > -1.0
    assert across[right].max() < 1.0


def test_the_midline_falls_back_and_says_so():
    scene = Scene(lattice("uneven"))
    spine, sternum, _ = leaning_body(scene.grid, degrees=0)
    of = region(ball(scene.grid, 12))
    for found_in, word in (((region(spine), None), "spine"), ((None, region(sternum)), "sternum")):
        found = cuts.side(scene, of, "left", *found_in)
        assert f"from the {word} alone" in found.notes[0]
        assert world(scene.grid)[..., 0][full(scene, found)].min() == pytest.approx(4, abs=1)
    with pytest.raises(Underivable, match="neither"):
        cuts.side(scene, of, "left", None, None)
    with pytest.raises(Underivable, match="neither"):
        cuts.side(scene, of, "left", Region.nothing(), None)
    spine, sternum, _ = leaning_body(scene.grid, degrees=40)
    with pytest.raises(Underivable, match="degrees"):
        cuts.side(scene, of, "left", region(spine), region(sternum))


# Structures with a course


def forked(grid, at_z=2.0, gap=3.0):
    """A tube down the patient that forks in two at a height: an inverted Y, its legs apart from each other."""
    at = world(grid)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    trunk = (np.hypot(x, y) < 4) & (z >= at_z)
    legs = (np.hypot(np.abs(x) - gap - 3, y) < 3) & (z < at_z)
    return trunk | legs


@pytest.mark.parametrize("kind", ["even", "uneven", "flipped", "permuted"])
def test_the_carina_is_where_the_airway_forks(kind):
    scene = Scene(lattice(kind, (48, 48, 48)))
    airway = region(forked(scene.grid))
    x, y, z = tubes.carina_mm(scene, airway)
    assert (x, y) == pytest.approx((0, 0), abs=1.2)
    assert z == pytest.approx(2, abs=max(scene.grid.spacing_mm))
    parts = [
        full(scene, tubes.trachea_part(scene, airway, part)) for part in ("above", "bifurcation", "beyond")
    ]
    assert_array_equal(sum(part.astype(int) for part in parts), full(scene, airway).astype(int))
    height = world(scene.grid)[..., 2]
    assert height[parts[0]].min() == pytest.approx(z + 10, abs=2)
    assert height[parts[1]].max() < z + 10
    assert cuts.position_mm(scene, Level("carina_of", airway), (0, 0, 1)) == z


def test_an_airway_without_a_fork_has_no_carina():
    scene = Scene(lattice("even"))
    at = world(scene.grid)
    tube = np.hypot(at[..., 0], at[..., 1]) < 4
    speck = (np.abs(at - [10, 0, 0]) < 1).all(axis=-1)
    with pytest.raises(Underivable, match="carina"):
        tubes.trachea_part(scene, region(tube | speck), "above")


def cane(grid):
    """A walking stick of an aorta: rising in front, an arch, descending behind; bend above z = 6."""
    at = world(grid)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    front = (np.hypot(x, y + 8) < 3) & (z < 6) & (z > -8)
    back = (np.hypot(x, y - 8) < 3) & (z < 6)
    bend = np.hypot(np.hypot(y, z - 6) - 8, x) < 3
    return front, back, bend & (z >= 6)


@pytest.mark.parametrize("kind", ["even", "uneven", "flipped", "permuted"])
def test_the_aorta_in_three(kind):
    scene = Scene(lattice(kind, (48, 48, 48)))
    front, back, bend = cane(scene.grid)
    aorta = region(front | back | bend)
    ascending, arch, descending = (
        full(scene, tubes.aorta_part(scene, aorta, part)) for part in ("ascending", "arch", "descending")
    )
    assert_array_equal(ascending.astype(int) + arch + descending, full(scene, aorta).astype(int))
    # The bend's two legs are apart up to 8 - 3 = 5 mm above its centre.
    at = world(scene.grid)
    assert at[arch][:, 2].min() == pytest.approx(11, abs=2)
    assert (ascending >= front).all()
    assert (descending >= back).all()
    assert at[ascending][:, 1].max() < 0 < at[descending][:, 1].min()


def test_stumps_of_branches_above_the_arch_are_not_its_limbs():
    scene = Scene(lattice("even", (64, 64, 48)))
    grid = scene.grid
    at = world(grid)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    limbs = (np.hypot(x, np.abs(y) - 14) < 7) & (z < 0)
    bend = (np.hypot(np.hypot(y, z) - 14, x) < 7) & (z >= 0)
    stumps = (np.hypot(x, np.abs(y) - 5) < 3) & (z > 15) & (z < 30)
    parts = {
        part: full(scene, tubes.aorta_part(scene, region(limbs | bend | stumps), part))
        for part in ("ascending", "arch", "descending")
    }
    assert parts["arch"][stumps].all()
    assert z[parts["arch"]].min() == pytest.approx(7, abs=2)
    assert y[parts["ascending"]].max() < 0 < y[parts["descending"]].min()


def test_an_aorta_without_a_bend_cannot_be_divided():
    scene = Scene(lattice("even"))
    with pytest.raises(Underivable, match="aorta"):
        tubes.aorta_part(scene, region(cane(scene.grid)[1]), "arch")


def rib(grid, radius=14.0, gap=False):
    """A horizontal half ring on the left, from behind to the front, beside a spine; its turn is at y = 0."""
    at = world(grid)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    ring = (np.abs(np.hypot(x, y) - radius) < 1.6) & (np.abs(z) < 2) & (x > 1)
    if gap:
        ring &= ~(np.abs(y + 9) < 1.5)
    spine = np.hypot(x + 2, y - radius) < 3
    return ring, spine


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("kind", ["even", "oblique", "permuted", "sheared"])
def test_a_rib_is_cut_where_it_turns(kind, gap):
    scene = Scene(lattice(kind, (44, 44, 44)))
    ring, spine = rib(scene.grid, gap=gap)
    posterior, anterior = (
        full(scene, tubes.course(scene, region(ring), part, region(spine), None))
        for part in ("posterior", "anterior")
    )
    assert_array_equal(posterior.astype(int) + anterior, ring.astype(int))
    y = world(scene.grid)[..., 1]
    assert y[posterior].min() > -4.5
    assert y[anterior].max() < 4.5


def test_a_rib_that_does_not_turn_has_no_anterior_part():
    scene = Scene(lattice("even", (44, 44, 44)))
    ring, spine = rib(scene.grid)
    short = ring & (world(scene.grid)[..., 1] > 6)
    assert tubes.course(scene, region(short), "anterior", region(spine), None).empty
    with pytest.raises(Underivable, match="spine"):
        tubes.course(scene, region(ring), "anterior", Region.nothing(), None)


@pytest.mark.parametrize("kind", ["even", "uneven", "oblique", "sheared"])
def test_the_way_along_a_half_ring_is_its_arc(kind):
    scene = Scene(lattice(kind, (44, 44, 44)))
    ring, spine = rib(scene.grid)
    of = region(ring)
    along = tubes.course_mm(scene, of, region(spine))
    at = scene.world(of)
    arc = np.arctan2(at[:, 0], at[:, 1]) * 14
    apart = along - arc
    # Steps to 26 neighbours are a tenth longer than the arc at worst, and the inner edge is shorter.
    assert np.percentile(np.abs(apart - np.median(apart)), 95) < 0.12 * 14 * np.pi


# Spaces


def test_between_two_boxes():
    scene = Scene(lattice("uneven"))
    a, b = box(scene.grid, (-14, -6, -6), (-5, 6, 6)), box(scene.grid, (5, -6, -6), (14, 6, 12))
    everything = region(np.ones(scene.shape, bool))
    found = full(scene, spaces.between(scene, [region(a), region(b)], everything))
    assert_array_equal(found, box(scene.grid, (-5, -6, -6), (5, 6, 6)) & ~a & ~b)
    assert spaces.between(scene, [region(a), Region.nothing()], everything).empty


def dome(grid):
    """Two domes under two lungs: z = 4 - r^2 / 20 about x = -9 and 9."""
    at = world(grid)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    surface = 4 - ((np.abs(x) - 9) ** 2 + y**2) / 20
    lung = (np.hypot(np.abs(x) - 9, y) < 7) & (z > surface)
    return lung, surface


@pytest.mark.parametrize("kind", ["even", "uneven", "flipped", "permuted"])
def test_below_the_lungs(kind):
    scene = Scene(lattice(kind, (44, 44, 44)))
    lung, surface = dome(scene.grid)
    everything = np.ones(scene.shape, bool)
    found = full(scene, spaces.below(scene, region(lung), region(everything)))
    height = world(scene.grid)[..., 2]
    under = np.zeros(scene.shape, bool)
    at = world(scene.grid)
    column = np.hypot(np.abs(at[..., 0]) - 9, at[..., 1]) < 7
    under[column] = height[column] <= surface[column]
    assert_array_equal(found & column, under)
    # Between the lungs the floor is interpolated, beside them it goes on; all below the lungs' lowest rim is below.
    assert found[height < surface[column].min() - 3].all()
    assert not found[height > 5].any()


def test_below_does_not_depend_on_how_the_array_is_stored():
    """All 48 memory layouts of one uneven lattice, a ragged floor, gaps in it, and a heart."""
    rng = np.random.default_rng(4)
    shape, spacing = (17, 22, 26), np.diag([3.0, 2.5, 4.0])
    masks = [rng.random(shape) < 0.02, *(np.full(shape, full) for full in (True, False, False))]
    masks[0][:, 5:14, 11:19] = False
    masks[2][4:7, 7:11, 12:16] = True
    masks[3][10:14, 2:6, 3:9] = True
    expected = None
    for order in itertools.permutations(range(3)):
        for ways in itertools.product((1, -1), repeat=3):
            stored = [mask.transpose(order)[tuple(slice(None, None, way) for way in ways)] for mask in masks]
            affine = np.eye(4)
            # Column c of the affine is the step along array axis 2 - c, which was axis `order[2 - c]`.
            for axis, (old, way) in enumerate(zip(order, ways, strict=True)):
                affine[:3, 2 - axis] = spacing[:, 2 - old] * way
                affine[:3, 3] += spacing[:, 2 - old] * (shape[old] - 1) * (way < 0)
            scene = Scene(Grid(stored[0].shape, affine))
            lung, body, roof, heart = map(region, stored)
            made = full(scene, spaces.below(scene, lung, body, roof, heart))
            made = made[tuple(slice(None, None, way) for way in ways)].transpose(np.argsort(order))
            expected = made if expected is None else expected
            assert_array_equal(made, expected)
    assert 0 < expected.sum() < expected.size


def test_a_lung_that_hangs_over_has_no_floor_there():
    """A lung with a ledge over the spine's curve: the ledge is no diaphragm."""
    scene = Scene(lattice("even", (80, 60, 60)))
    at = world(scene.grid)
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    lung = (np.abs(x) < 20) & (y > -20) & (y < 10) & (z > -20)
    ledge = (np.abs(x) < 20) & (y >= 10) & (y < 18) & (z > 25)
    body = np.ones(scene.shape, bool)
    found = full(scene, spaces.below(scene, region(lung | ledge), region(body)))
    assert not found[(z > -15)].any()
    assert found[z < -25].all()


def test_a_roof_lowers_the_floor():
    """Where lung and liver do not meet, what lies on the liver counts."""
    scene = Scene(lattice("even", (80, 40, 40)))
    at = world(scene.grid)
    z = at[..., 2]
    lung = z > 35  # hangs high over something else
    liver = (z < 0) & (np.abs(at[..., 0]) < 10)
    found = full(scene, spaces.below(scene, region(lung), region(~lung), region(liver)))
    assert_array_equal(found, z < 0)


def test_the_flank_of_a_roof_is_no_floor():
    """An organ with a foot 40 mm below its top, and a column beside the lung that meets the foot alone."""
    scene = Scene(lattice("even", (80, 40, 40)))
    at = world(scene.grid)
    x, z = at[..., 0], at[..., 2]
    lung = (z > 0) & (np.abs(x) > 6)
    organ = (z < -2) & (x < 0) | (z < -30) & (x < 12)
    found = full(scene, spaces.below(scene, region(lung), region(~lung), region(organ)))
    lowest_hole = z[~found & (z < 0)]
    assert not lowest_hole.size or lowest_hole.min() > -3


def test_nothing_lies_below_what_is_not_there():
    scene = Scene(lattice("even"))
    with pytest.raises(Underivable, match="not in the scan"):
        spaces.below(scene, Region.nothing(), region(np.ones(scene.shape, bool)))


@pytest.mark.parametrize("kind", ["even", "uneven", "permuted"])
def test_compartments_partition_the_mediastinum(kind):
    scene = Scene(lattice(kind, (44, 44, 44)))
    whole = box(scene.grid, (-10, -16, -14), (10, 16, 14))
    heart = box(scene.grid, (-6, -5, -14), (6, 5, 14))
    spine = box(scene.grid, (-4, 2, -20), (4, 20, 20)) & ~heart
    beside = whole & ~spine
    parts = {
        part: full(
            scene,
            spaces.mediastinal_compartment(scene, region(beside), part, [region(heart)], region(spine)),
        )
        for part in ("anterior", "middle", "posterior")
    }
    assert_array_equal(sum(part.astype(int) for part in parts.values()), beside.astype(int))
    y = world(scene.grid)[..., 1]
    front_of_heart, front_of_spine = y[heart].min(), y[spine].min()
    assert y[parts["anterior"]].max() < front_of_heart
    assert y[parts["posterior"]].min() >= front_of_spine + 10
    assert (parts["middle"] >= (heart & beside)).all()


def test_operators_take_what_is_empty():
    """Nothing comes of nothing, without a landmark being asked for."""
    scene, none = Scene(lattice("even")), Region.nothing()
    level = Level("top_of", none)
    for found in (
        morphology.dilate(scene, none, 2),
        morphology.erode(scene, none, 2),
        morphology.open_(scene, none, 2),
        morphology.close(scene, none, 2),
        morphology.shell(scene, none, 2),
        pieces.fill(scene, none),
        pieces.largest(scene, none),
        pieces.hull(scene, none, "volume"),
        cuts.split(scene, none, "above", level),
        cuts.slab(scene, none, level, level),
        cuts.side(scene, none, "left", None, None),
        tubes.aorta_part(scene, none, "arch"),
        tubes.course(scene, none, "anterior", none, None),
        sets.hu_window(scene, none, 0, 1),
    ):
        assert found.empty
