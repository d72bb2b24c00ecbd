"""A small nano for tests, and what it answers."""

import torch

from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.models.nano import Nano, NanoConfig

SMALL = {
    "image_size": 128,
    "feature_size": 64,
    "proposals": 6,
    "image_token": 56,
    "loc_token": 20,
    "seg_token": 40,
    "pad_token": 0,
    "eos_token": 1,
    "bos_token": 2,
    "class_tokens": [[3 + i % 17, 3 + i % 5] if i % 4 == 0 else [3 + i % 17] for i in range(80)],
    "first_words": [0, 0],  # no words are set apart: all may be written
    "later_words": [0, 0],
    "decoder": {
        "vocabulary": 64, "width": 32, "depth": 2, "mlp_width": 48, "heads": 4, "key_heads": 2, "head_width": 8,
    },
}  # fmt: skip
CONFIG = NanoConfig.from_json({"model_type": "mmcli-nano", **SMALL})


def batch_of(prompts: list[list[int]], pixels: torch.Tensor) -> Inputs:
    tokens, valid = pad_left(prompts, CONFIG.pad_token)
    soft = torch.full((len(prompts), CONFIG.soft_tokens), CONFIG.image_token)
    return Inputs(
        torch.cat((soft, tokens), 1), torch.cat((torch.ones_like(soft, dtype=torch.bool), valid), 1), tuple(pixels)
    )


def answers(model: Nano, inputs: Inputs, tokens: int = 8) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in inputs.tokens]
    for events in generate(model, inputs, stop_ids=frozenset({1}), max_tokens=tokens):
        for event in events:
            rows[event.row].append(event.id)
    return rows
