"""Recordings of several channels as one: those in which somebody speaks, where they differ.

A caller and an agent on a channel each are both transcribed; noise or a hum on one channel is not mixed into the speech
on the other.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mmcli.media.mixing import TURNED, Alignment
from mmcli.speech.windows import CONTEXT, FRAME, START, framed

if TYPE_CHECKING:
    from mmcli.speech.silero_vad import SileroVAD

PIECE = 125 * FRAME  # samples that are compared together: 4 s
ALIKE = 0.7  # correlation with the loudest channel from which on nothing is lost in the mean
SILENT = 1e-4  # share of the loudest channel's energy (-40 dB) below which a channel disturbs nobody
SPOKEN = 3  # frames of speech in a piece by which a channel is one to be transcribed


class Voices:
    """Blocks of [samples] or [samples, channels] → [samples]; to be iterated once, then `notes` are complete."""

    def __init__(self, blocks: Iterable[np.ndarray], detector: "SileroVAD"):
        self._blocks, self._detector = blocks, detector
        self._alignment = Alignment()
        self._left_out = False  # a channel, somewhere

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, each a phrase."""
        left_out = "a channel without speech is left out where it would disturb the others"
        return (TURNED,) * self._alignment.turned + (left_out,) * self._left_out

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        for block in self._blocks:
            if waiting and block.shape[1:] != waiting[0].shape[1:]:
                yield self._mixed(np.concatenate(waiting))
                waiting = []
            if block.ndim == 1:
                yield block
                continue
            waiting.append(self._alignment.align(block))
            if sum(map(len, waiting)) >= PIECE:
                yield self._mixed(np.concatenate(waiting))
                waiting = []
        if waiting:
            yield self._mixed(np.concatenate(waiting))

    def _mixed(self, piece: np.ndarray) -> np.ndarray:
        if self._differ(piece):
            spoken = [self._speaks(np.ascontiguousarray(channel)) for channel in piece.T]
            if any(spoken) and not all(spoken):
                piece = piece[:, spoken]
                self._left_out = True
        return piece.mean(axis=1)

    def _differ(self, piece: np.ndarray) -> bool:
        """Whether a channel holds something that the loudest does not, and loud enough to disturb it."""
        products = piece.T @ piece
        energy = products.diagonal()
        loudest = int(energy.argmax())
        disturbs = energy > SILENT * energy[loudest]
        alike = products[loudest] > ALIKE * np.sqrt(energy[loudest] * energy)
        return bool((disturbs & ~alike).any())

    def _speaks(self, channel: np.ndarray) -> bool:
        import torch

        frames, _ = framed(channel, np.zeros(CONTEXT, np.float32))
        with torch.inference_mode():
            probabilities, _ = self._detector(torch.from_numpy(frames), None)
        return int((probabilities >= START).sum()) >= SPOKEN
