"""The pipeline file: what to build, every key checked, every unknown key an error that suggests the nearest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from paxray.errors import ConfigError, suggest
from paxray.plausibility.rules import RULES
from paxray.projection.pose import NAMED_AZIMUTH_DEG, Pose, Setup, spelt_as_named, suggest_view
from paxray.radiography.display import Display

#: Settings that say how to run or what to call it, not what comes out: no part of a fingerprint.
RUNTIME_KEYS = ("name", "description")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ViewConfig(_Strict):
    """One view: a named pose, or angles of one's own under a name of one's own."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    azimuth_deg: float | None = None
    elevation_deg: float = 0.0
    roll_deg: float = 0.0

    def pose(self) -> Pose:
        """The pose that this entry names."""
        if self.azimuth_deg is None:
            named = Pose.named(self.name)
            return Pose(
                self.name, named.azimuth_deg, self.elevation_deg, self.roll_deg, mirrored=named.mirrored
            )
        return Pose(self.name, self.azimuth_deg, self.elevation_deg, self.roll_deg)

    @model_validator(mode="after")
    def _known(self) -> ViewConfig:
        if self.azimuth_deg is None and self.name not in NAMED_AZIMUTH_DEG:
            hint = suggest_view(self.name)
            raise ValueError(
                f"unknown view '{self.name}'; known: {', '.join(NAMED_AZIMUTH_DEG)}; "
                f"one of your own needs azimuth_deg{'; ' + hint if hint else ''}"
            )
        return self


def _view_from_word(entry: Any) -> Any:
    return {"name": spelt_as_named(entry)} if isinstance(entry, str) else entry


class GeometryConfig(_Strict):
    """Beam and detector, the same for every view."""

    beam: Literal["cone", "parallel"] = "cone"
    sdd_mm: float = Field(1800.0, gt=0)
    rows: int = Field(512, ge=1, le=16384)
    columns: int = Field(512, ge=1, le=16384)
    field_mm: float | Literal["fit"] = "fit"
    margin_mm: float = Field(10.0, ge=0)
    air_gap_mm: float = Field(0.0, ge=0)
    complete_rows: bool = False

    @field_validator("field_mm")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if isinstance(value, float) and value <= 0:
            raise ValueError("field_mm must be 'fit' or a length > 0 mm")
        return value

    def setup(self) -> Setup:
        """The same as `paxray.projection.pose.Setup`."""
        return Setup(
            beam=self.beam,
            sdd_mm=self.sdd_mm,
            size=(self.rows, self.columns),
            field_mm=self.field_mm,
            margin_mm=self.margin_mm,
            air_gap_mm=self.air_gap_mm,
            complete_rows=self.complete_rows,
        )


class PhysicsConfig(_Strict):
    """HU to attenuation."""

    energy_kev: float = Field(65.0, ge=20, le=200)
    ct_energy_kev: float = Field(70.0, ge=20, le=200)


class DisplayConfig(_Strict):
    """The 8-bit picture; see `paxray.radiography.display.Display`."""

    compression: float = Field(Display.compression, gt=0, le=1)
    detail: float = Field(Display.detail, ge=0)
    detail_radius: float = Field(Display.detail_radius, gt=0, lt=1)
    edge: float = Field(Display.edge, ge=0)
    edge_radius: float = Field(Display.edge_radius, gt=0, lt=1)
    low_percentile: float = Field(Display.low_percentile, ge=0, lt=50)
    high_percentile: float = Field(Display.high_percentile, gt=50, le=100)
    slope: float = Field(Display.slope, ge=0)
    base: float = Field(Display.base, ge=0, lt=1)

    def display(self) -> Display:
        """The same as a plain value."""
        return Display(**self.model_dump())


class LabelsConfig(_Strict):
    """Which classes come out, and how mask values are named.

    Attributes
    ----------
    classes, exclude
        ``all``, the name of a vocabulary whose channels are wanted (``paxray_166``), or a list of classes, in which
        ``set:NAME`` stands for a vocabulary's.
    """

    classes: str | list[str] = "all"
    exclude: list[str] = []
    catalog: str | None = None
    vocabularies: dict[str, dict[int, str]] = {}


