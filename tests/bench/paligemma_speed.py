"""How fast PaliGemma runs here, at its published sizes, with random weights (speed does not depend on their values).

    python tests/bench/paligemma_speed.py --size 3b --generation 2 --side 448 --batch 4 --device cuda

Prints one JSON line: seconds for the prefix, tokens a second, peak memory, and how often a written token made the host
wait for the device.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from mmcli.engine.device import choose_device, choose_dtype
from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.engine.sampling import Sampling
from mmcli.models.paligemma.config import PaliGemmaConfig
from mmcli.models.paligemma.model import PaliGemma

TEXTS = {
    ("1", "3b"): (2048, 16384, 18, 8, 1, 256, 256),
    ("2", "3b"): (2304, 9216, 26, 8, 4, 256, 256),
    ("2", "10b"): (3584, 14336, 42, 16, 8, 256, 256),
    ("2", "28b"): (4608, 36864, 46, 32, 16, 128, 144),
}
KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "query_pre_attn_scalar",
)  # fmt: skip


def build(generation: str, size: str, side: int, device: torch.device, dtype: torch.dtype) -> PaliGemma:
    text = dict(zip(KEYS, TEXTS[generation, size], strict=True)) | {"vocab_size": 257216}
    text["model_type"] = "gemma" if generation == "1" else "gemma2"
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    raw = {
        "text_config": text,
        "vision_config": vision | {"patch_size": 14, "image_size": side},
        "projection_dim": text["hidden_size"],
        "image_token_index": 257152,
    }
    with torch.device("meta"):
        model = PaliGemma(PaliGemmaConfig.from_hf(raw))
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.02)
    return model


def inputs(batch: int, side: int) -> Inputs:
    """Rows of one picture and a prompt of 8 tokens."""
    tokens = torch.full((batch, (side // 14) ** 2 + 8), 257152)
    tokens[:, -8:] = torch.arange(100, 108)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    return Inputs(tokens, valid, torch.rand(batch, 3, side, side) * 2 - 1)


def measure(model: PaliGemma, given: Inputs, steps: int, device: torch.device) -> dict[str, float]:
    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = finished()
    events = generate(model, given, stop_ids=frozenset(), max_tokens=steps, sampling=Sampling())
    next(events)
    prefix = finished() - start
    waits = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        start = time.perf_counter()
        for _ in events:
            pass
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchroniz" in str(warning.message) for warning in caught)
    rest = finished() - start
    return {
        "prefix_seconds": round(prefix, 3),
        "steps_per_second": round((steps - 1) / rest, 1),
        "waits_per_step": round(waits / (steps - 1), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generation", choices=["1", "2"], default="1")
    parser.add_argument("--size", choices=["3b", "10b", "28b"], default="3b")
    parser.add_argument("--side", type=int, choices=[224, 448, 896], default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    device = choose_device(given.device)
    dtype = choose_dtype(given.dtype, device)
    model = build(given.generation, given.size, given.side, device, dtype)
    batch = inputs(given.batch, given.side)
    measure(model, batch, 4, device)  # the first run compiles and allocates
    result = vars(given) | {"device": str(device), "dtype": str(dtype)} | measure(model, batch, given.steps, device)
    if device.type == "cuda":
        result["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
