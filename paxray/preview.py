"""A look at one class and what to beware of, or at all that a segmenter found: CT planes and radiographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.anatomy_class import AnatomyClass
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.check import NOT_DERIVED
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.recipes.engine import derive
from paxray.anatomy.recipes.pieces import label_pieces
from paxray.anatomy.recipes.region import Region
from paxray.anatomy.recipes.scene import BACK, LEFT, UP, Scene
from paxray.errors import ConfigError
from paxray.files import known_as, write_bytes
from paxray.io.ct import read_ct
from paxray.io.volume import Volume
from paxray.look import source_of
from paxray.physics.attenuation import attenuate
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project
from paxray.radiography.display import render_display
from paxray.radiography.lettering import mark_sides, with_caption
from paxray.radiography.overlay import draw_overlay
from paxray.rows import png_bytes
from paxray.segmentation.body import UNSCANNED, body_extent, body_faces, with_body
from paxray.segmentation.files import read_masks

#: Height of each picture in the sheet, in pixels.
TILE_PX = 512
#: The line between two pictures.
LINE_PX, LINE_GREY = 2, 90
#: Soft-tissue window of the CT planes; wider where a class that is shown alone needs it.
WINDOW_HU = (-200.0, 300.0)
#: Share of a class's voxels, at either end of its HU, that may be black or white, and what its window has to spare.
CLIPPED_SHARE, SPARE_SHARE = 0.02, 0.2
#: A piece beside the largest one that is worth a warning.
LOOSE_PIECE_SHARE = 0.05

#: Name, normal, and the directions in which the picture's columns and rows run.
_PLANES = (
    ("axial", UP, LEFT, BACK),
    ("coronal", BACK, LEFT, (0.0, 0.0, -1.0)),
    ("sagittal", LEFT, BACK, (0.0, 0.0, -1.0)),
)


def preview(
    name: str,
    ct_file: Path,
    labels: Sequence[str],
    out: Path,
    *,
    vocabulary: str = "totalsegmentator_v2",
    further_labels: Mapping[int, str] | None = None,
    catalog_file: Path | None = None,
) -> dict[str, Any]:
    """Derive one class in one CT and draw it.

    Parameters
    ----------
    name
        A class or one of its synonyms.
    ct_file, labels
        The CT; masks as ``PATH`` or ``PATH=VOCABULARY``, in order of precedence.
    out
        The PNG to write: three CT planes through the middle of the class above, PA and left lateral below, marked with
        the patient's sides (R, L, A, P, H, F); under them the class, its volume and the case.
    vocabulary, further_labels
        What the values of a label map mean.
    catalog_file
        Classes of one's own.

    Returns
    -------
    ``class``, ``rule``, ``status``, ``volume_ml``, ``warnings`` (sentences), ``picture`` (path, or None).
    """
    catalog = load_catalog(catalog_file)
    item = catalog[catalog.resolve(name)]
    if item.film is not None:
        raise ConfigError(
            f"'{item.name}' is a class of the film: it has pixels in a view and no voxels to draw",
            do=f"preview '{item.film.of}', or look at it with `paxray project --full`",
        )
    ct = read_ct(ct_file)
    sources = [source_of(text, vocabulary, further_labels or {}) for text in labels]
    found = read_masks(sources, ct.grid, catalog)
    found, body = with_body(ct, found)
    derived = derive(found, catalog, ct, [item.name], unscanned=UNSCANNED)
    status = derived.status[item.name]
    result: dict[str, Any] = {
        "class": item.name,
        "rule": item.rule,
        "status": status.value,
        "volume_ml": derived.voxel_counts()[item.name] * ct.grid.voxel_volume_mm3 / 1000,
        "warnings": warnings_of(item, derived),
        "picture": None,
    }
    if status in (Status.PRESENT, Status.PARTIAL):
        mask = derived.mask(item.name)
        window = _window_hu(ct.array[mask])
        above = _row([_plane(ct, [(mask, item.colour)], plane, window_hu=window) for plane in _PLANES])
        shown = [(item.name, item.colour)]
        below = _row([_radiograph(ct, derived, shown, body, pose) for pose in ("pa", "lateral_left")])
        width = max(above.shape[1], below.shape[1])
        sheet = np.concatenate([_wide(above, width), _wide(below, width)])
        what = f"{item.name}: {result['volume_ml']:.1f} ml, {status.value}"
        write_bytes(out, png_bytes(with_caption(sheet, [what, known_as(ct_file)])))
        result["picture"] = str(out)
    return result


def _window_hu(hu: NDArray[Any]) -> tuple[float, float]:
    """The soft-tissue window, wide enough for these HU: neither contrast burns white in it, nor are lungs black."""
    low, high = WINDOW_HU
    least, most = np.quantile(hu, [CLIPPED_SHARE, 1 - CLIPPED_SHARE])
    spare = SPARE_SHARE * (most - least)
    return min(low, least - spare), max(high, most + spare)


def warnings_of(item: AnatomyClass, labels: LabelVolume) -> list[str]:
    """What to beware of in a derived class, a sentence each."""
    name = item.name
    status, note = labels.status[name], labels.notes.get(name)
    out = [f"{status.value}: {note}" if status is Status.UNKNOWN else note] if note else []
    if status is Status.UNKNOWN and not item.parts and item.recipe is None:
        out.append(NOT_DERIVED)
    if status is Status.ABSENT:
        out.append("all that it is made of is known, and nothing of it is in this scan")
    if status is Status.PARTIAL:
        out.append("partial: something that it is made of is unknown or covers only part of the scan")
    if status not in (Status.PRESENT, Status.PARTIAL):
        return out
    if labels.cut_by_ct(UNSCANNED if UNSCANNED in labels.names else None)[name]:
        out.append("cut: it touches the edge of what was scanned")
    _, sizes = label_pieces(Region.of_mask(labels.mask(name)).mask)
    loose = sizes[2:][sizes[2:] >= LOOSE_PIECE_SHARE * sizes[1]]
    if len(loose):
        out.append(
            f"it lies in {len(loose) + 1} separate pieces, the second with {loose[0] / sizes[1]:.0%} of the largest"
        )
    return out


def preview_all(ct: Volume, labels: LabelVolume, catalog: Catalog, out: Path) -> list[str]:
    """Draw all classes of a segmentation: three CT planes, and the PA radiograph with their projections.

    Each plane is the one that meets most classes. What covers everything (body, muscles) and unions that their parts
    draw already are left out; large classes lie below small ones.

    Returns
    -------
    The classes drawn.
    """
    voxels = labels.voxel_counts()
    shown = [
        name
        for name in sorted(labels.names, key=lambda name: -voxels[name])
        if voxels[name]
        and catalog[name].group not in ("body", "muscle")
        and not _drawn_by_parts(labels, name, catalog)
    ]
    classes = [(labels.mask(name), catalog[name].colour) for name in shown]
    pictures = [_plane(ct, classes, plane, _richest_index(labels, shown, plane)) for plane in _PLANES]
    with_all, body = with_body(ct, labels)
    pictures.append(_radiograph(ct, with_all, [(name, catalog[name].colour) for name in shown], body, "pa"))
    write_bytes(out, png_bytes(_row(pictures)))
    return shown


def _drawn_by_parts(labels: LabelVolume, name: str, catalog: Catalog) -> bool:
    """Whether the class's voxels are those of its parts."""
    parts = [labels.index(part) for part in catalog[name].parts if part in labels.names]
    return bool(parts) and bool(
        (labels.membership[:, parts].any(axis=1) == labels.membership[:, labels.index(name)]).all()
    )


