"""What the mask head is taught is what its boxes show."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mmcli.hub.layout import BUNDLED
from mmcli.layers.mask_vqvae import MaskVQVAE, MaskVQVAEConfig
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.efficientnet_lite import CHANNELS
from mmcli.models.nano.mask_head import CUT, INSIDE, MARGIN, MaskHead, cut
from mmcli.models.nano.picodet import NECK
from mmcli.training.recipes.nano import mask_batches, pixels
from mmcli.training.recipes.nano.annotations import LabelledBox, Photo
from mmcli.training.recipes.nano.train_masks import MaskTraining, Seen

SIDE = 320
TRIANGLE = ((96, 64), (256, 160), (96, 288))  # in an image of 320 × 320
BOX = (0.3, 0.2, 0.8, 0.9)


def photo(by_hand: bool) -> Photo:
    cat = LabelledBox("cat", BOX, mask=0)
    polygons = {0: [[v for point in TRIANGLE for v in point]]} if by_hand else {}
    return Photo(
        "a.webp", "images.zip", SIDE, SIDE, "coco", "train", (), ("cat",), [cat], frozenset(), (), frozenset(),
        polygons, [],
    )  # fmt: skip


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """An image [1, 3, 320, 320] of a white triangle on grey, and the triangle's mask [1, 64, 64], as bytes."""
    canvas = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(canvas).polygon(TRIANGLE, fill=255)
    box = tuple(SIDE * v for v in BOX)
    mask = np.array(canvas.resize((64, 64), Image.Resampling.BILINEAR, box=box))
    image = np.where(np.array(canvas) > 127, 255, 114).astype(np.uint8)  # grey as beyond the edges
    return torch.from_numpy(image).expand(1, 3, -1, -1).contiguous(), torch.from_numpy(mask)[None]


def batches(by_hand: bool = True, batch: int = 24) -> mask_batches.MaskBatch:
    folder = BUNDLED["nano"]
    config = NanoConfig.from_json(json.loads((folder / "config.json").read_text("utf-8")))
    tokenizer = (folder / "tokenizer.json").read_text("utf-8")
    return next(iter(mask_batches.MaskedCrops([photo(by_hand)], tokenizer, config, batch, seed=2)))


def test_each_outline_is_what_the_crop_shows_inside_of_its_box(monkeypatch):
    """Cut, mirrored, farther away, in boxes that are off: where the outline is, the crop is white, and nowhere else."""
    monkeypatch.setattr(pixels, "_jitter", lambda x: x)
    batch = batches()
    image, mask = drawn()
    x, _ = pixels.crop(image, torch.full((1, 128, 128), 255, dtype=torch.uint8), batch, 384, 32)
    outlines = pixels.outlines(mask, batch)
    shown = cut(x, batch.boxes, 2 * CUT)[:, 0, 2 * MARGIN : -2 * MARGIN, 2 * MARGIN : -2 * MARGIN]
    shown = ((shown - 114 / 255) / (141 / 255)).unflatten(0, outlines.shape[:2])
    assert shown.shape[-1] == 2 * INSIDE == outlines.shape[-1]
    assert batch.flipped.any() and (batch.mask_windows - torch.tensor([0.0, 0, 1, 1])).abs().max() > 0.1
    assert (shown - outlines).abs().mean((2, 3)).max() < 0.05


def test_masks_from_class_maps_weigh_less():
    assert (batches(by_hand=True, batch=2).weight == 1).all()
    assert batches(by_hand=False, batch=2).weight.unique().tolist() == [pytest.approx(mask_batches.CLASS_MAP)]


def test_the_losses_reach_the_whole_head_and_nothing_else():
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.tower = torch.nn.Module()
    model.tower.mask_head = MaskHead(8)
    codebook = MaskVQVAE(MaskVQVAEConfig(embedding_width=16, hidden=8)).requires_grad_(False)
    training = MaskTraining(model, codebook).train()
    maps = [torch.rand(1, CHANNELS[i], side, side) for i, side in enumerate((16, 8))]
    found = [torch.rand(1, NECK, side, side) for side in (10, 5)]
    outlines = (torch.rand(1, 2, 64, 64) > 0.5).float()
    weight = torch.tensor([[1.0, 0.0]])
    boxes = torch.tensor([[[0.1, 0.1, 0.6, 0.9], [0.2, 0.0, 1.0, 0.5]]])
    codes = codebook.encode(outlines[0])[None]
    seen = Seen(maps, found, torch.rand(1, 8, 4, 4), torch.rand(1, 3, 64, 64), outlines, codes, torch.rand(1, 2, 8),
                boxes, weight)  # fmt: skip
    losses = training.eval()(seen)
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in training.head.parameters())
    assert all(p.grad is None for p in codebook.parameters())
    other = outlines.clone()
    other[0, 1] = 1 - other[0, 1]
    changed = Seen(*(other if value is outlines else value for value in vars(seen).values()))
    torch.testing.assert_close(training(changed), losses)  # a weight of 0 counts for nothing
