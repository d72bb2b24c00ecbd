"""Train nano: `python -m mmcli.training.nano.train --data FOLDER --init FILE --out FOLDER --minutes 25`.

The run goes by the clock: the learning rate falls to zero when the minutes are over, so the same command suits any
machine. `--resume` goes on from the checkpoint in the output folder, `--weights` starts from finished weights.
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmcli.layers.mask_vqvae import load_mask_vqvae
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.model import Nano
from mmcli.training.nano import mask_codes, masks, packing, pixels
from mmcli.training.nano.annotations import read_photos

MAP_CELL = 4  # the auxiliary class map has this many cells along a grid token
VOC_CLASSES = 21
SIGMA = 3.0  # of the softened places, in location bins


class Lesson(nn.Module):
    """Nano with a class-map head on its grid, which keeps features in their places; it is dropped after training."""

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.nano = Nano(config)
        self.map_head = nn.Linear(config.decoder.width, MAP_CELL**2 * VOC_CLASSES)
        bins = torch.arange(1024.0)
        soft = torch.exp(-0.5 * ((bins[:, None] - bins[None, :]) / SIGMA) ** 2)
        self.register_buffer("soft_places", soft / soft.sum(1, keepdim=True), persistent=False)

    def forward(self, x: Tensor, maps: Tensor, *fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels and the fields of a batch → (loss, text loss, map loss)."""
        nano, config, b = self.nano, self.nano.tower.config, packing.Batch(*fields)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            found, raw = nano.tower.detect(x)  # frozen, and in full precision: boxes are copied from it
        soft = nano.tower.read(x, found, raw)
        map_loss = self._map_loss(soft[:, : config.grid**2], maps)
        words = nano.decoder.embedding(b.tokens) * config.decoder.width**0.5
        soft = soft.to(words.dtype)
        places = torch.arange(soft.shape[1], device=x.device).expand(len(x), -1)
        hidden = nano.decoder(torch.cat((soft, words), 1), torch.cat((places, b.position), 1), self._mask(b, soft))
        logp = nano.decoder.logits(hidden[:, soft.shape[1] :]).log_softmax(-1)
        text_loss = self._text_loss(logp, b, config)
        return text_loss + 0.3 * map_loss, text_loss.detach(), map_loss.detach()

    def _mask(self, b: packing.Batch, soft: Tensor) -> Tensor:
        """Soft tokens see each other but for some dropped ones; a question sees them and itself, answers causally."""
        batch, places, length = soft.shape[0], soft.shape[1], b.tokens.shape[1]
        rate = (torch.rand(batch, 1, device=soft.device) - 0.5).clamp(min=0) * 0.6
        keep = torch.rand(batch, places, device=soft.device) >= rate
        same = (b.question[:, :, None] == b.question[:, None, :]) & (b.question[:, None, :] > 0)
        order = torch.arange(length, device=soft.device)
        ahead = (order[:, None] >= order[None, :]) | (b.part == packing.PREFIX)[:, None, :]
        ahead = ahead & ~((b.part == packing.PREFIX)[:, :, None] & (b.part == packing.SUFFIX)[:, None, :])
        top = torch.cat((keep[:, None, :].expand(-1, places, -1), same.new_zeros(batch, places, length)), 2)
        low = torch.cat((keep[:, None, :].expand(-1, length, -1), same & ahead), 2)
        own = torch.eye(places + length, dtype=torch.bool, device=soft.device)
        return (torch.cat((top, low), 1) | own)[:, None]

    def _text_loss(self, logp: Tensor, b: packing.Batch, config: NanoConfig) -> Tensor:
        target = b.target.clamp(min=0)
        hard = logp.gather(-1, target[..., None])[..., 0]
        low = config.loc_token
        is_place = (target >= low) & (target < low + 1024)
        softened = self.soft_places[(target - low).clamp(0, 1023)]
        soft = (softened * logp[..., low : low + 1024]).sum(-1)
        weight = b.weight * (b.target >= 0)
        return -(torch.where(is_place, soft, hard) * weight).sum() / weight.sum()

    def _map_loss(self, grid: Tensor, maps: Tensor) -> Tensor:
        side = self.nano.tower.config.grid
        out = self.map_head(grid).unflatten(1, (side, side)).unflatten(-1, (MAP_CELL, MAP_CELL, VOC_CLASSES))
        out = out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return F.cross_entropy(out.float(), maps, ignore_index=255)


