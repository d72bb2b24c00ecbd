"""What `inspect` shows of a Whisper."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import Whisper


def stages(config: WhisperConfig) -> list[Stage]:
    """The way of one window of audio through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = Whisper(config)
    encoder, decoder = config.encoder, config.decoder
    return [
        Stage(
            "audio", "log-mel", f"{config.mels} × {config.frames}", 0,
            (f"windows of {config.frames / 100:g} s at 16 kHz", "a frame every 10 ms"),
        ),
        Stage(
            "encoder", "Whisper", f"{config.audio_positions} × {config.width}", parameter_count(model.encoder),
            ("two convolutions, which halve the frames", f"{encoder.depth} layers, {encoder.heads} heads, "
             f"mlp {encoder.mlp_width}"),
        ),
        Stage(
            "embedding", "table", f"T × {config.width}",
            parameter_count(model.decoder.embedding) + model.decoder.position.numel(),
            (f"{config.vocabulary} rows", f"{config.text_positions} learned positions", "tied with the head"),
        ),
        Stage(
            "decoder", "Whisper", f"T × {config.width}",
            parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm),
            (f"{decoder.depth} layers, {decoder.heads} heads, mlp {decoder.mlp_width}",
             "attends to the audio by cross-attention, whose keys and values are computed once"),
        ),
        Stage("head", "tied", f"{config.vocabulary}", 0),
    ]  # fmt: skip
