"""The bundled model: a tower, a small Gemma decoder, and PaliGemma's language."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import prefix_positions
from mmcli.layers.prefix_lm import PrefixLM
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.tower import NanoTower


@dataclass(frozen=True)
class Seen:
    """What nano makes of pictures before anything is asked: any number of questions can be asked about it."""

    store: Tensor  # [layers, 2, P, K, S, H] keys and values of the soft tokens of P pictures
    raw: list[Tensor]  # the detector's outputs for each stride [P, 80 + 32, h, w], as `picodet.PicoDet` gives them
    picture: Tensor | None = None  # [B] which picture each row of a batch is about; None: row i is about picture i

    def about(self, pictures: list[int]) -> "Seen":
        """The same for rows that are about these pictures."""
        return replace(self, picture=torch.tensor(pictures, device=self.store.device))


class Nano(PrefixLM):
    """Prefix language model over soft tokens.

    Soft tokens look only at each other; the prompt looks at them and at itself in both directions. So what the
    decoder makes of a picture does not depend on the question: several are asked after one `look`, and training packs
    several questions to a picture. In `Inputs` a row is its soft tokens, padding, and the prompt; `Inputs.context` may
    be what `look` gave.
    """

    def __init__(self, config: NanoConfig):
        super().__init__(config.decoder, config.image_token)
        self.config = config
        self.tower = NanoTower(config)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels)

    def look(self, pixels: Tensor) -> Seen:
        """Read pictures [P, 3, side, side] in 0..1."""
        found, raw = self.tower.detect(pixels)
        soft = self.tower.read(pixels, found, raw)
        valid = torch.ones(soft.shape[:2], dtype=torch.bool, device=soft.device)
        cache = self.new_cache(*soft.shape[:2])
        cache.extend(valid)
        mask = valid[:, None, None, :].expand(-1, -1, soft.shape[1], -1)
        self.decoder(soft.to(cache.store.dtype), prefix_positions(valid), mask, cache)
        return Seen(cache.store, raw)

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """As `PrefixLM.prefill`; an answer that finds nothing at once is held back by `absent_bias`.

        Half of the things that training asked for were absent; people mostly ask for what is there. The bias is the
        log-odds between those two expectations (Saerens et al. 2002, Neural Computation 14).
        """
        seen = self.look(inputs.pixels) if inputs.context is None else inputs.context
        soft = self.config.soft_tokens
        text, valid = inputs.tokens[:, soft:], inputs.valid[:, soft:]
        cache.extend(inputs.valid[:, :soft])
        store = seen.store if seen.picture is None else seen.store.index_select(2, seen.picture)
        cache.store[..., :soft, :] = store
        cache.extend(valid)
        mask = cache.valid[:, None, None, : cache.length].expand(-1, -1, text.shape[1], -1)
        positions = prefix_positions(inputs.valid)[:, soft:]
        hidden = self.decoder(self.decoder.embed(text), positions, mask, cache)
        logits = self._allowed(self.decoder.logits(hidden[:, -1]))
        word = torch.tensor(self.config.finding_tokens, device=text.device)
        begins = text[:, :-1] == self.config.bos_token
        finding = (begins & torch.isin(text[:, 1:], word)).any(dim=1)
        logits[finding, self.config.eos_token] -= self.config.absent_bias
        return logits
