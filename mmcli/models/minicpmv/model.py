"""MiniCPM-V: slices of images through a tower and a resampler, then a decoder that reads them among its text."""

from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.layers.causal_lm import CausalLM
from mmcli.models.minicpmv.config import MiniCPMVConfig
from mmcli.models.minicpmv.vision import Vision

PLACE = -1  # stands for a soft token among ids: no token of the vocabulary can be taken for it


class MiniCPMV(CausalLM):
    """The whole model. No id is forbidden in the answer, as in the reference."""

    prefill_records = True

    def __init__(self, config: MiniCPMVConfig):
        super().__init__(config.decoder, PLACE)
        self.config = config
        self.vision = Vision(config.vision, config.places, config.resampler)

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        """The resampler's vectors of every slice, in order."""
        return self.vision(inputs.images)
