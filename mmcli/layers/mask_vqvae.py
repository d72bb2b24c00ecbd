"""The mask codebook: a VQ-VAE that writes a 64 × 64 mask as 16 codes and reads it back.

Source of the computation and of the tensor names: Ning et al., "All in Tokens", arXiv:2301.02229
(SwinTransformer/AiT `vae/models/VQVAE.py`), as PaliGemma uses it (google-research/big_vision
`pp/proj/paligemma/segmentation.py` encodes, `evaluators/proj/paligemma/transfers/segmentation.py` decodes).
The training loss is that of van den Oord et al., arXiv:1711.00937.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.errors import ModelError
from mmcli.hub.array_files import WHAT_TO_DO, read_arrays

GRID = 4  # codes along a side
SIDE = 64  # mask pixels along a side: four halvings of the image meet the grid

# Running averages that the published file keeps from its own training; nothing here reads them.
DROPPED = frozenset({"_vq_vae._ema_w", "_vq_vae._ema_cluster_size"})


@dataclass(frozen=True)
class MaskVQVAEConfig:
    """Sizes; the defaults are those of the published `vae-oid.npz`."""

    codes: int = 128
    embedding_width: int = 512
    hidden: int = 128  # channels at the 4 × 4 grid; they halve as the image doubles, so a multiple of 8
    commitment: float = 0.25  # weight of the commitment term; only training uses it

    def __post_init__(self):
        if self.hidden < 8 or self.hidden % 8:
            raise ValueError(f"hidden is {self.hidden}; it must be a multiple of 8")


class Residual(nn.Module):
    """Two 3 × 3 convolutions and one 1 × 1 beside the identity: [B, C, h, w] → [B, C, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Codebook(nn.Module):
    """The code vectors, under the name that the published file gives them."""

    def __init__(self, codes: int, width: int):
        super().__init__()
        self._embedding = nn.Parameter(torch.randn(codes, width))


class MaskVQVAE(nn.Module):
    """Masks ↔ codes. Tensor names equal those of `vae-oid.npz`, so the same loader serves every size.

    Built with `encoder=False` it only decodes, and `encode` and `forward` raise ModelError.
    """

    def __init__(self, config: MaskVQVAEConfig | None = None, *, encoder: bool = True):
        super().__init__()
        self.config = config = config or MaskVQVAEConfig()
        wide, half, quarter, eighth = (config.hidden // n for n in (1, 2, 4, 8))
        self.encoder = _down([1, eighth, quarter, half, wide], config.embedding_width) if encoder else None
        self.decoder = _up(config.embedding_width, [wide, wide, half, quarter, eighth])
        self._vq_vae = Codebook(config.codes, config.embedding_width)

    def features(self, masks: Tensor) -> Tensor:
        """Masks [B, 64, 64] in [0, 1] → the encoder's vectors [B, 16, D] before they become codes, row by row."""
        if self.encoder is None:
            raise ModelError("This mask model holds the decoder only", "Use a file that has the encoder too")
        grid = self.encoder(2.0 * (masks.unsqueeze(1) - 0.5))
        return grid.flatten(2).transpose(1, 2)

    def nearest(self, features: Tensor) -> Tensor:
        """Vectors [..., D] → the index [...] of the closest code by Euclidean distance."""
        codebook = self._vq_vae._embedding
        # |f|² is the same for every code, so it is left out of |f − c|².
        return (codebook.square().sum(1) - 2.0 * features @ codebook.T).argmin(-1)

    @torch.no_grad()
    def encode(self, masks: Tensor) -> Tensor:
        """Masks [B, 64, 64] in [0, 1] → codes, LongTensor [B, 16], row by row over the 4 × 4 grid."""
        return self.nearest(self.features(masks))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, 16] → masks [B, 64, 64], float, about −1 (outside) to 1 (inside): the outline is where it is 0."""
        return self._reconstruct(self._vq_vae._embedding[codes])

    def forward(self, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masks [B, 64, 64] in [0, 1] → reconstruction [B, 64, 64] in about [−1, 1], codebook loss, codes [B, 16].

        The loss is the second and third term of equation 3 of arXiv:1711.00937; the reconstruction term is the
        caller's. Gradients pass the quantisation straight through to the encoder.
        """
        features = self.features(masks)
        codes = self.nearest(features.detach())
        vectors = self._vq_vae._embedding[codes]
        towards_features = F.mse_loss(vectors, features.detach())
        towards_codes = F.mse_loss(features, vectors.detach())
        straight_through = features + (vectors - features).detach()
        loss = towards_features + self.config.commitment * towards_codes
        return self._reconstruct(straight_through), loss, codes

    @torch.no_grad()
    def revive(self, masks: Tensor, generator: torch.Generator | None = None) -> int:
        """Move every code that no part of `masks` [B, 64, 64] chose onto a random feature of them; return how many.

        Codes that are never nearest get no gradient and would stay lost; call this now and then while training,
        with as many masks as show which codes are in use.
        """
        features = self.features(masks).flatten(0, 1)
        used = torch.bincount(self.nearest(features), minlength=self.config.codes) > 0
        lost = (~used).nonzero().flatten()
        drawn = torch.randint(len(features), (len(lost),), generator=generator).to(features.device)
        self._vq_vae._embedding[lost] = features[drawn]
        return len(lost)

    def _reconstruct(self, vectors: Tensor) -> Tensor:
        grid = vectors.transpose(1, 2).unflatten(2, (GRID, GRID))
        return self.decoder(grid).squeeze(1)


def _down(channels: list[int], width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, Residual(channels[-1]), Residual(channels[-1]), nn.Conv2d(channels[-1], width, 1))


def _up(width: int, channels: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(width, channels[0], 1), nn.ReLU()]
    layers += [Residual(channels[0]), Residual(channels[0])]
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 1))


