"""What the segmenter `nnunet` does in its child process: nnU-Net's own predictor on one image file."""

from __future__ import annotations

from paxray.errors import CaseError, ConfigError


def predict(
    *,
    model: str,
    folds: list[str],
    checkpoint: str,
    tile_step: float,
    mirroring: bool,
    device: str,
    threads: int,
    image: str,
    labels: str,
    where: str,
) -> None:
    """Label an image file with a model, and write the label map.

    Raises
    ------
    ConfigError
        ``unfit_model``: the second stage of a cascade.
    CaseError
        ``segmenter_fell_back``: the network was not on the device in the end.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(threads)
    predictor = nnUNetPredictor(
        tile_step_size=tile_step,
        use_mirroring=mirroring,
        perform_everything_on_device=device == "cuda",
        device=torch.device(device),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(model, folds, checkpoint)
    if predictor.configuration_manager.previous_stage_name is not None:
        raise ConfigError(
            "the model is the second stage of a cascade",
            where=where,
            expected="a model that needs the CT alone",
            found=f"one that needs the masks of {predictor.configuration_manager.previous_stage_name}",
            code="unfit_model",
        )
    files = predictor.plans_manager.image_reader_writer_class()
    pixels, properties = files.read_images([image])
    files.write_seg(predictor.predict_single_npy_array(pixels, properties), labels, properties)
    used = next(predictor.network.parameters()).device.type
    if used != device:
        raise CaseError(
            "nnU-Net did not compute on the device that it was told",
            where=where,
            expected=device,
            found=used,
            code="segmenter_fell_back",
        )
