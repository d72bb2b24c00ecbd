"""What `inspect` shows of a MiniCPM-V."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.minicpmv.config import MiniCPMVConfig
from mmcli.models.minicpmv.model import MiniCPMV

DECODERS = {"1.0": "MiniCPM", "2.0": "MiniCPM", "2.5": "Llama 3", "2.6": "Qwen2"}


def stages(config: MiniCPMVConfig) -> list[Stage]:
    """The way of an image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = MiniCPMV(config)
    vision, resampler, decoder = config.vision, config.resampler, config.decoder
    return [
        _image(config),
        Stage(
            "vision",
            "SigLIP",
            f"{_slices(config)}P × {vision.width}",
            parameter_count(model.vision.tower),
            _tower_notes(config),
        ),
        Stage(
            "resampler",
            "cross-attention",
            f"{_slices(config)}{resampler.queries} × {decoder.width}",
            parameter_count(model.vision.resampler),
            (
                f"{resampler.queries} soft tokens of {'a slice' if config.slicing else 'an image'}",
                f"{resampler.heads} heads",
            ),
        ),
        Stage(
            "embedding",
            "table",
            f"T × {decoder.width}",
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows", *_scale(config)),
        ),
        Stage(
            "decoder",
            DECODERS[config.version],
            f"T × {decoder.width}",
            parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm),
            _decoder_notes(config),
        ),
        Stage(
            "head", "linear", f"{decoder.vocabulary}", parameter_count(model.decoder.head) if model.decoder.head else 0
        ),
    ]


def _slices(config: MiniCPMVConfig) -> str:
    return "S × " if config.slicing else ""


def _image(config: MiniCPMVConfig) -> Stage:
    slicing, side = config.slicing, config.square
    if slicing is None:
        return Stage("image", "squeeze", f"3 × {side} × {side}", 0, ("bicubic, sides not kept in proportion",))
    notes = (
        f"S: an overview and up to {slicing.most} slices of each",
        f"each of about {slicing.side}² pixels in the image's shape, bicubic",
    )
    return Stage("image", "slices", "S × 3 × height × width", 0, notes)


def _tower_notes(config: MiniCPMVConfig) -> tuple[str, ...]:
    vision = config.vision
    side = vision.image_size // vision.patch_size
    return (
        f"patches of {vision.patch_size} pixels, positions of {side} × {side}, {config.places}",
        f"{vision.depth} layers, {vision.heads} heads, mlp {vision.mlp_width}",
    )


def _scale(config: MiniCPMVConfig) -> tuple[str, ...]:
    scale = config.decoder.embedding_scale
    return () if scale == 1 else (f"vectors × {scale:g}",)


def _decoder_notes(config: MiniCPMVConfig) -> tuple[str, ...]:
    decoder = config.decoder
    notes = [
        f"{decoder.depth} layers, mlp {decoder.mlp_width}",
        f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values",
    ]
    if decoder.residual_scale != 1:
        notes.append(f"halves of layers × {decoder.residual_scale:.3g}, logits × {decoder.logit_scale:.3g}")
    return tuple(notes)
