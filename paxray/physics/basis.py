"""HU as a mixture of two basis materials, water and cortical bone.

The two-line scaling of `paxray.physics.attenuation`, taken apart: attenuation at any energy is a voxel's share of water
times water's, plus its share of bone times bone's. The shares do not depend on the radiograph's energy, so that their
line integrals serve every spectrum.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from paxray.physics.attenuation import linear_attenuation_per_mm

#: The basis materials, in the order of `basis_of_hu`.
BASIS: Final = ("water", "bone")


def basis_of_hu(hu: NDArray[np.number], *, ct_energy_kev: float = 70.0) -> NDArray[np.float64]:
    """Volume shares of water and of cortical bone; ``(..., 2)`` for HU of any shape.

    Up to 0 HU it is water thinned by air; above, as much bone in the place of water as gives the HU at the scanner's
    effective energy. Beyond bone, as in metal, bone's share is above 1 and water's below 0: the line goes on.

    Parameters
    ----------
    hu
        CT numbers; at or below air (-1000 HU) both shares are 0.
    ct_energy_kev
        Effective energy of the scanner at which HU were defined.
    """
    water, bone = (linear_attenuation_per_mm(material, ct_energy_kev) for material in BASIS)
    hu = np.asarray(hu, dtype=np.float64)
    of_bone = np.maximum(hu, 0.0) / 1000.0 * water / (bone - water)
    of_water = np.where(hu <= 0, np.maximum(1.0 + hu / 1000.0, 0.0), 1.0 - of_bone)
    return np.stack([of_water, of_bone], axis=-1)
