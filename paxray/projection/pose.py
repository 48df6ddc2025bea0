"""Named poses (``pa``, ``lateral_left``, ``{azimuth, elevation, roll}``) and placing them at a patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paxray.errors import ConfigError, suggest
from paxray.projection.view import Beam, View

Float64 = NDArray[np.float64]

#: Azimuth in degrees of each named pose: 0 is `pa`, positive turns the detector to the patient's left.
NAMED_AZIMUTH_DEG: dict[str, float] = {
    "pa": 0.0,
    "ap": 180.0,
    "lateral_left": 90.0,
    "lateral_right": -90.0,
    "rao": -45.0,
    "lao": 45.0,
    "rpo": -135.0,
    "lpo": 135.0,
}

#: What people call views otherwise; suggested, never taken, since each leaves something open.
_OTHER_WORDS = {
    "frontal": "pa",
    "front": "pa",
    "posteroanterior": "pa",
    "anteroposterior": "ap",
    "lateral": "lateral_left",
}


def spelt_as_named(word: str) -> str:
    """Return the named pose that a word means, whatever its case, blanks or hyphens; else the word as it is."""
    plain = word.strip().lower().replace("-", "_").replace(" ", "_")
    return plain if plain in NAMED_AZIMUTH_DEG else word


def suggest_view(word: str) -> str:
    """Return ``"did you mean 'pa'?"`` for the named pose nearest in spelling or meaning, or an empty string."""
    meant = _OTHER_WORDS.get(word.strip().lower())
    return suggest(meant or word.lower(), NAMED_AZIMUTH_DEG)


_OWN = "a pose of your own: name, azimuth_deg, elevation_deg, roll_deg"


@dataclass(frozen=True)
class Pose:
    """A direction of the beam and the orientation of the picture.

    Parameters
    ----------
    name
        One of `NAMED_AZIMUTH_DEG` or a name of one's own.
    azimuth_deg
        0: detector at the chest (``pa``); positive turns the detector to the patient's left.
    elevation_deg
        Positive raises the detector.
    roll_deg
        Turns the detector clockwise as the observer sees it (so the picture's content turns the other way).
    mirrored
        ``ap`` alone is mirrored, so that all frontal images show the patient's right on image left.
    """

    name: str
    azimuth_deg: float
    elevation_deg: float = 0.0
    roll_deg: float = 0.0
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite([self.azimuth_deg, self.elevation_deg, self.roll_deg]).all():
            raise ConfigError(f"pose '{self.name}': angles must be finite degrees", found=str(self))
        if abs(self.elevation_deg) > 90:
            raise ConfigError(
                f"pose '{self.name}': elevation", expected="-90 to 90 degrees", found=str(self.elevation_deg)
            )

    @classmethod
    def named(cls, name: str, *, angle_deg: float | None = None) -> Pose:
        """Return a named pose, whatever the name's case; `angle_deg` replaces the 45 degrees of the obliques."""
        name = spelt_as_named(name)
        if name not in NAMED_AZIMUTH_DEG:
            raise ConfigError(
                f"unknown view '{name}'",
                expected="one of "
                + ", ".join(NAMED_AZIMUTH_DEG)
                + ", or a pose of your own: name, azimuth_deg, elevation_deg, roll_deg",
                do=suggest_view(name),
            )
        azimuth = NAMED_AZIMUTH_DEG[name]
        if angle_deg is not None:
            if name not in ("rao", "lao", "rpo", "lpo"):
                raise ConfigError(
                    f"view '{name}' takes no angle",
                    do=f"give {_OWN}",
                )
            sign = 1.0 if azimuth > 0 else -1.0
            azimuth = sign * (angle_deg if abs(azimuth) < 90 else 180 - angle_deg)
        return cls(name=name, azimuth_deg=azimuth, mirrored=name == "ap")

    def axes(self) -> tuple[Float64, Float64, Float64]:
        """Return unit ``(direction, u, v)`` in LPS: source to detector, image right, image down."""
        azimuth, elevation, roll = np.radians([self.azimuth_deg, self.elevation_deg, self.roll_deg])
        sin_a, cos_a = _exact_sin_cos(azimuth)
        sin_e, cos_e = _exact_sin_cos(elevation)
        direction = np.array([cos_e * sin_a, -cos_e * cos_a, sin_e])
        right = np.array([cos_a, sin_a, 0.0])
        down = np.cross(right, direction)
        if self.mirrored:
            right = -right
        sin_r, cos_r = _exact_sin_cos(roll)
        u = cos_r * right + sin_r * down
        v = -sin_r * right + cos_r * down
        # + 0.0 turns -0.0 into 0.0: geometry is stored, and a negative zero only puzzles readers.
        return direction + 0.0, u + 0.0, v + 0.0


def _exact_sin_cos(radians: float) -> tuple[float, float]:
    """Sine and cosine with multiples of a right angle exact, so that ``pa`` has no component of 6e-17."""
    sine, cosine = float(np.sin(radians)), float(np.cos(radians))
    if abs(sine) < 1e-15:
        return 0.0, float(np.sign(cosine))
    if abs(cosine) < 1e-15:
        return float(np.sign(sine)), 0.0
    return sine, cosine


@dataclass(frozen=True)
class Setup:
    """How a view is set up at the patient, before the patient is known.

    Parameters
    ----------
    beam
        ``cone`` or ``parallel``.
    sdd_mm
        Source-to-detector distance; 1800 mm is the usual chest film. For a parallel beam: how far before
        the detector the plane lies from which depth is counted.
    size
        ``(rows, columns)`` of the detector.
    field_mm
        Side of the square detector, or ``fit``: just what shows the body, plus `margin_mm` on each side.
        A detector that is not square in pixels keeps its longer side.
    margin_mm
        Free border when fitting.
    air_gap_mm
        Distance from the body to the detector.
    complete_rows
        Keep only the rows whose rays cross the scan from side to side, leaving out those that leave
        through its first or last slice; the picture gets fewer rows.
    """

    beam: Beam = "cone"
    sdd_mm: float = 1800.0
    size: tuple[int, int] = (512, 512)
    field_mm: float | Literal["fit"] = "fit"
    margin_mm: float = 10.0
    air_gap_mm: float = 0.0
    complete_rows: bool = False


def place(
    pose: Pose, setup: Setup, extent_mm: ArrayLike, faces_mm: Sequence[ArrayLike] | None = None
) -> View:
    """Put the detector against the patient and aim the beam at the middle of the body.

    Parameters
    ----------
    pose, setup
        What is wanted.
    extent_mm
        ``(n, 3)`` points whose hull is the body (or the volume's corners): LPS mm.
    faces_mm
        The body's points ``(m, 3)`` in the scan's first and in its last slice (either may be empty), needed
        for `Setup.complete_rows`.

    Returns
    -------
    View
        Central ray through the middle of the body's extent as seen along the beam, perpendicular to the
        detector; square pixels.
    """
    points = np.asarray(extent_mm, dtype=np.float64).reshape(-1, 3)
    if len(points) == 0:
        raise ConfigError(
            "cannot place a view: no body extent", do="give the body's points or the volume's corners"
        )
    direction, u, v = pose.axes()
    along = points @ direction
    middle = sum(
        axis * (((points @ axis).min() + (points @ axis).max()) / 2) for axis in (u, v)
    ) + direction * ((along.min() + along.max()) / 2)
    center = middle + direction * (along.max() + setup.air_gap_mm - middle @ direction)
    source = center - direction * setup.sdd_mm
    if setup.beam == "cone" and along.min() <= source @ direction:
        raise ConfigError(
            f"view '{pose.name}': the source stands inside the body",
            expected=f"source-to-detector distance beyond {along.max() - along.min():.0f} mm",
            found=f"{setup.sdd_mm:g} mm",
        )
    rows, columns = setup.size

    def spread(what: Float64) -> tuple[Float64, Float64]:
        """Positions on the detector plane, mm from its middle along u and v."""
        relative = what - center
        scale = setup.sdd_mm / ((what - source) @ direction) if setup.beam == "cone" else np.ones(len(what))
        return relative @ u * scale, relative @ v * scale

    on_u, on_v = spread(points)
    low, high = on_v.min(), on_v.max()
    if setup.complete_rows:
        if faces_mm is None:
            raise ConfigError(f"view '{pose.name}': complete_rows needs the scan's first and last slice")
        shadows = [spread(np.asarray(face, dtype=np.float64).reshape(-1, 3))[1] for face in faces_mm]
        low, high = _complete_rows(shadows, float(low), float(high), pose.name)
        center = center + v * (low + high) / 2
    if setup.field_mm == "fit":
        half_u = float(np.abs(on_u).max()) + setup.margin_mm
        half_v = float(np.abs(on_v).max()) + setup.margin_mm
        pitch = 2 * half_u / columns
        if not setup.complete_rows:
            pitch = max(pitch, 2 * half_v / rows)
    else:
        pitch = float(setup.field_mm) / max(rows, columns)
    if setup.complete_rows:
        rows = max(1, min(rows, int((high - low) / pitch)))
    return View(
        name=pose.name,
        beam=setup.beam,
        source_mm=source,
        direction=direction,
        center_mm=center,
        u=u,
        v=v,
        pitch_mm=(pitch, pitch),
        size=(rows, columns),
    )


def _complete_rows(faces_v: list[Float64], low: float, high: float, name: str) -> tuple[float, float]:
    """Rows (mm along v) that lie beyond the shadow of neither end slice.

    The shadow of a slice's part of the body is an interval of v; a ray that lands inside it may cross the
    slice, one that lands between the two shadows crosses neither.
    """
    middle = (low + high) / 2
    for face in faces_v:
        if len(face) == 0:
            continue
        if face.mean() < middle:
            low = max(low, float(face.max()))
        else:
            high = min(high, float(face.min()))
    if high - low <= 0:
        raise ConfigError(
            f"view '{name}': no row is complete", do="use complete_rows only with views across the long axis"
        )
    return low, high
