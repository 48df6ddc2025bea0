"""Who is imaged: the few numbers from which a procedural thorax is grown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from paxray.errors import ConfigError

# (low, high) of every numeric field: what the geometry has been drawn and looked at for.
LIMITS: dict[str, tuple[float, float]] = {
    "height_mm": (1480.0, 2000.0),
    "width_scale": (0.9, 1.1),
    "depth_scale": (0.88, 1.14),
    "habitus": (0.0, 1.0),
    "muscle": (0.0, 1.0),
    "heart_scale": (0.88, 1.14),
    "inspiration": (0.0, 1.0),
    "age_years": (20.0, 90.0),
    "kyphosis_mm": (-6.0, 16.0),
    "scoliosis_mm": (-8.0, 8.0),
}


@dataclass(frozen=True)
class Patient:
    """A person as a handful of independent dials; everything else follows from them and from `seed`.

    Parameters
    ----------
    seed
        Drives what no dial names: the branching of the lung vessels, small asymmetries, noise.
    sex
        ``"F"`` or ``"M"``: size, breasts, muscle.
    height_mm
        Standing height; lengths along the body scale with it.
    width_scale, depth_scale
        Girth of the rib cage, left-right and front-back, relative to the mean of that sex and height.
    habitus
        0 slim .. 1 obese: thickness of subcutaneous and visceral fat.
    muscle
        0 slight .. 1 athletic: thickness of the muscles.
    heart_scale
        Linear size of the heart relative to the mean; 1 gives a cardiothoracic ratio near 0.46.
    inspiration
        0 end of a quiet expiration .. 1 full inspiration: level of the diaphragm, lift of the ribs.
    age_years
        Unfolds the aorta and thins the marrow.
    kyphosis_mm, scoliosis_mm
        Additional sagittal and lateral bow of the whole trunk, amplitude.

    Raises
    ------
    ConfigError
        A value outside `LIMITS` or an unknown sex (code ``bad_patient``).
    """

    seed: int
    sex: Literal["F", "M"] = "M"
    height_mm: float = 1750.0
    width_scale: float = 1.0
    depth_scale: float = 1.0
    habitus: float = 0.35
    muscle: float = 0.5
    heart_scale: float = 1.0
    inspiration: float = 0.75
    age_years: float = 50.0
    kyphosis_mm: float = 0.0
    scoliosis_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(
                "a patient's seed cannot be negative",
                where="Patient.seed",
                expected="an integer of at least 0",
                found=str(self.seed),
                code="bad_patient",
            )
        if self.sex not in ("F", "M"):
            raise ConfigError(
                "unknown sex of a phantom patient",
                where="Patient.sex",
                expected="'F' or 'M'",
                found=repr(self.sex),
                code="bad_patient",
            )
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    "a phantom patient's value is outside what the anatomy is made for",
                    where=f"Patient.{name}",
                    expected=f"{low:g} to {high:g}",
                    found=f"{value:g}",
                    code="bad_patient",
                )

    @classmethod
    def from_seed(cls, seed: int) -> Patient:
        """Draw a patient; the same seed gives the same patient for ever (PCG64)."""
        rng = np.random.default_rng(seed)

        def normal(name: str, mean: float, sd: float) -> float:
            low, high = LIMITS[name]
            return float(np.clip(rng.normal(mean, sd), low, high))

        sex: Literal["F", "M"] = "F" if rng.random() < 0.5 else "M"
        female = sex == "F"
        return cls(
            seed=seed,
            sex=sex,
            height_mm=normal("height_mm", 1640.0 if female else 1765.0, 65.0),
            width_scale=normal("width_scale", 1.0, 0.035),
            depth_scale=normal("depth_scale", 1.0, 0.05),
            habitus=float(rng.beta(2.0, 3.0)),
            muscle=normal("muscle", 0.4 if female else 0.55, 0.17),
            heart_scale=normal("heart_scale", 1.0, 0.05),
            inspiration=float(0.35 + 0.65 * rng.beta(3.5, 1.5)),
            age_years=float(rng.uniform(25.0, 85.0)),
            kyphosis_mm=normal("kyphosis_mm", 2.0, 4.0),
            scoliosis_mm=normal("scoliosis_mm", 0.0, 2.5),
        )

    @property
    def scale_xyz(self) -> tuple[float, float, float]:
        """Patient mm per mm of the reference body (a man of 1750 mm) along x, y and z."""
        tall = self.height_mm / 1750.0
        girth = 0.5 + 0.5 * tall  # tall people are wider, but less than in proportion
        female = self.sex == "F"
        wide = (0.95 if female else 1.0) * girth * self.width_scale
        deep = (0.93 if female else 1.0) * girth * self.depth_scale
        return wide, deep, tall

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a table or a JSON file."""
        return asdict(self)

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of the fields, in order."""
        return tuple(field.name for field in fields(cls))
