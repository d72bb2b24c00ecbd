"""Beam search: the likeliest whole answers instead of the likeliest next tokens. It knows no family and no task."""

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmcli.engine.generate import LogitRules, close_ranks, no_numbers, own_copy
from mmcli.engine.inputs import Inputs
from mmcli.engine.logits import LogitsProcessor
from mmcli.engine.model import GenerativeModel
from mmcli.engine.search import Search
from mmcli.types import Completion, Timings

# A token, its log-probability, and the rank of the beam that ends with it.
_Continuation = tuple[int, float, float]


@dataclass(frozen=True)
class _Answer:
    """One answer of a row."""

    ids: list[int]  # without the stop token
    logprobs: list[float]  # with the stop token's, if it ended
    rank: float  # their sum with what a processor added, by which beams are compared
    ended: bool  # False: cut off by the limit

    @property
    def per_token(self) -> float:
        """The rank divided by the number of tokens, by which answers are compared."""
        return self.rank / max(1, len(self.ids))


@dataclass
class _Row:
    """The beams of one row of the batch."""

    number: int
    ids: list[list[int]] = field(default_factory=lambda: [[]])
    logprobs: list[list[float]] = field(default_factory=lambda: [[]])
    ranks: list[float] = field(default_factory=lambda: [0.0])
    ended: list[_Answer] = field(default_factory=list)

    def advance(self, continuations: list[list[_Continuation]], beams: int, stop_ids: frozenset[int]) -> list[int]:
        """Take the best `continuations` of each beam → which beam each new beam goes on from.

        Answers that end rank among the others, but hold no place; there are `beams` places at all times.
        """
        candidates = sorted(
            ((beam, *one) for beam, own in enumerate(continuations) for one in own), key=lambda candidate: -candidate[3]
        )
        found: list[tuple[int, int, float, float]] = []
        for beam, id, logprob, rank in candidates:
            if id not in stop_ids:
                found.append((beam, id, logprob, rank))
            elif rank > -torch.inf and len(self.ended) < beams:
                self.ended.append(_Answer(self.ids[beam], [*self.logprobs[beam], logprob], rank, True))
            if len(found) == beams:
                break
        self.ids = [[*self.ids[beam], id] for beam, id, _, _ in found]
        self.logprobs = [[*self.logprobs[beam], logprob] for beam, _, logprob, _ in found]
        self.ranks = [rank for _, _, _, rank in found]
        return [beam for beam, _, _, _ in found]

    def going(self, beams: int) -> bool:
        """Whether there is more to be found."""
        return len(self.ended) < beams

    def best(self, beams: int) -> _Answer:
        """The likeliest answer per token; unfinished ones count only as far as there are too few others."""
        cut = [_Answer(*own, False) for own in zip(self.ids, self.logprobs, self.ranks, strict=True)]
        cut.sort(key=lambda answer: -answer.rank)
        return max(self.ended + cut[: beams - len(self.ended)], key=lambda answer: answer.per_token)


@dataclass
class _PublishedRow(_Row):
    """The same in the order of transformers (`generation/utils.py`, `_beam_search`)."""

    search: Search = Search()
    cut: list[_Answer] = field(default_factory=list)  # what stands at this step, should it be the last

    def advance(self, continuations: list[list[_Continuation]], beams: int, stop_ids: frozenset[int]) -> list[int]:
        """As the base's; only an end among the first `beams` counts, and the best answers push others out."""
        candidates = sorted(
            ((beam, *one) for beam, own in enumerate(continuations) for one in own), key=lambda candidate: -candidate[3]
        )
        found = [candidate for candidate in candidates if candidate[1] not in stop_ids][:beams]
        self.cut = []
        for beam, id, logprob, rank in candidates[:beams]:
            ends, logprobs = id in stop_ids, [*self.logprobs[beam], logprob]
            if rank > -torch.inf:
                one = _Answer(self.ids[beam] if ends else [*self.ids[beam], id], logprobs, rank, ends)
                (self.ended if ends else self.cut).append(one)
        self.ended = sorted(self.ended, key=self.score, reverse=True)[:beams]
        self.ids = [[*self.ids[beam], id] for beam, id, _, _ in found]
        self.logprobs = [[*self.logprobs[beam], logprob] for beam, _, logprob, _ in found]
        self.ranks = [rank for _, _, _, rank in found]
        return [beam for beam, _, _, _ in found]

    def score(self, answer: _Answer) -> float:
        """By what answers are compared."""
        forced = not answer.ended and self.search.forced_end  # an end will be put behind it
        return self.by_length(answer.rank, len(answer.ids) + (answer.ended or forced))

    def by_length(self, rank: float, length: int) -> float:
        return rank / math.pow(length, self.search.length_penalty)

    def going(self, beams: int) -> bool:
        if len(self.ended) < beams:
            return True
        if self.search.early_stopping:
            return False
        return self.by_length(self.ranks[0], len(self.ids[0])) > self.score(self.ended[-1])

    def best(self, beams: int) -> _Answer:
        if len(self.ended) >= beams and not self.going(beams):
            return self.ended[0]
        cut = self.cut
        if self.search.forced_end:  # every beam would end with the next token
            beams_now = zip(self.ids, self.logprobs, self.ranks, strict=True)
            cut = [_Answer(*own, False) for own in beams_now if own[2] > -torch.inf]
        return max([*self.ended, *cut], key=self.score, default=_Answer([], [], 0.0, False))


