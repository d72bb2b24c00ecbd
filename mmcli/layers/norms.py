"""Normalisation layers."""

import torch
from torch import Tensor, nn


class GemmaNorm(nn.Module):
    """Root-mean-square norm of Gemma 1 and 2: computed in float32, scaled by (1 + weight), [..., D] → [..., D].

    Source: google-deepmind/gemma `gm/nn/_layers.py` (RMSNorm) and Zhang & Sennrich, arXiv:1910.07467.
    """

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        # The product with (1 + weight) stays in float32: Gemma rounds once, at the end.
        return (wide * (1.0 + self.weight.float())).to(x.dtype)
