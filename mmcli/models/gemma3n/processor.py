"""What goes into Gemma 3n and what comes out: turns of text, images and recordings; text."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError, UsageError
from mmcli.hub.fields import shown
from mmcli.hub.image_settings import ImageSettings
from mmcli.hub.pixel_values import processor_fields
from mmcli.hub.tokenizer import Tokenizer, begin_id, read_tokenizer, stop_ids
from mmcli.models.chat_processor import ChatProcessor, Row
from mmcli.models.chat_template import ChatTemplate
from mmcli.models.control_tokens import ControlTokens
from mmcli.models.gemma3n import features
from mmcli.models.gemma3n.capabilities import capabilities
from mmcli.models.gemma3n.config import Gemma3nConfig, ModalityConfig
from mmcli.models.gemma3n.features import LONGEST, RATE, MelSettings
from mmcli.models.gemma3n.layout import own_layout
from mmcli.models.gemma3n.prompts import task_prompt

TURN_MARKS = ("<start_of_turn>", "<end_of_turn>")


class Gemma3nProcessor(ChatProcessor):
    """Layout: bos, then turns by the checkpoint's chat template.

    Where the template has an image's placeholder there come a blank line, the token that begins an image, its soft
    tokens, the token that ends it and a blank line; recordings likewise. Typed text that spells a control token is read
    letter by letter: nobody opens a turn, or makes room for an image, by writing about it.
    """

    def __init__(
        self,
        config: Gemma3nConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        images: ImageSettings | None,
        audios: MelSettings | None,
        stop_ids: frozenset[int],
    ):
        places = {id for modality in (config.vision, config.audio) if modality for id in modality.marks}
        control = ControlTokens(tokenizer, places | {config.bos, config.pad}, TURN_MARKS, stop_ids)
        super().__init__(tokenizer, template, control, stop_ids)
        self.config = config
        self.capabilities = capabilities(config)
        self.images = images
        self.audios = audios
        self.image_size = images.side if images else 0
        self.square = images.square if images else None
        self.soft_tokens = config.vision.soft_tokens if config.vision else 0

    @classmethod
    def open(cls, folder: Path, config: Gemma3nConfig, raw: dict[str, Any]) -> "Gemma3nProcessor":
        """Read the tokenizer, the chat template and the settings of a checkpoint. Raises ModelError."""
        tokenizer = read_tokenizer(folder)
        modalities = {"image": config.vision, "audio": config.audio}
        names = {
            kind: [tokenizer.token_of(id) for id in modality.marks] for kind, modality in modalities.items() if modality
        }
        begin = tokenizer.token_of(begin_id(folder, tokenizer, config.bos))
        images = audios = None
        if config.vision:
            images = ImageSettings.open(folder, config.vision.soft_tokens)
        if config.audio:
            places = processor_fields(folder).get("audio_seq_length")
            if places not in (None, config.audio.soft_tokens):
                raise ModelError(
                    f"{folder} expects {shown(places)} soft tokens a recording (audio_seq_length), "
                    f"but by its config.json there are {config.audio.soft_tokens}"
                )
            audios = features.read_settings(folder, config.audio.conformer.mels)
        placeholders = {kind: placeholder for kind, (placeholder, *_) in names.items()}
        template = ChatTemplate.open(folder, begin, partial(own_layout, begin=begin, placeholders=placeholders))
        return cls(config, tokenizer, template, images, audios, stop_ids(folder, config.stop_ids))

    def task_prompt(self, task: str, words: str) -> str:
        """A plain instruction."""
        return task_prompt(task, words)

    def row_inputs(self, rows: Sequence[Row]) -> Inputs:
        """One row each, whose placeholders take the images and recordings in order.

        Raises UsageError for a recording that is too long, ModelError where placeholders and parts do not match.
        """
        ids = [self._tokens(text, len(images), len(audios)) for text, images, audios in rows]
        tokens, valid = pad_left(ids, self.config.pad)
        seen = [image for _, images, _ in rows for image in images]
        pixels = [torch.from_numpy(self.images.pixels(image)) for image in seen] if self.images else []
        audios = [audio for _, _, audios in rows for audio in audios]
        longest = max(map(len, audios), default=0)
        if longest > LONGEST:
            raise UsageError(
                f"A recording of {longest / RATE:.1f} s is longer than the {LONGEST // RATE} s that are read at once",
                "Give a part of it, or write it down with mmcli transcribe, which cuts at pauses",
            )
        mels, audio_valid = features.log_mel(audios, self.audios) if audios and self.audios else (None, None)
        return Inputs(tokens, valid, tuple(pixels), audio=mels, audio_valid=audio_valid)

    def _tokens(self, text: str, images: int, audios: int) -> list[int]:
        """Token ids of a chat text, every placeholder opened out to the places of an image or a recording."""
        modalities = (self.config.vision, images, "picture"), (self.config.audio, audios, "recording")
        for modality, count, what in modalities:
            text = self._opened(text, modality, count, what)
        ids = self.control.encode(text)
        for modality, count, what in modalities:
            if modality and ids.count(modality.token) != count * modality.soft_tokens:
                name = self.tokenizer.id_to_token(modality.token)
                raise ModelError(
                    f"tokenizer.json does not read {name}, a {what}'s place, as a token", "Download the model again"
                )
        return self.fitting(ids, self.config.text.vocabulary, self.config.text.positions)

    def _opened(self, text: str, modality: ModalityConfig | None, count: int, what: str) -> str:
        if modality is None:
            if count:
                raise ModelError(f"This checkpoint takes no {what}s: it is a decoder alone")
            return text
        placeholder, begin, end = (self.tokenizer.id_to_token(id) or "" for id in modality.marks)
        if text.count(placeholder) != count:
            raise ModelError(
                f"The chat template in {self.template.path} makes {text.count(placeholder)} places for {count} {what}s"
            )
        # The blank lines merge with line breaks around them, as they did in training.
        return text.replace(placeholder, f"\n\n{begin}{placeholder * modality.soft_tokens}{end}\n\n")
