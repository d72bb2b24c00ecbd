"""MiniCPM-V checkpoints with random weights: layers and tables as published, a tiny tokenizer with the first ids."""

import json
from pathlib import Path

# Version, and what its config.json says otherwise than the published one.
TOWER = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL = {
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8,
    "vocab_size": 8192, "vision_config": TOWER | {"model_type": "siglip", "image_size": 980, "patch_size": 14},
}  # fmt: skip
SIZES = {
    "minicpmv-small": ("2.6", SMALL),
    "minicpmv20": ("2.0", {}),
    "minicpmv26": ("2.6", {}),
}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 7 GB for minicpmv20, 16 GB for minicpmv26."""
    import minicpmv_folders as folders
    from minicpmv_published import PUBLISHED
    from random_weights import write_shards

    version, changes = SIZES[size_name]
    config = PUBLISHED[version] | changes | {"bos_token_id": 1, "eos_token_id": 2}
    folders.write_tokens(folder, version)
    (folder / "preprocessor_config.json").unlink(missing_ok=True)  # it is that of the small folders
    (folder / "config.json").write_text(json.dumps(config))
    write_shards(folder, folders.shapes(config), dtype, folders.spread_of, folders.centre_of)
