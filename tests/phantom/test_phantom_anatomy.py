"""What a phantom must be, whoever is imaged: whole, exclusive, on the right side, in the right order."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from paxray.errors import ConfigError
from paxray.phantom.patient import LIMITS, Patient
from paxray.phantom.thorax import IN_PIECES, Phantom, label_ids, make_phantom

COARSE_MM = (3.5, 3.5, 3.5)
BASE = Patient(seed=5)
WOMAN = Patient(seed=6, sex="F", height_mm=1640.0)


@functools.cache
def phantom_of(patient: Patient, spacing_mm: tuple[float, float, float] = COARSE_MM) -> Phantom:
    return make_phantom(patient, spacing_mm)


@pytest.fixture(scope="module")
def fine() -> Phantom:
    """A woman at the default spacing: she has every structure of the vocabulary."""
    return make_phantom(WOMAN)


def mask(phantom: Phantom, *names: str) -> NDArray[np.bool_]:
    return np.isin(phantom.labels.array, [label_ids()[name] for name in names])


def names_with(*starts: str) -> list[str]:
    return [name for name in label_ids() if name.startswith(starts)]


def litres(phantom: Phantom, *names: str) -> float:
    return float(mask(phantom, *names).sum()) * phantom.labels.grid.voxel_volume_mm3 / 1e6


def center_mm(phantom: Phantom, name: str) -> NDArray[np.float64]:
    k, j, i = np.argwhere(mask(phantom, name)).mean(axis=0)
    return phantom.labels.grid.to_world([i, j, k])


def width_mm(phantom: Phantom, *names: str) -> float:
    columns = np.flatnonzero(mask(phantom, *names).any(axis=(0, 1)))
    return float(columns[-1] - columns[0] + 1) * phantom.labels.spacing_mm[0]


def lung_names() -> list[str]:
    return names_with("lung_")


def test_every_name_of_the_vocabulary_is_there_and_no_other(fine: Phantom) -> None:
    assert sorted(np.unique(fine.labels.array).tolist()) == [0, *sorted(label_ids().values())]


def test_a_man_lacks_breasts_and_nothing_else() -> None:
    found = set(np.unique(phantom_of(BASE).labels.array).tolist())
    missing = {name for name, number in label_ids().items() if number not in found}
    assert missing == {"breast_left", "breast_right"}


def test_ct_and_labels_share_one_lps_grid(fine: Phantom) -> None:
    assert fine.ct.array.dtype == np.int16
    assert fine.labels.array.dtype == np.uint8
    assert fine.ct.shape == fine.labels.shape
    np.testing.assert_array_equal(fine.ct.affine, fine.labels.affine)
    assert fine.ct.grid.orientation == "LPS"
    assert fine.ct.spacing_mm == (1.5, 1.5, 2.0)


@pytest.mark.parametrize("seed", [None, 21])
def test_structures_are_one_piece_at_the_default_spacing(fine: Phantom, seed: int | None) -> None:
    labels = (fine if seed is None else make_phantom(seed)).labels.array
    boxes = ndimage.find_objects(labels)
    broken = {}
    for name, number in label_ids().items():
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is not None and name not in IN_PIECES:
            count = ndimage.label(labels[box] == number)[1]
            if count != 1:
                broken[name] = count
    assert broken == {}


def test_left_is_at_plus_x(fine: Phantom) -> None:
    pairs = [
        name for name in label_ids() if "_left" in name and name.replace("_left", "_right") in label_ids()
    ]
    assert len(pairs) > 18
    for name in pairs:
        assert center_mm(fine, name)[0] > center_mm(fine, name.replace("_left", "_right"))[0], name
    assert center_mm(fine, "liver")[0] < 0 < center_mm(fine, "spleen")[0]
    assert center_mm(fine, "stomach")[0] > 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_ribs_follow_one_another_down_and_slope_forwards(fine: Phantom, side: str) -> None:
    behind, ahead = [], []
    for number in range(1, 13):
        k, j, _ = np.nonzero(mask(fine, f"rib_{side}_{number}"))
        z = fine.labels.affine[2, 3] + 2.0 * k
        behind.append(z[j >= np.quantile(j, 0.85)].mean())
        ahead.append(z[j <= np.quantile(j, 0.15)].mean())
    assert np.all(np.diff(behind) < 0)
    assert np.all(np.diff(ahead[:9]) < 0)
    drops = np.subtract(behind, ahead)
    assert np.all(drops > 15.0)
    assert np.all((drops[2:9] > 40.0) & (drops[2:9] < 110.0))


def test_ribs_grow_to_the_seventh_and_float_at_the_end(fine: Phantom) -> None:
    volume = [litres(fine, f"rib_left_{n}") for n in range(1, 13)]
    assert int(np.argmax(volume)) + 1 in (6, 7, 8)
    assert volume[11] < 0.5 * volume[9]


def test_vertebrae_follow_one_another_down(fine: Phantom) -> None:
    order = ["C7", *(f"T{n}" for n in range(1, 13)), "L1", "L2"]
    z = [center_mm(fine, f"vertebrae_{name}")[2] for name in order]
    steps = -np.diff(z)
    assert np.all(steps > 10.0)
    assert np.all(steps < 40.0)


def test_the_cord_runs_behind_the_bodies_in_every_slice(fine: Phantom) -> None:
    cord = mask(fine, "spinal_cord")
    assert cord.any(axis=(1, 2)).all()
    assert center_mm(fine, "spinal_cord")[1] > center_mm(fine, "aorta")[1]


def test_body_is_one_solid_piece_away_from_the_sides_and_off_the_table(fine: Phantom) -> None:
    body = fine.labels.array > 0
    assert ndimage.label(body[::2, ::2, ::2])[1] == 1
    for face in (body[:, 0], body[:, -1], body[:, :, 0], body[:, :, -1]):
        assert not face.any()
    assert body[0].any()
    assert body[-1].any()
    for plane in body[:: len(body) // 7]:
        holes = ndimage.binary_fill_holes(plane) & ~plane
        assert holes.sum() == 0
    outside = ndimage.binary_erosion(~body[::2, ::2, ::2], iterations=3)
    table = outside & (fine.ct.array[::2, ::2, ::2] > -600)
    assert table.sum() > 1000
    assert np.nonzero(table)[1].mean() > np.nonzero(body[::2, ::2, ::2])[1].max() * 0.95


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("subcutaneous_fat", -120, -70),
        ("skeletal_muscle", 30, 60),
        ("lung_upper_lobe_left", -880, -760),
        ("lung_lower_lobe_right", -880, -760),
        ("heart_ventricle_left", 35, 55),
        ("aorta", 30, 50),
        ("liver", 50, 65),
        ("spleen", 40, 58),
        ("kidney_left", 25, 45),
        ("vertebrae_T7", 200, 420),
        ("rib_left_7", 300, 700),
        ("clavicula_left", 300, 750),
        ("scapula_right", 250, 650),
        ("sternum", 120, 400),
        ("costal_cartilages", 60, 150),
        ("intervertebral_discs", 50, 120),
        ("breast_left", -90, 10),
        ("mediastinal_fat", -110, -30),
    ],
)
def test_hu_of_tissues(fine: Phantom, name: str, low: float, high: float) -> None:
    assert low < np.median(fine.ct.array[mask(fine, name)]) < high


def test_air_is_black_inside_the_airways_and_noise_is_a_scanners(fine: Phantom) -> None:
    lumen = ndimage.binary_erosion(mask(fine, "trachea"), iterations=4)
    assert fine.ct.array[lumen].mean() == pytest.approx(-995, abs=12)
    blood = ndimage.binary_erosion(mask(fine, "heart_ventricle_left"), iterations=3)
    assert 8 < fine.ct.array[blood].std() < 16
    assert fine.ct.array.min() >= -1024


def test_upper_lobes_stand_above_lower_and_the_middle_lobe_in_front(fine: Phantom) -> None:
    for side in ("left", "right"):
        upper, lower = (center_mm(fine, f"lung_{part}_lobe_{side}") for part in ("upper", "lower"))
        assert upper[2] > lower[2] + 30
        assert upper[1] < lower[1] - 15
    middle = center_mm(fine, "lung_middle_lobe_right")
    assert middle[1] < center_mm(fine, "lung_lower_lobe_right")[1] - 40
    assert middle[2] < center_mm(fine, "lung_upper_lobe_right")[2] - 30


def test_the_right_dome_is_higher_and_the_recess_deepest_behind(fine: Phantom) -> None:
    z = fine.labels.affine[2, 3] + 2.0 * np.arange(fine.labels.shape[0])
    liver = z[mask(fine, "liver").any(axis=(1, 2))].max()
    stomach = z[mask(fine, "stomach").any(axis=(1, 2))].max()
    assert 2 < liver - stomach < 32
    k, j, _ = np.nonzero(mask(fine, *lung_names()))
    lowest = k < np.quantile(k, 0.002)
    assert j[lowest].mean() > np.quantile(j, 0.6)


def test_two_thirds_of_the_heart_lie_left_of_the_midline(fine: Phantom) -> None:
    spine_x = center_mm(fine, "vertebrae_T8")[0]
    columns = np.nonzero(mask(fine, *names_with("heart_")))[2]
    x = fine.labels.affine[0, 3] + 1.5 * columns
    assert 0.58 < np.mean(x > spine_x) < 0.85


def test_the_aortic_arch_crosses_to_the_left_of_the_trachea(fine: Phantom) -> None:
    k, _, i = np.nonzero(mask(fine, "aorta"))
    top = k >= k.max() - 4
    low = k <= k.min() + 60
    trachea_x = center_mm(fine, "trachea")[0]
    x = fine.labels.affine[0, 3] + 1.5 * i
    assert x[top].max() > trachea_x
    assert x[low].mean() > trachea_x
    carina = (
        fine.labels.affine[2, 3]
        + 2.0 * np.nonzero(mask(fine, "bronchus_main_left", "bronchus_main_right"))[0].max()
    )
    t4, t6 = (center_mm(fine, f"vertebrae_{name}")[2] for name in ("T4", "T6"))
    assert t6 < carina < t4 + 15


@pytest.mark.parametrize("seed", range(40, 45))
def test_measures_of_any_patient_are_human(seed: int) -> None:
    phantom = phantom_of(Patient.from_seed(seed), (4.0, 4.0, 4.0))
    assert 2.4 < litres(phantom, *lung_names()) < 7.5
    assert 0.2 < litres(phantom, *names_with("heart_")) < 0.9
    ratio = width_mm(phantom, *names_with("heart_")) / width_mm(phantom, *lung_names())
    assert 0.37 < ratio < 0.56
    assert 0.6 < litres(phantom, "liver") < 2.2
    assert 0.08 < litres(phantom, "spleen") < 0.5


def test_the_same_patient_is_the_same_bytes_and_another_is_not() -> None:
    again, other = make_phantom(BASE, COARSE_MM), make_phantom(replace(BASE, seed=6), COARSE_MM)
    assert again.ct.array.tobytes() == phantom_of(BASE).ct.array.tobytes()
    assert again.labels.array.tobytes() == phantom_of(BASE).labels.array.tobytes()
    assert other.labels.array.tobytes() != again.labels.array.tobytes()


def test_spacing_changes_the_sampling_and_not_the_patient(fine: Phantom) -> None:
    coarse = phantom_of(WOMAN)
    for names in (lung_names(), names_with("heart_"), ["liver"], ["aorta"], names_with("rib_left_")):
        assert litres(coarse, *names) == pytest.approx(litres(fine, *names), rel=0.04)


def test_breath_fills_the_lungs_and_lowers_the_diaphragm() -> None:
    breaths = [phantom_of(replace(BASE, inspiration=value)) for value in (0.0, 0.5, 1.0)]
    air = [litres(phantom, *lung_names()) for phantom in breaths]
    liver = [center_mm(phantom, "liver")[2] for phantom in breaths]
    heart = [center_mm(phantom, "heart_ventricle_left")[2] for phantom in breaths]
    assert air[0] + 0.5 < air[1] < air[2] - 0.5
    assert liver[0] > liver[1] > liver[2]
    assert heart[0] > heart[1] > heart[2]


def test_habitus_adds_fat_and_muscle_adds_muscle() -> None:
    fat = [litres(phantom_of(replace(BASE, habitus=value)), "subcutaneous_fat") for value in (0.0, 0.5, 1.0)]
    assert 1.3 * fat[0] < fat[1] < fat[2] / 1.3
    flesh = [litres(phantom_of(replace(BASE, muscle=value)), "skeletal_muscle") for value in (0.0, 1.0)]
    assert flesh[0] < flesh[1]


def test_heart_scale_widens_the_heart() -> None:
    hearts = [phantom_of(replace(BASE, heart_scale=value)) for value in (0.88, 1.0, 1.14)]
    widths = [width_mm(phantom, *names_with("heart_")) for phantom in hearts]
    assert widths[0] < widths[1] < widths[2]


def test_a_woman_is_smaller_and_has_breasts() -> None:
    man, woman = phantom_of(BASE), phantom_of(replace(BASE, sex="F", height_mm=1620.0))
    assert litres(woman, *lung_names()) < litres(man, *lung_names())
    assert litres(woman, "breast_left", "breast_right") > 0.1


@pytest.mark.parametrize("corner", ["low", "high"])
def test_the_ends_of_every_dial_still_make_a_whole_body(corner: str) -> None:
    values = {name: limits[corner == "high"] for name, limits in LIMITS.items()}
    phantom = make_phantom(Patient(seed=9, sex="F", **values), (4.0, 4.0, 4.0))
    body = phantom.labels.array > 0
    for face in (body[:, 0], body[:, -1], body[:, :, 0], body[:, :, -1]):
        assert not face.any()
    missing = {name for name, number in label_ids().items() if not (phantom.labels.array == number).any()}
    assert missing == set()


def test_patients_from_seeds_are_reproducible_and_vary() -> None:
    drawn = [Patient.from_seed(seed) for seed in range(40)]
    assert drawn == [Patient.from_seed(seed) for seed in range(40)]
    assert {patient.sex for patient in drawn} == {"F", "M"}
    assert np.ptp([patient.height_mm for patient in drawn]) > 150
    assert np.ptp([patient.habitus for patient in drawn]) > 0.4


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"sex": "X"}, "sex"),
        ({"height_mm": 900.0}, "height_mm"),
        ({"habitus": float("nan")}, "habitus"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_patients_are_refused(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        Patient(**{"seed": 1, **values})  # type: ignore[arg-type]
    assert caught.value.code == "bad_patient"


@pytest.mark.parametrize("spacing", [(0.1, 1.0, 1.0), (1.0, 1.0, 9.0), (1.0, 1.0)])
def test_impossible_spacings_are_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_phantom(1, spacing)  # type: ignore[arg-type]
    assert caught.value.code == "bad_spacing"
