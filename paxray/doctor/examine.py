"""All checks in their order, and the verdict."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paxray._version import __version__
from paxray.doctor.check import Check, State


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes
    ----------
    checks
        In the order in which they are read.
    device
        What ``auto`` means here: ``cpu`` or ``cuda``.
    """

    checks: tuple[Check, ...]
    device: str

    @property
    def ok(self) -> bool:
        """Whether the default pipeline can run: bare CTs, the built-in segmenter, device ``auto``."""
        return not any(check.state is State.BROKEN for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For a program to read; no host, no user."""
        return {
            "ok": self.ok,
            "device": self.device,
            "paxray": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "checks": [{**asdict(check), "state": check.state.value} for check in self.checks],
        }


def examine(data_sets: Path) -> Examination:
    """Look at everything once.

    torch is loaded only where an NVIDIA driver is installed. Nothing is compiled, downloaded or written, but that
    numba makes its folder for compiled code.

    Parameters
    ----------
    data_sets
        Folder in which data sets would be made; it need not be there yet.
    """
    from paxray.doctor import machine

    checks = machine.check_packages()
    if any(check.state is State.BROKEN for check in checks):
        # Without a package that everything needs, what follows would only fail for that.
        return Examination(tuple(checks), "unknown")
    from paxray.anatomy.catalog import load_catalog
    from paxray.doctor.segmenters import check_segmenters, check_weights

    cuda = machine.check_cuda()
    device = str(cuda[-1].facts["auto"])
    checks = [
        machine.check_processors(),
        machine.check_memory(),
        *cuda,
        *check_segmenters(device),
        *check_weights(load_catalog()),
        *checks,
        *machine.check_places(data_sets),
    ]
    return Examination(tuple(checks), device)
