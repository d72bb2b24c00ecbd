"""What `inspect` shows of a Gemma 3n."""

from collections import Counter

from mmcli.models.gemma3n.audio import audio_stages
from mmcli.models.gemma3n.config import Gemma3nConfig, ModalityConfig, TextConfig
from mmcli.models.gemma3n.decoder import Decoder
from mmcli.models.gemma3n.encoders import Embedder, VisionEncoder
from mmcli.models.gemma3n.mobilenet_v5 import GRID
from mmcli.models.gemma3n.model import Gemma3n
from mmcli.models.stages import Stage, parameter_count, squeezed

IMAGE_SIDE = 768  # pixels, as published; checkpoints say it in preprocessor_config.json


def stages(config: Gemma3nConfig, model: Gemma3n) -> list[Stage]:
    """The way of an image, of a recording and of a prompt through the model."""
    found = []
    if config.vision and model.vision:
        found += _vision(config.vision, config.text.width, model.vision)
    if config.audio and model.audio:
        embedder = _embedder(
            "audio embedder", "a recording, whatever its length", config.audio, config.text.width, model.audio.embedder
        )
        found += [*audio_stages(config.audio.conformer, model.audio.tower), embedder]
    return found + _decoder(config.text, model.decoder)


def _vision(config: ModalityConfig, width: int, vision: VisionEncoder) -> list[Stage]:
    return [
        squeezed(IMAGE_SIDE, "bilinear, ", "picture"),
        Stage(
            "vision",
            "MobileNetV5",
            f"{GRID * GRID} × {config.width}",
            parameter_count(vision.tower),
            (f"the last two scales fused into a grid of {GRID} × {GRID}",),
        ),
        _embedder("picture embedder", "a picture", config, width, vision.embedder),
    ]


def _embedder(name: str, what: str, config: ModalityConfig, width: int, embedder: Embedder) -> Stage:
    notes = f"{config.soft_tokens} soft tokens {what}", f"a table of {config.ids} ids from {config.first} on"
    return Stage(name, "linear", f"{config.soft_tokens} × {width}", parameter_count(embedder), notes)


def _decoder(config: TextConfig, decoder: Decoder) -> list[Stage]:
    table = decoder.per_layer.table
    shared = config.depth - len(config.owners)
    sliding = sum(layer.sliding for layer in config.layers)
    sparse = Counter(layer.sparsity for layer in config.layers if layer.sparsity)
    widths = Counter(layer.mlp_width for layer in config.layers)
    each = (f"{count} with mlp {width}" for width, count in sorted(widths.items()))
    mlps = ", ".join(each) if len(widths) > 1 else f"mlp {config.layers[0].mlp_width}"
    notes = [
        f"{config.depth} layers, {mlps}",
        f"{config.heads} heads of {config.head_width}, {config.key_heads} for keys and values",
        f"{sliding} layers attend to the last {config.window} tokens",
        *([f"the last {shared} share keys and values of earlier ones"] if shared else []),
        *(f"{count} layers close {share:.0%} of their gates" for share, count in sorted(sparse.items())),
        f"{config.streams} streams (AltUp), LAUREL of rank {config.laurel_rank}",
    ]
    rest = parameter_count(decoder.layers, decoder.streams, decoder.norm)
    cap = config.logit_softcap
    return [
        Stage(
            "embedding",
            "table",
            f"T × {config.width}",
            parameter_count(decoder.embedding),
            (f"{config.vocabulary} rows", "tied with the head"),
        ),
        Stage(
            "per-layer table",
            "table",
            f"T × {config.depth} × {config.table_width}",
            parameter_count(table),
            (f"{config.table_rows} rows", "left in the file on the CPU, rows in use are moved"),
        ),
        Stage(
            "per-layer inputs",
            "linear",
            f"T × {config.depth} × {config.table_width}",
            parameter_count(decoder.per_layer) - parameter_count(table),
        ),
        Stage("decoder", "Gemma 3n", f"T × {config.width}", rest, tuple(notes)),
        Stage("head", "tied", f"{config.vocabulary}", 0, () if cap is None else (f"logits capped at {cap:g}",)),
    ]
