"""How the next token is chosen from a model's distribution."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcli.errors import UsageError

WIDE = 1 << 13  # a vocabulary whose largest number is looked for block by block
BLOCK = 256
COLDEST = 1e-6  # of temperatures with a draw: divided by less, logits leave float32, and all but ties are decided


@dataclass(frozen=True)
class Sampling:
    """Settings of the choice; the default is greedy.

    A `seed` makes the choice a function of the seed, the settings and the row's own logits: it does not depend on
    which other rows share the batch. (Rows of one batch therefore share their random numbers.)
    """

    temperature: float = 0.0  # 0 = the most likely token
    top_k: int = 0  # keep only the k most likely tokens; 0 = all
    top_p: float = 1.0  # keep the smallest set of most likely tokens whose probability reaches p
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UsageError(f"The temperature is {self.temperature}", "Give 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise UsageError(f"top-k is {self.top_k}", "Give 0 (no limit) or a positive number")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p}", "Give a number above 0 and up to 1")

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST


class Sampler:
    """Chooses tokens step by step; all random numbers are drawn once, so that no step waits for the host."""

    def __init__(self, sampling: Sampling, rows: int, steps: int, device: torch.device):
        self.sampling = sampling
        self.draws: Tensor | None = None
        if not sampling.greedy:
            generator = None if sampling.seed is None else torch.Generator().manual_seed(sampling.seed)
            shape = (steps, 1 if generator else rows)  # with a seed, every row sees the same numbers
            self.draws = torch.rand(shape, generator=generator).expand(steps, rows).to(device)

    def choose(self, logits: Tensor, step: int, rows: list[int] | None = None) -> Tensor:
        """Logits [B, V] of step number `step` → chosen ids [B]; `rows` are their numbers, where some have left."""
        if self.draws is None:
            return likeliest(logits)
        draws = self.draws[step]
        return sample(logits, self.sampling, draws if rows is None else draws[rows])


def likeliest(logits: Tensor) -> Tensor:
    """Logits [B, V] → ids [B] of the first of the largest in each row."""
    size = logits.shape[-1]
    if logits.device.type != "cpu" or size < WIDE:
        return logits.argmax(dim=-1)
    # On a CPU argmax takes five times as long as amax: it is for the block that holds the largest.
    whole = size // BLOCK * BLOCK
    largest = logits[:, :whole].unflatten(1, (-1, BLOCK)).amax(dim=-1)
    if whole < size:
        largest = torch.cat((largest, logits[:, whole:].amax(dim=-1, keepdim=True)), dim=1)
    places: Tensor = (largest.argmax(dim=-1, keepdim=True) * BLOCK + torch.arange(BLOCK)).clamp_(max=size - 1)
    return places.gather(1, logits.gather(1, places).argmax(dim=-1, keepdim=True)).squeeze(1)


def sample(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    """Draw from the restricted distribution by inverting its cumulative sum: logits [B, V], draws [B] in [0, 1) → [B].

    The order of the restrictions is temperature, top-k, top-p (Holtzman et al., arXiv:1904.09751).
    """
    count = min(sampling.top_k, logits.shape[-1]) if sampling.top_k else logits.shape[-1]
    ordered, ids = (logits.float() / sampling.temperature).topk(count, dim=-1)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)  # the first one always stays
    reached = probabilities.cumsum(dim=-1)
    chosen = torch.searchsorted(reached, (draws * reached[:, -1])[:, None], right=True)
    # Rounding may put the draw at the very end: then the last token that kept any probability is meant.
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    return ids.gather(-1, torch.minimum(chosen, last))[:, 0]