@torch.inference_mode()
def beam_search(
    model: GenerativeModel,
    inputs: Inputs,
    *,
    stop_ids: frozenset[int],
    max_tokens: int,
    beams: int,
    rules: LogitRules | None = None,
    processor: LogitsProcessor | None = None,
) -> list[Completion]:
    """The best answer of up to `max_tokens` tokens for every row; a row is done when `beams` of its answers ended.

    The order of openai/whisper's `BeamSearchDecoder` with patience 1 (arXiv:2204.05424). The prefix of a row is kept
    once for all its beams where the model's cache can share it; so is `inputs.context` where it can. `processor` (by
    default that of `inputs`) restricts or favours what a beam goes on with: that counts in the ranks, while
    log-probabilities stay the model's. With one beam this is greedy decoding. Where `inputs` bring a `search`, that
    decides instead which answers end, are compared how, and when a row is done.
    Raises ModelError where the logits are not numbers.
    """
    started, read = time.perf_counter(), None
    weight = model.like
    inputs = inputs.to(weight.device, weight.dtype)
    processor = inputs.processor if processor is None else processor
    cache = model.new_cache(inputs.tokens.shape[0], inputs.tokens.shape[1] + max(0, max_tokens - 1))
    numbers = range(inputs.tokens.shape[0])
    search = inputs.search
    rows = [_Row(number) if search is None else _PublishedRow(number, search=search) for number in numbers]
    if search is not None and search.forced_end:
        max_tokens -= 1
    done: dict[int, _Answer] = {}
    logits = own_copy(model.prefill(inputs, cache), rules)
    cache.share()
    states = None if processor is None else processor.begin(weight.device, cache.context)
    for step in range(max_tokens):
        if rules is not None:
            owners = [row.number for row in rows for _ in row.ids]
            logits = rules(logits, [ids for row in rows for ids in row.ids], owners)
        allowed = logits if processor is None or states is None else processor.restrict(logits, states)
        sources = _advance(rows, logits, allowed, beams, stop_ids)
        read = read or time.perf_counter()
        going = [row.going(beams) for row in rows]
        done |= {row.number: row.best(beams) for row, goes in zip(rows, going, strict=True) if not goes}
        if step == max_tokens - 1 or not any(going):
            break
        kept = close_ranks(going)
        went_on = [beam for place in kept for beam in sources[place]]
        cache.keep(went_on, shared_rows=kept)
        rows = [rows[place] for place in kept]
        tokens = torch.tensor([ids[-1] for row in rows for ids in row.ids], device=weight.device)
        if processor is not None and states is not None:
            states = processor.advance(states[torch.tensor(went_on, device=weight.device)], tokens)
        logits = model.step(tokens, cache)
    done |= {row.number: row.best(beams) for row in rows if row.number not in done}
    now = time.perf_counter()
    timings = Timings((read or now) - started, now - (read or now), len(done))
    answers = (done[number] for number in range(len(done)))
    return [Completion(tuple(one.ids), tuple(one.logprobs), one.ended, timings) for one in answers]


def _advance(
    rows: list[_Row], logits: Tensor, allowed: Tensor, beams: int, stop_ids: frozenset[int]
) -> list[list[int]]:
    """One step of every row → the places in the cache that its new beams go on from.

    Tokens are chosen by the `allowed` logits; their log-probabilities are those of `logits`.
    """
    values, ids = allowed.topk(min(beams + len(stop_ids), allowed.shape[-1]), dim=-1)
    before = torch.tensor([rank for row in rows for rank in row.ranks], device=logits.device)
    norm = logits.logsumexp(dim=-1, keepdim=True)
    logprobs = logits.gather(-1, ids) - norm
    lists = (ids.tolist(), logprobs.tolist(), (values - norm + before[:, None]).tolist())
    every = [list(zip(*own, strict=True)) for own in zip(*lists, strict=True)]
    if any(math.isnan(own[0][2]) for own in every):
        raise no_numbers()
    sources, first = [], 0
    for row in rows:
        last = first + len(row.ids)
        places = row.advance(every[first:last], beams, stop_ids)
        sources.append([first + beam for beam in places])
        first = last
    return sources
