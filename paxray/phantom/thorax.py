"""From a patient to a CT: the painter's order, the table, the scanner's blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from paxray.errors import ConfigError
from paxray.io.volume import Volume
from paxray.phantom.abdomen import paint_abdomen
from paxray.phantom.cage import Cage, make_ribs, paint_ribs
from paxray.phantom.canvas import BodyFrame, Canvas, Float32
from paxray.phantom.diaphragm import Diaphragm
from paxray.phantom.girdle import paint_clavicles, paint_humeri, paint_scapulae, paint_sternum
from paxray.phantom.heart import Mediastinum, paint_mediastinum
from paxray.phantom.lungs import paint_lung_vessels
from paxray.phantom.patient import Patient
from paxray.phantom.spine import Spine, paint_spine
from paxray.phantom.torso import paint_torso
from paxray.phantom.wall import Wall

DEFAULT_SPACING_MM = (1.5, 1.5, 2.0)
NOISE_HU = 12.0
BLUR_VOXELS = 0.42  # standard deviation of the scanner's point spread, on top of the voxel's own width
TOP_MM, BOTTOM_MM = 170.0, -208.0  # scan range in the reference body: lung apices + 3 cm .. L2
TABLE_GAP_MM = 3.0
# What is several pieces by nature, or where the scan ends.
IN_PIECES = frozenset(
    {
        "subcutaneous_fat",
        "skeletal_muscle",
        "mediastinal_fat",
        "torso_fat",
        "costal_cartilages",
        "intervertebral_discs",
        "pulmonary_vein",
        "colon",
        "thyroid_gland",
    }
)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A CT that never was, and the truth about it.

    Parameters
    ----------
    ct
        int16 HU, LPS-aligned, with noise, partial volume and the table.
    labels
        uint8 on the same grid, ids of the ``phantom`` vocabulary; 0 is air or table, so that the body
        is exactly ``labels > 0``. A voxel has the label of the last structure of the painter's order
        whose analytic shape holds its centre; only crumbs that later paint has cut off a structure go to
        the tissue around them.
    patient
        Who.
    """

    ct: Volume
    labels: Volume
    patient: Patient


@cache
def label_ids() -> dict[str, int]:
    """Return the id of every name in the ``phantom`` vocabulary."""
    import yaml

    text = files("paxray.anatomy").joinpath("data/vocabularies/phantom.yaml").read_text(encoding="utf-8")
    return {str(name): int(number) for number, name in yaml.safe_load(text)["labels"].items()}


def make_phantom(
    patient: Patient | int, spacing_mm: tuple[float, float, float] = DEFAULT_SPACING_MM
) -> Phantom:
    """Make a thorax, arms raised, from the lung apices to L2, the whole body inside the array's sides.

    Parameters
    ----------
    patient
        A `Patient`, or the seed to draw one from.
    spacing_mm
        Voxel spacing along x, y, z: 0.5 to 6 mm each.

    Returns
    -------
    Phantom
        The same arguments give the same arrays, byte for byte, on one kind of machine.

    Raises
    ------
    ConfigError
        Spacing outside the range (code ``bad_spacing``).
    """
    who = patient if isinstance(patient, Patient) else Patient.from_seed(int(patient))
    if len(spacing_mm) != 3 or not all(0.5 <= s <= 6.0 for s in spacing_mm):
        raise ConfigError(
            "a phantom cannot be made at this spacing",
            where="spacing_mm",
            expected="three values of 0.5 to 6 mm",
            found=str(tuple(spacing_mm)),
            code="bad_spacing",
        )
    cage, spine = Cage(who), Spine()
    wall, diaphragm = Wall(who, cage, spine), Diaphragm.of(who)
    frame = BodyFrame.of(who)
    axes, back_mm = _axes(wall, frame, spacing_mm)
    canvas = Canvas(axes, frame, label_ids())
    rng = np.random.default_rng([who.seed, 5])

    _paint_table(canvas, axes, back_mm)
    fields = paint_torso(canvas, wall, diaphragm, _texture(canvas.hu.shape, spacing_mm, rng))
    media = Mediastinum(who, diaphragm.top_left)
    paint_lung_vessels(canvas, who.seed, float(media.sink))
    paint_abdomen(canvas, fields, spine, diaphragm, who.seed)
    paint_mediastinum(canvas, fields, media)
    del fields
    marrow_hu = 265.0 - 1.9 * (who.age_years - 25.0)
    paint_spine(canvas, spine, marrow_hu)
    paint_scapulae(canvas, marrow_hu)
    paint_humeri(canvas, marrow_hu)
    paint_ribs(canvas, make_ribs(who, cage, spine), marrow_hu)
    paint_sternum(canvas, cage, marrow_hu)
    paint_clavicles(canvas, marrow_hu)
    _clear_crumbs(canvas)

    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    return Phantom(Volume(_scan(canvas.hu, rng), affine), Volume(canvas.labels, affine), who)


