"""What `inspect` shows of an OmniLMM."""

from mmcli.models.omnilmm.config import OmniLMMConfig
from mmcli.models.omnilmm.model import OmniLMM
from mmcli.models.stages import Stage, decoder_notes, layers_note, parameter_count, patches_note, squeezed, text_stages


def stages(config: OmniLMMConfig, model: OmniLMM) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    vision, resampler, window = config.vision, config.resampler, config.decoder.window
    sliding = () if window is None else (f"every layer attends to the last {window} tokens",)
    return [
        squeezed(vision.image_size),
        Stage(
            "vision",
            "EVA-02",
            f"{vision.grid**2} × {vision.width}",
            parameter_count(model.vision),
            (patches_note(vision.image_size, vision.patch_size), layers_note(vision)),
        ),
        Stage(
            "resampler",
            "cross-attention",
            f"{resampler.queries} × {resampler.width}",
            parameter_count(model.resampler),
            (f"{resampler.queries} learned queries, {resampler.heads} heads", "one soft token a query"),
        ),
        *text_stages(model.decoder, "Mistral", (*decoder_notes(config.decoder), *sliding)),
    ]
