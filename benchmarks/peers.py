"""Array tools and C++ projectors: numpy, SimpleITK, RTK, ITK's ray caster, plastimatch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes import Scene
from benchmarks.tools import Tool
from paxray.errors import ResourceError


class AlongColumns(Tool):
    """A projection along an array's axis: parallel rays through columns of voxels only."""

    one_pass = False
    kind = "presence"

    def takes(self, scene: Scene) -> bool:
        """Parallel scenes are laid out along axis j."""
        return scene.view.beam == "parallel"

    @staticmethod
    def upright(found: NDArray[Any]) -> NDArray[Any]:
        """Array rows grow to the head, image rows to the feet."""
        return found[::-1]


class Numpy(AlongColumns):
    """The naive way: sums, and one `any` for each class; one thread."""

    name = "numpy"
    package = "numpy"
    image_is = "sum over an axis (one thread)"
    labels_are = "presence: `(labels == k).any(axis)` for each class (one thread)"

    def load(self, scene: Scene) -> None:
        """Nothing to convert."""
        self.mu, self.labels = scene.mu.array, scene.labels.atoms
        self.step_mm = np.float32(scene.mu.spacing_mm[1])

    def image(self) -> NDArray[np.floating]:
        """Sum along j."""
        return self.upright(self.mu.sum(axis=1) * self.step_mm)

    def one_class(self, number: int) -> NDArray[Any]:
        """Class c is atom c + 1."""
        return self.upright((self.labels == number + 1).any(axis=1))


class SimpleItk(AlongColumns):
    """SimpleITK's projections along an axis."""

    name = "SimpleITK"
    package = "SimpleITK"
    image_is = "SumProjection along an axis"
    labels_are = "presence: BinaryProjection for each class"

    def load(self, scene: Scene) -> None:
        """Copy into SimpleITK images."""
        import SimpleITK as sitk  # noqa: N813

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(self.threads)
        self.mu = sitk.GetImageFromArray(scene.mu.array)
        self.labels = sitk.GetImageFromArray(scene.labels.atoms)
        self.step_mm = np.float32(scene.mu.spacing_mm[1])

    def image(self) -> NDArray[np.floating]:
        """Sum along j."""
        import SimpleITK as sitk  # noqa: N813

        found = sitk.GetArrayViewFromImage(sitk.SumProjection(self.mu, 1))[:, 0, :]
        return self.upright(found.astype(np.float32) * self.step_mm)

    def one_class(self, number: int) -> NDArray[Any]:
        """Class c is atom c + 1."""
        import SimpleITK as sitk  # noqa: N813

        found = sitk.BinaryProjection(self.labels, 1, float(number + 1), 0.0)
        return self.upright(sitk.GetArrayFromImage(found)[:, 0, :] > 0)


class InItk(Tool):
    """What RTK and ITK's ray caster share: a volume as an ITK image on an axis-aligned grid."""

    def itk_volume(self, array: NDArray[np.float32], scene: Scene) -> Any:
        """View an array as an ITK image, without a copy."""
        import itk

        image = itk.image_view_from_array(array)
        image.SetSpacing([float(s) for s in scene.mu.spacing_mm])
        image.SetOrigin([float(x) for x in scene.mu.grid.to_world([0, 0, 0])])
        return image

    def takes(self, scene: Scene) -> bool:
        """Cone beams; volumes that are not turned."""
        upright = np.allclose(scene.mu.affine[:3, :3], np.diag(scene.mu.spacing_mm))
        return scene.view.beam == "cone" and upright

    def limit_threads(self) -> None:
        """For all ITK filters of this process."""
        import itk

        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(self.threads)


class Rtk(InItk):
    """RTK's Joseph forward projector on the CPU: C++, threaded."""

    name = "RTK"
    package = "itk-rtk"
    image_is = "JosephForwardProjectionImageFilter"
    labels_are = "path length (mm), bilinear: one more pass over a float mask for each class"
    one_pass = False
    slow_labels = True
    kind = "path"

    def load(self, scene: Scene) -> None:
        """Geometry from source, first pixel, and the directions of rows and columns."""
        import itk
        from itk import RTK as rtk  # noqa: N811

        self.limit_threads()
        self.scene, view = scene, scene.view
        self.volume = self.itk_volume(scene.mu.array, scene)
        self.geometry = rtk.ThreeDCircularProjectionGeometry.New()
        source, first = itk.Point[itk.D, 3](), itk.Point[itk.D, 3]()
        along_row, down = itk.Vector[itk.D, 3](), itk.Vector[itk.D, 3]()
        for x in range(3):
            source[x], first[x] = float(view.source_mm[x]), float(view.first_pixel_mm[x])
            along_row[x], down[x] = float(view.u[x]), float(view.v[x])
        if not self.geometry.AddProjection(source, first, along_row, down):
            raise ResourceError("RTK refuses this view's geometry", where=scene.name)

    def image(self) -> NDArray[np.floating]:
        """One projection."""
        return self._project(self.volume)

    def one_class(self, number: int) -> NDArray[Any]:
        """Its mask as a float volume, projected."""
        mask = (self.scene.labels.atoms == number + 1).astype(np.float32)
        return self._project(self.itk_volume(mask, self.scene))

    def _project(self, volume: Any) -> NDArray[np.floating]:
        import itk
        from itk import RTK as rtk  # noqa: N811

        view, kind = self.scene.view, itk.Image[itk.F, 3]
        stack = itk.image_view_from_array(np.zeros((1, *view.size), np.float32))
        stack.SetSpacing([*view.pitch_mm, 1.0])
        joseph = rtk.JosephForwardProjectionImageFilter[kind, kind].New()
        joseph.SetInput(0, stack)
        joseph.SetInput(1, volume)
        joseph.SetGeometry(self.geometry)
        joseph.Update()
        return np.array(itk.array_view_from_image(joseph.GetOutput())[0])


