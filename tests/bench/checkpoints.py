"""Checkpoints with random weights, to measure without a download: speed does not depend on the values.

    python tests/bench/checkpoints.py FOLDER SIZE [SIDE [DTYPE]]

The layer sizes are those of the published models. The vocabulary is as large as theirs, but the tokenizer is a tiny
one that knows only its first ids, so that nothing here needs anybody's licence.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import florence2_checkpoint
import fuyu_checkpoint
import gemma3n_checkpoint
import minicpmv_checkpoint
import mllama_checkpoint
import omnilmm_checkpoint
import smolvlm_checkpoint

# Gemma sizes: width, MLP, layers, heads, key heads, head width, query scale; then SigLIP: width, MLP, layers, heads.
SO400M = (1152, 4304, 27, 16)
PUBLISHED_ROWS = 257216


@dataclass(frozen=True)
class Size:
    """What decides how much there is to compute."""

    kind: str  # "gemma" (PaliGemma) or "gemma2" (PaliGemma 2)
    text: tuple[int, int, int, int, int, int, int]
    vision: tuple[int, int, int, int] = SO400M
    rows: int = PUBLISHED_ROWS
    side: int = 224
    patch: int = 14
    dtype: str = "bfloat16"  # as most published checkpoints are stored


SIZES = {
    "tiny": Size("gemma2", (64, 128, 4, 4, 2, 16, 16), (48, 96, 2, 4), 2048, 56, 14, "float32"),
    "small": Size("gemma2", (640, 2048, 8, 4, 1, 256, 256), (384, 1536, 6, 6), 32064, 224, 14, "float32"),
    "3b": Size("gemma", (2048, 16384, 18, 8, 1, 256, 256)),
    "3b-2": Size("gemma2", (2304, 9216, 26, 8, 4, 256, 256)),
    "10b-2": Size("gemma2", (3584, 14336, 42, 16, 8, 256, 256)),
    "28b-2": Size("gemma2", (4608, 36864, 46, 32, 16, 128, 144)),
}

# The other families: each has SIZES and a function that makes one.
OTHERS = (
    florence2_checkpoint, fuyu_checkpoint, gemma3n_checkpoint, minicpmv_checkpoint, mllama_checkpoint,
    omnilmm_checkpoint, smolvlm_checkpoint,
)  # fmt: skip


def make(folder: Path, size_name: str, side: int | None = None, dtype: str | None = None) -> None:
    """Write a checkpoint of a size in `SIZES` or of another family; a PaliGemma is for images of `side` pixels."""
    for other in OTHERS:
        if size_name in other.SIZES:
            other.make(folder, size_name, *([dtype] if dtype else []))
            return
    import support  # before transformers
    import torch
    from random_weights import write_shards
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    size = SIZES[size_name]
    vision = dict(
        zip(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), size.vision, strict=True)
    )
    width, mlp, layers, heads, key_heads, head_width, scale = size.text
    text = {
        "model_type": size.kind, "vocab_size": size.rows, "hidden_size": width, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads,
        "head_dim": head_width,
    } | ({"query_pre_attn_scalar": scale} if size.kind == "gemma2" else {})  # fmt: skip
    vision |= {"model_type": "siglip_vision_model", "image_size": side or size.side, "patch_size": size.patch}
    config = PaliGemmaConfig(
        text_config=text, vision_config=vision | {"vision_use_head": False}, image_token_index=support.IMAGE,
        projection_dim=width, hidden_size=width,
    )  # fmt: skip
    config.dtype = dtype or size.dtype
    with torch.device("meta"):
        tensors = PaliGemmaForConditionalGeneration(config).state_dict()
    tensors = {as_published(name): tensor for name, tensor in tensors.items() if name != "lm_head.weight"}  # tied
    config.architectures = ["PaliGemmaForConditionalGeneration"]
    config.save_pretrained(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    write_shards(folder, shapes, config.dtype, lambda name, _: support.spread_of(name, tensors[name]), lambda name: 0.0)
    support.write_processor(folder, config)


def as_published(name: str) -> str:
    """What a parameter of transformers' PaliGemma is called in checkpoints."""
    return name.replace("model.language_model.", "language_model.model.").removeprefix("model.")


if __name__ == "__main__":
    target, wanted, *more = sys.argv[1:]
    make(Path(target), wanted, int(more[0]) if more and more[0] != "0" else None, more[1] if len(more) > 1 else None)
