"""One anatomical class: what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from paxray.anatomy.film import Film

Laterality = Literal["left", "right", ""]

# SNOMED CT qualifiers of DICOM's Context Group 244 "Laterality".
LATERALITY_CODES = {"left": "7771000", "right": "24028007", "bilateral": "51440002"}


@dataclass(frozen=True)
class AnatomyClass:
    """One anatomical class.

    Parameters
    ----------
    name
        Canonical name, TotalSegmentator v2's where it has one.
    parts
        Canonical names of the classes whose union it is; empty for a leaf.
    synonyms
        Other names that `Catalog.resolve` understands.
    laterality
        The side of the body it lies on; empty for what is unpaired or spans both. The heart's chambers
        are named for the circulation and have none.
    mirror
        Its twin on the other side, which it becomes when an image is mirrored; empty without one.
    group
        Supercategory.
    snomed_ct, snomed_meaning, snomed_laterality
        SNOMED CT code, its meaning, and the code of the laterality modifier; empty where no source has one.
    code_source
        Where the code was taken from.
    colour
        Display colour, 8-bit RGB.
    rule
        In words, how it is made.
    optional
        Few patients have it, or a source that does not name it draws it with its neighbour: that nobody
        looked for it does not make a union of which it is a part incomplete.
    more_than_parts
        Its parts are not all of it: known from them alone it is partial.
    recipe
        How it is derived where no source draws it, as YAML writes it (``docs/classes.md``); None without one.
    film
        For a class of the film, which has pixels in each view and no voxels: what it is made of; else None.
    """

    name: str
    parts: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    laterality: Laterality = ""
    mirror: str = ""
    group: str = ""
    snomed_ct: str = ""
    snomed_meaning: str = ""
    snomed_laterality: str = ""
    code_source: str = ""
    colour: tuple[int, int, int] = (0, 0, 0)
    rule: str = ""
    optional: bool = False
    more_than_parts: bool = False
    recipe: Any = None
    film: Film | None = None
