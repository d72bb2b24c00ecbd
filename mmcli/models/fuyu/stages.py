"""What `inspect` shows of a Fuyu."""

import torch

from mmcli.decode.half_pixels import Fit
from mmcli.models.family import Stage, parameter_count
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.model import Fuyu


def stages(config: FuyuConfig) -> list[Stage]:
    """The way of one image and a prompt through the model, with every parameter counted once."""
    with torch.device("meta"):
        model = Fuyu(config)
    decoder, fit, side = config.decoder, Fit(), config.patch
    most = (fit.height // side) * (fit.width // side)
    norms = ("norms on queries and keys",) if decoder.head_norms else ()
    return [
        Stage(
            "image",
            "shrink and pad",
            f"1 to {most} × {config.patch_numbers}",
            0,
            (
                f"never enlarged, sides in proportion, at most {fit.width} × {fit.height}, bilinear",
                f"patches of {side} × {side} pixels, row by row",
            ),
        ),
        Stage(
            "patches",
            "linear",
            f"1 to {most} × {decoder.width}",
            parameter_count(model.patches),
            ("no tower", "a token behind each row, in front of the prompt"),
        ),
        Stage(
            "embedding",
            "table",
            f"T × {decoder.width}",
            parameter_count(model.decoder.embedding),
            (f"{decoder.vocabulary} rows",),
        ),
        Stage(
            "decoder",
            "Persimmon",
            f"T × {decoder.width}",
            parameter_count(model.decoder.layers) + parameter_count(model.decoder.norm),
            (
                f"{decoder.depth} layers, mlp {decoder.mlp_width}, relu²",
                f"{decoder.heads} heads of {decoder.head_width}, rotary on {decoder.turned} of them",
                *norms,
                "images read causally, as text",
            ),
        ),
        Stage("head", "linear", f"{decoder.vocabulary}", parameter_count(model.decoder.head), ("not tied",)),
    ]
