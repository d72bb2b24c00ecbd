"""Fused kernels (Triton) for decode steps on CUDA devices, one file a kernel.

Each file holds a kernel, the function that starts it, and `plain`: the same in plain PyTorch, which says what the
kernel computes and which the tests compare it with. Kernels round once where the plain PyTorch path rounds after every
operation, so both agree to the rounding of the type, and in float32 to the order of summation.

The modules here import Triton: import them only where `available` says yes.
"""

import os
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.engine.hand_over import Found, HandOver
from mmcli.engine.kv_cache import KVCache
from mmcli.errors import raise_if_interrupted
from mmcli.layers.kernels.launch import interpreted, is_hopper

SWITCH = "MMCLI_KERNELS"  # environment variable: 0 = off
MOST_ROWS = 32  # of a batch: with more, what the kernels save is small beside the products
WIDEST_HEAD = 256  # whose keys and values fit into the shared memory of small cards
FEW_QUERIES = 1 << 13  # of all heads: PyTorch's attention leaves much of a device idle
DTYPES = (torch.bfloat16,)  # in float32 steps of four key heads took up to 1.4 times as long as without


def chosen(x: Tensor, cache: KVCache | None) -> bool:
    """Whether a decoder is to read vectors [B, T, D] through the kernels: only as a step that is being recorded.

    Outside of a graph the host starts kernels more slowly than the device runs them, so nothing would be saved.
    """
    return (
        cache is not None
        and cache.fixed
        and cache.shared is None
        and cache.store.shape[-1] <= WIDEST_HEAD
        and x.shape[1] == 1
        and x.shape[0] <= MOST_ROWS
        and x.dtype in DTYPES
        and available(x.device)
    )


def in_one_pass(x: Tensor) -> bool:
    """Whether several operations on numbers that are on a device already are one kernel: of a prompt's many rows, where
    nothing is learnt."""
    return x.dtype in DTYPES and x.is_contiguous() and not torch.is_grad_enabled() and available(x.device)


def reads_prompt(x: Tensor) -> bool:
    """Whether a decoder is to read the vectors [B, T, D] of a prompt through the kernels, but for its attention."""
    return x.shape[1] > 1 and x.dtype in DTYPES and not torch.is_grad_enabled() and available(x.device)


def attends(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, softcap: float | None) -> bool:
    """Whether queries of a prompt attend through a kernel, as `attention.attend` has them: where nothing is learnt.

    Its programs share queries among them and no keys: a few tokens behind many are too few for a device. Of many rows
    without a cap PyTorch's own kernel is the faster one.
    """
    few = q.shape[0] * q.shape[1] * q.shape[2] <= FEW_QUERIES
    return (
        (softcap is not None or few)
        and 1 < q.shape[2] <= k.shape[2] <= 2 * q.shape[2]
        and q.dtype in DTYPES
        and q.dtype == k.dtype == v.dtype
        and mask.dtype == torch.bool
        and q.shape[-1] <= WIDEST_HEAD
        and all(each.stride(-1) == 1 for each in (q, k, v, mask))
        and not torch.is_grad_enabled()
        and available(q.device)
        and (interpreted() or is_hopper(q.device.index))  # else tiles of keys may not fit into shared memory
    )


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., K] and weight [N, K] → x Wᵀ: of few rows as `matvec.product`, where nothing is learnt through it."""
    few = x.dim() == 2 and len(x) <= MOST_ROWS and x.dtype in DTYPES
    if not few or torch.is_grad_enabled() or not available(x.device):
        return F.linear(x, weight)
    from mmcli.layers.kernels import matvec

    return matvec.by_weight(x, weight)


def floats(y: Tensor, cap: float | None = None) -> Tensor:
    """Logits in float32, through cap · tanh(y / cap) where the model caps them."""
    if in_one_pass(y):
        from mmcli.layers.kernels import logits

        return logits.floats(y, cap)
    y = y.float()
    return y if cap is None else torch.tanh(y / cap) * cap


def float_logits(hidden: Tensor, weight: Tensor, cap: float | None = None) -> Tensor:
    """`floats` of `linear`: by one kernel, where that was measured to be faster."""
    if hidden.dim() == 2 and in_one_pass(hidden):
        from mmcli.layers.kernels import few_rows, whole_row

        if cap is None and whole_row.fits(hidden, weight):
            return whole_row.whole_row(hidden, weight, floats=True)
        if few_rows.pays(hidden, weight) and len(weight) >= few_rows.A_VOCABULARY:
            return few_rows.float_logits(hidden, weight, cap)
    return floats(linear(hidden, weight), cap)


def quantised_rows(x: Tensor, stored: Tensor) -> bool:
    """Whether rows [R, K] go through a weight in integers by a kernel, which reads the integers themselves.

    With more rows it pays to make numbers of the weight once, as a whole.
    """
    if len(x) > MOST_ROWS or x.dtype not in DTYPES or torch.is_grad_enabled() or not available(x.device):
        return False
    from mmcli.layers.kernels.quantised import fits

    return fits(stored)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What `attention.additive` gives, where a kernel does."""
    if dtype not in DTYPES or not mask.is_contiguous() or torch.is_grad_enabled() or not available(mask.device):
        return None
    from mmcli.layers.kernels import start

    return start.additive(mask, dtype)


def likeliest(logits: Tensor, hand_over: HandOver | None = None) -> Found | None:
    """`GenerativeModel.likeliest` by a kernel, where there is one."""
    if logits.dtype != torch.float32 or logits.stride(-1) != 1 or not available(logits.device):
        return None
    from mmcli.layers.kernels import choice

    return choice.likeliest(logits, hand_over)


def available(device: torch.device) -> bool:
    """Whether kernels are switched on and run on this device.

    It has to be the current one: Triton starts kernels there, in a queue that knows nothing of another device's.
    """
    if os.environ.get(SWITCH, "1") != "1":
        return False
    return interpreted() or (device.type == "cuda" and _is_current(device) and _compiles(device.index))


def _is_current(device: torch.device) -> bool:
    return device.index is None or device.index == torch.cuda.current_device()


@cache
def _compiles(index: int | None) -> bool:
    """Whether Triton is there and can compile for this device; it needs a C compiler for the host's side."""
    if torch.cuda.get_device_capability(index) < (8, 0):
        return False
    try:
        from mmcli.layers.kernels import residual_norm

        x = torch.ones(1, 16, device="cuda" if index is None else f"cuda:{index}")
        residual_norm.residual_norm(x, x, None, x[0], 1e-6)
    except Exception as error:  # an old Triton, no C compiler, a card that it does not know
        raise_if_interrupted(error)
        return False
    return True
