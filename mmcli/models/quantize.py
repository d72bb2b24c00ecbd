"""A checkpoint written anew with its decoder's weights in integers, as `load` would keep them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.errors import UsageError
from mmcli.hub.json_files import read_json
from mmcli.hub.new_folder import new_folder
from mmcli.hub.quantized import BITS, QUANTIZED, Storage, multiplied, quantize
from mmcli.hub.resolve import Checkpoint
from mmcli.hub.safetensors_files import INDEX, ITEM_BYTES, SCALE
from mmcli.hub.save import save_tensors
from mmcli.hub.weight_files import has_only_pickles, header_of, open_weights, weight_files
from mmcli.hub.weights import place
from mmcli.layers.weight_only import InIntegers, keep_in
from mmcli.models.load import build_empty, parts_in_integers
from mmcli.models.registry import family_of

if TYPE_CHECKING:
    from torch import Tensor


def quantize_checkpoint(
    checkpoint: Checkpoint, target: Path, storage: Storage, on_file: Callable[[str], None] = lambda name: None
) -> int:
    """Write `checkpoint` into the new folder `target`, its decoder in `storage` → bytes of the weights.

    File by file, so that the largest is in memory and no more; `on_file` gets the name of each when it is begun. Every
    command keeps the folder's weights as they are in it, unless another `--quantize` is asked for. Raises as
    `new_folder`, ModelError for what is no model that is known, UsageError where its weights are pickles or in integers
    already.
    """
    chosen = _chosen(checkpoint, storage)
    source = checkpoint.folder
    if has_only_pickles(source):
        raise UsageError(f"{checkpoint.name} has its weights as pickles", "Run mmcli models convert first")
    if QUANTIZED in checkpoint.config:
        raise UsageError(f"{checkpoint.name} is in integers already", "Quantize the model that it was made from")
    files = weight_files(source)
    with new_folder(checkpoint, target, sum(_size(path, chosen) for path in files)) as draft:
        where: dict[str, str] = {}
        for path in files:
            on_file(path.name)
            tensors = _tensors(path, chosen)
            save_tensors(tensors, draft / path.name)
            where |= dict.fromkeys(tensors, path.name)
        size = sum((draft / path.name).stat().st_size for path in files)
        if len(files) > 1:
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
            (draft / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
        config = read_json(draft / "config.json") | {QUANTIZED: storage}
        (draft / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return size


def _chosen(checkpoint: Checkpoint, storage: Storage) -> dict[str, Storage]:
    """Names in the checkpoint of what is kept in integers, and in which."""
    family = family_of(checkpoint.config, checkpoint.name)
    config = family.read_config(checkpoint.config)
    model = build_empty(family, config)
    keep_in(storage, *parts_in_integers(model))
    ours = {f"{name}.weight": part.storage for name, part in model.named_modules() if isinstance(part, InIntegers)}
    rules, chosen = family.rules(config), {}
    for path in weight_files(checkpoint.folder):
        for name in header_of(path):
            rule, target = place(rules, name)
            target = target if rule is None or rule.copy_of is None else rule.copy_of
            if target in ours:
                chosen[name] = ours[target]
    return chosen


def _tensors(path: Path, chosen: dict[str, Storage]) -> "dict[str, Tensor]":
    """What a file of weights becomes."""
    tensors: dict[str, Tensor] = {}
    with open_weights(path) as file:
        names = set(file.keys())
        for name in sorted(names):
            tensor = file.get_tensor(name)
            if name in chosen:
                if name + SCALE in names and not tensor.is_floating_point():
                    tensor = multiplied(tensor, file.get_tensor(name + SCALE))
                tensors[name], tensors[name + SCALE] = quantize(tensor, chosen[name])
            elif name not in tensors:
                tensors[name] = tensor.clone()
    return tensors


def _size(path: Path, chosen: dict[str, Storage]) -> int:
    """Bytes that a file of weights will have, about."""
    bits = {name: BITS[storage] for name, storage in chosen.items()}
    return int(
        sum(info.count * bits.get(name, 8 * ITEM_BYTES[info.dtype]) / 8 for name, info in header_of(path).items())
    )
