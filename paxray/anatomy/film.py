"""Classes of the film: what of a structure the picture shows unhidden. They have pixels in a view and no voxels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paxray.anatomy.document import Document
from paxray.anatomy.labels import LabelVolume, Status


@dataclass(frozen=True)
class Film:
    """The pixels of one class that are pixels of none of the others, in each view anew.

    Parameters
    ----------
    of
        The class looked at.
    not_hidden_by
        The classes whose shadows are left out.
    """

    of: str
    not_hidden_by: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """All classes that it is made from."""
        return (self.of, *self.not_hidden_by)


def read_film(document: Document, at: Iterable[str], value: object) -> Film | None:
    """Read a catalog entry's ``film``; ``null`` takes it away. `ConfigError` where it cannot be used as written."""
    if value is None:
        return None
    at = tuple(at)
    written = document.check_keys(at, value, ("of", "not_hidden_by"))
    of, others = written.get("of"), written.get("not_hidden_by")
    if not isinstance(of, str):
        raise document.error((*at, "of"), "not a class", expected="for example `of: lung_left`", found=of)
    if not isinstance(others, list) or not others or not all(isinstance(name, str) for name in others):
        raise document.error(
            (*at, "not_hidden_by"),
            "not a list of classes",
            expected="for example `not_hidden_by: [heart, spine]`",
            found=others,
        )
    if of in others or len(set(others)) < len(others):
        raise document.error(
            (*at, "not_hidden_by"), "a class hides itself, or stands twice", found=f"of {of}; {others}"
        )
    return Film(of, tuple(others))


def film_status(film: Film, labels: LabelVolume) -> tuple[Status, str | None]:
    """What is known of a class of the film, and why it is unknown.

    ``unknown`` where one of its inputs is, ``absent`` where the class looked at is; ``partial`` where any input is
    partial, since then pixels may be missing or too many; else ``present``.
    """
    found = {name: labels.status.get(name, Status.UNKNOWN) for name in film.inputs}
    unknown = [name for name, status in found.items() if status is Status.UNKNOWN]
    if unknown:
        return Status.UNKNOWN, "nothing is known of " + ", ".join(f"'{name}'" for name in unknown)
    if found[film.of] is Status.ABSENT:
        return Status.ABSENT, None
    return (Status.PARTIAL if Status.PARTIAL in found.values() else Status.PRESENT), None
