"""A view: where the beam comes from, where the detector stands, and the matrix that ties mm to pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paxray.errors import ConfigError

Float64 = NDArray[np.float64]
Beam = Literal["parallel", "cone"]


@dataclass(frozen=True, eq=False)
class View:
    """A pose, a beam and a detector, all in LPS mm.

    Parameters
    ----------
    name
        What people call it (``pa``, ``lateral_left``, ...).
    beam
        ``cone``: rays from `source_mm` to each pixel centre. ``parallel``: rays along `direction`.
    source_mm
        ``(3,)``. Cone: the focal spot. Parallel: a point of the plane, perpendicular to the rays, from
        which depth is counted.
    direction
        ``(3,)`` unit vector from source to detector: the rays of a parallel beam, the central ray of a cone.
    center_mm
        ``(3,)`` middle of the detector.
    u, v
        ``(3,)`` unit vectors along a row (to image right) and down a column; perpendicular to each other.
    pitch_mm
        ``(pitch_u, pitch_v)``: distance of neighbouring pixel centres along u and v.
    size
        ``(rows, columns)``.
    """

    name: str
    beam: Beam
    source_mm: Float64
    direction: Float64
    center_mm: Float64
    u: Float64
    v: Float64
    pitch_mm: tuple[float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        for key in ("source_mm", "direction", "center_mm", "u", "v"):
            vector = np.array(getattr(self, key), dtype=np.float64).reshape(3)
            if not np.isfinite(vector).all():
                raise ConfigError(f"view '{self.name}': {key} is not finite", found=str(vector))
            vector.setflags(write=False)
            object.__setattr__(self, key, vector)
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        object.__setattr__(self, "pitch_mm", (float(self.pitch_mm[0]), float(self.pitch_mm[1])))
        self._check()

    def _check(self) -> None:
        def bad(what: str, expected: str, found: object) -> ConfigError:
            return ConfigError(f"view '{self.name}': {what}", expected=expected, found=str(found))

        if self.beam not in ("parallel", "cone"):
            raise bad("unknown beam", "'parallel' or 'cone'", self.beam)
        for key in ("u", "v", "direction"):
            length = float(np.linalg.norm(getattr(self, key)))
            if abs(length - 1) > 1e-9:
                raise bad(f"{key} is not a unit vector", "length 1", length)
        if abs(self.u @ self.v) > 1e-9:
            raise bad("u and v are not perpendicular", "u . v = 0", float(self.u @ self.v))
        if min(self.pitch_mm) <= 0 or not np.isfinite(self.pitch_mm).all():
            raise bad("pixel pitch", "> 0 mm", self.pitch_mm)
        if min(self.size) < 1:
            raise bad("detector size", "at least one row and one column", self.size)
        if self.beam == "cone" and (self.center_mm - self.source_mm) @ self._normal <= 0:
            raise bad(
                "the source lies on or behind the detector", "source before the detector", self.source_mm
            )
        if abs(self.direction @ self._normal) < 1e-6:
            raise bad("the rays run along the detector", "rays that cross the detector", self.direction)

    @property
    def rows(self) -> int:
        """Number of detector rows (image height)."""
        return self.size[0]

    @property
    def columns(self) -> int:
        """Number of detector columns (image width)."""
        return self.size[1]

    @cached_property
    def _normal(self) -> Float64:
        """Unit normal of the detector, pointing away from the source."""
        normal = np.cross(self.u, self.v)
        return normal if normal @ self.direction > 0 else -normal

    @property
    def sdd_mm(self) -> float:
        """Distance from the source (parallel: the depth plane) to the detector plane along its normal."""
        return float((self.center_mm - self.source_mm) @ self._normal)

    @property
    def pixel_area_mm2(self) -> float:
        """Area of one pixel on the detector."""
        return self.pitch_mm[0] * self.pitch_mm[1]

    @cached_property
    def first_pixel_mm(self) -> Float64:
        """``(3,)`` world position of the centre of pixel (column 0, row 0)."""
        return (
            self.center_mm
            - self.u * self.pitch_mm[0] * (self.columns - 1) / 2
            - self.v * self.pitch_mm[1] * (self.rows - 1) / 2
        )

    def pixel_mm(self, column: ArrayLike, row: ArrayLike) -> Float64:
        """``(..., 3)`` world position of pixel centres; column and row may be fractional."""
        column, row = np.broadcast_arrays(np.asarray(column, float), np.asarray(row, float))
        return (
            self.first_pixel_mm
            + column[..., None] * self.pitch_mm[0] * self.u
            + row[..., None] * self.pitch_mm[1] * self.v
        )

    def ray(self, column: ArrayLike, row: ArrayLike) -> tuple[Float64, Float64]:
        """Return ``(origin, unit direction)``, each ``(..., 3)``; depth 0 lies at the origin."""
        pixel = self.pixel_mm(column, row)
        if self.beam == "cone":
            toward = pixel - self.source_mm
            return (
                np.broadcast_to(self.source_mm, pixel.shape).copy(),
                toward / np.linalg.norm(toward, axis=-1, keepdims=True),
            )
        back = (pixel - self.source_mm) @ self.direction
        return pixel - back[..., None] * self.direction, np.broadcast_to(self.direction, pixel.shape).copy()

    def finer(self, factor: int) -> View:
        """The same detector with each pixel cut into ``factor x factor``.

        Fine pixels ``factor * column .. factor * column + factor - 1`` (rows alike) tile the coarse pixel, and
        their centres average to its centre.
        """
        if factor < 1 or int(factor) != factor:
            raise ConfigError("a pixel is cut into a whole number of parts", found=str(factor))
        return replace(
            self,
            pitch_mm=(self.pitch_mm[0] / factor, self.pitch_mm[1] / factor),
            size=(self.rows * int(factor), self.columns * int(factor)),
        )

    def part(self, top: int, height: int) -> View:
        """The `height` rows from row `top` on, as a detector of their own: the same pixels, the same source."""
        if not (top >= 0 and height >= 1 and top + height <= self.rows):
            raise ConfigError(
                f"view '{self.name}': no such rows",
                expected=f"within 0 to {self.rows}",
                found=f"{top} to {top + height}",
            )
        down = (top + (height - 1) / 2 - (self.rows - 1) / 2) * self.pitch_mm[1]
        return replace(self, center_mm=self.center_mm + down * self.v, size=(height, self.columns))

    @cached_property
    def K(self) -> Float64 | None:  # noqa: N802
        """``(3, 3)`` intrinsic matrix of a cone (px), or None for a parallel beam.

        ``K[0, 0]`` is negative in images seen from the detector: R is a proper rotation whose z runs from
        source to detector, so its x points to image left.
        """
        if self.beam != "cone":
            return None
        to_center = self.center_mm - self.source_mm
        side = -1.0 if np.cross(self.u, self.v) @ self._normal < 0 else 1.0
        foot_u = -(to_center @ self.u) / self.pitch_mm[0] + (self.columns - 1) / 2
        foot_v = -(to_center @ self.v) / self.pitch_mm[1] + (self.rows - 1) / 2
        return np.array(
            [
                [side * self.sdd_mm / self.pitch_mm[0], 0.0, foot_u],
                [0.0, self.sdd_mm / self.pitch_mm[1], foot_v],
                [0.0, 0.0, 1.0],
            ]
        )

    @cached_property
    def R(self) -> Float64:  # noqa: N802
        """``(3, 3)`` proper rotation from world to camera axes: y down the image, z to the detector."""
        return np.stack([np.cross(self.v, self._normal), self.v, self._normal])

    @cached_property
    def t(self) -> Float64:
        """``(3,)`` translation: camera coordinates are ``R @ world + t``, the source at the origin."""
        return -self.R @ self.source_mm

    @cached_property
    def matrix(self) -> Float64:
        """``(3, 4)`` from world mm ``(x, y, z, 1)`` to homogeneous pixel centres ``(column, row, 1)``.

        Depth-positive for a cone (third component in mm of camera z); the last row of a parallel beam is
        ``(0, 0, 0, 1)``.
        """
        if self.K is not None:
            return self.K @ np.column_stack([self.R, self.t])
        # world = first_pixel + column pu u + row pv v + s direction, solved for column and row.
        basis = np.column_stack([self.u * self.pitch_mm[0], self.v * self.pitch_mm[1], self.direction])
        solve = np.linalg.inv(basis)
        out = np.zeros((3, 4))
        out[:2, :3] = solve[:2]
        out[:2, 3] = -solve[:2] @ self.first_pixel_mm
        out[2, 3] = 1.0
        return out

    def project_points(self, world_mm: ArrayLike) -> Float64:
        """``(..., 2)`` pixel ``(column, row)`` of world points ``(..., 3)``; NaN where a cone's source does not see."""
        world = np.asarray(world_mm, dtype=np.float64)
        homogeneous = world @ self.matrix[:, :3].T + self.matrix[:, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixel = homogeneous[..., :2] / homogeneous[..., 2:]
        pixel[homogeneous[..., 2] <= 0] = np.nan
        return pixel

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild the view, as plain lists, plus the derived matrices."""
        return {
            "view": self.name,
            "beam": self.beam,
            "rows": self.rows,
            "columns": self.columns,
            "pitch_u_mm": self.pitch_mm[0],
            "pitch_v_mm": self.pitch_mm[1],
            "sdd_mm": self.sdd_mm,
            "source_mm": self.source_mm.tolist(),
            "direction": self.direction.tolist(),
            "center_mm": self.center_mm.tolist(),
            "u": self.u.tolist(),
            "v": self.v.tolist(),
            "matrix": self.matrix.ravel().tolist(),
            "K": None if self.K is None else self.K.ravel().tolist(),
            "R": self.R.ravel().tolist(),
            "t": self.t.tolist(),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> View:
        """Rebuild a view from `to_dict`; the derived matrices in it are not read."""
        return cls(
            name=stored["view"],
            beam=stored["beam"],
            source_mm=stored["source_mm"],
            direction=stored["direction"],
            center_mm=stored["center_mm"],
            u=stored["u"],
            v=stored["v"],
            pitch_mm=(stored["pitch_u_mm"], stored["pitch_v_mm"]),
            size=(stored["rows"], stored["columns"]),
        )
