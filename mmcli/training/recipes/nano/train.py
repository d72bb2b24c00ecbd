"""Train nano: `python -m mmcli.training.recipes.nano.train --data FOLDER --init FILE --out FOLDER --minutes 25`.

The run goes by the clock: the learning rate falls to zero when the minutes are over, so the same command suits any
machine. `--resume` goes on from what an earlier run saved, `--weights` starts from finished weights. With several GPUs
start it by `torchrun --nproc-per-node N -m …`: each trains on batches of its own, and the gradients are averaged.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmcli.layers.mask_vqvae import MaskVQVAE, load_mask_vqvae
from mmcli.models.nano.config import NanoConfig
from mmcli.training.recipes.nano import mask_codes, masks, packing, pixels
from mmcli.training.recipes.nano.annotations import ALL, Photo, missing, read_layouts, read_photos, split_training
from mmcli.training.recipes.nano.export import unpacked
from mmcli.training.recipes.nano.start import from_earlier, from_towers
from mmcli.training.recipes.nano.training_model import MAP_CELL, PARTS, TrainingModel, initial

AVERAGE = 0.999  # how much the averaged weights keep of themselves at each step
CHECK_ROWS = 128  # rows of a batch of held-out images
STATE = "state.pt"  # what else a run needs to go on as if it had not stopped


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, each with a GPU of its own (`torchrun` starts them)."""

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, device: torch.device) -> "Ranks":
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(int(os.environ.get("RANK", 0)), world)

    def average(self, gradients: list[Tensor]) -> None:
        """Put the mean over all processes in the place of each."""
        if self.world > 1:
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            parts = (flat / self.world).split([g.numel() for g in gradients])
            torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def agreed(self, device: torch.device, *values: float) -> list[float]:
        """The first process's numbers."""
        agreed = torch.tensor(values, dtype=torch.float32, device=device)
        if self.world > 1:
            dist.broadcast(agreed, 0)
        return agreed.tolist()


def groups(model: TrainingModel) -> list[dict]:
    """The published tower learns slowly, norms and biases do not decay, the detector is frozen."""
    model.nano.tower.detector.requires_grad_(False)
    tower: list[nn.Parameter] = []
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (tower if "tower.features" in name else decay if p.dim() > 1 else plain).append(p)
    return [
        {"params": tower, "scale": 0.15, "weight_decay": 0.05},
        {"params": decay, "scale": 1.0, "weight_decay": 0.2},
        {"params": plain, "scale": 1.0, "weight_decay": 0.0},
    ]


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    ranks = Ranks.join(device)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, source in (("config", args.config), ("tokenizer", args.tokenizer)):
        shutil.copyfile(source, args.out / f"{name}.json")
    config = NanoConfig.from_json(json.loads(args.config.read_text()))
    began = time.time()
    photos = [p for p in read_photos(args.data, ALL) if p.split == "train"]
    all_masks = masks.collect(photos, args.data)
    learned, held_out = split_training(photos)
    layouts = read_layouts(args.data)
    if lacking := missing(args.data):
        print(f"not there, so learned without: {', '.join(lacking)}", flush=True)
    counted = f"{len(learned)} photos, {len(layouts)} layouts, {len(all_masks)} masks"
    print(f"{counted}, {time.time() - began:.0f} s", flush=True)
    if args.masks:
        codebook = load_mask_vqvae(args.masks).to(device)
        shutil.copyfile(args.masks, args.out / "mask_decoder.safetensors")
    else:
        codebook = mask_codes.train(all_masks, device, args.mask_steps)
        state = {k: v.contiguous().cpu() for k, v in codebook.state_dict().items()}
        save_file(state, args.out / "mask_decoder.safetensors")
    ordered = [*learned, *held_out]
    images, maps = (t.to(device) for t in pixels.load(ordered, args.data, args.workers))
    store = Store(images, maps, torch.from_numpy(all_masks).to(device), codebook)
    print(f"pictures loaded, {time.time() - began:.0f} s", flush=True)
    tokenizer = args.tokenizer.read_text()

    def questions(images: list[Photo], boxes: list[Photo], batch: int, seed: int, mosaic: float) -> packing.Questions:
        return packing.Questions(images, boxes, tokenizer, config, batch, seed, mosaic)

    loader = DataLoader(
        questions(learned, layouts, args.batch, args.seed * ranks.world + ranks.rank, packing.MOSAIC_SHARE),
        batch_size=None,
        num_workers=args.workers,
        prefetch_factor=8 if args.workers else None,
        pin_memory=device.type == "cuda",
    )
    torch.manual_seed(args.seed)
    model = initial(config, args.kept)
    if args.weights:
        old = Tokenizer.from_file(str(args.weights_tokenizer or args.tokenizer))
        left = from_earlier(model.nano, unpacked(load_file(args.weights)), old, Tokenizer.from_str(tokenizer))
        print(f"{len(left)} tensors begin anew: {', '.join(left[:12])}", flush=True)
    elif args.init:
        from_towers(model.nano, args.init)
    spent, step = 0.0, 0
    if args.resume:
        model.load_state_dict({k: v.float() for k, v in load_file(args.resume / "checkpoint.safetensors").items()})
        progress = json.loads((args.resume / "progress.json").read_text())
        spent, step = progress["spent"], progress["step"]
        print(f"going on at step {step}, {spent:.0f} s", flush=True)
    model.to(device)
    checks = list(itertools.islice(questions(held_out, [], min(args.batch, CHECK_ROWS), 1, 0.0), args.eval_batches))
    for batch in checks:
        batch.photo += len(learned)
    torch.manual_seed(args.seed * ranks.world + ranks.rank)
    _run(model, loader, checks, store, config, args, ranks, spent, step)
    if ranks.world > 1:
        dist.destroy_process_group()


