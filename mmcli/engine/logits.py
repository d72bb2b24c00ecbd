"""Constrained decoding: logits processors, which say what may be written next. They know no family and no task."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mmcli.decode import LOCATIONS, MASK_CODES, Vocabulary
from mmcli.decode.grammar import CODE, LOCATION, Grammar, Node, automaton

NEVER, ANY_LOCATION, ANY_CODE = 0, 1, 2  # classes of tokens; those that a grammar names follow, each its own class
Y0, X0, COUNT = 1, 2, 3  # columns of a state behind the node


class LogitsProcessor(Protocol):
    """Restricts the choice of every step. What it knows of a row is a tensor, so no step waits for the host.

    States are functions of what was written: whoever reorders rows (beam search, rows that leave) reorders states.
    """

    def begin(self, device: torch.device) -> Tensor:
        """The states [B, …] of the rows of a batch before anything is written."""
        ...

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        """Logits [R, V] of rows in `states` [R, …] → logits with -inf where a token may not follow."""
        ...

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after `tokens` [R] were written."""
        ...


class GrammarProcessor:
    """Every row writes an answer of its own grammar (`decode.grammar`): any logits give an answer that parses.

    A state is (node, y0, x0, objects begun). All rows' automata share one table [nodes, classes of tokens].
    """

    def __init__(self, grammars: Sequence[Grammar], vocabulary: Vocabulary, size: int, device: torch.device):
        """`grammars` are those of the rows; equal ones share their nodes. `size` is V, the number of logits."""
        first: dict[Grammar, int] = {}
        nodes: list[Node] = []
        limits: list[int] = []
        for grammar in dict.fromkeys(grammars):
            first[grammar] = len(nodes)
            own = automaton(grammar)
            for node in own:
                node.edges = {edge: to + first[grammar] for edge, to in node.edges.items()}
            nodes += own
            limits += [grammar.most] * len(own)
        named = sorted({edge for node in nodes for edge in node.edges if edge >= 0})
        numbers = {LOCATION: ANY_LOCATION, CODE: ANY_CODE} | {token: 3 + i for i, token in enumerate(named)}
        table = torch.full((len(nodes), 3 + len(named)), -1, dtype=torch.long)
        for number, node in enumerate(nodes):
            for edge, to in node.edges.items():
                table[number, numbers[edge]] = to
        kinds = torch.full((size,), NEVER, dtype=torch.long)
        kinds[vocabulary.loc_start : vocabulary.loc_start + LOCATIONS] = ANY_LOCATION
        kinds[vocabulary.seg_start : vocabulary.seg_start + MASK_CODES] = ANY_CODE
        kinds[named] = torch.arange(3, 3 + len(named))
        facts = [(n.least, n.most, n.keeps, n.above, n.begins, limit) for n, limit in zip(nodes, limits, strict=True)]
        again = {grammar.separator[0] for grammar in grammars if grammar.separator}
        self.end = grammars[0].end
        self._begin = torch.tensor([[first[grammar], 0, 0, 0] for grammar in grammars])
        self._next, self._kinds, self._facts = table.to(device), kinds.to(device), torch.tensor(facts).to(device)
        self._again = torch.tensor(sorted(again), dtype=torch.long, device=device)
        self._places = torch.arange(LOCATIONS, device=device)
        self._locations = slice(vocabulary.loc_start, vocabulary.loc_start + LOCATIONS)

    def begin(self, device: torch.device) -> Tensor:
        return self._begin.to(device)

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        least, most, _, above, _, limit = self._facts[states[:, 0]].unbind(1)
        remembered = torch.where(above == 0, states[:, Y0], states[:, X0]) + 1
        least = torch.where(above >= 0, torch.maximum(remembered, least), least)
        allowed = (self._next[states[:, 0]] >= 0)[:, self._kinds]
        allowed[:, self._locations] &= (self._places >= least[:, None]) & (self._places <= most[:, None])
        allowed[:, self._again] &= (states[:, COUNT] < limit)[:, None]
        return logits.masked_fill(~allowed, -torch.inf)

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        _, _, keeps, _, begins, _ = self._facts[states[:, 0]].unbind(1)
        place = tokens - self._locations.start
        node = self._next[states[:, 0], self._kinds[tokens]].clamp(min=0)
        y0 = torch.where(keeps == 0, place, states[:, Y0])
        x0 = torch.where(keeps == 1, place, states[:, X0])
        return torch.stack((node, y0, x0, states[:, COUNT] + begins), 1)
