"""Nano's vision tower: a grid of soft tokens from two towers, and one soft token for each thing a detector proposes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.models.nano.config import CELL, NanoConfig
from mmcli.models.nano.efficientnet_lite import CHANNELS, EfficientNetLite
from mmcli.models.nano.picodet import CLASSES, NECK, PicoDet, proposals

OCTAVES = 10  # the finest wave of the box encoding is 4 of the 1024 location bins long
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class NanoTower(nn.Module):
    """Pictures [B, 3, side, side] in 0..1 → soft tokens [B, grid² + proposals, D].

    The grid carries what is where (EfficientNet-Lite2 on a reduced picture, PicoDet's neck beside it); the proposals
    carry PicoDet's best boxes with their class logits, so that the decoder can name, choose and write them down.
    """

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.config = config
        width = config.decoder.width
        self.features = EfficientNetLite()
        self.detector = PicoDet()
        self.grid_in = nn.Linear(4 * CHANNELS[0] + CHANNELS[1] + CHANNELS[2] + 2 * NECK, width)
        self.grid_norm = nn.LayerNorm(width)
        self.grid_position = nn.Parameter(torch.zeros(config.grid**2, width))
        self.proposal_in = nn.Linear(CLASSES + NECK + 8 * OCTAVES + width, width)
        self.proposal_out = nn.Linear(width, width)
        self.proposal_norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.read(pixels, *self.detect(pixels))

    def read(self, pixels: Tensor, found: list[Tensor], raw: list[Tensor]) -> Tensor:
        """The soft tokens, given what `detect` found in the same pixels."""
        grid = self.grid_in(self._grid(pixels, found))
        things = self._things(raw, found, grid)
        return torch.cat((self.grid_norm(grid) + self.grid_position, things), 1)

    def detect(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The detector's features and raw outputs, as `PicoDet.forward` gives them."""
        mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self.detector((pixels - mean) / std)

    def _grid(self, pixels: Tensor, found: list[Tensor]) -> Tensor:
        size, grid = self.config.feature_size, self.config.grid
        small = F.interpolate(pixels.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        fine, middle, coarse = self.features(((small * 255 - 127) / 128).to(pixels.dtype))

        def fit(x: Tensor) -> Tensor:
            return F.interpolate(x, size=(grid, grid), mode="bilinear", align_corners=False)

        maps = (F.pixel_unshuffle(fine, CELL // 8), middle, fit(coarse), fit(found[1]), fit(found[2]))
        return torch.cat(maps, 1).flatten(2).transpose(1, 2)

    def _things(self, raw: list[Tensor], found: list[Tensor], grid: Tensor) -> Tensor:
        boxes, logits, features = proposals(raw, found, self.config.image_size, self.config.proposals)
        waves = boxes[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes.device))
        waves = torch.cat((waves.sin(), waves.cos()), -1).flatten(2)
        middles = (boxes[..., :2] + boxes[..., 2:]) - 1  # in −1..1, as grid_sample counts
        side = self.config.grid
        plane = grid.transpose(1, 2).unflatten(2, (side, side))
        # In float32: PyTorch's CPU kernel for bfloat16 returns wrong numbers and NaN (seen in 2.15).
        seen = F.grid_sample(plane.float(), middles[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
        x = torch.cat((logits.clamp(min=-8) / 4, features.float(), waves, seen), -1).to(grid.dtype)
        return self.proposal_norm(self.proposal_out(F.gelu(self.proposal_in(x))))
