"""A small Llama 3.2 Vision of transformers and what mmcli loads from its folder, for tests that compare the two."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mllama_folders as folders
import torch
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from mmcli.engine.generate import generate
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.loaded import Loaded

STEPS = 12


@dataclass(frozen=True)
class Pair:
    """A reference model with its processor, and what mmcli loads from the folder they were saved to."""

    folder: Path
    reference: Any
    processor: Any
    ours: Loaded

    def inputs(self, *messages: dict) -> dict[str, Any]:
        """The reference's inputs for one conversation, images in its parts."""
        text = self.processor.apply_chat_template(list(messages), add_generation_prompt=True)
        parts = [part for message in messages if message["role"] != "system" for part in message["content"]]
        images = [part["image"] for part in parts if part["type"] == "image"]
        options = {"add_special_tokens": False, "return_tensors": "pt"}
        return dict(self.processor(images=[images] if images else None, text=[text], **options))

    def inputs_of(self, ids: list[int], *messages: dict) -> dict[str, Any]:
        """The reference's inputs for one conversation whose text was read as these ids.

        What a model wrote need not be the tokens that its text becomes when it is read.
        """
        inputs = self.inputs(*messages)
        mine, theirs = (self.processor.decode(one) for one in (ids, inputs["input_ids"][0]))
        assert mine.replace("<|python_tag|>", "") == theirs  # control tokens are no part of an answer's text
        spans = [get_cross_attention_token_mask(ids, folders.IMAGE)]
        counts = [inputs["aspect_ratio_mask"][0].sum(-1).tolist()]
        mask = convert_sparse_cross_attention_mask_to_dense(spans, counts, folders.TILES, len(ids))
        tokens = torch.tensor([ids])
        whole = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return inputs | whole | {"cross_attention_mask": torch.from_numpy(mask)}

    def tokens(self, *messages: dict, steps: int = STEPS, **options) -> list[int]:
        """The greedy answer of transformers, its end included."""
        return self.written(self.inputs(*messages), steps, **options)

    def written(self, inputs: dict[str, Any], steps: int = STEPS, **options) -> list[int]:
        output = self.reference.generate(**inputs, max_new_tokens=steps, do_sample=False, **options)
        return output[0, inputs["input_ids"].shape[1] :].tolist()

    def our_tokens(self, images: list[list], prompts: list[str], steps: int = STEPS) -> list[list[int]]:
        inputs = self.ours.processor.inputs(images, prompts)
        written = generate(self.ours.model, inputs, stop_ids=self.ours.processor.stop_ids, max_tokens=steps)
        events = [event for step in written for event in step]
        return [[event.id for event in events if event.row == row] for row in range(len(prompts))]


def make_pair(seed: int, folder: Path, template: str | None = folders.TEMPLATE) -> Pair:
    """Two shapes: the second seed's decoder begins with a layer that looks at images, and its rotation is plain."""
    text: dict[str, Any] = {}
    if seed == 2:
        rope = {"rope_type": "default", "rope_theta": 1e4}
        text = {"cross_attention_layers": [0, 2, 3], "num_key_value_heads": 3, "rope_parameters": rope}
    reference = folders.tiny_reference(seed, **text)
    processor = folders.write_checkpoint(folder, reference, template=template)
    return Pair(folder, reference, processor, load(resolve(str(folder)), "cpu", torch.float32))


def say(role: str, *parts) -> dict:
    """A message; what a system says is a text."""
    if role == "system":
        return {"role": role, "content": "".join(parts)}
    return {"role": role, "content": [part_of(part) for part in parts]}


def part_of(part) -> dict:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
