"""The bundled model: a tower, a small Gemma decoder, and PaliGemma's language."""

from torch import Tensor

from mmcli.engine.inputs import Inputs
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
        self.tower = NanoTower(config)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels)

    def prefix_masks(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        soft = inputs.tokens == self.image_token
        mask = prefix_mask(inputs.valid)
        return mask & (soft[:, None, None, :] | ~soft[:, None, :, None]), None
