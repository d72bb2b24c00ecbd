"""Rotary position embedding (Su et al., arXiv:2104.09864), in the half-split layout of Gemma."""

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` [B, T] → two float32 tensors [B, 1, T, H/2], to share among layers."""
    exponent = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[:, None, :, None].float() / base**exponent
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) by its angle: [B, N, T, H] → the same shape and dtype."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
