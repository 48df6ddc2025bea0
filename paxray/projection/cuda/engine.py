"""Memory and launches on a GPU: torch holds the arrays and the streams, cuda.core loads and launches the kernels.

The march itself knows only the protocol, so that a test can run the same host code on a C++ build of the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paxray.errors import ConfigError, ResourceError
from paxray.projection.cuda.kernels import BLOCK, LINE, Variant, compile_cubin, need_extra

#: An array where the kernels can reach it; C-contiguous.
Buffer = Any


class Engine(Protocol):
    """Where the kernels run. Unsigned integers may be held as signed ones of the same bits."""

    def adopt(self, array: Any) -> Buffer:
        """Make a large array reachable: a numpy array by a copy that runs beside the kernels, others as they are."""

    def arrived(self) -> Any:
        """Return a mark behind what has been adopted so far."""

    def done(self) -> Any:
        """Return a mark behind what has been run so far."""

    def await_(self, mark: Any, buffers: Sequence[Buffer]) -> None:
        """Let what follows, which uses the buffers, wait for the mark."""

    def send(self, array: NDArray[Any]) -> Buffer:
        """Copy a small array, in order with the kernels."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """An array of any content."""

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """An array of zeros."""

    def address(self, buffer: Buffer) -> int:
        """Where it lies."""

    def turned(self, buffer: Buffer, axes: tuple[int, ...]) -> Buffer:
        """A C-contiguous copy with the axes in another order."""

    def joined(self, buffers: Sequence[Buffer], axis: int) -> Buffer:
        """One array of several."""

    def viewed(self, buffer: Buffer, dtype: DTypeLike) -> Buffer:
        """The same bits as another type; a wider one takes in neighbours along the last axis."""

    def extremes(self, buffer: Buffer) -> tuple[float, float]:
        """Smallest and largest value."""

    def fetch(self, buffer: Buffer) -> NDArray[Any]:
        """A numpy array of the content, when all that was launched before is done."""

    def run(self, kernel: str, variant: Variant, threads: tuple[int, ...], params: Buffer) -> None:
        """Run a kernel on at least that many threads: ``(n,)``, or ``(columns, rows)`` for the march.

        `params` is a `kernels.PARAMS` struct that was sent.
        """


def blocks_for(threads: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return ``(grid, block)`` that cover the threads."""
    block = BLOCK if len(threads) == 2 else (LINE,)
    return tuple(-(-n // size) for n, size in zip(threads, block, strict=True)), block


class TorchEngine:
    """The protocol on a CUDA device, in stream order with torch's current stream.

    Parameters
    ----------
    index
        The device's number, as torch counts.

    Raises
    ------
    ResourceError
        The extra ``gpu`` is missing.
    """

    def __init__(self, index: int) -> None:
        need_extra()
        import torch
        from cuda.core import Device

        self._torch = torch
        self._device = torch.device("cuda", index)
        torch.cuda.init()
        # The same primary context that torch uses.
        Device(index).set_current()
        major, minor = torch.cuda.get_device_capability(index)
        self._arch = f"sm_{major}{minor}"
        # Copies run beside kernels: a case's arrays can travel while another's views are made.
        self._copies = torch.cuda.Stream(self._device)
        self._programs: dict[Variant, Any] = {}
        self._kernels: dict[tuple[str, Variant], Any] = {}

    def adopt(self, array: Any) -> Buffer:
        """Copy a numpy array through pinned memory without waiting; take others where they lie, by DLPack."""
        torch = self._torch
        if not isinstance(array, np.ndarray):
            return self._foreign(array)
        with torch.cuda.stream(self._copies):
            return self.send(array)

    def send(self, array: NDArray[Any]) -> Buffer:
        """Copy to the device on torch's current stream, without waiting."""
        # torch keeps the staging area until the copy is done, and frees device memory in stream order.
        with self._memory(array.nbytes):
            pinned = self._torch.empty(array.shape, dtype=self._kind(array.dtype), pin_memory=True)
            np.copyto(pinned.numpy(), array.view(_signed(array.dtype)))
            return pinned.to(self._device, non_blocking=True)

    def _foreign(self, array: Any) -> Buffer:
        torch = self._torch
        tensor = array if isinstance(array, torch.Tensor) else torch.from_dlpack(array)
        if tensor.device != self._device:
            raise ConfigError(
                "the array lies on another device", expected=str(self._device), found=str(tensor.device)
            )
        return self.viewed(tensor, _signed(_numpy_type(tensor))).contiguous()

    def arrived(self) -> Any:
        """An event behind the copies, and behind whatever makes the arrays that were taken where they lie."""
        self._copies.wait_stream(self._torch.cuda.current_stream(self._device))
        return self._copies.record_event()

    def done(self) -> Any:
        """An event on torch's current stream."""
        return self._torch.cuda.current_stream(self._device).record_event()

    def await_(self, mark: Any, buffers: Sequence[Buffer]) -> None:
        """Order torch's current stream behind the mark, and keep the memory until its work is done."""
        stream = self._torch.cuda.current_stream(self._device)
        stream.wait_event(mark)
        for buffer in buffers:
            buffer.record_stream(stream)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Uninitialised device memory."""
        with self._memory(int(np.prod(shape)) * np.dtype(dtype).itemsize):
            return self._torch.empty(shape, dtype=self._kind(dtype), device=self._device)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Zeroed device memory."""
        with self._memory(int(np.prod(shape)) * np.dtype(dtype).itemsize):
            return self._torch.zeros(shape, dtype=self._kind(dtype), device=self._device)

    def address(self, buffer: Buffer) -> int:
        """Device address."""
        return int(buffer.data_ptr())

    def turned(self, buffer: Buffer, axes: tuple[int, ...]) -> Buffer:
        """Permute on the device."""
        with self._memory(buffer.nbytes):
            return buffer.permute(axes).contiguous()

    def joined(self, buffers: Sequence[Buffer], axis: int) -> Buffer:
        """Concatenate on the device."""
        if len(buffers) == 1:
            return buffers[0]
        kind = buffers[0].dtype
        signed = _signed(_numpy_type(buffers[0]))
        with self._memory(sum(b.nbytes for b in buffers)):
            return self._torch.cat([self.viewed(b, signed) for b in buffers], dim=axis).view(kind)

    def viewed(self, buffer: Buffer, dtype: DTypeLike) -> Buffer:
        """Reinterpret the bits."""
        return buffer.view(getattr(self._torch, np.dtype(dtype).name))

    def extremes(self, buffer: Buffer) -> tuple[float, float]:
        """Reduce on the device, and wait."""
        low, high = self._torch.aminmax(buffer)
        return float(low), float(high)

    def fetch(self, buffer: Buffer) -> NDArray[Any]:
        """Copy to the host, and wait."""
        kind = _numpy_type(buffer)
        content: NDArray[Any] = self.viewed(buffer, _signed(kind)).cpu().numpy()
        return content.view(kind)

    def run(self, kernel: str, variant: Variant, threads: tuple[int, ...], params: Buffer) -> None:
        """Launch on torch's current stream."""
        from cuda.core import LaunchConfig, ObjectCode, Stream, launch

        if min(threads) == 0:
            return
        # A kernel is loaded into, and runs in, the context of the current device.
        with self._torch.cuda.device(self._device):
            if variant not in self._programs:
                self._programs[variant] = ObjectCode.from_cubin(compile_cubin(variant, self._arch))
            if (kernel, variant) not in self._kernels:
                self._kernels[kernel, variant] = self._programs[variant].get_kernel(kernel)
            grid, block = blocks_for(threads)
            stream = Stream.from_handle(self._torch.cuda.current_stream(self._device).cuda_stream)
            config = LaunchConfig(grid=grid, block=block)
            launch(stream, config, self._kernels[kernel, variant], self.address(params))

    def _kind(self, dtype: DTypeLike) -> Any:
        return getattr(self._torch, _signed(np.dtype(dtype)).name)

    @contextmanager
    def _memory(self, size: int) -> Iterator[None]:
        """Turn torch's complaint about device memory into an error that says how much was asked for."""
        try:
            yield
        except self._torch.cuda.OutOfMemoryError as error:
            free, total = self._torch.cuda.mem_get_info(self._device)
            raise ResourceError(
                "not enough GPU memory",
                expected=f"{size / 2**20:.0f} MiB in one piece",
                found=f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB free",
                do="crop the CT, store attenuation as 'fixed16', ask for fewer dense maps, or use --device cpu",
                code="gpu_memory",
            ) from error


def _signed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The signed type of the same bits: torch computes with few of the unsigned ones."""
    return np.dtype(f"i{dtype.itemsize}") if dtype.kind == "u" and dtype.itemsize > 1 else dtype


def _numpy_type(tensor: Any) -> np.dtype[Any]:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


@cache
def engine_of(index: int) -> TorchEngine:
    """The engine of a device, with the programs it has loaded."""
    return TorchEngine(index)


def current_engine() -> TorchEngine:
    """The engine of torch's current CUDA device."""
    import torch

    return engine_of(torch.cuda.current_device())
