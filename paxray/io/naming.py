"""What file and folder names say about which files belong together, and to whom."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

_GENERAL = re.compile(
    r"cts?|segs?|segmentations?|masks?|labels?|labelmap|images?|imgs?|volumes?|vols?|nifti|nii|scans?|iso|data"
    r"|imagestr|imagests|labelstr|labelsts|total|totalsegmentator|v1|v2|predictions?|pred|gt|anat|derivatives"
    r"|train|training|val|validation|test|testing|baseline|followup"
)
_VISIT = re.compile(r"(visit|session|ses|timepoint|tp|study|series|day|month|year)\d*")
_MM = re.compile(r"\d+(\.\d+)?mm")
_CHANNEL = re.compile(r"_0000$")  # nnU-Net's first channel
_MAX_ID = 100


def own_words(name: str) -> tuple[str, ...]:
    """Return the words of a name that tell it from others: ``volume-12_ct_2.5mm`` gives ``("12",)``."""
    plain = _MM.sub(" ", _CHANNEL.sub("", name))
    words = re.findall(r"[A-Za-z0-9]+", plain)
    return tuple(word for word in words if not _GENERAL.fullmatch(word.lower()))


def is_general(folder: str) -> bool:
    """Whether a folder's name says nothing of a patient: ``imagesTr``, ``ct``, ``visit2``, ``ses-01``."""
    words = own_words(folder)
    visits = [word for word in words if _VISIT.fullmatch(word.lower())]
    return not words or bool(visits and all(word.isdigit() for word in words if word not in visits))


def matching_key(folders: Sequence[str], stem: str) -> tuple[str, ...]:
    """Return what a CT and its masks have in common by name; from the folders where the stem is general."""
    for name in (stem, *reversed(folders)):
        words = own_words(name)
        if words and (name == stem or not is_general(name)):
            return tuple(word.lower() for word in words)
    return ()


def patient_name(folders: Sequence[str], stem: str, root: str) -> str:
    """Return the patient's name for a file at ``root/folders.../stem``.

    The nearest folder whose name is not general; in the root itself and in general folders each file is a
    patient, named by what is its own in the stem; the root's name where nothing is.
    """
    for name in reversed(folders):
        if not is_general(name):
            return slug(name)
    return slug("-".join(own_words(stem)) or root)


def slug(text: str) -> str:
    """Return a text as a safe id; long ones are cut and told apart by a hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if not safe or len(safe) > _MAX_ID:
        safe = (safe[: _MAX_ID - 9] + "-" + short_hash(text)).lstrip("-")
    return safe


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits of a text's BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def keyed_hash(text: str, key: str, digits: int = 16) -> str:
    """Return a keyed BLAKE2b (RFC 7693) of an identifier: not to be undone, or guessed, without the key."""
    secret = hashlib.sha512(key.encode()).digest()  # 64 bytes, the longest key that BLAKE2b takes
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), key=secret).hexdigest()[:digits]
