"""What goes into Llama 3.2 Vision and what comes out: turns of text and of images cut into tiles; text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError
from mmcli.hub.fields import SIDE, shown
from mmcli.hub.pixel_values import ABSENT, PixelValues, image_fields
from mmcli.hub.tokenizer import Tokenizer, begin_id, read_tokenizer, stop_ids
from mmcli.models.chat_processor import ChatProcessor, Row
from mmcli.models.chat_template import ChatTemplate, Message
from mmcli.models.control_tokens import ControlTokens
from mmcli.models.mllama.capabilities import capabilities
from mmcli.models.mllama.config import MOST_TILES, MllamaConfig, VisionConfig
from mmcli.models.mllama.layout import own_layout
from mmcli.models.mllama.prompts import task_prompt
from mmcli.models.mllama.tiles import cut, laid_out

if TYPE_CHECKING:
    from mmcli.types import Turn

# What a checkpoint leaves out, by transformers' image processor.
IMAGES: dict[str, Any] = ABSENT | {
    "size": {"height": 224, "width": 224}, "do_resize": True, "do_pad": True, "max_image_tiles": 4,
    "resample": Image.Resampling.BILINEAR.value,
}  # fmt: skip


@dataclass(frozen=True)
class TileSettings:
    """How an image becomes tiles."""

    side: int  # pixels
    most: int
    resample: Image.Resampling
    values: PixelValues

    @classmethod
    def open(cls, folder: Path, vision: VisionConfig) -> "TileSettings":
        """Read a checkpoint's settings. Raises ModelError where there are none or they do not suit the tower."""
        raw = image_fields(folder, IMAGES)
        size = raw.part("size", IMAGES["size"])
        sides = [size.whole(key, *SIDE) for key in ("height", "width")]
        most = raw.whole("max_image_tiles", *MOST_TILES)
        if sides != [vision.tile_side] * 2 or most != vision.most_tiles:
            raise ModelError(
                f"{folder} cuts images into up to {most} tiles of {shown(size.raw or IMAGES['size'])}, but its vision "
                f"tower takes {vision.most_tiles} of {vision.tile_side} × {vision.tile_side} pixels"
            )
        if not raw.flag("do_resize") or not raw.flag("do_pad"):
            raise ModelError(f"{folder} leaves images as large as they are: not supported")
        resample = Image.Resampling(raw.whole("resample", 0, len(Image.Resampling) - 1))
        return cls(vision.tile_side, most, resample, PixelValues.read(raw))

    def tiles(self, image: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
        """RGB image → float32 [M, 3, side, side], zeros behind the tiles that it has, and the (rows, columns) of these.

        What the image leaves bare of its canvas is black before it becomes numbers.
        """
        canvas, rows, columns = laid_out(image, self.side, self.most, self.resample)
        return cut(self.values.of(canvas), rows, columns, self.most), (rows, columns)


class MllamaProcessor(ChatProcessor):
    """Layout: turns by the checkpoint's chat template; an image is one token, where the text that attends to it
    begins."""

    def __init__(
        self,
        config: MllamaConfig,
        images: TileSettings,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        stop_ids: frozenset[int],
    ):
        control = ControlTokens(tokenizer, {config.image_token, config.pad, config.bos}, stop_ids=stop_ids)
        super().__init__(tokenizer, template, control, stop_ids)
        self.config = config
        self.images = images
        self.place = tokenizer.id_to_token(config.image_token) or ""
        self.image_size = images.side
        self.capabilities = replace(capabilities(config), turns=template.source is not None)

    @classmethod
    def open(cls, folder: Path, config: MllamaConfig, raw: dict[str, Any]) -> "MllamaProcessor":
        """Read the tokenizer, the chat template and the settings of a checkpoint. Raises ModelError."""
        tokenizer = read_tokenizer(folder)
        begin, place = (tokenizer.token_of(id) for id in (begin_id(folder, tokenizer, config.bos), config.image_token))
        template = ChatTemplate.open(folder, begin, partial(own_layout, begin=begin, place=place))
        images = TileSettings.open(folder, config.vision)
        return cls(config, images, tokenizer, template, stop_ids(folder, config.stop_ids))

    def message(self, turn: "Turn") -> Message:
        """A turn as the published templates know it: what the system says is a text, and no list of parts."""
        message = super().message(turn)
        if turn.role == "system":
            message["content"] = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        return message

    def task_prompt(self, task: str, words: str) -> str:
        """A plain instruction, or the beginning of an answer."""
        return task_prompt(task, words, self.capabilities.turns)

    def row_inputs(self, rows: Sequence[Row]) -> Inputs:
        """One row each, whose placeholders take the images in order.

        Raises ModelError where placeholders and images do not match, and for more than the model reads.
        """
        tokens, valid = pad_left([self._tokens(text, len(images)) for text, images, _ in rows], self.config.pad)
        tiles = [self.images.tiles(image) for _, images, _ in rows for image in images]
        return Inputs(tokens, valid, tuple(torch.from_numpy(one) for one, _ in tiles), tuple(grid for _, grid in tiles))

    def _tokens(self, text: str, images: int) -> list[int]:
        ids = self.control.encode(text)
        places = ids.count(self.config.image_token)
        if places != images:
            raise ModelError(
                f"The chat template in {self.template.path} makes {places} places for {images} images"
                if text.count(self.place) != images
                else f"tokenizer.json does not read {self.place}, an image's place, as a token"
            )
        decoder = self.config.decoder
        return self.fitting(ids, decoder.vocabulary + decoder.more_rows, decoder.positions)
