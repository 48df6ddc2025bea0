"""The kernels' text, what it is compiled with, and the struct that it is called with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

import numpy as np

from paxray.errors import ResourceError
from paxray.projection.tiles import ROWS_PER_BLOCK
from paxray.projection.want import FACTS, Want

#: Threads of a block of the march, along a detector row and down a column; a warp is one stretch of a row.
BLOCK = (32, 4)
#: Slabs whose loads are in flight together.
GROUP = 4
#: Threads of a block of the other kernels.
LINE = 256
#: Columns among which a block of rows deals out its sums: the order of the reduction, so never tied to the device.
LANES = 32

_ADDRESSES = (
    *("mu", "atoms", "word_start", "word_of", "word_bits", "flags", "axes"),
    *("image", "bits", "steps", "first", "last", "share", "incomplete", "step_mm", "depth0_mm"),
    *("lanes", "blocks", "mu_in", "mu_out"),
    *("stored", "table", "materials"),
)
#: Twin of ``struct Params`` in march.cu; addresses as integers.
PARAMS = np.dtype(
    [
        *((name, np.uint64) for name in _ADDRESSES),
        *((name, np.float64, 3) for name in ("pixel", "du", "dv", "source", "direction")),
        ("metric", np.float64, (3, 3)),
        ("pixel_depth_mm", np.float64),
        ("mu_unit", np.float64),
        ("count", np.int64),
        ("stride", np.int64, 3),
        ("volume", np.int64),
        ("shape", np.int32, 3),
        *((name, np.int32) for name in ("cone", "signed_axis", "row0", "rows", "columns", "channels")),
        *((name, np.int32) for name in ("table_first", "table_entries")),
    ],
    align=True,
)


@dataclass(frozen=True)
class Variant:
    """What the kernels are compiled for; what is not wanted is not in the machine code.

    Parameters
    ----------
    want
        The outputs.
    mu_bits
        32: float32 per mm. 16: unsigned multiples of a unit.
    atom_bits
        16 or 32.
    materials
        How many, where they are wanted, else 0.
    stored
        What a voxel of theirs is: ``float32`` the coefficient itself; ``int16`` or ``uint16`` where to look it up.
    """

    want: Want = field(default_factory=Want)
    mu_bits: int = 32
    atom_bits: int = 16
    materials: int = 0
    stored: str = "float32"

    @property
    def classes(self) -> bool:
        """Whether the march keeps presence bits: they also tell which counts of steps have begun."""
        return self.want.presence or self.steps

    @property
    def steps(self) -> bool:
        """Whether it counts steps in each class."""
        return self.want.path or self.deep

    @property
    def deep(self) -> bool:
        """Whether it keeps the first and last step in each class."""
        return self.want.depth or self.want.facts

    @property
    def macros(self) -> tuple[tuple[str, int], ...]:
        """Names and values that the text is compiled with."""
        want = self.want
        return (
            ("IMAGE", int(want.image)),
            ("CLASSES", int(self.classes)),
            ("PATH", int(want.path)),
            ("DEPTH", int(want.depth)),
            ("FACTS", int(want.facts)),
            ("SHARE", int(want.share)),
            ("INCOMPLETE", int(want.incomplete)),
            ("MATERIALS", self.materials),
            ("STORED", ("float32", "int16", "uint16").index(self.stored)),
            ("MU_BITS", self.mu_bits),
            ("ATOM_BITS", self.atom_bits),
            ("BLOCK_X", BLOCK[0]),
            ("BLOCK_Y", BLOCK[1]),
            ("GROUP", GROUP),
            ("LINE", LINE),
            ("ROWS_PER_BLOCK", ROWS_PER_BLOCK),
            ("LANES", LANES),
            ("PARAMS_BYTES", PARAMS.itemsize),
            ("FACTS_BYTES", FACTS.itemsize),
        )


@lru_cache(maxsize=1)
def source() -> str:
    """The text of march.cu."""
    return (files(__package__) / "march.cu").read_text(encoding="utf-8")


def compile_cubin(variant: Variant, arch: str) -> bytes:
    """Compile with NVRTC, NVIDIA's run-time compiler; needs no GPU.

    Parameters
    ----------
    variant
        What for.
    arch
        The GPU's architecture, such as ``sm_90``.

    Raises
    ------
    ResourceError
        The extra ``gpu`` is not installed, or NVRTC does not know the architecture.
    """
    need_extra()
    from cuda.core import Program, ProgramOptions

    macros = [(name, str(value)) for name, value in variant.macros]
    try:
        program = Program(source(), "c++", ProgramOptions(arch=arch, std="c++17", define_macro=macros))
        return bytes(program.compile("cubin").code)
    except Exception as error:
        # What fails here is NVRTC's version or installation; a mistake in the text fails the tests.
        raise ResourceError(
            f"NVRTC cannot compile the projector for {arch}",
            found=f"{type(error).__name__}: {error}",
            do="update nvidia-cuda-nvrtc to a version that knows this GPU, or use --device cpu",
            code="nvrtc",
        ) from error


def need_extra() -> None:
    """Raise `ResourceError` where the packages that the CUDA projector needs are not installed."""
    try:
        import cuda.core  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            "the CUDA projector needs the extra 'gpu'",
            expected="cuda-core, and cuda-bindings and NVRTC of the same major version as torch's CUDA",
            found=str(error),
            do="pip install 'paxray[gpu]', or use --device cpu",
        ) from error
