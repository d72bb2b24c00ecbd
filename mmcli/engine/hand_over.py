"""What a recorded step that chooses leaves behind: for the next step, and for the host.

So nothing stands between two graphs that are played back: no copy of the tokens, none of the place in the cache, and
none to the host, to whose memory the choice is written by the kernel that makes it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Choices that are kept for the host, which reads one while the next step is being computed: more than that takes.
SLOTS = 4

# Memory of the host that a device may still write to when its graph is gone: it is never given to others. A batch of 32
# rows has a kilobyte.
_slots: list[Tensor] = []


class Found(NamedTuple):
    """What was chosen for R rows."""

    ids: Tensor  # [R]
    # float32 [2, R]: those, which float32 holds up to 2^24 exactly, and their log-probabilities. Where ids are on a
    # device and this is in the host's memory, it is there when the device is done.
    both: Tensor


@dataclass
class HandOver:
    """The memory of a recorded step on R rows that what it chose goes to."""

    tokens: Tensor  # [R] what the next step reads
    cursor: Tensor  # [1] the place in the cache that it writes to
    turns: Tensor  # int32 [R] how often the step was played back
    slots: Tensor  # float32 [SLOTS, 2, R] in the host's memory: of turn t, `both` goes to slot t % SLOTS
    done: bool = False  # whether the kernel that chose did all this

    @classmethod
    def to(cls, tokens: Tensor, cursor: Tensor) -> "HandOver":
        """With new memory beside `tokens` and `cursor`."""
        rows = len(tokens)
        slots = torch.zeros(SLOTS, 2, rows, pin_memory=tokens.is_cuda)
        if tokens.is_cuda:
            _slots.append(slots)
        return cls(tokens, cursor, torch.zeros(rows, dtype=torch.int32, device=tokens.device), slots)

    def plain(self, ids: Tensor) -> None:
        """Do it for the next step alone, where no kernel did."""
        self.tokens.copy_(ids)
        self.cursor.add_(1)
