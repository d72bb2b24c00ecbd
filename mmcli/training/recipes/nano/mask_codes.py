"""Train the small mask VQ-VAE on the masks at hand, and write the masks of a batch as codes."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.decode import CODES
from mmcli.layers.mask_vqvae import MaskVQVAE, MaskVQVAEConfig
from mmcli.training.recipes.nano.packing import Batch

CONFIG = MaskVQVAEConfig(codes=128, embedding_width=64, hidden=64)


def train(masks: np.ndarray, device: torch.device, steps: int, batch: int = 1024, seed: int = 0) -> MaskVQVAE:
    """masks uint8 [count, 64, 64] → a trained model on `device`.

    Masks are flipped, shifted and stretched by a few pixels, because a crop seldom cuts a box exactly.
    """
    torch.manual_seed(seed)
    model = MaskVQVAE(CONFIG).to(device)
    data = torch.from_numpy(masks).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.05)
    for step in range(steps):
        x = _vary(data[torch.randint(len(data), (batch,), device=device)].float()[:, None] / 255)[:, 0]
        out, codebook, _ = model(x)
        loss = F.smooth_l1_loss(out, x * 2 - 1, beta=0.3) + codebook
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 50 and step < steps * 0.7:
            model.revive(x)
        if step % 500 == 0:
            print(f"mask step {step} loss {loss.item():.4f} iou {iou(model, x):.3f}", flush=True)
    return model.eval()


def _vary(x: Tensor) -> Tensor:
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0] = (torch.empty(len(x), device=x.device).uniform_(0.92, 1.06)) * (
        torch.randint(2, (len(x),), device=x.device) * 2 - 1
    )
    theta[:, 1, 1] = torch.empty(len(x), device=x.device).uniform_(0.92, 1.06)
    theta[:, :, 2] = torch.empty(len(x), 2, device=x.device).uniform_(-0.05, 0.05)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


@torch.no_grad()
def iou(model: MaskVQVAE, masks: Tensor) -> float:
    """Mean intersection over union of masks [B, 64, 64] and what comes back from their codes."""
    back, there = model.decode(model.encode(masks)) > 0, masks > 0.5
    inter, union = (back & there).sum((1, 2)), (back | there).sum((1, 2))
    return (inter / union.clamp(min=1)).mean().item()


@torch.no_grad()
def write(model: MaskVQVAE, outlines: Tensor, batch: Batch, seg_token: int) -> Batch:
    """A batch with the codes of its masks [B, MAX_MASKS, 64, 64] in their places."""
    codes = torch.zeros(*batch.masks.shape, CODES, dtype=torch.long, device=outlines.device)
    there = batch.masks >= 0
    codes[there] = model.encode(outlines[there])
    codes = F.pad(codes.flatten(1) + seg_token, (1, 0))  # cell 0: none
    written = codes.gather(1, batch.cell)
    target = torch.where(batch.cell > 0, written, batch.target)
    before = F.pad(batch.cell, (1, -1))  # cells of the tokens themselves
    tokens = torch.where(before > 0, F.pad(written, (1, -1)), batch.tokens)
    return replace(batch, tokens=tokens, target=target)
