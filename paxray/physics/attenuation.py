"""HU to linear attenuation per voxel, at the energy of the X-ray beam.

A CT number is water's attenuation scaled at the scanner's effective energy. At another energy soft tissue
still scales like water, while what lies above water is read as a mixture of water and cortical bone, whose
attenuation falls faster with energy: the two-line ("bilinear") scaling that PET/CT uses (Burger et al., Eur. J.
Nucl. Med. 29 (2002) 922-927; Carney et al., Med. Phys. 33 (2006) 976-983).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError, ConfigError
from paxray.io.volume import Volume
from paxray.parallel import share

#: Photon energies (keV) of the tables below.
TABLE_KEV: Final = np.array([20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0])
#: Mass attenuation coefficients (cm2/g) with coherent scattering, from NIST's tables of X-ray mass attenuation
#: coefficients (Hubbell and Seltzer, NISTIR 5632, 2004): liquid water; cortical bone (ICRU-44).
MASS_ATTENUATION_CM2_PER_G: Final = {
    "water": np.array([0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505, 0.1370]),
    "bone": np.array([4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480, 0.1309]),
}
#: Densities (g/cm3) that the coefficients are multiplied by: water at 20 C; cortical bone (ICRU-44).
DENSITY_G_PER_CM3: Final = {"water": 0.998, "bone": 1.92}
#: HU of air. Whatever a scanner stores below it (-2048, -3024: outside its circle) is not tissue.
AIR_HU: Final = -1000


def linear_attenuation_per_mm(material: str, energy_kev: float) -> float:
    """Linear attenuation coefficient of ``water`` or ``bone``, by log-log interpolation of the table."""
    if not TABLE_KEV[0] <= energy_kev <= TABLE_KEV[-1]:
        raise ConfigError(
            "photon energy outside the attenuation table",
            expected=f"{TABLE_KEV[0]:g} to {TABLE_KEV[-1]:g} keV",
            found=f"{energy_kev:g} keV",
        )
    log_mass = np.interp(np.log(energy_kev), np.log(TABLE_KEV), np.log(MASS_ATTENUATION_CM2_PER_G[material]))
    return float(np.exp(log_mass)) * DENSITY_G_PER_CM3[material] / 10.0


def attenuation_of_hu(
    hu: NDArray[np.number], *, energy_kev: float = 65.0, ct_energy_kev: float = 70.0
) -> NDArray[np.float64]:
    """Attenuation per mm of HU values; any shape, float64.

    Parameters
    ----------
    hu
        CT numbers. At or below air (-1000 HU), padding included: zero.
    energy_kev
        Effective energy of the radiograph's beam. 65 keV: a filtered 120 kV chest beam behind the patient.
    ct_energy_kev
        Effective energy of the scanner at which HU were defined. 70 keV: a 120 kV CT beam.
    """
    water = linear_attenuation_per_mm("water", energy_kev)
    water_ct = linear_attenuation_per_mm("water", ct_energy_kev)
    bone = linear_attenuation_per_mm("bone", energy_kev)
    bone_ct = linear_attenuation_per_mm("bone", ct_energy_kev)
    above_water = water_ct * (bone - water) / (bone_ct - water_ct)
    hu = np.asarray(hu, dtype=np.float64)
    return np.where(hu <= 0, water * np.maximum(1 + hu / 1000.0, 0.0), water + above_water * hu / 1000.0)


def require_finite(plane: NDArray[np.number], k: int) -> None:
    """Raise `CaseError` (code ``bad_values``) for a plane of HU, the `k`-th, with a voxel that is no number."""
    bad = np.argwhere(~np.isfinite(plane))
    if len(bad):
        j, i = bad[0].tolist()
        raise CaseError(
            "the CT holds voxels that are not finite numbers",
            where="ct",
            expected="HU in every voxel",
            found=f"{plane[j, i]} at voxel (k, j, i) {(k, j, i)}, the first of {len(bad)} in its plane",
            do=f"replace them, e.g. numpy.nan_to_num(hu, nan={AIR_HU}, posinf={AIR_HU}, neginf={AIR_HU})",
            code="bad_values",
        )


def attenuate(
    ct: Volume,
    keep: NDArray[np.bool_] | None = None,
    *,
    energy_kev: float = 65.0,
    ct_energy_kev: float = 70.0,
) -> Volume:
    """Map a CT to attenuation per mm, voxel by voxel.

    Parameters
    ----------
    ct
        HU, ``(nk, nj, ni)``.
    keep
        ``(nk, nj, ni)`` bool, the body: everything else (the table, clothes, air) gets zero. None keeps all.

    Returns
    -------
    Volume
        float32 per mm on the CT's grid, C-contiguous.

    Raises
    ------
    CaseError
        ``bad_values`` for a voxel that is no finite number, in the body or not; ``mask_mismatch``.
    """
    if keep is not None and keep.shape != ct.array.shape:
        raise CaseError(
            "the body mask is not on the CT's grid",
            expected=f"shape {ct.array.shape}",
            found=f"shape {keep.shape}",
            code="mask_mismatch",
        )
    mu = np.empty(ct.array.shape, np.float32)
    if keep is None:
        keep = np.ones(ct.array.shape, bool)
    if ct.array.dtype == np.int16:
        from paxray.physics import loops

        every = np.arange(65536, dtype=np.uint16).view(np.int16)
        table = attenuation_of_hu(every, energy_kev=energy_kev, ct_energy_kev=ct_energy_kev).astype(
            np.float32
        )
        values, within = (np.ascontiguousarray(a).reshape(-1) for a in (ct.array.view(np.uint16), keep))
        row = mu.reshape(-1)
        share(
            row.size,
            lambda start, stop: loops.look_up_within(
                table, values[start:stop], within[start:stop], row[start:stop]
            ),
        )
        return Volume(mu, ct.affine)

    def planes(start: int, stop: int) -> None:
        # Plane by plane, so that the double precision between stays small.
        for k in range(start, stop):
            require_finite(ct.array[k], k)
            mu[k] = attenuation_of_hu(ct.array[k], energy_kev=energy_kev, ct_energy_kev=ct_energy_kev)
            mu[k] *= keep[k]

    share(len(mu), planes)
    return Volume(mu, ct.affine)
