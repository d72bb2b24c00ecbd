"""SmolVLM (arXiv:2504.05299) and SmolVLM2: SigLIP on tiles, patches put together, a Llama-type decoder.

The layout is that of Idefics 3 (arXiv:2408.12637).
"""

import torch
from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.causal_lm import CausalLM
from mmcli.layers.siglip import SiglipTower, fractional_positions
from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.connector import Connector

# Tiles in the tower at once: more of them get no faster, and their vectors are large.
AT_ONCE = 16


class SmolVLM(CausalLM):
    """Images become tiles, and these soft tokens among those of the text. All reading is causal.

    Forbidden in the answer is the image token, which only keeps a place.
    """

    def __init__(self, config: SmolVLMConfig):
        super().__init__(config.decoder, config.image_token)
        self.config = config
        self.vision = SiglipTower(config.vision)
        self.connector = Connector(config.vision.width, config.scale, config.decoder.width)

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        """All tiles of all images [tiles, 3, side, side] → the vectors of their places, [places, D]."""
        parts = torch.cat(inputs.images).split(AT_ONCE)
        return torch.cat([self.connector(self._patches(tiles)) for tiles in parts]).flatten(0, 1)

    def _patches(self, tiles: Tensor) -> Tensor:
        own = self.config.vision
        rows, columns = (side // own.patch_size for side in tiles.shape[-2:])
        return self.vision(tiles, fractional_positions(rows, columns, own.image_size // own.patch_size))

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch behind what the cache holds → logits [B, V] of the first token to write."""
        return self._allowed(super().prefill(inputs, cache))

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        return self._allowed(super().step(tokens, cache))

    def _allowed(self, logits: Tensor) -> Tensor:
        logits[..., self.image_token : self.image_token + 1] = -torch.inf
        return logits
