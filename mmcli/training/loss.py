"""The loss of the answers' tokens: logits are made only of places at which something is learned, some at a time."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmcli.engine.model import GenerativeModel
from mmcli.models.teaching import IGNORED, Teaching

AT_ONCE = 1 << 26  # logits held at once: 256 MB of float32


def token_loss(teaching: Teaching, model: GenerativeModel, states: Tensor, targets: Tensor) -> Tensor:
    """The sum of the cross entropies of all targets [B, T] that are not `IGNORED`, of states [B, T, D].

    A vocabulary of 257,000 makes a gigabyte of logits of a thousand places. So places where nothing is learned (images,
    prompts, padding) have none, and those of the others are made in pieces, anew on the way back.
    """
    learned = targets != IGNORED
    chosen, wanted = states[learned], targets[learned]
    if not len(wanted):
        return states.sum() * 0.0

    def part(some: Tensor, their: Tensor) -> Tensor:
        return F.cross_entropy(teaching.logits(model, some), their, reduction="sum")

    table: Any = model.get_submodule("decoder.embedding")
    size = max(1, AT_ONCE // table.num_embeddings)
    if len(wanted) <= size:
        return part(chosen, wanted)
    parts = zip(chosen.split(size), wanted.split(size), strict=True)
    return sum(
        (checkpoint(part, *one, use_reentrant=False) for one in parts), states.new_zeros((), dtype=chosen.float().dtype)
    )
