"""OmniLMM checkpoints with random weights: layers and tables as published, a tiny tokenizer with the first ids."""

import json
from pathlib import Path
from typing import Any

# What config.json says otherwise than that of the smallest one in the tests. OmniLMM-12B: Mistral 7B with Zephyr's
# rows and nine marks more, EVA-02 enormous (see mmcli's configuration), 64 queries.
SIZES: dict[str, dict[str, Any]] = {
    "omnilmm-tiny": {},
    "omnilmm-12b": {
        "vocab_size": 32_009, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096, "image_size": 448,
        "num_query": 64, "max_position_embeddings": 32_768,
        "vision_config": {
            "img_size": 224, "patch_size": 14, "depth": 64, "num_heads": 16, "embed_dim": 1792,
            "mlp_hidden_dim": 15_360,
        },
    },
}  # fmt: skip


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 23 GB for omnilmm-12b."""
    import omnilmm_folders as folders
    from random_weights import write_shards

    config = folders.CONFIGS[2] | SIZES[size_name]
    folders.write_settings(folder, 2)
    (folder / "config.json").write_text(json.dumps(config))
    write_shards(folder, folders.shapes(config), dtype, spread_of, centre_of)


def spread_of(name: str, shape: tuple[int, ...]) -> float:
    """The standard deviation by which a tensor matters and numbers stay in range from layer to layer."""
    if len(shape) == 1 or name.endswith(("pos_embed", "cls_token", "query", "embed_tokens.weight")):
        return 0.3
    from math import prod

    return prod(shape[1:]) ** -0.5


def centre_of(name: str) -> float:
    """The mean: norms multiply by about one."""
    return 1.0 if name.endswith("weight") and ("norm" in name or ".ln_" in name) else 0.0
