"""The batcher: which windows go through the model together."""

import math
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from mmcli.batch.loading import BackgroundModel
from mmcli.batch.reader import Entry, Recording
from mmcli.batch.sizes import LARGE_FOR_AUDIO, ON_CPU, default_batch_size

FIRST_BATCH = 2  # windows, where someone waits for the first words
USUAL_WINDOW = 27.0  # seconds of audio that a window of a long recording takes up, as a rule

Batch: TypeAlias = list[Entry]


class Batcher:
    """Puts windows together, those of several recordings too, and starts the model at the first one.

    `size` windows a batch; None: as the model and its device like it. `lanes` batches are recognised at the same time.
    With `first_soon` the first batch is a small one.
    """

    def __init__(self, model: BackgroundModel, size: int | None, lanes: int, *, first_soon: bool = False):
        self._model, self._size, self._lanes, self._first_soon = model, size, lanes, first_soon

    def batches(self, entries: Iterable[Entry]) -> Iterator[Batch]:
        """Windows and ends of recordings in their order. Raises what loading the model raised."""
        batch: Batch = []
        windows = 0
        first = self._first_soon
        for recording, window in entries:
            if window is not None:
                self._model.start()
            batch.append((recording, window))
            windows += window is not None
            if windows == 0:  # nothing to compute before this end
                yield batch
                batch = []
            elif windows >= self._windows_for(recording, first):
                yield batch
                batch, windows, first = [], 0, False
        yield from shares(batch, self._lanes)  # nothing follows that could keep the other lanes busy

    def _windows_for(self, recording: Recording, first: bool) -> int:
        """Windows in a batch. While the model is still loading that is guessed; the recogniser knows better then."""
        if first:
            return min(self._size or FIRST_BATCH, FIRST_BATCH)
        loaded = self._model.now()
        size = self._size or (ON_CPU if loaded is None else default_batch_size(loaded, LARGE_FOR_AUDIO))
        return size if recording.length is None else even(size, recording.length, self._lanes)


def even(size: int, seconds: float, lanes: int) -> int:
    """At most `size` windows a batch, and so many that the lanes end a recording of that length together."""
    windows = math.ceil(seconds / USUAL_WINDOW)
    if windows <= size:
        return size  # more recordings may follow and fill it
    rounds = math.ceil(windows / (lanes * size))
    return min(size, math.ceil(windows / (lanes * rounds)))


def shares(batch: Batch, lanes: int) -> Iterator[Batch]:
    """A batch in at most `lanes` parts with about as many windows each."""
    windows = sum(window is not None for _, window in batch)
    most = max(1, math.ceil(windows / lanes))
    part: Batch = []
    for entry in batch:
        if entry[1] is not None and sum(window is not None for _, window in part) == most:
            yield part
            part = []
        part.append(entry)
    if part:
        yield part
