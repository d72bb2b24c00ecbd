"""Nano's vision tower: a grid of soft tokens from two towers, and one for each box that a detector proposes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.convolution import pack_convolutions
from mmcli.layers.fusing import Fusable
from mmcli.layers.packed import pack
from mmcli.models.nano.config import CELL, CLASSES, NanoConfig
from mmcli.models.nano.efficientnet_lite import CHANNELS, EfficientNetLite
from mmcli.models.nano.mask_head import MaskHead
from mmcli.models.nano.mask_planes import MaskPlanes
from mmcli.models.nano.picodet import NECK, PicoDet, proposals

OCTAVES = 10  # the finest wave of the box encoding is 4 of the 1024 location bins long
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


Proposed = tuple[Tensor, Tensor, Tensor]  # boxes, class logits and features, as `picodet.proposals` gives them


class NanoTower(Fusable):
    """Images [B, 3, side, side] in 0..1 → soft tokens [B, grid² + proposals, D] and planes to cut masks from.

    The grid carries what is where (EfficientNet-Lite2 on a reduced image, PicoDet's neck beside it); the proposals
    carry PicoDet's best boxes with their class logits and the decoder's own words for the likely classes, so that the
    decoder can name, choose and write them down.
    """

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.config = config
        width = config.decoder.width
        self.features = EfficientNetLite()
        self.detector = PicoDet()
        self.grid_in = nn.Linear(4 * CHANNELS[1] + CHANNELS[2] + CHANNELS[3] + 2 * NECK, width)
        self.grid_norm = nn.LayerNorm(width)
        self.grid_position = nn.Parameter(torch.zeros(config.grid**2, width))
        self.proposal_in = nn.Linear(CLASSES + NECK + 8 * OCTAVES + width, width)
        self.proposal_out = nn.Linear(width, width)
        self.proposal_word = nn.Linear(width, width, bias=False)
        self.proposal_norm = nn.LayerNorm(width)
        self.mask_head = MaskHead(width)
        self.convolve_in = torch.float32  # of the feature tower, once it is fused

    def fuse(self) -> None:
        """On a CPU maps have their channels innermost (oneDNN is faster so), and convolutions are packed.

        Those of the detector stay in float32, since its logits decide what there is; the feature tower's are in
        `convolve_in`. The other products are packed too: all have the same digits with any number of threads.
        """
        if self.grid_position.device.type != "cpu":
            return
        self.to(memory_format=torch.channels_last)
        pack_convolutions(self.detector, torch.float32)
        pack_convolutions(self.features, self.convolve_in)
        pack(self)

    def forward(self, pixels: Tensor, words: Tensor) -> tuple[Tensor, MaskPlanes]:
        """words [80, D]: the decoder's embeddings of the detector's classes."""
        found, raw = self.detect(pixels)
        return self.read(pixels, found, self.propose(raw, found), words)

    def read(self, pixels: Tensor, found: list[Tensor], proposed: Proposed, words: Tensor) -> tuple[Tensor, MaskPlanes]:
        """As `forward`, given what the detector found in the same pixels."""
        maps = self._maps(pixels)
        grid = self.grid_in(self._grid(maps, found))
        objects = self._proposal_vectors(proposed, grid, words)
        planes = MaskPlanes(pixels, lambda: self.mask_head.plane(maps, found, self._as_map(grid)))
        return torch.cat((self.grid_norm(grid) + self.grid_position, objects), 1), planes

    def mask_logits(self, planes: MaskPlanes, boxes: Tensor, words: Tensor) -> Tensor:
        """Logits of the codes [B, 16, 128] of what is asked for in words [B, D], in boxes [B, 4] of B images."""
        logits: Tensor = self.mask_head(planes.maps, planes.pixels, boxes[:, None], words[:, None])[0]
        return logits[:, 0]

    def mask_maps(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """What `MaskHead.plane` takes, by itself."""
        found, _ = self.detect(pixels)
        maps = self._maps(pixels)
        return maps, found, self._as_map(self.grid_in(self._grid(maps, found)))

    def detect(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The detector's features and raw outputs, as `PicoDet.forward` gives them."""
        mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        found, raw = self.detector((pixels - mean) / std)
        return [x.to(pixels.dtype) for x in found], raw

    def propose(self, raw: list[Tensor], found: list[Tensor]) -> Proposed:
        return proposals(raw, found, self.config.image_size, self.config.proposals)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        """EfficientNet's maps of the reduced image, of strides 4, 8, 16 and 32."""
        size = self.config.feature_size
        small = F.interpolate(pixels.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return [x.to(pixels.dtype) for x in self.features(((small * 255 - 127) / 128).to(pixels.dtype))]

    def _grid(self, maps: list[Tensor], found: list[Tensor]) -> Tensor:
        _, fine, middle, coarse = maps

        def fit(x: Tensor) -> Tensor:
            side = self.config.grid
            return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)

        parts = (F.pixel_unshuffle(fine, CELL // 8), middle, fit(coarse), fit(found[1]), fit(found[2]))
        return torch.cat(parts, 1).flatten(2).transpose(1, 2)

    def _as_map(self, grid: Tensor) -> Tensor:
        """[B, grid², D] → [B, D, grid, grid]."""
        return grid.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))

    def _proposal_vectors(self, proposed: Proposed, grid: Tensor, words: Tensor) -> Tensor:
        boxes, logits, features = proposed
        waves = boxes[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes.device))
        waves = torch.cat((waves.sin(), waves.cos()), -1).flatten(2)
        middles = (boxes[..., :2] + boxes[..., 2:]) - 1  # in −1..1, as grid_sample counts
        # In float32: PyTorch's CPU kernel for bfloat16 returns wrong numbers and NaN (seen in 2.15).
        plane = self._as_map(grid).float()
        seen = F.grid_sample(plane, middles[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
        x = torch.cat((logits.clamp(min=-8) / 4, features.float(), waves, seen), -1).to(grid.dtype)
        named = logits.float().sigmoid().to(words.dtype) @ words
        x = self.proposal_out(F.gelu(self.proposal_in(x))) + self.proposal_word(named).to(grid.dtype)
        return self.proposal_norm(x)
