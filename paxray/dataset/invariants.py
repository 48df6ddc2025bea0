"""What the masks of a sample owe each other, told from them as they are written: run lengths, never decoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paxray.errors import CaseError

_RIB = re.compile(r"rib_(left|right)_\d+")
#: Sentences that a message holds at most.
_SHOWN = 5


def contradictions(
    rows: Iterable[Mapping[str, Any]], size: tuple[int, int], parts: Mapping[str, Sequence[str]]
) -> list[str]:
    """Find what the masks of one sample break.

    * A class contains each of its parts.
    * A class that is made of its parts alone (``added_voxels`` is null) has no pixel that none of them has: left and
      right are both. This is told where all of its parts are put out.
    * The area of a rib is at most that of its halves together, where something is known of both. With the first rule:
      max(anterior, posterior) <= rib <= anterior + posterior.

    Rays meet a union where they meet a part, so what holds in 3D holds in every view.

    Parameters
    ----------
    rows
        The sample's label rows; ``class``, ``status``, ``mask`` (compressed COCO counts) and ``added_voxels`` are read.
    size
        ``(rows, columns)`` of the masks.
    parts
        Class to its parts.

    Returns
    -------
    A sentence for each contradiction.
    """
    from pycocotools import mask as coco

    by_class = {row["class"]: row for row in rows}
    masks = {
        name: {"size": list(size), "counts": row["mask"].encode("ascii")}
        for name, row in by_class.items()
        if row.get("mask") is not None
    }

    def area(*names: str) -> int:
        """Pixels of any of these classes."""
        shown = [masks[name] for name in names if name in masks]
        return int(coco.area(coco.merge(shown))) if shown else 0

    out = []
    for name, row in by_class.items():
        listed = parts.get(name, ())
        if not any(part in masks for part in (name, *listed)):
            continue
        whole = area(name)
        if area(name, *listed) > whole:
            out += [
                f"'{part}' reaches beyond '{name}', of which it is a part, by {beyond} px"
                for part in listed
                if part in by_class and (beyond := area(name, part) - whole)
            ]
        if listed and row.get("added_voxels") is None and all(part in by_class for part in listed):
            joined = area(*listed)
            if joined < whole:
                out.append(f"'{name}' has {whole} px and its parts {joined}, though it is made of them alone")
        if _RIB.fullmatch(name):
            out += _rib_problem(name, by_class, area)
    return out


def _rib_problem(name: str, by_class: Mapping[str, Mapping[str, Any]], area: Any) -> list[str]:
    halves = f"{name}_anterior", f"{name}_posterior"
    if any(half not in by_class or by_class[half]["status"] == "unknown" for half in halves):
        return []
    rib, anterior, posterior = (area(each) for each in (name, *halves))
    if rib <= anterior + posterior:
        return []
    return [
        f"'{name}' has {rib} px, more than its halves together: anterior {anterior}, posterior {posterior}"
    ]


def require_consistent(
    sample_id: str,
    rows: Iterable[Mapping[str, Any]],
    size: tuple[int, int],
    parts: Mapping[str, Sequence[str]],
) -> None:
    """Refuse a sample whose masks contradict each other; see `contradictions`.

    Raises
    ------
    CaseError
        ``inconsistent_masks``, so that no such sample is written.
    """
    found = contradictions(rows, size, parts)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise CaseError(
            "the masks of this view contradict each other",
            where=sample_id,
            expected="every class contains its parts, and what is made of parts alone is no more than they",
            found="; ".join(found[:_SHOWN]) + more,
            do="where several mask files draw these classes, keep one; otherwise it is a fault of paxray: report it",
            code="inconsistent_masks",
        )
