"""`mmcli transcribe` with a Gemma 3n folder that transformers wrote, and its tokens against transformers' own.

Random weights write the same again and again, and of a window whose text repeats itself the command takes the halves.
So the folder's answers end before they do: by tokens that stand in what transformers writes (`endings`).
"""

import copy
import re
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import srt
import torch
from audio_files import wav_bytes
from command import mmcli

from mmcli.hub.resolve import resolve
from mmcli.media.audio import read_audio
from mmcli.media.sources import expand
from mmcli.models.gemma3n.prompts import transcription_prompt
from mmcli.models.gemma3n.transcribe import MAX_TOKENS, transcribe, transcript_inputs
from mmcli.models.load import load
from mmcli.speech.fallback import DecodingOptions
from mmcli.speech.silero_vad import load_silero_vad
from mmcli.speech.windows import RATE, Speech
from mmcli.tasks.transcribe import repeats
from mmcli.types import Segment, WindowText

pytestmark = pytest.mark.usefixtures("shallow_tower")

EXAMPLE = Path(__file__).parents[2] / "examples" / "jfk.flac"
STEPS = 12  # an answer of the reference has fewer tokens
PROMPTS = transcription_prompt("transcribe", None, None), transcription_prompt("translate", "de", "Anna, Kiew")


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Path:
    """Three stretches of real speech of different lengths, with pauses of five seconds."""
    speech = audio_of(EXAMPLE)
    pause = np.zeros(5 * RATE, np.float32)
    parts = [speech[: 4 * RATE], pause, speech, pause, 0.5 * speech[3 * RATE : 9 * RATE]]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    path.write_bytes(wav_bytes(np.concatenate(parts), RATE))
    return path


def audio_of(path: Path) -> np.ndarray:
    [source] = expand([str(path)], extensions=frozenset())
    return read_audio(source)[0]


@pytest.fixture(scope="module")
def windows(talk):
    return list(Speech([audio_of(talk)], load_silero_vad()).windows())


@pytest.fixture(scope="module")
def gemma3n(gemma3n, windows, tmp_path_factory):
    """The folder of all tests with other tokens that end an answer: each answer ends, and none repeats itself."""
    folder = tmp_path_factory.mktemp("gemma3n-speech")
    for path in gemma3n.folder.iterdir():
        (folder / path.name).symlink_to(path)
    reference = copy.copy(gemma3n.reference)  # its settings alone are others
    reference.generation_config = copy.deepcopy(reference.generation_config)
    reference.generation_config.eos_token_id = None
    speaker = replace(gemma3n, folder=folder, reference=reference)
    answers = [written(speaker, window.audio, prompt, STEPS) for prompt in PROMPTS for window in windows]
    reference.generation_config.eos_token_id = sorted(endings(gemma3n.processor.tokenizer, answers))
    (folder / "generation_config.json").unlink()
    reference.generation_config.save_pretrained(folder)
    return speaker


