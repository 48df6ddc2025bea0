"""``python -m benchmarks.masks``: reading masks that exist, by format; a chest of 512 x 512 x 300 with 117 classes."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.guard import exit_code_of
from benchmarks.report import Table, number, section
from benchmarks.timing import Times
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.errors import ConfigError
from paxray.io.cases import BY_NAME, MaskSource
from paxray.io.image import read_header, read_stored
from paxray.io.volume import Grid, Volume
from paxray.phantom.write import write_nifti
from paxray.segmentation.files import read_masks

CHEST = Path("lidc-idri-0001/totalsegmentator_v2.nii.gz")
SMALL = Path("totalsegmentator-reference/example_seg_fast")
PLANES = 300
LABEL_MAP = "label_map.nii.gz"
#: What the project promises for the folder of the chest, on two processors.
PROMISED_S = 15.0
VOCABULARY = "totalsegmentator_v2+118:costal_cartilages"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    parser.add_argument("--planes", type=int, default=PLANES, help=f"planes of the chest ({PLANES})")
    parser.add_argument(
        "--files",
        type=Path,
        metavar="FOLDER",
        help="keep the chest's files there, and use those that a run before left",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write masks.md and masks.json there")
    return parser.parse_args(arguments)


def real_data() -> Path:
    """The folder of real CTs; `ConfigError` without it."""
    root = Path(os.environ.get("PAXRAY_REAL_DATA", ""))
    for part in (CHEST, SMALL):
        if not os.environ.get("PAXRAY_REAL_DATA") or not (root / part).exists():
            raise ConfigError("the real masks are not there", where="PAXRAY_REAL_DATA", expected=str(part))
    return root


def tall_chest(path: Path, planes: int) -> Volume:
    """The real chest's label map, mirrored along z until it has so many planes."""
    stored = read_stored(path)
    there = len(stored.array)
    up_and_down = np.concatenate([np.arange(there), np.arange(there)[::-1]])
    chosen = np.resize(up_and_down, planes)
    return Volume(stored.array[chosen].astype(np.uint8), stored.header.grid.affine)


def write_sources(chest: Volume, folder: Path) -> None:
    """Write the chest in each format, the label map last."""
    names = load_vocabulary("totalsegmentator_v2", catalog=load_catalog()).labels
    for value, name in names.items():
        mask = Volume((chest.array == value).astype(np.uint8), chest.affine)
        write_nifti(folder / "one_file_per_class" / f"{name}.nii.gz", mask)
    write_segments(folder / "slicer.seg.nrrd", chest, names)
    write_dicom(folder / "seg.dcm", chest, names)
    write_nifti(folder / LABEL_MAP, chest)


def sources_in(folder: Path) -> dict[str, MaskSource]:
    """The files that `write_sources` wrote."""
    return {
        "folder of 117 files, .nii.gz": MaskSource(folder / "one_file_per_class", BY_NAME, "folder"),
        "one label map, .nii.gz": MaskSource(folder / LABEL_MAP, VOCABULARY, "label map"),
        "117 segments in one layer, .seg.nrrd": MaskSource(folder / "slicer.seg.nrrd", BY_NAME, "slicer"),
        "117 segments of sparse frames, DICOM SEG": MaskSource(folder / "seg.dcm", BY_NAME, "seg"),
    }


