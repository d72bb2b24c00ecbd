"""One row by a weight in 8- or 4-bit integers through the integer matrix units of a GPU.

Elsewhere each integer becomes a number and meets one of x, which takes longer than its bytes take to be read. Here x
becomes two 8-bit integers a number, and the weight's stay as they are (`lanes.py`).

A program takes a share of x's columns, each of its warps a part of that for good: it makes them integers once, with a
step of its own, and multiplies them by tiles of the weight, one after the other, while the next one is on its way.

A step is the largest number of a warp's part divided by 32,512. So each of n numbers is moved by at most a 65,024th of
the largest, and all by at most √n / 65,024 · ‖x‖ in the Euclidean norm: with the 512 of a warp by 0.0004 · ‖x‖, where
having been rounded to bfloat16 has moved them by up to 0.002 · ‖x‖. All else is exact but for sums in float32.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.hub.quantized import GROUP
from mmcli.layers.kernels import unnormed
from mmcli.layers.kernels.functions import gelu
from mmcli.layers.kernels.lanes import (
    eight_numbers,
    four_words,
    largest,
    largest_of_warp,
    shuffled,
    two_parts,
    with_int4,
    with_int8,
)
from mmcli.layers.kernels.launch import overlap
from mmcli.layers.kernels.unnormed import Scaled


class Tile(NamedTuple):
    """What a program reads at a time: 16 · `blocks` rows of a weight, of each a share of the columns."""

    blocks: int
    warps: int
    steps: int  # readings of 128 columns that a warp does at a time
    shares: int  # programs among which a row's columns are divided
    programs: int  # of each share, for a multiprocessor


MANY_OUTPUTS = 1 << 16
LONGEST = 32  # readings of 128 columns that one program does: more are divided among several


def fits(x: Tensor, stored: Tensor) -> bool:
    """Whether `parts` takes them: one row in bfloat16 on a GPU, where lanes can read 16 bytes at once."""
    aligned = x.data_ptr() % 16 == 0 and stored.data_ptr() % 16 == 0 and x.shape[1] % GROUP == 0
    return x.is_cuda and len(x) == 1 and x.dtype == torch.bfloat16 and aligned


def parts(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """x [1, K] by a weight [N, K] in integers → what sums up to their product, [S, 1, N], in float32 if S > 1."""
    outputs = len(stored)
    tile = _tile(outputs, x.shape[1], stored.dtype == torch.uint8)
    y = torch.empty(tile.shares, 1, outputs, dtype=x.dtype if tile.shares == 1 else torch.float32, device=x.device)
    _start(x, stored, scale, y, outputs, 8 * tile.blocks, tile)
    return y


def fits_whole(x: Tensor, stored: Tensor) -> bool:
    """Whether `gated` and `added` take them, too: these need a whole sum in one program."""
    return fits(x, stored) and triton.cdiv(x.shape[1], 128) <= LONGEST


def gated(x: Tensor | Scaled, stored: Tensor, scale: Tensor, activation: str) -> Tensor:
    """activation(gate) · up of x [1, K] by a weight [2 · N, K], the gates in front → [1, N]."""
    outputs, row = len(stored) // 2, x if isinstance(x, Tensor) else x.scaled
    tile = _tile(outputs * 2, row.shape[1], stored.dtype == torch.uint8)
    y = torch.empty(1, outputs, dtype=row.dtype, device=row.device)
    _start(x, stored, scale, y, outputs, outputs, tile, activation)
    return y


def added(
    x: Tensor, stored: Tensor, scale: Tensor, residual: Tensor, outer: Tensor, epsilon: float, alpha: float
) -> Scaled:
    """residual [1, N] + alpha · the product of x [1, K], and its norm by the scale `outer` [N] but for a factor.

    Measured on an H200: 18 layers of PaliGemma 3B, where this stands between attention and the MLP instead of a kernel,
    take 0.506 instead of 0.516 ms in int4 and 0.692 instead of 0.713 in int8.
    """
    tile = _tile(len(stored), x.shape[1], stored.dtype == torch.uint8)
    squares = torch.empty(triton.cdiv(len(stored), 16 * tile.blocks), device=x.device)
    row = Scaled(torch.empty_like(residual), torch.empty_like(residual), squares, epsilon)
    to = residual, outer, row.total, row.scaled, squares, alpha
    _start(x, stored, scale, None, len(stored), 8 * tile.blocks, tile, to=to)
    return row


def _tile(outputs: int, width: int, narrow: bool) -> Tile:
    """The fastest of those that were tried, one by one and in a chain."""
    readings = triton.cdiv(width, 128)
    shares = triton.cdiv(readings, LONGEST)
    warps = min(4 if narrow and readings <= 16 else 8, triton.next_power_of_2(readings))
    programs = 16 // warps if narrow else outputs if outputs >= MANY_OUTPUTS else 2
    return Tile(1, warps, triton.cdiv(readings, warps * shares), shares, programs)


def _start(
    x: Tensor | Scaled,
    stored: Tensor,
    scale: Tensor,
    y: Tensor | None,
    outputs: int,
    below: int,
    tile: Tile,
    activation: str = "",
    to: tuple[Any, ...] | None = None,
) -> None:
    """`to` is what the product is added to, and where that goes: arguments of the kernel, from `residual_ptr` on."""
    row, squares, epsilon = (x, None, 0.0) if isinstance(x, Tensor) else x[1:]
    count = 0 if squares is None else len(squares)
    block = triton.next_power_of_2(count) if count else 0
    tiles = triton.cdiv(outputs, (8 if activation else 16) * tile.blocks)
    programs = min(tile.programs * multiprocessors(row.device.index) // tile.shares, tiles)
    _product[(programs * tile.shares,)](
        row.view(torch.int64), stored.view(torch.int32), scale, y, outputs, below, tiles, squares, count, epsilon,
        *(to or (None, None, None, None, None, 1.0)),
        GROUPS=row.shape[1] // GROUP, WARPS=tile.warps, STEPS=tile.steps, BLOCKS=tile.blocks, SHARES=tile.shares,
        NARROW=stored.dtype == torch.uint8, ACTIVATION=activation, SQUARES=block, ADDED=to is not None,
        num_warps=tile.warps, **overlap(row.device),
    )  # fmt: skip


@cache
def multiprocessors(index: int) -> int:
    """How many the device has."""
    return torch.cuda.get_device_properties(index).multi_processor_count


@triton.jit
def _product(
    x_ptr, words_ptr, scale_ptr, y_ptr, outputs, below, tiles, squares_ptr, squares, epsilon,
    residual_ptr, outer_ptr, total_ptr, scaled_ptr, new_squares_ptr, alpha,
    GROUPS: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr, BLOCKS: tl.constexpr, SHARES: tl.constexpr,
    NARROW: tl.constexpr, ACTIVATION: tl.constexpr, SQUARES: tl.constexpr, ADDED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Of a block's 16 rows of the weight the lower ones stand `below` the upper ones: gates, and what they multiply,
    meet in one thread."""
    HALF: tl.constexpr = BLOCKS * 8
    GATED: tl.constexpr = ACTIVATION != ""
    thread = tl.arange(0, WARPS * 32)
    row, lane, warp = thread % 32 // 4, thread % 4, thread // 32
    share = tl.program_id(0) % SHARES
    begin = tl.program_id(0) // SHARES
    stride = tl.num_programs(0) // SHARES
    first = (share * WARPS + warp) * STEPS  # the warp's first reading of 128 columns
    words = _words(words_ptr, begin, tiles, row, lane, first, outputs, below, GROUPS, STEPS, BLOCKS, NARROW, GATED)
    scales = _scales(scale_ptr, begin, tiles, row, lane, first, outputs, below, GROUPS, STEPS, BLOCKS, NARROW, GATED)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    if SQUARES > 0:
        which = tl.arange(0, SQUARES)
        square = tl.load(squares_ptr + which, mask=which < squares, other=0.0)
    xs, step = _in_parts(x_ptr, row, lane, first, GROUPS, STEPS, NARROW)
    if SQUARES > 0:
        step = step * unnormed.factor(square, GROUPS * 32, epsilon)
    number = tl.arange(0, HALF)
    for tile in range(begin, tiles, stride):
        ahead = tile + stride
        following = _words(
            words_ptr, ahead, tiles, row, lane, first, outputs, below, GROUPS, STEPS, BLOCKS, NARROW, GATED
        )
        next_scales = _scales(
            scale_ptr, ahead, tiles, row, lane, first, outputs, below, GROUPS, STEPS, BLOCKS, NARROW, GATED
        )
        if ADDED:  # asked for before it is needed
            own = unnormed.two_halves(residual_ptr, tile * (2 * HALF) + number, outputs, HALF)
            outer = unnormed.two_halves(outer_ptr, tile * (2 * HALF) + number, outputs, HALF)
        sums = ()
        for b in tl.static_range(BLOCKS):
            sums = sums + _block(words, scales, xs, step, b, STEPS, BLOCKS, NARROW)  # type: ignore[assignment]
        upper, lower = _over_lanes(sums, WARPS, BLOCKS).split()
        if ADDED:
            unnormed.added(
                upper, lower, own, outer, tile * (2 * HALF) + number, alpha,
                total_ptr, scaled_ptr, new_squares_ptr + tile, outputs, HALF,
            )  # fmt: skip
        elif GATED:
            upper = gelu(upper) if ACTIVATION == "gelu" else upper / (1.0 + tl.exp(-upper))
            at = tile * HALF + number
            tl.store(y_ptr + at, (upper * lower).to(y_ptr.dtype.element_ty), mask=at < outputs)
        else:
            kind = y_ptr.dtype.element_ty
            at = tile * (2 * HALF) + number
            tl.store(y_ptr + share * outputs + at, upper.to(kind), mask=at < outputs)
            tl.store(y_ptr + share * outputs + at + HALF, lower.to(kind), mask=at + HALF < outputs)
        words = following
        scales = next_scales


