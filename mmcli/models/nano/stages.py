"""What `inspect` shows of nano."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.nano.config import CLASSES, MASK_CODES, NanoConfig
from mmcli.models.nano.mask_head import CODES, CUT
from mmcli.models.nano.model import Nano
from mmcli.models.nano.picodet import STRIDES


def stages(config: NanoConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = Nano(config)
    tower, decoder, width = model.tower, config.decoder, config.decoder.width
    between = (
        parameter_count(tower)
        - parameter_count(tower.features)
        - parameter_count(tower.detector)
        - parameter_count(tower.mask_head)
    )
    side, small = config.image_size, config.feature_size
    strides = ", ".join(str(s) for s in STRIDES)
    return [
        Stage("picture", "squeeze", f"3 × {side} × {side}", 0, ("bicubic, sides not kept in proportion",)),
        Stage(
            "detector",
            "PicoDet-S",
            f"{config.proposals} boxes",
            parameter_count(tower.detector),
            (f"strides {strides}", "80 classes, the weaker of two overlapping boxes of a class left out"),
        ),
        Stage(
            "features",
            "EfficientNet-Lite2",
            f"{config.grid} × {config.grid} × 4 strides",
            parameter_count(tower.features),
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
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows, {config.image_token} in use", "tied with the head"),
        ),
        Stage(
            "decoder",
            "Gemma",
            f"T × {width}",
            parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm),
            (
                f"{decoder.depth} layers, mlp {decoder.mlp_width}",
                f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values",
                "prompt read in both directions, soft tokens see only each other",
            ),
        ),
        Stage("head", "tied", f"{decoder.vocabulary}", 0),
        Stage(
            "proposal classifier",
            "linear",
            f"{config.proposals} × {CLASSES} and {CLASSES}",
            parameter_count(model.classifier),
            ("which class each proposal is, and which classes the picture shows",),
        ),
        Stage(
            "mask head",
            "convolutions",
            f"{CODES} × {MASK_CODES}",
            parameter_count(tower.mask_head),
            (f"a box and its margin at {CUT} × {CUT} points", "its logits of codes are added"),
        ),
    ]
