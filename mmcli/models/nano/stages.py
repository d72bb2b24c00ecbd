"""What `inspect` shows of nano."""

import torch
from torch import nn

from mmcli.models.family import Stage
from mmcli.models.nano.config import CLASSES, NanoConfig
from mmcli.models.nano.mask_tokens import CODES, CUT
from mmcli.models.nano.model import Nano
from mmcli.models.nano.picodet import STRIDES


def stages(config: NanoConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = Nano(config)
    tower, decoder, width = model.tower, config.decoder, config.decoder.width
    between = _count(tower) - _count(tower.features) - _count(tower.detector) - _count(tower.masks)
    side, small = config.image_size, config.feature_size
    strides = ", ".join(str(s) for s in STRIDES)
    return [
        Stage("picture", "squeeze", f"3 × {side} × {side}", 0, ("bicubic, sides not kept in proportion",)),
        Stage(
            "detector",
            "PicoDet-S",
            f"{config.proposals} boxes",
            _count(tower.detector),
            (f"strides {strides}", "80 classes, the weaker of two overlapping boxes of a class left out"),
        ),
        Stage(
            "features",
            "EfficientNet-Lite2",
            f"{config.grid} × {config.grid} × 4 strides",
            _count(tower.features),
            (f"on the picture reduced to {small} × {small}",),
        ),
        Stage(
            "soft tokens",
            "linear",
            f"{config.soft_tokens} × {width}",
            between,
            (f"{config.grid} × {config.grid} places and {config.proposals} proposed things",),
        ),
        Stage(
            "embedding",
            "table",
            f"T × {width}",
            _count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows, {config.image_token} in use", "tied with the head"),
        ),
        Stage(
            "decoder",
            "Gemma",
            f"T × {width}",
            _count(model.decoder.layers) + _count(model.decoder.norm),
            (
                f"{decoder.depth} layers, mlp {decoder.mlp_width}",
                f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values",
                "prompt read in both directions, soft tokens see only each other",
            ),
        ),
        Stage("head", "tied", f"{decoder.vocabulary}", 0),
        Stage(
            "judge",
            "linear",
            f"{config.proposals} × {CLASSES} and {CLASSES}",
            _count(model.judge),
            ("which class each proposal is, and which classes the picture shows",),
        ),
        Stage(
            "mask tokens",
            "convolutions",
            f"{CODES} × {width}",
            _count(tower.masks),
            (f"cut to a box at {CUT} × {CUT} points", "read while its mask is written"),
        ),
    ]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
