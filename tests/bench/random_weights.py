"""Random weights for models of published sizes, in seconds: on the GPU where there is one that has room.

Drawing billions of numbers takes minutes; one block of them repeated keeps every sum as large as random weights would.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK = (1 << 20) + 7  # a prime, so that no two rows of a matrix are alike
SHARD = 2_000_000_000  # bytes of a file: no more is in memory at once


def draw(tensor: Any, spread: float, centre: float = 0.0) -> None:
    """Fill a tensor with numbers of this standard deviation and mean, the same ones every time."""
    import torch

    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) * spread + centre
    block, flat = block.to(tensor.device, tensor.dtype), tensor.view(-1)
    for start in range(0, flat.numel(), BLOCK):
        part = flat[start : start + BLOCK]
        part.copy_(block[: len(part)])


def fill(model: Any, dtype: str, spread: Callable[[str, Any], float], centre: Callable[[str, Any], float]) -> Any:
    """A model from the meta device → the same with weights; `spread` and `centre` take a parameter's name and it."""
    import torch

    model = model.to(getattr(torch, dtype))
    size = sum(parameter.nbytes for parameter in model.parameters())
    has_room = torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > 1.2 * size
    model = model.to_empty(device="cuda" if has_room else "cpu").requires_grad_(False)
    model.tie_weights()
    for name, parameter in model.named_parameters():
        draw(parameter, spread(name, parameter), centre(name, parameter))
    return model


Shape = tuple[int, ...]


def write_shards(
    folder: Path, shapes: dict[str, Shape], dtype: str, spread: Callable[[str, Shape], float], centre: Callable
) -> None:
    """Weights of a model that transformers has no class for, by their published names, as it calls its files."""
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    shards: list[dict[str, Shape]] = [{}]
    for name, shape in shapes.items():
        if sum(kind.itemsize * math.prod(each) for each in [*shards[-1].values(), shape]) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    files = [f"model-{place + 1:05}-of-{len(shards):05}.safetensors" for place in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        tensors = {name: torch.empty(shape, dtype=kind) for name, shape in shard.items()}
        for name, tensor in tensors.items():
            draw(tensor, spread(name, shapes[name]), centre(name))
        save_file(tensors, folder / file, metadata={"format": "pt"})
    where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