@triton.jit
def _in_parts(x_ptr, row, lane, first, GROUPS: tl.constexpr, STEPS: tl.constexpr, NARROW: tl.constexpr):
    """A lane's words of x, eight a reading, and the step of its warp.

    What a lane reads are eight numbers: with 4-bit integers a fourth of its group, whose other words come from the
    lanes that read these; with 8-bit ones those of the places for which its column has none but zeros elsewhere.
    """
    quarter = row // 2
    raw = ()
    top = row * 0
    for s in tl.static_range(STEPS):
        if NARROW:
            eight = ((first + s) * 4 + lane) * 4 + quarter
        else:
            eight = (first + s) * 16 + quarter // 2 * 8 + lane * 2 + quarter % 2
        words = eight_numbers(x_ptr + eight.to(tl.int64) * 2, (eight < GROUPS * 4).to(tl.int32))
        top = tl.maximum(top, largest(words))
        raw = raw + (words,)  # type: ignore[assignment]
    top = largest_of_warp(top).to(tl.float32, bitcast=True)
    top = tl.maximum(top, 1e-30, propagate_nan=tl.PropagateNan.ALL)
    xs = ()
    for s in tl.static_range(STEPS):
        one, other = two_parts(raw[s], 32512.0 / top, 1 - row % 2, NARROW)
        words = ()
        for q in tl.static_range(4):
            if NARROW:  # the first two quarters of a group, then the others: even places of both, odd places of both
                own = (quarter == lane).to(tl.int32)
                source = (q // 2 * 4 + row % 2) * 4 + lane
                part = one if q % 2 == 0 else other
                words = words + (shuffled(part, source) * own, shuffled(part, source + 8) * own)  # type: ignore[assignment]
            else:
                own = (quarter == q).to(tl.int32)
                words = words + (one * own, other * own)  # type: ignore[assignment]
        xs = xs + (words,)  # type: ignore[assignment]
    return xs, top * ((1 / 32512 / 16) if NARROW else (1 / 32512))


@triton.jit
def _block(words, scales, xs, step, b: tl.constexpr, STEPS: tl.constexpr, BLOCKS: tl.constexpr, NARROW: tl.constexpr):
    """A lane's sums in the upper and in the lower row of a block."""
    upper = step * 0.0
    lower = step * 0.0
    if NARROW:
        for s in tl.static_range(STEPS):
            above, below = with_int4(words[2 * (s * BLOCKS + b)], words[2 * (s * BLOCKS + b) + 1], xs[s])
            upper += above * scales[2 * (s * BLOCKS + b)].to(tl.float32)
            lower += below * scales[2 * (s * BLOCKS + b) + 1].to(tl.float32)
    else:
        zero = step.to(tl.int32) * 0
        c = (zero, zero, zero, zero)
        for s in tl.static_range(STEPS):
            c = with_int8(c, words[2 * (s * BLOCKS + b)], words[2 * (s * BLOCKS + b) + 1], xs[s])
        upper = (c[0] * 256 + c[1]).to(tl.float32) * scales[2 * b]
        lower = (c[2] * 256 + c[3]).to(tl.float32) * scales[2 * b + 1]
    return upper * step, lower * step


@triton.jit
def _over_lanes(sums, WARPS: tl.constexpr, BLOCKS: tl.constexpr):
    """Sums over a row's four lanes and over warps: [8 · BLOCKS, 2], the upper and the lower rows."""
    if BLOCKS == 1:
        upper = sums[0]
        lower = sums[1]
    elif BLOCKS == 2:
        upper = tl.join(sums[0], sums[2])
        lower = tl.join(sums[1], sums[3])
    else:
        upper = tl.join(tl.join(sums[0], sums[4]), tl.join(sums[2], sums[6]))
        lower = tl.join(tl.join(sums[1], sums[5]), tl.join(sums[3], sums[7]))
    both = tl.join(upper, lower).reshape(WARPS, 8, 4, BLOCKS * 2)
    return tl.sum(tl.sum(both, axis=2), axis=0).reshape(BLOCKS * 8, 2)


@triton.jit
def _row(tile, row, outputs, below, i: tl.constexpr, BLOCKS: tl.constexpr, GATED: tl.constexpr):
    """The row of the weight that is a lane's in half block i of a tile, behind the end the last one again."""
    own = tile * (BLOCKS * (8 if GATED else 16)) + row * BLOCKS + i // 2 + i % 2 * below
    return tl.minimum(own, outputs * (2 if GATED else 1) - 1).to(tl.int64)


@triton.jit
def _words(
    words_ptr, tile, tiles, row, lane, first, outputs, below,
    GROUPS: tl.constexpr, STEPS: tl.constexpr, BLOCKS: tl.constexpr, NARROW: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """What a lane reads of a tile: 16 bytes of every row for each step, of 8-bit integers 32; zeros behind the end."""
    words = ()
    for s in tl.static_range(STEPS):
        for i in tl.static_range(2 * BLOCKS):
            at = words_ptr + _row(tile, row, outputs, below, i, BLOCKS, GATED) * (GROUPS * (4 if NARROW else 8))
            if NARROW:
                piece = (first + s) * 4 + lane
                there = (tile < tiles) & (piece < GROUPS)
                words = words + (four_words(at + piece * 4, there.to(tl.int32)),)  # type: ignore[assignment]
            else:
                piece = (first + s) * 8 + lane
                there = (tile < tiles) & (piece < GROUPS * 2)
                later = (tile < tiles) & (piece + 4 < GROUPS * 2)
                one = four_words(at + piece * 4, there.to(tl.int32))
                words = words + (one + four_words(at + piece * 4 + 16, later.to(tl.int32)),)  # type: ignore[assignment]
    return words


@triton.jit
def _scales(
    scale_ptr, tile, tiles, row, lane, first, outputs, below,
    GROUPS: tl.constexpr, STEPS: tl.constexpr, BLOCKS: tl.constexpr, NARROW: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """The scales of a lane's group in every row for each step; of 8-bit integers those of the rows."""
    scales = ()
    for s in tl.static_range(STEPS if NARROW else 1):
        for i in tl.static_range(2 * BLOCKS):
            own = _row(tile, row, outputs, below, i, BLOCKS, GATED)
            if NARROW:
                group = (first + s) * 4 + lane
                there = (tile < tiles) & (group < GROUPS)
                scale = tl.load(scale_ptr + own * GROUPS + group, mask=there, other=0.0)
            else:
                scale = tl.load(scale_ptr + own, mask=(tile < tiles) & (own >= 0), other=0.0)
            scales = scales + (scale,)  # type: ignore[assignment]
    return scales
