"""What goes into Gemma 3n and what comes out: turns of text, pictures and sounds; text."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError, UsageError
from mmcli.hub import picture_settings
from mmcli.hub.fields import shown
from mmcli.hub.picture_settings import PictureSettings
from mmcli.hub.tokenizer import Tokenizer, begin_id, read_tokenizer, stop_ids
from mmcli.models.family import Processor
from mmcli.models.gemma3n import features
from mmcli.models.gemma3n.capabilities import capabilities
from mmcli.models.gemma3n.config import Gemma3nConfig, ModalityConfig
from mmcli.models.gemma3n.features import LONGEST, RATE, MelSettings
from mmcli.models.gemma3n.prompts import task_prompt
from mmcli.models.gemma3n.template import ChatTemplate, Message

if TYPE_CHECKING:
    from mmcli.types import Turn

TURN_MARKS = ("<start_of_turn>", "<end_of_turn>")
GUARD = "\ufdd0"  # no character of Unicode's: it stands inside names of control tokens that were merely typed
NO_CHARACTERS = re.compile(f"[{GUARD}\ud800-\udfff]")  # the latter stand for bytes that were no UTF-8


class Gemma3nProcessor(Processor):
    """Layout: bos, then turns by the checkpoint's chat template.

    Where the template has a picture's placeholder there come a blank line, the token that begins a picture, its soft
    tokens, the token that ends it and a blank line; sounds likewise. Typed text that spells a control token is read
    letter by letter: nobody opens a turn, or makes room for a picture, by writing about it.
    """

    def __init__(
        self,
        config: Gemma3nConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        pictures: PictureSettings | None,
        sounds: MelSettings | None,
        stop_ids: frozenset[int],
    ):
        self.config = config
        self.capabilities = capabilities(config)
        self.tokenizer = tokenizer
        self.template = template
        self.pictures = pictures
        self.sounds = sounds
        self.stop_ids = stop_ids
        self.image_size = pictures.side if pictures else 0
        self.soft_tokens = config.vision.soft_tokens if config.vision else 0
        self._control = _control_ids(tokenizer, config, stop_ids)
        self._typed = _start_of([tokenizer.id_to_token(id) or "" for id in sorted(self._control)])

    @classmethod
    def open(cls, folder: Path, config: Gemma3nConfig, raw: dict[str, Any]) -> "Gemma3nProcessor":
        """Read the tokenizer, the chat template and the settings of a checkpoint. Raises ModelError."""
        tokenizer = read_tokenizer(folder)
        modalities = {"image": config.vision, "audio": config.audio}
        names = {
            kind: [_name(tokenizer, id, folder) for id in modality.marks]
            for kind, modality in modalities.items()
            if modality
        }
        begin = _name(tokenizer, begin_id(folder, tokenizer, config.bos), folder)
        pictures = sounds = None
        if config.vision:
            pictures = PictureSettings.open(folder, config.vision.soft_tokens)
        if config.audio:
            places = picture_settings.read_settings(folder).get("audio_seq_length")
            if places not in (None, config.audio.soft_tokens):
                raise ModelError(
                    f"{folder} expects {shown(places)} soft tokens a sound (audio_seq_length), "
                    f"but by its config.json there are {config.audio.soft_tokens}"
                )
            sounds = features.read_settings(folder, config.audio.conformer.mels)
        template = ChatTemplate.open(folder, begin, {kind: placeholder for kind, (placeholder, *_) in names.items()})
        return cls(config, tokenizer, template, pictures, sounds, stop_ids(folder, config.stop_ids))

    # -- text --------------------------------------------------------------------------------------------------------

    def chat_text(self, turns: "Sequence[Turn]") -> str:
        """The text of a conversation up to where the model writes, each picture and sound as its placeholder.

        Raises ModelError where the checkpoint's template fails or refuses the turns.
        """
        roles = {"model": "assistant"}
        messages = [
            {"role": roles.get(turn.role, turn.role), "content": [self._part(part) for part in turn.parts]}
            for turn in turns
        ]
        return self.template.text(messages)

    def _part(self, part: Any) -> Message:
        """One part of a turn as templates know it."""
        if isinstance(part, str):
            text = NO_CHARACTERS.sub("", part)
            # Every place where a control token begins is parted, so that no piece of the text holds one.
            return {"type": "text", "text": self._typed.sub(rf"\1{GUARD}", text)}
        return {"type": "image" if isinstance(part, Image.Image) else "audio"}

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; control tokens vanish."""
        return self.tokenizer.decode([id for id in ids if self.is_text(id)], skip_special_tokens=False)

    def is_text(self, id: int) -> bool:
        """Whether a token is part of the text, and not one that steers."""
        return id not in self._control

    def task_prompt(self, task: str, words: str) -> str:
        """A plain instruction."""
        return task_prompt(task, words)

    # -- inputs ------------------------------------------------------------------------------------------------------

    def text_inputs(self, text: str, pictures: Sequence[Image.Image] = (), sounds: Sequence[np.ndarray] = ()) -> Inputs:
        """One row of a `chat_text`, or of the rest of one; its placeholders take the pictures and sounds in order.

        Raises UsageError for a sound that is too long, ModelError where placeholders and parts do not match.
        """
        return self._inputs([(text, pictures, sounds)])

    def inputs(
        self,
        pictures: Sequence[Sequence[Image.Image]],
        prompts: Sequence[str],
        sounds: Sequence[Sequence[np.ndarray]] | None = None,
    ) -> Inputs:
        """Row i is one turn of the user's: its pictures, its sounds (float32 mono at 16 kHz), its prompt."""
        heard = [()] * len(prompts) if sounds is None else sounds
        if not len(pictures) == len(prompts) == len(heard):
            raise ValueError(f"{len(pictures)} lists of pictures, {len(heard)} of sounds for {len(prompts)} prompts")
        rows = []
        for seen, own, prompt in zip(pictures, heard, prompts, strict=True):
            content = [*map(self._part, seen), *map(self._part, own), self._part(prompt)]
            rows.append((self.template.text([{"role": "user", "content": content}]), seen, own))
        return self._inputs(rows)

    def _inputs(self, rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[np.ndarray]]]) -> Inputs:
        ids = [self._tokens(text, len(pictures), len(sounds)) for text, pictures, sounds in rows]
        tokens, valid = pad_left(ids, self.config.pad)
        seen = [picture for _, pictures, _ in rows for picture in pictures]
        images = [torch.from_numpy(self.pictures.pixels(picture)) for picture in seen] if self.pictures else []
        sounds = [sound for _, _, sounds in rows for sound in sounds]
        longest = max(map(len, sounds), default=0)
        if longest > LONGEST:
            raise UsageError(
                f"A sound of {longest / RATE:.1f} s is longer than the {LONGEST // RATE} s that are heard at once",
                "Give a part of it, or write it down with mmcli transcribe, which cuts at pauses",
            )
        mels, heard = features.log_mel(sounds, self.sounds) if sounds and self.sounds else (None, None)
        return Inputs(tokens, valid, tuple(images), audio=mels, audio_valid=heard)

    def _tokens(self, text: str, pictures: int, sounds: int) -> list[int]:
        """Token ids of a chat text, every placeholder opened out to the places of a picture or sound."""
        modalities = (self.config.vision, pictures, "picture"), (self.config.audio, sounds, "sound")
        for modality, count, what in modalities:
            text = self._opened(text, modality, count, what)
        text = text.encode("utf-8", "replace").decode()  # a template may write halves of characters
        pieces = (self.tokenizer.encode(piece).ids for piece in text.split(GUARD))
        ids = [id for piece in pieces for id in piece]
        for modality, count, what in modalities:
            if modality and ids.count(modality.token) != count * modality.soft_tokens:
                name = self.tokenizer.id_to_token(modality.token)
                raise ModelError(
                    f"tokenizer.json does not read {name}, a {what}'s place, as a token", "Download the model again"
                )
        self.tokenizer.check_rows(ids, self.config.text.vocabulary)
        if len(ids) > self.config.text.positions:
            raise ModelError(
                f"The conversation's {len(ids)} tokens are more than the {self.config.text.positions} this model reads"
            )
        return ids

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
        # The blank lines melt with line breaks around them, as they did in training.
        return text.replace(placeholder, f"\n\n{begin}{placeholder * modality.soft_tokens}{end}\n\n")


def _control_ids(tokenizer: Tokenizer, config: Gemma3nConfig, stop_ids: frozenset[int]) -> frozenset[int]:
    """Tokens that steer: no text of a user or a model holds them."""
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    marks = {tokenizer.token_to_id(mark) for mark in TURN_MARKS}
    places = {id for modality in (config.vision, config.audio) if modality for id in modality.marks}
    known = special | marks | places | stop_ids | {config.bos, config.pad}
    return frozenset(id for id in known if id is not None and tokenizer.id_to_token(id))


def _start_of(names: list[str]) -> re.Pattern[str]:
    """Matches the first character of every place where one of these names stands, also where two overlap."""
    first = "".join(sorted({re.escape(name[0]) for name in names}))  # asked first, for there may be thousands of names
    return re.compile(f"(?=[{first}])(?={'|'.join(map(re.escape, names))})(.)", re.DOTALL)


def _name(tokenizer: Tokenizer, id: int, folder: Path) -> str:
    name = tokenizer.id_to_token(id)
    if name is None:
        raise ModelError(
            f"In {folder}, config.json names the token {id}, which tokenizer.json does not have",
            "They are of different models; download the model again",
        )
    return name
