"""The identity of a case's inputs: content hashes, remembered so that a second build need not read them again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from paxray.anatomy.catalog import Catalog
from paxray.anatomy.naming import load_names
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.errors import CaseError, ConfigError
from paxray.files import digest, write_json
from paxray.io.cases import BY_NAME, Case, MaskSource
from paxray.io.identity import content_hash, files_of
from paxray.io.stored import sidecar_of

#: Stands for the content of a file that is not there.
MISSING = "missing"


class Vocabularies:
    """Digests of the vocabularies that masks are read with: of a file's content too, not only of its name."""

    def __init__(self, catalog: Catalog, base: Path) -> None:
        self._catalog, self._base = catalog, base
        self._known: dict[str, str] = {}

    def digest_of(self, source: MaskSource) -> str:
        """Digest of all labels; one that cannot be read gives its error's words, and fails the case later."""
        spec = source.vocabulary
        if spec not in self._known:
            if spec == BY_NAME:
                self._known[spec] = digest(self._words())
            else:
                try:
                    names = load_names(spec, base=self._base, catalog=self._catalog)
                    said = [] if names is None else [*names.content(), self._words()]
                    if names is None or names.values:
                        said += load_vocabulary(spec, base=self._base, catalog=self._catalog).content()
                    self._known[spec] = digest(said)
                except ConfigError as error:
                    self._known[spec] = error.what
        return self._known[spec]

    def _words(self) -> dict[str, list[object]]:
        """What names of files and segments, and codes of these, are resolved by where no vocabulary does."""
        return {
            name: [item.synonyms, item.snomed_ct, item.snomed_laterality, item.laterality]
            for name, item in self._catalog.items()
        }


class InputHashes:
    """Content hashes of inputs; a file whose size and time have not changed is not read again.

    What is remembered lies in the data set's ``logs/``, since it holds times: it saves work and decides nothing.
    """

    def __init__(self, logs: Path, base: Path, *, read_only: bool = False) -> None:
        self._path = logs / "inputs.json"
        self._base = base
        self._read_only = read_only
        self._known: dict[str, list[object]] = {}
        if self._path.exists():
            try:
                self._known = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError:
                self._known = {}  # a torn cache only costs reading the inputs again

    def of(self, case: Case) -> dict[str, str]:
        """Content hash of the CT, of each mask source and instance file; `MISSING` where there is no such file."""
        out = {"ct": self._hash(case.ct)}
        for n, source in enumerate(case.masks):
            out[f"masks[{n}]"] = self._hash(source.path)
        for n, source in enumerate(case.instances):
            out[f"instances[{n}]"] = self._hash(source.path)
            sidecar = sidecar_of(source.path)
            if sidecar.exists():
                out[f"{sidecar.name} of instances[{n}]"] = self._hash(sidecar)
        return out

    def _hash(self, path: Path) -> str:
        key = os.path.relpath(path, self._base)
        try:
            stamp = _stamp(files_of(path))
        except CaseError as error:
            return MISSING if error.code == "missing_file" else error.code
        known = self._known.get(key)
        if known is not None and known[0] == stamp:
            return str(known[1])
        try:
            found = content_hash(path)
        except CaseError as error:
            return error.code
        self._known[key] = [stamp, found]
        return found

    def save(self) -> None:
        """Write what is known now."""
        if not self._read_only:
            write_json(self._path, dict(sorted(self._known.items())))


def _stamp(files: list[tuple[str, Path]]) -> str:
    """Sizes and times of an input's files."""
    stats = [(name, path.stat()) for name, path in files]
    return digest([[name, s.st_size, s.st_mtime_ns] for name, s in stats])
