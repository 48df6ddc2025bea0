"""An nnU-Net v2 model in nnU-Net's own format with weights set by hand, so that what it must find is known exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Label 1 is what lies between, label 2 what lies above; the rest is background.
THRESHOLDS_HU = (150.0, 500.0)
#: Along i, j, k: the masks lie so many voxels further towards the patient's left, back and head than what they show.
SHIFT_IJK = (-1, 0, 1)
PATCH = (32, 32, 32)


def write_threshold_model(
    folder: Path,
    spacing_mm: Sequence[float],
    *,
    labels: Mapping[str, Any] | None = None,
    reader: str = "SimpleITKIO",
    regions_class_order: Sequence[int] = (),
    folds: Sequence[str] = ("fold_0",),
) -> Path:
    """Write a model that compares HU, moved by `SHIFT_IJK`, with `THRESHOLDS_HU`.

    Logits are 0, x - 0.15 and 2 x - 0.65 of x = HU / 1000: the largest changes where x passes 0.15 and 0.5. With
    regions a logit above 0 is inside: x - 0.15 and x - 0.5.
    """
    low, high = (value / 1000 for value in THRESHOLDS_HU)
    lines = [(1, -low), (1, -high)] if regions_class_order else [(0, 0), (1, -low), (2, -low - high)]
    return write_linear_model(
        folder,
        spacing_mm,
        lines,
        labels=labels or {"background": 0, "liver": 1, "aorta": 2},
        shift_ijk=SHIFT_IJK,
        reader=reader,
        regions_class_order=regions_class_order,
        folds=folds,
    )


def write_linear_model(
    folder: Path,
    spacing_mm: Sequence[float],
    lines: Sequence[tuple[float, float]],
    *,
    labels: Mapping[str, Any],
    shift_ijk: Sequence[int] = (0, 0, 0),
    reader: str = "SimpleITKIO",
    regions_class_order: Sequence[int] = (),
    folds: Sequence[str] = ("fold_0",),
    trainer: str = "nnUNetTrainer",
) -> Path:
    """Write a U-Net of two stages that passes HU on, moved by so many voxels.

    ``lines`` has a slope a and an offset b for each output: its logit is a x + b of x = HU / 1000.
    """
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    arguments: dict[str, Any] = {
        "n_stages": 2,
        "features_per_stage": [2, 2],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": None,
        "norm_op_kwargs": None,
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"negative_slope": 0.5},
    }
    network = PlainConvUNet(
        1,
        num_classes=len(lines),
        **{**arguments, "conv_op": torch.nn.Conv3d, "nonlin": torch.nn.LeakyReLU},
    )
    i, j, k = (1 - step for step in shift_ijk)  # out[p] = sum of w[q] in[p + q - 1]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # x and -x: behind a leaky rectifier of slope s their difference is still a multiple of x, (1 + s) x.
        first = network.encoder.stages[0][0].convs[0].conv.weight
        first[0, 0, k, j, i], first[1, 0, k, j, i] = 1, -1
        joined = network.decoder.stages[0].convs[0].conv.weight  # the skip's two channels come last
        joined[0, 2, 1, 1, 1] = joined[1, 3, 1, 1, 1] = 1  # passed on through a second rectifier: (1 + s^2) x
        last = network.decoder.seg_layers[0]
        for n, (slope, offset) in enumerate(lines):
            last.weight[n, 0], last.weight[n, 1] = slope / 1.25, -slope / 1.25
            last.bias[n] = offset
    state = network.state_dict()
    plans = {
        "dataset_name": "Dataset001_thresholds",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing_mm)[::-1],
        "original_median_shape_after_transp": list(PATCH),
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": _configuration(arguments, spacing_mm)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 3000.0,
                "mean": 0.0,
                "median": 0.0,
                "min": -1000.0,
                "percentile_00_5": -1000.0,
                "percentile_99_5": 3000.0,
                "std": 1000.0,
            }
        },
    }
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": dict(labels),
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if regions_class_order:
        dataset["regions_class_order"] = list(regions_class_order)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in folds:
        (folder / fold).mkdir()
        checkpoint = {
            "network_weights": state,
            "trainer_name": trainer,
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": None,
        }
        torch.save(checkpoint, folder / fold / "checkpoint_final.pth")
    return folder


def expected(array: NDArray[Any]) -> NDArray[np.uint8]:
    """What the model must find in an array of HU on axes that grow to the left, back and head."""
    values = np.digitize(array, THRESHOLDS_HU).astype(np.uint8)
    out = np.zeros_like(values)
    # A voxel p of the masks shows voxel p - shift of the CT; what would come from outside the array is background.
    here = tuple(
        slice(max(0, step), n + min(0, step)) for step, n in zip(SHIFT_IJK[::-1], array.shape, strict=True)
    )
    there = tuple(
        slice(max(0, -step), n + min(0, -step)) for step, n in zip(SHIFT_IJK[::-1], array.shape, strict=True)
    )
    out[here] = values[there]
    return out


def _configuration(arguments: Mapping[str, Any], spacing_mm: Sequence[float]) -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": list(PATCH),
        "spacing": list(spacing_mm)[::-1],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": dict(arguments),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
