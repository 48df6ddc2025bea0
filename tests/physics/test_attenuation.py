"""HU to attenuation against the tables it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paxray
from paxray.errors import CaseError, ConfigError
from paxray.io.volume import Volume
from paxray.physics.attenuation import attenuate, attenuation_of_hu, linear_attenuation_per_mm

ENERGY = st.floats(25, 150)


def test_tabulated_energies_are_reproduced() -> None:
    """NIST, liquid water at 60 and 100 keV: 0.2059 and 0.1707 cm2/g; cortical bone at 60 keV: 0.3148 x 1.92."""
    assert linear_attenuation_per_mm("water", 60) == pytest.approx(0.2059 * 0.998 / 10)
    assert linear_attenuation_per_mm("water", 100) == pytest.approx(0.1707 * 0.998 / 10)
    assert linear_attenuation_per_mm("bone", 60) == pytest.approx(0.3148 * 1.92 / 10)


@given(energy=ENERGY, ct_energy=ENERGY)
def test_air_is_nothing_and_water_is_water(energy: float, ct_energy: float) -> None:
    mu = attenuation_of_hu(np.array([-3024, -2048, -1000, 0]), energy_kev=energy, ct_energy_kev=ct_energy)
    np.testing.assert_allclose(mu, [0, 0, 0, linear_attenuation_per_mm("water", energy)], rtol=1e-12)


@given(energy=ENERGY, ct_energy=ENERGY)
def test_cortical_bone_comes_out_as_cortical_bone(energy: float, ct_energy: float) -> None:
    """The HU that pure cortical bone has at the scanner's energy maps to its attenuation at the beam's."""
    bone, water = (linear_attenuation_per_mm(m, ct_energy) for m in ("bone", "water"))
    hu = 1000 * (bone / water - 1)
    mu = attenuation_of_hu(np.array([hu]), energy_kev=energy, ct_energy_kev=ct_energy)
    assert mu[0] == pytest.approx(linear_attenuation_per_mm("bone", energy), rel=1e-12)


@given(energy=ENERGY, ct_energy=ENERGY)
def test_more_hu_never_attenuates_less(energy: float, ct_energy: float) -> None:
    mu = attenuation_of_hu(np.arange(-3100, 3100), energy_kev=energy, ct_energy_kev=ct_energy)
    assert (np.diff(mu) >= 0).all()


def test_at_the_scanners_own_energy_it_is_the_definition_of_hu() -> None:
    hu = np.arange(-1000, 3000)
    mu = attenuation_of_hu(hu, energy_kev=70, ct_energy_kev=70)
    np.testing.assert_allclose(mu, linear_attenuation_per_mm("water", 70) * (1 + hu / 1000), rtol=1e-12)


def test_volume_by_table_equals_formula_and_table_is_removed() -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-3024, 3072, (7, 8, 9)).astype(np.int16)
    keep = rng.random(hu.shape) < 0.5
    whole, kept = attenuate(Volume(hu, np.eye(4))), attenuate(Volume(hu, np.eye(4)), keep)
    floats = attenuate(Volume(hu.astype(np.float32), np.eye(4)))
    np.testing.assert_allclose(whole.array, attenuation_of_hu(hu), rtol=1e-6)
    np.testing.assert_array_equal(floats.array, whole.array)
    np.testing.assert_array_equal(kept.array, np.where(keep, whole.array, 0))
    assert whole.array.dtype == np.float32


def test_errors() -> None:
    with pytest.raises(ConfigError, match="outside the attenuation table"):
        linear_attenuation_per_mm("water", 5)
    with pytest.raises(CaseError, match="not on the CT's grid"):
        attenuate(Volume(np.zeros((2, 2, 2), np.int16), np.eye(4)), np.ones((3, 2, 2), bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("keep", [None, np.zeros((3, 4, 5), bool)], ids=["all", "nothing kept"])
def test_a_voxel_that_is_no_number_is_named(bad: float, keep: np.ndarray | None) -> None:
    """Outside the body, too: NaN times nothing is NaN."""
    hu = np.zeros((3, 4, 5), np.float32)
    hu[1, 2, 3] = bad
    for verb in (lambda ct: attenuate(ct, keep), paxray.decompose):
        with pytest.raises(CaseError) as caught:
            verb(Volume(hu, np.eye(4)))
        assert caught.value.code == "bad_values"
        assert "(1, 2, 3)" in caught.value.found
