"""What goes into SmolVLM and what comes out: turns of text and of images cut into tiles; text."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError
from mmcli.hub.fields import shown
from mmcli.hub.pixel_values import processor_fields
from mmcli.hub.tokenizer import Tokenizer, named_tokens, read_tokenizer, stop_ids
from mmcli.models.chat_processor import ChatProcessor, Row
from mmcli.models.chat_template import ChatTemplate
from mmcli.models.control_tokens import ControlTokens
from mmcli.models.smolvlm.capabilities import capabilities
from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.images import TileSettings
from mmcli.models.smolvlm.layout import BEGIN, END_OF_TURN, ImageMarks, own_layout
from mmcli.models.smolvlm.prompts import task_prompt
from mmcli.models.smolvlm.tiles import Grid

if TYPE_CHECKING:
    from mmcli.types import Turn

PAD = 0  # any id that the decoder has a row for: padding is never attended to


class SmolVLMProcessor(ChatProcessor):
    """Layout: turns by the checkpoint's chat template, where an image's placeholder opens out to its tiles' places."""

    def __init__(
        self,
        config: SmolVLMConfig,
        images: TileSettings,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        marks: ImageMarks,
        stop_ids: frozenset[int],
    ):
        names = [*marks.names, BEGIN, END_OF_TURN]
        control = ControlTokens(tokenizer, {config.image_token}, names, stop_ids)
        super().__init__(tokenizer, template, control, stop_ids)
        self.config = config
        self.images = images
        self.marks = marks
        self.tile_tokens = config.soft_tokens_of(images.side)
        self.capabilities = capabilities(config)

    @classmethod
    def open(cls, folder: Path, config: SmolVLMConfig, raw: dict[str, Any]) -> "SmolVLMProcessor":
        """Read the tokenizer, the chat template and the settings of a checkpoint. Raises ModelError."""
        tokenizer = read_tokenizer(folder)
        images = TileSettings.open(folder)
        counted, given = processor_fields(folder).get("image_seq_len"), config.soft_tokens_of(images.side)
        if counted not in (None, given):
            raise ModelError(
                f"{folder} expects {shown(counted)} soft tokens a tile (image_seq_len), "
                f"but its vision tower gives {given} of {images.side} × {images.side} pixels"
            )
        marks = _marks(folder, tokenizer, config)
        template = ChatTemplate.open(folder, layout=partial(own_layout, place=marks.place))
        end = tokenizer.token_to_id(END_OF_TURN)
        stops = stop_ids(folder, config.stop_ids) | ({end} if end is not None else set())
        return cls(config, images, tokenizer, template, marks, stops)

    def apply_chat_template(self, turns: "Sequence[Turn]") -> str:
        """The text of a conversation up to where the model writes, each image as its placeholder.

        An answer stands behind a colon and a space of the template's, so the space that it begins with is left out.
        """
        return super().apply_chat_template([_said(turn) if turn.role == "model" else turn for turn in turns])

    def task_prompt(self, task: str, words: str) -> str:
        """A plain instruction."""
        return task_prompt(task, words)

    def row_inputs(self, rows: Sequence[Row]) -> Inputs:
        """One row each, whose placeholders take the images in order.

        Raises ModelError where placeholders and images do not match.
        """
        seen = [image for _, images, _ in rows for image in images]
        grids = [self.images.grid(image.size) for image in seen]
        left = iter(grids)
        ids = [self._tokens(text, [next(left) for _ in images]) for text, images, _ in rows]
        tokens, valid = pad_left(ids, PAD)
        tiles = tuple(torch.from_numpy(self.images.tiles(image)) for image in seen)
        return Inputs(tokens, valid, tiles, tuple((grid.rows, grid.columns) for grid in grids))

    def _tokens(self, text: str, grids: Sequence[Grid]) -> list[int]:
        """Token ids of a chat text, every placeholder opened out to the places of an image."""
        first, *others = text.split(self.marks.place)
        if len(others) != len(grids):
            raise ModelError(
                f"The chat template in {self.template.path} makes {len(others)} places for {len(grids)} images"
            )
        opened = (self.marks.opened(grid, self.tile_tokens) for grid in grids)
        ids = self.control.encode(first + "".join(a + b for a, b in zip(opened, others, strict=True)))
        if ids.count(self.config.image_token) != sum(grid.tiles for grid in grids) * self.tile_tokens:
            raise ModelError(
                f"tokenizer.json does not read {self.marks.place}, an image's place, as a token",
                "Download the model again",
            )
        return self.fitting(ids, self.config.decoder.vocabulary, self.config.decoder.positions)


def _said(turn: "Turn") -> "Turn":
    return replace(turn, parts=tuple(part.lstrip() if isinstance(part, str) else part for part in turn.parts))


def _marks(folder: Path, tokenizer: Tokenizer, config: SmolVLMConfig) -> ImageMarks:
    """The names of the tokens around images: those that tokenizer_config.json gives, else the usual ones."""
    named, usual = named_tokens(folder), ImageMarks()
    place = tokenizer.id_to_token(config.image_token)
    if place is None:
        raise ModelError(
            f"In {folder}, config.json names the token {config.image_token}, which tokenizer.json does not have",
            "They are of different models; download the model again",
        )
    return ImageMarks(place, named.get("fake_image_token", usual.around), named.get("global_image_token", usual.whole))
