"""Versions of the stages: part of what stands in a data set and of what a kept segmentation was made by."""

from __future__ import annotations

#: Versions of what decides an output; raised when a change would alter the bytes of a data set.
STAGE_VERSIONS = {
    "io": 1,
    "body": 2,
    "anatomy": 11,
    "measure": 5,
    "plausibility": 3,
    "physics": 1,
    "projection": 3,
    "radiography": 1,
    "rows": 6,
}
