"""Lymph node stations: nodes placed on purpose in a phantom, each where the map's words put it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edited import with_mask

from paxray import api
from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.io.cases import MaskSource
from paxray.io.volume import Volume
from paxray.measure.landmarks import Anatomy, Landmark, find_landmarks
from paxray.measure.radiology import FOUND_IN
from paxray.measure.solids import solids
from paxray.measure.stations import ADJACENT_MM, BORDERS, StationMap
from paxray.measured import lesion_columns, measure
from paxray.phantom.thorax import make_phantom
from paxray.phantom.write import write_nifti
from paxray.produce import atom_boxes
from paxray.segmentation.instances import STATIONS, with_lesions

CATALOG = load_catalog()


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, LabelVolume]:
    made = make_phantom(3, (3.0, 3.0, 3.0))
    builder = LabelBuilder(made.ct.shape)
    builder.add_label_map(made.labels.array, load_vocabulary("phantom", catalog=CATALOG))
    labels = api.segment(made.ct, builder.finish(made.ct.affine, CATALOG))
    wanted = [name for name in (*FOUND_IN, *BORDERS) if name in CATALOG]
    return made.ct, api.derive(labels, CATALOG, made.ct, wanted)


def map_of(ct: Volume, labels: LabelVolume, **status: Status) -> StationMap:
    changed = replace(labels, status={**labels.status, **status})
    anatomy = Anatomy(changed, atom_boxes(changed), solids(changed, ct), changed.cut_by_ct())
    carina = next(found for found in find_landmarks(anatomy) if found.name == "carina")
    return StationMap(anatomy, carina)


@pytest.fixture(scope="module")
def borders(phantom: tuple[Volume, LabelVolume]) -> StationMap:
    return map_of(*phantom)


def of(labels: LabelVolume, name: str, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """``(n, 3)`` voxel centres of a class between two heights."""
    k, j, i = np.nonzero(labels.mask(name))
    at = labels.grid.to_world(np.column_stack([i, j, k]))
    return at[(at[:, 2] >= low) & (at[:, 2] <= high)]


def beside(labels: LabelVolume, name: str, z: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """A place beside a structure's slice: positive x to the left, positive y behind it, negative the other way."""
    here = of(labels, name, z - 2, z + 2)
    middle = (here.min(axis=0) + here.max(axis=0)) / 2
    at = np.array([middle[0], middle[1], z])
    if x:
        at[0] = (here[:, 0].max() if x > 0 else here[:, 0].min()) + x
    if y:
        at[1] = (here[:, 1].max() if y > 0 else here[:, 1].min()) + y
    return at


def places(labels: LabelVolume) -> dict[str, np.ndarray]:
    """Where the map's words put a node of each station."""
    arch = of(labels, "aorta_arch")[:, 2]
    trachea = of(labels, "trachea")
    vein = of(labels, "brachiocephalic_vein_left")
    crossing = vein[(vein[:, 0] >= trachea[:, 0].min()) & (vein[:, 0] <= trachea[:, 0].max()), 2].min()
    left_bronchus = of(labels, "bronchus_main_left")
    subcarinal = left_bronchus[:, 2].min() + 6
    ascending = of(labels, "aorta_ascending", arch.min() - 10)[:, :2].mean(axis=0)
    descending = of(labels, "aorta_descending", arch.min() - 10)[:, :2].mean(axis=0)
    artery = of(labels, "pulmonary_artery")
    window = (artery[artery[:, 0] > 5, 2].max() + arch.min()) / 2
    between = (ascending + descending) / 2
    left_of_line = np.array([descending[1] - ascending[1], ascending[0] - descending[0]])
    left_of_line /= np.linalg.norm(left_of_line)
    put = {
        "2R": beside(labels, "trachea", crossing + 4, x=-5),
        "4R": beside(labels, "trachea", crossing - 8, x=-5),
        "2L": beside(labels, "trachea", arch.max() + 5, x=6),
        "4L": beside(labels, "trachea", (arch.min() + arch.max()) / 2, x=5),
        "3P": beside(labels, "trachea", arch.max(), y=5),
        "3A": beside(labels, "brachiocephalic_vein_right", arch.max() + 4, y=-5),
        "6": beside(labels, "aorta_arch", (arch.min() + arch.max()) / 2, y=-4),
        "5": np.array([*(between + 3 * left_of_line), window]),
        "7": np.array([*(left_bronchus.mean(axis=0)[:2] * [0, 1]), subcarinal]),
        "10L": beside(labels, "bronchus_main_left", subcarinal, x=6),
        "10R": beside(labels, "bronchus_main_right", subcarinal, x=-6),
        "8L": beside(labels, "esophagus", left_bronchus[:, 2].min() - 25, x=4),
    }
    # The phantom's lungs reach close to some structures: a node is soft tissue between them.
    soft = of(labels, "mediastinum")
    return {name: soft[np.linalg.norm(soft - at, axis=1).argmin()] for name, at in put.items()}


