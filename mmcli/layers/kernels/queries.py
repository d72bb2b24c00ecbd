"""What the kernels of attention do to vectors of queries and keys, and to scores."""

import triton
import triton.language as tl

from mmcli.layers.kernels.functions import tanh


@triton.jit
def turned(
    at, number, partner, there, cos, sin, scale_ptr, shift_ptr, epsilon,
    WIDTH: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Vectors [M, WIDE] at addresses `at` [M], normed and turned to their position, in float32."""
    own = tl.load(at[:, None] + number[None, :], mask=there, other=0.0).to(tl.float32)
    if NORMED:
        inside = number < WIDTH
        if CENTRED:
            mean = (tl.sum(own, axis=1) / WIDTH)[:, None]
            own = tl.where(inside[None, :], own - mean, 0.0)
        shrink = (1.0 / tl.sqrt(tl.sum(own * own, axis=1) / WIDTH + epsilon))[:, None]
        own = own * shrink * tl.load(scale_ptr + number, mask=inside, other=0.0).to(tl.float32)[None, :]
        if CENTRED:
            own += tl.load(shift_ptr + number, mask=inside, other=0.0).to(tl.float32)[None, :]
    if TURNED:
        other = tl.load(at[:, None] + partner[None, :], mask=there, other=0.0).to(tl.float32)
        if CENTRED:
            other -= mean
        if NORMED:
            other = other * shrink * tl.load(scale_ptr + partner, mask=inside, other=0.0).to(tl.float32)[None, :]
        if CENTRED:
            other += tl.load(shift_ptr + partner, mask=inside, other=0.0).to(tl.float32)[None, :]
        own = own * cos[None, :] + other * sin[None, :]
    return own


@triton.jit
def capped(score, softcap, CAP: tl.constexpr):
    """softcap · tanh(score / softcap), where `CAP`."""
    if CAP:
        score = softcap * tanh(score / softcap)
    return score
