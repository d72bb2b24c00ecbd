"""How a model's publisher had it search for an answer: transformers' beam search and the rules that go with it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Search:
    """Settings of a published search (transformers `generation_config.json`); the defaults are those of transformers.

    Beams are compared by their log-probability divided by length to the power of `length_penalty`, the end counted in.
    """

    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False  # done with as many answers as beams; else when no beam can be better than they are
    no_repeat: int = 0  # no so many tokens stand twice in an answer; 0: whatever repeats
    first: int | None = None  # the token that every answer begins with
    forced_end: bool = False  # the last token that there is room for is the end


class WritingRules:
    """The rules of a `Search` about the tokens themselves, as a logits processor for a batch of `rows`.

    The state of a row are its tokens so far [R, L], `start` before them: what the decoder read first.
    """

    def __init__(self, search: Search, start: int, rows: int):
        self.search, self.start, self.rows = search, start, rows

    def begin(self, device: torch.device, context: object = None) -> Tensor:
        return torch.full((self.rows, 1), self.start, device=device)

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        first, length = self.search.first, self.search.no_repeat
        if first is not None and states.shape[1] == 1:
            forced = torch.full_like(logits, -torch.inf)
            forced[:, first] = logits.logsumexp(dim=-1)  # what must be costs a beam nothing
            return forced
        if not length or states.shape[1] < length:
            return logits
        written = states.unfold(1, length, 1)  # [R, places, length]
        again = (written[..., :-1] == states[:, None, states.shape[1] - length + 1 :]).all(dim=-1)
        would_repeat = written[..., -1]
        values = logits.gather(1, would_repeat).masked_fill(again, -torch.inf)
        return logits.scatter_reduce(1, would_repeat, values, "amin")

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat((states, tokens[:, None]), dim=1)
