"""Train nano's mask head alone.

    python -m mmcli.training.recipes.nano.train_masks --data FOLDER --model OLD --out NEW --minutes 4

Everything else of the model stays as it is, bit for bit: what it finds and says does not change. The tower's features
are frozen and need no gradients, so that a step is cheap. The head learns the codes of what its boxes show, to draw
the mask itself, and that what the codebook makes of its codes covers the mask. The run goes by the clock, as `train`
does; NEW becomes a model folder, and `--resume` goes on from one.
"""

import argparse
import dataclasses
import itertools
import json
import math
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmcli.hub.resolve import resolve
from mmcli.layers.mask_vqvae import MaskVQVAE, load_mask_vqvae
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.model import Nano
from mmcli.training.recipes.nano import masks, pixels
from mmcli.training.recipes.nano.annotations import ALL, read_photos, split_training
from mmcli.training.recipes.nano.export import OTHERS, stored, unpacked
from mmcli.training.recipes.nano.mask_batches import MaskBatch, MaskedCrops
from mmcli.training.recipes.nano.train import averaged

AVERAGE = 0.998  # how much the averaged weights keep of themselves at each step
HEAD = "tower.mask_head."
CHECKPOINT = "mask_head.safetensors"
STEEP = 4.0  # slope that makes a probability of what the codebook draws, from −1 to 1
SMOOTHED = 0.1  # share of the codes' target that goes to all codes
DROP = 0.1  # channels of the plane that a crop does without
WEIGHTS = {"codes": 0.5, "drawn": 1.0, "likely": 1.0, "chosen": 1.0}


@dataclasses.dataclass(frozen=True)
class Seen:
    """A batch on the device, with what the frozen tower makes of it."""

    maps: list[Tensor]
    found: list[Tensor]
    grid: Tensor
    pixels: Tensor  # [B, 3, side, side]
    outlines: Tensor  # [B, N, 64, 64] what boxes show of their masks, in 0..1
    codes: Tensor  # [B, N, 16] the same as codes
    words: Tensor  # [B, N, D] what is asked for
    boxes: Tensor  # [B, N, 4]
    weight: Tensor  # [B, N]


class MaskTraining(nn.Module):
    """The head's losses on a batch, weighed by how far its masks can be trusted."""

    def __init__(self, nano: Nano, codebook: MaskVQVAE):
        super().__init__()
        self.head = nano.tower.mask_head
        self.codebook = codebook

    def forward(self, seen: Seen) -> Tensor:
        """The losses [4] in the order of WEIGHTS."""
        logits, drawn = self.answers(seen)
        logits, weight = logits.float().flatten(0, 1), seen.weight.flatten() / seen.weight.sum()
        outlines, codes = seen.outlines.flatten(0, 1), seen.codes.flatten(0, 1)
        spelled = F.cross_entropy(logits.transpose(1, 2), codes, label_smoothing=SMOOTHED, reduction="none").mean(1)
        likely = logits.softmax(-1) @ self.codebook._vq_vae._embedding
        chosen = self.codebook._vq_vae._embedding[logits.argmax(-1)]
        chosen = likely + (chosen - likely).detach()  # gradients go straight through
        parts = (
            spelled,
            _unlike(drawn.float().flatten(0, 1), outlines),
            _unlike(self.codebook._reconstruct(likely).float() * STEEP, outlines),
            _unlike(self.codebook._reconstruct(chosen).float() * STEEP, outlines),
        )
        return torch.stack([(part * weight).sum() for part in parts])

    def answers(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Logits of codes [B, N, 16, 128] and of masks [B, N, 64, 64]."""
        plane = F.dropout2d(self.head.plane(seen.maps, seen.found, seen.grid), DROP, self.training)
        logits, drawn = self.head(plane, seen.pixels, seen.boxes, seen.words)
        return logits, drawn


def _unlike(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy and one less a soft overlap, of each mask [N, 64, 64] → [N]."""
    wrong = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))
    guess = logits.sigmoid()
    both, either = (guess * masks).sum((1, 2)), (guess + masks - guess * masks).sum((1, 2))
    return wrong + 1 - (both + 1) / (either + 1)


