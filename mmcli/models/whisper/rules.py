"""What Whisper may write next (openai/whisper `decoding.py`: SuppressBlank, SuppressTokens, ApplyTimestampRules)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmcli.models.whisper.vocabulary import TIME_STEP, Special

# Seconds of a recording that may be left where an answer ends with a start: a pause, and what times are off by.
REST = 1.0


class Settings(NamedTuple):
    """What of the rules is the same for all recordings and tokens."""

    times: int  # the token of 0.00 s
    end: int
    latest_first: int  # the latest time that may be the first token; -1: times follow no order
    rest: int  # steps of time in front of a recording's end where an answer may end with a start; -1: anywhere


class WritingRules:
    """The engine's `rules` for Whisper: forbidden tokens, and the order of times.

    With `times`, the answer begins with a time; times come in pairs (end of one segment, start of the next), never go
    back, and a time is forced where all times together are more likely than any single other token. `seconds` of each
    audio forbid the times behind its end: in the silence that fills up its window nothing was said. Where recordings
    are `spoken_to_end`, an answer may not end with the start of a segment and most of that still to come: Whisper
    leaves a sentence that it takes to be cut off to the next window, which begins there in openai/whisper's order of
    things.
    """

    def __init__(
        self,
        special: Special,
        times: bool,
        device: torch.device | str = "cpu",
        seconds: Sequence[float] | None = None,
        spoken_to_end: bool = False,
    ):
        self.special = special
        self.spoken_to_end = spoken_to_end
        self.times = times
        self.behind: list[int] | None = None
        if seconds is not None:  # the first time token behind each recording
            self.behind = [special.times + math.ceil(round(length / TIME_STEP, 6)) + 1 for length in seconds]
        self._never = torch.tensor(special.suppressed, dtype=torch.long, device=device)
        self._not_first = torch.tensor(special.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, logits: Tensor, written: list[list[int]], owners: list[int] | None = None) -> Tensor:
        """Logits [R, V], changed in place, what each of R has written so far, and which recording each belongs to."""
        logits.index_fill_(1, self._never, -torch.inf)
        if not any(written):
            logits.index_fill_(1, self._not_first, -torch.inf)
        if self.times:
            self._forbid(logits, written, owners or list(range(len(written))))
            self._prefer_times(logits)
        return logits

    def _forbid(self, logits: Tensor, written: list[list[int]], owners: list[int]) -> None:
        """Take out what the order of times and the end of the audio forbid."""
        vocabulary = logits.shape[1]
        ranges = [self.forbidden(ids, vocabulary) for ids in written]
        if self.behind is not None:
            for own, ids, owner in zip(ranges, written, owners, strict=True):
                behind = self.behind[owner]
                own.append((behind, vocabulary))
                started = len(ids) >= 2 and ids[-2] >= self.special.times  # and ids[-1], then, is a start
                if self.spoken_to_end and started and self.special.times <= ids[-1] < behind - REST / TIME_STEP:
                    own.append((self.special.end, self.special.end + 1))
        if not logits.is_cuda:
            for row, own in zip(logits, ranges, strict=True):
                for begin, end in own:
                    row[begin:end] = -torch.inf
            return
        # One transfer and a few kernels instead of some for every row.
        longest = max(map(len, ranges))
        edges = torch.tensor([own + [(0, 0)] * (longest - len(own)) for own in ranges]).to(logits.device)
        every = torch.arange(vocabulary, device=logits.device)
        inside = (every >= edges[:, :, :1]) & (every < edges[:, :, 1:])
        logits.masked_fill_(inside.any(dim=1), -torch.inf)

    def settings(self) -> Settings:
        special = self.special
        return Settings(
            special.times,
            special.end,
            special.times + special.latest_first_time if self.times else -1,
            round(REST / TIME_STEP) if self.spoken_to_end and self.behind is not None else -1,
        )

    def forbidden(self, ids: list[int], vocabulary: int) -> list[tuple[int, int]]:
        """Ranges of ids that the order of times forbids behind `ids`."""
        times, end = self.special.times, self.special.end
        if not ids:
            return [(0, times), (times + self.special.latest_first_time + 1, vocabulary)]
        ranges = []
        is_time = ids[-1] >= times
        is_pair = is_time and (len(ids) < 2 or ids[-2] >= times)
        if is_pair:
            ranges.append((times, vocabulary))  # text must follow
        elif is_time:
            ranges.append((0, end))  # the next segment's start, or the end
        last = next((id for id in reversed(ids) if id >= times), None)
        if last is not None:
            # A segment takes time: only the start of the next may repeat its end.
            ranges.append((times, last if is_time and not is_pair else last + 1))
        return ranges

    def _prefer_times(self, logits: Tensor) -> None:
        """Leave only times where their total probability beats that of every other token."""
        others, times = logits[:, : self.special.times], logits[:, self.special.times :]
        forced = times.float().logsumexp(dim=-1) > others.float().amax(dim=-1)
        if forced.is_cuda or forced.any():  # a GPU need not be waited for
            others.masked_fill_(forced[:, None], -torch.inf)
