"""What `inspect` shows of a SmolVLM."""

from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.model import SmolVLM
from mmcli.models.stages import Stage, decoder_notes, layers_note, parameter_count, patches_note, text_stages

TILES = 4  # a side, of the published checkpoints' images


def stages(config: SmolVLMConfig, model: SmolVLM) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    vision, side = config.vision, config.vision.image_size
    soft = config.soft_tokens_of(side)
    tiles = f"up to {TILES} × {TILES} tiles as published, then the whole image in one"
    return [
        Stage("image", "tiles", f"tiles × 3 × {side} × {side}", 0, (tiles, "sides nearly in proportion")),
        Stage(
            "vision",
            "SigLIP",
            f"tiles × {vision.patches} × {vision.width}",
            parameter_count(model.vision),
            (patches_note(side, vision.patch_size), layers_note(vision)),
        ),
        Stage(
            "connector",
            "linear",
            f"tiles × {soft} × {config.decoder.width}",
            parameter_count(model.connector),
            (f"{config.scale} × {config.scale} patches make a soft token, {soft} a tile",),
        ),
        *text_stages(model.decoder, "Llama", decoder_notes(config.decoder)),
    ]
