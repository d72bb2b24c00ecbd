"""The likeliest token of each row and its log-probability, in one reading of the logits."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.engine.hand_over import SLOTS, Found, HandOver
from mmcli.layers.kernels.functions import hand_over_row
from mmcli.layers.kernels.launch import overlap

BLOCK = 4096  # logits of a program


def likeliest(logits: Tensor, hand_over: HandOver | None = None) -> Found:
    """What `plain` computes: logits [R, V] → ids [R]; and those beside their log-probabilities, float32 [2, R]."""
    rows, vocabulary = logits.shape
    blocks = triton.cdiv(vocabulary, BLOCK)
    found, device = torch.empty(3, rows, blocks, dtype=torch.float32, device=logits.device), logits.device
    ids = torch.empty(rows, dtype=torch.long, device=device)
    both = torch.empty(2, rows, dtype=torch.float32, device=device)
    _likeliest[(rows, blocks)](logits, found, vocabulary, logits.stride(0), BLOCK=BLOCK, num_warps=8, **overlap(device))
    wide = triton.next_power_of_2(blocks)
    _likeliest_of_all[(rows,)](
        found, ids, both, *to_next(hand_over), blocks, vocabulary, BLOCKS=wide, SLOTS=0 if hand_over is None else SLOTS,
        num_warps=1, **overlap(device),
    )  # fmt: skip
    return Found(ids, both)


def to_next(hand_over: HandOver | None) -> tuple[Tensor | None, ...]:
    """The arguments of `functions.hand_over_row`, whose kernel does it."""
    if hand_over is None:
        return None, None, None, None
    hand_over.done = True
    return hand_over.tokens, hand_over.cursor, hand_over.turns, hand_over.slots


def plain(logits: Tensor) -> Found:
    """Of equally likely ones the first; float32 holds ids up to 2²⁴ exactly."""
    ids = logits.argmax(dim=-1)
    logprobs = logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(dim=-1)
    return Found(ids, torch.stack((ids.float(), logprobs)))


@triton.jit
def _likeliest(logits_ptr, found_ptr, vocabulary, stride, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    at = logits_ptr + row.to(tl.int64) * stride + number
    logits = tl.load(at, mask=number < vocabulary, other=float("-inf")).to(tl.float32)
    peak = tl.max(logits, axis=0)
    # An id in any case: the next step reads it before the host sees that there are no numbers.
    place = tl.min(tl.where(logits == peak, number, vocabulary - 1), axis=0)
    weight = tl.sum(tl.exp(logits - tl.where(peak == float("-inf"), 0.0, peak)), axis=0)
    found_ptr += row * tl.num_programs(1) + tl.program_id(1)
    each = tl.num_programs(0) * tl.num_programs(1)
    tl.store(found_ptr, peak)
    tl.store(found_ptr + each, weight)
    tl.store(found_ptr + 2 * each, place.to(tl.float32))


@triton.jit
def _likeliest_of_all(
    found_ptr, ids_ptr, both_ptr, tokens_ptr, cursor_ptr, turns_ptr, slots_ptr, blocks, vocabulary,
    BLOCKS: tl.constexpr, SLOTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    rows = tl.num_programs(0)
    block = tl.arange(0, BLOCKS)
    there = block < blocks
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    found_ptr += row * blocks + block
    each = rows * blocks
    peaks = tl.load(found_ptr, mask=there, other=float("-inf"))
    weights = tl.load(found_ptr + each, mask=there, other=0.0)
    places = tl.load(found_ptr + 2 * each, mask=there, other=0.0)
    peak = tl.max(peaks, axis=0)
    weight = tl.sum(weights * tl.exp(peaks - tl.where(peak == float("-inf"), 0.0, peak)), axis=0)
    place = tl.min(tl.where(there & (peaks == peak), places, vocabulary - 1.0), axis=0)
    tl.store(ids_ptr + row, place.to(tl.int64))
    tl.store(both_ptr + row, place)
    logprob = -tl.log(weight)
    tl.store(both_ptr + rows + row, logprob)
    if SLOTS > 0:
        hand_over_row(row, rows, place, logprob, tokens_ptr, cursor_ptr, turns_ptr, slots_ptr, SLOTS)
