"""A case of a few voxels, which loads what the first real one needs while that is being read."""

from __future__ import annotations

from functools import cache

import numpy as np

from paxray.anatomy.builder import LabelBuilder
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.vocabulary import Vocabulary
from paxray.anatomy.voxels import value_boxes
from paxray.io.volume import Volume
from paxray.physics.attenuation import attenuate
from paxray.projection.pose import Pose, Setup, place
from paxray.projection.project import Device, project, resolve_device
from paxray.radiography.display import render_display
from paxray.segmentation.body import BODY, UNSCANNED, body_extent, body_faces, row_ends, with_body


@cache
def warm_up(device: Device = "auto") -> None:
    """Take a cube of water through the stages, once in a process.

    Importing scipy and numba and loading the compiled loops takes half a second. In a thread of its own it leaves
    others free to decompress, and to pass over voxels as soon as the loops that they need are there.
    """
    hu = np.full((12, 12, 12), -1000, np.int16)
    hu[:, 2:-2, 2:-2] = 0
    hu[:, :, 0] = -2048
    ct = Volume(hu, np.diag([10.0, 10.0, 10.0, 1.0]))
    builder = LabelBuilder(ct.shape)
    builder.add_label_map((hu == 0).astype(np.uint8), Vocabulary("cube", {1: "heart"}))
    builder.add_mask("aorta", (slice(4, 6),) * 3, np.ones((2, 2, 2), bool))
    labels, body = with_body(ct, builder.finish(ct.affine, load_catalog()))
    assert load_catalog().graph.divisions  # what depends on what, kept with the catalog
    labels.cut_by_ct(UNSCANNED)
    value_boxes(labels.atoms, len(labels.membership))
    row_ends(labels.atoms, labels.membership[:, labels.index(BODY)])
    mu = attenuate(ct, body)
    if resolve_device(device) == "cuda":
        return
    setup = Setup(size=(16, 16))
    view = place(Pose.named("pa"), setup, body_extent(body, ct.grid), body_faces(body, ct.grid))
    found = project(mu, labels, view, ("image", "presence", "facts", "incomplete"), device="cpu")
    assert found.image is not None  # asked for above
    render_display(found.image, None, found.incomplete)


def forgo_blas() -> None:
    """Keep numba from looking for a BLAS as it starts, for a process of our own that is to be quick.

    To find one it imports scipy.linalg and with it most of numpy's rarer parts: a tenth of what a short command takes.
    All that hangs on what it finds is how compiled `numpy.correlate` multiplies, which no loop here calls.
    """
    from numba.np import linalg

    def absent() -> None:
        raise ImportError("not looked for: see paxray.warmup.forgo_blas")

    found, linalg.ensure_blas = linalg.ensure_blas, absent
    try:
        import numba.np.arraymath  # noqa: F401 - looks once, as it is imported
    finally:
        linalg.ensure_blas = found
