"""Random weights for models of published sizes, in seconds: on the GPU where there is one that has room.

Drawing billions of numbers takes minutes; one block of them repeated keeps every sum as large as random weights would.
"""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
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
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # by safetensors
WRITERS = 4


def write_shards(
    folder: Path, shapes: dict[str, Shape], dtype: str, spread: Callable[[str, Shape], float], centre: Callable
) -> None:
    """Weights by their names in a checkpoint, as transformers calls its files: no model and no tensor is made of them.

    The same block fills every tensor, as with `draw`; several threads write it where it belongs.
    """
    import torch

    item = getattr(torch, dtype).itemsize
    shards: list[dict[str, Shape]] = [{}]
    for name, shape in shapes.items():
        if sum(item * math.prod(each) for each in [*shards[-1].values(), shape]) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    files = [f"model-{place + 1:05}-of-{len(shards):05}.safetensors" for place in range(len(shards))]
    numbers = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))

    @cache
    def block(spread: float, centre: float) -> memoryview:
        values = (numbers * spread + centre).to(getattr(torch, dtype))
        return memoryview(values.view(torch.uint8).numpy())

    def write(file: str, shard: dict[str, Shape]) -> None:
        header, end = {}, 0
        for name, shape in shard.items():
            start, end = end, end + item * math.prod(shape)
            header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
        text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb", buffering=0) as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name, shape in shard.items():
                data, left = block(spread(name, shape), centre(name)), item * math.prod(shape)
                while left:
                    left -= out.write(data[: min(left, len(data))])

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, files, shards))
    where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
