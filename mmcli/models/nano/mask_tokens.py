"""What a box shows, as one vector for each of the sixteen mask codes that follow the box in an answer.

The grid of soft tokens is too coarse for an outline. So features of strides 4 and 8 are cut to the box (as in Mask
R-CNN, arXiv:1703.06870), brought to the codebook's 4 × 4 places, and added to what the decoder reads while it writes
the code of each place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.models.nano.efficientnet_lite import CHANNELS
from mmcli.models.nano.picodet import NECK

CODES_SIDE = 4  # the codebook's codes are places of a 4 × 4 grid, row by row
CODES = CODES_SIDE**2
CUT = 32  # samples along a side of a box
PLANE, INNER = 64, 96  # channels


class MaskTokens(nn.Module):
    """A plane made once for an image, and vectors cut from it for boxes."""

    def __init__(self, width: int):
        super().__init__()
        self.fine = nn.Conv2d(CHANNELS[0], PLANE, 1)
        self.middle = nn.Conv2d(CHANNELS[1], PLANE, 1)
        self.found = nn.Conv2d(NECK, PLANE, 1)
        self.coarse = nn.Conv2d(width, PLANE, 1)
        self.reduce = nn.Conv2d(PLANE, INNER, 3, 2, 1)
        self.mix = nn.ModuleList(nn.Conv2d(INNER, INNER, 3, 1, 1) for _ in range(3))
        self.out = nn.Conv2d(INNER, width, CUT // 2 // CODES_SIDE, CUT // 2 // CODES_SIDE)

    def plane(self, fine: Tensor, middle: Tensor, found: Tensor, coarse: Tensor) -> Tensor:
        """Maps of strides 4 and 8, the detector's of stride 8, and the grid → [B, 64, h, w] of stride 4."""

        def fit(x: Tensor) -> Tensor:
            return F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=False)

        parts = fit(self.middle(middle)) + fit(self.found(found.to(fine.dtype))) + fit(self.coarse(coarse))
        return F.relu(self.fine(fine) + parts)

    def inside(self, plane: Tensor, boxes: Tensor) -> Tensor:
        """plane [B, 64, h, w] and boxes [B, N, 4] in 0..1 → features [B·N, 96, 16, 16] of what each box shows."""
        steps = (torch.arange(CUT, device=plane.device) + 0.5) / CUT
        low, size = boxes[..., :2].float(), (boxes[..., 2:] - boxes[..., :2]).float()
        at = low[..., None, :] + steps[:, None] * size[..., None, :]  # [B, N, CUT, 2]
        x = at[..., None, :, 0].expand(-1, -1, CUT, -1)
        y = at[..., :, None, 1].expand(-1, -1, -1, CUT)
        places = torch.stack((x, y), -1).flatten(1, 2) * 2 - 1  # [B, N·CUT, CUT, 2]
        # In float32, as in the tower.
        cut = F.grid_sample(plane.float(), places, align_corners=False).to(plane.dtype)
        cut = cut.unflatten(2, (boxes.shape[1], CUT)).transpose(1, 2).flatten(0, 1)
        cut = F.relu(self.reduce(cut))
        for conv in self.mix:
            cut = cut + F.relu(conv(cut))
        return cut

    def vectors(self, inside: Tensor) -> Tensor:
        """[N, 96, 16, 16] → [N, 16, D], in the order of the codes."""
        return self.out(inside).flatten(2).transpose(1, 2)

    def forward(self, plane: Tensor, boxes: Tensor) -> Tensor:
        """plane [B, 64, h, w] and boxes [B, N, 4] → [B, N, 16, D]."""
        return self.vectors(self.inside(plane, boxes)).unflatten(0, boxes.shape[:2])
