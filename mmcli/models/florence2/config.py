"""Florence-2's configuration, read from a checkpoint's config.json.

There are two layouts: the one that transformers reads (`models/florence2/configuration_florence2.py`; what a checkpoint
leaves out has the value that it gives), and the one of the vendor's own repositories, which was published with code.
"""

from dataclasses import dataclass
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, HEADS, ID, INNER, ROWS, WIDTH, Fields
from mmcli.models.stacks import StackConfig, read_stacks

VISION_ABSENT = {
    "in_channels": 3, "depths": (1, 1, 9, 1), "patch_size": (7, 3, 3, 3), "patch_stride": (4, 2, 2, 2),
    "patch_padding": (3, 1, 1, 1), "patch_prenorm": (False, True, True, True), "embed_dim": (128, 256, 512, 1024),
    "num_heads": (4, 8, 16, 32), "num_groups": (4, 8, 16, 32), "window_size": 12, "mlp_ratio": 4.0, "qkv_bias": True,
    "activation_function": "gelu", "projection_dim": 1024, "max_temporal_embeddings": 100,
    "max_position_embeddings": 50,
}  # fmt: skip
TEXT_ABSENT = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "encoder_layers": 12, "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096, "decoder_attention_heads": 16,
    "activation_function": "gelu", "d_model": 1024, "scale_embedding": False, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
BOUNDS = {
    "vocab_size": ROWS, "d_model": WIDTH, "max_position_embeddings": (4, 1 << 15), "encoder_layers": DEPTH,
    "encoder_attention_heads": HEADS, "encoder_ffn_dim": INNER, "decoder_layers": DEPTH,
    "decoder_attention_heads": HEADS, "decoder_ffn_dim": INNER,
}  # fmt: skip
MOST_STAGES = 8
IMAGE_TOKEN = 51289  # where config.json does not name it: behind the 51289 tokens of the vendor's tokenizer


@dataclass(frozen=True)
class StageConfig:
    """One stage of the tower: patches are merged, then come pairs of a spatial and a channel block."""

    width: int
    depth: int
    heads: int  # of spatial attention
    groups: int  # of channel attention
    patch: int  # side in pixels, or in places of the stage before
    stride: int
    padding: int
    norm_first: bool  # whether what is merged is normed, or what comes of it


@dataclass(frozen=True)
class VisionConfig:
    """The DaViT tower (arXiv:2204.03645) and its position embeddings."""

    stages: tuple[StageConfig, ...]
    window: int  # places along the side of a window of spatial attention
    mlp_ratio: float
    qkv_bias: bool
    rows: int  # and columns, at most, that there are embeddings for
    frames: int  # that there are embeddings for; an image is the first one

    @property
    def width(self) -> int:
        return self.stages[-1].width

    def grid(self, side: int) -> int:
        """Places along the side of what the last stage gives for a square of `side` pixels."""
        for stage in self.stages:
            side = (side + 2 * stage.padding - stage.patch) // stage.stride + 1
        return side

    def soft_tokens(self, side: int) -> int:
        """One for each place of the last stage, and their mean."""
        return self.grid(side) ** 2 + 1


@dataclass(frozen=True)
class TextConfig:
    """The language model: BART (arXiv:1910.13461)."""

    vocabulary: int
    width: int
    positions: int
    encoder: StackConfig
    decoder: StackConfig
    embedding_scale: float
    pad: int
    bos: int
    eos: int
    start: int  # what the decoder reads first


@dataclass(frozen=True)
class Florence2Config:
    """Everything about a Florence-2 checkpoint that its config.json says."""

    vision: VisionConfig
    text: TextConfig
    image_token: int
    native: bool  # the layout of transformers; False: that of the vendor's repositories

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "Florence2Config":
        """Read config.json. Raises ModelError for values that would change the computation but are not supported."""
        fields = Fields(raw, "This Florence-2's config.json", {"image_token_id": IMAGE_TOKEN})
        fields.require("tie_word_embeddings", True, None)
        vision, text = fields.part("vision_config", VISION_ABSENT), fields.part("text_config", TEXT_ABSENT)
        native = "dim_embed" not in vision
        read_text = _text(text)
        if vision.whole("projection_dim", *WIDTH) != read_text.width:
            raise vision.wrong("projection_dim", f"text_config.d_model, {read_text.width}")
        return cls(_vision(vision, native), read_text, fields.whole("image_token_id", *ID), native)


def _vision(fields: Fields, native: bool) -> VisionConfig:
    fields.require("in_channels", 3)
    fields.require("activation_function", "gelu")
    if not native:
        fields.require("image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"], None)
        fields.part("image_pos_embed").require("type", "learned_abs_2d")
        fields.part("visual_temporal_embedding").require("type", "COSINE")
    widths = fields.wholes("embed_dim" if native else "dim_embed", *WIDTH, longest=MOST_STAGES)
    if not widths:
        raise fields.wrong("embed_dim" if native else "dim_embed", "a width for each stage")
    bounds = {
        "depths": (0, 256), "num_heads": HEADS, "num_groups": HEADS, "patch_size": (1, 64), "patch_stride": (1, 64),
        "patch_padding": (0, 64),
    }  # fmt: skip
    lists = {key: fields.wholes(key, *bound, longest=MOST_STAGES, length=len(widths)) for key, bound in bounds.items()}
    first = fields.items("patch_prenorm", MOST_STAGES, len(widths))
    if not all(isinstance(one, bool) for one in first):
        raise fields.wrong("patch_prenorm", "a list of true and false")
    stages = tuple(StageConfig(*one) for one in zip(widths, *lists.values(), first, strict=True))
    for stage in stages:
        if stage.width % stage.heads or stage.width % stage.groups:
            raise ModelError(
                f"This Florence-2's {stage.width} numbers cannot be split among {stage.heads} heads and "
                f"{stage.groups} groups"
            )
    places = fields if native else fields.part("image_pos_embed", {"max_pos_embeddings": 50})
    frames = fields if native else fields.part("visual_temporal_embedding", {"max_temporal_embeddings": 100})
    return VisionConfig(
        stages=stages,
        window=fields.whole("window_size", 1, 256),
        mlp_ratio=fields.number("mlp_ratio", 0.01, 64),
        qkv_bias=fields.flag("qkv_bias"),
        rows=places.whole("max_position_embeddings" if native else "max_pos_embeddings", 1, 4096),
        frames=frames.whole("max_temporal_embeddings", 1, 4096),
    )


def _text(fields: Fields) -> TextConfig:
    fields.require("activation_function", "gelu")
    fields.require("tie_word_embeddings", True)
    sizes = {key: fields.whole(key, *bounds) for key, bounds in BOUNDS.items()}
    encoder, decoder = read_stacks(sizes, "This Florence-2")
    pad, bos, eos, start = (
        fields.whole(key, 0, sizes["vocab_size"] - 1)
        for key in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    )
    return TextConfig(
        vocabulary=sizes["vocab_size"],
        width=sizes["d_model"],
        positions=sizes["max_position_embeddings"],
        encoder=encoder,
        decoder=decoder,
        embedding_scale=sizes["d_model"] ** 0.5 if fields.flag("scale_embedding") else 1.0,
        pad=pad,
        bos=bos,
        eos=eos,
        start=start,
    )
