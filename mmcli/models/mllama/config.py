"""Llama 3.2 Vision's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it (`models/mllama/configuration_mllama.py`).
"""

from dataclasses import dataclass
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, EPSILON, HEADS, ID, INNER, SIDE, SOFT_TOKENS, WIDTH, Fields
from mmcli.layers.decoder import LlamaConfig
from mmcli.models.llama import read_decoder
from mmcli.models.mllama.tiles import arrangements

MORE_ROWS = 8  # of the embedding, behind the vocabulary: the image's token is the first of them
MOST_TILES = (1, 16)
TILE_BLOCK = 8  # the patches of a tile are filled up to a multiple of this

WHOLE = {"image_token_index": 128256}
TEXT: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": False,
    "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    "pad_token_id": 128004, "bos_token_id": 128000, "eos_token_id": 128001,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8,
    "attention_heads": 16, "image_size": 448, "patch_size": 14, "max_num_tiles": 4, "norm_eps": 1e-5,
    "intermediate_layers_indices": [3, 7, 15, 23, 30], "vision_output_dim": 7680,
}  # fmt: skip


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the tower."""

    width: int
    depth: int  # layers before the second norm
    global_depth: int  # gated layers behind it
    mlp_width: int
    heads: int
    tile_side: int  # pixels
    patch_size: int
    most_tiles: int
    kept: tuple[int, ...]  # layers whose output the decoder reads beside the last one's
    norm_epsilon: float = 1e-5

    @property
    def patches(self) -> int:
        """P: the vectors of one tile, that of the tile as a whole included."""
        return (self.tile_side // self.patch_size) ** 2 + 1

    @property
    def filled_patches(self) -> int:
        """The same with the zeros behind them."""
        return -(-self.patches // TILE_BLOCK) * TILE_BLOCK

    @property
    def output_width(self) -> int:
        """Numbers a patch that the decoder reads."""
        return self.width * (1 + len(self.kept))


@dataclass(frozen=True)
class MllamaConfig:
    """Everything about a Llama 3.2 Vision checkpoint that its config.json says."""

    vision: VisionConfig
    decoder: LlamaConfig  # its depth counts layers with self-attention
    cross_layers: tuple[int, ...]  # numbers, among all layers, of those that attend to images
    image_token: int
    pad: int
    bos: int
    stop_ids: frozenset[int]

    @property
    def depth(self) -> int:
        """All layers of the decoder."""
        return self.decoder.depth + len(self.cross_layers)

    @property
    def keys(self) -> int:
        """What one image has to attend to in every layer that does."""
        return self.vision.most_tiles * self.vision.patches

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "MllamaConfig":
        """Read config.json. Raises ModelError for wrong values, and for those that mmcli does not support."""
        whole = Fields(raw, "This Llama 3.2 Vision's config.json", WHOLE)
        text = whole.part("text_config", TEXT)
        depth = text.whole("num_hidden_layers", *DEPTH)
        cross = tuple(sorted(set(text.wholes("cross_attention_layers", 0, depth - 1, longest=depth))))
        if len(cross) == depth:
            raise text.wrong("cross_attention_layers", f"fewer than all {depth} layers")
        text.require("tie_word_embeddings", False, None)
        # transformers splits the width among the heads, whatever head_dim says.
        plain = {key: value for key, value in text.raw.items() if key != "head_dim"}
        decoder = read_decoder(
            Fields(plain, text.where, text.otherwise, text.path),
            depth=depth - len(cross),
            more_rows=MORE_ROWS,
        )
        rows = decoder.vocabulary + MORE_ROWS
        pad, bos = (text.whole(f"{name}_token_id", 0, rows - 1) for name in ("pad", "bos"))
        key = "image_token_index" if "image_token_index" in whole or "image_token_id" not in whole else "image_token_id"
        return cls(
            vision=_read_vision(whole.part("vision_config", VISION)),
            decoder=decoder,
            cross_layers=cross,
            image_token=whole.unlike(key, whole.whole(key, ID[0], rows - 1), [pad, bos]),
            pad=pad,
            bos=bos,
            stop_ids=whole.ids("eos_token_id") or text.ids("eos_token_id"),
        )


def _read_vision(raw: Fields) -> VisionConfig:
    raw.require("hidden_act", "gelu", None)
    raw.require("num_channels", 3, None)
    depth = raw.whole("num_hidden_layers", *DEPTH)
    heads = "num_attention_heads" if "num_attention_heads" in raw else "attention_heads"
    config = VisionConfig(
        width=raw.whole("hidden_size", *WIDTH),
        depth=depth,
        global_depth=raw.whole("num_global_layers", *DEPTH),
        mlp_width=raw.whole("intermediate_size", *INNER),
        heads=raw.whole(heads, *HEADS),
        tile_side=raw.square("image_size", *SIDE),
        patch_size=raw.square("patch_size", *SIDE),
        most_tiles=raw.whole("max_num_tiles", *MOST_TILES),
        kept=raw.wholes("intermediate_layers_indices", 0, depth - 1, longest=depth),
        norm_epsilon=raw.number("norm_eps", *EPSILON),
    )
    if config.patches < 2:
        raise ModelError(f"Patches of {config.patch_size} pixels do not fit into tiles of {config.tile_side}")
    if config.patches > SOFT_TOKENS[1]:
        raise raw.wrong("patch_size", f"one that makes at most {SOFT_TOKENS[1]} patches of a tile")
    if config.width % config.heads:
        raise ModelError(f"The vision tower's {config.width} numbers cannot be split among {config.heads} heads")
    raw.require("vision_output_dim", config.output_width)
    known = arrangements(config.most_tiles)
    if "supported_aspect_ratios" in raw:
        given = raw.items("supported_aspect_ratios", longest=len(known), length=len(known))
        if given != [list(one) for one in known]:
            raise raw.wrong("supported_aspect_ratios", f"every arrangement of up to {config.most_tiles} tiles in order")
    return config
