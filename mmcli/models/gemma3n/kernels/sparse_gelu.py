"""gelu(gate) · up where a gate is open only as far as it is above most of its token's, as one kernel."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import gelu
from mmcli.layers.kernels.launch import overlap


def sparse_gelu(gate_up: Tensor, deviations: float) -> Tensor:
    """What `plain` computes: [R, 2 · inner] → [R, inner]."""
    rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    y = torch.empty(rows, inner, dtype=gate_up.dtype, device=gate_up.device)
    block = triton.next_power_of_2(inner)
    _sparse_gelu[(rows,)](
        gate_up, y, inner, deviations, BLOCK=block, num_warps=min(32, max(1, block // 512)), **overlap(y.device)
    )
    return y


def plain(gate_up: Tensor, deviations: float) -> Tensor:
    """Gates stand first; each is open by what it exceeds their mean plus `deviations` standard deviations."""
    gate, up = gate_up.chunk(2, dim=-1)
    deviation, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
    return F.gelu(F.relu(gate - (mean + deviation * deviations)), approximate="tanh") * up


@triton.jit
def _sparse_gelu(gate_up_ptr, y_ptr, inner, deviations, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    there = column < inner
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    gate = tl.load(gate_up_ptr + row * 2 * inner + column, mask=there, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * inner + inner + column, mask=there, other=0.0).to(tl.float32)
    mean = tl.sum(gate, axis=0) / inner
    apart = tl.where(there, gate - mean, 0.0)
    limit = mean + deviations * tl.sqrt(tl.sum(apart * apart, axis=0) / inner)
    y = gelu(tl.maximum(gate - limit, 0.0)) * up
    tl.store(y_ptr + row * inner + column, y.to(y_ptr.dtype.element_ty), mask=there)