@dataclasses.dataclass(frozen=True)
class Store:
    """What batches are made of, on one device."""

    nano: Nano
    images: Tensor  # uint8 [count, 3, side, side]
    maps: Tensor  # uint8 [count, side, side]
    masks: Tensor  # uint8 [count, 64, 64]
    codebook: MaskVQVAE

    @torch.no_grad()
    def seen(self, batch: MaskBatch) -> Seen:
        device, nano = self.images.device, self.nano
        names = [f.name for f in dataclasses.fields(batch)]
        b = MaskBatch(*(getattr(batch, name).to(device, non_blocking=True) for name in names))
        x, _ = pixels.crop(self.images, self.maps, b, nano.config.image_size, nano.config.grid)
        outlines = pixels.outlines(self.masks, b)
        codes = self.codebook.encode(outlines.flatten(0, 1)).unflatten(0, b.masks.shape)
        words = nano.asked_words(b.tokens.flatten(0, 1)).unflatten(0, b.masks.shape)
        with torch.autocast(device.type, torch.bfloat16):
            maps, found, grid = nano.tower.mask_maps(x)
        return Seen(maps[:2], found[:2], grid, x, outlines, codes, words, b.boxes, b.weight)


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    began = time.time()
    folder = resolve(args.model, download=False).folder
    config = NanoConfig.from_json(json.loads((folder / "config.json").read_text()))
    photos = [p for p in read_photos(args.data, ALL) if p.split == "train"]
    all_masks = masks.collect(photos, args.data)
    learned, held_out = split_training([p for p in photos if any(t.mask >= 0 for t in p.objects)])
    print(f"{len(learned)} photos, {len(held_out)} held out, {len(all_masks)} masks", flush=True)
    kept = load_file(folder / "model.safetensors")
    torch.manual_seed(args.seed)
    nano = Nano(config)
    state = unpacked(kept)
    if args.resume:
        state |= load_file(args.resume / CHECKPOINT)
    left = [name for name in nano.load_state_dict(state, strict=False).missing_keys if not name.startswith(HEAD)]
    if left:
        raise SystemExit(f"{folder} lacks {left[0]}")
    nano.to(device).eval().requires_grad_(False)
    nano.tower.features.to(memory_format=torch.channels_last)
    nano.tower.detector.to(memory_format=torch.channels_last)
    codebook = load_mask_vqvae(folder / "mask_decoder.safetensors").to(device)
    images, maps = (t.to(device) for t in pixels.load([*learned, *held_out], args.data, args.workers))
    store = Store(nano, images, maps, torch.from_numpy(all_masks).to(device), codebook)
    tokenizer = (folder / "tokenizer.json").read_text()
    loader = DataLoader(
        MaskedCrops(learned, tokenizer, config, args.batch, args.seed),
        batch_size=None,
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
    )
    checks = list(itertools.islice(MaskedCrops(held_out, tokenizer, config, args.batch, 1), args.eval_batches))
    for batch in checks:
        batch.photo += len(learned)
    print(f"pictures loaded, {time.time() - began:.0f} s", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    _run(MaskTraining(nano, codebook), loader, checks, store, args)
    head = load_file(args.out / CHECKPOINT)
    for name in (HEAD + "code.weight", HEAD + "code.bias"):
        head[name] = head[name] * args.factor
    save_file(kept | stored(head, "int8"), args.out / "model.safetensors")
    for name in OTHERS:
        shutil.copyfile(folder / name, args.out / name)


def _run(model: MaskTraining, loader: DataLoader, checks: list, store: Store, args: argparse.Namespace) -> None:
    device = store.images.device
    learned: list[Tensor] = list(model.head.requires_grad_(True).parameters())
    shadow = [p.detach().clone() for p in learned]
    plain = [p for p in learned if p.dim() == 1]
    groups = [{"params": [p for p in learned if p.dim() > 1], "weight_decay": args.decay}, {"params": plain}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.0)
    step_of = torch.compile(model) if args.compile else model
    weights = torch.tensor(list(WEIGHTS.values()), device=device)
    total, spent, last, sums = args.minutes * 60, 0.0, time.time(), torch.zeros(len(WEIGHTS), device=device)
    saved_at = last
    for step, batch in enumerate(loader, 1):
        rate = args.rate * min(1.0, step / args.warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent / total)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16):
            losses = step_of(store.seen(batch))
        optimizer.zero_grad(set_to_none=True)
        (losses * weights).sum().backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(shadow, learned, 1 - min(AVERAGE, step / (step + 20)))
        sums += losses.detach()
        if step % args.report:
            continue
        now = time.time()
        if step > args.report:  # the first steps compile; they do not count
            spent = min(total, spent + now - last)
        speed = args.report * args.batch / (now - last)
        named = ", ".join(f"{k} {v:.3f}" for k, v in zip(WEIGHTS, (sums / args.report).tolist(), strict=True))
        print(f"step {step} {spent:.0f}/{total:.0f} s, {speed:.0f} crops/s, rate {rate:.2e}, {named}", flush=True)
        last = now
        sums.zero_()
        over = spent >= total or now - args.started > args.until
        if over or now - saved_at > args.save_every:
            with averaged(learned, shadow):
                figures = measure(model, checks, store)
                _save(model, args.out)
            print(f"saved at step {step}; held out: {figures}", flush=True)
            saved_at = last = time.time()
        if over:
            return


