"""Projectors written in torch: DiffDRR and nanodrr. Their labels are exclusive: one integer per voxel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes import Scene
from benchmarks.tools import Tool


class InTorch(Tool):
    """Threads, and waiting for a GPU to finish."""

    kind = "share"

    def missing(self) -> str:
        """The package, and the GPU where one is asked for."""
        gone = super().missing()
        if gone or self.device == "cpu":
            return gone
        import torch

        return "" if torch.cuda.is_available() else "torch finds no CUDA device"

    def tensor(self, array: Any) -> Any:
        """Float32, where the tool computes; shares memory with numpy on the CPU where it can."""
        import torch

        return torch.as_tensor(np.ascontiguousarray(array, np.float32), device=self.device)

    def fetched(self, found: Any) -> NDArray[np.floating]:
        """Back to numpy, which waits for the GPU."""
        return np.asarray(found.cpu().numpy())

    def limit_threads(self) -> None:
        """For torch's CPU operations."""
        import torch

        torch.set_num_threads(self.threads)

    def image(self) -> NDArray[np.floating]:
        """Without labels."""
        return self.fetched(self._render(False)[0, 0])

    def image_and_labels(self) -> tuple[NDArray[np.floating], NDArray[Any]]:
        """All channels; their sum is the image. The first is what no class covers."""
        channels = self._render(True)[0]
        return self.fetched(channels.sum(0)), self.fetched(channels[1:])

    def _render(self, labelled: bool) -> Any:
        """``(1, channels, rows, columns)``."""
        raise NotImplementedError


def samples_along(scene: Scene) -> int:
    """As many samples as the volume has slabs along the rays: the sampling that Joseph's method has."""
    along = np.abs(scene.mu.grid.inverse[:3, :3] @ scene.view.direction)
    return int(scene.mu.shape[2 - int(np.argmax(along))])


class DiffDrr(InTorch):
    """DiffDRR, trilinear renderer, one sample per slab; rays are given as points, not through its detector."""

    name = "DiffDRR"
    package = "diffdrr"
    image_is = "trilinear, as many samples as slabs, in patches of 128 x 128"
    labels_are = "share of the line integral, exclusive classes"
    renderer = "trilinear"
    #: Pixels to a side of the patches that it renders in turn: faster on a CPU than the whole at once, and without
    #: them Siddon needs some 15 GiB.
    patch = 128

    def load(self, scene: Scene) -> None:
        """Its module with density, mask and affine; no HU conversion."""
        import torch
        import torchio
        from diffdrr.drr import DRR

        self.limit_threads()
        view = scene.view
        density = torchio.ScalarImage(
            tensor=self.tensor(scene.mu.array).permute(2, 1, 0)[None], affine=scene.mu.affine
        )
        mask = torchio.LabelMap(
            tensor=self.tensor(scene.labels.atoms).permute(2, 1, 0)[None], affine=scene.mu.affine
        )
        subject = SimpleNamespace(volume=density, density=density, mask=mask, reorient=torch.eye(4))
        self.drr = DRR(
            subject,
            sdd=view.sdd_mm,
            height=view.rows,
            width=view.columns,
            delx=view.pitch_mm[0],
            dely=view.pitch_mm[1],
            renderer=self.renderer,
            patch_size=self.patch if self.patch < min(view.size) else None,
        ).to(self.device)
        row, column = np.mgrid[: view.rows, : view.columns]
        self.source = self.tensor(view.source_mm)[None, None]
        self.target = self.tensor(view.pixel_mm(column, row).reshape(1, -1, 3))
        self.options = {"n_points": samples_along(scene)} if self.renderer == "trilinear" else {}

    def _render(self, labelled: bool) -> Any:
        import torch

        with torch.inference_mode():
            found = self.drr.render(
                self.drr.density, self.source, self.target, mask_to_channels=labelled, **self.options
            )
            return self.drr.reshape_transform(found, batch_size=1)


class DiffDrrSiddon(DiffDrr):
    """DiffDRR, Siddon renderer."""

    name = "DiffDRR-Siddon"
    image_is = "Siddon, constant within a voxel, in patches of 128 x 128"
    renderer = "siddon"


class NanoDrr(InTorch):
    """nanodrr, one sample per slab: torch on the CPU, its fused Triton kernel on a GPU."""

    name = "nanodrr"
    package = "nanodrr"
    image_is = "trilinear, as many samples as slabs"
    labels_are = "share of the line integral, exclusive classes"

    def load(self, scene: Scene) -> None:
        """Camera matrices; pixel centres are at half integers there."""
        import torch
        from nanodrr.data import Subject

        self.limit_threads()
        view = scene.view
        assert view.K is not None
        affine = self.tensor(scene.mu.affine)
        inverse = self.tensor(scene.mu.grid.inverse)
        to_unit_box = Subject._make_voxel_to_grid(torch.Size((1, 1, *scene.mu.shape))).to(self.device)
        middle = self.tensor(scene.mu.grid.center_mm)
        volume = self.tensor(scene.mu.array)[None, None]
        labels = self.tensor(scene.labels.atoms)[None, None]
        self.labelled = Subject(volume, labels, affine, inverse, to_unit_box, middle, convert_to_mu=False)
        self.plain = Subject(
            volume, labels, affine, inverse, to_unit_box, middle, max_label=0, convert_to_mu=False
        )
        intrinsic = view.K.copy()
        intrinsic[:2, 2] += 0.5
        camera = np.eye(4)
        camera[:3, :3], camera[:3, 3] = view.R, view.t
        self.k_inv = self.tensor(np.linalg.inv(intrinsic))[None]
        self.rt_inv = self.tensor(np.linalg.inv(camera))[None]
        self.sdd = torch.tensor([view.sdd_mm], device=self.device)
        self.size, self.samples = view.size, samples_along(scene)

    def _render(self, labelled: bool) -> Any:
        import torch
        from nanodrr.drr import render

        with torch.inference_mode():
            subject = self.labelled if labelled else self.plain
            return render(
                subject, self.k_inv, self.rt_inv, self.sdd, *self.size, n_samples=self.samples, backend="auto"
            )
