"""What `inspect` shows of a Fuyu."""

from mmcli.decode.half_pixels import Fit
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.model import Fuyu
from mmcli.models.stages import Stage, parameter_count, text_stages


def stages(config: FuyuConfig, model: Fuyu) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    decoder, fit, side = config.decoder, Fit(), config.patch
    most = (fit.height // side) * (fit.width // side)
    fitted = f"never enlarged, sides in proportion, at most {fit.width} × {fit.height}, bilinear"
    notes = [
        f"{decoder.depth} layers, mlp {decoder.mlp_width}, relu²",
        f"{decoder.heads} heads of {decoder.head_width}, rotary on {decoder.turned} of them",
        *(["norms on queries and keys"] if decoder.head_norms else []),
        "images read causally, as text",
    ]
    return [
        Stage(
            "image",
            "shrink and pad",
            f"1 to {most} × {config.patch_numbers}",
            0,
            (fitted, f"patches of {side} × {side} pixels, row by row"),
        ),
        Stage(
            "patches",
            "linear",
            f"1 to {most} × {decoder.width}",
            parameter_count(model.patches),
            ("no tower", "a token behind each row, in front of the prompt"),
        ),
        *text_stages(model.decoder, "Persimmon", notes, head=("not tied",)),
    ]
