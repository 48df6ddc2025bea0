"""Tiny weights in nnU-Net's own format, laid out as TotalSegmentator keeps its own, set by hand.

Each network takes a voxel for the class whose HU is nearest, so that what it must find is known exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paxray.segmentation.totalsegmentator_tasks import Model

AIR_HU = -1000.0
PATCH = (24, 24, 24)


def nearest(array: NDArray[Any], hu: Mapping[int, float]) -> NDArray[np.uint8]:
    """The label whose HU is nearest to each voxel's, 0 for air: what a network of `write_weights` must find."""
    labels = np.array([0, *hu], np.uint8)
    centres = np.array([AIR_HU, *hu.values()])
    return labels[np.abs(array[..., None] - centres).argmin(axis=-1)]


def write_weights(
    weights_dir: Path, model: Model, spacing_mm: float, n_labels: int, hu: Mapping[int, float]
) -> None:
    """Write a U-Net of two stages that passes HU on, and gives the label with the nearest HU the highest value.

    Of centres m the nearest to x has the highest 2 m x - m^2. Labels without a centre never win.
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
        "nonlin": "torch.nn.ReLU",
        "nonlin_kwargs": {},
    }
    network = PlainConvUNet(
        1, num_classes=n_labels + 1, **{**arguments, "conv_op": torch.nn.Conv3d, "nonlin": torch.nn.ReLU}
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # A rectifier passes no negative number: x and -x go two ways.
        first = network.encoder.stages[0][0].convs[0].conv.weight
        first[0, 0, 1, 1, 1], first[1, 0, 1, 1, 1] = 1, -1
        joined = network.decoder.stages[0].convs[0].conv.weight  # the skip's two channels come last
        joined[0, 2, 1, 1, 1] = joined[1, 3, 1, 1, 1] = 1
        last = network.decoder.seg_layers[0]
        last.bias[:] = -100
        for label, centre in {0: AIR_HU, **hu}.items():
            m = centre / 1000
            last.weight[label, 0], last.weight[label, 1] = 2 * m, -2 * m
            last.bias[label] = -m * m
    folder = weights_dir / model.folder
    for fold in model.folds or (0,):
        (folder / f"fold_{fold}").mkdir(parents=True)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": model.folder.split("/")[1].split("__")[0],
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": None,
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(_plans(arguments, spacing_mm)))
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"label_{n}": n for n in range(1, n_labels + 1)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))


def _plans(arguments: Mapping[str, Any], spacing_mm: float) -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": list(PATCH),
        "spacing": [spacing_mm] * 3,
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
    return {
        "dataset_name": "Dataset001_tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing_mm] * 3,
        "original_median_shape_after_transp": list(PATCH),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
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
