"""What rows look at while they write, beside their tokens: the image inside the box, and what the detector saw."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcli.engine.kv_cache import KVCache, keep_rows
from mmcli.engine.row_state import RowState
from mmcli.models.nano.config import LOCATIONS, MASK_CODES, NanoConfig
from mmcli.models.nano.mask_tokens import CODES, MaskTokens

CORNERS = 4  # tokens of a box


@dataclass
class Writing(RowState):
    """The state of a batch's answers; it goes along in `KVCache.context`.

    A step that is made twice at one place (as when it is recorded for a CUDA graph) leaves what one would have left.
    """

    plane: Tensor  # [P, 64, h, w] of each image
    image: Tensor  # [B] which image a row is about
    masks: Tensor  # [B] whether a row writes mask codes
    written: Tensor  # [B, S] tokens by their places in the cache
    vectors: Tensor  # [B, 16, D] what the last box shows
    evidence: Tensor  # [P, 80] log-odds that a class is in each image

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; what is of an image is held once anyway."""
        for name in ("image", "masks", "written", "vectors"):
            setattr(self, name, keep_rows(getattr(self, name), rows, 0))

    def read(self, tokens: Tensor, cache: KVCache, cut: MaskTokens, config: NanoConfig) -> Tensor | None:
        """Take note of tokens [B] and return what to add to their embeddings [B, D]; None: nothing."""
        place = cache.cursor if cache.fixed else torch.tensor([cache.length - 1], device=tokens.device)
        self.written.index_copy_(1, place, tokens[:, None])
        if not cache.fixed and not bool(self.masks.any()):
            return None
        back = torch.arange(-CORNERS - CODES + 1, 1, device=tokens.device)
        last = self.written.index_select(1, (place + back).clamp(min=0))  # [B, 20], the newest at the end
        is_place = (last >= config.loc_token) & (last < config.loc_token + LOCATIONS)
        is_code = (last >= config.seg_token) & (last < config.seg_token + MASK_CODES)
        codes = is_code.flip(1).long().cumprod(1).sum(1)  # how many end the row
        begin = (last.shape[1] - CORNERS - codes).clamp(min=0)
        at = begin[:, None] + torch.arange(CORNERS, device=tokens.device)
        writes = self.masks & is_place.gather(1, at).all(1) & (codes < CODES)
        fresh = writes & (codes == 0)
        if cache.fixed or bool(fresh.any()):
            y0, x0, y1, x1 = ((last.gather(1, at) - config.loc_token).float() / (LOCATIONS - 1)).clamp(0, 1).unbind(1)
            boxes = torch.stack((x0, y0, x1, y1), 1)[:, None]
            shown = cut(self.plane.index_select(0, self.image), boxes)[:, 0].to(self.vectors.dtype)
            self.vectors.copy_(torch.where(fresh[:, None, None], shown, self.vectors))
        index = codes.clamp(max=CODES - 1)[:, None, None].expand(-1, 1, self.vectors.shape[-1])
        return self.vectors.gather(1, index)[:, 0] * writes[:, None]
