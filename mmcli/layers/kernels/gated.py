"""activation(gate) · up of a product that holds both side by side, as one kernel."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import gated_by
from mmcli.layers.kernels.launch import overlap

BLOCK = 1024


def gated(gate_up: Tensor, activation: str, multiple: int = 1) -> Tensor:
    """What `plain` computes: [R, 2 · inner] → [R, inner], with rows of zeros behind it up to a `multiple`."""
    rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    y = torch.empty(triton.cdiv(rows, multiple) * multiple, inner, dtype=gate_up.dtype, device=gate_up.device)
    _gated[(len(y), triton.cdiv(inner, BLOCK))](
        gate_up, y, rows, inner, ACTIVATION=activation, BLOCK=BLOCK, num_warps=4, **overlap(y.device)
    )
    return y


def plain(gate_up: Tensor, activation: str) -> Tensor:
    """The gates stand in front; `activation` is "gelu" (the tanh form) or "silu"."""
    gate, up = gate_up.chunk(2, dim=-1)
    return (F.gelu(gate, approximate="tanh") if activation == "gelu" else F.silu(gate)) * up


@triton.jit(do_not_specialize=["rows"])
def _gated(gate_up_ptr, y_ptr, rows, inner, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = (column < inner) & (row < rows)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    gate = tl.load(gate_up_ptr + row * 2 * inner + column, mask=there, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * inner + inner + column, mask=there, other=0.0).to(tl.float32)
    y = gated_by(gate, up, ACTIVATION)
    tl.store(y_ptr + row * inner + column, y.to(y_ptr.dtype.element_ty), mask=column < inner)
