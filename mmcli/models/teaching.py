"""How a family is taught: from an example to the tokens that are learned, and from a batch to logits of all places.

It is the seam between families and training: a family declares a `Teaching`, and nothing else tells whether or how it
can be trained.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.media.audio import read_audio
from mmcli.media.image import load_image
from mmcli.media.sources import one_named

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mmcli.engine.model import GenerativeModel

IGNORED = -100  # the target of a place at which nothing is learned, as PyTorch's cross entropy has it


@dataclass(frozen=True)
class Row:
    """One sequence to learn from: whole, with its answers."""

    tokens: tuple[int, ...]
    learned: tuple[bool, ...]  # which of the tokens are answer, its end included
    prefix: tuple[bool, ...] = ()  # which are read in both directions; (): none
    question: tuple[int, ...] = ()
    """Where several questions are asked of one image: the number of each token's, from 1; 0: what all of them see."""
    images: tuple[Tensor, ...] = ()  # as in `Inputs`
    image_layouts: tuple[tuple[int, ...], ...] = ()
    audio: tuple[Tensor, ...] = ()  # features [F, mels] or [mels, F] of each piece, as the family has them


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right; `inputs` holds their tokens whole, with all answers."""

    inputs: Inputs
    targets: Tensor  # [B, T] the token that follows each place, `IGNORED` where that is not learned
    prefix: Tensor  # [B, T] True where tokens are read in both directions
    question: Tensor  # [B, T]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The same on a device; images and audio also change their type."""
        return Batch(
            self.inputs.to(device, dtype),
            self.targets.to(device),
            self.prefix.to(device),
            self.question.to(device),
        )

    @property
    def learned(self) -> int:
        """How many tokens are learned."""
        return int((self.targets != IGNORED).sum())


class Teaching:
    """What training asks of a family. A family derives its own."""

    adapted: tuple[str, ...] = ()  # linear layers that LoRA adapts, as the ends of our names
    adapted_in: tuple[str, ...] = ("decoder.",)  # … below these parts
    head: tuple[str, ...] = ()  # beginnings of the names of what `--method head` trains
    frozen: tuple[str, ...] = ()  # beginnings of the names of what is never trained unless it is asked for
    modules: tuple[str, ...] = ("",)  # beginnings of the names that the reference gives its modules, for LoRA files
    checkpointed: tuple[str, ...] = ("decoder.layers.",)  # layers whose activations are computed again on the way back
    shared: bool = True  # whether the weights may be shared out among processes, those of `checkpointed` one by one
    rate: float = 1e-5  # learning rate of whole weights that suits it
    lora_rate: float = 2e-4
    pad: int = 0  # any token that the decoder has a row for

    def configured(self, raw: dict[str, Any], labels: Iterable[str]) -> dict[str, Any]:
        """config.json of the model that will have learned these labels; `raw` itself where it lists none."""
        return raw

    def usual_rate(self, config: Any, lora: bool) -> float:
        """The highest learning rate that suits a model of this configuration."""
        return self.lora_rate if lora else self.rate

    def begin(self, model: "GenerativeModel") -> None:
        """What is to be done before a model is trained."""
        return

    def rows(self, loaded: Any, example: Example, rng: random.Random, *, vary: bool = False) -> Sequence[Row]:
        """The sequences that an example becomes. Raises InputError for one that cannot be learned.

        `loaded` is the `Loaded` of the model. `rng` chooses where there is something to choose: the same numbers give
        the same rows. With `vary` the images may be shown as they could have been taken too.
        """
        raise NotImplementedError

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows as one batch, padded on the right."""
        return pad_right(rows, self.pad)

    def states(self, model: "GenerativeModel", batch: Batch) -> Tensor:
        """What the model makes of every place of a batch, behind its last norm: [B, T, D], with gradients."""
        raise NotImplementedError

    def logits(self, model: "GenerativeModel", states: Tensor) -> Tensor:
        """States [..., D] → float32 logits [..., V] of the token that follows."""
        decoder: Any = model.decoder
        return decoder.logits(states)

    def further_loss(self, model: "GenerativeModel", batch: Batch, states: Tensor) -> Tensor | None:
        """What else is to become small, beside the loss of the tokens; None: nothing."""
        return None


def pad_right(rows: Sequence[Row], pad: int) -> Batch:
    """Rows of any lengths as one batch."""
    width = max(len(row.tokens) for row in rows)

    def padded(values: Callable[[Row], Sequence[Any]], fill: Any) -> Tensor:
        return torch.tensor([[*(own := values(row)), *[fill] * (width - len(own))] for row in rows])

    tokens = padded(lambda row: row.tokens, pad)
    valid = padded(lambda row: [True] * len(row.tokens), False)
    learned = padded(lambda row: row.learned, False)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, :-1] = torch.where(learned[:, 1:], tokens[:, 1:], IGNORED)
    pieces = [piece for row in rows for piece in row.audio]
    audio = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True) if pieces else None
    audio_valid = None
    if audio is not None:
        lengths = torch.tensor([len(piece) for piece in pieces])
        audio_valid = torch.arange(audio.shape[1]) < lengths[:, None]
    inputs = Inputs(
        tokens,
        valid,
        images=tuple(image for row in rows for image in row.images),
        image_layouts=tuple(layout for row in rows for layout in row.image_layouts),
        audio=audio,
        audio_valid=audio_valid,
    )
    return Batch(
        inputs,
        targets,
        prefix=padded(lambda row: row.prefix or [False] * len(row.tokens), False),
        question=padded(lambda row: row.question or [0] * len(row.tokens), 0),
    )


def seen_mask(batch: Batch) -> Tensor:
    """What each token of a batch may attend to, [B, 1, T, T].

    A token sees those before it and, of its prefix, those behind it too; a prefix sees no answer. Tokens of a question
    see that question and what belongs to none. Padding sees itself alone, and nobody sees it.
    """
    prefix, question, valid = batch.prefix, batch.question, batch.inputs.valid
    places = torch.arange(prefix.shape[1], device=prefix.device)
    before = places[:, None] >= places
    seen = torch.where(prefix[:, :, None], prefix[:, None, :], before | prefix[:, None, :])
    same = (question[:, :, None] == question[:, None, :]) | (question == 0)[:, None, :]
    seen = seen & same & valid[:, None, :] & valid[:, :, None]
    return (seen | torch.eye(len(places), dtype=torch.bool, device=prefix.device))[:, None]


def within_window(mask: Tensor, prefix: Tensor, window: int | None) -> Tensor | None:
    """The part of `mask` [B, 1, T, T] that layers with a window see: a prefix whole, else the last `window` tokens."""
    if window is None:
        return None
    places = torch.arange(mask.shape[-1], device=mask.device)
    near = places[:, None] - places < window
    return mask & (near | (prefix[:, :, None] & prefix[:, None, :]))[:, None]


def open_images(example: Example, side: int) -> "list[Image.Image]":
    """The RGB images of an example. Raises InputError."""
    return [load_image(one_named(str(path)), side=side).image for path in example.images]


def open_audio(example: Example, longest: float | None) -> "list[np.ndarray]":
    """The recordings of an example, mono at 16 kHz. Raises InputError for one of more than `longest` seconds."""
    found = []
    for path in example.audio:
        samples, _ = read_audio(one_named(str(path)))
        if longest is not None and len(samples) > longest * 16_000:
            raise InputError(
                f"{path} is longer than the {longest:g} s that the model reads at once ({example.where})",
                "Cut it into pieces with a text each",
            )
        found.append(samples)
    return found
