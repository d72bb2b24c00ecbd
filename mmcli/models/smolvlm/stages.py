"""What `inspect` shows of a SmolVLM."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.model import SmolVLM

TILES = 4  # a side, of the published checkpoints' images


def stages(config: SmolVLMConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = SmolVLM(config)
    vision, decoder, side = config.vision, config.decoder, config.vision.image_size
    grid, soft = side // vision.patch_size, config.soft_tokens_of(side)
    return [
        Stage(
            "image",
            "tiles",
            f"tiles × 3 × {side} × {side}",
            0,
            (f"up to {TILES} × {TILES} tiles as published, then the whole image in one", "sides nearly in proportion"),
        ),
        Stage(
            "vision",
            "SigLIP",
            f"tiles × {vision.patches} × {vision.width}",
            parameter_count(model.vision),
            (
                f"{grid} × {grid} patches of {vision.patch_size} pixels",
                f"{vision.depth} layers, {vision.heads} heads, mlp {vision.mlp_width}",
            ),
        ),
        Stage(
            "connector",
            "linear",
            f"tiles × {soft} × {decoder.width}",
            parameter_count(model.connector),
            (f"{config.scale} × {config.scale} patches make a soft token, {soft} a tile",),
        ),
        Stage(
            "embedding",
            "table",
            f"T × {decoder.width}",
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows", *(("tied with the head",) if decoder.tied else ())),
        ),
        Stage(
            "decoder",
            "Llama",
            f"T × {decoder.width}",
            parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm),
            (
                f"{decoder.depth} layers, mlp {decoder.mlp_width}",
                f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values",
            ),
        ),
        Stage(
            "head",
            "tied" if decoder.tied else "linear",
            f"{decoder.vocabulary}",
            0 if model.decoder.head is None else parameter_count(model.decoder.head),
        ),
    ]
