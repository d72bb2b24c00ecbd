"""OmniLMM checkpoints with random weights: layers and tables as published, a tiny tokenizer with the first ids."""

import json
from pathlib import Path

SIZES = ("omnilmm-tiny", "omnilmm-12b")


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 23 GB for omnilmm-12b."""
    import omnilmm_folders as folders
    from random_weights import write_shards

    published = folders.PUBLISHED | {"vision_config": folders.EVA_02_E}
    config = published if size_name == "omnilmm-12b" else folders.CONFIGS[2]
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
