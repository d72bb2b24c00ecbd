"""Windows of audio → text, with the tests and fallbacks of the Whisper paper (arXiv:2212.04356, section 4.5)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from mmcli.engine.collect import complete
from mmcli.engine.inputs import Inputs
from mmcli.engine.sampling import Sampling
from mmcli.models.loaded import Loaded
from mmcli.models.whisper.alignment import alignment_heads, token_times
from mmcli.models.whisper.model import EncodedAudio, Whisper
from mmcli.models.whisper.processor import WhisperProcessor
from mmcli.models.whisper.recorded_rules import RecordedWritingRules
from mmcli.models.whisper.rules import WritingRules
from mmcli.models.whisper.segments import (
    GAP,
    TokenSegment,
    before_gap,
    first_too_slow,
    token_segments,
    transcribed_until,
)
from mmcli.models.whisper.words import with_words
from mmcli.speech.fallback import FASTEST, TEMPERATURES, DecodingOptions, attempts, compression_ratio
from mmcli.speech.languages import code_of
from mmcli.types import Completion, Segment, WindowText

SHORTEST_LIMIT = 32  # tokens that any window may have, however short


@torch.inference_mode()
def transcribe_windows(
    loaded: Loaded,
    windows: Sequence[np.ndarray],
    options: DecodingOptions = DecodingOptions(),  # noqa: B008 (frozen)
) -> list[WindowText]:
    """Mono float32 windows at 16 kHz, of at most `max_audio_seconds`, all in one batch → one text each.

    Every window is read for itself: its text does not depend on the others. Raises UsageError for a task, language or
    hint that the model does not know.
    """
    model, processor = _parts(loaded)
    if not windows:
        return []
    encoded = model.encode(processor.features(windows, loaded.device))
    languages = _languages(model, processor, encoded, options, len(windows))
    prompts = [processor.prompt(options.task, language, options.hint, options.times) for language in languages]
    seconds = [len(window) / processor.rate for window in windows]

    def write(rows: list[int], temperature: float) -> list[WindowText]:
        encoded.all()
        part = encoded if len(rows) == len(windows) else encoded.rows(rows)
        asked, lengths = [prompts[row] for row in rows], [seconds[row] for row in rows]
        answers = _write(model, processor, part, asked, lengths, options, temperature)
        return [
            _read(processor, answer, languages[row], silence, temperature, seconds[row], options)
            for row, answer, silence in zip(rows, answers, _no_speech(processor, part), strict=True)
        ]

    tried = attempts(len(windows), options.ladder(TEMPERATURES), write, lambda text: _fails(text, options))
    texts = [_silenced(_best(own, options), options) for own in tried]
    if options.spoken_to_end and options.times:
        texts = [
            _cut_at_last_word(model, processor, encoded.one(row), text, seconds[row], options)
            for row, text in enumerate(texts)
        ]
    if not options.words:
        return texts
    return [
        _with_words(model, processor, encoded.one(row), text, seconds[row], options) for row, text in enumerate(texts)
    ]


@torch.inference_mode()
def transcript_inputs(loaded: Loaded, windows: Sequence[np.ndarray], options: DecodingOptions) -> Inputs:
    """What the decoder reads before it writes the text of each window: the prompt, and the encoded audio as context."""
    model, processor = _parts(loaded)
    encoded = model.encode(processor.features(windows, loaded.device))
    languages = _languages(model, processor, encoded, options, len(windows))
    asked = [processor.prompt(options.task, one, options.hint, options.times) for one in languages]
    tokens = torch.tensor(asked)
    return Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=encoded)


def _parts(loaded: Loaded) -> tuple[Whisper, WhisperProcessor]:
    return cast(Whisper, loaded.model), cast(WhisperProcessor, loaded.processor)  # the family's own


def _languages(
    model: Whisper, processor: WhisperProcessor, encoded: EncodedAudio, options: DecodingOptions, rows: int
) -> list[str]:
    if options.language is not None:
        return [code_of(options.language, processor.capabilities.languages)] * rows
    if not processor.multilingual:
        return ["en"] * rows
    return [max(found, key=found.__getitem__) for found in language_probabilities(model, processor, encoded)]


@torch.inference_mode()
def language_probabilities(
    model: Whisper, processor: WhisperProcessor, encoded: EncodedAudio
) -> list[dict[str, float]]:
    """The probability of every language that a multilingual model knows, for each recording in `encoded`."""
    rows = len(encoded.order)
    tokens = torch.full((rows, 1), processor.special.start, device=encoded.device)
    logits = model.prefill(
        Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=encoded), model.new_cache(rows, 1)
    )
    names, ids = zip(*processor.special.languages.items(), strict=True)
    return [dict(zip(names, row, strict=True)) for row in logits[:, list(ids)].softmax(dim=-1).tolist()]


def _write(
    model: Whisper,
    processor: WhisperProcessor,
    encoded: EncodedAudio,
    prompts: list[list[int]],
    seconds: list[float],
    options: DecodingOptions,
    temperature: float,
) -> list[Completion]:
    """One attempt at all rows of `encoded`."""
    device = encoded.device
    tokens = torch.tensor(prompts, device=device)
    inputs = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=encoded)
    room = processor.config.text_positions - tokens.shape[1]
    limit = min(options.max_tokens or processor.config.text_positions // 2, room)
    rules = WritingRules(processor.special, options.times, device, seconds, options.spoken_to_end)
    limits = [min(limit, most_tokens(length)) for length in seconds]
    choice: dict[str, Any] = {
        "sampling": Sampling(temperature, seed=options.seed),
        "drop_ended": True,
        "limits": limits,
    }
    if options.beams > 1 and temperature == 0:
        choice = {"beams": options.beams}
    else:
        choice["recorded"] = RecordedWritingRules(rules, len(prompts), processor.config.vocabulary, device)
    return complete(model, inputs, stop_ids=processor.stop_ids, max_tokens=limit, rules=rules, **choice)


def most_tokens(seconds: float) -> int:
    """More than can be said in that time, a token a character and the times with it: what is longer repeats itself."""
    return SHORTEST_LIMIT + math.ceil(FASTEST * seconds)


def _no_speech(processor: WhisperProcessor, encoded: EncodedAudio) -> list[float]:
    token = processor.special.no_speech
    if token is None:
        return [0.0] * len(encoded.order)
    assert encoded.at_start is not None  # left by the prefill
    return encoded.at_start.softmax(dim=-1)[:, token].tolist()


def _token_segments(
    processor: WhisperProcessor, ids: list[int], seconds: float, options: DecodingOptions
) -> tuple[list[TokenSegment], float]:
    """What was written, as far as it is to be used, and how far into the window that goes."""
    found, reached = token_segments(processor, ids, seconds), transcribed_until(processor, ids, seconds)
    return before_gap(found, reached) if options.spoken_to_end and options.times else (found, reached)


def _read(
    processor: WhisperProcessor,
    written: Completion,
    language: str,
    no_speech: float,
    temperature: float,
    seconds: float,
    options: DecodingOptions,
) -> WindowText:
    found, reached = _token_segments(processor, list(written.ids), seconds, options)
    segments = tuple(Segment(part.start, part.end, processor.decode(part.ids)) for part in found)
    return WindowText(
        language=language,
        segments=segments,
        token_ids=written.ids,
        logprob=written.mean_logprob,
        no_speech=no_speech,
        compression_ratio=compression_ratio("".join(segment.text for segment in segments).strip()),
        temperature=temperature,
        truncated=not written.ended,
        transcribed_until=reached,
    )


def _cut_at_last_word(
    model: Whisper,
    processor: WhisperProcessor,
    encoded: EncodedAudio,
    text: WindowText,
    seconds: float,
    options: DecodingOptions,
) -> WindowText:
    """The text as far as it can be followed in the audio.

    A small Whisper may stretch a segment over much more speech than its text is of. Where the last word was said shows
    whether it did; what lies behind is to be transcribed again.
    """
    found = _token_segments(processor, list(text.token_ids), seconds, options)[0] if text.segments else []
    place = first_too_slow(found)
    if place is None:
        return text
    aligned = _with_words(model, processor, encoded, text, seconds, options).segments[place]
    if aligned.words is None or not found[place].start < aligned.end < found[place].end - GAP:
        return text
    kept = (*text.segments[:place], replace(text.segments[place], end=aligned.end))
    return replace(text, segments=kept, transcribed_until=aligned.end)


def _with_words(
    model: Whisper,
    processor: WhisperProcessor,
    encoded: EncodedAudio,
    text: WindowText,
    seconds: float,
    options: DecodingOptions,
) -> WindowText:
    """The text of one recording with a time for every word."""
    decoder = processor.config.decoder
    heads, source = alignment_heads(processor.special, decoder.depth, decoder.heads)
    found = _token_segments(processor, list(text.token_ids), seconds, options)[0][: len(text.segments)]
    ids = [id for part in found for id in part.ids]
    prompt = processor.prompt(options.task, text.language, None, False)
    if len(prompt) + len(ids) + 1 > processor.config.text_positions:
        return text  # only a text that filled the model to the brim; no times are better than wrong ones
    if not ids:
        return replace(text, word_times=source)
    # What lies behind is transcribed again, with words and times of its own.
    reached = text.transcribed_until or seconds
    times, probabilities = token_times(model, encoded, prompt, ids, processor.special.end, heads, reached)
    times = times.clip(max=reached)
    segments = with_words(found, times, probabilities, processor.decode, text.language)
    return replace(text, segments=segments, word_times=source)


def _fails(text: WindowText, options: DecodingOptions) -> bool:
    """Whether to try again warmer: it repeats itself or is unsure, and it is not simply silence."""
    return (_repeats(text, options) or _unsure(text, options)) and not _silent(text, options)


def _repeats(text: WindowText, options: DecodingOptions) -> bool:
    """Whether it repeats itself endlessly or too fast, as no speaker does; other repetitions may have been said."""
    limit = options.compression_ratio_limit
    if limit is None or text.compression_ratio <= limit:
        return False
    return text.truncated or len(text.text) > FASTEST * text.transcribed_until


def _unsure(text: WindowText, options: DecodingOptions) -> bool:
    return options.logprob_limit is not None and text.logprob < options.logprob_limit


def _silent(text: WindowText, options: DecodingOptions) -> bool:
    """Nobody speaks, by the token that says so and by a text that is unsure.

    The texts that a multilingual Whisper makes up of noise ("you", Japanese thanks for watching) are likelier than the
    paper's limit of −1 allows for; of real speech the token is hardly ever likely.
    """
    likely = options.no_speech_limit is not None and text.no_speech > options.no_speech_limit
    return likely and (options.logprob_limit is None or text.logprob < options.silence_logprob_limit)


def _best(tried: list[WindowText], options: DecodingOptions) -> WindowText:
    """The last attempt if it passed; else the likeliest of those that do not repeat themselves, if there are any."""
    if not _fails(tried[-1], options):
        return tried[-1]
    plain = [text for text in tried if not _repeats(text, options)]
    return max(plain or tried, key=lambda text: text.logprob)


def _silenced(text: WindowText, options: DecodingOptions) -> WindowText:
    return replace(text, segments=()) if _silent(text, options) else text
