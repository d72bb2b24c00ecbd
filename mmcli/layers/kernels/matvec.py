"""The product of one row with a weight, where the library's falls short of the memory's speed.

Measured on an H200 in bfloat16: weights of 8 MB and less are read 1.7 to 4.5 times as fast as by cuBLAS, those of 60 MB
and more 1.1 to 1.4 times. With four rows this one was slower than cuBLAS. An RMSNorm of x in the same kernel halved its
speed, since every program must compute it, and GELU · up of two halves did not pay either. Products of more rows are
those of `few_rows.py`.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels import few_rows
from mmcli.layers.kernels.functions import activated
from mmcli.layers.kernels.launch import overlap

# (inputs that a program reads at a time of each output's weights, numbers that it reads at a time)
TILE = (1024, 2048)
LONG_TILE = (2048, 4096)  # for inputs that are two or more such tiles, for many, and for no multiple of 1024
MANY_INPUTS = 16384
# For 1,024 to 2,048 inputs, by the outputs: as long as all programs run at the same time, a wide tile has more on its
# way; with more of them one that is never empty to a good part counts.
SHORT_TILES = ((2048, (1024, 2048)), (4096, (1024, 4096)), (1 << 31, (256, 1024)))


# What may follow a product: GELU in both forms, and the square of ReLU.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu2": lambda x: F.relu(x).square(),
}


def product(x: Tensor, linear: nn.Module, activation: str | None = None, times: Tensor | None = None) -> Tensor:
    """x [R, K] through a linear layer → [R, N], by a kernel of ours or by the library, whichever is faster.

    `activation` is one of `ACTIVATIONS`, if any; `times` [R, N] multiplies what it gives.
    """
    if type(linear) is nn.Linear:
        return by_weight(x, linear.weight, linear.bias, activation, times)
    return _followed(linear(x), activation, times)


def by_weight(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    times: Tensor | None = None,
) -> Tensor:
    """`product` with a weight [N, K] and a bias [N]."""
    if len(x) == 1:
        return matvec(x, weight, times, bias, activation)
    if few_rows.pays(x, weight):
        return few_rows.product(x, weight, bias, activation, times)
    return plain(x, weight, times, bias, activation)


def matvec(
    x: Tensor,
    weight: Tensor,
    times: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """What `plain` computes: x [1, K] and weight [N, K] → [1, N], sums in float32."""
    outputs, inputs = weight.shape
    y = torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    wide, numbers = tile(outputs, inputs)
    count = numbers // wide
    _matvec[(triton.cdiv(outputs, count),)](
        x, weight, times, bias, y, outputs,
        INPUTS=inputs, OUT=count, IN=wide, TIMES=times is not None, BIASED=bias is not None,
        ACTIVATION=activation or "", num_warps=4, **overlap(x.device),
    )  # fmt: skip
    return y


def tile(outputs: int, inputs: int) -> tuple[int, int]:
    """What a program reads at a time of a weight: (inputs of each output, numbers)."""
    if inputs % LONG_TILE[0] == 0 and inputs >= 2 * LONG_TILE[0]:
        return LONG_TILE
    if inputs % TILE[0] == 0 and inputs < MANY_INPUTS:
        return TILE
    if 1024 < inputs < 2048:
        return next(short for most, short in SHORT_TILES if outputs < most)
    wide, numbers = LONG_TILE
    return min(wide, triton.next_power_of_2(inputs)), numbers


def plain(
    x: Tensor,
    weight: Tensor,
    times: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """x Wᵀ + bias [N] and its activation, times `times` [R, N]."""
    return _followed(F.linear(x, weight, bias), activation, times)


def _followed(y: Tensor, activation: str | None, times: Tensor | None) -> Tensor:
    """What stands behind a product."""
    y = y if activation is None else ACTIVATIONS[activation](y)
    return y if times is None else y * times


@triton.jit
def _matvec(
    x_ptr, weight_ptr, times_ptr, bias_ptr, y_ptr, outputs,
    INPUTS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, TIMES: tl.constexpr, BIASED: tl.constexpr,
    ACTIVATION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    column = tl.arange(0, IN)
    tile = weight_ptr + output.to(tl.int64)[:, None] * INPUTS + column[None, :]
    there = (output < outputs)[:, None]
    if BIASED:
        bias = tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    # Read a tile ahead: the first one while the kernel before this one still computes x.
    weight = tl.load(tile, mask=there & (column < INPUTS)[None, :], other=0.0, eviction_policy="evict_first")
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, IN), tl.float32)
    for first in range(0, INPUTS, IN):
        ahead = there & (first + IN + column < INPUTS)[None, :]
        following = tl.load(tile + first + IN, mask=ahead, other=0.0, eviction_policy="evict_first")
        x = tl.load(x_ptr + first + column, mask=first + column < INPUTS, other=0.0).to(tl.float32)
        sums += x[None, :] * weight.to(tl.float32)
        weight = following
    y = tl.sum(sums, axis=1)
    if BIASED:
        y += bias
    y = activated(y, ACTIVATION)
    if TIMES:
        y = y * tl.load(times_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=output < outputs)
