"""What `inspect` shows of a Llama 3.2 Vision."""

import torch

from mmcli.models.family import Stage, parameter_count
from mmcli.models.mllama.config import MllamaConfig
from mmcli.models.mllama.decoder import CrossLayer
from mmcli.models.mllama.model import Mllama


def stages(config: MllamaConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = Mllama(config)
    vision, decoder, side = config.vision, config.decoder, config.vision.tile_side
    grid, tiles = side // vision.patch_size, vision.most_tiles
    looking = [layer for layer in model.decoder.layers if isinstance(layer, CrossLayer)]
    reading = [layer for layer in model.decoder.layers if not isinstance(layer, CrossLayer)]
    heads = f"{decoder.heads} heads of {decoder.head_width}, {decoder.key_heads} for keys and values"
    return [
        Stage(
            "image",
            "tiles",
            f"{tiles} × 3 × {side} × {side}",
            0,
            (f"sides kept in proportion, on a canvas of 1 to {tiles} tiles", "black where the image leaves it bare"),
        ),
        Stage(
            "vision",
            "ViT over tiles",
            f"{tiles} × {vision.patches} × {vision.output_width}",
            parameter_count(model.vision),
            (
                f"{grid} × {grid} patches of {vision.patch_size} pixels and one vector for the tile",
                f"{vision.depth} layers and {vision.global_depth} gated ones, {vision.heads} heads, "
                f"mlp {vision.mlp_width}",
                f"the last layer's output and that of {len(vision.kept)} others, side by side",
            ),
        ),
        Stage("projector", "linear", f"{tiles} × {vision.patches} × {decoder.width}", parameter_count(model.projector)),
        Stage(
            "embedding",
            "table",
            f"T × {decoder.width}",
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows and {decoder.more_rows} that are never written",),
        ),
        Stage(
            "decoder",
            "Llama",
            f"T × {decoder.width}",
            sum(map(parameter_count, reading)) + parameter_count(model.decoder.norm),
            (f"{decoder.depth} layers, mlp {decoder.mlp_width}", heads),
        ),
        Stage(
            "cross-attention",
            "gated layers",
            f"T × {decoder.width}",
            sum(map(parameter_count, looking)),
            (
                f"{len(looking)} of the decoder's layers: {', '.join(map(str, config.cross_layers))}",
                f"keys and values of {config.keys} vectors an image, computed once",
                "passed over where there is no image",
            ),
        ),
        Stage(
            "head",
            "linear",
            f"{decoder.vocabulary}",
            0 if model.decoder.head is None else parameter_count(model.decoder.head),
        ),
    ]
