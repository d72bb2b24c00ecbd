"""Per-layer embeddings: every token has a short vector for each layer, from a table too large for a GPU's memory.

The table (2.35 billion numbers in E4B) stays in the checkpoint's file, mapped into memory on the CPU; of it only the
rows in use are read and moved.
"""

from functools import cache
from math import sqrt

import torch
from torch import Tensor, nn

from mmcli.hub.weights import Mapped
from mmcli.models.gemma3n.config import TextConfig


@cache
def rounded(value: float, dtype: torch.dtype) -> float:
    """A constant as it is in the type of the weights: Gemma rounds its own to that."""
    return torch.tensor(value).to(dtype).item()


class PerLayerTable(Mapped):
    """Token ids → rows: the table itself, wherever it lies and in whatever type it is stored."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))

    def rows(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Ids [...] → rows [..., L·P] on the device of `like` and in its type; ids beyond the table have row 0.

        Ids on another device than the table cross over to it first, which waits for them.
        """
        tokens = tokens.to(self.weight.device)
        known = torch.where(tokens < len(self.weight), tokens, 0).flatten()
        rows = self.weight.index_select(0, known).view(*tokens.shape, -1)
        return rows.to(like.device).to(like.dtype)


class PerLayerInputs(nn.Module):
    """A token's vectors for all layers, half from the table and half from its embedding."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.depth = config.depth
        self.table = PerLayerTable(config.table_rows, config.depth * config.table_width)
        self.projection = nn.Linear(config.width, config.depth * config.table_width, bias=False)
        # Of numbers divided by √D, the norm of these with ε is that of the undivided ones with ε · D.
        self.norm = nn.RMSNorm(config.table_width, eps=config.norm_epsilon * config.width)
        self.scale = sqrt(config.table_width)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """Vectors [B, T, D] and rows [B, T, L·P] → [B, T, L, P]."""
        projected, rows = (part.unflatten(-1, (self.depth, -1)) for part in (self.projection(x), rows))
        return torch.add(self.norm(projected), rows, alpha=rounded(self.scale, rows.dtype)) * sqrt(0.5)
