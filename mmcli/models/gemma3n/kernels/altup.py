"""AltUp's prediction and correction of the streams, with the norms around them, as one kernel each.

`AltUp` says what the numbers mean; streams here are those of one token a row, [R, A, D].
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import rms_normed, tanh
from mmcli.layers.kernels.launch import overlap

WARPS = 8


def predict(altup: Any, streams: Tensor, more: Tensor | None, more_norm: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """What `plain_predict` computes → predicted [R, A, D], normed [R, D]."""
    rows, count, width = streams.shape
    predicted, normed = torch.empty_like(streams), torch.empty_like(streams[:, 0])
    _predict[(rows,)](
        streams, more, None if more is None else more_norm.weight, altup.norm.weight, altup.router.weight,
        altup.prediction.weight, norm.weight, predicted, normed, width, norm.eps,
        COUNT=count, BLOCK=triton.next_power_of_2(width), MORE=more is not None, num_warps=WARPS,
        **overlap(streams.device),
    )  # fmt: skip
    return predicted, normed


def plain_predict(altup: Any, streams: Tensor, more: Tensor | None, more_norm: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """The prediction from streams to which the norm of `more` [R, D] was added (not to the active one), and the norm of
    the active stream that is predicted."""
    if more is not None:
        streams = with_more(streams, more, more_norm)
    predicted = altup.predict(streams[:, None])[:, 0]
    return predicted, norm(predicted[:, 0])


def correct(altup: Any, predicted: Tensor, x: Tensor, y: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """What `plain_correct` computes → streams [R, A, D], the scaled active one [R, D]."""
    rows, count, width = predicted.shape
    streams, scaled = torch.empty_like(predicted), torch.empty_like(x)
    _correct[(rows,)](
        predicted, x, y, norm.weight, altup.norm.weight, altup.router.weight, altup.correction.weight, altup.scale,
        streams, scaled, width, norm.eps,
        COUNT=count, BLOCK=triton.next_power_of_2(width), SCALED=altup.corrects_scale, num_warps=WARPS,
        **overlap(x.device),
    )  # fmt: skip
    return streams, scaled


def plain_correct(altup: Any, predicted: Tensor, x: Tensor, y: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The correction by what a layer computed, x [R, D] and the norm of y [R, D]."""
    streams = altup.correct(predicted[:, None], (x + norm(y))[:, None])
    return streams[:, 0], altup.scaled(streams)[:, 0]


def with_more(streams: Tensor, more: Tensor, norm: Any) -> Tensor:
    """The streams [R, A, D] with the norm of `more` [R, D] added to all but the active one."""
    return torch.cat((streams[:, :1], streams[:, 1:] + norm(more)[:, None]), 1)


@triton.jit
def _router(router_ptr, norm_ptr, width, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The router's weights, and the scale of the norm in front of it."""
    number, column = tl.arange(0, COUNT), tl.arange(0, BLOCK)
    there = column < width
    router = tl.load(router_ptr + number[:, None] * width + column[None, :], mask=there[None, :], other=0.0)
    return router, tl.load(norm_ptr + column, mask=there, other=0.0)


@triton.jit
def _routed(x, norm, router, width, epsilon):
    """tanh of the router's product with the normed x [BLOCK] → [COUNT]; both sums are taken at the same time."""
    shrink = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + epsilon)
    return tanh(tl.sum(router.to(tl.float32) * (x * norm.to(tl.float32))[None, :], axis=1) * shrink)


@triton.jit
def _predict(
    streams_ptr, more_ptr, more_norm_ptr, norm_ptr, router_ptr, prediction_ptr, next_norm_ptr, predicted_ptr,
    normed_ptr, width, epsilon,
    COUNT: tl.constexpr, BLOCK: tl.constexpr, MORE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    number, column = tl.arange(0, COUNT), tl.arange(0, BLOCK)
    there = column < width
    router, norm = _router(router_ptr, norm_ptr, width, COUNT, BLOCK)
    next_norm = tl.load(next_norm_ptr + column, mask=there, other=0.0).to(tl.float32)
    if MORE:
        more_norm = tl.load(more_norm_ptr + column, mask=there, other=0.0).to(tl.float32)
    square = (number * COUNT)[:, None] + number[None, :]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    dtype = streams_ptr.dtype.element_ty
    place = (row * COUNT + number)[:, None] * width + column[None, :]
    active = tl.load(streams_ptr + row * COUNT * width + column, mask=there, other=0.0).to(tl.float32)
    streams = tl.load(streams_ptr + place, mask=there[None, :], other=0.0)
    if MORE:
        more = rms_normed(
            tl.load(more_ptr + row * width + column, mask=there, other=0.0).to(tl.float32), width, epsilon
        )
        more = (more * more_norm)[None, :]
        streams = tl.where((number > 0)[:, None], (streams.to(tl.float32) + more).to(dtype), streams)
    streams = streams.to(tl.float32)
    route = _routed(active, norm, router, width, epsilon)
    for stream in tl.static_range(COUNT):
        mixture = tl.load(prediction_ptr + stream * COUNT * COUNT + square).to(tl.float32)
        mixture = tl.sum(mixture * route[None, :], axis=1) + tl.where(number == stream, 1.0, 0.0)
        mixed = tl.sum(streams * mixture[:, None], axis=0).to(dtype)
        tl.store(predicted_ptr + (row * COUNT + stream) * width + column, mixed, mask=there)
        if stream == 0:
            normed = rms_normed(mixed.to(tl.float32), width, epsilon) * next_norm
            tl.store(normed_ptr + row * width + column, normed.to(dtype), mask=there)


@triton.jit
def _correct(
    predicted_ptr, x_ptr, y_ptr, y_norm_ptr, norm_ptr, router_ptr, correction_ptr, scale_ptr, streams_ptr, scaled_ptr,
    width, epsilon,
    COUNT: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    number, column = tl.arange(0, COUNT), tl.arange(0, BLOCK)
    there = column < width
    router, norm = _router(router_ptr, norm_ptr, width, COUNT, BLOCK)
    y_norm = tl.load(y_norm_ptr + column, mask=there, other=0.0).to(tl.float32)
    correction = tl.load(correction_ptr + number[:, None] * COUNT + number[None, :]).to(tl.float32)
    if SCALED:
        scale = tl.load(scale_ptr + column, mask=there, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    dtype = x_ptr.dtype.element_ty
    y = tl.load(y_ptr + row * width + column, mask=there, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + row * width + column, mask=there, other=0.0).to(tl.float32)
    place = (row * COUNT + number)[:, None] * width + column[None, :]
    predicted = tl.load(predicted_ptr + place, mask=there[None, :], other=0.0).to(tl.float32)
    active = tl.load(predicted_ptr + row * COUNT * width + column, mask=there, other=0.0).to(tl.float32)
    x = (x + rms_normed(y, width, epsilon) * y_norm).to(dtype).to(tl.float32)
    route = _routed(x, norm, router, width, epsilon)
    move = tl.sum(correction * route[None, :], axis=1) + 1.0
    news = x - active
    tl.store(streams_ptr + place, (predicted + news[None, :] * move[:, None]).to(dtype), mask=there[None, :])
    active = (active + news * tl.sum(tl.where(number == 0, move, 0.0), axis=0)).to(dtype).to(tl.float32)
    if SCALED:
        active = active * scale
    tl.store(scaled_ptr + row * width + column, active.to(dtype), mask=there)
