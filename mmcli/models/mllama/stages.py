"""What `inspect` shows of a Llama 3.2 Vision."""

from dataclasses import replace

from mmcli.models.mllama.config import MllamaConfig
from mmcli.models.mllama.decoder import CrossLayer
from mmcli.models.mllama.model import Mllama
from mmcli.models.stages import Stage, decoder_notes, parameter_count, patches_note, text_stages


def stages(config: MllamaConfig, model: Mllama) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    vision, decoder, side = config.vision, config.decoder, config.vision.tile_side
    tiles = vision.most_tiles
    rows = f" and {decoder.more_rows} that are never written"
    embedding, layers, head = text_stages(model.decoder, "Llama", decoder_notes(decoder), rows=rows)
    cross = [layer for layer in model.decoder.layers if isinstance(layer, CrossLayer)]
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
                f"{patches_note(side, vision.patch_size)} and one vector for the tile",
                f"{vision.depth} layers and {vision.global_depth} gated ones, {vision.heads} heads, "
                f"mlp {vision.mlp_width}",
                f"the last layer's output and that of {len(vision.kept)} others, side by side",
            ),
        ),
        Stage("projector", "linear", f"{tiles} × {vision.patches} × {decoder.width}", parameter_count(model.projector)),
        embedding,
        replace(layers, parameters=layers.parameters - parameter_count(*cross)),
        Stage(
            "cross-attention",
            "gated layers",
            f"T × {decoder.width}",
            parameter_count(*cross),
            (
                f"{len(cross)} of the decoder's layers: {', '.join(map(str, config.cross_layers))}",
                f"keys and values of {config.keys} vectors an image, computed once",
                "passed over where there is no image",
            ),
        ),
        head,
    ]
