"""GPTQ (Frantar et al., arXiv:2210.17323): round a matrix to 4-bit integers such that its outputs change least.

What changes the outputs y = W x on real inputs x is measured by their covariance C: the error of a row w is
(w − w') C (w − w')ᵀ. Columns are rounded one after another, and what each loses is made up for by those still to come.
Two things are added. The scales of the groups are fitted anew to the integers found, by least squares. And the mean of
x is taken out of C, because what rounding adds to the mean of y goes into the layer's bias.
"""

import torch
from torch import Tensor

from mmcli.hub.quantized import GROUP, ZERO

LOWEST, HIGHEST = -ZERO, ZERO - 1
DAMPING = 0.01  # of the mean variance, added to every variance
BLOCK = 128  # columns that are rounded before the others are made up for
TRIED = torch.linspace(0.5, 1.0, 26)  # shares of a group's largest value that may become its largest integer


class Moments:
    """Mean and covariance of the inputs of a layer."""

    def __init__(self, width: int):
        self.count = 0
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Inputs [..., K]."""
        rows = x.reshape(-1, x.shape[-1]).float()
        self.count += len(rows)
        self.sum += rows.sum(dim=0)
        self.squares += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        return (self.sum / self.count).float()

    @property
    def covariance(self) -> Tensor:
        mean = self.sum / self.count
        return (self.squares / self.count - torch.outer(mean, mean)).float()


def quantize(weight: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """weight [R, K], covariance [K, K] → integers from −8 to 7 [R, K] and float16 scales [R, K / 32]."""
    covariance = covariance + DAMPING * covariance.diagonal().mean() * torch.eye(len(covariance))
    scales = first_scales(weight, covariance.diagonal())
    # Columns of large variance first, while there are others left to make up for them.
    order = covariance.diagonal().argsort(descending=True)
    integers = torch.empty_like(weight)
    integers[:, order] = _rounded(
        weight[:, order], covariance[order][:, order], scales.float().repeat_interleave(GROUP, dim=1)[:, order]
    )
    return integers.to(torch.int8), fitted_scales(weight, covariance, integers, scales.float()).half()


def first_scales(weight: Tensor, importance: Tensor) -> Tensor:
    """For each group the scale with the least error when all is rounded to the nearest: float16 [R, K / 32].

    The group's largest value may become the lowest integer, of which there is one more: then the scale is negative
    where that value is positive.
    """
    groups = weight.unflatten(1, (-1, GROUP))
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    best = torch.full(largest.shape, torch.inf)
    scales = torch.ones_like(largest)
    for share in TRIED:
        for end in (LOWEST, HIGHEST):
            scale = (largest * share / end).half().float()
            scale = torch.where(scale == 0, torch.finfo(torch.float16).tiny, scale)
            off = groups - (groups / scale).round().clamp(LOWEST, HIGHEST) * scale
            error = (off.square() * importance.unflatten(0, (-1, GROUP))).sum(dim=2, keepdim=True)
            scales, best = torch.where(error < best, scale, scales), torch.minimum(error, best)
    return scales.squeeze(2).half()


def _rounded(weight: Tensor, covariance: Tensor, scales: Tensor) -> Tensor:
    """GPTQ itself: the integers [R, K] of a matrix in units of `scales` [R, K], column by column."""
    weight = weight.clone()
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(covariance)), upper=True)
    integers = torch.empty_like(weight)
    width = weight.shape[1]
    for first in range(0, width, BLOCK):
        end = min(first + BLOCK, width)
        errors = torch.empty(len(weight), end - first)
        for at in range(first, end):
            integers[:, at] = (weight[:, at] / scales[:, at]).round().clamp(LOWEST, HIGHEST)
            error = (weight[:, at] - integers[:, at] * scales[:, at]) / inverse[at, at]
            weight[:, at:end] -= torch.outer(error, inverse[at, at:end])
            errors[:, at - first] = error
        weight[:, end:] -= errors @ inverse[first:end, end:]
    return integers


def fitted_scales(weight: Tensor, covariance: Tensor, integers: Tensor, scales: Tensor) -> Tensor:
    """The scales [R, K / 32] with which `integers` change the outputs least: a small linear system a row."""
    blocks = covariance.unflatten(1, (-1, GROUP))
    fitted = torch.empty_like(scales)
    for first in range(0, len(weight), BLOCK):
        rows = slice(first, first + BLOCK)
        parts = integers[rows].unflatten(1, (-1, GROUP))
        seen = torch.einsum("kgj,rgj->rkg", blocks, parts)  # C M, M the integers of each group in a column of its own
        system = torch.einsum("rhkg,rhk->rhg", seen.unflatten(1, (-1, GROUP)), parts)
        system.diagonal(dim1=1, dim2=2).mul_(1.001).add_(1e-12)
        wanted = torch.einsum("rkg,rk->rg", seen, weight[rows])
        fitted[rows] = torch.linalg.solve(system, wanted)
    # A group of zeros has no scale to fit, and one of few integers may be fitted to the noise.
    share = fitted / scales
    return torch.where((share > 0.5) & (share < 2), fitted, scales)
