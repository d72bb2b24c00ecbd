"""Beam search: the likeliest whole answers instead of the likeliest next tokens. It knows no family and no task."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmcli.engine.generate import GenerativeModel, LogitRules, close_ranks, own_copy
from mmcli.engine.inputs import Inputs
from mmcli.engine.logits import LogitsProcessor
from mmcli.errors import ModelError


@dataclass(frozen=True)
class Answer:
    """One answer of a row, without its stop token."""

    ids: list[int]
    logprob: float  # of the whole answer, the stop token included
    ended: bool  # False: cut off by the limit

    @property
    def per_token(self) -> float:
        """The log-probability divided by the number of tokens, by which answers are ranked."""
        return self.logprob / max(1, len(self.ids))


@dataclass
class _Row:
    """The beams of one row of the batch."""

    number: int
    ids: list[list[int]] = field(default_factory=lambda: [[]])
    sums: list[float] = field(default_factory=lambda: [0.0])
    ended: list[Answer] = field(default_factory=list)

    def advance(self, ids: list[list[int]], sums: list[list[float]], beams: int, stop_ids: frozenset[int]) -> list[int]:
        """Take the best continuations of each beam → which beam each new beam goes on from.

        Answers that end rank among the others, but hold no place; there are `beams` places at all times.
        """
        candidates = sorted(
            ((total, beam, id) for beam, row in enumerate(ids) for id, total in zip(row, sums[beam], strict=True)),
            key=lambda candidate: -candidate[0],
        )
        found: list[tuple[float, int, int]] = []
        for total, beam, id in candidates:
            if id not in stop_ids:
                found.append((total, beam, id))
            elif total > -torch.inf and len(self.ended) < beams:
                self.ended.append(Answer(self.ids[beam], total, True))
            if len(found) == beams:
                break
        self.ids = [[*self.ids[beam], id] for _, beam, id in found]
        self.sums = [total for total, _, _ in found]
        return [beam for _, beam, _ in found]

    def best(self, beams: int) -> Answer:
        """The likeliest answer per token; unfinished ones count only as far as there are too few others."""
        cut = sorted(zip(self.sums, self.ids, strict=True), key=lambda pair: -pair[0])[: beams - len(self.ended)]
        return max(self.ended + [Answer(ids, total, False) for total, ids in cut], key=lambda answer: answer.per_token)


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
) -> list[Answer]:
    """The best answer of up to `max_tokens` tokens for every row; a row is done when `beams` of its answers ended.

    The order of openai/whisper's `BeamSearchDecoder` with patience 1 (arXiv:2204.05424). `inputs.context` stays one
    for all the beams of a row. `processor` restricts what a beam may go on with. With one beam this is greedy decoding.
    Raises ModelError where the logits are not numbers.
    """
    weight = next(model.parameters())
    inputs = inputs.to(weight.device, weight.dtype)
    cache = model.new_cache(inputs.tokens.shape[0], inputs.tokens.shape[1] + max_tokens - 1)
    rows = [_Row(number) for number in range(inputs.tokens.shape[0])]
    done: dict[int, Answer] = {}
    states = None if processor is None else processor.begin(weight.device)
    logits = own_copy(model.prefill(inputs, cache), rules)
    for step in range(max_tokens):
        if rules is not None:
            owners = [row.number for row in rows for _ in row.ids]
            logits = rules(logits, [ids for row in rows for ids in row.ids], owners)
        allowed = logits if processor is None else processor.restrict(logits, states)
        sources = _advance(rows, logits, allowed, beams, stop_ids)
        going = [len(row.ended) < beams for row in rows]
        done |= {row.number: row.best(beams) for row, goes in zip(rows, going, strict=True) if not goes}
        if step == max_tokens - 1 or not any(going):
            break
        kept = close_ranks(going)
        went_on = [beam for place in kept for beam in sources[place]]
        cache.keep(went_on, context_rows=kept)
        rows = [rows[place] for place in kept]
        tokens = torch.tensor([ids[-1] for row in rows for ids in row.ids], device=weight.device)
        if processor is not None:
            states = processor.advance(states[torch.tensor(went_on, device=weight.device)], tokens)
        logits = model.step(tokens, cache)
    done |= {row.number: row.best(beams) for row in rows if row.number not in done}
    return [done[number] for number in range(len(done))]


def _advance(
    rows: list[_Row], logits: Tensor, allowed: Tensor, beams: int, stop_ids: frozenset[int]
) -> list[list[int]]:
    """One step of every row → the places in the cache that its new beams go on from.

    Tokens are chosen among the `allowed` logits; their log-probabilities are those of `logits`.
    """
    values, ids = allowed.topk(min(beams + len(stop_ids), allowed.shape[-1]), dim=-1)
    before = torch.tensor([total for row in rows for total in row.sums], device=logits.device)
    totals = values - logits.logsumexp(dim=-1, keepdim=True) + before[:, None]
    every_id, every_total = ids.tolist(), totals.tolist()
    if any(math.isnan(row[0]) for row in every_total):
        raise ModelError(
            "The model's numbers left the range of its data type", "Run it with --dtype float32 or --dtype bfloat16"
        )
    sources, first = [], 0
    for row in rows:
        last = first + len(row.ids)
        places = row.advance(every_id[first:last], every_total[first:last], beams, stop_ids)
        sources.append([first + beam for beam in places])
        first = last
    return sources
