"""The CUDA projector without a GPU: march.cu built by a C++ compiler, arrays in numpy or torch on the CPU."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from once import locked

from paxray.projection.cuda import kernels
from paxray.projection.cuda.engine import TorchEngine, blocks_for
from paxray.projection.cuda.kernels import Variant

SHIM = Path(__file__).with_name("cuda_shim.h")
#: Bytes around every array of the host engine, which no kernel may touch.
GUARD, GUARD_BYTE = 256, 0xA5


class Builds:
    """One shared library per variant, built once among all processes that share the folder."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            pytest.skip("no C++ compiler (g++ or clang++) to build the CUDA kernels with")
        self._compiler, self._folder = compiler, folder
        self._libraries: dict[Variant, ctypes.CDLL] = {}

    def launch(
        self, kernel: str, variant: Variant, threads: tuple[int, ...], params: int, backwards: bool
    ) -> None:
        if min(threads) == 0:
            return
        if variant not in self._libraries:
            self._libraries[variant] = ctypes.CDLL(str(self._build(variant)))
        library = self._libraries[variant]
        grid, block = (np.array([*sizes, 1][:2], np.uint32) for sizes in blocks_for(threads))
        entry = ctypes.cast(getattr(library, kernel), ctypes.c_void_p)
        library.launch(
            entry,
            ctypes.c_void_p(grid.ctypes.data),
            ctypes.c_void_p(block.ctypes.data),
            ctypes.c_void_p(params),
            ctypes.c_int(backwards),
        )

    def _build(self, variant: Variant) -> Path:
        macros = [f"-D{name}={value}" for name, value in variant.macros]
        name = hashlib.sha256(" ".join(macros).encode()).hexdigest()[:16]
        with locked(self._folder / f"{name}.lock"):
            text, out = self._folder / f"{name}.cpp", self._folder / f"{name}.so"
            if out.exists():
                return out
            text.write_text(kernels.source())
            unfinished = out.with_suffix(".part")
            # Fused multiply-adds where the processor has them, as a GPU has.
            subprocess.run(
                [
                    self._compiler, "-std=c++17", "-O1", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC",
                    "-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-variable", "-include", str(SHIM),
                    *macros, str(text), "-o", str(unfinished),
                ],
                check=True,
            )  # fmt: skip
            return unfinished.rename(out)


class HostEngine:
    """`paxray.projection.cuda.engine.Engine` in numpy, with guards around every array."""

    def __init__(self, builds: Builds, backwards: bool = False) -> None:
        self._builds, self._backwards = builds, backwards
        self._guarded: list[NDArray[np.uint8]] = []

    def adopt(self, array: Any) -> NDArray[Any]:
        out = self.empty(array.shape, array.dtype)
        out[...] = array
        return out

    def arrived(self) -> None:
        return None

    def done(self) -> None:
        return None

    def await_(self, mark: Any, buffers: Sequence[Any]) -> None:
        pass

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        whole = np.full(size + 2 * GUARD, GUARD_BYTE, np.uint8)
        self._guarded.append(whole)
        return whole[GUARD : GUARD + size].view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        out = self.empty(shape, dtype)
        out[...] = 0
        return out

    def address(self, buffer: NDArray[Any]) -> int:
        return int(buffer.ctypes.data)

    def send(self, array: NDArray[Any]) -> NDArray[Any]:
        return self.adopt(array)

    def turned(self, buffer: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
        return self.adopt(buffer.transpose(axes))

    def joined(self, buffers: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
        return np.concatenate(buffers, axis=axis)

    def viewed(self, buffer: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
        return buffer.view(dtype)

    def extremes(self, buffer: NDArray[Any]) -> tuple[float, float]:
        return float(buffer.min()), float(buffer.max())

    def fetch(self, buffer: NDArray[Any]) -> NDArray[Any]:
        return buffer.copy()

    def run(self, kernel: str, variant: Variant, threads: tuple[int, ...], params: Any) -> None:
        self._builds.launch(kernel, variant, threads, self.address(params), self._backwards)

    def check(self) -> None:
        """No kernel has written beside an array."""
        for whole in self._guarded:
            assert (whole[:GUARD] == GUARD_BYTE).all()
            assert (whole[-GUARD:] == GUARD_BYTE).all()


class HostTorchEngine(TorchEngine):
    """The engine of a GPU with torch's CPU as the device: its array code runs, its streams and launches do not."""

    def __init__(self, builds: Builds) -> None:
        import torch

        self._torch, self._device, self._builds = torch, torch.device("cpu"), builds

    def adopt(self, array: Any) -> Any:
        if not isinstance(array, np.ndarray):
            return self._foreign(array)
        out = self.empty(array.shape, array.dtype)
        out.numpy()[...] = array.view(out.numpy().dtype)
        return out

    def arrived(self) -> None:
        return None

    def done(self) -> None:
        return None

    def await_(self, mark: Any, buffers: Sequence[Any]) -> None:
        pass

    def send(self, array: NDArray[Any]) -> Any:
        return self.adopt(array)

    def run(self, kernel: str, variant: Variant, threads: tuple[int, ...], params: Any) -> None:
        self._builds.launch(kernel, variant, threads, self.address(params), False)
