"""The bundled model: a tower, a small Gemma decoder, and PaliGemma's language."""

import torch
from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import prefix_mask
from mmcli.layers.prefix_lm import PrefixLM
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.tower import NanoTower


class Nano(PrefixLM):
    """Prefix language model over soft tokens.

    Soft tokens look only at each other; the prompt looks at them and at itself in both directions. So what the
    decoder makes of a picture does not depend on the question, and training packs several questions to a picture.
    """

    def __init__(self, config: NanoConfig):
        super().__init__(config.decoder, config.image_token)
        self.config = config
        self.tower = NanoTower(config)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels)

    def prefix_masks(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        soft = inputs.tokens == self.image_token
        mask = prefix_mask(inputs.valid)
        return mask & (soft[:, None, None, :] | ~soft[:, None, :, None]), None

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """As `PrefixLM.prefill`; an answer that finds nothing at once is held back by `absent_bias`.

        Half of the things that training asked for were absent; people mostly ask for what is there. The bias is the
        log-odds between those two expectations (Saerens et al. 2002, Neural Computation 14).
        """
        logits = super().prefill(inputs, cache)
        word = torch.tensor(self.config.finding_tokens, device=inputs.tokens.device)
        begins = inputs.tokens[:, :-1] == self.config.bos_token
        finding = (begins & torch.isin(inputs.tokens[:, 1:], word)).any(dim=1)
        logits[finding, self.config.eos_token] -= self.config.absent_bias
        return logits