@torch.no_grad()
def measure(model: MaskTraining, checks: list[MaskBatch], store: Store) -> str:
    """Mean overlaps on held-out images with what their boxes, which are off, show of the masks."""
    model.eval()
    sums: dict[str, list[float]] = {}
    for batch in checks:
        seen = store.seen(batch)
        with torch.autocast(seen.boxes.device.type, torch.bfloat16):
            logits, drawn = model.answers(seen)
        truth = seen.outlines.flatten(0, 1) > 0.5
        answer = store.codebook.decode(logits.argmax(-1).flatten(0, 1)) > 0
        limit = store.codebook.decode(seen.codes.flatten(0, 1)) > 0
        by_hand = (seen.weight == 1).flatten()
        for name, guess, use in (
            ("by hand", answer, by_hand),
            ("by hand, as drawn", drawn.flatten(0, 1) > 0, by_hand),
            ("class map", answer, ~by_hand),
            ("limit", limit, by_hand),
        ):
            both, either = (guess & truth).sum((1, 2)), (guess | truth).sum((1, 2))
            sums.setdefault(name, []).extend((both / either.clamp(min=1))[use].tolist())
    model.train()
    return ", ".join(f"{name} {sum(own) / max(len(own), 1):.4f}" for name, own in sums.items())


def _save(model: MaskTraining, out: Path) -> None:
    state = {HEAD + k: v.detach().float().contiguous().cpu() for k, v in model.head.state_dict().items()}
    save_file(state, out / "part")
    (out / "part").rename(out / CHECKPOINT)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of annotations, pictures and class maps")
    parser.add_argument("--model", default="nano", help="a finished nano: a name or a folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="folder of an earlier run, whose head this one begins with")
    parser.add_argument("--minutes", type=float, default=5, help="training time that the schedule is made for")
    parser.add_argument("--until", type=float, default=math.inf, help="stop after this many seconds, whatever is left")
    parser.add_argument("--save-every", type=float, default=60, help="seconds")
    parser.add_argument("--batch", type=int, default=128, help="crops")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--factor", type=float, default=5.0, help="of its logits beside the decoder's, once trained")
    parser.add_argument("--warm", type=int, default=200, help="steps until the full rate")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--report", type=int, default=50, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--eval-batches", type=int, default=12, help="batches of held-out crops to measure on")
    args = parser.parse_args()
    args.started = time.time()
    return args


if __name__ == "__main__":
    main()