#: What follows from each finding, by its name; see `paxray.plausibility.rules`.
PlausibilityConfig: Any = create_model(
    "PlausibilityConfig",
    __base__=_Strict,
    **{name: (Literal[rule.actions], rule.default) for name, rule in RULES.items()},  # type: ignore[call-overload]
)


class SegmenterConfig(BaseModel):
    """One segmenter; its settings stand beside its name and are its own to check."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1)

    @property
    def settings(self) -> dict[str, Any]:
        """All keys but the name."""
        return dict(self.model_extra or {})


def _segmenters(entry: Any) -> Any:
    """One segmenter or several, each a name or a mapping."""
    entries = entry if isinstance(entry, list) else [entry]
    return [{"name": one} if isinstance(one, str) else one for one in entries]


class SegmentationConfig(_Strict):
    """What segments the CTs, and which of them.

    Attributes
    ----------
    segmenter
        In order of precedence: a class is taken from the first that knows of it. Empty: none.
    combine
        What several make together: ``order``, or ``majority`` of those that know of a class.
    cases
        ``without_masks``, or ``all``: masks given with a case then come first.
    """

    segmenter: Annotated[list[SegmenterConfig], BeforeValidator(_segmenters)] = [
        SegmenterConfig(name="thorax")
    ]
    combine: Literal["order", "majority"] = "order"
    cases: Literal["without_masks", "all"] = "without_masks"

    @model_validator(mode="after")
    def _given_masks(self) -> SegmentationConfig:
        if any(one.name == "files" for one in self.segmenter):
            raise ValueError(
                "masks given with a case are always read, and come first: leave out 'files' (`cases: all` segments "
                "these cases too)"
            )
        return self


class SplitConfig(_Strict):
    """Shares of patients; `seed` is part of the hash that ranks them."""

    train: float = Field(0.7, ge=0)
    val: float = Field(0.1, ge=0)
    test: float = Field(0.2, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"shares must sum to 1, found {self.train + self.val + self.test:g}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Split to share, in order."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Pipeline(_Strict):
    """A whole pipeline, as a YAML file holds it."""

    name: str = Field(min_length=1)
    description: str = ""
    views: list[Annotated[ViewConfig, BeforeValidator(_view_from_word)]] = Field(min_length=1)
    geometry: GeometryConfig = GeometryConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    labels: LabelsConfig = LabelsConfig()
    plausibility: PlausibilityConfig = PlausibilityConfig()
    physics: PhysicsConfig = PhysicsConfig()
    display: DisplayConfig = DisplayConfig()
    splits: SplitConfig = SplitConfig()
    shard_cases: int = Field(8, ge=1)
    _base: Path = PrivateAttr(default_factory=Path)

    @property
    def base(self) -> Path:
        """Folder that paths in segmenters' settings are relative to: the file's."""
        return self._base

    def __eq__(self, other: object) -> bool:
        # Where the file lies is no setting.
        return isinstance(other, Pipeline) and self.model_dump() == other.model_dump()

    @model_validator(mode="after")
    def _unique_views(self) -> Pipeline:
        names = [view.name for view in self.views]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"view '{twice.pop()}' is listed twice; give views of one pose different names")
        return self

    def effective(self) -> dict[str, Any]:
        """Every setting, defaults filled in, as JSON values; files by their names alone."""
        content = self.model_dump(mode="json")
        for segmenter in content["segmentation"]["segmenter"]:
            for key, value in segmenter.items():
                if isinstance(value, str) and "/" in value:
                    segmenter[key] = Path(value).name
        if self.labels.catalog is not None:
            content["labels"]["catalog"] = Path(self.labels.catalog).name
        return content

    def content(self) -> dict[str, Any]:
        """`effective` without what does not change the outcome."""
        return {key: value for key, value in self.effective().items() if key not in RUNTIME_KEYS}


def load_pipeline(path: Path, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file.

    Parameters
    ----------
    path
        YAML.
    overrides
        ``a.b=value`` from the command line, value in YAML; they win over the file.

    Raises
    ------
    ConfigError
        Naming the file, the key, what was expected, and the nearest known key.
    """
    import yaml

    where = path.name
    if not path.is_file():
        raise ConfigError("no such pipeline file", where=str(path), do="ready ones are in pipelines/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("not valid YAML", where=where, found=str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError("a pipeline is a mapping of settings", where=where, found=type(content).__name__)
    for override in overrides or []:
        set_value(content, override)
    pipeline = parse_pipeline(content, where)
    if pipeline.labels.catalog is not None:
        # A path in the file is relative to the file.
        resolved = (path.parent / pipeline.labels.catalog).resolve()
        labels = pipeline.labels.model_copy(update={"catalog": str(resolved)})
        pipeline = pipeline.model_copy(update={"labels": labels})
    pipeline._base = path.parent.resolve()
    return pipeline


def parse_pipeline(content: Mapping[str, Any], where: str = "pipeline") -> Pipeline:
    """Check a pipeline given as a mapping; errors as in `load_pipeline`."""
    try:
        return Pipeline.model_validate(content)
    except ValidationError as error:
        raise _explain(error, where) from None


def parse_segmenter(text: str) -> SegmenterConfig:
    """Read one segmenter as a pipeline's list names it: ``thorax``, or ``{name: nnunet, model: my_model}``."""
    import yaml

    try:
        [entry] = _segmenters(yaml.safe_load(text))
        return SegmenterConfig.model_validate(entry)
    except (yaml.YAMLError, ValueError) as error:  # pydantic's are ValueErrors
        raise ConfigError(
            "not a segmenter",
            where="--segmenter",
            expected="a name, or {name: NAME, KEY: VALUE} in YAML",
            found=text,
            do="put blanks behind colons, and quotes around all of it",
        ) from error


def _explain(error: ValidationError, where: str) -> ConfigError:
    """The first complaint in the words of this package, the others counted."""
    complaints = error.errors()
    first = complaints[0]
    key = ".".join(
        str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal[", "list["))
    )
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = list(_keys_beside(first["loc"]))
        return ConfigError(
            f"unknown key '{key}'{more}",
            where=where,
            expected="one of " + ", ".join(known),
            do=suggest(str(first["loc"][-1]), known),
        )
    if first["type"] == "missing":
        return ConfigError(f"key '{key}' is missing{more}", where=where, do=f"add '{key}:'")
    found = json.dumps(first.get("input"), default=str)
    words = first.get("ctx", {}).get("expected", "") if first["type"] == "literal_error" else ""
    return ConfigError(
        f"{key or 'pipeline'}: {first['msg'].removeprefix('Value error, ')}{more}",
        where=where,
        found=found[:200],
        do=suggest(str(first.get("input")), re.findall(r"'(\w+)'", words)),
    )


def _keys_beside(location: tuple[Any, ...]) -> Iterator[str]:
    """Keys that would have been right where an unknown one stands."""
    model: Any = Pipeline
    for part in location[:-1]:
        if part == "views":
            model = ViewConfig
        elif isinstance(part, str) and hasattr(model, "model_fields") and part in model.model_fields:
            model = model.model_fields[part].annotation
    yield from getattr(model, "model_fields", {})


def set_value(content: dict[str, Any], override: str) -> None:
    """Apply one ``a.b=value`` of the command line, the value in YAML."""
    import yaml

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set needs KEY=VALUE", found=override, do="for example --set geometry.rows=1024")
    parts = key.split(".")
    here = content
    for part in parts[:-1]:
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: '{part}' is not a group of settings", found=str(inner))
        here = inner
    try:
        here[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not valid YAML", found=text) from error


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists to ``a.b`` keys, for showing differences."""
    if isinstance(content, Mapping):
        out: dict[str, Any] = {}
        for key, value in content.items():
            out.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return out
    return {prefix: content}
