"""Rotary position embedding (Su et al., arXiv:2104.09864), in the half-split layout of Gemma."""

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """What `rotate` wants for `positions` [B, T], to share among layers: two float32 tensors [B, 1, T, H].

    The cosines twice over, and the sines with the sign that they have in each half.
    """
    exponent = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[:, None, :, None].float() / base**exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) by its angle: [B, N, T, H] → the same shape and dtype."""
    other = x.roll(x.shape[-1] // 2, dims=-1)  # each number's partner
    return torch.addcmul(x * cos.to(x.dtype), other, sin.to(x.dtype))