def write_segments(path: Path, chest: Volume, names: dict[int, str]) -> None:
    """Write a .seg.nrrd of one layer."""
    import SimpleITK

    kept = np.where(np.isin(chest.array, list(names)), chest.array, 0).astype(np.uint8)
    image = SimpleITK.GetImageFromArray(kept)
    spacing = np.array(chest.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((chest.affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(chest.affine[:3, 3].tolist())
    for n, (value, name) in enumerate(names.items()):
        for key, text in (("Name", name), ("LabelValue", str(value)), ("Layer", "0")):
            image.SetMetaData(f"Segment{n}_{key}", text)
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def write_dicom(path: Path, chest: Volume, names: dict[int, str]) -> None:
    """Write a binary SEG with a frame wherever a class has pixels; a plane has to fill whole bytes."""
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

    def item(**fields: Any) -> Dataset:
        out = Dataset()
        for name, value in fields.items():
            setattr(out, name, value)
        return out

    def text(numbers: NDArray[np.float64]) -> list[str]:
        return [f"{value:.10g}"[:16] for value in numbers.tolist()]

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SegmentationStorage, generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.SegmentationType, dataset.Modality = "BINARY", "SEG"
    dataset.SegmentSequence = [item(SegmentNumber=value, SegmentLabel=name) for value, name in names.items()]
    spacing = np.array(chest.spacing_mm)
    turn = (chest.affine[:3, :2] / spacing[:2]).T.ravel()
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=text(spacing[[1, 0]]))],
            PlaneOrientationSequence=[item(ImageOrientationPatient=text(turn))],
        )
    ]
    groups, bits = [], []
    for value in names:
        for k in np.flatnonzero((chest.array == value).any(axis=(1, 2))).tolist():
            place = text(chest.affine[:3, 3] + k * chest.affine[:3, 2])
            groups.append(
                item(
                    PlanePositionSequence=[item(ImagePositionPatient=place)],
                    SegmentIdentificationSequence=[item(ReferencedSegmentNumber=value)],
                )
            )
            bits.append(np.packbits(chest.array[k] == value, bitorder="little").tobytes())
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(groups)
    dataset.Rows, dataset.Columns = chest.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 1, 1, 0, 0
    dataset.PixelData = b"".join(bits)
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def once(call: Callable[[], object]) -> tuple[float, float, int | None]:
    """Wall-clock and processor seconds of a call, and by how many bytes memory rose at most."""
    wall, used = time.perf_counter(), time.process_time()
    found = machine.peak_beyond(call)
    if found is None:
        call()
    return time.perf_counter() - wall, time.process_time() - used, None if found is None else found[1]


def measure(sources: dict[str, MaskSource], grid: Grid, repeats: int) -> tuple[tuple[Any, ...], ...]:
    """Read each source, in turn."""
    catalog = load_catalog()
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    used: dict[str, list[float]] = {name: [] for name in sources}
    memory: dict[str, int | None] = {}
    for _ in range(repeats):
        for name, source in sources.items():
            wall, busy, rise = once(partial(read_masks, [source], grid, catalog))
            seconds[name].append(wall)
            used[name].append(busy)
            memory[name] = rise
    return tuple(
        (
            name,
            Times(tuple(seconds[name])),
            Times(tuple(used[name])),
            "" if memory[name] is None else number((memory[name] or 0) / 2**20),
        )
        for name in sources
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report, write files; return the exit code."""
    options = parse(arguments)
    return exit_code_of(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Do what the options say."""
    root, about, versions = real_data(), machine.describe(), machine.versions()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.files or Path(scratch)
        if (
            not (folder / LABEL_MAP).exists()
            or read_header(folder / LABEL_MAP).grid.shape[0] != options.planes
        ):
            write_sources(tall_chest(root / CHEST, options.planes), folder)
        sources, grid = sources_in(folder), read_header(folder / LABEL_MAP).grid
        small = MaskSource(root / SMALL, BY_NAME, SMALL.name)
        small_grid = read_header(next(small.path.glob("*.nii.gz"))).grid
        read_masks([small], small_grid, load_catalog())  # loads compiled code
        others, began = machine.OthersUse(), time.perf_counter()
        rows = measure({f"{SMALL.name}, 117 files": small}, small_grid, options.repeats)
        rows += measure(sources, grid, options.repeats)
        meanwhile = others.share(time.perf_counter() - began)
    size = " x ".join(str(n) for n in grid.shape[::-1])
    table = Table(
        "From files to labels on the CT's lattice",
        f"Chest of {size} voxels: the real chest's masks, mirrored along z. Median (fastest to slowest) of "
        f"{options.repeats} rounds, files in the page cache, compiled code loaded. Memory: what resident memory rose "
        f"by at most, the labels included ({number(2 * np.prod(grid.shape) / 2**20)} MiB). Promised for the folder: "
        f"under {PROMISED_S:g} s on two processors.",
        ("source", "wall", "processor time", "memory, MiB"),
        rows,
    )
    text = (
        "# Masks that exist\n\n"
        f"{about['date']}; {about['cpu']}, {about['cores']} cores, {about['system']}; load before the run "
        f"{about['load_before']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
        + ("" if meanwhile is None else f" Other processes used {meanwhile:.0%} of the processors meanwhile.")
        + "\n\n"
        + section(table)
    )
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "masks.md").write_text(text)
        everything = {"machine": {**about, "others_share_of_processors": meanwhile}, "versions": versions}
        (options.out / "masks.json").write_text(json.dumps({**everything, **table.record()}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
