"""Alternating updates (AltUp; Baykal et al., arXiv:2301.13310), as Gemma 3n has them.

A token is several vectors (streams) of the decoder's width. A layer computes on the first only; the others follow by a
prediction and a correction that cost a few numbers a token. Streams are [B, T, A, D]: A of them, the first active.
"""

import torch
from torch import Tensor, nn

from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import stack

SMALLEST_SQUARE = 1e-5  # of a stream that is scaled to another's size


class AltUp(Fusable):
    """What a layer does to the streams: `predict` before it computes, `correct` after."""

    def __init__(self, width: int, streams: int, epsilon: float, corrects_scale: bool):
        super().__init__()
        self.streams = streams
        self.norm = nn.RMSNorm(width, eps=epsilon)
        self.router = nn.Linear(width, streams, bias=False)
        self.prediction = nn.Linear(streams, streams * streams, bias=False)
        self.correction = nn.Linear(streams, streams, bias=False)
        self.scale = nn.Parameter(torch.zeros(width))
        self.corrects_scale = corrects_scale
        self.shrink = 1 / width  # of what the router reads

    def fuse(self) -> None:
        """Fold the constant in front of the router into it."""
        self.router.weight = nn.Parameter(self.router.weight * self.shrink, requires_grad=False)
        self.shrink = 1.0

    def _route(self, x: Tensor) -> Tensor:
        """[B, T, D] → [B, T, A] within -1 … 1."""
        x = self.norm(x)
        return torch.tanh(self.router(x if self.shrink == 1 else x * self.shrink))

    def predict(self, streams: Tensor) -> Tensor:
        """Every stream plus a mixture of all of them: [B, T, A, D] → the same."""
        mixture = self.prediction(self._route(streams[:, :, 0])).unflatten(-1, (self.streams, self.streams))
        flat = streams.flatten(0, 1)
        return torch.baddbmm(flat, mixture.flatten(0, 1), flat).view_as(streams)

    def correct(self, predicted: Tensor, computed: Tensor) -> Tensor:
        """Move each stream by a multiple of what the layer made other than predicted: [B, T, D] into [B, T, A, D]."""
        news = (computed - predicted[:, :, 0])[:, :, None]
        return torch.addcmul(predicted, news, self.correction(self._route(computed))[..., None] + 1.0)

    def scaled(self, streams: Tensor) -> Tensor:
        """The active stream as the per-layer embedding's gate reads it: [B, T, A, D] → [B, T, D]."""
        return streams[:, :, 0] * self.scale if self.corrects_scale else streams[:, :, 0]


class Streams(Fusable):
    """Vectors → streams at the decoder's start (`split`), streams → vectors at its end (`join`)."""

    def __init__(self, width: int, streams: int):
        super().__init__()
        self.into = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(streams - 1))
        self.out = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(streams - 1))
        self.into_all: nn.Module | None = None
        self.out_all: nn.Parameter | None = None  # [A - 1, D, D]

    def fuse(self) -> None:
        """Put the matrices together: all streams are one product."""
        self.into_all = stack(*self.into)
        del self.into
        if all(type(layer) is nn.Linear for layer in self.out):  # and none is kept in integers
            weights = [layer.get_parameter("weight").data for layer in self.out]
            self.out_all = nn.Parameter(torch.stack(weights), requires_grad=False)
            del self.out

    def split(self, x: Tensor) -> Tensor:
        """[B, T, D] → [B, T, A, D], all as large as the first."""
        first = x[:, :, None]
        together = torch.cat([layer(x) for layer in self.into], -1) if self.into_all is None else self.into_all(x)
        others = together.unflatten(-1, (-1, x.shape[-1]))
        return torch.cat((first, _resized(others, _size(first))), dim=2)

    def join(self, streams: Tensor) -> Tensor:
        """[B, T, A, D] → [B, T, D], the mean of streams made as large as the first."""
        first, rest = streams[:, :, :1], streams[:, :, 1:]
        if self.out_all is None:
            others = torch.stack([layer(x) for layer, x in zip(self.out, rest.unbind(2), strict=True)], 2)
        else:
            others = torch.einsum("btad,aed->btae", rest, self.out_all)
        return torch.cat((first, _resized(others, _size(first))), dim=2).mean(dim=2)


def _size(x: Tensor) -> Tensor:
    """Root of the mean square, in float32: [..., D] → [..., 1]."""
    return x.float().square().mean(dim=-1, keepdim=True).sqrt()


def _resized(x: Tensor, size: Tensor) -> Tensor:
    return (x * (size / _size(x).clamp(min=SMALLEST_SQUARE**0.5))).to(x.dtype)
