"""What `inspect` shows of a MiniCPM-V."""

from mmcli.models.minicpmv.config import MiniCPMVConfig
from mmcli.models.minicpmv.model import MiniCPMV
from mmcli.models.stages import Stage, decoder_notes, layers_note, parameter_count, squeezed, text_stages

DECODERS = {"1.0": "MiniCPM", "2.0": "MiniCPM", "2.5": "Llama 3", "2.6": "Qwen2"}


def stages(config: MiniCPMVConfig, model: MiniCPMV) -> list[Stage]:
    """The way of an image and a prompt through the model."""
    vision, resampler, decoder = config.vision, config.resampler, config.decoder
    slices, whole = ("S × ", "a slice") if config.slicing else ("", "an image")
    side, scale = vision.image_size // vision.patch_size, decoder.embedding_scale
    patches = f"patches of {vision.patch_size} pixels, positions of {side} × {side}, {config.places}"
    notes = [*decoder_notes(decoder)]
    if decoder.residual_scale != 1:
        notes.append(f"halves of layers × {decoder.residual_scale:.3g}, logits × {decoder.logit_scale:.3g}")
    return [
        _image(config),
        Stage(
            "vision",
            "SigLIP",
            f"{slices}P × {vision.width}",
            parameter_count(model.vision.tower),
            (patches, layers_note(vision)),
        ),
        Stage(
            "resampler",
            "cross-attention",
            f"{slices}{resampler.queries} × {decoder.width}",
            parameter_count(model.vision.resampler),
            (f"{resampler.queries} soft tokens of {whole}", f"{resampler.heads} heads"),
        ),
        *text_stages(
            model.decoder, DECODERS[config.version], notes, table=() if scale == 1 else (f"vectors × {scale:g}",)
        ),
    ]


def _image(config: MiniCPMVConfig) -> Stage:
    slicing = config.slicing
    if slicing is None:
        return squeezed(config.square or 0)
    notes = (
        f"S: an overview and up to {slicing.most} slices of each",
        f"each of about {slicing.side}² pixels in the image's shape, bicubic",
    )
    return Stage("image", "slices", "S × 3 × height × width", 0, notes)
