"""The audio encoder of Gemma 3n: a conformer (arXiv:2005.08100) after the Universal Speech Model (arXiv:2303.01037).

Log-mel frames → two convolutions that halve time and frequency → conformer layers, whose attention attends to a few
frames around each → every fourth vector.

Reference: transformers `models/gemma3n/modeling_gemma3n.py`, which this equals for every recording alone, and for
recordings of one length together. There, what lies behind a shorter recording of a batch (frames of silence, then the
values that norms make of them) is seen by the convolutions at that audio's end, which reach ahead, and can change its
last vector. Here a shorter recording is closed with zeros behind each convolution, as it is where it stands alone: a
batch equals its singles.

Shape letters beside those of `layers/__init__.py`: F frames (before or after the convolutions), M mel bins, C channels,
U chunks, W frames of a chunk, S frames that a chunk attends to, R distances between frames.
"""

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-6  # of all norms but the light convolution's
LONGEST_WAVE = 1e4  # of the sines that encode distances, in frames over 2π


@dataclass(frozen=True)
class ConformerConfig:
    """Sizes of the encoder; pairs are (time, frequency), or the first and the second convolution."""

    mels: int
    width: int
    depth: int
    heads: int
    channels: tuple[int, int]
    kernels: tuple[tuple[int, int], tuple[int, int]]
    strides: tuple[tuple[int, int], tuple[int, int]]
    group_norm_epsilon: float
    norm_epsilon: float  # of the light convolution's norms
    chunk: int  # frames whose attention is computed at once; no frame attends to less or more for it
    past: int  # frames before a frame that it attends to
    future: int  # frames behind it
    score_cap: float
    kernel: int  # frames of the light convolution
    reduction: int  # of as many vectors, one is kept
    residual: float  # share of what a feed-forward adds
    limit: float  # sums before norms are cut off here, or where their type ends

    def positions(self, frames: int) -> int:
        """Frames that `frames` of the log-mel spectrogram are for the layers."""
        for stride, _ in self.strides:
            frames = -(-frames // stride)
        return frames

    def vectors(self, frames: int) -> int:
        """Vectors that the encoder makes of `frames` of the log-mel spectrogram."""
        return -(-self.positions(frames) // self.reduction)

    def bins(self) -> tuple[int, int]:
        """Frequency bins behind the first and the second convolution."""
        first = _after(self.mels, self.kernels[0][1], self.strides[0][1])
        return first, _after(first, self.kernels[1][1], self.strides[1][1])


def _after(bins: int, kernel: int, stride: int) -> int:
    """Frequency bins behind a convolution, which pads one on each side whatever its kernel."""
    return (bins + 2 - kernel) // stride + 1


class CumulativeNorm(nn.Module):
    """Group norm of one group whose mean and variance at a frame are of all frames up to it: [B, C, F, M] → the same.

    The variance sums squared distances from the mean as it was at each frame, not as it became. In float32.
    """

    def __init__(self, channels: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.arange(1, x.shape[2] + 1, device=x.device)[:, None] * (x.shape[1] * x.shape[3])

        def mean_so_far(values: Tensor) -> Tensor:
            return values.sum(dim=(1, 3), keepdim=True).cumsum(dim=2) / counts

        wide = x.float()
        wide = wide - mean_so_far(wide)
        wide = wide * torch.rsqrt(mean_so_far(wide.square()) + self.epsilon)
        return (wide * self.weight.float()[:, None, None]).to(x.dtype)


class Convolution(nn.Module):
    """One sub-sampling convolution with its norm: [B, C, F, M], valid [B, F] → the same, both fewer.

    It reaches ahead in time: a frame comes from those that start with it. Behind the last there are zeros.
    """

    def __init__(self, config: ConformerConfig, index: int):
        super().__init__()
        before, channels = (1, *config.channels)[index : index + 2]
        kernel, self.stride = config.kernels[index], config.strides[index]
        self.padding = (1, 1, 0, kernel[0] - 1)  # frequency, then time
        self.conv = nn.Conv2d(before, channels, kernel, stride=self.stride, bias=False)
        self.norm = CumulativeNorm(channels, config.group_norm_epsilon)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.conv(F.pad(x, self.padding))).relu()
        valid = valid[:, :: self.stride[0]]
        return x * valid[:, None, :, None], valid


class SubSampling(nn.Module):
    """Log-mel frames [B, F, M], valid [B, F] → vectors [B, F, D], valid [B, F], of fewer frames."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.convolutions = nn.ModuleList(Convolution(config, index) for index in range(2))
        self.out = nn.Linear(config.bins()[1] * config.channels[1], config.width, bias=False)

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        x = (features * valid[:, :, None]).to(self.out.weight.dtype)[:, None]
        for convolution in self.convolutions:
            x, valid = convolution(x, valid)
        return self.out(x.permute(0, 2, 3, 1).flatten(2)), valid


class FeedForward(nn.Module):
    """Feed-forward between two norms, added in part: [B, F, D] → [B, F, D]."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.norm_in = nn.RMSNorm(config.width, eps=NORM_EPSILON)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)
        self.norm_out = nn.RMSNorm(config.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.silu(self.up(self.norm_in(_clip(x, self.config.limit)))))
        return x + self.norm_out(_clip(y, self.config.limit)) * self.config.residual


class LocalAttention(nn.Module):
    """Attention to the frames around each, by what they hold and by how far they are: [B, F, D] → [B, F, D].

    A score is query · (key + projected distance), as in Transformer-XL (arXiv:1901.02860) without its biases.
    """

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.norm_in = nn.RMSNorm(config.width, eps=NORM_EPSILON)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.distance = nn.Linear(config.width, config.width, bias=False)
        self.query_scale = nn.Parameter(torch.zeros(config.width // config.heads))
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm_out = nn.RMSNorm(config.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, waves: Tensor, seen: Tensor) -> Tensor:
        """`waves` [R, D] and `seen` [B, U, 1, W, S] as `distance_waves` and `chunk_mask` give them."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.config.heads, -1))

        y = self.norm_in(_clip(x, self.config.limit))
        # Softplus over log 2: a scale that was trained from 0 starts as the usual 1 / √H.
        scale = F.softplus(self.query_scale) * (len(self.query_scale) ** -0.5 / log(2))
        q = chunks(split(self.q(y)) * scale, self.config).transpose(2, 3)  # [B, U, N, W, H]
        k, v = (surroundings(split(z), self.config) for z in (self.k(y), self.v(y)))  # [B, U, N, H, S]
        distances = split(self.distance(waves)).permute(1, 2, 0)  # [N, H, R]
        cap = self.config.score_cap
        scores = torch.tanh((q @ k + place_distances(q @ distances)) / cap) * cap
        scores = torch.where(seen, scores, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        y = (weights @ v.mT).transpose(2, 3).flatten(1, 2)[:, : x.shape[1]]  # [B, F, N, H]
        return x + self.norm_out(_clip(self.out(y.flatten(2)), self.config.limit))


class LightConvolution(nn.Module):
    """A gate, then a convolution of each number over the last frames: [B, F, D] → [B, F, D]."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.norm_in = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.gate = nn.Linear(config.width, 2 * config.width, bias=False)
        self.conv = nn.Conv1d(config.width, config.width, config.kernel, groups=config.width, bias=False)
        self.norm_conv = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.gate(self.norm_in(x)), dim=-1)
        y = self.conv(F.pad(y.mT, (self.config.kernel - 1, 0))).mT
        return x + self.out(F.silu(self.norm_conv(_clip(y, self.config.limit))))


class Layer(nn.Module):
    """One conformer layer: attention and light convolution between two half feed-forwards."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.mlp_before = FeedForward(config)
        self.attention = LocalAttention(config)
        self.convolution = LightConvolution(config)
        self.mlp_after = FeedForward(config)
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, waves: Tensor, seen: Tensor, valid: Tensor) -> Tensor:
        x = self.attention(self.mlp_before(x), waves, seen)
        x = self.mlp_after(self.convolution(x * valid[:, :, None]))
        return self.norm(_clip(x, self.config.limit))


class ConformerEncoder(nn.Module):
    """Log-mel spectrograms → vectors: features [B, F, M], valid [B, F] → vectors [B, A, D], valid [B, A].

    `valid` is True where there is audio; A is `config.vectors(F)`. Vectors that are not valid are zero. A batch of
    no frames, as clips shorter than one are, has no vectors (the reference cannot read one).
    """

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.subsampling = SubSampling(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        if not features.shape[1]:
            return self.subsampling.out.weight.new_zeros(len(features), 0, self.config.width), valid
        x, valid = self.subsampling(features, valid)
        waves = distance_waves(self.config, x.device).to(x.dtype)
        seen = chunk_mask(valid, self.config)
        for layer in self.layers:
            x = layer(x, waves, seen, valid)
        x, valid = (y[:, :: self.config.reduction] for y in (x, valid))
        return x.masked_fill(~valid[:, :, None], 0.0), valid


def chunks(x: Tensor, config: ConformerConfig) -> Tensor:
    """Queries [B, F, N, H] → [B, U, W, N, H], zeros behind the last."""
    return F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % config.chunk)).unflatten(1, (-1, config.chunk))


def surroundings(x: Tensor, config: ConformerConfig) -> Tensor:
    """What each chunk attends to: [B, F, …] → [B, U, …, S], a view of `x` between zeros; chunks overlap there."""
    behind = config.future + config.chunk - 1
    x = F.pad(x, (*(0, 0) * (x.ndim - 2), config.past, behind))
    return x.unfold(1, config.past + config.chunk + config.future, config.chunk)


def chunk_mask(valid: Tensor, config: ConformerConfig) -> Tensor:
    """Which frames each frame attends to: valid [B, F] → [B, U, 1, W, S], by validity and by distance."""
    frames = torch.arange(config.past + config.chunk + config.future, device=valid.device)
    ahead = frames - frames[: config.chunk, None]  # [W, S]: 0 is the furthest frame of the past
    near = (ahead >= 0) & (ahead <= config.past + config.future)
    return surroundings(valid, config)[:, :, None, None, :] & near


def distance_waves(config: ConformerConfig, device: torch.device) -> Tensor:
    """Sines and cosines of the distances past … -future: float32 [R, D]."""
    half = config.width // 2
    rates = torch.exp(torch.arange(half, device=device) * (-log(LONGEST_WAVE) / max(half - 1, 1)))
    distances = torch.arange(config.past, -config.future - 1, -1, device=device)
    angles = distances[:, None].float() * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def place_distances(scores: Tensor) -> Tensor:
    """Put scores of distances where the frames at them are: [..., W, R] → [..., W, S]; row w moves by w.

    A row is filled up to S + 1 and all are read on as rows of S. What lands outside a frame's surroundings is zero.
    """
    rows, distances = scores.shape[-2:]
    flat = F.pad(scores, (0, rows)).flatten(-2)[..., :-rows]
    return flat.unflatten(-1, (rows, rows + distances - 1))


def _clip(x: Tensor, limit: float) -> Tensor:
    limit = min(limit, torch.finfo(x.dtype).max)
    return x.clamp(-limit, limit)
