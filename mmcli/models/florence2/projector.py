"""From the tower's places to soft tokens of the language model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.models.florence2.config import Florence2Config


class Projector(nn.Module):
    """Places [B, H, W, C] → soft tokens [B, 1 + H·W, D]: their mean, then each of them, row by row.

    A place learns its column in the first half of its numbers and its row in the second, and that it is of the first
    frame. `weight` lies as the checkpoint has it: [D, C] in the layout of transformers, [C, D] in the vendor's.
    """

    def __init__(self, config: Florence2Config):
        super().__init__()
        vision, width = config.vision, config.text.width
        self.native = config.native
        self.row = nn.Parameter(torch.zeros(vision.rows, vision.width // 2))
        self.column = nn.Parameter(torch.zeros(vision.rows, vision.width - vision.width // 2))
        self.frame = nn.Parameter(torch.zeros(vision.frames, vision.width))
        self.weight = nn.Parameter(
            torch.zeros((width, vision.width) if config.native else (vision.width, width)), requires_grad=False
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        columns = self.column[None, :width].expand(height, -1, -1)
        rows = self.row[:height, None].expand(-1, width, -1)
        x = (x + torch.cat((columns, rows), dim=-1) + self.frame[0]).flatten(1, 2)
        x = torch.cat((x.mean(dim=1, keepdim=True), x), dim=1)
        return self.norm(F.linear(x, self.weight if self.native else self.weight.T))
