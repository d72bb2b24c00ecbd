"""What a training step computes: nano's losses on a batch, with its soft tokens and proposals disturbed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.decode import CODES
from mmcli.models.nano.config import CLASSES, NanoConfig
from mmcli.models.nano.model import Nano
from mmcli.models.nano.picodet import overlaps
from mmcli.models.nano.tower import Proposed
from mmcli.training.recipes.nano import packing

MAP_CELL = 4  # the auxiliary class map has this many cells along a grid token
VOC_CLASSES = 21
SIGMA = 3.0  # of the softened places, in location bins
NO_GRID, NO_PROPOSALS = 0.12, 0.08  # rows that see only the one or only the other
DROPOUT, BLOCK_DROP, CLASSIFIER_DROP = 0.15, 0.2, 0.3
WEIGHTS = {"map": 0.2, "cells": 0.5, "outline": 1.0, "proposals": 0.25, "presence": 0.1}
PARTS = ("text", *WEIGHTS)
RIGHT = 0.5  # overlap from which on a proposal is of an object
UNLIKELY = 2.0  # weight of not writing the names of what is absent, beside a written word's


@dataclass(frozen=True)
class Doubt:
    """How much less the detector is believed: on photographs at large, and on those it was trained on."""

    drop: tuple[float, float] = (0.05, 0.25)  # proposals left out
    shift: tuple[float, float] = (0.4, 1.5)  # logits lowered by up to this
    noise: tuple[float, float] = (0.2, 0.6)  # deviation added to each logit
    jitter: tuple[float, float] = (0.015, 0.04)  # of the boxes' corners, in shares of their sides


class TrainingModel(nn.Module):
    """Nano with heads that keep features in their places; they are dropped after training."""

    soft_places: Tensor
    name_tokens: Tensor
    name_means: Tensor

    def __init__(self, config: NanoConfig, kept: int = 0):
        super().__init__()
        self.nano = Nano(config)
        self.kept = kept or config.grid**2  # grid tokens that the decoder gets to read
        self.map_head = nn.Linear(config.decoder.width, MAP_CELL**2 * VOC_CLASSES)
        self.cell_head = nn.Linear(config.decoder.width, CLASSES)
        for head in (self.cell_head, self.nano.classifier.proposals, self.nano.classifier.image):
            nn.init.constant_(head.bias, -4.0)
        bins = torch.arange(1024.0)
        soft = torch.exp(-0.5 * ((bins[:, None] - bins[None, :]) / SIGMA) ** 2)
        self.register_buffer("soft_places", soft / soft.sum(1, keepdim=True), persistent=False)
        # Words that name something, and the classes each may mean.
        tokens = torch.tensor([entry[0] for entry in config.names], dtype=torch.long)
        means = torch.zeros(len(config.names), CLASSES)
        for row, (_, *classes) in zip(means, config.names, strict=True):
            row[classes] = 1.0
        self.register_buffer("name_tokens", tokens, persistent=False)
        self.register_buffer("name_means", means, persistent=False)
        self.doubt = Doubt()
        # Against learning the images by heart; hooks, so that the model itself knows nothing of it.
        for layer in cast(Iterable[Any], self.nano.decoder.layers):
            for half in (layer.attention, layer.mlp):
                half.register_forward_hook(self._dropout)
        blocks = [block for stage in self.nano.tower.features.stages for block in stage if block.residual]
        for i, block in enumerate(blocks):
            rate = BLOCK_DROP * (i + 1) / len(blocks)
            block.project.register_forward_hook(lambda _, __, out, rate=rate: self._drop_rows(out, rate))
        self.nano.tower.grid_in.register_forward_pre_hook(lambda _, inputs: (self._dropout(None, None, inputs[0]),))

    def _dropout(self, _: nn.Module | None, __: tuple | None, out: Tensor) -> Tensor:
        return F.dropout(out, DROPOUT, self.training)

    def _drop_rows(self, out: Tensor, rate: float) -> Tensor:
        """Stochastic depth (arXiv:1603.09382): some images pass a block by."""
        if not self.training:
            return out
        keep = (torch.rand(len(out), 1, 1, 1, device=out.device) >= rate).to(out.dtype)
        return out * keep / (1 - rate)

    def forward(self, x: Tensor, maps: Tensor, outlines: Tensor, *fields: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels, class maps, masks [B, MAX_MASKS, 64, 64] and the fields of a batch → (loss, its PARTS)."""
        nano, config, b = self.nano, self.nano.config, packing.Batch(*fields)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            found, raw = nano.tower.detect(x)  # frozen, and in full precision: boxes are copied from it
            proposed, dropped = self._doubted(nano.tower.propose(raw, found), b)
        soft, planes = nano.tower.read(x, found, proposed, nano.class_words())
        grid = soft[:, : config.grid**2]
        map_loss, cell_loss = self._map_loss(grid, maps), self._cell_loss(grid, b)
        words = nano.decoder.embedding(b.tokens) * config.decoder.width**0.5
        _, drawn = nano.tower.mask_head(planes.maps, planes.pixels, b.mask_boxes, self._asked(words.detach(), b))
        outline_loss = self._outline_loss(drawn.float(), outlines, b)
        soft, places, hidden = self._hidden(soft.to(words.dtype), dropped, b)
        mask = self.mask(b, hidden)
        count = soft.shape[1]
        out = nano.decoder(torch.cat((soft, words), 1), torch.cat((places, b.position), 1), mask)
        text_loss = self._text_loss(nano.decoder.logits(out[:, count:]).log_softmax(-1), b, config)
        classified_loss, there_loss = self._classifier_losses(out[:, :count], hidden, proposed[0], b)
        parts = (text_loss, map_loss, cell_loss, outline_loss, classified_loss, there_loss)
        weights = (1.0, *WEIGHTS.values())
        loss = sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(text_loss))
        return loss, torch.stack(parts).detach()

    def _doubted(self, proposed: Proposed, b: packing.Batch) -> tuple[Proposed, Tensor]:
        """The proposals as the decoder gets to see them, and which of them [B, P] are left out."""
        boxes, logits, features = proposed
        layout, known = b.kind == packing.LAYOUT, (b.kind == packing.KNOWN).float()
        made = self._from_layout(b, boxes.shape[1])
        boxes = torch.where(layout[:, None, None], made[0], boxes)
        logits = torch.where(layout[:, None, None], made[1], logits)
        features = torch.where(layout[:, None, None], torch.zeros_like(features), features)

        def of(pair: tuple[float, float]) -> Tensor:
            return (pair[0] + (pair[1] - pair[0]) * known)[:, None, None]

        d = self.doubt
        if not self.training:
            d = Doubt((0, 0), (0, 0), (0, 0), (0, 0))
        shift = torch.rand(logits.shape[:2], device=logits.device)[..., None] * of(d.shift)
        logits = logits - shift + torch.randn_like(logits) * of(d.noise)
        size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
        boxes = (boxes + torch.randn_like(boxes) * size * of(d.jitter)).clamp(0, 1)
        dropped = torch.rand(boxes.shape[:2], device=boxes.device) < of(d.drop)[..., 0]
        return (boxes, logits, features), dropped | (layout[:, None] & made[2])

    def _from_layout(self, b: packing.Batch, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What a detector might propose for the objects of a row: boxes, logits, and which places stay empty."""
        boxes, labels = b.boxes[:, :count], b.labels[:, :count]
        there = labels >= 0
        logits = torch.randn(*labels.shape, CLASSES, device=boxes.device) * 1.2 - 5.5
        sure = torch.randn(labels.shape, device=boxes.device) * 1.3 + 0.6
        logits = logits.scatter(-1, labels.clamp(min=0)[..., None], sure[..., None])
        return boxes, logits, ~there

    def _hidden(self, soft: Tensor, dropped: Tensor, b: packing.Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Soft tokens of a part of the grid and all proposals, their places, and which of them [B, S] nobody sees."""
        batch, device, cells = len(soft), soft.device, self.nano.config.grid**2
        count = soft.shape[1]
        rows = torch.rand(batch, 1, device=device)
        layout = (b.kind == packing.LAYOUT)[:, None]
        if not self.training:
            rows = torch.full_like(rows, 0.5)
        no_grid = (rows < NO_GRID) | layout
        no_proposals = (rows > 1 - NO_PROPOSALS) & ~layout
        hidden = torch.cat((no_grid.expand(-1, cells), dropped | no_proposals), 1)
        places = torch.arange(count, device=device).expand(batch, -1)
        if self.kept < cells and self.training:
            chosen = torch.rand(batch, cells, device=device).topk(self.kept, dim=1).indices
            chosen = torch.cat((chosen, places[:, cells:]), 1)
            soft = soft.gather(1, chosen[..., None].expand(-1, -1, soft.shape[-1]))
            places, hidden = chosen, hidden.gather(1, chosen)
        return soft, places, hidden

    def mask(self, b: packing.Batch, hidden: Tensor) -> Tensor:
        """Soft tokens see each other but for the hidden; a question sees them and itself, answers causally."""
        (batch, places), length, keep = hidden.shape, b.tokens.shape[1], ~hidden
        same = (b.question[:, :, None] == b.question[:, None, :]) & (b.question[:, None, :] > 0)
        order = torch.arange(length, device=hidden.device)
        ahead = (order[:, None] >= order[None, :]) | (b.part == packing.PREFIX)[:, None, :]
        ahead = ahead & ~((b.part == packing.PREFIX)[:, :, None] & (b.part == packing.SUFFIX)[:, None, :])
        top = torch.cat((keep[:, None, :].expand(-1, places, -1), same.new_zeros(batch, places, length)), 2)
        low = torch.cat((keep[:, None, :].expand(-1, length, -1), same & ahead), 2)
        own = torch.eye(places + length, dtype=torch.bool, device=hidden.device)
        return (torch.cat((top, low), 1) | own)[:, None]

    def _asked(self, words: Tensor, b: packing.Batch) -> Tensor:
        """What each mask is asked for, as `Nano.asked_words` has it: the mean of its question's words [B, M, D]."""
        first = 1 + CODES * torch.arange(b.masks.shape[1], device=words.device)
        number = ((b.cell[:, None] == first[:, None]) * b.question[:, None]).amax(-1)  # [B, M]
        asked = (b.question[:, None] == number[..., None]) & (b.part == packing.PREFIX)[:, None]
        asked = asked & (number > 0)[..., None]
        return (asked.to(words.dtype) @ words) / asked.sum(-1, keepdim=True).clamp(min=1)

    def _text_loss(self, logp: Tensor, b: packing.Batch, config: NanoConfig) -> Tensor:
        target = b.target.clamp(min=0)
        hard = logp.gather(-1, target[..., None])[..., 0]
        low = config.loc_token
        is_place = (target >= low) & (target < low + 1024)
        softened = self.soft_places[(target - low).clamp(0, 1023)]
        soft = (softened * logp[..., low : low + 1024]).sum(-1)
        weight = b.weight * (b.target >= 0)
        likely = -(torch.where(is_place, soft, hard) * weight).sum()
        return (likely + UNLIKELY * self._unlikelihood(logp, b)) / weight.sum()

    def _unlikelihood(self, logp: Tensor, b: packing.Batch) -> Tensor:
        """How likely sentences go on with the name of an object that is absent (Welleck et al., arXiv:1908.04319)."""
        absent = b.known & ~self._present(b)
        absent = ~((~absent).float() @ self.name_means.T > 0)  # [B, names]
        share = logp[..., self.name_tokens].exp() * absent[:, None]
        share = share * (self.name_tokens != b.target[..., None])  # people may name what nobody boxed
        weight = (b.sentence & (b.target >= 0)) * b.weight
        return -(torch.log1p(-share.sum(-1).clamp(max=0.99)) * weight).sum()

    def _present(self, b: packing.Batch) -> Tensor:
        """Which classes a row shows [B, 80]."""
        classes = F.one_hot(b.labels.clamp(min=0), CLASSES).bool() & (b.labels >= 0)[..., None]
        return classes.any(1)

    def _classifier_losses(self, out: Tensor, hidden: Tensor, boxes: Tensor, b: packing.Batch) -> tuple[Tensor, Tensor]:
        """Whether each proposal is right about each class, and which classes the image shows.

        out [B, S, D]: what the decoder made of the grid and the proposals, of which `hidden` [B, S] take no part.
        """
        grid, objects = out.split((out.shape[1] - boxes.shape[1], boxes.shape[1]), 1)
        seen = ~hidden[:, : grid.shape[1]]
        image = (grid * seen[..., None]).sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
        classified, there = self.nano.classifier(
            *(F.dropout(x, CLASSIFIER_DROP, self.training) for x in (objects, image))
        )
        over = overlaps(boxes, b.boxes) * (b.labels >= 0)[:, None]  # [B, N, BOXES]
        classes = F.one_hot(b.labels.clamp(min=0), CLASSES).to(over.dtype)
        right = ((over >= RIGHT).to(over.dtype) @ classes).clamp(max=1)
        use = (b.known[:, None] | (right > 0)) & ~hidden[:, grid.shape[1] :, None]
        use = use & (b.kind != packing.LAYOUT)[:, None, None]
        loss = F.binary_cross_entropy_with_logits(classified, right, reduction="none") * use
        proposal_loss = loss.sum() / (right * use).sum().clamp(min=1)
        present = self._present(b)
        use = (b.known | present) & seen.any(1, keepdim=True)
        loss = F.binary_cross_entropy_with_logits(there, present.float(), reduction="none") * use
        return proposal_loss, loss.sum() / (present & use).sum().clamp(min=1)

    def _map_loss(self, grid: Tensor, maps: Tensor) -> Tensor:
        side = self.nano.config.grid
        out = self.map_head(grid).unflatten(1, (side, side)).unflatten(-1, (MAP_CELL, MAP_CELL, VOC_CLASSES))
        out = out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        loss = F.cross_entropy(out.float(), maps, ignore_index=255, reduction="sum")
        return loss / (maps != 255).sum().clamp(min=1)

    def _cell_loss(self, grid: Tensor, b: packing.Batch) -> Tensor:
        """Which classes' boxes cover the middle of each cell, on crops whose every box is known."""
        side = self.nano.config.grid
        at = (torch.arange(side, device=grid.device) + 0.5) / side
        low, high = b.boxes[..., :2], b.boxes[..., 2:]
        across = (at >= low[..., 0:1]) & (at <= high[..., 0:1])  # [B, M, side]
        down = (at >= low[..., 1:2]) & (at <= high[..., 1:2])
        covered = (down[..., :, None] & across[..., None, :]).flatten(2) & (b.labels >= 0)[..., None]
        classes = F.one_hot(b.labels.clamp(min=0), CLASSES).float()
        target = (covered.float().transpose(1, 2) @ classes).clamp(max=1)
        loss = F.binary_cross_entropy_with_logits(self.cell_head(grid).float(), target, reduction="none").mean((1, 2))
        use = (b.known.all(1) & (b.kind != packing.LAYOUT)).float()
        return (loss * use).sum() / use.sum().clamp(min=1) * 10

    def _outline_loss(self, drawn: Tensor, outlines: Tensor, b: packing.Batch) -> Tensor:
        """The mask head learns its codes afterwards (`train_masks`); here it draws, so that the tower learns for it."""
        loss = F.binary_cross_entropy_with_logits(drawn, outlines, reduction="none").mean((2, 3))
        use = (b.masks >= 0).float()
        return (loss * use).sum() / use.sum().clamp(min=1)


def initial(config: NanoConfig, kept: int = 0) -> TrainingModel:
    """Fresh weights. Places start as waves, so that neighbours are alike from the first step."""
    model = TrainingModel(config, kept)
    width = config.decoder.width
    for name, p in model.nano.decoder.named_parameters():
        if p.dim() == 2:
            std = width**-0.5 if "embedding" in name else p.shape[1] ** -0.5
            if name.endswith(("out.weight", "down.weight")):
                std /= math.sqrt(2 * config.decoder.depth)
            nn.init.normal_(p, std=std)
    rate = torch.logspace(0, math.log10(256), width // 2) * math.pi
    angle = torch.linspace(0, 1, 1024)[:, None] * rate
    with torch.no_grad():
        rows = slice(config.loc_token, config.loc_token + 1024)
        model.nano.decoder.embedding.weight[rows] = torch.cat((angle.sin(), angle.cos()), 1) * width**-0.5
        nn.init.normal_(model.nano.tower.grid_position, std=0.5)
        model.nano.tower.proposal_word.weight.copy_(torch.eye(width) * 0.5)
    return model
