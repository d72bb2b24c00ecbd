"""How PaliGemma is taught: the answer and the end of the text, behind a prefix that is read in both directions.

Source: google-research/big_vision `configs/proj/paligemma/transfers/common.py`, and transformers'
`processing_paligemma.py` where it is given a suffix.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.layers.attention import prefix_positions
from mmcli.models.location_answers import asked_labels, exchanges, objects_text
from mmcli.models.paligemma.model import PaliGemma
from mmcli.models.paligemma.processor import PaliGemmaProcessor
from mmcli.models.teaching import Batch, Row, Teaching, open_images, seen_mask, within_window

if TYPE_CHECKING:
    from mmcli.engine.model import GenerativeModel
    from mmcli.models.loaded import Loaded


class PaliGemmaTeaching(Teaching):
    """One row for each prompt, with the images: of a conversation, too, each turn by itself.

    A prefix is read in both directions and sees no answer. In one sequence the prompt of a second turn would have to
    see the first answer, or be read causally: neither the reference nor its checkpoints know such a sequence.
    """

    adapted = ("attention.q", "attention.k", "attention.v", "attention.out", "mlp.gate", "mlp.up", "mlp.down")
    head = ("projector.",)
    frozen = ("vision.",)
    modules = ("model.language_model.", "model.vision_tower.", "model.multi_modal_projector.")
    checkpointed = ("decoder.layers.", "vision.layers.")

    def rows(self, loaded: "Loaded", example: Example, rng: random.Random, *, vary: bool = False) -> Sequence[Row]:
        """As `Teaching.rows`."""
        processor = cast(PaliGemmaProcessor, loaded.processor)  # the family's own
        images = open_images(example, processor.capabilities.min_read_side)
        pixels = tuple(torch.from_numpy(processor.images.pixels(image)) for image in images)
        soft = [processor.config.image_token] * (processor.soft_tokens * len(pixels))
        rows = []
        for prompt, answer in self._asked(loaded, example, rng):
            prefix = [*soft, *processor.prompt_tokens(prompt)]
            suffix = [*processor.answer_tokens(answer, example.where), min(processor.stop_ids)]
            learned = (False,) * len(prefix) + (True,) * len(suffix)
            first = tuple(not one for one in learned)
            rows.append(Row((*prefix, *suffix), learned, first, images=pixels))
        return rows

    def _asked(self, loaded: "Loaded", example: Example, rng: random.Random) -> list[tuple[str, str]]:
        if example.task not in ("detect", "segment") or example.exchanges:  # places may stand in a text
            return exchanges(loaded, example)
        if loaded.processor.grammar is None:
            raise InputError(f"{example.where} has objects, but this model's tokenizer has no locations")
        labels = asked_labels(example, rng)
        if not labels:
            raise InputError(f"{example.where} names no label", "Name what is to be found")
        prompt = loaded.processor.task_prompt(example.task, " ; ".join(labels))
        return [(prompt, objects_text(loaded, example, labels))]

    def states(self, model: "GenerativeModel", batch: Batch) -> Tensor:
        """As `Teaching.states`."""
        own = cast(PaliGemma, model)
        mask = seen_mask(batch)
        sliding = within_window(mask, batch.prefix, own.sliding_window)
        return own.decoder(own.embed(batch.inputs), prefix_positions(batch.inputs.valid), mask, None, sliding)
