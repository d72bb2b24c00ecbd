"""What Whisper may write next (openai/whisper `decoding.py`: SuppressBlank, SuppressTokens, ApplyTimestampRules)."""

import torch
from torch import Tensor

from mmcli.models.whisper.vocabulary import Special


class WritingRules:
    """The engine's `rules` for Whisper: forbidden tokens, and the order of times.

    With `times`, the answer begins with a time; times come in pairs (end of one segment, start of the next), never go
    back, and a time is forced where all times together are more likely than any single other token.
    """

    def __init__(self, special: Special, times: bool, device: torch.device | str = "cpu"):
        self.special = special
        self.times = times
        self._never = torch.tensor(special.suppressed, dtype=torch.long, device=device)
        self._not_first = torch.tensor(special.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, logits: Tensor, written: list[list[int]]) -> Tensor:
        """Logits [R, V], changed in place, and what each row has written so far."""
        logits.index_fill_(1, self._never, -torch.inf)
        if not any(written):
            logits.index_fill_(1, self._not_first, -torch.inf)
        if self.times:
            for row, ids in zip(logits, written, strict=True):
                for begin, end in self.forbidden(ids, logits.shape[1]):
                    row[begin:end] = -torch.inf
            self._prefer_times(logits)
        return logits

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
        if forced.any():
            others.masked_fill_(forced[:, None], -torch.inf)
