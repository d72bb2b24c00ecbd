"""Windows of audio → text. The model tells no times, so that a window is one segment."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from mmcli.engine.collect import complete
from mmcli.engine.inputs import Inputs
from mmcli.engine.sampling import Sampling
from mmcli.errors import UsageError
from mmcli.models.gemma3n.features import RATE
from mmcli.models.gemma3n.processor import Gemma3nProcessor
from mmcli.models.gemma3n.prompts import transcription_prompt
from mmcli.models.loaded import Loaded
from mmcli.speech.fallback import TEMPERATURES, DecodingOptions, attempts, compression_ratio
from mmcli.types import Completion, Segment, WindowText

COARSE = TEMPERATURES[::2]  # an attempt takes long, and one that repeats itself needs to be much warmer
TOP_K, TOP_P = 64, 0.95  # of warm attempts: as the published generation settings draw
MAX_TOKENS = 512  # more than anybody says in half a minute


def transcript_inputs(loaded: Loaded, audios: Sequence[np.ndarray], options: DecodingOptions) -> Inputs:
    """What the model reads before it writes the text of each recording: a turn of the audio and a prompt."""
    prompt = transcription_prompt(options.task, options.language, options.hint)
    processor = cast(Gemma3nProcessor, loaded.processor)  # the family's own
    return processor.inputs([[]] * len(audios), [prompt] * len(audios), [[audio] for audio in audios])


@torch.inference_mode()
def transcribe(
    loaded: Loaded,
    windows: Sequence[np.ndarray],
    options: DecodingOptions = DecodingOptions(),  # noqa: B008 (frozen)
) -> list[WindowText]:
    """Mono float32 windows at 16 kHz of at most 30 s, all in one batch → one text each.

    Of the tests in `options` only that for repetition is made. Raises UsageError for word times, which there are none
    of, and for a task or language that is unknown.
    """
    if options.words:
        do = "Leave --words out, or choose another model: mmcli models suggest --task transcribe"
        raise UsageError("Gemma 3n gives no times of words", do)

    def write(rows: list[int], temperature: float) -> list[WindowText]:
        answers = complete(
            loaded.model,
            transcript_inputs(loaded, [windows[row] for row in rows], options),
            stop_ids=loaded.processor.stop_ids,
            max_tokens=options.max_tokens or MAX_TOKENS,
            **_choice(options, temperature),
        )
        seconds = [len(windows[row]) / RATE for row in rows]
        return [
            _read(loaded, answer, length, options.language, temperature)
            for answer, length in zip(answers, seconds, strict=True)
        ]

    tried = attempts(len(windows), options.ladder(COARSE), write, lambda text: _repeats(text, options))
    # What repeats itself is worse than all that does not; among equals the likelier is better.
    return [max(own, key=lambda text: (not _repeats(text, options), text.logprob)) for own in tried]


def _choice(options: DecodingOptions, temperature: float) -> dict[str, Any]:
    """How tokens are chosen: among beams, or drawn."""
    if options.beams > 1 and temperature == 0:
        return {"beams": options.beams}
    return {"sampling": Sampling(temperature, TOP_K, TOP_P, options.seed)}


def _read(loaded: Loaded, answer: Completion, seconds: float, language: str | None, temperature: float) -> WindowText:
    text = " ".join(loaded.processor.decode(answer.ids).split())  # a segment is a line
    return WindowText(
        language=language,
        segments=(Segment(0.0, seconds, text),) if text else (),
        token_ids=answer.ids,
        logprob=answer.mean_logprob,
        compression_ratio=compression_ratio(text),
        temperature=temperature,
        truncated=not answer.ended,
        transcribed_until=seconds,
    )


def _repeats(text: WindowText, options: DecodingOptions) -> bool:
    return options.compression_ratio_limit is not None and text.compression_ratio > options.compression_ratio_limit
