"""The shipped recipes and the example packs on a real chest and on phantoms."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label
from typer.testing import CliRunner

from paxray import api
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.reach import reachable
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.io.volume import Volume

PACKS = sorted((Path(__file__).parents[3] / "pipelines" / "classes").glob("*.yaml"))
CATALOG = load_catalog()
DERIVED = [name for name in CATALOG if CATALOG[name].recipe is not None]


@pytest.fixture(scope="module")
def chest(real_data):
    """CT and drawn masks with the body, 2.5 mm."""
    folder = real_data / "lidc-idri-0001"
    ct = api.read_ct(folder / "ct_2.5mm.nii.gz")
    source = f"{folder / 'totalsegmentator_v2_2.5mm.nii.gz'}=totalsegmentator_v2+118:costal_cartilages"
    return ct, api.segment(ct, api.read_masks(source, ct))


@pytest.fixture(scope="module")
def phantom():
    from paxray.phantom.thorax import make_phantom

    made = make_phantom(3, (3.0, 3.0, 3.0))
    builder = LabelBuilder(made.ct.shape)
    builder.add_label_map(made.labels.array, load_vocabulary("phantom", catalog=CATALOG))
    return made.ct, api.segment(made.ct, builder.finish(made.ct.affine, CATALOG))


@pytest.fixture(scope="module", params=["phantom", pytest.param("chest", marks=pytest.mark.real)])
def derived(request):
    ct, labels = request.getfixturevalue(request.param)
    return api.derive(labels, CATALOG, ct)


@pytest.mark.parametrize(("order", "ways"), [((1, 0, 2), (-1, 1, 1)), ((2, 1, 0), (1, -1, -1))])
def test_how_the_array_is_stored_changes_no_class(phantom, order, ways):
    """Every derived class of a phantom, in two other memory layouts."""
    ct, labels = phantom
    expected = api.derive(labels, CATALOG, ct)

    def stored(array):
        return np.ascontiguousarray(array.transpose(order)[tuple(slice(None, None, way) for way in ways)])

    affine = labels.affine.copy()
    for axis, (old, way) in enumerate(zip(order, ways, strict=True)):
        step = labels.affine[:3, 2 - old]
        affine[:3, 2 - axis] = step * way
        affine[:3, 3] += step * (labels.shape[old] - 1) * (way < 0)
    turned = LabelVolume(stored(labels.atoms), labels.membership, labels.names, affine, labels.status)
    made = api.derive(turned, CATALOG, Volume(stored(ct.array), affine))
    assert made.status == expected.status
    differing = {name for name in DERIVED if name in made.names} - {
        name
        for name in DERIVED
        if name in made.names and np.array_equal(made.mask(name), stored(expected.mask(name)))
    }
    assert not differing


def test_each_lung_lies_on_the_diaphragm_of_its_side(derived):
    """Also where it reaches across the midline; and each half is of one piece as a film shows it."""
    if not has(derived, "hemidiaphragm_left", "hemidiaphragm_right"):
        pytest.skip("the diaphragm is unknown in this case")
    spacing_mm = derived.grid.spacing_mm[::-1]
    reach_mm = {
        side: distance_transform_edt(~derived.mask(f"lung_{side}"), spacing_mm) for side in ("left", "right")
    }
    for side, other in (("left", "right"), ("right", "left")):
        half = derived.mask(f"hemidiaphragm_{side}")
        assert not (half & (reach_mm[other] <= 4) & (reach_mm[side] > 4.001)).any()
        sizes = np.bincount(label(half.any(axis=1), np.ones((3, 3)))[0].ravel())[1:]
        assert len(sizes) == 1, (side, sizes)


def left_mm(labels, name):
    """How far to the patient's left the class's centroid lies."""
    k, j, i = np.nonzero(labels.mask(name))
    return float(labels.grid.to_world(np.column_stack([i, j, k]))[:, 0].mean())


def has(labels, *names):
    return all(labels.status.get(name) in (Status.PRESENT, Status.PARTIAL) for name in names)


def test_what_is_unknown_has_a_reason_and_what_is_known_has_voxels(derived):
    counts = derived.voxel_counts()
    for name in DERIVED:
        status = derived.status.get(name, Status.UNKNOWN)
        assert (counts.get(name, 0) > 0) == (status in (Status.PRESENT, Status.PARTIAL)), name
        if status is Status.UNKNOWN:
            assert derived.notes[name], name


PARTITIONS = {
    "mediastinum": [["mediastinum_upper", "mediastinum_lower"]]
    + [["mediastinum_anterior", "mediastinum_middle", "mediastinum_posterior"]],
    "aorta": [["aorta_ascending", "aorta_arch", "aorta_descending"]],
    "subdiaphragm": [["subdiaphragm_left", "subdiaphragm_right"]],
    "diaphragm": [["hemidiaphragm_left", "hemidiaphragm_right"]],
    "costal_cartilages": [["costal_cartilages_left", "costal_cartilages_right"]],
    **{
        f"lung_{side}": [[f"lung_zone_{zone}_{side}" for zone in ("apical", "upper", "mid", "base")]]
        for side in ("left", "right")
    },
    **{
        f"rib_{side}_{n}": [[f"rib_{side}_{n}_{part}" for part in ("anterior", "posterior")]]
        for side in ("left", "right")
        for n in range(1, 13)
    },
}


@pytest.mark.parametrize("whole", PARTITIONS)
def test_parts_make_up_the_whole_and_share_nothing(derived, whole):
    if not has(derived, whole):
        pytest.skip(f"{whole} is {derived.status.get(whole, 'unknown')} in this case")
    for parts in PARTITIONS[whole]:
        known = [part for part in parts if has(derived, part)]
        assert known, f"no part of {whole} came out"
        assert all(derived.status[part] is Status.ABSENT for part in parts if part not in known)
        total = sum(derived.mask(part).astype(int) for part in known)
        np.testing.assert_array_equal(total, derived.mask(whole).astype(int))


def test_left_is_left(derived):
    pairs = [(name, CATALOG[name].mirror) for name in DERIVED if CATALOG[name].laterality == "left"]
    seen = 0
    for left, right in pairs:
        if has(derived, left, right):
            seen += 1
            assert left_mm(derived, left) > left_mm(derived, right), left
    assert seen > 20


def test_parents_contain_their_children(derived):
    for name in derived.names:
        for part in CATALOG[name].parts if name in CATALOG else ():
            if has(derived, part):
                assert not (derived.mask(part) & ~derived.mask(name)).any(), (name, part)


@pytest.mark.real
def test_all_that_the_chest_holds_comes_out(chest):
    ct, labels = chest
    made = api.derive(labels, CATALOG, ct)
    counts, ml = made.voxel_counts(), ct.grid.voxel_volume_mm3 / 1000
    within_reach = reachable(CATALOG, [name for name in labels.names if name in CATALOG])
    missing = {name for name in DERIVED if name in within_reach and not has(made, name)}
    assert missing <= {f"rib_{side}_{n}_anterior" for side in ("left", "right") for n in (10, 11, 12)}
    # Rough bounds from anatomy: a mistake of a level or a side breaks them.
    for name, low, high in (
        ("mediastinum", 500, 2000),
        ("mediastinum_upper", 80, 500),
        ("aorta_arch", 15, 60),
        ("aorta_ascending", 30, 150),
        ("tracheal_bifurcation", 3, 15),
        ("lung_vessels_left", 15, 200),
        ("diaphragm", 80, 300),
        ("skin", 200, 1500),
    ):
        assert low < counts[name] * ml < high, name
    vein = made.mask("brachiocephalic_vein_left") & made.mask("mediastinum")
    assert (vein & made.mask("mediastinum_anterior")).sum() > 0.5 * vein.sum(), "prevascular after ITMIG"
    body = counts["body"]
    assert 0.2 < counts["subdiaphragm"] / body < 0.6
    assert not (made.mask("subdiaphragm") & made.mask("lungs")).any()
    assert (made.mask("subdiaphragm") & made.mask("liver")).sum() > 0.98 * counts["liver"]
    assert (made.mask("subdiaphragm") & made.mask("heart")).sum() < 0.01 * counts["heart"]
    assert (made.mask("mediastinum") & made.mask("heart")).sum() > 0.97 * counts["heart"]


@pytest.mark.real
@pytest.mark.parametrize("pack", PACKS, ids=lambda path: path.stem)
def test_an_example_pack_on_the_chest(chest, pack):
    ct, labels = chest
    catalog = load_catalog(pack)
    own = [name for name in catalog if name not in CATALOG]
    assert own
    made = api.derive(labels, catalog, ct, own)
    for name in own:
        assert made.status[name] is Status.PRESENT, (name, made.notes.get(name))
        mirror = catalog[name].mirror
        if catalog[name].laterality == "left":
            assert left_mm(made, name) > left_mm(made, mirror)
    masks = {name: made.mask(name) for name in own}
    made = api.derive(labels, catalog, ct, ["lungs", "lung_left", "lung_right", "aorta", "bones"])
    if pack.stem == "coronary_calcium":
        assert ct.array[masks["heart_calcium"]].min() >= 130
        assert not (masks["heart_calcium"] & made.mask("aorta")).any()
    if pack.stem == "aorta_ring":
        assert not (masks["aorta_ring_5mm"] & made.mask("aorta")).any()
    if pack.stem in ("pleural_zones", "rib_and_lung"):
        for name, mask in masks.items():
            assert not (mask & ~made.mask(f"lung_{catalog[name].laterality}")).any()
    if pack.stem == "intercostal_spaces":
        for mask in masks.values():
            assert not (mask & (made.mask("bones") | made.mask("lungs"))).any()


@pytest.mark.real
def test_preview_and_add(real_data, tmp_path, monkeypatch):
    from PIL import Image

    from paxray.cli import app
    from paxray.radiography.lettering import LETTER_RGB

    folder = real_data / "lidc-idri-0001"
    case = [str(folder / "ct_2.5mm.nii.gz"), "--labels", str(folder / "totalsegmentator_v2_2.5mm.nii.gz")]
    case += ["--label", "118=costal_cartilages"]
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke

    def words(result):
        return " ".join(result.output.split())

    made = run(app, ["classes", "add", "peel", "--group", "vessel"])
    assert made.exit_code == 0, made.output
    assert run(app, ["classes", "check", "--classes", "peel.yaml"]).exit_code == 0
    assert "exists already" in words(run(app, ["classes", "add", "peel"]))
    assert "paxray classes show heart" in words(run(app, ["classes", "add", "heart"]))
    assert run(app, ["classes", "add", "no good"]).exit_code == 2
    assert not Path("no good.yaml").exists()
    seen = run(app, ["classes", "preview", "peel", *case, "--classes", "peel.yaml"])
    assert seen.exit_code == 0, seen.output
    assert "peel: present" in words(seen)
    with Image.open("peel.png") as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape[0] == 1024 + 58  # two rows of pictures, and a caption of two lines
    assert (pixels[1024:] == LETTER_RGB).all(axis=-1).sum() > 200
    # The class's own colour is drawn in the planes as well as on the radiographs.
    coloured = np.abs(pixels - [250, 200, 60]).sum(axis=-1) < 60
    assert coloured[:512].sum() > 100
    assert coloured[512:].sum() > 100
    lost = run(app, ["classes", "preview", "tonsil", *case])
    assert lost.exit_code == 2
    gone = run(app, ["classes", "preview", "coronary_arteries", *case, "-o", "no.png"])
    assert gone.exit_code == 0
    assert "unknown" in words(gone)
    assert not Path("no.png").exists()
