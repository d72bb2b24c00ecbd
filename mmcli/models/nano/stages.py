"""What `inspect` shows of nano."""

from mmcli.decode import CODES, MASK_CODES
from mmcli.models.nano.config import CLASSES, NanoConfig
from mmcli.models.nano.mask_head import CUT
from mmcli.models.nano.model import Nano
from mmcli.models.nano.picodet import STRIDES
from mmcli.models.stages import Stage, decoder_notes, parameter_count, squeezed, text_stages


def stages(config: NanoConfig, model: Nano) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    tower, width = model.tower, config.decoder.width
    between = parameter_count(tower) - parameter_count(tower.features, tower.detector, tower.mask_head)
    small, strides = config.feature_size, ", ".join(str(s) for s in STRIDES)
    masks = "prompt read in both directions, soft tokens see only each other"
    return [
        squeezed(config.image_size, name="picture"),
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
            (f"{config.grid} × {config.grid} places and {config.proposals} proposed boxes",),
        ),
        *text_stages(
            model.decoder,
            "Gemma",
            (*decoder_notes(config.decoder), masks),
            rows=f", {config.image_token} in use",
        ),
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
