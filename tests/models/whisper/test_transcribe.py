"""Windows to text: batches, caches, fallbacks, languages, hints, beams."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper_folders import TEXT, audio

from mmcli.engine.beams import beam_search
from mmcli.engine.inputs import Inputs
from mmcli.errors import UsageError
from mmcli.models.whisper.processor import WhisperProcessor
from mmcli.models.whisper.rules import WritingRules
from mmcli.models.whisper.transcribe import (
    _best,
    _cut_at_last_word,
    _fails,
    _read,
    _silenced,
    _with_words,
    most_tokens,
    transcribe_windows,
)
from mmcli.speech.fallback import DecodingOptions
from mmcli.types import Completion, Segment, WindowText

GREEDY = DecodingOptions(temperatures=(0.0,), language="en", no_speech_limit=None, logprob_limit=None)
AUDIOS = [audio(seed, seconds) for seed, seconds in ((0, 1.3), (1, 0.4), (2, 2.0), (3, 0.9), (4, 0.05))]


def close(one: WindowText, other: WindowText) -> bool:
    return replace(one, logprob=0, no_speech=0) == replace(other, logprob=0, no_speech=0)


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"words": True}, {"temperatures": (0.7,)}, {"times": False}])
def test_a_batch_equals_its_singles(whisper, options):
    options = replace(GREEDY, **options)
    together = transcribe_windows(whisper, AUDIOS, options)
    for window, text in zip(AUDIOS, together, strict=True):
        alone = transcribe_windows(whisper, [window], options)[0]
        assert alone.token_ids == text.token_ids
        assert alone.logprob == pytest.approx(text.logprob, abs=1e-4)
        assert close(alone, text) or options.words
    assert len({round(text.logprob, 4) for text in together}) > 1
    assert len({text.truncated for text in together}) == 2 or options.beams > 1 or not options.times


def test_written_tokens_equal_reading_everything_anew_at_each_step(whisper):
    model, processor = whisper.model, whisper.processor
    text = transcribe_windows(whisper, AUDIOS[:1], GREEDY)[0]
    encoded = model.encode(processor.features(AUDIOS[:1]))
    prompt = processor.prompt("transcribe", "en", None, True)
    rules = WritingRules(processor.special, True, seconds=[len(AUDIOS[0]) / 16_000])
    written: list[int] = []
    while len(written) < 30:
        cache = model.new_cache(1, len(prompt) + len(written))
        tokens = torch.tensor([prompt + written])
        with torch.inference_mode():
            logits = model.prefill(Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=encoded), cache)
            best = rules(logits, [written]).argmax().item()
        if best in processor.stop_ids:
            break
        written.append(best)
    assert text.token_ids == tuple(written) and len(written) > 3


def test_padding_on_the_left_changes_nothing(whisper):
    model, processor = whisper.model, whisper.processor
    encoded = model.encode(processor.features(AUDIOS[:1]))
    prompt = processor.prompt("transcribe", "de", None, True)
    plain, padded = torch.tensor([prompt]), torch.tensor([[0, 0, *prompt]])
    valid = torch.tensor([[False, False, *[True] * len(prompt)]])
    with torch.inference_mode():
        first = model.prefill(
            Inputs(plain, torch.ones_like(plain, dtype=torch.bool), context=encoded), model.new_cache(1, 9)
        )
        second = model.prefill(Inputs(padded, valid, context=encoded), model.new_cache(1, 9))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_one_beam_is_greedy_and_more_are_at_least_as_likely(whisper):
    model, processor = whisper.model, whisper.processor
    greedy = transcribe_windows(whisper, AUDIOS, replace(GREEDY, max_tokens=20))
    tokens = torch.tensor([processor.prompt("transcribe", "en", None, True)] * len(AUDIOS))
    inputs = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=model.encode(processor.features(AUDIOS)))
    rules = WritingRules(processor.special, True, seconds=[len(window) / 16_000 for window in AUDIOS])
    found = beam_search(model, inputs, stop_ids=processor.stop_ids, max_tokens=20, beams=1, rules=rules)
    assert [tuple(answer.ids) for answer in found] == [text.token_ids for text in greedy]
    assert [answer.ended for answer in found] == [not text.truncated for text in greedy]


def test_segments_rise_inside_the_window(whisper):
    for window, text in zip(AUDIOS, transcribe_windows(whisper, AUDIOS, replace(GREEDY, words=True)), strict=True):
        times = [time for segment in text.segments for time in (segment.start, segment.end)]
        assert times == sorted(times) and all(0 <= time <= len(window) / 16_000 for time in times)
        for segment in text.segments:
            assert "".join(word.text for word in segment.words) == segment.text
        assert text.word_times == "alignment heads"


def test_a_language_is_detected_where_none_is_given(whisper):
    found = transcribe_windows(whisper, AUDIOS, replace(GREEDY, language=None))
    assert {text.language for text in found} <= {"en", "de", "fr"}
    for window, text in zip(AUDIOS, found, strict=True):
        given = transcribe_windows(whisper, [window], replace(GREEDY, language=text.language))[0]
        assert given.token_ids == text.token_ids


def test_prompts(whisper):
    processor = whisper.processor
    start, en, de, translate, transcribe, previous, no_times = (
        processor.tokenizer.token_to_id(f"<|{name}|>")
        for name in ("startoftranscript", "en", "de", "translate", "transcribe", "startofprev", "notimestamps")
    )
    assert processor.prompt("transcribe", "en", None, True) == [start, en, transcribe]
    assert processor.prompt("translate", "de", "", False) == [start, de, translate, no_times]
    hinted = processor.prompt("transcribe", "en", "  hello world ", True)
    assert hinted[0] == previous and processor.decode(hinted) == " hello world"
    long = processor.prompt("transcribe", "en", "hello world " * 200, True)
    assert len(long) == 1 + 60 // 2 - 1 + 3 and processor.decode(long).endswith("hello world")
    # A hint cannot smuggle orders in.
    assert start not in processor.prompt("transcribe", "en", "<|startoftranscript|>", True)[:-3]


@pytest.mark.parametrize("bad", [{"language": "xx"}, {"task": "sing"}, {"temperatures": ()}])
def test_what_it_does_not_know_is_said(whisper, bad):
    with pytest.raises(UsageError):
        transcribe_windows(whisper, AUDIOS[:1], replace(GREEDY, **bad))


def test_no_windows_no_texts(whisper):
    assert transcribe_windows(whisper, [], GREEDY) == []


def test_a_window_that_is_too_long_is_refused(whisper):
    with pytest.raises(ValueError, match="does not fit"):
        transcribe_windows(whisper, [np.zeros(40_000, np.float32)], GREEDY)


def text_of(logprob=-0.5, no_speech=0.1, ratio=1.5, temperature=0.0, truncated=False, text="a") -> WindowText:
    segments = (Segment(0.0, 1.0, text),)
    return WindowText("en", segments, (1,), logprob, ratio, temperature, truncated, 1.0, no_speech)


@pytest.mark.parametrize(
    "text, fails, silent, reason",
    [
        (text_of(), False, False, "a good text"),
        (text_of(logprob=-1.2), True, False, "unsure"),
        (text_of(ratio=2.5), False, False, "it repeats itself, and may have been said so"),
        (text_of(ratio=2.5, truncated=True), True, False, "it repeats itself without an end"),
        (text_of(ratio=2.5, text="no " * 20), True, False, "it repeats itself faster than anybody speaks"),
        (text_of(truncated=True), False, False, "a long text"),
        (text_of(logprob=-1.2, no_speech=0.7), False, True, "silence needs no second try"),
        (text_of(no_speech=0.9), False, False, "a sure text counts more than the token of silence"),
        (text_of(ratio=2.5, no_speech=0.9, truncated=True), True, False, "repeated, and sure of it"),
    ],
)
def test_when_a_text_fails_and_when_it_is_silence(text, fails, silent, reason):
    options = DecodingOptions()
    assert _fails(text, options) is fails, reason
    assert (_silenced(text, options).segments == ()) is silent, reason


def test_the_best_of_failed_attempts_turns_in_no_circles_and_is_the_likeliest():
    options = DecodingOptions()
    circles, unsure, worse = text_of(ratio=5, logprob=-0.1, truncated=True), text_of(logprob=-1.5), text_of(logprob=-3)
    assert _best([circles, unsure, worse], options) is unsure
    assert _best([circles, text_of()], options).logprob == -0.5
    repeated = text_of(ratio=5, logprob=-1.1)
    assert _best([repeated, unsure, worse], options) is repeated


def test_a_failed_attempt_is_made_again_warmer_and_the_others_stay(whisper):
    strict = replace(GREEDY, temperatures=(0.0, 0.5, 1.0), logprob_limit=-2.0)
    first = transcribe_windows(whisper, AUDIOS, replace(strict, temperatures=(0.0,)))
    found = transcribe_windows(whisper, AUDIOS, strict)
    for before, after in zip(first, found, strict=True):
        if before.logprob >= -2.0:
            assert after.token_ids == before.token_ids and after.temperature == 0
    assert found == transcribe_windows(whisper, AUDIOS, strict)  # a seed makes chance repeat itself


def test_the_limit_of_tokens_is_told(whisper):
    text = transcribe_windows(whisper, AUDIOS[:1], replace(GREEDY, max_tokens=4))[0]
    assert text.truncated and len(text.token_ids) == 4
    assert max(text.token_ids) > TEXT


def test_words_end_where_the_rest_is_transcribed_again(whisper):
    """An answer that ends with two times leaves what lies behind them to another window."""
    processor = whisper.processor
    encoded = whisper.model.encode(processor.features(AUDIOS[2:3]))
    times = processor.special.times
    ids = (times, 20, 30, 40, 50, times + 30, times + 30)
    text = _read(processor, Completion(ids, (-0.5,) * len(ids), True), "en", 0.0, 0.0, 2.0, GREEDY)
    assert text.transcribed_until == 0.6
    [segment] = _with_words(whisper.model, processor, encoded, text, 2.0, GREEDY).segments
    assert segment.words[0].start >= 0 and segment.words[-1].end <= 0.6


@pytest.mark.parametrize(("said_until", "end"), [(4.0, 10.0), (5.0, 10.0), (5.5, 5.5), (6.9, 6.9), (7.1, 10.0)])
def test_a_segment_stretched_over_a_gap_ends_with_its_last_word_unless_that_lies_before_it(
    whisper, monkeypatch, said_until, end
):
    """The segment is from 5 s to 10 s; `said_until` is where attention finds its only word."""
    processor = whisper.processor
    first = processor.special.times
    ids = (first + 250, 20, first + 500)
    options = replace(GREEDY, spoken_to_end=True)
    text = _read(processor, Completion(ids, (-0.5,) * len(ids), True), "en", 0.0, 0.0, 10.0, options)
    monkeypatch.setattr(
        "mmcli.models.whisper.transcribe.token_times", lambda *_: (np.array([said_until - 0.2, said_until]), [1.0])
    )
    encoded = whisper.model.encode(processor.features(AUDIOS[:1]))
    [segment] = (followed := _cut_at_last_word(whisper.model, processor, encoded, text, 10.0, options)).segments
    assert (segment.start, segment.end, followed.transcribed_until) == pytest.approx((5.0, end, end))


def test_a_short_window_is_cut_off_sooner_than_anybody_could_fill_it(whisper):
    never = replace(whisper.processor.special, end=whisper.processor.special.no_times)  # nothing ends an answer
    processor = WhisperProcessor(whisper.processor.config, whisper.processor.tokenizer, never)
    window = np.zeros(800, np.float32)
    options = replace(GREEDY, times=False, max_tokens=50)
    text = transcribe_windows(replace(whisper, processor=processor), [window], options)[0]
    assert text.truncated and len(text.token_ids) == most_tokens(0.05) < 50
