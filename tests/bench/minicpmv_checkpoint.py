"""MiniCPM-V checkpoints with random weights: layers and tables as published, a tiny tokenizer with the first ids."""

import json
from pathlib import Path

SHARD = 2_000_000_000  # bytes: no more is in memory at once

# Version, and what its config.json says otherwise than the published one.
SMALL = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
SIZES = {
    "minicpmv-small": ("2.6", SMALL | {"vocab_size": 8192}),
    "minicpmv20": ("2.0", {}),
    "minicpmv26": ("2.6", {}),
}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 7 GB for minicpmv20, 16 GB for minicpmv26."""
    import minicpmv_folders as folders
    import torch
    from minicpmv_published import PUBLISHED

    version, changes = SIZES[size_name]
    config = PUBLISHED[version] | changes | {"bos_token_id": 1, "eos_token_id": 2}
    folders.write_tokens(folder, version)
    (folder / "preprocessor_config.json").unlink(missing_ok=True)  # it is that of the small folders
    (folder / "config.json").write_text(json.dumps(config))
    block = torch.randn((1 << 20) + 7, generator=torch.Generator().manual_seed(0))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in folders.shapes(config).items():
        if sum(size_of(one) for one in [*shards[-1].values(), shape]) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    for place, shard in enumerate(shards):
        write_shard(folder / file_name(place, len(shards)), shard, block, getattr(torch, dtype))
    where = {name: file_name(place, len(shards)) for place, shard in enumerate(shards) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def size_of(shape: tuple[int, ...]) -> int:
    """Bytes in a type of two bytes."""
    import math

    return 2 * math.prod(shape)


def file_name(place: int, count: int) -> str:
    """As transformers calls its shards."""
    return f"model-{place + 1:05}-of-{count:05}.safetensors"


def write_shard(path: Path, shapes, block, dtype) -> None:
    """Drawing billions of numbers takes minutes; one block repeated keeps sums as large as random weights would."""
    import torch
    from minicpmv_folders import centre_of, spread_of
    from safetensors.torch import save_file

    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.empty(shape, dtype=dtype)
        own, flat = block * spread_of(name, shape) + centre_of(name), tensors[name].view(-1)
        for start in range(0, flat.numel(), len(block)):
            part = flat[start : start + len(block)]
            part.copy_(own[: len(part)])
    save_file(tensors, path, metadata={"format": "pt"})
