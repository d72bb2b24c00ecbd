"""A model in memory with all that belongs to it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcli.errors import ModelError
from mmcli.hub.quantized import Storage
from mmcli.hub.resolve import Checkpoint
from mmcli.models.family import Family, Processor

if TYPE_CHECKING:
    import torch

    from mmcli.engine.model import GenerativeModel
    from mmcli.layers.mask_vqvae import MaskVQVAE

MASK_DECODERS = ("mask_decoder.safetensors", "vae-oid.npz")  # beside the weights, where a checkpoint brings its own


@dataclass
class Loaded:
    """A model in memory with all that belongs to it."""

    model: "GenerativeModel"
    processor: Processor
    checkpoint: Checkpoint
    config: Any  # the family's configuration
    device: "torch.device"
    dtype: "torch.dtype"
    mask_decoder: Path | None = None  # a file the user named; None: the checkpoint's own or the published one
    family: Family | None = field(default=None, repr=False)
    quantised: bool = False  # the family chose faster arithmetic (int8 products) than `dtype` says
    storage: Storage | None = None  # integers in which the decoder's weights are kept

    @cached_property
    def _mask_vqvae(self) -> "MaskVQVAE":
        from mmcli.hub.mask_decoder import fetch_vae_oid
        from mmcli.layers.mask_vqvae import load_mask_vqvae

        own = (self.checkpoint.folder / name for name in MASK_DECODERS)
        path = self.mask_decoder or next((path for path in own if path.is_file()), None) or fetch_vae_oid()
        # It is small and its answer is thresholded at zero: it always computes in float32.
        model = load_mask_vqvae(path)
        codes = self.processor.grammar.mask_codes if self.processor.grammar else 0
        if model.config.codes < codes:
            raise ModelError(f"The mask decoder {path} knows {model.config.codes} codes, but answers have {codes}")
        return model.to(self.device).eval()

    def mask_vqvae(self) -> "MaskVQVAE":
        """The mask codebook that belongs to the model; read, or downloaded, when first asked for. ModelError."""
        return self._mask_vqvae