def _richest_index(labels: LabelVolume, names: Sequence[str], plane: Any) -> int:
    """The plane in which most of the classes lie; of several the middle one."""
    axis = _axis_of(Scene(labels.grid), plane[1])
    columns = labels.membership[:, [labels.index(name) for name in names]]
    met = []
    for index in range(labels.shape[axis]):
        atoms = np.flatnonzero(np.bincount(np.take(labels.atoms, index, axis=axis).ravel()))
        met.append(int(columns[atoms].any(axis=0).sum()))
    best = np.flatnonzero(np.asarray(met) == max(met))
    return int(best[len(best) // 2])


def _middle_index(mask: NDArray[np.bool_], axis: int) -> int:
    """The plane through a class near its centroid, or the nearest that shows some of it (of a ring, a pair)."""
    areas = mask.sum(axis=tuple(n for n in range(3) if n != axis))
    at = int(np.round(np.average(np.arange(len(areas)), weights=areas)))
    shown = np.flatnonzero(areas)
    return int(shown[np.abs(shown - at).argmin()])


def _plane(
    ct: Volume,
    classes: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]],
    plane: Any,
    index: int | None = None,
    window_hu: tuple[float, float] = WINDOW_HU,
) -> NDArray[np.uint8]:
    """One CT plane with masks and their colours, as a reader is used to see it; by default through the first mask."""
    _, normal, column_way, row_way = plane
    scene = Scene(ct.grid)
    axis = _axis_of(scene, normal)
    if index is None:
        index = _middle_index(classes[0][0], axis)
    row_axis, column_axis = _axis_of(scene, row_way), _axis_of(scene, column_way)

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        picture = np.take(array, index, axis=axis)
        if row_axis > column_axis:
            picture = picture.T
        if not scene.is_rising(row_axis, row_way):
            picture = picture[::-1]
        return picture if scene.is_rising(column_axis, column_way) else picture[:, ::-1]

    low, high = window_hu
    grey = np.clip((cut(ct.array).astype(np.float32) - low) / (high - low), 0, 1)
    spacing = ct.grid.spacing_mm
    aspect = spacing[2 - column_axis] * grey.shape[1] / (spacing[2 - row_axis] * grey.shape[0])
    size = (max(1, round(TILE_PX * aspect)), TILE_PX)
    picture = draw_overlay(
        _resized(np.rint(grey * 255).astype(np.uint8), size),
        [(_resized(cut(mask), size), colour) for mask, colour in classes],
    )
    return mark_sides(picture, column_way, row_way)


