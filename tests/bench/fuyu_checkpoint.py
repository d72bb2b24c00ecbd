"""Fuyu checkpoints with random weights: layers and tables as published, a tiny tokenizer that knows the first ids."""

from pathlib import Path

# Width, MLP, layers, heads, rows of the vocabulary.
SIZES = {"fuyu-tiny": (64, 128, 2, 4, 2048), "fuyu-8b": (4096, 16_384, 36, 64, 262_144)}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 19 GB for fuyu-8b."""
    import fuyu_folders as folders  # before transformers
    import torch
    from random_weights import fill
    from support import spread_of
    from transformers import FuyuForCausalLM

    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    config = folders.tiny_config(**dict(zip(names, SIZES[size_name], strict=True)))
    with torch.device("meta"):
        model = FuyuForCausalLM(config)
    model = fill(model, dtype, spread_of, lambda name, _: 1.0 if "layernorm.weight" in name else 0.0)
    folders.write_checkpoint(folder, model, max_shard_size="2GB")
