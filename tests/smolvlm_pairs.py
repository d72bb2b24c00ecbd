"""A small SmolVLM of transformers and what mmcli loads from its folder, for tests that compare the two."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import smolvlm_folders as folders
import torch

from mmcli.engine.generate import generate
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.loaded import Loaded

STEPS = 16


@dataclass(frozen=True)
class Pair:
    """A reference model with its processor, and what mmcli loads from the folder they were saved to."""

    folder: Path
    reference: Any
    processor: Any
    ours: Loaded

    def inputs(self, *messages: dict) -> dict[str, torch.Tensor]:
        """The reference's inputs for one conversation, images in its parts."""
        options = {"add_generation_prompt": True, "tokenize": True, "return_tensors": "pt", "return_dict": True}
        return dict(self.processor.apply_chat_template(list(messages), **options))

    def tokens(self, *messages: dict, steps: int = STEPS, **options) -> list[int]:
        """The greedy answer of transformers, its end included; only places of images are forbidden, as in ours."""
        inputs = self.inputs(*messages)
        options = {"max_new_tokens": steps, "do_sample": False, "suppress_tokens": [folders.IMAGE]} | options
        return self.reference.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()

    def our_tokens(self, images: list[list], prompts: list[str], steps: int = STEPS) -> list[list[int]]:
        inputs = self.ours.processor.inputs(images, prompts)
        written = generate(self.ours.model, inputs, stop_ids=self.ours.processor.stop_ids, max_tokens=steps)
        events = [event for step in written for event in step]
        return [[event.id for event in events if event.row == row] for row in range(len(prompts))]


def make_pair(kind: str, folder: Path) -> Pair:
    second = kind == "smolvlm"
    reference = folders.tiny_reference(kind, seed=2 if second else 1, tied=second)
    processor = folders.write_checkpoint(folder, kind, reference, tile=48 if second else 32)
    return Pair(folder, reference, processor, load(resolve(str(folder)), "cpu", torch.float32))


def say(role: str, *parts) -> dict:
    return {"role": role, "content": [part_of(part) for part in parts]}


def part_of(part) -> dict:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
