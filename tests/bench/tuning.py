"""A LoRA step of a PaliGemma beside transformers with PEFT: seconds and peak memory on the same batch, in one run.

    python tests/bench/tuning.py FOLDER [--rows 8] [--rank 16] [--steps 10] [--device cuda] [--quantize int8 int4]

Each side and each way runs in a process of its own: activations kept, and computed again on the way back. Both begin
with the same weights and thin matrices at zero, so that their first losses must agree. With --quantize it is also
measured what weights in integers below LoRA cost and save, with --profile where the time of a step goes on a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM = 3
ORDERS = ("self_cuda_time_total", "self_cpu_time_total")
WORDS = "a cat on the mat and a dog with the red ball is what it is to be on the left of a mat"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--side", choices=("mmcli", "transformers"), help="run this one alone and print its figures")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--quantize", nargs="*", default=[], choices=("int8", "int4"))
    parser.add_argument("--storage", default="none", help="with --side mmcli: the integers to run with")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    print(f"{args.folder.name}, {args.rows} rows, rank {args.rank}, {args.dtype}, {args.steps} steps")
    print(
        "| activations | side | step, s | rows/s | peak, GB | first loss | last loss |\n|---|---|---|---|---|---|---|"
    )
    for way in ([], ["--recompute"]):
        for side in ("transformers", "mmcli", *args.quantize):
            chosen = ["--side", "mmcli", "--storage", side] if side in args.quantize else ["--side", side]
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], *chosen, *way], capture_output=True, text=True
            )
            if done.returncode:
                print(f"| {'again' if way else 'kept'} | {side} | failed: {done.stderr.strip().splitlines()[-1:]} |")
                continue
            *more, last = done.stdout.strip().splitlines()
            if more:
                print("\n".join(more), file=sys.stderr)
            found = json.loads(last)
            speed, losses = args.rows / found["seconds"], found["losses"]
            figures = f"{found['seconds']:.3f} | {speed:.2f} | {found['peak'] / 1e9:.2f}"
            name = "again" if way else "kept"
            print(f"| {name} | {side} | {figures} | {losses[0]:.4f} | {losses[-1]:.4f} |", flush=True)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    batch = batch_of(args)
    step = ours(args, batch) if args.side == "mmcli" else theirs(args, batch)
    losses, on_gpu = [], args.device.startswith("cuda")
    for number in range(WARM + args.steps):
        if number == WARM:
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
        losses.append(step())
    if on_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / args.steps
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    if args.profile:
        print(f"{args.side} {args.storage} {'again' if args.recompute else 'kept'}")
        print(profiled(step))
    return {"seconds": seconds, "peak": peak, "losses": [float(loss) for loss in losses]}


def profiled(step: Any) -> str:
    """Where the time of three steps goes, by kernels and by the operations that start them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(3):
            step().item()
    table = found.key_averages()
    return "\n".join(table.table(sort_by=by, row_limit=25, max_name_column_width=60) for by in ORDERS)


def batch_of(args: argparse.Namespace) -> Any:
    """The same batch for both sides: photographs of noise, and texts of different lengths."""
    import random

    import numpy as np
    from PIL import Image

    from mmcli.example import Example, Exchange
    from mmcli.hub.resolve import resolve
    from mmcli.models.load import build_empty
    from mmcli.models.loaded import Loaded
    from mmcli.models.registry import family_of

    checkpoint = resolve(str(args.folder))
    family = family_of(checkpoint.config, checkpoint.name)
    config = family.read_config(checkpoint.config)
    processor = family.processor(checkpoint.folder, config, checkpoint.config)
    loaded: Any = Loaded(build_empty(family, config), processor, checkpoint, config, None, None, family=family)
    words, rows = WORDS.split(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rows):
            path = Path(folder) / f"{number}.png"
            noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
            text = " ".join(words[: len(words) - number % 8] * 2)
            example = Example("caption", "x", images=(path,), exchanges=(Exchange(None, text),))
            rows += family.teaching.rows(loaded, example, random.Random(0))
    return family.teaching.batch(rows)


def optimizer_of(model: Any) -> Any:
    import torch

    trained = [one for one in model.parameters() if one.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4)


def ours(args: argparse.Namespace, batch: Any) -> Any:
    import torch

    from mmcli.hub.resolve import resolve
    from mmcli.layers.lora import LoraConfig
    from mmcli.models.load import load
    from mmcli.training.objective import Objective
    from mmcli.training.parts import prepare
    from mmcli.training.settings import TuneSettings

    loaded = load(resolve(str(args.folder)), args.device, args.dtype, fused=False, quantize=args.storage)
    lora = LoraConfig(args.rank, 2.0 * args.rank)
    settings = TuneSettings("lora", 1, args.rows, 1e-4, lora=lora, recompute=args.recompute)
    prepare(loaded.model, loaded.family.teaching, settings)
    objective = Objective(loaded.model, loaded.family.teaching)
    optimizer = optimizer_of(loaded.model)
    batch = batch.to(loaded.device, loaded.dtype)
    loaded.model.train()

    def step() -> torch.Tensor:
        loss = objective(batch)[0] / batch.learned
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def theirs(args: argparse.Namespace, batch: Any) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    dtype = getattr(torch, args.dtype)
    model = AutoModelForImageTextToText.from_pretrained(args.folder, dtype=dtype)
    parts = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=rf".*language_model.*\.({parts})")
    model = get_peft_model(model.to(args.device), config)
    if args.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    optimizer = optimizer_of(model)
    device, inputs = torch.device(args.device), batch.inputs
    labels = torch.full_like(batch.targets, -100)
    labels[:, 1:] = batch.targets[:, :-1]
    given = {
        "input_ids": inputs.tokens,
        "attention_mask": inputs.valid.long(),
        "token_type_ids": (~batch.prefix & inputs.valid).long(),
        "pixel_values": torch.stack(inputs.images).to(dtype),
        "labels": labels,
    }
    given = {name: tensor.to(device) for name, tensor in given.items()}

    def step() -> torch.Tensor:
        loss = model(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


if __name__ == "__main__":
    main()
