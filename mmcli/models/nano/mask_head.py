"""What a box shows, as logits of the sixteen mask codes that follow the box in an answer.

The decoder's grid is too coarse for an outline. This head sees what one needs: the tower's maps of strides 4 to 16 and
the image's own pixels, cut to the box (as in Mask R-CNN, arXiv:1703.06870) with a margin around it, and the words that
were asked for. It makes them coarser and finer again (as U-Net does, arXiv:1505.04597), draws the mask, and reads the
codes off what it drew. Its logits are added to the decoder's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.decode import MASK_CODES
from mmcli.models.nano.efficientnet_lite import CHANNELS
from mmcli.models.nano.picodet import NECK

CODES_SIDE = 4  # the codebook's codes are places of a 4 × 4 grid, row by row
INSIDE, MARGIN = 8 * CODES_SIDE, 4  # samples along a side of a box, and beyond each side of it
CUT = INSIDE + 2 * MARGIN
FINE = 4  # pixels that are sampled along the side of one of these
WIDTHS = (64, 96, 128, 160)  # channels at CUT, and at a half, a quarter and an eighth of it
GROUP = 8  # channels that are normalised together
STEM, CODE_WIDTH = 16, 128
DRAWN = 2  # pixels of the drawn mask along the side of a sample


class GroupNorm(nn.GroupNorm):
    """With the same digits for any number of threads, which PyTorch's has not where channels are innermost on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


class Block(nn.Module):
    """Two 3 × 3 convolutions beside the identity: [B, C, h, w] → [B, C, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = GroupNorm(channels // GROUP, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = GroupNorm(channels // GROUP, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(y)))


class MaskHead(nn.Module):
    """A plane made once for an image, and logits of codes for boxes in it."""

    def __init__(self, width: int):
        super().__init__()
        plane = WIDTHS[0]
        self.fine = nn.Conv2d(CHANNELS[0], plane, 1)
        self.middle = nn.Conv2d(CHANNELS[1], plane, 1)
        self.found = nn.ModuleList(nn.Conv2d(NECK, plane, 1) for _ in range(2))
        self.coarse = nn.Conv2d(width, plane, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(3, STEM, 3, 2, 1), nn.ReLU(), nn.Conv2d(STEM, plane, 3, 2, 1, bias=False)
        )  # fmt: skip
        self.stem_norm = GroupNorm(plane // GROUP, plane)
        self.asked = nn.Linear(width + 4, sum(WIDTHS))
        pairs = list(zip(WIDTHS, WIDTHS[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(few, many, 3, 2, 1) for few, many in pairs)
        self.blocks = nn.ModuleList(Block(channels) for channels in WIDTHS)
        self.up = nn.ModuleList(nn.Conv2d(many, few, 1) for few, many in pairs)
        self.finer = nn.ModuleList(Block(few) for few, _ in pairs)
        self.draw = nn.Conv2d(plane, DRAWN**2, 1)
        sizes = (plane + DRAWN**2, *WIDTHS[1:3], CODE_WIDTH)
        self.read = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(sizes, sizes[1:], strict=False))
        self.code = nn.Conv2d(CODE_WIDTH, MASK_CODES, 1)

    def plane(self, maps: list[Tensor], found: list[Tensor], grid: Tensor) -> Tensor:
        """Maps of strides 4 and 8, the detector's of 8 and 16, and the grid [B, D, ·, ·] → [B, C, h, w] of stride 4."""
        fine, middle, *_ = maps

        def fit(x: Tensor) -> Tensor:
            return F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=False)

        total = self.fine(fine) + fit(self.middle(middle)) + fit(self.coarse(grid))
        for conv, x in zip(self.found, found, strict=False):
            total = total + fit(conv(x.to(fine.dtype)))
        return total

    def forward(self, plane: Tensor, pixels: Tensor, boxes: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the codes [B, N, 16, 128], and of the mask drawn in each box [B, N, 64, 64].

        plane [B, 64, h, w], pixels [B, 3, side, side] in 0..1, boxes [B, N, 4] in 0..1, and what is asked for as the
        mean of its words [B, N, D].
        """
        asked = self.asked(torch.cat((words, boxes.to(words.dtype)), -1)).flatten(0, 1)[..., None, None]
        asked = asked.split(WIDTHS, 1)
        colours = self.stem(cut(pixels, boxes, FINE * CUT) - 0.5)
        x = F.relu(self.stem_norm(colours) + cut(plane, boxes, CUT))
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x + asked[i])
            levels.append(x)
            if i < len(self.down):
                x = F.relu(self.down[i](x))
        for i in reversed(range(len(self.up))):
            x = F.interpolate(self.up[i](x), scale_factor=2, mode="nearest") + levels[i]
            x = self.finer[i](x)
        x = x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        drawn = self.draw(x)
        y = torch.cat((x, drawn), 1)
        for conv in self.read:
            y = F.relu(conv(y))
        codes = self.code(y).flatten(2).transpose(1, 2)  # row by row
        drawn = F.pixel_shuffle(drawn, DRAWN)[:, 0]
        return codes.unflatten(0, boxes.shape[:2]), drawn.unflatten(0, boxes.shape[:2])


def cut(plane: Tensor, boxes: Tensor, side: int) -> Tensor:
    """plane [B, C, h, w] and boxes [B, N, 4] in 0..1 → [B·N, C, side, side] of the boxes and a margin around them."""
    steps = (torch.arange(side, device=plane.device) + 0.5) / side * (CUT / INSIDE) - MARGIN / INSIDE
    low, size = boxes[..., :2].float(), (boxes[..., 2:] - boxes[..., :2]).float()
    at = low[..., None, :] + steps[:, None] * size[..., None, :]  # [B, N, side, 2]
    x = at[..., None, :, 0].expand(-1, -1, side, -1)
    y = at[..., :, None, 1].expand(-1, -1, -1, side)
    places = torch.stack((x, y), -1).flatten(1, 2) * 2 - 1  # [B, N·side, side, 2]
    # In float32: PyTorch's CPU kernel for bfloat16 returns wrong numbers (see the tower).
    shown = F.grid_sample(plane.float(), places, align_corners=False).to(plane.dtype)
    return shown.unflatten(2, (boxes.shape[1], side)).transpose(1, 2).flatten(0, 1)
