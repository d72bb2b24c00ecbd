"""Rotary position embedding (Su et al., arXiv:2104.09864), in the half-split layout of Gemma and Llama."""

from dataclasses import dataclass
from functools import cache
from math import pi

import torch
from torch import Tensor

from mmcli.layers import kernels


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 and later reach beyond the texts of their first training (arXiv:2407.21783).

    Pairs that turn less than `low` times in `trained` positions turn `factor` times slower, those that turn more than
    `high` times as before, and those between by a share of both. Source: meta-llama/llama-models `llama3/model.py`.
    """

    factor: float
    low: float
    high: float
    trained: int  # positions

    def slowed(self, periods: Tensor) -> Tensor:
        """Positions per radian of each pair [H/2] → the same of the scaled rotation."""
        turns = self.trained / (2 * pi * periods)
        share = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)  # of the rotation as it was
        return periods / (share + (1 - share) / self.factor)


@cache
def _periods(head_width: int, base: float, scaling: Llama3Scaling | None, device: torch.device) -> Tensor:
    exponent = torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width
    return base**exponent if scaling is None else scaling.slowed(base**exponent)


def angles_at(
    positions: Tensor, like: Tensor, head_width: int, base: float, scaling: Llama3Scaling | None = None
) -> tuple[Tensor, Tensor]:
    """`rotary_angles` in the type of `like`."""
    if positions.shape[1] == 1 and kernels.in_one_pass(like):
        from mmcli.layers.kernels import start

        periods = _periods(head_width, base, scaling, positions.device)
        return start.angles(positions.contiguous(), periods, like.dtype)
    cos, sin = rotary_angles(positions, head_width, base, scaling)
    return cos.to(like.dtype), sin.to(like.dtype)


def rotary_angles(
    positions: Tensor, head_width: int, base: float, scaling: Llama3Scaling | None = None
) -> tuple[Tensor, Tensor]:
    """The arguments of `rotate` for `positions` [B, T], to share among layers: two float32 tensors [B, 1, T, H].

    The cosines twice over, and the sines with the sign that they have in each half.
    """
    exponent = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    periods = base**exponent if scaling is None else scaling.slowed(base**exponent)
    angles = positions[:, None, :, None].float() / periods
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) by its angle: [B, N, T, H] → the same shape and dtype."""
    other = x.roll(x.shape[-1] // 2, dims=-1)  # each number's partner
    return torch.addcmul(x * cos.to(x.dtype), other, sin.to(x.dtype))
