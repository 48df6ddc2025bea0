"""HU as shares of water and bone."""

from __future__ import annotations

import numpy as np
import pytest

from paxray.physics.attenuation import attenuation_of_hu, linear_attenuation_per_mm
from paxray.physics.basis import BASIS, basis_of_hu


@pytest.mark.parametrize("energy_kev", [30.0, 65.0, 120.0])
def test_shares_of_water_and_bone_add_up_to_attenuation(energy_kev: float) -> None:
    hu = np.arange(-3000, 8000)
    mu = [linear_attenuation_per_mm(material, energy_kev) for material in BASIS]
    np.testing.assert_allclose(
        basis_of_hu(hu) @ mu, attenuation_of_hu(hu, energy_kev=energy_kev), rtol=1e-12, atol=1e-15
    )


def test_water_and_bone_are_themselves() -> None:
    water, bone = (linear_attenuation_per_mm(material, 70.0) for material in BASIS)
    np.testing.assert_allclose(
        basis_of_hu(np.array([-1000.0, 0.0, 1000 * (bone / water - 1)])), [[0, 0], [1, 0], [0, 1]], atol=1e-12
    )
