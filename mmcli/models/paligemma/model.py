"""PaliGemma (arXiv:2407.07726) and PaliGemma 2 (arXiv:2412.03555): SigLIP, one linear layer, a Gemma decoder."""

from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.prefix_lm import PrefixLM
from mmcli.layers.siglip import SiglipTower
from mmcli.models.paligemma.config import PaliGemmaConfig


class PaliGemma(PrefixLM):
    """Images become P soft tokens each, in front of the prompt."""

    def __init__(self, config: PaliGemmaConfig):
        super().__init__(config.decoder, config.image_token, config.vocabulary_end)
        self.sliding_window = config.sliding_window
        self.vision = SiglipTower(config.vision)
        self.projector = nn.Linear(config.vision.width, config.decoder.width)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        return self.projector(self.vision(pixels))

    def step_masks(self, cache: KVCache) -> tuple[Tensor, Tensor | None]:
        """Full layers attend to everything; sliding layers of Gemma 2 only the window's last positions, own one
        included.

        The prefix is read in both directions whole, also by sliding layers (`prefix_masks` is the base's); the window
        begins to matter when writing. So does transformers (`PaliGemmaModel.forward`); big_vision has no window.
        """
        if self.sliding_window is None:
            return cache.step_mask(), None
        return cache.step_mask(), cache.step_mask(self.sliding_window)
