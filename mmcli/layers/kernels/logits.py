"""Logits as float32 numbers, capped where the model caps them, in one pass over a whole vocabulary."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import tanh
from mmcli.layers.kernels.launch import overlap

BLOCK = 4096  # logits of a program


def floats(y: Tensor, cap: float | None) -> Tensor:
    """What `plain` computes, of numbers that follow each other in memory."""
    logits = torch.empty(y.shape, dtype=torch.float32, device=y.device)
    count = y.numel()
    _floats[(triton.cdiv(count, BLOCK),)](
        y, logits, count, cap or 1.0, CAP=cap is not None, BLOCK=BLOCK, num_warps=8, **overlap(y.device)
    )
    return logits


def plain(y: Tensor, cap: float | None) -> Tensor:
    """y [..., V] in float32, or cap · tanh(y / cap) (Gemma 2, arXiv:2408.00118, section 2)."""
    y = y.float()
    return y if cap is None else torch.tanh(y / cap) * cap


@triton.jit
def _floats(y_ptr, logits_ptr, count, cap, CAP: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < count
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    y = tl.load(y_ptr + place, mask=there, other=0.0).to(tl.float32)
    if CAP:
        y = tanh(y / cap) * cap
    tl.store(logits_ptr + place, y, mask=there)
