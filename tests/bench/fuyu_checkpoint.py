"""Fuyu checkpoints with random weights: layers and tables as published, a tiny tokenizer that knows the first ids."""

from pathlib import Path

# Width, MLP, layers, heads, rows of the vocabulary.
SIZES = {"fuyu-tiny": (64, 128, 2, 4, 2048), "fuyu-8b": (4096, 16_384, 36, 64, 262_144)}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 19 GB for fuyu-8b."""
    import fuyu_folders as folders  # before transformers
    import torch
    from support import spread_of
    from transformers import FuyuForCausalLM

    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    config = folders.tiny_config(**dict(zip(names, SIZES[size_name], strict=True)))
    with torch.device("meta"):
        model = FuyuForCausalLM(config)
    model = model.to(getattr(torch, dtype)).to_empty(device="cpu").requires_grad_(False)
    block = torch.randn((1 << 20) + 7, generator=torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        centre = 1.0 if "layernorm.weight" in name else 0.0
        own, flat = block * spread_of(name, parameter) + centre, parameter.view(-1)
        for start in range(0, flat.numel(), len(block)):
            part = flat[start : start + len(block)]
            part.copy_(own[: len(part)])
    folders.write_checkpoint(folder, model, max_shard_size="2GB")
