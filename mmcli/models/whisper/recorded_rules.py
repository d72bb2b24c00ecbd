"""The rules of `rules.py` and the greedy choice under them, on the device: a part of a recorded step.

What decides about a row's next token are the last two, the latest time, and where its audio ends: its state.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcli.engine.hand_over import Found, HandOver
from mmcli.layers import kernels
from mmcli.models.whisper.rules import Settings, WritingRules

LAST, BEFORE, LATEST, BEHIND = range(4)  # columns of a state; -1: there is none
ALWAYS, FIRST = 1, 2  # bits of what is barred


class RecordedWritingRules:
    """`WritingRules` as the engine records them (`engine.logits.RecordedRules`).

    `tensors` are the states [R, 4] before anything is written, and what is barred of each token [V].
    """

    def __init__(self, rules: WritingRules, rows: int, vocabulary: int, device: torch.device):
        special = rules.special
        self.settings = rules.settings()
        behind = rules.behind or [vocabulary] * rows
        states = torch.tensor([[-1, -1, -1, place] for place in behind], dtype=torch.int32)
        self.tensors = states.to(device), _barred(vocabulary, special.suppressed, special.suppressed_first).to(device)

    def choose(self, logits: Tensor, tensors: tuple[Tensor, ...], hand_over: HandOver | None = None) -> Found:
        """Float32 logits [R, V] → ids [R], and those beside their log-probabilities, both of what the rules leave.

        The states go on to the next token.
        """
        states, barred = tensors
        if kernels.available(logits.device):
            from mmcli.models.whisper.kernels import choice  # imports Triton

            return choice.choose(logits, states, barred, self.settings, hand_over)
        return plain(logits, states, barred, self.settings)


def _barred(vocabulary: int, always: Sequence[int], first: Sequence[int]) -> Tensor:
    barred = torch.zeros(vocabulary, dtype=torch.uint8)
    barred[list(first)] = FIRST
    barred[list(always)] = ALWAYS
    return barred


def bounds(states: Tensor, vocabulary: int, settings: Settings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States [R, 4] → the first token of text that may follow, the first time and the one behind the last [R, 1], and
    whether the answer may not end."""
    last, before, latest, behind = states[:, :, None].unbind(1)
    times, end, latest_first, rest = settings
    if latest_first < 0:
        nothing = torch.zeros_like(last)
        return nothing, nothing, nothing + vocabulary, nothing.bool()
    is_first, is_time = last < 0, last >= times
    is_start = is_time & ((before < 0) | (before >= times))
    is_end = is_time & ~is_start
    text = torch.where(is_first, times, torch.where(is_end, end, 0))
    low = torch.where(latest < 0, times, torch.where(is_end, latest, latest + 1))
    high = torch.where(is_first, behind.clamp(max=latest_first + 1), torch.where(is_start, times, behind))
    unfinished = (before >= times) & is_time & (last < behind - rest) if rest >= 0 else torch.zeros_like(is_time)
    return text, low, high, unfinished


def plain(logits: Tensor, states: Tensor, barred: Tensor, settings: Settings) -> Found:
    """`RecordedWritingRules.choose` in plain PyTorch."""
    vocabulary, times = logits.shape[1], settings.times
    text, low, high, unfinished = bounds(states, vocabulary, settings)
    token = torch.arange(vocabulary, device=logits.device)
    never = torch.where(states[:, LAST, None] < 0, barred > 0, barred == ALWAYS)
    never = never | torch.where(token < times, token < text, (token < low) | (token >= high))
    logits = logits.float().masked_fill(never | (unfinished & (token == settings.end)), -torch.inf)
    if settings.latest_first >= 0:
        forced = logits[:, times:].logsumexp(dim=1) > logits[:, :times].amax(dim=1)
        logits = logits.masked_fill(forced[:, None] & (token < times), -torch.inf)
    ids = logits.argmax(dim=1)
    logprobs = logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=1)
    latest = torch.where(ids >= times, ids, states[:, LATEST])
    states[:, :BEHIND] = torch.stack((ids, states[:, LAST], latest), dim=1)
    return Found(ids, torch.stack((ids.float(), logprobs)))
