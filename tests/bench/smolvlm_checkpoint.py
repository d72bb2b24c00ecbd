"""SmolVLM checkpoints of the published sizes with random weights; the tokenizer is a tiny one."""

from pathlib import Path
from typing import Any

ROWS = 49280
BASE = {"hidden_size": 768, "image_size": 512, "patch_size": 16, "num_attention_heads": 12}
SO400M = {
    "hidden_size": 1152, "image_size": 384, "patch_size": 14, "num_attention_heads": 16, "intermediate_size": 4304,
    "num_hidden_layers": 27,
}  # fmt: skip

# Width, MLP, layers, heads, key heads; the tower; how many patches a side make a soft token.
SIZES: dict[str, tuple[tuple[int, int, int, int, int], dict[str, int], int]] = {
    "smolvlm-256m": ((576, 1536, 30, 9, 3), BASE, 4),
    "smolvlm-500m": ((960, 2560, 32, 15, 5), BASE, 4),
    "smolvlm-2.2b": ((2048, 8192, 24, 32, 32), SO400M, 3),
}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 0.5, 1 and 4.5 GB."""
    import smolvlm_folders as folders  # before transformers
    import torch
    from random_weights import fill
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    (width, mlp, layers, heads, key_heads), vision, scale = SIZES[size_name]
    text: dict[str, Any] = {
        "vocab_size": ROWS, "hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": key_heads, "head_dim": 64, "max_position_embeddings": 8192,
    }  # fmt: skip
    raw = folders.tiny_raw("idefics3", **text) | {"vision_config": vision, "scale_factor": scale}
    with torch.device("meta"):
        model = Idefics3ForConditionalGeneration(Idefics3Config(**raw))
    model = fill(model, dtype, folders.spread_of, lambda name, _: folders.centre_of(name))
    model.save_pretrained(folder, max_shard_size="2GB")
    tile, patch = vision["image_size"], vision["patch_size"]
    folders.write_processor(folder, "idefics3", tile=tile, places=(tile // patch // scale) ** 2)
