"""Which parts of a model are trained, and how."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmcli.errors import UsageError
from mmcli.layers.lora import LoraLinear, adapt
from mmcli.models.teaching import Teaching
from mmcli.training.settings import TuneSettings


def prepare(model: nn.Module, teaching: Teaching, settings: TuneSettings) -> dict[str, LoraLinear]:
    """Put LoRA into a model where that is the method, and mark what is trained → the adapted layers.

    Raises UsageError where nothing is left to train.
    """
    for name in (*settings.frozen, *settings.trained):
        if not any(own.startswith(name) for own, _ in model.named_parameters()):
            parts = ", ".join(own for own, _ in model.named_children())
            raise UsageError(f"No part of the model has a name that begins with {name}", f"Its parts are {parts}")
    model.requires_grad_(False)
    layers: dict[str, LoraLinear] = {}
    frozen = tuple(settings.frozen)
    if settings.method == "lora":
        torch.manual_seed(settings.seed)
        below = (*teaching.adapted_in, *settings.trained)
        layers = adapt(model, settings.lora, below, teaching.adapted)
        for name, layer in layers.items():
            wanted = not name.startswith(frozen) if frozen else True
            layer.a.requires_grad_(wanted)
            layer.b.requires_grad_(wanted)
    else:
        starts = teaching.head if settings.method == "head" else ("",)
        if not starts:
            raise UsageError("This model has no head that is trained alone", "Choose --method lora or full")
        left = frozen + tuple(one for one in teaching.frozen if one not in settings.trained)
        for name, parameter in model.named_parameters():
            chosen = name.startswith(starts) and not (left and name.startswith(left))
            chosen |= bool(settings.trained) and name.startswith(settings.trained)
            if chosen and parameter.is_floating_point():
                parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("Nothing is left to be trained", "Name fewer parts with --freeze")
    if settings.recompute:
        recompute(model, teaching.checkpointed)
    return layers


def groups(model: nn.Module, settings: TuneSettings) -> list[dict[str, Any]]:
    """The trained parameters for the optimiser: norms and biases do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in trained if one.dim() > 1], "weight_decay": settings.decay},
        {"params": [one for one in trained if one.dim() <= 1], "weight_decay": 0.0},
    ]


def recompute(model: nn.Module, starts: Iterable[str]) -> None:
    """Let the layers below `starts` keep their inputs alone and compute the rest again on the way back.

    (Chen et al., arXiv:1604.06174)
    """
    patterns = [re.compile(re.escape(start) + r"\d+") for start in starts]
    for name, layer in model.named_modules():
        if any(pattern.fullmatch(name) for pattern in patterns):
            layer.forward = _again(layer.forward)  # type: ignore[method-assign]


def _again(forward: Any) -> Any:
    def wrapped(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False) if torch.is_grad_enabled() else forward(*args)

    return wrapped
