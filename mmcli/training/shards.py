"""One model shared out among processes (FSDP2; Zhao et al., arXiv:2304.11277): each keeps its share of every weight, of
the gradients and of the optimiser's state, and has a layer whole only while it computes.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from mmcli.hub.weights import kept_mapped

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def share_out(objective: nn.Module, model: nn.Module, layers: Iterable[str], device: torch.device, full: bool) -> None:
    """Leave this process its share of a model that is whole on the CPU, and put that on `device`.

    `objective` is the module that is called; those of `model` whose names are one of `layers` and a number are gathered
    one after the other as they are needed, what is left all together. They move one by one, so that no device needs
    room for more than its share and one of them. With `full` weights become float32, in which they are trained.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    patterns = [re.compile(re.escape(one) + r"\d+") for one in layers]
    names = kept_mapped(model)
    mapped = {parameter for name, parameter in model.named_parameters() if name in names}
    settings: dict[str, Any] = {"mesh": mesh} | ({"ignored_params": mapped} if mapped else {})
    parts = [part for name, part in model.named_modules() if any(one.fullmatch(name) for one in patterns)]
    for part in (*parts, objective):
        if full:
            for parameter in part.parameters():
                if parameter not in mapped and not is_share(parameter):
                    parameter.data = parameter.data.float()
        fully_shard(part, **settings)


def is_shared(module: nn.Module) -> bool:
    """Whether a module's weights are shared out among processes."""
    return any(is_share(parameter) for parameter in module.parameters())


def is_share(tensor: Any) -> "TypeGuard[DTensor]":
    """Whether this is a process's share of a larger tensor."""
    if "torch.distributed.tensor" not in sys.modules:  # what takes long to import has shared nothing out
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Tensors put together from their shares, on the CPU; all processes have to ask, and those that `keep` get them."""
    found = {}
    for name, tensor in tensors.items():
        if is_share(tensor):
            together = tensor.full_tensor().detach()
            if keep:
                found[name] = together.cpu()
        elif keep:
            found[name] = tensor
    return found


def whole_state(optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Any]:
    """An optimiser's state as one process alone would have it; as `whole`."""
    state = optimizer.state_dict()
    return {**state, "state": {number: whole(values, keep) for number, values in state["state"].items()}}


def put(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor into one that may be shared out: into this process's share then."""
    if is_share(target):
        own, mesh = target.to_local(), target.device_mesh
        parts, place = source.chunk(mesh.size()), mesh.get_local_rank()  # cut as FSDP2 does
        own.copy_(parts[place] if place < len(parts) else source[:0])
    else:
        target.copy_(source)


def put_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser the state of one process alone: of every tensor its share."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shared: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        shared[number] = dict(values)
        for name, value in values.items():
            if is_share(parameters[number]) and value.shape == parameters[number].shape:
                shared[number][name] = torch.zeros_like(parameters[number], dtype=value.dtype)
                put(shared[number][name], value)
    optimizer.load_state_dict({**state, "state": shared})
