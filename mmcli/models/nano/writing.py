"""What answers go by while they are written, beside their tokens: what their boxes show, and what is in the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcli.decode import CODES, CORNERS, LOCATIONS, MASK_CODES
from mmcli.engine.kv_cache import KVCache, keep_rows
from mmcli.engine.row_state import RowState
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.mask_planes import MaskPlanes
from mmcli.models.nano.tower import NanoTower

ROWS = ("image", "masks", "written", "words", "logits")  # what rows have of their own


@dataclass
class Writing(RowState):
    """The state of a batch's answers; it goes along in `KVCache.context`.

    A step that is made twice at one place (as when it is recorded for a CUDA graph) leaves what one would have left.
    """

    planes: MaskPlanes
    image: Tensor  # [B] which image a row is about
    masks: Tensor  # [B] whether a row writes mask codes
    written: Tensor  # [B, S] tokens by their places in the cache
    words: Tensor  # [B, D] what is asked for
    logits: Tensor  # [B, 16, 128] of the codes of the last box
    evidence: Tensor  # [P, 80] log-odds that a class is in each image
    given: bool  # the box is known beforehand
    any_masks: bool  # some row writes mask codes

    @classmethod
    def begin(
        cls,
        planes: MaskPlanes,
        image: Tensor,
        masks: Tensor,
        written: Tensor,
        words: Tensor,
        evidence: Tensor,
        outlined: Tensor | None,
        tower: NanoTower,
    ) -> "Writing":
        """Nothing is written yet; `outlined` [B, 4] are the boxes whose masks will be, where these are known."""
        if outlined is None:
            logits = words.new_zeros(len(words), CODES, MASK_CODES)
        else:
            logits = code_logits(tower, planes, image, outlined, words)
        given, any_masks = outlined is not None, bool(masks.any())
        if any_masks:
            _ = planes.maps  # made now: a step may be recorded
        return cls(planes, image, masks, written, words, logits, evidence, given, any_masks)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; what is of an image is held once anyway."""
        for name in ROWS:
            setattr(self, name, keep_rows(getattr(self, name), rows, 0))

    def read(self, tokens: Tensor, cache: KVCache, tower: NanoTower, config: NanoConfig) -> Tensor | None:
        """Take note of tokens [B] and return what to add to the logits of the codes [B, 128]; None: nothing."""
        place = cache.cursor if cache.fixed else torch.tensor([cache.length - 1], device=tokens.device)
        self.written.index_copy_(1, place, tokens[:, None])
        if not self.any_masks:
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
        if not self.given and (cache.fixed or bool(fresh.any())):
            boxes = box_of(last.gather(1, at) - config.loc_token)
            logits = code_logits(tower, self.planes, self.image, boxes, self.words)
            self.logits.copy_(torch.where(fresh[:, None, None], logits.to(self.logits.dtype), self.logits))
        index = codes.clamp(max=CODES - 1)[:, None, None].expand(-1, 1, MASK_CODES)
        return self.logits.gather(1, index)[:, 0] * writes[:, None]


def box_of(locations: Tensor) -> Tensor:
    """Places y0, x0, y1, x1 [B, 4] → boxes x0, y0, x1, y1 in 0..1."""
    y0, x0, y1, x1 = (locations.float() / (LOCATIONS - 1)).clamp(0, 1).unbind(1)
    return torch.stack((x0, y0, x1, y1), 1)


def code_logits(tower: NanoTower, planes: MaskPlanes, image: Tensor, boxes: Tensor, words: Tensor) -> Tensor:
    """`NanoTower.mask_logits` of rows that are about these images; one by one on a CPU, for its cache."""
    size = 1 if boxes.device.type == "cpu" else len(boxes)
    parts = (part.split(size) for part in (image, boxes, words))
    return torch.cat([tower.mask_logits(planes.of(own), *rest) for own, *rest in zip(*parts, strict=True)])
