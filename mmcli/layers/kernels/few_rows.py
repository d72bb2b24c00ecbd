"""Products of 2 to 32 rows with a weight in bfloat16, near the speed of the memory.

A program takes some outputs of all rows through the matrix units; tiles of its weights are on their way while others
are multiplied. Of x every program reads all, from the second cache: with few outputs each, programs read more of x than
of their weights, which is why there are 64 or 128. Where that makes too few programs, several share the columns of
their outputs, and a second kernel, or the one behind, adds up in one fixed order: so a row's numbers are the same in
every run, whatever the other rows are. And unlike the library's kernels these begin while the one before them ends
(`launch.py`).

Measured on an H200 for PaliGemma, PaliGemma 2, Gemma 3n, Whisper and Fuyu, 8, 16 and 32 rows: 1.0 to 2.0 times as fast
as cuBLAS. A step of PaliGemma 3B with 32 rows, random weights, takes 1.663 ms, with gates applied by their product
1.629, with norms that add up parts, too, 1.612; of PaliGemma 2 3B 2.249, 2.208 and 2.180 ms. (Forms in turn in one
process, the least of 21 times ten.) With 16 rows gates pay as well, but norms that add up take 4 µs more than they
save.

Left out because it did not pay: sums by whichever of the programs that share columns ends last, weights asked into the
second cache before x is there, by this kernel or by attention, and the TMA's tensor descriptors.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import gated_by, tanh
from mmcli.layers.kernels.gated import gated as halves_gated
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
ROWS_OF_PARTS = 17  # from which on the kernel behind a product is to add up `parts`, if it can
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
    cut = cut or cut_of(len(x), len(weight))
    sums = _room(x, weight, cut)
    _start(x, weight, cut, sums, bias, activation, times)
    return sums[0] if len(sums) == 1 else added_up(sums, x.dtype, bias, activation, times)


def parts(x: Tensor, weight: Tensor, cut: Cut | None = None) -> Tensor:
    """Of a product that nothing follows what sums up to it, [S, R, N] in float32; of one share itself, [R, N]."""
    cut = cut or cut_of(len(x), len(weight))
    sums = _room(x, weight, cut)
    _start(x, weight, cut, sums)
    return sums[0] if len(sums) == 1 else sums


def gated(x: Tensor, weight: Tensor, activation: str, cut: Cut | None = None) -> Tensor:
    """`gated.gated` of the product of x [R, K] and a weight [2 · inner, K] that has the gates in front: [R, inner]."""
    cut = cut or cut_of(len(x), len(weight))
    if _shares(weight, cut) > 1:
        return halves_gated(product(x, weight, cut=cut), activation)
    y = torch.empty(1, len(x), len(weight) // 2, dtype=x.dtype, device=x.device)
    _start(x, weight, cut, y, gates=activation)
    return y[0]


def float_logits(x: Tensor, weight: Tensor, cap: float | None, cut: Cut | None = None) -> Tensor:
    """`logits.floats` of the product of x [R, K] and a head [V, K], whose outputs no programs share."""
    y = torch.empty(1, len(x), len(weight), device=x.device)
    _start(x, weight, cut or cut_of(len(x), len(weight)), y, logits=True, cap=cap)
    return y[0]


def _shares(weight: Tensor, cut: Cut) -> int:
    """How many programs share the columns of their outputs."""
    outputs, inputs = weight.shape
    blocks, tiles = triton.cdiv(outputs, cut.outputs), triton.cdiv(inputs, cut.inputs)
    return max(1, min(tiles, cut.programs // blocks, MOST_SHARES))


def _room(x: Tensor, weight: Tensor, cut: Cut) -> Tensor:
    """Memory for what each share gives, [S, R, N]."""
    shares = _shares(weight, cut)
    return torch.empty(shares, len(x), len(weight), dtype=x.dtype if shares == 1 else torch.float32, device=x.device)


def _start(
    x: Tensor,
    weight: Tensor,
    cut: Cut,
    y: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    times: Tensor | None = None,
    gates: str = "",
    logits: bool = False,
    cap: float | None = None,
) -> None:
    """Start the kernel, which writes to y [S, R, N]; with `gates` N is half as many as the weight's outputs."""
    shares, rows, outputs = y.shape
    inputs = weight.shape[1]
    blocks = triton.cdiv(outputs, cut.outputs // 2 if gates else cut.outputs)
    _few_rows[(blocks, shares)](
        x, weight, bias, times, y, rows, outputs, inputs, triton.cdiv(inputs, cut.inputs),
        0 if times is None else times.stride(0), cap or 1.0,
        ROWS=max(16, triton.next_power_of_2(rows)), OUT=cut.outputs, IN=cut.inputs, AHEAD=cut.ahead,
        SHARED=shares > 1, GATES=gates, LOGITS=logits, CAP=cap is not None,
        num_warps=cut.warps, num_stages=cut.tiles, **followed_by(bias, activation, times), **overlap(x.device),
    )  # fmt: skip


def cut_of(rows: int, outputs: int) -> Cut:
    """By the shapes that were measured."""
    if outputs >= A_VOCABULARY:
        return HEAD if rows <= MOST_ROWS // 2 else MANY_ROWS_HEAD
    return WIDER if outputs >= MORE_OUTPUTS else WIDE if outputs >= MANY_OUTPUTS else SHARED


@triton.jit(do_not_specialize=["rows", "tiles"])
def _few_rows(
    x_ptr, weight_ptr, bias_ptr, times_ptr, y_ptr, rows, outputs, inputs, tiles, times_stride, cap,
    ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, AHEAD: tl.constexpr, SHARED: tl.constexpr,
    GATES: tl.constexpr, LOGITS: tl.constexpr, CAP: tl.constexpr, BIASED: tl.constexpr, TIMES: tl.constexpr,
    ACTIVATION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row, number = tl.arange(0, ROWS), tl.arange(0, OUT)
    if GATES == "":
        place = tl.minimum(tl.program_id(0) * OUT + number, outputs - 1)
    else:
        # Eight gates, the eight numbers that they are for, and so on: both halves of a pair are one thread's.
        place = tl.minimum(tl.program_id(0) * (OUT // 2) + number // 16 * 8 + number % 8, outputs - 1)
        place += number // 8 % 2 * outputs
    share, shares = tl.program_id(1), tl.num_programs(1)
    first = tiles * share // shares * IN
    end = tl.minimum(tiles * (share + 1) // shares * IN, inputs)
    weights = weight_ptr + place.to(tl.int64)[:, None] * inputs
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
    kind = x_ptr.dtype.element_ty
    if GATES != "":
        pairs = tl.permute(tl.reshape(sums.to(kind), (OUT // 16, 2, 8, ROWS)), (0, 2, 3, 1))
        gate, up = tl.split(pairs)
        sums = gated_by(gate.to(tl.float32), up.to(tl.float32), GATES)
        sums = tl.reshape(sums, (OUT // 2, ROWS))
        output = tl.program_id(0) * (OUT // 2) + tl.arange(0, OUT // 2)
    else:
        output = tl.program_id(0) * OUT + number
    if LOGITS:
        sums = sums.to(kind).to(tl.float32)
        if CAP:
            sums = tanh(sums / cap) * cap
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
