"""What every segmenter keeps, as tests: inherit `SegmenterConformance` under a name that begins with ``Test``.

Needs pytest, and nothing else that paxray itself does not need.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from paxray.anatomy.catalog import Catalog, load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.errors import CaseError, ConfigError, ResourceError
from paxray.io.cases import MaskSource
from paxray.io.volume import Volume, reindex
from paxray.segmentation.checked import run_segmenter
from paxray.segmentation.contract import Segmenter
from paxray.segmentation.registry import segmenter_class

#: How else the same patient may be stored: the array's axes in another order, then which of them run backwards.
ORIENTATIONS: dict[str, tuple[tuple[int, int, int], tuple[bool, bool, bool]]] = {
    "RAS, as most NIfTI files": ((0, 1, 2), (False, True, True)),
    "feet first": ((0, 1, 2), (True, False, True)),
    "sagittal planes": ((2, 0, 1), (True, False, False)),
}


def stored_otherwise(ct: Volume, how: str) -> Volume:
    """The same CT in another of `ORIENTATIONS`; every voxel keeps its place in the world."""
    axes, flips = ORIENTATIONS[how]
    array = np.ascontiguousarray(reindex(ct.array, axes, flips))
    affine = np.eye(4)
    origin = np.zeros(3)  # (i, j, k) of the new array's first voxel in the old one
    for new, (old, flipped) in enumerate(zip(axes, flips, strict=True)):
        affine[:3, 2 - new] = ct.affine[:3, 2 - old] * (-1 if flipped else 1)
        origin[2 - old] = ct.shape[old] - 1 if flipped else 0
    affine[:3, 3] = ct.grid.to_world(origin)
    return Volume(array, affine)


class SegmenterConformance:
    """Inherit, and say what to test.

    Attributes
    ----------
    name
        The segmenter's, as pipelines write it: it must be found by it.
    known_setting
        A setting that it knows; empty if it knows none.
    least_agreement
        Dice between masks of the same CT stored otherwise, of classes with at least `counted_voxels`.
    """

    name: ClassVar[str]
    known_setting: ClassVar[str] = ""
    least_agreement: ClassVar[float] = 0.9
    counted_voxels: ClassVar[int] = 200
    #: False for a network whose weights know nothing, as a test may have them.
    finds_nothing_in_air: ClassVar[bool] = True
    #: Subset of `ORIENTATIONS`, for a segmenter that takes long.
    orientations: ClassVar[tuple[str, ...]] = tuple(ORIENTATIONS)

    # What a subclass may override

    @pytest.fixture(scope="class")
    @classmethod
    def base(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Folder that paths among the settings are relative to."""
        return tmp_path_factory.mktemp("base")

    @pytest.fixture(scope="class")
    @classmethod
    def settings(cls, base: Path) -> Mapping[str, Any]:
        """Settings with which it can run here."""
        return {}

    @pytest.fixture(scope="class")
    @classmethod
    def ct(cls) -> Volume:
        """A CT that it can segment."""
        from paxray.phantom.thorax import make_phantom

        return make_phantom(7, (5.0, 5.0, 5.0)).ct

    @pytest.fixture(scope="class")
    @classmethod
    def masks(cls, ct: Volume, base: Path) -> tuple[MaskSource, ...]:
        """Mask files given with the case."""
        return ()

    # What is shared

    @pytest.fixture(scope="class")
    @classmethod
    def catalog(cls) -> Catalog:
        """The classes known."""
        return load_catalog()

    @pytest.fixture(scope="class")
    @classmethod
    def segmenter(cls, settings: Mapping[str, Any], base: Path) -> Segmenter:
        """The segmenter, made once."""
        return segmenter_class(cls.name).from_settings(settings, base)

    @pytest.fixture(scope="class")
    @classmethod
    def found(
        cls, segmenter: Segmenter, ct: Volume, catalog: Catalog, masks: tuple[MaskSource, ...], base: Path
    ) -> LabelVolume:
        """What it finds, once for all tests."""
        return run_segmenter(segmenter, ct, catalog, where="phantom", masks=masks, base=base)

    # The tests

    def test_it_goes_by_its_name(self, segmenter: Segmenter) -> None:
        """A pipeline finds it under its own name."""
        assert type(segmenter).name == self.name
        assert set(segmenter.devices) <= {"cpu", "cuda"}
        assert segmenter.devices

    def test_classes_are_canonical_and_in_catalog_order(self, segmenter: Segmenter, catalog: Catalog) -> None:
        """What it may name, the catalog knows."""
        named = segmenter.classes(catalog)
        assert list(named) == [name for name in catalog if name in set(named)]
        assert named

    def test_an_unknown_setting_is_refused(self, settings: Mapping[str, Any], base: Path) -> None:
        """A mistyped setting is no silent default."""
        typo = f"{self.known_setting}x" if self.known_setting else "no_such_setting"
        with pytest.raises(ConfigError, match=typo) as caught:
            segmenter_class(self.name).from_settings({**settings, typo: 1}, base)
        if self.known_setting:
            assert f"'{self.known_setting}'" in caught.value.do

    def test_identity_is_plain_and_tells_of_no_machine(
        self, segmenter: Segmenter, settings: Mapping[str, Any], base: Path
    ) -> None:
        """Two machines with the same settings and weights share a cache."""
        text = json.dumps(segmenter.identity(), sort_keys=True, allow_nan=False)
        again = segmenter_class(self.name).from_settings(settings, base)
        assert json.dumps(again.identity(), sort_keys=True) == text
        for path in (base, base.resolve(), Path.home(), Path.cwd()):
            assert str(path) == "/" or str(path) not in text

    def test_preflight_passes_here_or_says_what_lacks(self, segmenter: Segmenter) -> None:
        """Only `ResourceError` leaves it, with what to do."""
        segmenter.preflight("cpu")  # the settings are such that it can run
        if "cuda" in segmenter.devices:
            lacking = None
            try:
                segmenter.preflight("cuda")
            except ResourceError as error:
                lacking = error
            assert lacking is None or (lacking.what and lacking.do)

    def test_masks_keep_the_promise(
        self, found: LabelVolume, segmenter: Segmenter, ct: Volume, catalog: Catalog
    ) -> None:
        """On the lattice, among `classes`, statuses and confidences as the voxels say."""
        assert found.shape == ct.shape
        np.testing.assert_allclose(found.affine, ct.affine, rtol=0, atol=1e-6)
        assert set(found.names) <= set(segmenter.classes(catalog))
        assert any(found.voxel_counts().values())
        for name, voxels in found.voxel_counts().items():
            assert found.mask(name).sum() == voxels
            assert (voxels > 0) == (found.status[name] in (Status.PRESENT, Status.PARTIAL)), name
            assert found.status[name] is not Status.UNKNOWN or found.notes[name], name
        for name, confidence in found.confidence.items():
            assert found.status[name] in (Status.PRESENT, Status.PARTIAL), name
            assert 0 <= confidence <= 1, name

    def test_the_same_again_and_the_ct_as_it_was(
        self,
        found: LabelVolume,
        segmenter: Segmenter,
        ct: Volume,
        catalog: Catalog,
        masks: tuple[MaskSource, ...],
        base: Path,
    ) -> None:
        """Deterministic, without touching its input."""
        before = ct.array.copy()
        again = run_segmenter(segmenter, ct, catalog, where="phantom", masks=masks, base=base)
        np.testing.assert_array_equal(ct.array, before)
        np.testing.assert_array_equal(again.atoms, found.atoms)
        np.testing.assert_array_equal(again.membership, found.membership)
        assert (again.names, again.status, again.notes, again.confidence) == (
            found.names, found.status, found.notes, found.confidence,
        )  # fmt: skip

    @pytest.mark.parametrize("how", tuple(ORIENTATIONS))
    def test_stored_otherwise(
        self,
        how: str,
        found: LabelVolume,
        segmenter: Segmenter,
        ct: Volume,
        catalog: Catalog,
        masks: tuple[MaskSource, ...],
        base: Path,
    ) -> None:
        """The patient's left stays left however the array is stored."""
        if how not in self.orientations:
            pytest.skip(f"{type(self).__name__}.orientations leaves it out")
        other_ct = stored_otherwise(ct, how)
        other = run_segmenter(segmenter, other_ct, catalog, where="phantom", masks=masks, base=base)
        back = _brought_back(other.atoms, how)
        compared = 0
        for name, voxels in found.voxel_counts().items():
            if voxels >= self.counted_voxels:
                mine, theirs = found.mask(name), other.membership[back, other.index(name)]
                dice = 2 * (mine & theirs).sum() / (voxels + theirs.sum())
                assert dice >= self.least_agreement, name
                compared += 1
        assert compared

    def test_air_is_an_error_with_a_code(
        self, segmenter: Segmenter, ct: Volume, catalog: Catalog, masks: tuple[MaskSource, ...], base: Path
    ) -> None:
        """A CT without a patient; whoever reads masks from files need not look at it."""
        air = Volume(np.full(ct.shape, -1000, np.int16), ct.affine)
        code = ""
        try:
            run_segmenter(segmenter, air, catalog, where="air", masks=masks, base=base)
        except CaseError as error:
            code = error.code
        assert code or masks or not self.finds_nothing_in_air, "something was found in air"
        assert code not in (CaseError.code, "bad_segmentation")


def _brought_back(array: np.ndarray, how: str) -> np.ndarray:
    """An array stored otherwise, in the order that it had before."""
    axes, flips = ORIENTATIONS[how]
    unflipped = array[tuple(slice(None, None, -1 if flipped else 1) for flipped in flips)]
    return unflipped.transpose(np.argsort(axes))
