"""How images and recordings enter Gemma 3n's decoder: a tower, then an embedder into the width of its vectors."""

from math import sqrt

import torch
from torch import Tensor, nn

from mmcli.models.gemma3n.config import AudioConfig, ModalityConfig
from mmcli.models.gemma3n.conformer import ConformerEncoder
from mmcli.models.gemma3n.mobilenet_v5 import MobileNetV5


class Embedder(nn.Module):
    """Vectors of a tower (soft tokens), and ids of a modality's own (hard tokens), as vectors for the decoder."""

    def __init__(self, config: ModalityConfig, width: int):
        super().__init__()
        self.table = nn.Embedding(config.ids, config.width)
        self.norm_hard = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.norm_soft = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.projection = nn.Linear(config.width, width, bias=False)
        self.norm_out = nn.RMSNorm(width, eps=config.norm_epsilon, elementwise_affine=False)

    def soft(self, vectors: Tensor) -> Tensor:
        """A tower's vectors [..., tower's width] → [..., D]."""
        return self.norm_out(self.projection(self.norm_soft(vectors)))

    def hard(self, count: int) -> Tensor:
        """The modality's first `count` ids, as the decoder is to read them: [count, D]."""
        return self.norm_out(self.projection(self.norm_hard(self.table.weight[:count])))


class VisionEncoder(nn.Module):
    """Images [images, 3, side, side] of numbers from 0 to 1 → soft tokens [images, P, D]."""

    def __init__(self, config: ModalityConfig, width: int):
        super().__init__()
        self.tower = MobileNetV5()
        self.embedder = Embedder(config, width)

    def forward(self, pixels: Tensor) -> Tensor:
        vectors = self.tower(pixels).flatten(2).mT
        return self.embedder.soft(vectors * sqrt(vectors.shape[-1]))


class AudioEncoder(nn.Module):
    """Log-mel frames [recordings, F, M], valid [recordings, F] → soft tokens [recordings, P, D], as many whatever the
    length.

    `silence` [D] stands in the places that a recording is too short for. Raises ValueError for one that needs more
    places than there are.
    """

    def __init__(self, config: AudioConfig, width: int):
        super().__init__()
        self.places = config.soft_tokens
        self.tower = ConformerEncoder(config.conformer)
        self.embedder = Embedder(config, width)

    def forward(self, features: Tensor, valid: Tensor, silence: Tensor) -> Tensor:
        vectors, valid = self.tower(features, valid)
        missing = self.places - vectors.shape[1]
        if missing < 0:
            raise ValueError(f"a recording takes {vectors.shape[1]} soft tokens, but has {self.places} places")
        soft = self.embedder.soft(vectors).where(valid[..., None], silence)
        return torch.cat((soft, silence.expand(len(soft), missing, -1)), dim=1)
