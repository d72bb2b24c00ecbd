"""OmniLMM: EVA-02-E, a resampler, and Mistral's decoder (OpenBMB/MiniCPM-V `omnilmm/model/omnilmm.py`)."""

import torch
from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.layers.causal_lm import CausalLM
from mmcli.layers.resampler import Resampler
from mmcli.models.omnilmm.config import OmniLMMConfig
from mmcli.models.omnilmm.eva import EvaTower
from mmcli.models.omnilmm.layout import IMAGE_TOKEN

AT_ONCE = 16  # images in the tower


class OmniLMM(CausalLM):
    """The whole model. No id is forbidden in the answer, as in the reference.

    config.json does not number the token that keeps an image's places, so they hold one that no token has.
    """

    prefill_records = True

    def __init__(self, config: OmniLMMConfig):
        super().__init__(config.decoder, image_token=IMAGE_TOKEN)
        self.vision = EvaTower(config.vision)
        self.resampler = Resampler(config.resampler)

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        grid = self.vision.config.grid
        parts = [inputs.images[first : first + AT_ONCE] for first in range(0, len(inputs.images), AT_ONCE)]
        soft = [self.resampler(self.vision(torch.stack(part)), [(grid, grid)] * len(part)) for part in parts]
        return torch.cat(soft).flatten(0, 1)
