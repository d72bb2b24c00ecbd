"""What `inspect` shows of a Florence-2."""

from mmcli.models.florence2.config import Florence2Config
from mmcli.models.florence2.model import Florence2
from mmcli.models.stages import Stage, layers_note, parameter_count, squeezed

SIDE = 768  # pixels, as published; the size of images is no matter of the weights


def stages(config: Florence2Config, model: Florence2) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    vision, text, language = config.vision, config.text, model.language
    grid, soft = vision.grid(SIDE), vision.soft_tokens(SIDE)
    bias = 0 if language.head_bias is None else language.head_bias.numel()
    return [
        squeezed(SIDE, resample=""),
        Stage(
            "vision", "DaViT", f"{grid} × {grid} × {vision.width}", parameter_count(model.vision),
            (f"{len(vision.stages)} stages, {', '.join(str(stage.width) for stage in vision.stages)} wide",
             f"{', '.join(str(stage.depth) for stage in vision.stages)} pairs of a spatial and a channel block",
             f"windows of {vision.window} × {vision.window} places"),
        ),
        Stage(
            "projector", "linear", f"{soft} × {text.width}", parameter_count(model.projector),
            ("learned rows and columns", "the mean of all places in front"),
        ),
        Stage(
            "embedding", "table", f"T × {text.width}",
            parameter_count(language.embedding) + language.encoder.position.numel() + language.decoder.position.numel(),
            (f"{text.vocabulary} rows", f"{text.positions} learned positions a side", "tied with the head"),
        ),
        Stage(
            "encoder", "BART", f"{soft} + T × {text.width}",
            parameter_count(language.encoder) - language.encoder.position.numel(),
            (layers_note(text.encoder),
             "reads soft tokens and prompt in both directions"),
        ),
        Stage(
            "decoder", "BART", f"T × {text.width}",
            parameter_count(language.decoder) - language.decoder.position.numel(),
            (layers_note(text.decoder),
             "attends to the encoder by cross-attention, whose keys and values are computed once"),
        ),
        Stage("head", "tied", f"{text.vocabulary}", bias),
    ]  # fmt: skip