def load_mask_vqvae(path: Path | str) -> MaskVQVAE:
    """A mask model in float32, in eval mode, from an .npz (big_vision's) or a .safetensors file.

    The sizes come from the tensors' shapes. Every tensor must be used and every parameter filled, except that the
    encoder may be absent as a whole. Raises ModelError for a file that is missing, damaged or something else.
    """
    path = Path(path)
    tensors = {name: tensor for name, tensor in read_arrays(path).items() if name not in DROPPED}
    config = _infer(tensors, path)
    with torch.device("meta"):
        model = MaskVQVAE(config, encoder=any(name.startswith("encoder.") for name in tensors))
    _check(model.state_dict(), tensors, path)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _infer(tensors: Mapping[str, Tensor], path: Path) -> MaskVQVAEConfig:
    codebook, first = tensors.get("_vq_vae._embedding"), tensors.get("decoder.0.weight")
    if codebook is None or first is None or codebook.ndim != 2 or first.ndim != 4:
        raise ModelError(f"{path} is not a mask decoder: it has no codebook or no decoder", WHAT_TO_DO)
    try:
        return MaskVQVAEConfig(codes=codebook.shape[0], embedding_width=codebook.shape[1], hidden=first.shape[0])
    except ValueError as error:
        raise ModelError(f"{path} is not a mask decoder: {error}", WHAT_TO_DO) from error


def _check(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Raise ModelError unless the names, shapes and kinds of the tensors are those of the model."""
    for verb, names in ("lacks", wanted.keys() - given.keys()), ("has the unknown", given.keys() - wanted.keys()):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise ModelError(f"The mask decoder {path} {verb} {shown}", WHAT_TO_DO)
    for name, tensor in given.items():
        shape, expected = tuple(tensor.shape), tuple(wanted[name].shape)
        if shape != expected:
            raise ModelError(f"The mask decoder {path} has {name} as {shape} and not {expected}", WHAT_TO_DO)
        if not tensor.is_floating_point():
            raise ModelError(f"The mask decoder {path} has {name} as {tensor.dtype}, not as floats", WHAT_TO_DO)
