"""Several linear layers as one."""

from itertools import chain

import torch
from torch import Tensor, nn

from mmcli.layers.int8 import Int8Linear
from mmcli.layers.int8_step import StepInt8Linear
from mmcli.layers.weight_only import WeightOnlyLinear


def stack(*layers: nn.Module) -> nn.Module:
    """Linear layers of one input as one, their outputs side by side; where only some have a bias, the rest get zeros.

    All of them are `nn.Linear`, all of one int8 form, or `WeightOnlyLinear` among them. One large product is read at
    the memory's speed; several small ones cost their starts.
    """
    quantised = [layer for layer in layers if isinstance(layer, Int8Linear)]
    if quantised:
        return Int8Linear.stacked(quantised)
    packed = [layer for layer in layers if isinstance(layer, StepInt8Linear)]
    if packed:
        return StepInt8Linear.stacked(packed)
    if any(isinstance(layer, WeightOnlyLinear) for layer in layers):
        return WeightOnlyLinear.stacked(layers)
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    fused = nn.Linear(1, 1, bias=False, device="meta")
    fused.weight = nn.Parameter(torch.cat([layer.weight.data for layer in plain]), requires_grad=False)
    if any(layer.bias is not None for layer in plain):
        biases = [torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias.data for layer in plain]
        fused.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    fused.out_features, fused.in_features = fused.weight.shape
    return fused


class SideBySide(nn.ModuleList):
    """Linear layers of one input, their outputs side by side, whose weights stay where they are."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self], dim=-1)


def joined(*layers: nn.Module) -> nn.Module | None:
    """Linear layers of one input as one, where that pays on the device on which they are; else None.

    On a GPU their weights are put together. On a CPU those in bfloat16 stay mapped from their file, and `for_steps`
    makes one product of their copies.
    """
    if on_gpu(layers[-1]):
        return stack(*layers)
    in_bfloat16 = all(type(layer) is nn.Linear and layer.weight.dtype == torch.bfloat16 for layer in layers)
    return SideBySide(layers) if in_bfloat16 else None


def on_gpu(layer: nn.Module) -> bool:
    """Whether the weights of a layer, in whatever form, are on a CUDA device."""
    weight = next(chain(layer.parameters(), layer.buffers()), None)  # packed integers are neither
    return weight is not None and weight.device.type == "cuda"
