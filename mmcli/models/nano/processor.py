"""What goes into nano and what comes out: squeezed images, PaliGemma's prompts, text."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmcli.decode.segments import LocationGrammar
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import UsageError
from mmcli.hub.tokenizer import Tokenizer, read_tokenizer
from mmcli.models.family import Processor
from mmcli.models.nano.capabilities import capabilities
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.questions import taught
from mmcli.models.nano.sentences import Wording
from mmcli.models.prompts import LOCATION_PROMPTS, fill_prompt

# To describe is to name the main objects, as it was taught; a caption is a sentence.
PROMPTS = LOCATION_PROMPTS | {"caption:low": "describe en", "caption:medium": "caption en"}


class NanoProcessor(Processor):
    """Prompt layout: the image's soft tokens, padding, then <bos>, the prompt, and a line break."""

    grammar: LocationGrammar

    def __init__(self, config: NanoConfig, tokenizer: Tokenizer):
        self.config = config
        self.capabilities = capabilities(config)
        self.tokenizer = tokenizer
        self.image_size = config.image_size
        self.soft_tokens = config.soft_tokens
        self.grammar = LocationGrammar(config.loc_token, config.seg_token)
        self.stop_ids = frozenset({config.eos_token})
        self._line_break = tokenizer.encode("\n").ids
        self.control_ids = {config.pad_token, config.bos_token, config.eos_token, config.image_token}

    @classmethod
    def open(cls, folder: Path, config: NanoConfig, raw: dict[str, Any]) -> "NanoProcessor":
        """Read tokenizer.json. Raises ModelError."""
        return cls(config, read_tokenizer(folder))

    def inputs(self, images: Sequence[Sequence[Image.Image]], prompts: Sequence[str]) -> Inputs:
        """One row for each prompt. Raises UsageError unless every row has one image: nano was trained so."""
        if any(len(own) != 1 for own in images):
            raise UsageError("The bundled model reads exactly one picture at a time", "Give one, or another --model")
        return replace(self.rows(prompts), images=tuple(self._pixels(own[0]) for own in images))

    def rows(self, prompts: Sequence[str], least: int = 0) -> Inputs:
        """One row for each prompt, padded to `least` tokens, behind the soft tokens of an image that is yet to come."""
        ids = [self.prompt_tokens(prompt) for prompt in prompts]
        tokens, valid = pad_left(ids, self.config.pad_token, least)
        soft = torch.full((len(prompts), self.soft_tokens), self.config.image_token)
        there = torch.ones_like(soft, dtype=torch.bool)
        wording = Wording(self.config, [own[1] for own in ids])
        return Inputs(torch.cat((soft, tokens), 1), torch.cat((there, valid), 1), processor=wording)

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images of any size → float32 [images, 3, side, side] in 0..1, squeezed."""
        return torch.stack([self._pixels(image) for image in images])

    def text_ids(self, text: str) -> list[int]:
        """The token ids of a text as it stands in an answer."""
        ids = self.tokenizer.encode(text).ids
        self.tokenizer.check_rows(ids, self.config.decoder.vocabulary)
        return ids

    def prompt_tokens(self, prompt: str) -> list[int]:
        """<bos>, the prompt and the line break that ends it. Raises UsageError for one that holds <image>."""
        ids = self.tokenizer.encode(prompt.strip()).ids
        if self.config.image_token in ids:
            raise UsageError("A prompt cannot hold the picture's own token <image>", "Leave it out")
        self.tokenizer.check_rows(ids, self.config.decoder.vocabulary)
        return [self.config.bos_token, *ids, *self._line_break]

    def _pixels(self, image: Image.Image) -> Tensor:
        if image.mode != "RGB":
            raise ValueError(f"expected an RGB picture, got {image.mode}")
        squeezed = image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        channels = np.stack([np.asarray(channel) for channel in squeezed.split()])  # apart while they are still bytes
        return torch.from_numpy(channels).float().div_(255)

    def task_prompt(self, task: str, words: str) -> str:
        """PaliGemma's own words for a task. Raises ModelError for a question of a kind that nano was not taught."""
        if task == "chat":
            words = taught(words, self.config.things)
        return fill_prompt(PROMPTS, task, words, "The bundled model")
