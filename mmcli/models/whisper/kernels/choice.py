"""The likeliest token that the rules allow, and its log-probability among these, in one reading of the logits."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.engine.hand_over import SLOTS, Found, HandOver
from mmcli.layers.kernels.choice import to_next
from mmcli.layers.kernels.functions import hand_over_row
from mmcli.layers.kernels.launch import overlap
from mmcli.models.whisper.rules import Settings

BLOCK = 1024  # logits of a program


def choose(
    logits: Tensor, states: Tensor, barred: Tensor, settings: Settings, hand_over: HandOver | None = None
) -> Found:
    """What `recorded_rules.plain` computes."""
    rows, vocabulary = logits.shape
    blocks, device = triton.cdiv(vocabulary, BLOCK), logits.device
    found = torch.empty(rows, 2, 3, blocks, dtype=torch.float32, device=device)
    ids = torch.empty(rows, dtype=torch.long, device=device)
    both = torch.empty(2, rows, dtype=torch.float32, device=device)
    logits = logits.contiguous()
    _search[(rows, blocks)](
        logits, states, barred, found, vocabulary, *settings, BLOCK=BLOCK, num_warps=4, **overlap(device)
    )
    _choose[(rows,)](
        found, states, ids, both, *to_next(hand_over), blocks, vocabulary, settings.times, settings.latest_first,
        BLOCKS=triton.next_power_of_2(blocks), SLOTS=0 if hand_over is None else SLOTS, num_warps=1, **overlap(device),
    )  # fmt: skip
    return Found(ids, both)


@triton.jit
def _best(logits, number, allowed, found_ptr, blocks, vocabulary):
    """The greatest of the allowed logits, where it stands, and the sum of all their exponentials by it."""
    logits = tl.where(allowed, logits, float("-inf"))
    peak = tl.max(logits, axis=0)
    # An id in any case: the next step reads it before the host sees that there are no numbers.
    place = tl.min(tl.where(logits == peak, number, vocabulary - 1), axis=0)
    weight = tl.sum(tl.exp(logits - tl.where(peak == float("-inf"), 0.0, peak)), axis=0)
    tl.store(found_ptr, peak)
    tl.store(found_ptr + blocks, weight)
    tl.store(found_ptr + 2 * blocks, place.to(tl.float32))


@triton.jit
def _search(
    logits_ptr, states_ptr, barred_ptr, found_ptr, vocabulary, times, end, latest_first, rest,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row, blocks = tl.program_id(0), tl.num_programs(1)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = number < vocabulary
    barred = tl.load(barred_ptr + number, mask=there, other=1)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    last = tl.load(states_ptr + 4 * row)
    before = tl.load(states_ptr + 4 * row + 1)
    latest = tl.load(states_ptr + 4 * row + 2)
    behind = tl.load(states_ptr + 4 * row + 3)
    is_first = last < 0
    is_time = last >= times
    is_start = is_time & ((before < 0) | (before >= times))
    is_end = is_time & ((before >= 0) & (before < times))
    ruled = latest_first >= 0
    text = tl.where(ruled, tl.where(is_first, times, tl.where(is_end, end, 0)), 0)
    low = tl.where(latest < 0, times, tl.where(is_end, latest, latest + 1))
    low = tl.where(ruled, low, 0)
    high = tl.where(is_first, tl.minimum(behind, latest_first + 1), tl.where(is_start, times, behind))
    high = tl.where(ruled, high, vocabulary)
    unfinished = ruled & (rest >= 0) & (before >= times) & is_time & (last < behind - rest)
    allowed = there & ((barred == 0) | ((barred == 2) & (last >= 0)))
    is_text = number < times
    of_text = allowed & is_text & (number >= text) & ((number != end) | (unfinished == 0))
    of_times = allowed & (number >= times) & (number >= low) & (number < high)
    at = logits_ptr + row.to(tl.int64) * vocabulary + number
    logits = tl.load(at, mask=there, other=0.0).to(tl.float32)
    found_ptr += row * 6 * blocks + tl.program_id(1)
    _best(logits, number, of_text, found_ptr, blocks, vocabulary)
    _best(logits, number, of_times, found_ptr + 3 * blocks, blocks, vocabulary)


@triton.jit
def _joined(found_ptr, block, there, blocks, vocabulary):
    """Of all blocks: the greatest logit, the logarithm of all exponentials' sum, and where the greatest stands."""
    peaks = tl.load(found_ptr + block, mask=there, other=float("-inf"))
    weights = tl.load(found_ptr + blocks + block, mask=there, other=0.0)
    places = tl.load(found_ptr + 2 * blocks + block, mask=there, other=0.0)
    peak = tl.max(peaks, axis=0)
    by = tl.where(peak == float("-inf"), 0.0, peak)
    weight = tl.sum(weights * tl.exp(peaks - by), axis=0)
    place = tl.min(tl.where(there & (peaks == peak), places, vocabulary - 1.0), axis=0)
    return peak, by + tl.log(weight), place


@triton.jit
def _choose(
    found_ptr, states_ptr, ids_ptr, both_ptr, tokens_ptr, cursor_ptr, turns_ptr, slots_ptr,
    blocks, vocabulary, times, latest_first, BLOCKS: tl.constexpr, SLOTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row, rows = tl.program_id(0), tl.num_programs(0)
    block = tl.arange(0, BLOCKS)
    there = block < blocks
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    found_ptr += row * 6 * blocks
    text_peak, text_weight, text_place = _joined(found_ptr, block, there, blocks, vocabulary)
    time_peak, time_weight, time_place = _joined(found_ptr + 3 * blocks, block, there, blocks, vocabulary)
    forced = (latest_first >= 0) & (time_weight > text_peak)
    is_time = forced | (time_peak > text_peak)
    peak = tl.where(is_time, time_peak, text_peak)
    place = tl.where(is_time, time_place, text_place)
    greater = tl.maximum(text_weight, time_weight)
    by = tl.where(greater == float("-inf"), 0.0, greater)
    weight = by + tl.log(tl.exp(text_weight - by) + tl.exp(time_weight - by))
    weight = tl.where(forced, time_weight, weight)
    id = place.to(tl.int32)
    tl.store(ids_ptr + row, id.to(tl.int64))
    tl.store(both_ptr + row, place)
    tl.store(both_ptr + rows + row, peak - weight)
    if SLOTS > 0:
        hand_over_row(row, rows, place, peak - weight, tokens_ptr, cursor_ptr, turns_ptr, slots_ptr, SLOTS)
    states_ptr += 4 * row
    last = tl.load(states_ptr)
    tl.store(states_ptr + 1, last)
    tl.store(states_ptr, id)
    tl.store(states_ptr + 2, tl.where(id >= times, id, tl.load(states_ptr + 2)))
