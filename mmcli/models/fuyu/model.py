"""Fuyu (Adept, 2023): no tower; patches of an image enter the decoder through one linear layer, among its text."""

import torch
from torch import Tensor, nn

from mmcli.engine.inputs import Inputs
from mmcli.layers.causal_lm import CausalReader
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.decoder import PersimmonDecoder


class Fuyu(CausalReader):
    """The whole model. All reading is causal, also of images; no id is forbidden in the answer, as in the reference."""

    decoder: PersimmonDecoder

    prefill_records = True

    def __init__(self, config: FuyuConfig):
        super().__init__(config.image_token)
        self.decoder = PersimmonDecoder(config.decoder)
        self.patches = nn.Linear(config.patch_numbers, config.decoder.width)

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        """One vector for each patch: [patches, D]."""
        return self.patches(torch.cat(inputs.images))
