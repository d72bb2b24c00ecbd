"""Constrained decoding: logits processors, which say what may be written next. They know no family and no task."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mmcli.decode.automaton import NUMBER, Automaton, Node
from mmcli.engine.hand_over import Found, HandOver

NODE, SLOTS, COUNT = 0, 1, 3  # columns of a state: the node, two numbers remembered, objects begun


class LogitsProcessor(Protocol):
    """Restricts or favours the choice of every step, while log-probabilities stay the model's own.

    What it knows of a row is a tensor, so no step waits for the host.

    States are functions of what was written: whoever reorders rows (beam search, rows that leave) reorders states.
    """

    def begin(self, device: torch.device, context: Any = None) -> Tensor:
        """The states [B, …] of the rows of a batch before anything is written; `context` is the cache's, prefilled."""
        ...

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        """Logits [R, V] of rows in `states` [R, …] → logits with -inf where a token may not follow.

        What is added to or taken from other logits counts in the choice, and where beams are ranked.
        """
        ...

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after `tokens` [R] were written."""
        ...


class RecordedRules(Protocol):
    """Rules and the greedy choice under them on the device, which are recorded with the step that gives the logits."""

    settings: Hashable
    """What is recorded: rules of the same settings share a recording."""

    tensors: tuple[Tensor, ...]
    """What they know of the rows of a batch before anything is written, on the model's device."""

    def choose(self, logits: Tensor, tensors: tuple[Tensor, ...], hand_over: HandOver | None = None) -> Found:
        """Logits [R, V] → ids [R], and those beside their log-probabilities, both of what the rules left.

        `tensors` go on to the next token; logits stay as they are. For `hand_over` see `GenerativeModel.likeliest`.
        """
        ...


class GrammarProcessor:
    """Every row walks an automaton of its own (`decode.automaton`): any logits give an answer of its language.

    A state is (node, two remembered numbers, objects begun). All rows' automata share one table [nodes, kinds of
    tokens]: kind 0 are tokens that no row may write, then come the classes, then the tokens named alone.
    """

    def __init__(self, automata: Sequence[Automaton], size: int, device: torch.device):
        """`automata` are those of the rows, over the same classes; one that serves several is listed once in the table.

        `size` is V, the number of logits.
        """
        first: dict[Automaton, int] = {}
        nodes: list[Node] = []
        limits: list[int] = []
        for own in dict.fromkeys(automata):
            first[own] = len(nodes)
            nodes += own.nodes
            limits += [own.most] * len(own.nodes)
        starts = [start for own, start in first.items() for _ in own.nodes]
        classes = automata[0].classes
        named = sorted({edge for node in nodes for edge in node.edges if edge >= 0})
        numbers = {edge: kind for kind, edge in enumerate([*classes, *named], start=1)}
        table = torch.full((len(nodes), 1 + len(numbers)), -1, dtype=torch.long)
        for number, (node, start) in enumerate(zip(nodes, starts, strict=True)):
            for edge, to in node.edges.items():
                table[number, numbers[edge]] = start + to
        kinds = torch.zeros(size, dtype=torch.long)
        for edge, ids in classes.items():
            kinds[ids.start : ids.stop] = numbers[edge]
        kinds[named] = torch.tensor([numbers[edge] for edge in named], dtype=torch.long)
        facts = [(n.least, n.most, n.keeps, n.above, n.begins, limit) for n, limit in zip(nodes, limits, strict=True)]
        again = {token for own in automata for token in own.again}
        self.end = automata[0].end
        self._begin = torch.tensor([[first[own], 0, 0, 0] for own in automata])
        self._next, self._kinds, self._facts = table.to(device), kinds.to(device), torch.tensor(facts).to(device)
        self._again = torch.tensor(sorted(again), dtype=torch.long, device=device)
        self._numbers = slice(classes[NUMBER].start, classes[NUMBER].stop)
        self._values = torch.arange(len(classes[NUMBER]), device=device)

    def begin(self, device: torch.device, context: Any = None) -> Tensor:
        return self._begin.to(device)

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        least, most, _, above, _, limit = self._facts[states[:, NODE]].unbind(1)
        remembered = torch.where(above == 0, states[:, SLOTS], states[:, SLOTS + 1]) + 1
        least = torch.where(above >= 0, torch.maximum(remembered, least), least)
        allowed = (self._next[states[:, NODE]] >= 0)[:, self._kinds]
        allowed[:, self._numbers] &= (self._values >= least[:, None]) & (self._values <= most[:, None])
        allowed[:, self._again] &= (states[:, COUNT] < limit)[:, None]
        return logits.masked_fill(~allowed, -torch.inf)

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        _, _, keeps, _, begins, _ = self._facts[states[:, NODE]].unbind(1)
        value = tokens - self._numbers.start
        node = self._next[states[:, NODE], self._kinds[tokens]].clamp(min=0)
        slots = [torch.where(keeps == slot, value, states[:, SLOTS + slot]) for slot in (0, 1)]
        return torch.stack((node, *slots, states[:, COUNT] + begins), 1)
