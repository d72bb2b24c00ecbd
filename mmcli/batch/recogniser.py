"""The recogniser: windows go through the model, and what it leaves out or repeats goes through it again."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mmcli.batch.sizes import LARGE_FOR_AUDIO, default_batch_size
from mmcli.speech.windows import RATE, Speech, Window, halves, is_long
from mmcli.tasks.transcribe import Passage, TranscribeRequest, better, passage, repeats
from mmcli.types import WindowText

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded
    from mmcli.speech.silero_vad import SileroVAD

SHORTEST_REST = 0.5  # seconds at a window's end that a model may leave untranscribed


class Recogniser:
    """Writes down what is said in windows. It keeps nothing from one call to the next, so threads may share it.

    `detector` gives the network that finds speech; at most `size` windows go through the model together, None: as many
    as it and its device like.
    """

    def __init__(self, request: TranscribeRequest, detector: "Callable[[], SileroVAD]", size: int | None = None):
        self._request, self._detector, self._size = request, detector, size

    def recognise(self, loaded: "Loaded", windows: list[Window]) -> list[list[Passage]]:
        """The passages of each window; what the model left out at its end is transcribed again.

        Where a text repeats itself, the halves of its window are transcribed too: a model that only repeats itself does
        so less in a shorter one, and what is really said over and over is found there as well.
        Raises ModelError where memory runs out, UsageError for a language or task that the model does not know.
        """
        if not windows:
            return []
        whole = [passage(window, text) for window, text in zip(windows, self._texts(loaded, windows), strict=True)]
        parts = [
            halves(window) if is_long(window) and repeats(one.text) else self._rest(window, one.text)
            for window, one in zip(windows, whole, strict=True)
        ]
        passages = iter(self.recognise(loaded, [part for own in parts for part in own]))
        found = []
        for one, own in zip(whole, parts, strict=True):
            again = [each for _ in own for each in next(passages)]
            found.append(better(one, again) if repeats(one.text) else [one, *again])
        return found

    def _rest(self, window: Window, text: WindowText) -> list[Window]:
        """Windows of the speech behind the place where a model says that more follows."""
        done = round(text.transcribed_until * RATE)
        if done <= 0 or len(window.audio) - done < SHORTEST_REST * RATE:
            return []
        return list(Speech([window.audio[done:]], self._detector(), start=window.start + done / RATE).windows())

    def _texts(self, loaded: "Loaded", windows: list[Window]) -> list[WindowText]:
        """The text of each window, in their order. Warmer temperatures are the family's to try (`DecodingOptions`)."""
        from mmcli.tasks.answer import in_words

        assert loaded.family is not None and loaded.family.transcribe is not None, "the request requires it"
        size = self._size or default_batch_size(loaded, LARGE_FOR_AUDIO)
        texts: dict[int, WindowText] = {}
        # Of a window that can be halved a text that repeats itself need not be tried again as it is.
        options = self._request.options()
        for chosen, places in (
            (replace(options, compression_ratio_limit=None), [n for n, one in enumerate(windows) if is_long(one)]),
            (options, [n for n, one in enumerate(windows) if not is_long(one)]),
        ):
            for first in range(0, len(places), size):
                batch = places[first : first + size]
                audios = [windows[at].audio for at in batch]
                try:
                    answers = loaded.family.transcribe(loaded, audios, chosen)
                except RuntimeError as error:
                    raise in_words(error, len(batch), "window") from error
                texts.update(zip(batch, answers, strict=True))
        return [texts[at] for at in range(len(windows))]
