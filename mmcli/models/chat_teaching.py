"""How models that converse are taught: the answers of a conversation, found by rendering it with and without them."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from mmcli.errors import InputError, ModelError
from mmcli.example import Example
from mmcli.layers.attention import prefix_positions
from mmcli.models.chat_processor import ChatProcessor
from mmcli.models.teaching import Batch, Row, Teaching, open_audio, open_images, seen_mask, within_window
from mmcli.types import Audio, Turn

if TYPE_CHECKING:
    from mmcli.engine.inputs import Inputs
    from mmcli.engine.model import GenerativeModel
    from mmcli.models.loaded import Loaded


class ChatTeaching(Teaching):
    """A conversation is one row: what is learned are its answers, each with the token that ends it.

    The text is read in the pieces in which it grows when the model is used, so its tokens are those of use.
    """

    adapted = ("attention.q", "attention.k", "attention.v", "attention.out", "mlp.gate", "mlp.up", "mlp.down")

    def rows(self, loaded: "Loaded", example: Example, rng: random.Random, *, vary: bool = False) -> Sequence[Row]:
        """As `Teaching.rows`."""
        if example.task in ("detect", "segment"):
            raise InputError(f"{example.where} has objects, but this model writes no places", "Use one that finds them")
        processor = cast(ChatProcessor, loaded.processor)  # the families' own
        able = processor.capabilities
        images, audios = open_images(example, able.min_read_side), open_audio(example, able.max_audio_seconds)
        if not example.exchanges:
            raise InputError(f"{example.where} has no answer to learn", "Give each example one")
        turns: list[Turn] = [Turn("system", (example.system,))] if example.system else []
        tokens: list[int] = []
        learned: list[bool] = []
        row, written = Row((), ()), ""
        for number, one in enumerate(example.exchanges):
            parts: list[Any] = [] if number else [*images, *(Audio(example.where, own) for own in audios)]
            prompt = self.prompt(loaded, example) if one.prompt is None else one.prompt
            turns.append(Turn("user", (*parts, prompt)))
            asked = self._rest(processor.apply_chat_template(turns), written, example)
            given = processor.text_inputs(asked, *(() if number else (images, audios)))
            if not number:
                row = row_of(given)
            turns.append(Turn("model", (one.answer,)))
            answered = processor.apply_chat_template(turns)
            answer = self._ids(processor.text_inputs(self._rest(answered, written + asked, example)))
            ends = [place for place, id in enumerate(answer) if id in processor.stop_ids]
            most = ends[0] + 1 if ends else len(answer)
            question = self._ids(given)
            tokens += [*question, *answer]
            learned += [*[False] * len(question), *[True] * most, *[False] * (len(answer) - most)]
            written = answered
        return [Row(tuple(tokens), tuple(learned), images=row.images, image_layouts=row.image_layouts, audio=row.audio)]

    def prompt(self, loaded: "Loaded", example: Example) -> str:
        """The prompt of an exchange without one: that by which the family knows the example's task."""
        return loaded.processor.task_prompt(example.task, "")

    def states(self, model: "GenerativeModel", batch: Batch) -> Tensor:
        """As `Teaching.states`, of a decoder that reads causally, as `layers.causal_lm.CausalReader` has it."""
        own: Any = model
        mask = seen_mask(batch)
        sliding = within_window(mask, batch.prefix, own.decoder.config.window)
        return own.decoder(own.embed(batch.inputs), prefix_positions(batch.inputs.valid), mask, None, sliding)

    @staticmethod
    def _ids(inputs: "Inputs") -> list[int]:
        return inputs.tokens[0].tolist()

    @staticmethod
    def _rest(text: str, before: str, example: Example) -> str:
        """What a rendering adds to the one before."""
        if not text.startswith(before):
            raise ModelError(
                f"The model's chat template writes the earlier turns of {example.where} anew with each turn, so what "
                "it answered cannot be told from the rest",
                "Give each example one question and one answer",
            )
        return text[len(before) :]


def row_of(inputs: "Inputs") -> Row:
    """The images and audio of the one row of `inputs`."""
    pieces: tuple[Tensor, ...] = ()
    if inputs.audio is not None and inputs.audio_valid is not None:
        pieces = tuple(piece[: int(valid.sum())] for piece, valid in zip(inputs.audio, inputs.audio_valid, strict=True))
    return Row((), (), images=inputs.images, image_layouts=inputs.image_layouts, audio=pieces)
