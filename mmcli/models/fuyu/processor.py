"""What goes into Fuyu and what comes out: patches of images, prompts with their places, text."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcli.decode.half_pixels import UNIT, HalfPixelGrammar
from mmcli.errors import ModelError, UsageError
from mmcli.hub.tokenizer import Tokenizer, read_tokenizer, stop_ids
from mmcli.models.family import Processor
from mmcli.models.fuyu.capabilities import capabilities
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.images import ImageSettings
from mmcli.models.prompts import fill_prompt

# Adept's own words (the model's card, and transformers `tests/models/fuyu/test_modeling_fuyu.py`).
LOCATE = (
    "When presented with a box, perform OCR to extract text contained within it. "
    "If provided with text, generate the corresponding bounding box.\n{}"
)
PROMPTS = {"caption": "Generate a coco-style caption.\n", "detect": LOCATE, "chat": "{}\n"}

BEGIN, LINE_END, ANSWER, END = "<s>", "|NEWLINE|", "<0x04>", "|ENDOFTEXT|"
OPENS = {"box": "<0x00>", "point": "<0x02>"}  # byte tokens, which no text of people holds
CLOSES = {"box": "<0x01>", "point": "<0x03>"}
TYPED = re.compile(r"<(box|point)>([^<>]*)</\1>")
SPACE = "▁"  # how sentencepiece writes it


class FuyuProcessor(Processor):
    """Layout: an image's patches row by row, each row with its end, then `<s>`, the prompt and the answer's beginning.

    A prompt without an image is `<s>` and its text, which the model continues: so does the reference.
    """

    def __init__(self, config: FuyuConfig, images: ImageSettings, tokenizer: Tokenizer, stop_ids: frozenset[int]):
        self.config = config
        self.images = images
        self.pad = config.pad
        self.tokenizer = tokenizer
        self.begin, self.line_end, self.answer = (self._mark(name) for name in (BEGIN, LINE_END, ANSWER))
        end = tokenizer.token_to_id(END)  # the published model ends its answers by it, whatever config.json says
        self.stop_ids = stop_ids if end is None else stop_ids | {end}
        self.grammar = self.places = _grammar(tokenizer, images)  # `places` is of its type, for what it alone can do
        self.capabilities = replace(capabilities(config), objects=self.places is not None)
        self.control_ids = self.stop_ids | {config.pad, config.image_token, self.begin, self.line_end, self.answer}

    @classmethod
    def open(cls, folder: Path, config: FuyuConfig, raw: dict[str, Any]) -> "FuyuProcessor":
        """Read the tokenizer and the image settings of a checkpoint. Raises ModelError."""
        images = ImageSettings.open(folder, config.patch)
        return cls(config, images, read_tokenizer(folder), stop_ids(folder, config.stop_ids))

    def _mark(self, name: str) -> int:
        id = self.tokenizer.token_to_id(name)
        if id is None:
            raise ModelError(f"The model's tokenizer.json has no token {name}", "Download the model again")
        return id

    def pixels_of(self, image: Image.Image) -> np.ndarray:
        """float32 [P, 3·patch²], row by row."""
        return self.images.patches(image)

    def row(self, prompt: str, images: Sequence[Image.Image]) -> list[int]:
        """Images stand in front of their prompt."""
        places = []
        for image in images:
            rows, columns = self.images.grid(image)
            places += ([self.config.image_token] * columns + [self.line_end]) * rows
        ids = self._question(prompt, images[-1]) if images else self.tokenizer.encode(prompt).ids
        if self.config.image_token in ids:
            name = self.tokenizer.id_to_token(self.config.image_token)
            raise UsageError(f"A prompt cannot hold the image's own token {name}", "Leave it out")
        self.tokenizer.check_rows([*places, *ids], self.config.decoder.vocabulary)
        return [*places, self.begin, *ids]

    def _question(self, prompt: str, image: Image.Image) -> list[int]:
        """The prompt's tokens and the beginning of the answer; places typed in it are given in the model's units.

        Text between places is read piece by piece, as Adept did it: sentencepiece puts a space in front of each.
        """
        ids: list[int] = []
        read = 0
        for typed in TYPED.finditer(prompt) if self.places else ():
            before = prompt[read : typed.start()]
            ids += (self.tokenizer.encode(before).ids if before else []) + self._place(typed, image)
            read = typed.end()
        rest = prompt[read:]
        ids += self.tokenizer.encode(rest + ANSWER).ids if rest or not read else [self.answer]
        if ids[-1] != self.answer:
            raise ModelError(f"The model's tokenizer.json does not read {ANSWER} as a token", "Download it again")
        return ids

    def _place(self, typed: re.Match[str], image: Image.Image) -> list[int]:
        """The tokens of <box>y0, x0, y1, x1</box> or <point>x, y</point>, which is in pixels of the image."""
        assert self.places is not None
        kind, words = typed.groups()
        try:
            values = [float(word) for word in words.split(",")]
            own = self.places.encode(kind, values, image.width, image.height)
        except ValueError as error:
            raise UsageError(
                f"{typed[0]} in the prompt is no place ({error})",
                "Write <box>y0, x0, y1, x1</box> or <point>x, y</point>, in pixels of the image",
            ) from error
        return list(own)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; places as <box>1, 2, 3, 4</box> in the model's units; control tokens vanish."""
        text, run = "", list[int]()
        places = self.places
        inside = 0  # numbers of a place so far, and one
        for id in filter(self.is_text, ids):
            if places and id in places.names:
                text, run = text + self._words(run, text) + places.names[id], []
                inside = int(id in places.opens)
            elif places and inside and id in places.numbers:
                text += f"{', ' if inside > 1 else ''}{places.numbers[id]}"
                inside += 1
            else:
                run.append(id)
                inside = 0
        return text + self._words(run, text)

    def _words(self, ids: list[int], before: str) -> str:
        """Plain text behind other text: its first space counts, which the tokenizer takes for its own."""
        words = self.tokenizer.decode(ids, skip_special_tokens=False)
        parted = before and ids and (self.tokenizer.id_to_token(ids[0]) or "").startswith(SPACE)
        return f" {words}" if parted and not words.startswith(" ") else words

    def task_prompt(self, task: str, words: str) -> str:
        """Adept's words for a task. Each object is asked for alone: those of several stand one after another."""
        if task != "detect":
            return fill_prompt(PROMPTS, task, words, "Fuyu")
        labels = [part.strip() for part in words.split(";")]
        return "\n".join(fill_prompt(PROMPTS, task, label, "Fuyu") for label in labels if label)


def _grammar(tokenizer: Tokenizer, images: ImageSettings) -> HalfPixelGrammar | None:
    """Places in the tokenizer's own tokens; None where it lacks some."""
    marks = [{tokenizer.token_to_id(name): kind for kind, name in names.items()} for names in (OPENS, CLOSES)]
    opens, closes = ({id: kind for id, kind in mark.items() if id is not None} for mark in marks)
    largest = max(images.fit.height, images.fit.width) // UNIT
    spelled = {tokenizer.token_to_id(str(number)): number for number in range(largest + 1)}
    numbers = {id: number for id, number in spelled.items() if id is not None}
    if len(opens) < len(OPENS) or len(closes) < len(CLOSES) or not numbers:
        return None
    return HalfPixelGrammar(opens, closes, numbers, images.fit)
