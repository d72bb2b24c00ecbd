"""Windows of sound → text. The model tells no times, so that a window is one segment."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmcli.engine.beams import beam_search
from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.engine.sampling import Sampling
from mmcli.errors import UsageError
from mmcli.hub.load import Loaded
from mmcli.models.gemma3n.features import RATE
from mmcli.models.gemma3n.prompts import hearing_prompt

TEMPERATURES = (0.0, 0.4, 0.8)
TOP_K, TOP_P = 64, 0.95  # of warm attempts: as the published generation settings draw
MAX_TOKENS = 512  # more than anybody says in half a minute


@dataclass(frozen=True)
class Settings:
    """How windows are transcribed; the names are those that other families that take audio know."""

    task: str = "transcribe"  # or "translate" (into English)
    language: str | None = None  # None: the model hears which
    hint: str | None = None  # words as they are spelt
    beams: int = 1
    temperatures: tuple[float, ...] = TEMPERATURES  # tried in turn while a text repeats itself
    compression_ratio_limit: float | None = 2.4  # a text that shrinks more does; None: one attempt is enough
    words: bool = False
    seed: int | None = 0
    max_tokens: int = MAX_TOKENS


@dataclass(frozen=True)
class Segment:
    """All that was said in a window; seconds inside it."""

    start: float
    end: float
    text: str
    words: None = None  # there are no times of words


@dataclass(frozen=True)
class WindowText:
    """What was heard in one window."""

    language: str | None  # as it was asked for; the model does not say which it heard
    segments: tuple[Segment, ...]  # none or one
    token_ids: tuple[int, ...]  # as written, without the end
    logprob: float  # mean over the tokens, the end included
    compression_ratio: float
    temperature: float  # with which the text was written
    truncated: bool  # cut off by the number of tokens
    heard_until: float  # seconds: the whole window

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True)
class _Written:
    """One row's tokens from one attempt, without the end."""

    ids: list[int]
    logprob: float  # of all of them and the end
    ended: bool


@torch.inference_mode()
def transcribe(loaded: Loaded, sounds: Sequence[np.ndarray], **settings: object) -> list[WindowText]:
    """Mono float32 sounds at 16 kHz of at most 30 s, all in one batch → one text each. `settings` as in `Settings`.

    Raises UsageError for word times, which there are none of, and for a task or language that is unknown.
    """
    options = Settings(**settings)
    if options.words:
        raise UsageError("Gemma 3n gives no times of words", "Leave --words out, or choose a Whisper checkpoint")
    if not options.temperatures:
        raise UsageError("There is no temperature to decode with", "Give at least one, such as 0")
    prompt = hearing_prompt(options.task, options.language, options.hint)
    texts: dict[int, WindowText] = {}
    pending = list(range(len(sounds)))
    for temperature in options.temperatures:
        if not pending:
            break
        inputs = loaded.processor.inputs([[]] * len(pending), [prompt] * len(pending), [[sounds[i]] for i in pending])
        for row, written in zip(pending, _write(loaded, inputs, options, temperature), strict=True):
            found = _read(loaded, written, len(sounds[row]) / RATE, options.language, temperature)
            best = texts.get(row)
            if best is None or _rank(found, options) > _rank(best, options):
                texts[row] = found
        pending = [row for row in pending if _repeats(texts[row], options)]
    return [texts[row] for row in range(len(sounds))]


def _write(loaded: Loaded, inputs: Inputs, options: Settings, temperature: float) -> list[_Written]:
    """One attempt at all rows."""
    stop_ids = loaded.processor.stop_ids
    if options.beams > 1 and temperature == 0:
        answers = beam_search(
            loaded.model, inputs, stop_ids=stop_ids, max_tokens=options.max_tokens, beams=options.beams
        )
        return [_Written(answer.ids, answer.logprob, answer.ended) for answer in answers]
    rows = len(inputs.tokens)
    ids: list[list[int]] = [[] for _ in range(rows)]
    sums, ended = [0.0] * rows, [False] * rows
    sampling = Sampling(temperature, TOP_K, TOP_P, options.seed)
    for events in generate(loaded.model, inputs, stop_ids=stop_ids, max_tokens=options.max_tokens, sampling=sampling):
        for event in events:
            sums[event.row] += event.logprob
            if event.id in stop_ids:
                ended[event.row] = True
            else:
                ids[event.row].append(event.id)
    return [_Written(*row) for row in zip(ids, sums, ended, strict=True)]


def _read(loaded: Loaded, written: _Written, seconds: float, language: str | None, temperature: float) -> WindowText:
    text = " ".join(loaded.processor.decode(written.ids).split())  # a segment is a line
    raw = text.encode()
    return WindowText(
        language=language,
        segments=(Segment(0.0, seconds, text),) if text else (),
        token_ids=tuple(written.ids),
        logprob=written.logprob / (len(written.ids) + 1),
        compression_ratio=len(raw) / len(zlib.compress(raw)),
        temperature=temperature,
        truncated=not written.ended,
        heard_until=seconds,
    )


def _rank(text: WindowText, options: Settings) -> tuple[bool, float]:
    """What repeats itself is worse than all that does not; among equals the likelier is better."""
    return not _repeats(text, options), text.logprob


def _repeats(text: WindowText, options: Settings) -> bool:
    return options.compression_ratio_limit is not None and text.compression_ratio > options.compression_ratio_limit
