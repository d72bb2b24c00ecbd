"""What processors of models that converse have in common: turns by a chat template, typed text that cannot spell
control tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmcli.engine.inputs import Inputs
from mmcli.errors import ModelError
from mmcli.hub.tokenizer import Tokenizer
from mmcli.models.chat_template import ChatTemplate, Message
from mmcli.models.control_tokens import ControlTokens
from mmcli.models.family import Processor

if TYPE_CHECKING:
    import numpy as np

    from mmcli.types import Turn

Row = tuple[str, "Sequence[Image.Image]", "Sequence[np.ndarray]"]  # a text with its images and audio, in order


class ChatProcessor(Processor):
    """Base of processors that lay out turns. A subclass supplies `row_inputs` and `task_prompt`."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, control: ControlTokens, stop_ids: frozenset[int]):
        self.tokenizer = tokenizer
        self.template = template
        self.control = control
        self.control_ids = control.ids
        self.stop_ids = stop_ids

    def row_inputs(self, rows: Sequence[Row]) -> Inputs:
        """Texts as templates write them, each with what stands for an image or a recording in it. As `text_inputs`."""
        raise NotImplementedError

    def fitting(self, ids: list[int], rows: int, positions: int | None) -> list[int]:
        """These ids of a text. Raises ModelError unless the model has a row of its table for each and room for all."""
        self.tokenizer.check_rows(ids, rows)
        if positions is not None and len(ids) > positions:
            raise ModelError(f"The conversation's {len(ids)} tokens are more than the {positions} this model reads")
        return ids

    # -- text --------------------------------------------------------------------------------------------------------

    def apply_chat_template(self, turns: "Sequence[Turn]") -> str:
        """The text of a conversation up to where the model writes, each image and audio as its placeholder.

        Where the last turn is the model's own, the text ends behind that: so training tells what is an answer. Raises
        ModelError where the checkpoint's template fails or refuses the turns.
        """
        return self.template.text([self.message(turn) for turn in turns])

    def message(self, turn: "Turn") -> Message:
        """A turn as templates know it."""
        role = "assistant" if turn.role == "model" else turn.role
        return {"role": role, "content": [self._part(part) for part in turn.parts]}

    def _part(self, part: Any) -> Message:
        """One part of a turn as templates know it."""
        if isinstance(part, str):
            return {"type": "text", "text": self.control.typed(part)}
        return {"type": "image" if isinstance(part, Image.Image) else "audio"}

    # -- inputs ------------------------------------------------------------------------------------------------------

    def text_inputs(self, text: str, images: Sequence[Image.Image] = (), audios: "Sequence[np.ndarray]" = ()) -> Inputs:
        """One row of what `apply_chat_template` gave, or of the rest of it; its placeholders take the images and audio
        in order."""
        return self.row_inputs([(text, images, audios)])

    def inputs(
        self,
        images: Sequence[Sequence[Image.Image]],
        prompts: Sequence[str],
        audios: "Sequence[Sequence[np.ndarray]] | None" = None,
    ) -> Inputs:
        """Row i is one turn of the user's: its images, its audio (float32 mono at 16 kHz), its prompt."""
        audio_rows = [()] * len(prompts) if audios is None else audios
        if not len(images) == len(prompts) == len(audio_rows):
            raise ValueError(f"{len(images)} lists of images, {len(audio_rows)} of audio for {len(prompts)} prompts")
        rows: list[Row] = []
        for seen, own, prompt in zip(images, audio_rows, prompts, strict=True):
            content = [*map(self._part, seen), *map(self._part, own), self._part(prompt)]
            rows.append((self.template.text([{"role": "user", "content": content}]), seen, own))
        return self.row_inputs(rows)
