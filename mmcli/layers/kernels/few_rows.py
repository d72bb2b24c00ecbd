"""Products of 2 to 32 rows with a weight in bfloat16, near the speed of the memory.

A program takes some outputs of all rows through the matrix units; tiles of its weights are on their way while others
are multiplied. Of x every program reads all, from the second cache: with few outputs each, programs read more of x than
of their weights, which is why there are 64 or 128. Where that makes too few programs, several share the columns of
their outputs, and a second kernel adds up in one fixed order: so a row's numbers are the same in every run, whatever
the other rows are. And unlike the library's kernels these begin while the one before them ends (`launch.py`).

Measured on an H200 for PaliGemma, PaliGemma 2, Gemma 3n, Whisper and Fuyu, 8, 16 and 32 rows: 1.0 to 2.0 times as fast
as cuBLAS. Left out because it did not pay: sums by whichever of the programs that share columns ends last, weights
asked into the second cache before x is there, the TMA's tensor descriptors, and gate and up with their activation in
one kernel.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.launch import is_hopper, overlap
from mmcli.layers.kernels.split_k import added_up, finished, followed_by


class Cut(NamedTuple):
    """How a product is cut into programs."""

    outputs: int  # of a program
    inputs: int  # of a tile of weights
    ahead: int  # inputs of the first tile, which is read before x is there; 0: there is none
    warps: int
    tiles: int  # in shared memory: one that is multiplied, and those on their way
    programs: int  # about so many: where outputs make fewer, several share their columns


SHARED = Cut(64, 128, 128, 4, 5, 132)
WIDE = Cut(64, 64, 128, 4, 4, 132)  # three of whose programs run on a multiprocessor at a time
WIDER = Cut(128, 64, 128, 4, 3, 132)  # two
HEAD = Cut(64, 128, 0, 4, 4, 132)
MANY_ROWS_HEAD = Cut(128, 64, 0, 4, 5, 132)
MANY_OUTPUTS, MORE_OUTPUTS, A_VOCABULARY = 1 << 14, 1 << 15, 1 << 16
MOST_SHARES = 16
MOST_ROWS = 32
FULL_WIDTH = 16  # numbers: rows whose length is a multiple of this are read in full words


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` takes x and a weight, and was measured to be the faster one: on Hopper."""
    if not 1 < len(x) <= MOST_ROWS or not x.is_cuda or not x.dtype == weight.dtype == torch.bfloat16:
        return False
    whole = weight.shape[1] % FULL_WIDTH == 0 and x.is_contiguous() and weight.is_contiguous()
    return whole and is_hopper(x.device.index)


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    times: Tensor | None = None,
    cut: Cut | None = None,
) -> Tensor:
    """What `matvec.plain` computes, of several rows: x [R, K] and weight [N, K] → [R, N], sums in float32."""
    rows, (outputs, inputs) = len(x), weight.shape
    cut = cut or cut_of(rows, outputs)
    blocks, tiles = triton.cdiv(outputs, cut.outputs), triton.cdiv(inputs, cut.inputs)
    shares = max(1, min(tiles, cut.programs // blocks, MOST_SHARES))
    kind = x.dtype if shares == 1 else torch.float32
    sums = torch.empty(shares, rows, outputs, dtype=kind, device=x.device)
    _few_rows[(blocks, shares)](
        x, weight, bias, times, sums, rows, outputs, inputs, tiles, 0 if times is None else times.stride(0),
        ROWS=max(16, triton.next_power_of_2(rows)), OUT=cut.outputs, IN=cut.inputs, AHEAD=cut.ahead,
        SHARED=shares > 1, num_warps=cut.warps, num_stages=cut.tiles, **followed_by(bias, activation, times),
        **overlap(x.device),
    )  # fmt: skip
    return sums[0] if shares == 1 else added_up(sums, x.dtype, bias, activation, times)


def cut_of(rows: int, outputs: int) -> Cut:
    """By the shapes that were measured."""
    if outputs >= A_VOCABULARY:
        return HEAD if rows <= MOST_ROWS // 2 else MANY_ROWS_HEAD
    return WIDER if outputs >= MORE_OUTPUTS else WIDE if outputs >= MANY_OUTPUTS else SHARED


@triton.jit(do_not_specialize=["rows", "tiles"])
def _few_rows(
    x_ptr, weight_ptr, bias_ptr, times_ptr, y_ptr, rows, outputs, inputs, tiles, times_stride,
    ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, AHEAD: tl.constexpr, SHARED: tl.constexpr,
    BIASED: tl.constexpr, TIMES: tl.constexpr, ACTIVATION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    output, row = tl.program_id(0) * OUT + tl.arange(0, OUT), tl.arange(0, ROWS)
    share, shares = tl.program_id(1), tl.num_programs(1)
    first = tiles * share // shares * IN
    end = tl.minimum(tiles * (share + 1) // shares * IN, inputs)
    weights = weight_ptr + tl.minimum(output, outputs - 1).to(tl.int64)[:, None] * inputs
    xs = x_ptr + row[None, :] * inputs
    asked = (row < rows)[None, :]
    sums = tl.zeros((OUT, ROWS), tl.float32)
    if AHEAD > 0:
        early = first + tl.arange(0, AHEAD)
        early_weight = tl.load(weights + early[None, :], mask=(early < end)[None, :], other=0.0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    if AHEAD > 0:
        # In the place of rows that are not there it reads row 0, and forgets it only when it is used: so it stays in
        # registers until then, and the tiles below need not wait for it.
        early_xs = x_ptr + tl.where(asked, row[None, :], 0) * inputs + early[:, None]
        early_x = tl.load(early_xs, mask=(early < end)[:, None], other=0.0)
    column = tl.arange(0, IN)
    for k in range(first + AHEAD, end, IN):
        inside = k + column < inputs
        weight = tl.load(weights + (k + column)[None, :], mask=inside[None, :], other=0.0)
        x = tl.load(xs + (k + column)[:, None], mask=asked & inside[:, None], other=0.0)
        sums = tl.dot(weight, x, sums, input_precision="ieee")
    if AHEAD > 0:
        sums = tl.dot(early_weight, tl.where(asked, early_x, 0.0), sums, input_precision="ieee")
    there = (output < outputs)[:, None] & asked
    place = row[None, :] * outputs + output[:, None]
    if SHARED:
        place += share * rows * outputs
    else:
        sums = finished(
            sums, output[:, None], row[None, :], there, bias_ptr, times_ptr, outputs, times_stride,
            BIASED, TIMES, ACTIVATION,
        )  # fmt: skip
    tl.store(y_ptr + place, sums.to(y_ptr.dtype.element_ty), mask=there)
