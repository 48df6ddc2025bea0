"""What runs in the child process of the segmenter `totalsegmentator`: the package's own API, watched.

Nothing else of this package imports this module's insides; TotalSegmentator, nnU-Net and torch stay in the child.
"""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paxray.errors import CaseError, ResourceError


def label(
    ct: str,
    out: str,
    tasks: Sequence[Mapping[str, Any]],
    device: str,
    threads: int,
    licence: str,
    where: str,
) -> dict[str, Any]:
    """Run tasks on one CT, and write ``TASK.nii.gz`` for each.

    Parameters
    ----------
    ct, out
        A NIfTI file, and a folder.
    tasks
        Each with its ``name`` and the package's switches ``fast`` and ``fastest``.
    device
        ``cpu`` or ``cuda``.
    threads
        How many to use.
    licence
        The user's licence number, or nothing.
    where
        How messages name the CT.

    Returns
    -------
    dict
        By task, whether it looked anywhere: some look only in organs, and those may not have been found.
    """
    _settle_down(licence, threads)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise _fell_back(device, "no CUDA device that torch can use", where)
    from totalsegmentator import config, libs

    config.setup_nnunet()  # nnU-Net reads its folders as it is imported
    from totalsegmentator import nnunet, python_api

    # Weights are there or they are not: the package would fetch them, and delete folders of earlier ones.
    python_api.download_pretrained_weights = _require_weights
    libs.download_pretrained_weights = _require_weights
    _stay_one_process(nnunet.nnUNetPredictor)
    torch.set_num_threads(threads)
    predict = nnunet.nnUNet_predict_image
    looked: dict[str, bool] = {}
    for task in tasks:
        nnunet.nnUNet_predict_image, seen = _watched(predict)
        python_api.totalsegmentator(
            Path(ct),
            Path(out) / f"{task['name']}.nii.gz",
            ml=True,
            task=task["name"],
            fast=task["fast"],
            fastest=task["fastest"],
            device="gpu" if device == "cuda" else "cpu",
            nr_thr_resamp=1,
            nr_thr_saving=1,
            quiet=True,
        )
        if used := [one for one in seen["devices"] if one != device]:
            raise _fell_back(device, used[0], where)
        looked[task["name"]] = not seen["nowhere"]
    return looked


def _settle_down(licence: str, threads: int) -> None:
    """Give the package a home of its own, in which it is told to send nothing."""
    home = Path.home() / "totalsegmentator"
    home.mkdir(exist_ok=True)
    config = {
        "totalseg_id": "",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
    }
    if licence:
        config["license_number"] = licence
    (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
    os.environ["TOTALSEG_HOME_DIR"] = str(home)
    # It gives torch all cores of the machine whatever it is told, and asks this for their number.
    multiprocessing.cpu_count = lambda: threads


def _watched(predict: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The package's prediction of one model, and a record of where it computed and whether it looked anywhere."""
    seen: dict[str, Any] = {"devices": [], "nowhere": False}

    def watched(*arguments: Any, **options: Any) -> Any:
        # The package takes "cpu" where it finds no GPU, and says so in a line that nobody reads.
        device = options["device"]
        seen["devices"].append(getattr(device, "type", str(device)))
        crop = options["crop"]
        if crop is not None:
            seen["nowhere"] = not crop.get_fdata().any()
        return predict(*arguments, **options)

    return watched, seen


def _stay_one_process(predictor: Any) -> None:
    """Let nnU-Net read, label and write an image in this process, by its own method for that.

    For one image its worker processes do nothing side by side, but take ten seconds a model to start, and shared memory
    that containers rarely have enough of.
    """
    in_turn = predictor.predict_from_files_sequential
    known = inspect.signature(in_turn).parameters

    def predict_from_files(self: Any, images: str, out: str, **options: Any) -> Any:
        return in_turn(self, images, out, **{key: value for key, value in options.items() if key in known})

    predictor.predict_from_files = predict_from_files


def _require_weights(number: int | str) -> None:
    from totalsegmentator.config import get_weights_dir
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    folder = TASK_ID_WEIGHTS_CONFIGS[number]["foldername"]
    if not (get_weights_dir() / folder).is_dir():
        raise ResourceError(
            f"the weights {folder} are not there",
            do="totalseg_download_weights; docs/segmentation.md",
            code="weights_missing",
        )


def _fell_back(told: str, used: str, where: str) -> CaseError:
    return CaseError(
        "TotalSegmentator did not compute on the device that it was told",
        where=where,
        expected=told,
        found=used,
        do="check the driver and that torch is a build with CUDA (paxray doctor), or ask for the CPU",
        code="segmenter_fell_back",
    )
