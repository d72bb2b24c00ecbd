"""What `inspect` shows of an OmniLMM."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.omnilmm.config import OmniLMMConfig
from mmcli.models.omnilmm.model import OmniLMM


def stages(config: OmniLMMConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = OmniLMM(config)
    return [*_image(config, model), *_text(config, model)]


def _image(config: OmniLMMConfig, model: OmniLMM) -> list[Stage]:
    vision, resampler = config.vision, config.resampler
    side, grid = vision.image_size, vision.grid
    return [
        Stage("image", "squeeze", f"3 × {side} × {side}", 0, ("bicubic, sides not kept in proportion",)),
        Stage(
            "vision",
            "EVA-02",
            f"{grid * grid} × {vision.width}",
            parameter_count(model.vision),
            (
                f"{grid} × {grid} patches of {vision.patch_size} pixels",
                f"{vision.depth} layers, {vision.heads} heads, mlp {vision.mlp_width}",
            ),
        ),
        Stage(
            "resampler",
            "cross-attention",
            f"{resampler.queries} × {resampler.width}",
            parameter_count(model.resampler),
            (f"{resampler.queries} learned queries, {resampler.heads} heads", "one soft token a query"),
        ),
    ]


def _text(config: OmniLMMConfig, model: OmniLMM) -> list[Stage]:
    decoder = config.decoder
    notes = [
        f"{decoder.depth} layers, mlp {decoder.mlp_width}",
        f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values",
    ]
    if decoder.window is not None:
        notes.append(f"every layer attends to the last {decoder.window} tokens")
    body = parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm)
    head = model.decoder.head
    return [
        Stage(
            "embedding",
            "table",
            f"T × {decoder.width}",
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows",),
        ),
        Stage("decoder", "Mistral", f"T × {decoder.width}", body, tuple(notes)),
        Stage("head", "linear" if head else "tied", f"{decoder.vocabulary}", parameter_count(head) if head else 0),
    ]
