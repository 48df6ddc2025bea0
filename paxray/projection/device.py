"""Which device projects."""

from __future__ import annotations

from typing import Literal

from paxray.errors import ConfigError, ResourceError

Device = Literal["auto", "cpu", "cuda"]


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """Turn ``auto`` into ``cpu`` or ``cuda``, and refuse a CUDA device that is not there.

    torch is imported only where the NVIDIA driver is installed or CUDA is asked for. ``auto`` is ``cpu`` where the
    extra ``gpu`` is missing.
    """
    if device == "cpu":
        return "cpu"
    if device not in ("auto", "cuda"):
        raise ConfigError(f"unknown device '{device}'", expected="auto, cpu or cuda")
    if device == "auto" and not _nvidia_driver():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        from paxray.projection.cuda.kernels import need_extra

        try:
            need_extra()
        except ResourceError:
            if device == "auto":
                return "cpu"
            raise
        return "cuda"
    if device == "auto":
        return "cpu"
    raise ResourceError(
        "no CUDA device",
        expected="an NVIDIA GPU that torch can use",
        found=f"torch {torch.__version__}, CUDA build: {torch.version.cuda or 'none'}",
        do="use --device cpu, or install a CUDA build of torch on a machine with a GPU",
    )


def _nvidia_driver() -> bool:
    """Whether the NVIDIA driver's library can be loaded."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