@pytest.mark.parametrize("station", ["2R", "2L", "3A", "3P", "4R", "4L", "5", "6", "7", "8L", "10L", "10R"])
def test_a_node_is_where_it_was_put(
    phantom: tuple[Volume, LabelVolume], borders: StationMap, station: str
) -> None:
    found = borders.station(places(phantom[1])[station])
    assert found.name == station, found.note


def test_everywhere_in_the_mediastinum_the_maps_levels_hold(
    phantom: tuple[Volume, LabelVolume], borders: StationMap
) -> None:
    """A station, or a reason; and each station within the levels that the map's words give it."""
    _, labels = phantom
    arch, carina = of(labels, "aorta_arch")[:, 2], borders._carina.position_mm
    assert carina is not None
    every = of(labels, "mediastinum")
    heights: dict[str, list[float]] = {}
    for at in every[np.random.default_rng(0).permutation(len(every))[:600]]:
        found = borders.station(at)
        assert found.name in STATIONS or (found.name == "" and found.note)
        heights.setdefault(found.name, []).append(at[2])
    bronchus = of(labels, "bronchus_main_left")[:, 2].min()
    limits = {
        "2L": (arch.max(), np.inf),
        "4R": (carina[2], np.inf),
        "4L": (carina[2], arch.max()),
        "6": (arch.min(), arch.max()),
        "5": (carina[2], arch.min()),
        "3P": (carina[2], np.inf),
        "7": (bronchus, carina[2]),
        "8L": (-np.inf, bronchus),
    }
    half = 1.51
    assert {"2R", "4R", "7", "8L"} <= heights.keys()
    for name, (low, high) in limits.items():
        for z in heights.get(name, []):
            assert low - half <= z <= high + half, name


@pytest.mark.parametrize(
    ("station", "missing", "reason"),
    [
        ("4R", "brachiocephalic_vein_left", "nothing is known of brachiocephalic vein left"),
        ("5", "pulmonary_artery", "nothing is known of pulmonary artery"),
        ("7", "bronchus_main_right", "nothing is known of bronchus main right"),
        ("8L", "esophagus", "nothing is known of esophagus"),
        ("6", "aorta_arch", "nothing is known of aorta arch"),
        ("2R", "mediastinum", "nothing is known of mediastinum"),
        ("2R", "trachea", "the carina is unknown"),
    ],
)
def test_without_its_border_a_station_is_not_told(
    phantom: tuple[Volume, LabelVolume], station: str, missing: str, reason: str
) -> None:
    ct, labels = phantom
    found = map_of(ct, labels, **{missing: Status.UNKNOWN}).station(places(labels)[station])
    assert found.name == ""
    assert reason in found.note


def test_what_lies_elsewhere_has_no_station(phantom: tuple[Volume, LabelVolume], borders: StationMap) -> None:
    _, labels = phantom
    assert "in a lung" in borders.station(of(labels, "lung_left").mean(axis=0)).note
    assert "outside the mediastinum" in borders.station(of(labels, "sternum").mean(axis=0)).note
    above = beside(labels, "trachea", of(labels, "sternum")[:, 2].max() + 8, x=-4)
    assert borders.station(above).note.startswith("1R or 2R")


def test_an_azygos_vein_parts_what_the_carina_stands_in_for(phantom: tuple[Volume, LabelVolume]) -> None:
    """Raised above a node, its lower border leaves the node to station 10, if that is adjacent to the bronchus."""
    ct, labels = phantom
    at = places(labels)["4R"]
    plain = map_of(ct, labels).station(at)
    assert "azygos" in plain.note
    drawn = np.zeros(labels.shape, bool)
    i, j, k = np.round(labels.grid.to_index(at + [0, 0, 12])).astype(int)
    drawn[k, j, i] = True
    found = map_of(ct, with_mask(labels, "azygos_vein", drawn, Status.PRESENT)).station(at)
    bronchus = of(labels, "bronchus_main_right")
    near = np.linalg.norm(bronchus - at, axis=1).min() <= ADJACENT_MM
    assert found.name == ("10R" if near else "")


