"""What stages hand to each other of one case: the subject that its views share, and a shot of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paxray.anatomy.film import Film
from paxray.anatomy.labels import LabelVolume
from paxray.io.volume import Volume
from paxray.plausibility.rules import Action, Finding
from paxray.projection.project import Projection

if TYPE_CHECKING:
    from paxray.measured import Measured


@dataclass(frozen=True, eq=False)
class Subject:
    """A case made ready for projecting: attenuation and labels on one grid.

    Attributes
    ----------
    mu
        Attenuation per mm; the table removed.
    labels
        Sources, derived classes, `BODY`, and `UNSCANNED` where the scan has padding.
    classes
        What is to come out, in catalog order.
    cut_by_ct
        By class.
    measured
        Facts in 3D, landmarks, measures, lesions; None where that was not asked for.
    extent_mm
        Points whose hull is the body.
    faces_mm
        The body's points in the first and last slice along the patient.
    atom_boxes_ijk
        ``(n_atoms, 2, 3)``, see `atom_boxes`.
    films
        Those of `classes` that are of the film.
    findings
        What is implausible about the masks, and what was done about each.
    """

    mu: Volume
    labels: LabelVolume
    classes: tuple[str, ...]
    cut_by_ct: dict[str, bool]
    measured: Measured | None
    extent_mm: NDArray[np.float64]
    faces_mm: tuple[NDArray[np.float64], NDArray[np.float64]]
    atom_boxes_ijk: NDArray[np.int64]
    films: Mapping[str, Film] = field(default_factory=dict)
    findings: tuple[tuple[Finding, Action], ...] = ()


@dataclass(frozen=True, eq=False)
class Shot:
    """One view of a subject: the projection and the pictures made of it."""

    projection: Projection
    image: NDArray[np.uint8]
    appearance: dict[str, Any]
