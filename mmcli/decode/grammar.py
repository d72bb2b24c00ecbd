"""The grammar of answers that place objects, as an automaton over tokens: what may follow what has been written.

    answer = end | object (separator object)* end
    object = location location location location [code × 16] label

A label is one of those asked for. Boxes hold at least one cell: the third location is greater than the first, and the
fourth than the second. This is the language of `decode.segments.parse`; constrained decoding walks the automaton.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mmcli.decode import CODES, LOCATIONS, MASK_CODES, Vocabulary
from mmcli.decode.automaton import NUMBER, Automaton, Node
from mmcli.decode.locations import Loc, is_empty

LOCATION, CODE = NUMBER, NUMBER - 1  # edges that any location and any mask code may take


@dataclass(frozen=True)
class Grammar:
    """What one row of a batch may write."""

    labels: tuple[tuple[int, ...], ...]  # token ids of each label
    separator: tuple[int, ...]  # token ids between two objects
    end: int  # the token that ends the answer
    masks: bool = False  # whether every object has its mask codes
    most: int = 512  # objects at most
    box: Loc | None = None  # the one object's place, where that is given: only its mask codes are to be written


@lru_cache(maxsize=256)
def automaton(grammar: Grammar, vocabulary: Vocabulary) -> Automaton:
    """What constrained decoding walks, in the ids of a tokenizer; that of an equal grammar is the same one.

    Raises ValueError for a label without tokens, and for an empty box.
    """
    classes = {
        LOCATION: range(vocabulary.loc_start, vocabulary.loc_start + LOCATIONS),
        CODE: range(vocabulary.seg_start, vocabulary.seg_start + MASK_CODES),
    }
    return Automaton(tuple(_nodes(grammar)), classes, grammar.end, grammar.separator[:1], grammar.most)


def _nodes(grammar: Grammar) -> list[Node]:
    """The nodes of a grammar; the first is where it begins."""
    if grammar.box is not None and is_empty(grammar.box):
        raise ValueError(f"the box {grammar.box} is empty")
    nodes = [_node()]

    def add(**fields: Any) -> int:
        nodes.append(_node(**fields))
        return len(nodes) - 1

    done = add()
    nodes[done].edges[grammar.end] = done  # rows that wait for others
    nodes[0].edges[grammar.end] = done
    objects = _corners(nodes, grammar.box)
    at = objects[-1]
    for _ in range(CODES if grammar.masks else 0):
        nodes.append(_node())
        nodes[at].edges[CODE] = len(nodes) - 1
        at = len(nodes) - 1
    if grammar.box is not None:
        del nodes[0].edges[grammar.end]
        nodes[at].edges[grammar.end] = done
        return nodes
    again = add(**_first_corner())
    nodes[again].edges = {LOCATION: nodes[0].edges[LOCATION]}
    for label in grammar.labels:
        if not label:
            raise ValueError("a label must have tokens")
        _follow(nodes, _follow(nodes, at, label, None), grammar.separator, again)
        nodes[_follow(nodes, at, label, None)].edges[grammar.end] = done
    return nodes


def _node(**fields: Any) -> Node:
    return Node(**{"most": LOCATIONS - 1} | fields)


def _first_corner() -> dict[str, Any]:
    """The first location of an object leaves room for the third."""
    return {"most": LOCATIONS - 2, "keeps": 0, "begins": True}


def _corners(nodes: list[Node], box: Loc | None) -> list[int]:
    """Nodes 0 and three more that take the four locations, and the one behind them → their numbers."""
    kinds = [_first_corner(), {"most": LOCATIONS - 2, "keeps": 1}, {"above": 0}, {"above": 1}]
    numbers = [0]
    for corner, kind in enumerate(kinds):
        node = nodes[numbers[-1]]
        for name, value in kind.items():
            setattr(node, name, value)
        if box is not None:
            node.least = node.most = box[corner]
        nodes.append(_node())
        node.edges[LOCATION] = len(nodes) - 1
        numbers.append(len(nodes) - 1)
    return numbers


def _follow(nodes: list[Node], at: int, tokens: Sequence[int], last: int | None) -> int:
    """Walk along single tokens from `at`, making what is missing; the last edge leads to `last` where that is given."""
    for place, token in enumerate(tokens):
        edges = nodes[at].edges
        if token not in edges:
            if last is not None and place == len(tokens) - 1:
                edges[token] = last
            else:
                nodes.append(_node())
                edges[token] = len(nodes) - 1
        at = edges[token]
    return at
