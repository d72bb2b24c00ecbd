"""An automaton over tokens: what may follow what has been written. Grammars build it, constrained decoding walks it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NUMBER = -1  # the class of tokens that stand for numbers, in order: a node may bound them


@dataclass
class Node:
    """One place in the automaton."""

    edges: dict[int, int] = field(default_factory=dict)  # token id, or the (negative) number of a class → node
    least: int = 0  # numbers that the edge NUMBER admits: from here …
    most: int = 0  # … to here
    keeps: int = -1  # the number that is taken here is remembered in slot 0 or 1
    above: int = -1  # … and here it must be greater than the one remembered in this slot
    begins: bool = False  # the edge NUMBER begins another object


@dataclass(frozen=True, eq=False)
class Automaton:
    """What one row of a batch may write. `nodes` begin with the first."""

    nodes: tuple[Node, ...]
    classes: Mapping[int, range]  # ids of the tokens of each class
    end: int  # the token that ends the answer
    again: tuple[int, ...] = ()  # tokens after which another object begins …
    most: int = 512  # … as long as there are fewer than this