def initial(config: NanoConfig, init: Path) -> Lesson:
    """Fresh weights, published towers. Places start as waves, so that neighbours are alike from the first step."""
    lesson = Lesson(config)
    width = config.decoder.width
    for name, p in lesson.nano.decoder.named_parameters():
        if p.dim() == 2:
            std = width**-0.5 if "embedding" in name else p.shape[1] ** -0.5
            if name.endswith(("out.weight", "down.weight")):
                std /= math.sqrt(2 * config.decoder.depth)
            nn.init.normal_(p, std=std)
    rate = torch.logspace(0, math.log10(256), width // 2) * math.pi
    angle = torch.linspace(0, 1, 1024)[:, None] * rate
    with torch.no_grad():
        rows = slice(config.loc_token, config.loc_token + 1024)
        lesson.nano.decoder.embedding.weight[rows] = torch.cat((angle.sin(), angle.cos()), 1) * width**-0.5
        nn.init.normal_(lesson.nano.tower.grid_position, std=0.5)
    towers = load_file(init)
    for name in ("features", "detector"):
        part = {key.removeprefix(name + "."): value for key, value in towers.items() if key.startswith(name + ".")}
        getattr(lesson.nano.tower, name).load_state_dict(part)
    return lesson


def groups(lesson: Lesson) -> list[dict]:
    """The published tower learns slowly, norms and biases do not decay, the detector is frozen."""
    lesson.nano.tower.detector.requires_grad_(False)
    tower, decay, plain = [], [], []
    for name, p in lesson.named_parameters():
        if p.requires_grad:
            (tower if "tower.features" in name else decay if p.dim() > 1 else plain).append(p)
    return [
        {"params": tower, "scale": 0.25, "weight_decay": 0.02},
        {"params": decay, "scale": 1.0, "weight_decay": 0.1},
        {"params": plain, "scale": 1.0, "weight_decay": 0.0},
    ]


def save_half(lesson: Lesson, path: Path) -> None:
    state = {k: v.detach().half().contiguous().cpu() for k, v in lesson.nano.state_dict().items()}
    save_file(state, path)


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    config = NanoConfig.from_json(json.loads(args.config.read_text()))
    began = time.time()
    photos = [p for p in read_photos(args.data) if p.split == "train"]
    all_masks = masks.collect(photos, args.data)
    print(f"{len(photos)} photos, {len(all_masks)} masks, {time.time() - began:.0f} s", flush=True)
    mask_file = args.out / "mask_vqvae.safetensors"
    if not mask_file.exists():
        model = mask_codes.train(all_masks, device, args.mask_steps)
        save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, mask_file)
    codes = mask_codes.encode_all(load_mask_vqvae(mask_file).to(device), all_masks, device)
    pictures, maps = (t.to(device) for t in pixels.load(photos, args.data, args.workers))
    print(f"pictures loaded, {time.time() - began:.0f} s", flush=True)
    data = packing.Questions(photos, codes, args.tokenizer.read_text(), config, args.batch, args.seed)
    loader = DataLoader(data, batch_size=None, num_workers=args.workers, prefetch_factor=4 if args.workers else None)
    torch.manual_seed(args.seed)
    lesson = initial(config, args.init)
    if args.weights:
        lesson.nano.load_state_dict(load_file(args.weights))
    lesson.to(device)
    _run(lesson, loader, pictures, maps, config, args)


def _run(lesson: Lesson, loader: DataLoader, pictures: Tensor, maps: Tensor, config: NanoConfig, args) -> None:
    device = pictures.device
    torch.set_float32_matmul_precision("high")
    optimizer = torch.optim.AdamW(groups(lesson), lr=args.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
    shadow = [p.detach().clone() for p in lesson.parameters()]
    step_of = torch.compile(lesson) if args.compile else lesson
    spent, step, checkpoint = 0.0, 0, args.out / "checkpoint.pt"
    if args.resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        lesson.load_state_dict(saved["lesson"])
        optimizer.load_state_dict(saved["optimizer"])
        shadow, spent, step = saved["shadow"], saved["spent"], saved["step"]
    total, last, sums, warm = args.minutes * 60, time.time(), torch.zeros(2, device=device), step + 300
    saved_at = last
    for batch in loader:
        fields = [getattr(batch, f.name).to(device, non_blocking=True) for f in dataclasses.fields(batch)]
        with torch.no_grad():
            x, m = pixels.crop(pictures, maps, packing.Batch(*fields), config.image_size, config.grid * MAP_CELL)
        rate = args.rate * min(1.0, (step + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent / total)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with torch.autocast(device.type, torch.bfloat16):
            loss, text, dense = step_of(x, m, *fields)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(lesson.parameters(), 1.0)
        optimizer.step()
        step += 1
        torch._foreach_lerp_(shadow, list(lesson.parameters()), 1 - min(0.999, step / (step + 20)))
        sums += torch.stack((text, dense))
        if step % args.log == 0:
            now = time.time()
            text_mean, dense_mean = (sums / args.log).tolist()
            if step > args.log or spent:  # the first steps compile; they do not count as training time
                spent += now - last
            print(
                f"step {step} {spent:.0f}/{total:.0f} s, {args.log * args.batch / (now - last):.0f} pictures/s, "
                f"rate {rate:.2e}, text {text_mean:.4f}, map {dense_mean:.4f}",
                flush=True,
            )
            last = now
            sums.zero_()
            over = spent >= total or now - args.started > args.until
            if over or now - saved_at > args.save_every:
                _save(lesson, optimizer, shadow, spent, step, args.out)
                saved_at = last = time.time()
            if over:
                break


def _save(lesson: Lesson, optimizer, shadow: list[Tensor], spent: float, step: int, out: Path) -> None:
    state = {"lesson": lesson.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"shadow": shadow, "spent": spent, "step": step}, out / "checkpoint.part")
    (out / "checkpoint.part").rename(out / "checkpoint.pt")
    live = [p.detach().clone() for p in lesson.parameters()]
    with torch.no_grad():
        for p, s in zip(lesson.parameters(), shadow, strict=True):
            p.copy_(s)
        save_half(lesson, out / "nano.part")
        (out / "nano.part").rename(out / "nano.safetensors")
        for p, s in zip(lesson.parameters(), live, strict=True):
            p.copy_(s)
    print(f"saved at step {step}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of annotations, pictures and class maps")
    parser.add_argument("--config", type=Path, required=True, help="config.json")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--init", type=Path, required=True, help="published towers, as towers.py writes them")
    parser.add_argument("--weights", type=Path, help="start from these finished weights instead")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25, help="training time that the schedule is made for")
    parser.add_argument("--until", type=float, default=math.inf, help="stop after this many seconds, whatever is left")
    parser.add_argument("--save-every", type=float, default=240, help="seconds")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--mask-steps", type=int, default=4000)
    parser.add_argument("--log", type=int, default=100, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.started = time.time()
    return args


if __name__ == "__main__":
    main()
