"""Stored numbers to Hounsfield units, exactly where they are exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.errors import CaseError

_INT16 = np.iinfo(np.int16)
_NEVER_CT_MAX_HU = 300.0  # without air, fat and bone it is no CT of a patient
_NORMALISED_MAX = 10.0
_SHIFTED_RANGE = (850, 1250)  # soft tissue in numbers shifted by 1000 or 1024
_SHIFTED_SHARE = 0.1
_UNSIGNED_SHARE = 0.01
_CLIPPED_SHARE = 0.1
#: Just above water, and the share of what is not 0 that lies there: noise would carry some of so much below 0.
_NEAR_WATER_HU, _NEAR_WATER_SHARE = 20, 0.02
#: Soft tissue, and its share of what is not 0: of masked bone or contrast, resampled or not, most is denser.
_SOFT_HU, _SOFT_SHARE = 100, 0.5
#: Single zeros amid soft tissue, as a share of what is not 0: noise cut off leaves them, the rim of a mask does not.
_GAP_SHARE = 0.002


def to_hu(
    planes: Iterable[tuple[NDArray[Any], float, float]], shape: tuple[int, int, int], *, where: str
) -> NDArray[Any]:
    """Apply each plane's slope and intercept.

    Parameters
    ----------
    planes
        ``(stored (nj, ni), slope, intercept)``, one per k.
    shape
        ``(nk, nj, ni)``.

    Returns
    -------
    int16 where every voxel's HU is a whole number that fits, else float32.

    Raises
    ------
    CaseError
        Code ``bad_values`` for a voxel that is not finite.
    """
    out: NDArray[Any] = np.empty(shape, np.int16)
    for k, (stored, slope, intercept) in enumerate(planes):
        values = _scaled(stored, slope, intercept)
        if out.dtype == np.int16 and not _whole(values):
            exact, out = out, np.empty(shape, np.float32)
            out[:k] = exact[:k]
        with np.errstate(over="ignore"):
            out[k] = values
        if out.dtype == np.float32 and not np.isfinite(out[k]).all():
            count = int((~np.isfinite(out[k])).sum())
            raise CaseError(
                "the CT holds voxels that are not finite numbers",
                where=where,
                expected="HU in every voxel",
                found=f"{count} of NaN or infinity in plane k = {k}",
                do="replace them by the HU of air (-1024) if they are padding",
                code="bad_values",
            )
    return out


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Return ``slope * stored + intercept``, in integers where that is exact, else in float64."""
    if stored.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        if slope == 1 and intercept == 0:
            return stored
        if stored.dtype.itemsize <= 2 and abs(slope) < 2**14 and abs(intercept) < 2**29:
            return stored.astype(np.int32) * np.int32(slope) + np.int32(intercept)
    if stored.dtype.kind == "f" and slope == 1 and intercept == 0:
        return stored
    return stored.astype(np.float64) * slope + intercept


def _whole(values: NDArray[Any]) -> bool:
    if values.dtype == np.int16:
        return True
    # Written so that NaN fails.
    if not (values.min() >= _INT16.min and values.max() <= _INT16.max):
        return False
    return values.dtype.kind in "iu" or bool((values == np.rint(values)).all())


def require_hu(array: NDArray[Any], *, where: str) -> None:
    """Raise `CaseError` (code ``not_hu``) for numbers that no CT of a patient has in HU.

    Five signs, each of which leaves real CTs alone, cropped, masked or padded ones too:

    * nothing below 0 and nothing from 300 up: a label map, a windowed 8-bit picture;
    * everything between -10 and 10: intensities normalised for a network;
    * nothing below 0, yet a tenth of the voxels or more between 850 and 1250, where HU means dense bone: the
      shift of 1024 (RescaleIntercept) was never applied;
    * nothing below 0, yet a hundredth of the voxels beyond what 16 bits with a sign hold: they lost it;
    * nothing below 0, a tenth of the voxels or more exactly 0, and of the others a fiftieth or more from there to 20,
      half or more up to 100, and a five-hundredth or more as many single zeros between two of those: all that was
      negative was cut off. Bone or organs masked on 0 lack one of the three, also when they were resampled since.

    The last cannot tell a CT from which all below some 20 to 90 HU was taken before it was resampled, which is refused,
    too; and it passes one that was smoothed until its noise was gone before it was cut off.
    """
    low, high = float(array.min()), float(array.max())
    do = "export the CT again in HU"
    if low > -_NORMALISED_MAX and high < _NORMALISED_MAX:
        found = f"values from {low:g} to {high:g}, as of normalised intensities or a mask"
    elif low >= 0 and high < _NEVER_CT_MAX_HU:
        found = f"values from {low:g} to {high:g}, as of a label map or a windowed picture"
    elif low >= 0:
        # Whole rows, of which neighbours can be seen.
        sample = array.reshape(-1, array.shape[-1])[:: max(1, array.size // 1_000_000)]
        shifted = float(((sample >= _SHIFTED_RANGE[0]) & (sample <= _SHIFTED_RANGE[1])).mean())
        unsigned = float((sample > _INT16.max).mean())
        if shifted >= _SHIFTED_SHARE:
            found = f"nothing below 0, and {shifted:.0%} of the voxels between 850 and 1250"
            do = "subtract the offset (mostly 1024) that the export left in"
        elif unsigned >= _UNSIGNED_SHARE:
            found = f"nothing below 0, and {unsigned:.0%} of the voxels beyond {_INT16.max}"
            do = "export the CT again as signed 16-bit numbers: negative HU were read without their sign"
        elif _cut_off_at_zero(sample):
            zero = float((sample == 0).mean())
            found = f"nothing below 0, and {zero:.0%} of the voxels 0, single ones amid soft tissue, too"
            do = (
                "export the CT again as signed numbers: air, lung and fat are lost; if it was masked, put -1024 outside"
                " the mask instead of 0, before resampling"
            )
        else:
            return
    else:
        return
    raise CaseError(
        "the image is not a CT in Hounsfield units",
        where=where,
        expected="air near -1000 HU, fat near -100, water 0, bone up to some thousands",
        found=found,
        do=do,
        code="not_hu",
    )


def _cut_off_at_zero(rows: NDArray[Any]) -> bool:
    """Whether rows of voxels, none below 0, are those of a CT whose negative HU became 0."""
    zero = rows == 0
    soft = ~zero & (rows <= _SOFT_HU)
    single = zero[:, 1:-1] & soft[:, :-2] & soft[:, 2:]
    others = zero.size - int(zero.sum())
    return (
        zero.size - others >= _CLIPPED_SHARE * zero.size
        and int((soft & (rows <= _NEAR_WATER_HU)).sum()) >= _NEAR_WATER_SHARE * others
        and int(soft.sum()) >= _SOFT_SHARE * others
        and int(single.sum()) > _GAP_SHARE * others  # none of none is none
    )
