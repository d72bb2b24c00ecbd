"""Weights back into a checkpoint's form: the inverse of strict loading."""

import re
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from mmcli.hub.weights import Rule


def checkpoint_name(rules: Iterable[Rule], name: str) -> str:
    """What a checkpoint calls our tensor `name`: by the first rule that leads to it. ValueError where none does."""
    for rule in rules:
        if rule.target is None:
            continue
        found = re.fullmatch(re.escape(rule.target).replace(r"\{\}", r"([^.]+)"), name)
        if found:
            return rule.pattern.format(*found.groups())
    raise ValueError(f"no checkpoint has a name for {name}: the model was fused or quantised")


def save_weights(module: nn.Module, path: Path, rules: Iterable[Rule]) -> None:
    """Write the weights of a model that was loaded without fusing to a safetensors file, under a checkpoint's names.

    Each tensor keeps its type; `load_strict` gives the same back, bit by bit. What several names share in memory is
    written once a name. ValueError as `checkpoint_name`; OSError where the file cannot be written.
    """
    table = list(rules)
    tensors: dict[str, Tensor] = {
        checkpoint_name(table, name): tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
