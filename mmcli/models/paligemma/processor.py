"""What goes into PaliGemma and what comes out: squeezed images, prompts with soft-token places, text."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcli.decode import LOCATIONS, MASK_CODES
from mmcli.decode.segments import LocationGrammar
from mmcli.errors import InputError, UsageError
from mmcli.hub.image_settings import ImageSettings
from mmcli.hub.tokenizer import Tokenizer, begin_id, read_tokenizer, stop_ids
from mmcli.models.family import Processor
from mmcli.models.paligemma.capabilities import capabilities
from mmcli.models.paligemma.config import PaliGemmaConfig
from mmcli.models.prompts import READING_PROMPTS, fill_prompt


class PaliGemmaProcessor(Processor):
    """Prompt layout: every image's soft tokens, then bos, the prompt, and a line break."""

    def __init__(
        self,
        config: PaliGemmaConfig,
        images: ImageSettings,
        tokenizer: Tokenizer,
        bos: int,
        stop_ids: frozenset[int],
    ):
        self.config = config
        self.images = images
        self.tokenizer = tokenizer
        self.bos = bos
        self.pad = config.pad
        self.stop_ids = stop_ids
        self.image_size = images.side
        self.square = images.square
        self.soft_tokens = config.vision.patches
        self.grammar = _grammar(tokenizer)
        places = self.grammar is not None
        self.capabilities = replace(capabilities(config), objects=places, masks=places, outlines_boxes=places)
        self.control_ids = stop_ids | {bos, config.pad, config.image_token}
        self._bos_text = tokenizer.id_to_token(bos) or ""

    @classmethod
    def open(cls, folder: Path, config: PaliGemmaConfig, raw: dict[str, Any]) -> "PaliGemmaProcessor":
        """Read tokenizer.json and the image settings of a checkpoint. Raises ModelError."""
        images = ImageSettings.open(folder, config.vision.patches, config.vision.image_size)
        tokenizer = read_tokenizer(folder)
        bos = begin_id(folder, tokenizer, config.bos)
        return cls(config, images, tokenizer, bos, stop_ids(folder, config.stop_ids))

    def row(self, prompt: str, images: Sequence[Image.Image]) -> list[int]:
        """Images stand in front of their prompt."""
        return [self.config.image_token] * self.soft_tokens * len(images) + self.prompt_tokens(prompt)

    def pixels_of(self, image: Image.Image) -> np.ndarray:
        """float32 [3, side, side], squeezed."""
        return self.images.pixels(image)

    def prompt_tokens(self, prompt: str) -> list[int]:
        """bos, the prompt and the line break that ends it.

        Trailing white space is cut off: it could merge into one token with the line break, which models have not seen.
        The tokenizer reads bos as part of the text, since some put a space in front of whatever stands first.
        """
        text = self._bos_text + prompt.rstrip() + "\n"
        ids = self.tokenizer.encode(text).ids
        ids = ids if ids[:1] == [self.bos] else [self.bos, *ids]
        if self.config.image_token in ids:
            raise UsageError("A prompt cannot hold the picture's own token <image>", "Leave it out")
        self.tokenizer.check_rows(ids, self.config.decoder.vocabulary)
        return ids

    def answer_tokens(self, answer: str, where: str) -> list[int]:
        """The tokens of an answer that is to be learned, without its end. Raises InputError for a control token."""
        ids = self.tokenizer.encode(answer).ids
        if not self.control_ids.isdisjoint(ids):
            raise InputError(f"An answer in {where} holds a control token of the model", "Leave it out")
        self.tokenizer.check_rows(ids, self.config.decoder.vocabulary)
        return ids

    def task_prompt(self, task: str, words: str) -> str:
        """PaliGemma's own words for a task (big_vision's PaliGemma README)."""
        return fill_prompt(READING_PROMPTS, task, words, "PaliGemma")


def _grammar(tokenizer: Tokenizer) -> LocationGrammar | None:
    """Answers in the tokenizer's location and segment tokens; None where the tokenizer lacks them or scatters them."""
    starts = []
    for name, digits, count in (("loc", 4, LOCATIONS), ("seg", 3, MASK_CODES)):
        first = tokenizer.token_to_id(f"<{name}{0:0{digits}}>")
        last = tokenizer.token_to_id(f"<{name}{count - 1:0{digits}}>")
        if first is None or last != first + count - 1:
            return None
        starts.append(first)
    return LocationGrammar(*starts)