def _axes(
    wall: Wall, frame: BodyFrame, spacing_mm: tuple[float, float, float]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], float]:
    """Return the voxel centres along x, y, z that hold body and table, and the back's y; world mm."""
    wide, front, back = wall.extent_mm(BOTTOM_MM, TOP_MM)
    levels = np.linspace(BOTTOM_MM, TOP_MM, 40, dtype=np.float64)
    bow_x, bow_y = frame.bow(levels)
    sx, sy, sz = frame.scale_xyz
    half = (wide + float(np.abs(bow_x).max())) * sx + 16.0
    y_low = (front + float(bow_y.min())) * sy - 16.0
    y_back = (back + float(bow_y.max())) * sy
    ends = ((-half, half), (y_low, y_back + 66.0), (BOTTOM_MM * sz, TOP_MM * sz))
    out = []
    for (low, high), step in zip(ends, spacing_mm, strict=True):
        count = int(np.ceil((high - low) / step)) + 1
        out.append(low + step * np.arange(count, dtype=np.float64))
    return (out[0], out[1], out[2]), y_back


def _texture(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Float32:
    """Return smooth noise of unit variance with a grain of about 4 mm, drawn on a coarser grid."""
    from scipy.ndimage import gaussian_filter, zoom

    grain_mm = 3.0
    factors = [max(1.0, grain_mm / s) for s in reversed(spacing_mm)]
    coarse = [int(np.ceil(n / f)) + 1 for n, f in zip(shape, factors, strict=True)]
    noise = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), 0.7, mode="nearest")
    noise /= noise.std()
    out = zoom(noise, [n / c for n, c in zip(shape, coarse, strict=True)], order=1, mode="nearest")
    return np.ascontiguousarray(out, dtype=np.float32)


def _paint_table(
    canvas: Canvas, axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], back_mm: float
) -> None:
    """Paint a scanner's couch: a curved carbon shell around foam, under the back."""
    x, y = axes[0][None, :], axes[1][:, None]
    top = back_mm + TABLE_GAP_MM - 26.0 * np.square(x / 215.0)
    bottom = back_mm + 46.0 - 30.0 * np.square(np.square(x / 215.0))
    within = np.abs(x) < 214.0
    depth = np.minimum(np.minimum(y - top, bottom - y), 214.0 - np.abs(x))
    shell = np.clip(0.5 + (1.6 - np.abs(depth - 1.6)) / canvas.edge_mm, 0.0, 1.0)
    foam = np.clip(0.5 + depth / canvas.edge_mm, 0.0, 1.0)
    hu = -1000.0 + foam * 55.0 + shell * within * 800.0
    canvas.hu[:] = np.where(depth > -4.0, hu, -1000.0).astype(np.float32)


def _clear_crumbs(canvas: Canvas) -> None:
    """Give to the tissue around them the few voxels that later paint has cut off a structure.

    A piece that is no crumb (2 % of its structure or more) stays: that would be an error of the shapes.
    """
    from scipy.ndimage import find_objects, label

    boxes = find_objects(canvas.labels)
    for name, number in canvas.ids.items():
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is None or name in IN_PIECES:
            continue
        pieces, count = label(canvas.labels[box] == number)
        if count == 1:
            continue
        sizes = np.bincount(pieces.ravel())
        small = sizes < 0.02 * sizes[1:].sum()
        small[0] = False
        around, hu = _surroundings(name)
        crumbs = small[pieces]
        canvas.name(box, crumbs, around)
        canvas.hu[box][crumbs] = hu


def _surroundings(name: str) -> tuple[str, float]:
    if name.startswith(
        ("lung", "heart", "aorta", "pulmonary", "esophagus", "trachea", "bronchus", "superior")
    ):
        return "mediastinal_fat", -85.0
    if name in (
        "liver",
        "spleen",
        "stomach",
        "small_bowel",
        "kidney_left",
        "kidney_right",
        "inferior_vena_cava",
    ):
        return "torso_fat", -92.0
    return "skeletal_muscle", 50.0


def _scan(hu: Float32, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur, add slightly correlated noise, clip and round as a scanner does."""
    from scipy.ndimage import gaussian_filter

    out = gaussian_filter(hu, BLUR_VOXELS, mode="nearest", truncate=3.0)
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = gaussian_filter(noise, (0.3, 0.6, 0.6), mode="nearest", truncate=3.0)
    noise *= np.float32(NOISE_HU) / noise.std()
    out += noise
    return np.clip(np.rint(out), -1024, 3071).astype(np.int16)