def endings(tokenizer, answers: list[list[int]]) -> set[int]:
    """Tokens of which each answer has one, so early that what stands before it does not repeat itself."""
    ends = {ids[-1] for ids in answers}

    def kept(ids: list[int]) -> list[int]:
        return list(takewhile(lambda id: id not in ends, ids))

    def is_repeated(ids: list[int]) -> bool:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return repeats(WindowText(None, (Segment(0.0, 1.0, text),), tuple(ids), 0.0, 1.0, 0.0, False, 1.0))

    while again := [ids for ids in map(kept, answers) if is_repeated(ids)]:
        ends |= {ids[len(ids) // 2] for ids in again}
    return ends


def turn(audio, prompt: str) -> dict:
    return {"role": "user", "content": [{"type": "audio", "audio": audio}, {"type": "text", "text": prompt}]}


@pytest.fixture(scope="module")
def loaded(gemma3n):
    return load(resolve(str(gemma3n.folder)), "cpu", "float32")


def written(gemma3n, audio, prompt: str, steps: int) -> list[int]:
    """What the reference writes about one recording."""
    return gemma3n.tokens(turn(audio, prompt), steps=steps)


def reference_tokens(gemma3n, audios, prompt: str) -> list[list[int]]:
    """Each recording alone, without the token that ends the answer."""
    ends = set(gemma3n.reference.generation_config.eos_token_id)
    found = [written(gemma3n, audio, prompt, MAX_TOKENS) for audio in audios]
    assert all(ids[-1] in ends for ids in found) and any(len(ids) > 1 for ids in found)
    return [ids[:-1] for ids in found]


def run(gemma3n, path, *options):
    return mmcli("transcribe", path, "--model", gemma3n.folder, "--dtype", "float32", "--device", "cpu", *options)


# -- the command -------------------------------------------------------------------------------------------------


def test_the_tokens_are_those_of_the_reference(gemma3n, talk, windows):
    done = run(gemma3n, talk, "--json", "--token-ids", "--temperature", "0")
    [record] = done.records
    expected = reference_tokens(gemma3n, [window.audio for window in windows], PROMPTS[0])
    assert len(windows) == 3
    assert record["token_ids"] == [id for ids in expected for id in ids]
    assert (record["timestamps"], record["language"], record["model"]) == ("window", None, str(gemma3n.folder))
    assert f"{talk}: 3 windows, 0:" in done.err and "all speech found is used" in done.err


def test_language_task_and_hint_are_words_of_the_prompt(gemma3n, talk, windows):
    options = ("--task", "translate", "--language", "de", "--hint", " Anna, Kiew ")
    [record] = run(gemma3n, talk, "--json", "--token-ids", "--temperature", "0", *options).records
    prompt = PROMPTS[1]
    assert all(word in prompt for word in ("Translate", "German", "English", "Anna, Kiew"))
    expected = reference_tokens(gemma3n, [window.audio for window in windows], prompt)
    assert record["token_ids"] == [id for ids in expected for id in ids]
    assert expected != reference_tokens(gemma3n, [window.audio for window in windows], PROMPTS[0])


def test_a_batch_gives_what_its_windows_give(gemma3n, talk):
    records = [
        run(gemma3n, talk, "--json", "--token-ids", "--temperature", "0", "--batch-size", size).records[0]
        for size in (1, 2, 3)
    ]
    assert records[0] | {"timings": None} == records[1] | {"timings": None} == records[2] | {"timings": None}


def test_segments_and_subtitles_have_the_times_of_windows(gemma3n, talk, windows):
    [record] = run(gemma3n, talk, "--json", "--temperature", "0").records
    spans = [(round(window.start, 3), round(window.end, 3)) for window in windows]
    kept = [(segment["start"], segment["end"]) for segment in record["segments"]]
    assert kept and set(kept) <= set(spans) and all("words" not in segment for segment in record["segments"])
    done = run(gemma3n, talk, "--format", "srt", "--temperature", "0")
    times = [time.total_seconds() for cue in srt.parse(done.out) for time in (cue.start, cue.end)]
    assert times == sorted(times)
    assert all(any(first <= time <= last for first, last in kept) for time in times[::2])
    assert "the model gives no times" in done.err
    assert "gives no times" not in run(gemma3n, talk, "--temperature", "0").err


def test_a_segment_is_a_line(gemma3n, talk):
    [record] = run(gemma3n, talk, "--json", "--temperature", "0").records
    done = run(gemma3n, talk, "--temperature", "0")
    assert done.out.count("\n") == len(record["segments"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--words", "--json"], "gives no times of words, so --words cannot be used"),
        (["--language", "xx"], "There is no language 'xx'"),
    ],
)
def test_what_the_model_cannot_do_is_one_sentence(gemma3n, options, sentence):
    done = run(gemma3n, EXAMPLE, *options)
    assert (done.code, done.out) == (2, "") and sentence in done.err and done.err.count("\n") == 1


# -- the function ------------------------------------------------------------------------------------------------


def test_windows_are_one_segment_each(loaded, windows):
    audios = [window.audio for window in windows]
    for text, audio in zip(transcribe(loaded, audios, DecodingOptions(temperatures=(0.0,))), audios, strict=True):
        seconds = len(audio) / RATE
        assert text.transcribed_until == seconds and text.truncated == (len(text.token_ids) == MAX_TOKENS)
        assert [(part.start, part.end, part.words) for part in text.segments] == [(0.0, seconds, None)]
        assert text.text == " ".join(text.text.split()) and text.logprob < 0
        assert not set(text.token_ids) & loaded.processor.stop_ids


@torch.inference_mode()
def test_each_steps_logits_are_those_of_the_reference(gemma3n, loaded, windows):
    """Along what the reference writes, whether it repeats itself or not: rounding errors stay as small as at first."""
    inputs = gemma3n.inputs(turn(windows[0].audio, PROMPTS[0]))
    given = transcript_inputs(loaded, [windows[0].audio], DecodingOptions())
    assert given.tokens.tolist() == inputs["input_ids"].tolist()
    out = gemma3n.reference.generate(
        **inputs, max_new_tokens=48, do_sample=False, eos_token_id=-1, return_dict_in_generate=True, output_logits=True
    )
    written = out.sequences[0, given.tokens.shape[1] :]
    cache = loaded.model.new_cache(1, out.sequences.shape[1])
    ours = [loaded.model.prefill(given, cache), *(loaded.model.step(id[None], cache) for id in written[:-1])]
    assert len(ours) == len(out.logits) == 48
    for own, theirs in zip(ours, out.logits, strict=True):
        assert (own - theirs).norm() < 1e-4 * theirs.norm()


def test_no_recordings_are_no_texts(loaded):
    assert transcribe(loaded, []) == []


def test_half_a_minute_is_transcribed_to_its_end(gemma3n, loaded):
    speech = np.resize(audio_of(EXAMPLE), 30 * RATE)
    [text] = transcribe(loaded, [speech], DecodingOptions(temperatures=(0.0,), max_tokens=8))
    other = speech.copy()
    other[-RATE:] = 0
    [changed] = transcribe(loaded, [other], DecodingOptions(temperatures=(0.0,), max_tokens=8))
    assert text.logprob != changed.logprob and text.transcribed_until == changed.transcribed_until == 30


def test_a_text_that_repeats_itself_is_tried_again_warmer(loaded, windows):
    audios = [windows[0].audio, windows[2].audio]
    cold = transcribe(loaded, audios, DecodingOptions(temperatures=(0.0,), max_tokens=30))
    limit = (cold[0].compression_ratio + cold[1].compression_ratio) / 2
    warm = transcribe(
        loaded, audios, DecodingOptions(temperatures=(0.0, 1.0), max_tokens=30, compression_ratio_limit=limit)
    )
    for before, after in zip(cold, warm, strict=True):
        if before.compression_ratio <= limit:
            assert after == before
        else:
            assert (after.temperature, after.compression_ratio <= limit) in {(1.0, True), (0.0, False), (1.0, False)}
    assert (
        transcribe(loaded, audios, DecodingOptions(temperatures=(0.0, 1.0), max_tokens=30, compression_ratio_limit=100))
        == cold
    )


def test_draws_repeat_with_their_seed(loaded, windows):
    audios = [windows[0].audio]
    first, again, other = (
        transcribe(loaded, audios, DecodingOptions(temperatures=(1.0,), seed=seed, max_tokens=12))[0].token_ids
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_beams_find_a_likelier_text(loaded, windows):
    audios = [window.audio for window in windows]
    greedy = transcribe(loaded, audios, DecodingOptions(temperatures=(0.0,), max_tokens=24))
    beams = transcribe(loaded, audios, DecodingOptions(temperatures=(0.0,), max_tokens=24, beams=3))
    assert all(b.logprob >= g.logprob - 1e-6 for b, g in zip(beams, greedy, strict=True))
    assert [beam.token_ids for beam in beams] != [text.token_ids for text in greedy]


def test_prompts_name_languages_and_refuse_what_nobody_knows():
    assert "German" in transcription_prompt("transcribe", "DE", None) and "Plattdeutsch" in transcription_prompt(
        "transcribe", "Plattdeutsch", None
    )
    assert not re.search(r"[{}]", transcription_prompt("translate", None, "{x}").replace("{x}", ""))
