"""Checkpoints as transformers writes them, and as mmcli loads them: float32 on the CPU, one thread."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import support
import torch

from mmcli.engine.generate import TokenEvent, generate
from mmcli.engine.sampling import Sampling
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.loaded import Loaded

# The prefix of one image (16 soft tokens) and a prompt is longer than this already, and the answers go on beyond.
WINDOW = 12
STEPS = 24
FILLER = list(range(support.IMAGE, support.FILLED_ROWS))


@dataclass(frozen=True)
class Pair:
    """A reference model with its processor, and what mmcli loads from the folder they were saved to."""

    folder: Path
    reference: Any
    processor: Any
    ours: Loaded

    def reference_inputs(self, images: list[list], prompts: list[str]) -> dict[str, torch.Tensor]:
        texts = ["<image>" * len(own) + prompt for own, prompt in zip(images, prompts, strict=True)]
        inputs = self.processor(images=images, text=texts, padding=True, return_tensors="pt")
        inputs.pop("labels", None)
        return dict(inputs)

    def reference_tokens(self, images: list[list], prompts: list[str], **options) -> list[list[int]]:
        """Greedy answers of transformers, which must be kept from filler rows: it does not forbid them itself."""
        inputs = self.reference_inputs(images, prompts)
        options = {"max_new_tokens": STEPS, "do_sample": False, "suppress_tokens": FILLER} | options
        output = self.reference.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        return [_until_stop(row.tolist(), self.ours.processor.stop_ids) for row in output]

    def our_tokens(self, images: list[list], prompts: list[str], steps: int = STEPS) -> list[list[int]]:
        return rows_of(answer(self.ours, images, prompts, steps), len(prompts))


def answer(loaded: Loaded, images: list[list], prompts: list[str], steps: int = STEPS) -> list[TokenEvent]:
    inputs = loaded.processor.inputs(images, prompts)
    stop = loaded.processor.stop_ids
    step_lists = generate(loaded.model, inputs, stop_ids=stop, max_tokens=steps, sampling=Sampling())
    return [event for step in step_lists for event in step]


def rows_of(events: list[TokenEvent], rows: int) -> list[list[int]]:
    return [[event.id for event in events if event.row == row] for row in range(rows)]


def _until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    ends = [i for i, token in enumerate(ids) if token in stop_ids]
    return ids[: ends[0] + 1] if ends else ids


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make_pair(folder: Path, second: bool, seed: int = 1) -> Pair:
    reference = support.tiny_reference(support.tiny_config(second, window=WINDOW), seed)
    processor = support.write_checkpoint(folder, reference)
    return Pair(folder, reference, processor, load(resolve(str(folder)), "cpu", torch.float32))


@pytest.fixture(scope="session", params=["PaliGemma", "PaliGemma 2"])
def pair(request, tmp_path_factory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("paligemma"), request.param.endswith("2"))


@pytest.fixture(scope="session")
def second(tmp_path_factory) -> Pair:
    """PaliGemma 2 alone, for what only Gemma 2 has."""
    return make_pair(tmp_path_factory.mktemp("paligemma2"), True)


@pytest.fixture(scope="session")
def load_folder():
    return lambda folder: load(resolve(str(folder)), "cpu", torch.float32)


@pytest.fixture(scope="session")
def our_answer():
    """(loaded, images, prompts, steps) → token ids a row."""
    return lambda loaded, images, prompts, steps=STEPS: rows_of(answer(loaded, images, prompts, steps), len(prompts))


@dataclass(frozen=True)
class Gemma3nFolder:
    """A Gemma 3n as transformers saved it: an image tower of full width, and small other parts."""

    folder: Path
    reference: Any
    processor: Any

    def inputs(self, *messages: dict, **options) -> dict[str, torch.Tensor]:
        """The reference's inputs for one conversation in transformers' form, images and recordings in their parts."""
        options = {"add_generation_prompt": True, "tokenize": True, "return_tensors": "pt"} | options
        return dict(self.processor.apply_chat_template(list(messages), return_dict=True, **options))

    def tokens(self, *messages: dict, steps: int = STEPS, **options) -> list[int]:
        """The greedy answer of transformers, its stop token included."""
        inputs = self.inputs(*messages)
        inputs.pop("token_type_ids", None)
        options = {"max_new_tokens": steps, "do_sample": False} | options
        return self.reference.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="session")
def gemma3n(tmp_path_factory) -> Iterator[Gemma3nFolder]:
    """200 MB on disk, all but a few megabytes of it the image tower's. To be loaded under `shallow_tower`."""
    import gemma3n_folders
    from gemma3n_models import tiny_reference

    folder, reference = tmp_path_factory.mktemp("gemma3n"), tiny_reference()
    yield Gemma3nFolder(folder, reference, gemma3n_folders.write_checkpoint(folder, reference))
    shutil.rmtree(folder)
