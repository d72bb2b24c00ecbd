"""What goes into MiniCPM-V and what comes out: turns of text and images; text."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError, UsageError
from mmcli.hub.pixel_values import PixelValues
from mmcli.hub.tokenizer import Tokenizer, begin_id, read_tokenizer, stop_ids
from mmcli.models.chat_processor import ChatProcessor, Row
from mmcli.models.chat_template import ChatTemplate
from mmcli.models.control_tokens import ControlTokens
from mmcli.models.minicpmv.capabilities import capabilities
from mmcli.models.minicpmv.config import FIRST, MiniCPMVConfig
from mmcli.models.minicpmv.layout import (
    IMAGE,
    IMAGE_END,
    NUMBER,
    NUMBER_END,
    PLACEHOLDER,
    SLICE,
    SLICE_END,
    image_marks,
    own_layout,
    placeholder,
)
from mmcli.models.minicpmv.model import PLACE
from mmcli.models.minicpmv.settings import read_settings
from mmcli.models.prompts import fill_prompt
from mmcli.models.slices import Grid, sliced
from mmcli.types import Turn

if TYPE_CHECKING:
    import numpy as np

PROMPTS = {
    "caption": "Describe this picture in one sentence.",
    "read": "Write down the text in this picture, word for word and nothing else.",
    "chat": "{}",
}
STOPS = {"2.5": ("<|eot_id|>",), "2.6": ("<|im_end|>", "<|endoftext|>")}  # beside those of the files
SHOWN = tuple(f"<{end}{name}>" for name in ("ref", "box", "quad", "point") for end in ("", "/"))
"""Special tokens that are part of an answer: they enclose places in it."""


class MiniCPMVProcessor(ChatProcessor):
    """Turns by the checkpoint's chat template (1.0 and 2.0: by a layout of their own); images stand in front of the
    question.

    Every image becomes an overview and slices (1.0: a square). In the text there are marks for each, and between them
    as many places as the resampler has queries.
    """

    def __init__(
        self,
        config: MiniCPMVConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        values: PixelValues,
        stop_ids: frozenset[int],
    ):
        marks = [IMAGE, IMAGE_END]
        marks += [SLICE, SLICE_END] if config.slicing else []
        marks += [NUMBER, NUMBER_END] if config.own_slice_marks else []
        if any(tokenizer.token_to_id(mark) is None for mark in marks):
            raise ModelError(f"The tokenizer lacks one of {', '.join(marks)}", "Download the model again")
        super().__init__(tokenizer, template, ControlTokens(tokenizer, {config.bos}, marks, stop_ids), stop_ids)
        self.config = config
        self.capabilities = capabilities(config)
        self.values = values
        self.soft_tokens = config.resampler.queries
        self.image_size = config.square or 0
        opens = (IMAGE, SLICE) if config.own_slice_marks else (IMAGE,)
        self._opens = frozenset(tokenizer.token_to_id(mark) for mark in opens)
        self._shown = frozenset(tokenizer.token_to_id(name) for name in SHOWN)

    @classmethod
    def open(cls, folder: Path, config: MiniCPMVConfig, raw: dict[str, Any]) -> "MiniCPMVProcessor":
        """Read the tokenizer, the chat template and the settings of a checkpoint. Raises ModelError."""
        tokenizer = read_tokenizer(folder)
        values = read_settings(folder, config)
        begin = ""
        if config.version in FIRST:
            begin = tokenizer.id_to_token(begin_id(folder, tokenizer, config.bos)) or ""
        layout = partial(own_layout, begin=begin) if config.version in FIRST else None
        ends = {tokenizer.token_to_id(name) for name in STOPS.get(config.version, ())} - {None}
        stops = stop_ids(folder, config.stop_ids) | {id for id in ends if id is not None}
        return cls(config, tokenizer, ChatTemplate.open(folder, begin, layout), values, stops)

    # -- text --------------------------------------------------------------------------------------------------------

    def apply_chat_template(self, turns: Sequence[Turn]) -> str:
        """The text of a conversation up to where the model writes, each image as its placeholder.

        Raises ModelError where the checkpoint's template refuses the turns, UsageError for more images than it knows.
        """
        count, most = sum(len(turn.images()) for turn in turns), self.capabilities.max_images
        if most is not None and count > most:
            raise UsageError(
                f"MiniCPM-V {self.config.version} sees one picture in a conversation, but this has {count}",
                "Begin another with /clear",
            )
        numbers = iter(range(count))

        def text_of(part: Any) -> str:
            if isinstance(part, str):
                return self.control.typed(part)
            return placeholder(next(numbers) if self.config.own_slice_marks else None)

        return self.template.text(
            [
                {
                    "role": "assistant" if turn.role == "model" else turn.role,
                    "content": "\n".join(map(text_of, turn.parts)),
                }
                for turn in turns
            ]
        )

    def is_text(self, id: int) -> bool:
        """Whether a token is part of the text, and no control token."""
        return super().is_text(id) or id in self._shown

    def task_prompt(self, task: str, words: str) -> str:
        """A plain instruction."""
        return fill_prompt(PROMPTS, task, words, "MiniCPM-V")

    # -- inputs ------------------------------------------------------------------------------------------------------

    def inputs(
        self,
        images: Sequence[Sequence[Image.Image]],
        prompts: Sequence[str],
        audios: "Sequence[Sequence[np.ndarray]] | None" = None,
    ) -> Inputs:
        """Row i is one turn of the user's: its images, its prompt."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} lists of images for {len(prompts)} prompts")
        pairs = zip(images, prompts, strict=True)
        return self.row_inputs(
            [(self.apply_chat_template([Turn("user", (*own, prompt))]), own, ()) for own, prompt in pairs]
        )

    def row_inputs(self, rows: Sequence[Row]) -> Inputs:
        """One row each, whose placeholders take the images in order. Raises ModelError where they do not match."""
        ids, images = [], []
        for text, own, _ in rows:
            cut = [self._cut(image) for image in own]
            ids.append(self._tokens(text, [grid for _, grid in cut], sum(len(slices) for slices, _ in cut)))
            images += [torch.from_numpy(self.values.of(one)) for slices, _ in cut for one in slices]
        tokens, valid = pad_left(ids, self.config.pad)
        return Inputs(tokens, valid, tuple(images))

    def _cut(self, image: Image.Image) -> tuple[list[Image.Image], Grid | None]:
        """What of an image the tower reads, and the grid of its slices; None where there are none."""
        if self.config.slicing:
            return sliced(image, self.config.slicing)
        return [image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)], None

    def _tokens(self, text: str, grids: Sequence[Grid | None], slices: int) -> list[int]:
        """Token ids of a chat text with images of these grids, `slices` in all with their overviews."""
        first, *rest = text.split(PLACEHOLDER)
        if len(rest) != len(grids):
            raise ModelError(
                f"The chat template in {self.template.path} makes {len(rest)} places for {len(grids)} pictures"
            )
        marks = (image_marks(grid, self.config.own_slice_marks) for grid in grids)
        read = self._encoded(first + "".join(mark + piece for mark, piece in zip(marks, rest, strict=True)))
        if sum(id in self._opens for id in read) != slices:
            raise ModelError(f"tokenizer.json does not read {IMAGE} as a token", "Download the model again")
        places = [PLACE] * self.soft_tokens
        ids = [one for id in read for one in ([id, *places] if id in self._opens else [id])]
        return self.fitting(ids, self.config.decoder.vocabulary, self.config.decoder.positions)

    def _encoded(self, text: str) -> list[int]:
        """Token ids of a whole text, or of the rest of one.

        The tokenizer of 1.0 and 2.0 begins every text with a space, which the rest of one must not have: it is
        read behind a line break, whose tokens are taken off again.
        """
        begin = self.template.begin
        if not begin or text.startswith(begin):
            return self.control.encode(text)
        lead, ids = self.control.encode("\n"), self.control.encode("\n" + text)
        return ids[len(lead) :] if ids[: len(lead)] == lead else self.control.encode(text)