def _axis_of(scene: Scene, way: tuple[float, float, float]) -> int:
    """The array axis that stands for one of the patient's, another for each.

    In a lattice tilted about several axes one array axis may be the nearest to two of the patient's.
    """
    up, back = scene.long_axis, scene.back_axis
    return (3 - up - back, back, up)[int(np.abs(way).argmax())]


def _resized(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    from PIL import Image

    how = Image.Resampling.NEAREST if picture.dtype == np.bool_ else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, how))


def _radiograph(
    ct: Volume,
    labels: LabelVolume,
    classes: Sequence[tuple[str, tuple[int, int, int]]],
    body: NDArray[np.bool_],
    pose: str,
) -> NDArray[np.uint8]:
    """One radiograph with the classes' outlines."""
    mu = attenuate(ct, body)
    view = place(
        Pose.named(pose),
        Setup(size=(TILE_PX, TILE_PX)),
        body_extent(body, ct.grid),
        body_faces(body, ct.grid),
    )
    names = [name for name, _ in classes]
    made = project(mu, labels, view, ("image", "presence", "incomplete"), classes=names, unscanned=UNSCANNED)
    assert made.image is not None
    picture, _ = render_display(made.image, None, made.incomplete)
    picture = draw_overlay(picture, [(made.mask(name), colour) for name, colour in classes])
    return mark_sides(picture, view.u, view.v)


def _row(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures side by side, with a line between that tells whose mark is whose."""
    line = np.full((pictures[0].shape[0], LINE_PX, 3), LINE_GREY, np.uint8)
    parts = [part for picture in pictures for part in (line, picture)]
    return np.concatenate(parts[1:], axis=1)


def _wide(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)))
