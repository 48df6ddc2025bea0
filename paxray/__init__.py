"""paxray: annotated X-ray data sets made from CT. A research tool, not for clinical use.

The package's face is a handful of verbs::

    import paxray

    ct = paxray.read_ct("ct.nii.gz")
    labels = paxray.read_masks("masks.nii.gz=totalsegmentator_v2", ct)
    labels = paxray.derive(paxray.segment(ct, labels), ct=ct)
    view = paxray.place("pa", labels)
    projection = paxray.project(paxray.attenuate(ct, labels), labels, view)
    picture = paxray.render(projection)

    paxray.build("pipelines/chest.yaml", "cases.csv", "DATASET")
    for sample in paxray.load("DATASET"):
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paxray._version import __version__

if TYPE_CHECKING:
    from paxray.api import (
        attenuate,
        build,
        decompose,
        derive,
        load,
        place,
        project,
        project_many,
        project_tiles,
        read_ct,
        read_masks,
        render,
        segment,
    )

__all__ = [
    "__version__",
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


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import a verb when it is first used: `import paxray` itself costs next to nothing."""
    if name in __all__:
        from paxray import api

        return getattr(api, name)
    raise AttributeError(f"module 'paxray' has no attribute '{name}'")
