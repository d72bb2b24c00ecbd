"""Warmer attempts at a text that fails its tests: the fallback of the Whisper paper (arXiv:2212.04356, section 4.5)."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmcli.errors import UsageError

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
COMPRESSION_LIMIT = 2.4
LOGPROB_LIMIT = -1.0  # mean over the tokens of a text: below it is unlikely
SILENCE_LOGPROB_LIMIT = -0.6  # the same for a text of which the model says that nobody speaks
FASTEST = 30.0  # characters a second that anybody speaks

Text = TypeVar("Text")


@dataclass(frozen=True)
class DecodingOptions:
    """How windows are transcribed. A limit of None switches its test off; a family ignores what it has no use for."""

    task: str = "transcribe"  # or "translate" (into English)
    language: str | None = None  # None: the model finds out, window by window
    hint: str | None = None  # words as they are spelt
    beams: int = 1
    temperatures: tuple[float, ...] | None = None  # tried in turn until a text passes; None: the family's own
    compression_ratio_limit: float | None = COMPRESSION_LIMIT  # a text that shrinks more repeats itself
    logprob_limit: float | None = LOGPROB_LIMIT
    no_speech_limit: float | None = 0.6
    silence_logprob_limit: float = SILENCE_LOGPROB_LIMIT
    words: bool = False
    times: bool = True  # write time tokens; without them a window is one segment
    spoken_to_end: bool = False  # the windows end where speech ends, or in its midst
    seed: int | None = 0
    max_tokens: int | None = None  # None: as many as the family lets an answer have

    def ladder(self, own: tuple[float, ...]) -> tuple[float, ...]:
        """The temperatures to try, where `own` are those of the family."""
        return own if self.temperatures is None else self.temperatures


def attempts(
    rows: int,
    temperatures: Sequence[float],
    write: Callable[[list[int], float], list[Text]],
    fails: Callable[[Text], bool],
) -> list[list[Text]]:
    """Every attempt at each of the `rows`, the last of which passed, unless all temperatures were tried.

    `write(rows, temperature)` gives a text for each of these rows. Raises UsageError where there is no temperature.
    """
    if not temperatures:
        raise UsageError("There is no temperature to decode with", "Give at least one, such as 0")
    tried: list[list[Text]] = [[] for _ in range(rows)]
    pending = list(range(rows))
    for temperature in temperatures:
        if not pending:
            break
        for row, text in zip(pending, write(pending, temperature), strict=True):
            tried[row].append(text)
        pending = [row for row in pending if fails(tried[row][-1])]
    return tried


def compression_ratio(text: str) -> float:
    """How many times shorter zlib makes a text: repetition shows as a high number."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
