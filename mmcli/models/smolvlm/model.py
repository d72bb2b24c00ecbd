"""SmolVLM (arXiv:2504.05299) and SmolVLM2: SigLIP on tiles, patches put together, a Llama-type decoder.

The layout is that of Idefics 3 (arXiv:2408.12637).
"""

import torch
from torch import Tensor

from mmcli.engine.device import bfloat16_pays, int8_pays
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.causal_lm import CausalLM
from mmcli.layers.int8 import Quantisable, in_int8, packed_kind
from mmcli.layers.siglip import SiglipTower
from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.connector import Connector

AT_ONCE = 16  # tiles in the tower on a GPU; on a CPU one at a time stays in its cache


class SmolVLM(Quantisable, CausalLM):
    """Images become tiles, and these soft tokens among those of the text. All reading is causal.

    Forbidden in the answer is the image token, which only keeps a place.
    """

    prefill_records = True

    def __init__(self, config: SmolVLMConfig):
        super().__init__(config.decoder, config.image_token)
        self.config = config
        self.vision = SiglipTower(config.vision)
        self.connector = Connector(config.vision.width, config.scale, config.decoder.width)

    def quantise(self) -> bool:
        """bfloat16 where this CPU multiplies it natively, else products of tower and head in int8 where it has those.

        With random weights of the 256M's size a tower in int8 moves the logits by 1.3 %, less than a decoder in
        bfloat16 does (2 %), and it is nine tenths of reading an image. A decoder in int8 would move them by 8 %, so
        its layers stay as they are.
        """
        if bfloat16_pays():
            self.to(torch.bfloat16)
            return False
        if not int8_pays():
            return False
        in_int8(self.vision.layers, packed_kind())
        self.decoder.quantise_head()
        return True

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        """All tiles of all images [tiles, 3, side, side] → the vectors of their places, [places, D]."""
        on_cpu = self.vision.position.device.type == "cpu"
        parts = torch.cat(inputs.images).split(1 if on_cpu else AT_ONCE)
        return torch.cat([self.connector(self.vision.read_any(tiles)) for tiles in parts]).flatten(0, 1)

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch behind what the cache holds → logits [B, V] of the first token to write."""
        return self._allowed(super().prefill(inputs, cache))

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        return self._allowed(super().step(tokens, cache))

    def _allowed(self, logits: Tensor) -> Tensor:
        place = self.config.image_token
        logits[..., place : place + 1] = -torch.inf  # nothing, where the head has no row for it
        return logits
