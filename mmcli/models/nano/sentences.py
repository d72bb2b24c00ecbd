"""What nano may write in words: whole words, of what is seen, and sentences that end and repeat nothing.

The model's own distribution stays as it is: a beam that runs into what is forbidden pays for the probability that lies
there, so that a sentence begun in vain loses to one that can be finished. What the detector saw is weighed in as the
log-probability that the classes which a sentence names are there, each once (a log-linear product of experts; Hinton
2002, Neural Computation 14).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.models.nano.config import CLASSES, NanoConfig

OBJECTS, WORDS, SENTENCE = range(3)  # what a row's answer is made of
EVEN = math.log(2)  # naming what is as likely there as not is neither credited nor paid for


class _Rules:
    """What of the rules for answers is the same for all of them, as tensors."""

    def __init__(self, config: NanoConfig):
        rules, size = config.sentences, config.decoder.vocabulary
        # What is no word of an answer of each kind: to begin with, and to follow. Column `size` stands for no token.
        self.forbidden = torch.zeros(3, 2, size + 1, dtype=torch.bool)
        for kind in (WORDS, SENTENCE):
            ranges = config.first_words, config.later_words
            for forbidden, (begin, end) in zip(self.forbidden[kind], ranges, strict=True):
                if begin < end:
                    forbidden[:size] = True
                    forbidden[begin:end] = forbidden[config.eos_token] = False
        self.last = torch.ones(size, dtype=torch.bool)  # tokens behind which a sentence may end
        self.last[list(rules.never_last)] = False
        self.taken = _taken(config)
        # Words that name something, and the classes each may mean [N, 80].
        self.names = torch.tensor([entry[0] for entry in config.names], dtype=torch.long)
        self.means = torch.zeros(len(config.names), CLASSES, dtype=torch.bool)
        pairs = [(name, label) for name, entry in enumerate(config.names) for label in entry[1:]]
        self.means[tuple(torch.tensor(pairs, dtype=torch.long).view(-1, 2).T)] = True
        self.phrases = torch.tensor(rules.phrases, dtype=torch.long).view(-1, 3)
        # Words that begin a class's name of several, and of which classes [first, 80].
        several = [(ids[0], label) for label, ids in enumerate(config.class_tokens) if len(ids) > 1]
        self.first = sorted({first for first, _ in several})
        self.begins = torch.zeros(len(self.first), CLASSES, dtype=torch.bool)
        for first, label in several:
            self.begins[self.first.index(first), label] = True

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, config: NanoConfig) -> "_Rules":
        """Made once: a folder asks again for every batch."""
        return cls(config)


class Wording:
    """A logits processor for the answers to prompts that begin with the tokens `prompts`, one a row.

    A state is the number of the row and what was written [R, 1 + T].
    """

    def __init__(self, config: NanoConfig, prompts: Sequence[int]):
        kinds = [
            OBJECTS if first in config.finding_tokens else SENTENCE if first in config.sentences.prompts else WORDS
            for first in prompts
        ]
        self._config = config
        self._kinds = torch.tensor(kinds)
        rules = _Rules.of(config)
        self._forbidden, self._last, self._taken = rules.forbidden, rules.last, rules.taken
        self._names, self._means, self._phrases = rules.names, rules.means, rules.phrases
        self._first, self._begins = rules.first, rules.begins
        self._unseen = torch.empty(0)  # [B, N] which of the names a row may not write
        self._credit = torch.empty(0)  # [B, N] what naming is worth
        self._vain = torch.empty(0)  # [B, first] which of `first` a list of words may not hold
        self._phrase_credit = torch.empty(0)  # [B, phrases] … in two words; −inf where nothing is seen

    def begin(self, device: torch.device, context: Any = None) -> Tensor:
        for name in ("_kinds", "_forbidden", "_last", "_taken", "_names", "_means", "_phrases", "_begins"):
            setattr(self, name, getattr(self, name).to(device))
        evidence = context.evidence.float()[context.image]  # [B, 80]
        self._unseen = ~_any(evidence >= self._config.least_evidence, self._means.T)
        self._unseen &= (self._kinds != OBJECTS)[:, None]
        slope, constant = self._config.sentences.presence
        worth = self._config.sentences.grounding * (F.logsigmoid(slope * evidence + constant) + EVEN)  # [B, 80]
        other = (self._kinds != SENTENCE)[:, None]
        self._credit = worth[:, None].masked_fill(~self._means, -torch.inf).amax(2).masked_fill(other, 0.0)
        worth = worth.masked_fill(evidence < self._config.least_evidence, -torch.inf)
        self._phrase_credit = worth[:, self._phrases[:, 2]].masked_fill(other, 0.0)
        self._vain = ~_any(evidence >= self._config.least_evidence, self._begins.T)
        self._vain &= (self._kinds == WORDS)[:, None]
        return torch.arange(len(self._kinds), device=device)[:, None]

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        row, written = states[:, 0], states[:, 1:]
        kind, end, size = self._kinds[row], self._config.eos_token, self._config.decoder.vocabulary
        forbidden = self._forbidden[:, min(written.shape[1], 1)].index_select(0, kind)
        sentence = kind == SENTENCE
        ends = self._last[written[:, -1]] if written.shape[1] else torch.zeros_like(sentence)
        forbidden[:, end] |= sentence & ~ends
        taken = self._taken[written].flatten(1).masked_fill(~sentence[:, None], size)
        forbidden.scatter_(1, taken, True)
        logits = logits.masked_fill(forbidden[:, :size], -torch.inf)
        if len(self._names):
            logits[:, self._names] += self._credit[row] * self._new(written)
            logits[:, self._names] = logits[:, self._names].masked_fill(self._unseen[row], -torch.inf)
        logits[:, self._first] = logits[:, self._first].masked_fill(self._vain[row], -torch.inf)
        if len(self._phrases) and written.shape[1]:
            begun = written[:, -1:] == self._phrases[:, 0]  # [R, phrases]
            credit = self._phrase_credit[row].masked_fill(~begun, 0.0)
            logits.index_add_(1, self._phrases[:, 1], credit)
        return logits

    def _new(self, written: Tensor) -> Tensor:
        """Which names [R, N] mean nothing that the tokens written [R, T] have named."""
        named = _any((written[:, :, None] == self._names).any(1), self._means)  # classes [R, 80]
        return ~_any(named, self._means.T)

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat((states, tokens[:, None]), 1)


def _taken(config: NanoConfig) -> Tensor:
    """What a sentence may not say any more once it has said a token: all forms of a word that may come once
    [V, forms], `vocabulary` where there are no more of them."""
    rules, size = config.sentences, config.decoder.vocabulary
    number = list(range(size))  # the forms of a word have one
    for forms in rules.same_word:
        for form in forms:
            number[form] = forms[0]
    once = range(min(config.first_words[0], config.later_words[0]), config.later_words[1]) if rules.prompts else ()
    together: dict[int, list[int]] = {}
    for token in sorted(set(once) - set(rules.repeatable)):
        together.setdefault(number[token], []).append(token)
    most = max(map(len, together.values()), default=0)
    rows = {token: forms + [size] * (most - len(forms)) for forms in together.values() for token in forms}
    none = [size] * most
    return torch.tensor([rows.get(token, none) for token in range(size)], dtype=torch.long).view(size, most)


def _any(rows: Tensor, related: Tensor) -> Tensor:
    """What of the columns is related to any member of each row: bool [R, N], bool [N, M] → bool [R, M]."""
    return rows.float() @ related.float() > 0
