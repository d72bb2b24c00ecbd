"""LoRA adapters in PEFT's format: adapter_config.json, and adapter_model.safetensors under the reference's names."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcli.errors import ModelError
from mmcli.hub.fields import shown
from mmcli.hub.json_files import read_json
from mmcli.hub.other_formats import ADAPTER as CONFIG
from mmcli.hub.safetensors_files import damaged
from mmcli.hub.save import reference_name, save_tensors
from mmcli.hub.weights import Rule, place
from mmcli.layers.lora import LoraConfig, LoraLinear
from mmcli.layers.weight_only import WeightOnlyLinear
from mmcli.models.family import Family

WEIGHTS = "adapter_model.safetensors"
ROOT = "base_model.model."
PART = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
# What PEFT can do and mmcli does not; absent or one of these values means that it was not done.
UNSUPPORTED: tuple[str, ...] = ("use_dora", "fan_in_fan_out", "modules_to_save", "lora_bias", "layer_replication")
UNSUPPORTED += ("trainable_token_indices", "target_parameters")


@dataclass(frozen=True)
class Adapter:
    """What an adapter's folder holds: for each module of the reference the two thin matrices, and their scale."""

    folder: Path
    base: str  # the model it was made for, as it was named
    layers: dict[str, tuple[Tensor, Tensor, float]]  # name of the module → A [rank, in], B [out, rank], scale


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter. Raises ModelError for a folder that holds none, a damaged one, or one of another kind."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} holds no adapter: it has no {CONFIG}", "Name the folder that training wrote")
    settings = read_json(folder / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ModelError(f"{folder} holds an adapter of the kind {shown(settings.get('peft_type'))}; mmcli reads LORA")
    for name in UNSUPPORTED:
        if settings.get(name):
            raise ModelError(f"{folder / CONFIG} sets {name}, which mmcli does not support", "Merge it with peft")
    if settings.get("bias", "none") != "none":
        raise ModelError(f"{folder / CONFIG} trains biases, which mmcli does not support", "Merge it with peft")
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = PART.fullmatch(name.removeprefix(ROOT))
        if match is None or tensor.ndim != 2:
            raise ModelError(f"{path} holds {shown(name)}, which is no part of a LoRA adapter of linear layers")
        pairs.setdefault(match[1], {})[match[2]] = tensor
    layers = {}
    for name, pair in pairs.items():
        if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise ModelError(f"{path} holds no fitting pair of matrices for {shown(name)}", "Train or copy it again")
        layers[name] = (pair["A"], pair["B"], _scale(settings, name, pair["A"].shape[0], folder))
    if not layers:
        raise ModelError(f"{path} adapts nothing", "Train it again")
    base = settings.get("base_model_name_or_path")
    return Adapter(folder, base if isinstance(base, str) else "", layers)


def _scale(settings: Mapping[str, Any], module: str, rank: int, folder: Path) -> float:
    patterns = settings.get("alpha_pattern") or {}
    alpha: Any = settings.get("lora_alpha", 8)
    if isinstance(patterns, dict):
        alpha = next((own for key, own in patterns.items() if module == key or module.endswith(f".{key}")), alpha)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelError(f"{folder / CONFIG} sets lora_alpha to {shown(alpha)}, which is no number")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


@torch.no_grad()
def add_adapter(model: nn.Module, family: Family, config: Any, adapter: Adapter, dtype: torch.dtype) -> None:
    """Add an adapter's products to a model that was loaded and not fused. Raises ModelError where they do not fit.

    To weights they are added in float32, and the sums are rounded once to the weights' type. Weights in integers stay
    as they are, since such a sum would have to be rounded to integers anew: the two thin matrices compute beside them,
    in `dtype`, as they did when they were trained.
    """
    table = family.rules(config)
    whose = f"It is for {adapter.base}" if adapter.base else "It is for another model"
    for module, (a, b, scale) in adapter.layers.items():
        owner, _, own = (place(table, f"{module}.weight")[1] or "").rpartition(".")
        try:
            part = model.get_submodule(owner)
            in_integers = isinstance(part, WeightOnlyLinear)
            shape = part.shape if isinstance(part, WeightOnlyLinear) else part.get_parameter(own).shape
        except AttributeError:
            raise ModelError(f"{adapter.folder} adapts {module}, which this model does not have", whose) from None
        if shape != (b.shape[0], a.shape[1]):
            raise ModelError(
                f"{adapter.folder} adapts {module} with matrices of {a.shape[1]} and {b.shape[0]} numbers, "
                f"but the model's are {list(shape)}",
                whose,
            )
        if in_integers:
            where, _, layer = owner.rpartition(".")
            device = part.get_buffer("stored").device
            beside = LoraLinear(part, a.to(device, dtype), b.to(device, dtype), scale)
            setattr(model.get_submodule(where), layer, beside.requires_grad_(False).eval())
        else:
            weight = part.get_parameter(own)
            a, b = (one.to(weight.device, torch.float32) for one in (a, b))
            whole = torch.addmm(weight.float(), b, a, alpha=scale).to(weight.dtype)
            # In a place of its own: the old one may be mapped from a file.
            setattr(part, own, nn.Parameter(whole, requires_grad=False))


def write_adapter(
    folder: Path,
    layers: Mapping[str, LoraLinear],
    config: LoraConfig,
    rules: Iterable[Rule],
    modules: Iterable[str],
    base: str,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write adapted layers, by our names, as PEFT does, into a folder that is there. OSError.

    `state` are the weights of their model where the layers hold only a share of their own.
    """
    table, begins = list(rules), list(modules)
    names = {name: reference_name(table, begins, f"{name}.weight").removesuffix(".weight") for name in layers}
    tensors = {}
    for name, layer in layers.items():
        a, b = (layer.a, layer.b) if state is None else (state[f"{name}.a"], state[f"{name}.b"])
        for part, tensor in (("A", a), ("B", b)):
            tensors[f"{ROOT}{names[name]}.lora_{part}.weight"] = tensor.detach().float().cpu().contiguous()
    save_tensors(tensors, folder / WEIGHTS)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.stabilised,
        "lora_dropout": config.dropout,
        "target_modules": sorted(names.values()),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "task_type": None,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