@dataclasses.dataclass(frozen=True)
class Store:
    """What batches are made of, on one device."""

    images: Tensor  # uint8 [count, 3, side, side]
    maps: Tensor  # uint8 [count, side, side]
    masks: Tensor  # uint8 [count, 64, 64]
    codebook: MaskVQVAE


def _inputs(batch: packing.Batch, store: Store, config: NanoConfig) -> list[Tensor]:
    """Pixels, class maps, outlines and the batch's fields, on the images' device."""
    device = store.images.device
    names = [f.name for f in dataclasses.fields(batch)]
    there = packing.Batch(*(getattr(batch, name).to(device, non_blocking=True) for name in names))
    with torch.no_grad():
        x, m = pixels.crop(store.images, store.maps, there, config.image_size, config.grid * MAP_CELL)
        outlines = pixels.outlines(store.masks, there)
        there = mask_codes.write(store.codebook, outlines, there, config.seg_token)
        return [x, m, outlines, *(getattr(there, name) for name in names)]


def _run(
    model: TrainingModel,
    loader: DataLoader,
    checks: list,
    store: Store,
    config: NanoConfig,
    args: argparse.Namespace,
    ranks: Ranks,
    spent: float,
    step: int,
) -> None:
    device = store.images.device
    torch.set_float32_matmul_precision("high")
    optimizer = torch.optim.AdamW(groups(model), lr=args.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
    learned: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    shadow = [p.detach().clone() for p in learned]
    if args.resume and (args.resume / STATE).exists():
        kept = torch.load(args.resume / STATE, map_location=device, weights_only=True)
        optimizer.load_state_dict(kept["optimizer"])
        with torch.no_grad():
            torch._foreach_copy_(learned, kept["live"])
    step_of = torch.compile(model) if args.compile else model
    total, last, sums, begun = args.minutes * 60, time.time(), torch.zeros(len(PARTS), device=device), step
    saved_at, waited = last, 0.0
    asked_at = last
    for batch in loader:
        waited += time.time() - asked_at
        if spent > args.full_from * total:
            model.kept = config.grid**2
        inputs = _inputs(batch, store, config)
        warm = min(1.0, (step - begun + 1) / args.warm)
        rate = args.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, spent / total))))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with torch.autocast(device.type, torch.bfloat16):
            loss, parts = step_of(*inputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average([p.grad for p in learned if p.grad is not None])
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        step += 1
        torch._foreach_lerp_(shadow, learned, 1 - min(AVERAGE, step / (step + 20)))
        sums += parts
        if step % args.report == 0:
            parts = (sums / args.report).tolist()
            now = time.time()
            if step > begun + args.report:  # the first steps compile; they do not count as training time
                spent += now - last
            over = spent >= total or now - args.started > args.until
            save = over or now - saved_at > args.save_every
            spent, over, save = ranks.agreed(device, spent, over, save)
            if ranks.rank == 0:
                speed = ranks.world * args.report * args.batch / (now - last)
                print(
                    f"step {step} {spent:.0f}/{total:.0f} s, {speed:.0f} crops/s, waited {waited:.1f} s, "
                    f"rate {rate:.2e}, {_named(parts)}",
                    flush=True,
                )
            last, waited = now, 0.0
            sums.zero_()
            if save and ranks.rank == 0:
                with averaged(learned, shadow):
                    losses = _held_out_losses(model, checks, store, config, device)
                    _save(model, spent, step, args.out)
                live = [p.detach() for p in learned]
                torch.save({"optimizer": optimizer.state_dict(), "live": live}, args.out / STATE)
                print(f"saved at step {step}; held out: {losses}", flush=True)
            if save:
                saved_at = last = time.time()
            if over:
                break
        asked_at = time.time()


@contextlib.contextmanager
def averaged(learned: list[Tensor], shadow: list[Tensor]) -> Iterator[None]:
    """The averaged weights in the place of those of the last step."""
    live = [p.detach().clone() for p in learned]
    with torch.no_grad():
        for p, s in zip(learned, shadow, strict=True):
            p.copy_(s)
        yield
        for p, s in zip(learned, live, strict=True):
            p.copy_(s)


@torch.no_grad()
def _held_out_losses(model: TrainingModel, checks: list, store: Store, config: NanoConfig, device: torch.device) -> str:
    """Mean losses on held-out images, nothing hidden or disturbed."""
    model.eval()
    with torch.autocast(device.type, torch.bfloat16):
        parts = [model(*_inputs(batch, store, config))[1] for batch in checks]
    model.train()
    return _named(torch.stack(parts).mean(0).tolist())


def _named(parts: list[float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in zip(PARTS, parts, strict=True))


def _save(model: TrainingModel, spent: float, step: int, out: Path) -> None:
    """The averaged weights, from which a later run goes on with a fresh optimiser; `export` makes the model of them."""
    state = {k: v.detach().half().contiguous().cpu() for k, v in model.state_dict().items()}
    save_file(state, out / "checkpoint.part")
    (out / "checkpoint.part").rename(out / "checkpoint.safetensors")
    (out / "progress.json").write_text(json.dumps({"spent": spent, "step": step}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of annotations, pictures and class maps")
    parser.add_argument("--config", type=Path, required=True, help="config.json")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--init", type=Path, help="published towers, as towers.py writes them")
    parser.add_argument("--weights", type=Path, help="start from these finished weights instead")
    parser.add_argument("--weights-tokenizer", type=Path, help="tokenizer.json of those weights, where it is another")
    parser.add_argument("--masks", type=Path, help="a mask codebook that is trained already")
    parser.add_argument("--kept", type=int, default=0, help="grid tokens that the decoder reads in training (0: all)")
    parser.add_argument("--full-from", type=float, default=0.7, help="share of the time after which it reads all")
    parser.add_argument("--warm", type=int, default=300, help="steps until the full rate")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25, help="training time that the schedule is made for")
    parser.add_argument("--until", type=float, default=math.inf, help="stop after this many seconds, whatever is left")
    parser.add_argument("--save-every", type=float, default=240, help="seconds")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--mask-steps", type=int, default=4000)
    parser.add_argument("--report", type=int, default=100, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resume", type=Path, help="folder of checkpoint.safetensors and progress.json to go on from")
    parser.add_argument(
        "--eval-batches", type=int, default=8, help="batches of held-out pictures to measure the loss on"
    )
    args = parser.parse_args()
    args.started = time.time()
    return args


if __name__ == "__main__":
    main()
