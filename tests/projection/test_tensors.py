"""torch in, torch out, where it lies; and no torch where there is none."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scenes import affine_of, random_scene

from paxray.errors import ConfigError
from paxray.io.volume import Volume
from paxray.projection.cuda.resident import hold
from paxray.projection.materials import Materials
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import project, project_many, project_tiles
from paxray.projection.tensors import on_host

ALL = ("image", "presence", "path", "depth", "share", "incomplete", "facts", "coverage", "materials")
MAPS = ("image", "presence", "path_mm", "entry_mm", "exit_mm", "share", "incomplete", "coverage", "materials")
SHAPE = (18, 15, 21)


def scene() -> tuple[Volume, Any, Any, Any]:
    mu, labels = random_scene(1, SHAPE, affine_of((1.1, 1.3, 1.6), SHAPE))
    view = place(Pose.named("lao"), Setup(size=(23, 29), margin_mm=3), mu.grid.corners_mm)
    return mu, labels, view, Materials(("same",), mu.array[None])


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("backend", ["", "reference"])
def test_tensors_in_tensors_out(backend: Any, supersample: int) -> None:
    import torch

    mu, labels, view, materials = scene()
    tensor: Any = torch.from_numpy(mu.array)
    options: Any = {
        "device": "cpu", "backend": backend, "materials": materials, "supersample": supersample,
    }  # fmt: skip
    expected = project(mu, labels, view, ALL, **options)
    found = project(Volume(tensor, mu.affine), labels, view, ALL, **options)
    for name in MAPS:
        mine: Any = getattr(found, name)
        assert isinstance(mine, torch.Tensor), name
        assert mine.numpy().tobytes() == getattr(expected, name).tobytes(), name
    assert isinstance(found.facts, np.ndarray)
    for name in labels.names:
        mask: Any = found.mask(name)
        assert mask.dtype == torch.bool
        np.testing.assert_array_equal(mask.numpy(), expected.mask(name))


def test_many_classes_have_masks_as_tensors() -> None:
    """All 64 bits of a word, its sign among them."""
    import torch

    from paxray.projection.want import pack, unpack

    met = np.random.default_rng(1).random((130, 5, 7)) < 0.5
    bits: Any = torch.from_numpy(pack(met))
    np.testing.assert_array_equal(np.stack([unpack(bits, c).numpy() for c in range(130)]), met)


def test_many_views_and_stretches_of_rows() -> None:
    import torch

    mu, labels, view, _ = scene()
    volume = Volume(torch.from_numpy(mu.array), mu.affine)  # type: ignore[arg-type]
    many = list(project_many(volume, labels, [view, view], ["path"], device="cpu"))
    tiles = list(project_tiles(volume, labels, view, ["path"], max_bytes=10_000, device="cpu"))
    assert len(tiles) > 1
    joined = torch.cat([tile.path_mm for tile in tiles], dim=1)  # type: ignore[misc]
    np.testing.assert_array_equal(joined, many[0].path_mm)


def test_read_where_it_lies() -> None:
    """float32 in C order is not copied; anything else is turned into it."""
    import torch

    mu, _, view, _ = scene()
    tensor = torch.from_numpy(mu.array)
    assert np.shares_memory(on_host(tensor), mu.array)
    assert np.shares_memory(on_host(mu.array), mu.array)
    expected: Any = project(mu, None, view, ["image"], device="cpu").image
    turned = tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for other in (tensor.double(), tensor.clone().requires_grad_(), turned):
        found: Any = project(Volume(other, mu.affine), None, view, ["image"], device="cpu").image  # type: ignore[arg-type]
        assert not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), expected)


def test_a_device_that_cannot_project() -> None:
    import torch

    volume = Volume(torch.zeros(SHAPE, device="meta"), np.eye(4))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot project"):
        project(volume, None, scene()[2], ["image"])


def test_numpy_does_not_import_torch() -> None:
    script = (
        "import sys, numpy as np, paxray\n"
        "from paxray.io.volume import Volume\n"
        "from paxray.projection.pose import Pose, Setup, place\n"
        "mu = Volume(np.ones((5, 5, 5), np.float32), np.eye(4))\n"
        "view = place(Pose.named('pa'), Setup(size=(4, 4)), mu.grid.corners_mm)\n"
        "for found in paxray.project_many(mu, None, [view], ['image'], device='cpu', supersample=2): pass\n"
        "assert type(found.image) is np.ndarray\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Tensors on a GPU are projected there and stay there; cpu is refused."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    pytest.importorskip("cuda.core", reason="the extra 'gpu' is not installed")
    mu, labels, view, materials = scene()
    volume = Volume(torch.from_numpy(mu.array).cuda(), mu.affine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lies on a GPU"):
        project(volume, labels, view, ["image"], device="cpu")
    for supersample in (1, 2):
        plain: Any = project(
            mu, labels, view, ALL, backend="reference", materials=materials, supersample=supersample
        )
        for options in ({"materials": materials}, {"resident": hold(volume, labels, materials=materials)}):
            found: Any = project(volume, labels, view, ALL, supersample=supersample, **options)  # type: ignore[arg-type]
            assert found.backend == "cuda"
            for name in MAPS:
                assert getattr(found, name).is_cuda, name
            np.testing.assert_allclose(found.image.cpu(), plain.image, atol=1e-5 * plain.image.max())
            np.testing.assert_allclose(
                found.materials.cpu(), plain.materials, atol=1e-5 * plain.materials.max()
            )
            for name in labels.names:
                np.testing.assert_array_equal(found.mask(name).cpu(), plain.mask(name))
