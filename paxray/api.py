"""The verbs of the package, for notebooks and scripts; each is a thin call into its room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume, Status, suggest_class
from paxray.anatomy.recipes.engine import derive as _derive
from paxray.dataset.reader import load
from paxray.errors import CaseError, ConfigError, suggest
from paxray.io.ct import read_ct as _read_ct
from paxray.io.volume import Volume
from paxray.physics.attenuation import AIR_HU, require_finite
from paxray.physics.attenuation import attenuate as _attenuate
from paxray.physics.basis import BASIS, basis_of_hu
from paxray.projection.materials import Materials
from paxray.projection.pose import Pose, Setup
from paxray.projection.pose import place as _place
from paxray.projection.project import Device, Projection, project, project_many, project_tiles, resolve_device
from paxray.projection.view import View
from paxray.radiography.display import Display, render_display
from paxray.segmentation.body import BODY, body_extent, body_faces, with_body
from paxray.segmentation.files import parse_source
from paxray.segmentation.files import read_masks as _read_masks

if TYPE_CHECKING:
    from paxray.buildlog import Event
    from paxray.config import Pipeline
    from paxray.run import BuildResult
    from paxray.todo import BuildPlan

__all__ = [
    "attenuate",
    "build",
    "decompose",
    "derive",
    "load",
    "place",
    "project",
    "project_many",
    "project_tiles",
    "read_ct",
    "read_masks",
    "render",
    "segment",
]

#: A catalog, or the file of one's own classes (as for ``--classes``) that the built-in one gets on top, or several.
Classes = Catalog | Path | str | Sequence[Path | str]


def _catalog(given: Classes | None) -> Catalog:
    if given is None or isinstance(given, Catalog):
        return given or load_catalog()
    if isinstance(given, str | Path):
        given = [given]
    if not isinstance(given, Sequence) or not all(isinstance(file, str | Path) for file in given):
        raise ConfigError(
            "not a catalog",
            expected="a YAML file of classes, a list of such files, or a Catalog",
            found=repr(given),
        )
    return load_catalog(*map(Path, given))


def read_ct(path: Path | str) -> Volume:
    """Read a CT: NIfTI, NRRD, MHA, or a folder with one DICOM series. HU, LPS mm."""
    return _read_ct(Path(path))


def read_masks(
    sources: str | Path | Iterable[str | Path], ct: Volume, catalog: Classes | None = None
) -> LabelVolume:
    """Read masks onto a CT's lattice.

    Parameters
    ----------
    sources
        One or several, in order of precedence: ``"masks.nii.gz=totalsegmentator_v2"``, or a folder with one file per
        class. A vocabulary may carry labels of its own: ``totalsegmentator_v2+118:costal_cartilages``.
    ct
        The CT that they belong to.
    catalog
        A YAML file of your own classes, a list of such files, or a `Catalog`; the built-in classes by default.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    return _read_masks([parse_source(source) for source in sources], ct.grid, _catalog(catalog))


def segment(
    ct: Volume,
    labels: LabelVolume | None = None,
    *,
    segmenter: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: Device = "auto",
    catalog: Classes | None = None,
) -> LabelVolume:
    """Find the body in a CT (without the table) and what was not scanned, and add both to the labels.

    Parameters
    ----------
    ct
        HU.
    labels
        Masks that exist already: what a segmenter finds comes after them.
    segmenter
        Also find classes by ``thorax`` (built in; no weights, no GPU) or any other of
        `paxray.segmentation.registry.segmenter_names`.
    settings
        The segmenter's own.
    device
        ``auto``, ``cpu`` or ``cuda``, for segmenters that can use a GPU.
    catalog
        A YAML file of your own classes, a list of such files, or a `Catalog`; the built-in classes by default.

    Returns
    -------
    Labels whose ``notes`` say why a class is unknown, and whose ``confidence`` rates those that the segmenter rates.
    """
    builder = LabelBuilder(ct.shape) if labels is None else LabelBuilder.resume(labels)
    names = [] if labels is None else list(labels.names)
    if segmenter is not None:
        from paxray.segmentation.checked import device_of, run_segmenter
        from paxray.segmentation.registry import make_segmenter

        chosen = make_segmenter(segmenter, settings)
        where = device_of(chosen, resolve_device(device))
        chosen.preflight(where)
        found = run_segmenter(chosen, ct, _catalog(catalog), device=where)
        builder.add_labels(found)
        names += [name for name in found.names if name not in names]
    elif settings:
        raise ConfigError("settings are a segmenter's", do="segment(ct, segmenter=NAME, settings=...)")
    return with_body(ct, builder.build(ct.affine, names))[0]


def derive(
    labels: LabelVolume,
    catalog: Classes | None = None,
    ct: Volume | None = None,
    names: Iterable[str] | None = None,
) -> LabelVolume:
    """Add the catalog's derived classes: lungs, ribs, spine; mediastinum, lung zones, ribs in two, ...

    Parameters
    ----------
    labels
        Masks, with the body (`segment`).
    catalog
        A YAML file of your own classes, a list of such files, or a `Catalog`; the built-in classes by default.
    ct
        Needed by classes that go by HU (lung vessels, fat); without it they are unknown.
    names
        Classes wanted; all by default. Nothing is computed that none of them needs.

    Returns
    -------
    The labels; their ``notes`` say why a class is unknown, or what stood in for a landmark.

    Raises
    ------
    ConfigError
        Code ``film_class``: a class of the film is wanted, which has no voxels.
    """
    known = _catalog(catalog)
    wanted = None if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted or ():
        if known.knows(name) and known[known.resolve(name)].film is not None:
            raise ConfigError(
                f"'{name}' is a class of the film", do=suggest_class(name, ()), code="film_class"
            )
    return _derive(labels, known, ct, wanted)


