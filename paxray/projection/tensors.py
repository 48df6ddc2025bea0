"""Arrays of numpy and of torch: read where they lie, and handed back as the kind that came in.

torch is never imported here: whoever passes a tensor has done so.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paxray.errors import ConfigError

#: A numpy array; a torch tensor on the CPU; a torch tensor on an NVIDIA GPU.
Kind = Literal["numpy", "torch", "cuda"]


def kind_of(array: Any) -> Kind:
    """What an array is. `ConfigError` for a tensor on any other device."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return "numpy"
    if array.device.type == "cpu":
        return "torch"
    if array.device.type == "cuda":
        return "cuda"
    raise ConfigError(
        "the tensor lies on a device that cannot project", expected="cpu or cuda", found=str(array.device)
    )


def on_host(array: Any) -> NDArray[np.float32]:
    """A C-contiguous float32 array in numpy; the same memory where it is one already."""
    if kind_of(array) != "numpy":
        array = array.detach().cpu().numpy()
    return np.ascontiguousarray(array, np.float32)


def handed_back(found: Any, kind: Kind, like: Any) -> Any:
    """A map as the kind of array that came in, on the device of `like`; no copy but from host to GPU."""
    if found is None or kind == "numpy" or not isinstance(found, np.ndarray):
        return found
    tensor = sys.modules["torch"].from_numpy(found)
    return tensor if kind == "torch" else tensor.to(like.device)
