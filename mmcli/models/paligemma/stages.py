"""What `inspect` shows of a PaliGemma."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.paligemma.config import PaliGemmaConfig
from mmcli.models.paligemma.model import PaliGemma


def stages(config: PaliGemmaConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = PaliGemma(config)
    vision, decoder = config.vision, config.decoder
    grid = vision.image_size // vision.patch_size
    return [
        Stage(
            "picture",
            "squeeze",
            f"3 × {vision.image_size} × {vision.image_size}",
            0,
            ("bicubic, sides not kept in proportion",),
        ),
        Stage(
            "vision",
            "SigLIP",
            f"{vision.patches} × {vision.width}",
            parameter_count(model.vision),
            (
                f"{grid} × {grid} patches of {vision.patch_size} pixels",
                f"{vision.depth} layers, {vision.heads} heads, mlp {vision.mlp_width}",
            ),
        ),
        Stage(
            "projector",
            "linear",
            f"{vision.patches} × {decoder.width}",
            parameter_count(model.projector),
            (f"{vision.patches} soft tokens a picture, in front of the prompt",),
        ),
        Stage(
            "embedding",
            "table",
            f"T × {decoder.width}",
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows, {config.vocabulary_end} in use", "tied with the head"),
        ),
        Stage(
            "decoder",
            "Gemma 2" if decoder.sandwich_norms else "Gemma",
            f"T × {decoder.width}",
            parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm),
            _decoder_notes(config),
        ),
        Stage("head", "tied", f"{decoder.vocabulary}", 0, _head_notes(config)),
    ]


def _decoder_notes(config: PaliGemmaConfig) -> tuple[str, ...]:
    decoder = config.decoder
    notes = [
        f"{decoder.depth} layers, mlp {decoder.mlp_width}",
        f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values",
        "prefix read in both directions",
    ]
    if decoder.attention_softcap is not None:
        notes.append(f"attention scores capped at {decoder.attention_softcap:g}")
    if config.sliding_window is not None:
        notes.append(f"{sum(decoder.sliding_layers)} layers write through a window of {config.sliding_window} tokens")
    return tuple(notes)


def _head_notes(config: PaliGemmaConfig) -> tuple[str, ...]:
    cap = config.decoder.logit_softcap
    return () if cap is None else (f"logits capped at {cap:g}",)