def _body_of(labels: LabelVolume) -> NDArray[np.bool_]:
    if not isinstance(labels, LabelVolume):
        raise ConfigError(
            "labels with a body are needed",
            expected="LabelVolume",
            found=type(labels).__name__,
            do="labels = paxray.segment(ct)",
        )
    if BODY not in labels.names or labels.status[BODY] not in (Status.PRESENT, Status.PARTIAL):
        raise ConfigError("the labels have no body", do="labels = paxray.segment(ct, labels)")
    return labels.mask(BODY)


def attenuate(
    ct: Volume, labels: LabelVolume | None = None, *, energy_kev: float = 65.0, ct_energy_kev: float = 70.0
) -> Volume:
    """Map HU to attenuation per mm; with labels, everything outside their body (the table) is removed."""
    if not isinstance(ct, Volume):
        raise ConfigError(
            "a CT is needed",
            expected="Volume",
            found=type(ct).__name__,
            do="ct = paxray.read_ct(path), or paxray.io.volume.Volume(array, affine)",
        )
    keep = None if labels is None else _body_of(labels)
    return _attenuate(ct, keep, energy_kev=energy_kev, ct_energy_kev=ct_energy_kev)


def decompose(ct: Volume, labels: LabelVolume | None = None, *, ct_energy_kev: float = 70.0) -> Materials:
    """Read HU as shares of water and cortical bone, for ``project(..., want=["materials"], materials=...)``.

    Each comes out in mm: the thickness of pure water and of pure bone that a ray crosses. Weighted by their
    attenuation at any energy they add up to what `attenuate` gives at that energy. Contrast agent and metal read as
    bone, since HU do not tell them apart. With labels, everything outside their body (the table) is air.

    Parameters
    ----------
    ct
        HU; int16 is read as it is stored, anything else is rounded to it.
    """
    stored = ct.array
    if stored.dtype != np.int16:
        for k, plane in enumerate(stored):
            require_finite(plane, k)
        stored = np.clip(np.rint(stored), -(2**15), 2**15 - 1).astype(np.int16)
    if labels is not None:
        body = _body_of(labels)
        if body.shape != stored.shape:
            raise CaseError(
                "the body mask is not on the CT's grid",
                expected=f"shape {stored.shape}",
                found=f"shape {body.shape}",
                code="mask_mismatch",
            )
        stored = np.where(body, stored, np.int16(AIR_HU))
    hu = np.arange(AIR_HU, 2**15)
    return Materials(BASIS, stored, basis_of_hu(hu, ct_energy_kev=ct_energy_kev).astype(np.float32), AIR_HU)


def place(pose: Pose | str, labels: LabelVolume, setup: Setup | None = None, **changes: Any) -> View:
    """Put a view at the patient.

    Parameters
    ----------
    pose
        ``pa``, ``ap``, ``lateral_left``, ``lateral_right``, ``rao``, ``lao``, ``rpo``, ``lpo``, or a `Pose`.
    labels
        With a body (`segment`).
    setup, changes
        Beam and detector; single settings by name, e.g. ``beam="parallel"`` or ``size=(1024, 1024)``.
    """
    if not isinstance(pose, Pose | str):
        raise ConfigError(
            "a view is placed by the name of a pose or by a pose",
            expected="'pa', or paxray.projection.pose.Pose('tilted', azimuth_deg=20)",
            found=type(pose).__name__,
        )
    body = _body_of(labels)
    known = [field.name for field in fields(Setup)]
    for name in changes:
        if name not in known:
            raise ConfigError(f"a setup has no '{name}'", expected=", ".join(known), do=suggest(name, known))
    size = changes.get("size")
    if isinstance(size, int):
        raise ConfigError(
            "a detector's size is rows and columns", found=str(size), do=f"size=({size}, {size})"
        )
    chosen = replace(setup or Setup(), **changes)
    return _place(
        Pose.named(pose) if isinstance(pose, str) else pose,
        chosen,
        body_extent(body, labels.grid),
        body_faces(body, labels.grid),
    )


def render(projection: Projection, display: Display | None = None) -> NDArray[np.uint8]:
    """Draw the 8-bit radiograph, bone white."""
    if projection.image is None:
        raise ConfigError("the projection has no image", do="project(..., want=['image', ...])")

    def in_numpy(array: Any) -> Any:
        return array if array is None or isinstance(array, np.ndarray) else array.detach().cpu().numpy()

    return render_display(in_numpy(projection.image), display, in_numpy(projection.incomplete))[0]


def build(
    pipeline: Pipeline | Path | str,
    cases: Path | str,
    out: Path | str,
    *,
    workers: int = 0,
    device: Any = "auto",
    update: bool = False,
    retry_failed: bool = False,
    limit: int | None = None,
    segmentations: Path | str | None = None,
    on_plan: Callable[[BuildPlan], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> BuildResult:
    """Build a data set, or complete one: what ``paxray build`` does.

    With `workers` the calling script needs the usual ``if __name__ == "__main__":``.
    """
    from paxray.config import load_pipeline
    from paxray.io.cases import read_case_table
    from paxray.run import build as _build

    if isinstance(pipeline, str | Path):
        pipeline = load_pipeline(Path(pipeline))
    table = Path(cases)
    rows = read_case_table(table)
    return _build(
        pipeline,
        rows,
        Path(out),
        table=table,
        workers=workers,
        device=device,
        update=update,
        retry_failed=retry_failed,
        limit=limit,
        segmentations=None if segmentations is None else Path(segmentations),
        on_plan=on_plan,
        on_event=on_event,
    )
