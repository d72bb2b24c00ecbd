"""What `inspect` shows of a PaliGemma."""

from mmcli.models.paligemma.config import PaliGemmaConfig
from mmcli.models.paligemma.model import PaliGemma
from mmcli.models.stages import Stage, decoder_notes, layers_note, parameter_count, patches_note, squeezed, text_stages


def stages(config: PaliGemmaConfig, model: PaliGemma) -> list[Stage]:
    """The way of one image and a prompt through the model."""
    vision, decoder, cap = config.vision, config.decoder, config.decoder.logit_softcap
    return [
        squeezed(vision.image_size, name="picture"),
        Stage(
            "vision",
            "SigLIP",
            f"{vision.patches} × {vision.width}",
            parameter_count(model.vision),
            (patches_note(vision.image_size, vision.patch_size), layers_note(vision)),
        ),
        Stage(
            "projector",
            "linear",
            f"{vision.patches} × {decoder.width}",
            parameter_count(model.projector),
            (f"{vision.patches} soft tokens a picture, in front of the prompt",),
        ),
        *text_stages(
            model.decoder,
            "Gemma 2" if decoder.sandwich_norms else "Gemma",
            _decoder_notes(config),
            rows=f", {config.vocabulary_end} in use",
            head=() if cap is None else (f"logits capped at {cap:g}",),
        ),
    ]


def _decoder_notes(config: PaliGemmaConfig) -> list[str]:
    decoder = config.decoder
    notes = [*decoder_notes(decoder), "prefix read in both directions"]
    if decoder.attention_softcap is not None:
        notes.append(f"attention scores capped at {decoder.attention_softcap:g}")
    if config.sliding_window is not None:
        notes.append(f"{sum(decoder.sliding_layers)} layers write through a window of {config.sliding_window} tokens")
    return notes
