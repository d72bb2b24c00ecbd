"""What goes into OmniLMM and what comes out: squeezed images, turns as Zephyr has them, text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError
from mmcli.hub.image_settings import ImageSettings
from mmcli.hub.pixel_values import PixelValues
from mmcli.hub.tokenizer import Tokenizer, begin_id, read_tokenizer, stop_ids
from mmcli.models.chat_processor import ChatProcessor, Row
from mmcli.models.control_tokens import ControlTokens
from mmcli.models.omnilmm.capabilities import capabilities
from mmcli.models.omnilmm.config import OmniLMMConfig
from mmcli.models.omnilmm.layout import END, IMAGE_TOKEN, PLACE, START, OmniLMMTemplate, zephyr
from mmcli.models.prompts import fill_prompt

# OpenAI CLIP's, which the tower was trained with; no file of the checkpoint says so, but the reference's chat.py does.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PAD = 0  # whatever it is: it is never attended to

# It was trained on free instructions.
PROMPTS = {
    "caption": "Describe this image in one sentence.",
    "read": "Write down the text in this image, word for word and nothing else.",
    "chat": "{}",
}


class OmniLMMProcessor(ChatProcessor):
    """Layout: bos, the system's sentence, then turns; an image is its places between a token that begins and one that
    ends it."""

    def __init__(
        self, config: OmniLMMConfig, tokenizer: Tokenizer, template: OmniLMMTemplate, bos: int, stop_ids: frozenset[int]
    ):
        super().__init__(tokenizer, template, ControlTokens(tokenizer, {bos}, stop_ids=stop_ids), stop_ids)
        self.config = config
        self.capabilities = capabilities(config)
        self.image_size = config.vision.image_size
        self.soft_tokens = config.resampler.queries
        self.images = ImageSettings(self.image_size, values=PixelValues(mean=MEAN, std=STD))
        self.square = self.images.square
        self.bos = bos

    @classmethod
    def open(cls, folder: Path, config: OmniLMMConfig, raw: dict[str, Any]) -> "OmniLMMProcessor":
        """Read the tokenizer and the chat template of a checkpoint. Raises ModelError."""
        tokenizer = read_tokenizer(folder)
        # As chat.py does: a tokenizer that lacks them, Zephyr's own, gets them behind its last token, in this order.
        tokenizer.add_control((PLACE, START, END))
        bos, stop = begin_id(folder, tokenizer, config.bos), stop_ids(folder, config.stop_ids)
        begin = tokenizer.id_to_token(bos)
        if not begin or not stop:
            raise ModelError(f"{folder} does not say which tokens begin and end a text", "Download the model again")
        end = tokenizer.id_to_token(min(stop)) or ""
        template = OmniLMMTemplate.open(folder, begin, lambda turns: begin + zephyr(turns, end))
        return cls(config, tokenizer, template, bos, stop)

    def task_prompt(self, task: str, words: str) -> str:
        """A plain instruction."""
        return fill_prompt(PROMPTS, task, words, "OmniLMM")

    def row_inputs(self, rows: Sequence[Row]) -> Inputs:
        """One row each, whose places take the images in order. Raises ModelError where they do not match."""
        ids = [self._tokens(text, len(images)) for text, images, _ in rows]
        tokens, valid = pad_left(ids, PAD)
        seen = tuple(torch.from_numpy(self.images.pixels(image)) for _, images, _ in rows for image in images)
        place = self.tokenizer.token_to_id(PLACE)
        return Inputs(tokens.masked_fill((tokens == place) & valid, IMAGE_TOKEN), valid, seen)

    def _tokens(self, text: str, images: int) -> list[int]:
        """Token ids of a chat text, every image's place opened out to all that it takes.

        The token that begins a text is put in front of it by number: some tokenizers treat text behind it otherwise.
        """
        begin = self.template.begin
        ids = [self.bos] if text.startswith(begin) else []
        ids += self.control.encode(text.removeprefix(begin).replace(PLACE, PLACE * self.soft_tokens))
        found = ids.count(self.tokenizer.token_to_id(PLACE) or PAD)
        if found != images * self.soft_tokens:
            raise ModelError(
                f"The chat template in {self.template.path} makes {found} places for {images} images of "
                f"{self.soft_tokens}"
            )
        return self.fitting(ids, self.config.decoder.vocabulary, self.config.decoder.positions)
