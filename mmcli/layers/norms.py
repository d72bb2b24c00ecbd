"""Normalisation layers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.fusing import Fusable


class GemmaNorm(Fusable):
    """Root-mean-square norm of Gemma 1 and 2: computed in float32, scaled by (1 + weight), [..., D] → [..., D].

    Source: google-deepmind/gemma `gm/nn/_layers.py` (RMSNorm) and Zhang & Sennrich, arXiv:1910.07467.
    """

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon
        self.scale: Tensor | None = None  # 1 + weight, once that is final

    def fuse(self) -> None:
        """The weights change no more."""
        self.scale = 1.0 + self.weight.float()

    def forward(self, x: Tensor) -> Tensor:
        # The product with (1 + weight) stays in float32: Gemma rounds once, at the end.
        scale = self.factor()
        return F.rms_norm(x.float(), scale.shape, scale, self.epsilon).to(x.dtype)

    def factor(self) -> Tensor:
        """1 + weight, in float32."""
        return 1.0 + self.weight.float() if self.scale is None else self.scale
