"""Weights back into a checkpoint's form: the inverse of strict loading."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mmcli.hub.weights import Rule


def checkpoint_names(rules: Iterable[Rule], name: str) -> Iterator[str]:
    """All that checkpoints call our tensor `name`, the usual name first."""
    for rule in rules:
        if rule.target is None:
            continue
        found = re.fullmatch(re.escape(rule.target).replace(r"\{\}", r"([^.]+)"), name)
        if found:
            yield rule.pattern.format(*found.groups())


def reference_name(rules: Iterable[Rule], modules: Iterable[str], name: str) -> str:
    """What the reference's own module calls our tensor `name`: the checkpoint name that begins with one of `modules`.

    Of several it is the shortest: later generations of the reference have fewer modules within each other. ValueError
    where there is none.
    """
    found = [one for one in checkpoint_names(rules, name) if one.startswith(tuple(modules))]
    if not found:
        raise ValueError(f"the reference has no name for {name}")
    return min(found, key=len)


def checkpoint_name(rules: Iterable[Rule], name: str) -> str:
    """What a checkpoint calls our tensor `name`: by the first rule that leads to it. ValueError where none does."""
    for found in checkpoint_names(rules, name):
        return found
    raise ValueError(f"no checkpoint has a name for {name}: the model was fused or quantised")


def save_weights(
    state: Mapping[str, Tensor], path: Path, rules: Iterable[Rule], dtype: torch.dtype | None = None
) -> None:
    """Write the state of a model that was loaded without fusing to a safetensors file, under a checkpoint's names.

    Each tensor keeps its type, and `load_strict` gives the same back, bit by bit; unless a `dtype` is given for those
    of floating point. What several names share in memory is written once a name. ValueError as `checkpoint_name`;
    OSError where the file cannot be written.
    """
    table = list(rules)
    tensors: dict[str, Tensor] = {
        checkpoint_name(table, name): _written(tensor, dtype) for name, tensor in state.items()
    }
    save_tensors(tensors, path)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file. OSError where it cannot be: the library has an error of its own for that."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        system = re.search(r"\(os error (\d+)\)", str(error))
        if system is None:
            raise
        raise OSError(int(system[1]), os.strerror(int(system[1])), str(path)) from error


def _written(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu()
    tensor = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    return tensor.contiguous().clone()