class ItkRayCast(InItk):
    """ITK's RayCastInterpolateImageFunction behind a resampling filter, the classic DRR of its examples."""

    name = "ITK"
    package = "itk-filtering"
    image_is = "RayCastInterpolateImageFunction in a ResampleImageFilter"

    def takes(self, scene: Scene) -> bool:
        """It takes the volume to be centred on the world's origin."""
        return super().takes(scene) and bool(np.abs(scene.mu.grid.center_mm).max() < 1e-6)

    def load(self, scene: Scene) -> None:
        """A detector of one slice."""
        import itk

        self.limit_threads()
        view, kind = scene.view, itk.Image[itk.F, 3]
        self.volume = self.itk_volume(scene.mu.array, scene)
        stay = itk.TranslationTransform[itk.D, 3].New()
        ray_cast = itk.RayCastInterpolateImageFunction[kind, itk.D].New()
        ray_cast.SetInputImage(self.volume)
        ray_cast.SetTransform(stay)
        ray_cast.SetThreshold(0.0)
        source = itk.Point[itk.D, 3]()
        for x in range(3):
            source[x] = float(view.source_mm[x])
        ray_cast.SetFocalPoint(source)
        self.resample = itk.ResampleImageFilter[kind, kind].New()
        self.resample.SetInput(self.volume)
        self.resample.SetInterpolator(ray_cast)
        self.resample.SetTransform(stay)
        self.resample.SetSize([view.columns, view.rows, 1])
        self.resample.SetOutputOrigin([float(x) for x in view.first_pixel_mm])
        self.resample.SetOutputSpacing([*view.pitch_mm, 1.0])
        axes = np.stack([view.u, view.v, np.cross(view.u, view.v)], axis=1)
        self.resample.SetOutputDirection(itk.matrix_from_array(axes))

    def image(self) -> NDArray[np.floating]:
        """Make the filter run again."""
        import itk

        self.resample.Modified()
        self.resample.Update()
        return np.array(itk.array_view_from_image(self.resample.GetOutput())[0])


class Plastimatch(Tool):
    """The program `plastimatch drr`, exact algorithm; its own clock counts, without starting and reading."""

    name = "plastimatch"
    image_is = "`plastimatch drr -i exact`, by its own clock (without starting and reading the volume)"

    def missing(self) -> str:
        """A program, not a package."""
        return "" if shutil.which("plastimatch") else "no program plastimatch"

    def version(self) -> str:
        """From the program."""
        said = subprocess.run(["plastimatch", "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"\d+(\.\d+)+", said)
        return found.group() if found else said.strip()

    def takes(self, scene: Scene) -> bool:
        """Cones whose central ray meets the middle of the detector squarely."""
        view = scene.view
        if view.beam != "cone":
            return False
        foot = view.source_mm + view.sdd_mm * view.direction
        return bool(np.abs(foot - view.center_mm).max() < 1e-6)

    def load(self, scene: Scene) -> None:
        """Write the volume where the program can read it."""
        import SimpleITK as sitk  # noqa: N813

        view = scene.view
        self.folder = tempfile.TemporaryDirectory(prefix="drr-")
        self.size = view.size
        volume = sitk.GetImageFromArray(scene.mu.array)
        volume.SetSpacing(scene.mu.spacing_mm)
        volume.SetOrigin([float(x) for x in scene.mu.grid.to_world([0, 0, 0])])
        sitk.WriteImage(volume, self._path("volume.mha"))
        # Its columns run along vup x nrm, with nrm pointing back to the source.
        self.mirrored = bool(np.cross(view.v, view.direction) @ view.u < 0)
        sad_mm = view.sdd_mm / 2
        isocenter = view.source_mm + sad_mm * view.direction
        options = {
            "-I": self._path("volume.mha"),
            "-O": self._path("drr"),
            "-t": "pfm",
            "-P": "none",
            "-i": "exact",
            "-n": _words(-view.direction),
            "--vup": _words(-view.v),
            "--sad": f"{sad_mm:.9g}",
            "--sid": f"{view.sdd_mm:.9g}",
            "-o": _words(isocenter),
            # Columns before rows, whatever its help says.
            "-r": f"{view.columns} {view.rows}",
            "-z": _words([view.columns * view.pitch_mm[0], view.rows * view.pitch_mm[1]]),
        }
        self.command = ["plastimatch", "drr", *(word for pair in options.items() for word in pair)]

    def image(self) -> NDArray[np.floating]:
        """A process; the image comes back in attenuation x cm."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        said = subprocess.run(
            self.command, capture_output=True, text=True, check=True, env=environment
        ).stdout
        total = re.search(r"Total time: ([\d.eE+-]+)", said)
        if total is None:
            raise ResourceError(
                "plastimatch does not state its time", expected="a line 'Total time'", found=said
            )
        self.seconds = float(total.group(1))
        content = Path(self._path("drr0000.pfm")).read_bytes()
        found = np.frombuffer(content.split(b"\n", 3)[3], "<f4").reshape(self.size)
        return (found[:, ::-1] if self.mirrored else found) * np.float32(10.0)

    def own_seconds(self) -> float | None:
        """What it printed."""
        return self.seconds

    def _path(self, name: str) -> str:
        return str(Path(self.folder.name) / name)


def _words(numbers: Any) -> str:
    return " ".join(f"{float(x):.12g}" for x in numbers)
