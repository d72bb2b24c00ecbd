"""What `inspect` shows of a Whisper."""

from mmcli.models.stages import Stage, layers_note, parameter_count
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.features import HOP, RATE
from mmcli.models.whisper.model import Whisper


def stages(config: WhisperConfig, model: Whisper) -> list[Stage]:
    """The way of one window of audio through the model."""
    return [
        Stage(
            "audio", "log-mel", f"{config.mels} × {config.frames}", 0,
            (f"windows of {config.frames * HOP / RATE:g} s at 16 kHz", "a frame every 10 ms"),
        ),
        Stage(
            "encoder", "Whisper", f"{config.audio_positions} × {config.width}", parameter_count(model.encoder),
            ("two convolutions, which halve the frames", layers_note(config.encoder)),
        ),
        Stage(
            "embedding", "table", f"T × {config.width}",
            parameter_count(model.decoder.embedding) + model.decoder.position.numel(),
            (f"{config.vocabulary} rows", f"{config.text_positions} learned positions", "tied with the head"),
        ),
        Stage(
            "decoder", "Whisper", f"T × {config.width}",
            parameter_count(model.decoder.layers, model.decoder.norm),
            (layers_note(config.decoder),
             "attends to the audio by cross-attention, whose keys and values are computed once"),
        ),
        Stage("head", "tied", f"{config.vocabulary}", 0),
    ]  # fmt: skip