def test_given_and_derived_stations_reach_the_rows(
    phantom: tuple[Volume, LabelVolume], tmp_path: Path
) -> None:
    ct, labels = phantom
    nodes = np.zeros(ct.shape, np.uint8)
    for number, station in ((1, "2R"), (2, "7"), (3, "8L")):
        i, j, k = np.round(labels.grid.to_index(places(labels)[station])).astype(int)
        nodes[k, j, i] = number
    i, j, k = np.round(labels.grid.to_index(of(labels, "lung_left").mean(axis=0))).astype(int)
    nodes[k, j, i] = 4
    write_nifti(tmp_path / "nodes.nii.gz", Volume(nodes, ct.affine))
    (tmp_path / "nodes.json").write_text('{"2": {"station": "11L"}}')
    source = MaskSource(tmp_path / "nodes.nii.gz", "lymph_nodes", "nodes.nii.gz")
    labels, lesions = with_lesions(labels, [source], CATALOG)
    measured = measure(ct, labels, lesions, atom_boxes(labels), labels.cut_by_ct(), CATALOG)
    rows = [lesion_columns(measured, lesion, 1) for lesion in lesions]
    told = [(row["station"], row["station_source"]) for row in rows]
    assert told == [("2R", "derived"), ("11L", "given"), ("8L", "derived"), (None, None)]
    assert "in a lung" in rows[3]["note"]


# A map of blocks, mm in LPS: every border where it is wanted

Block = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
EXTENT_MM = 100.0


def blocks(
    carina: tuple[float, float, float], spacing: tuple[float, float, float], **of: list[Block]
) -> StationMap:
    """A map whose classes are blocks (low, high along x, y, z), in a mediastinum that is all of the scan."""
    i, j, k = (round(EXTENT_MM / mm) for mm in spacing)
    affine = np.diag([*spacing, 1.0])
    z, y, x = (n * mm for n, mm in zip(np.indices((k, j, i), sparse=True), spacing[::-1], strict=True))
    builder = LabelBuilder((k, j, i))
    everywhere = (slice(0, k), slice(0, j), slice(0, i))
    whole = (0.0, EXTENT_MM)
    for name, parts in {"mediastinum": [(whole, whole, whole)], **of}.items():
        mask = np.zeros((k, j, i), bool)
        for (x0, x1), (y0, y1), (z0, z1) in parts:
            mask |= (x >= x0) & (x < x1) & (y >= y0) & (y < y1) & (z >= z0) & (z < z1)
        builder.add_mask(name, everywhere, mask)
    labels = builder.finish(affine, CATALOG)
    anatomy = Anatomy(labels, atom_boxes(labels), {}, {})
    return StationMap(anatomy, Landmark("carina", "present", "", np.array(carina)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 0.4), (1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (1.0, 2.0, 0.4)])
def test_beside_the_arch_is_told_by_rows_whatever_the_slices(spacing: tuple[float, float, float]) -> None:
    """Station 6 reaches as far as the arch does, up to half a row, in thin slices and in thick ones."""
    found = blocks(
        (50, 50, 20),
        spacing,
        sternum=[((45, 55), (0, 4), (20, 90))],
        trachea=[((45, 55), (60, 70), (20, 100))],
        aorta_arch=[((60, 70), (20, 60), (50, 70))],
        aorta_ascending=[((60, 70), (20, 30), (30, 50))],
        pulmonary_artery=[((60, 70), (20, 60), (20, 30))],
    )
    last_mm = 60 - spacing[1]  # the last row's middle
    beside = np.linspace(20 - 0.4 * spacing[1], last_mm + 0.4 * spacing[1], 61)
    assert {found.station(np.array([75.0, y, 60.0])).name for y in beside} == {"6"}
    assert found.station(np.array([75.0, last_mm + 0.6 * spacing[1], 60.0])).name == "4L"


def test_adjacent_is_within_a_centimetre() -> None:
    found = blocks(
        (50, 50, 80),
        (2.0, 2.0, 2.0),
        bronchus_main_left=[((56, 60), (48, 52), (60, 80))],
        bronchus_main_right=[((40, 44), (48, 52), (70, 80))],
        esophagus=[((46, 57), (60, 66), (0, 100))],
    )
    assert found.station(np.array([56 + 9.9, 62.0, 40.0])).name == "8L"
    beyond = found.station(np.array([56 + 10.1, 62.0, 40.0]))
    assert (beyond.name, "not adjacent to the oesophagus" in beyond.note) == ("", True)


def test_the_aortas_limbs_are_taken_right_below_the_arch() -> None:
    """Farther down the ascending aorta leans to the left, and says nothing of the window under the arch."""
    trunk = {
        "sternum": [((45, 55), (0, 4), (10, 90))],
        "trachea": [((40, 50), (60, 80), (10, 100))],
        "aorta_arch": [((56, 64), (16, 74), (60, 74))],
        "aorta_descending": [((56, 64), (70, 78), (0, 60))],
        "pulmonary_artery": [((56, 64), (30, 50), (30, 40))],
    }
    leaning = [((56, 64), (16, 24), (50, 60)), ((76, 98), (16, 24), (0, 48))]
    found = blocks((46, 66, 20), (2.0, 2.0, 2.0), aorta_ascending=leaning, **trunk)
    assert found.station(np.array([64.0, 40.0, 50.0])).name == "5"
    assert found.station(np.array([56.0, 40.0, 50.0])).name == "4L"
