"""How likely the bundled model takes it to be that nobody speaks, and that it writes nothing then.

These recordings never get so far in `mmcli transcribe`: no speech is found in them.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcli.engine.inputs import Inputs
from mmcli.media.audio import read_audio
from mmcli.media.sources import expand
from mmcli.models.whisper.transcribe import transcribe_windows
from mmcli.speech.fallback import DecodingOptions

RATE = 16_000
SECONDS = 10  # of each recording; the model looks at 30 whatever they are


@cache
def audios() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0)
    time = np.arange(SECONDS * RATE) / RATE
    found = {
        "white noise": 0.1 * noise.standard_normal(len(time)),
        "beating noise": 0.2 * noise.standard_normal(len(time)) * (0.5 + 0.5 * np.sin(8 * np.pi * time)),
        "hum": 0.3 * np.sin(100 * np.pi * time) + 0.1 * np.sin(200 * np.pi * time),
        "chord": sum(0.05 * np.sin(440 * np.pi * 2 ** (step / 12) * time) for step in (0, 4, 7, 12)),
        "silence": np.zeros(len(time)),
    }
    [example] = expand([Path(__file__).parents[3] / "examples" / "jfk.flac"], extensions=frozenset())
    return {name: audio.astype(np.float32) for name, audio in found.items()} | {"speech": read_audio(example)[0]}


@pytest.mark.parametrize("options", [{"times": False}, {"beams": 2}, {"hint": "Americans"}], ids=str)
def test_nobody_speaks_in_noise(bundled_audio, options):
    options = DecodingOptions(temperatures=(0.0,), max_tokens=12, **options)  # noise would be given hundreds of words
    noise, speech = transcribe_windows(bundled_audio, [audios()["white noise"], audios()["speech"]], options)
    assert speech.no_speech < 0.2 and noise.no_speech > 0.4 and "fellow Americans" in speech.text


def test_noise_gives_no_words(bundled_audio):
    chosen = {name: audio for name, audio in audios().items() if name != "beating noise"}  # which is given words
    found = transcribe_windows(bundled_audio, list(chosen.values()), DecodingOptions(spoken_to_end=True))
    found = dict(zip(chosen, found, strict=True))
    speech = found.pop("speech")
    assert speech.no_speech < 0.2 and "fellow Americans" in speech.text
    assert all(one.text == "" and one.no_speech > 0.4 for one in found.values()), found


def test_the_probability_is_that_of_the_logits_before_any_rule(exact_audio):
    """In float32: in shorter types a prompt of one token is rounded otherwise than a longer one."""
    model, processor = exact_audio.model, exact_audio.processor
    chosen = [audios()["beating noise"], audios()["speech"]]
    tokens = torch.full((len(chosen), 1), processor.special.start)
    with torch.inference_mode():
        context = model.encode(processor.features(chosen))
        inputs = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=context)
        logits = model.prefill(inputs, model.new_cache(len(tokens), 1))
    expected = logits.softmax(dim=-1)[:, processor.special.no_speech].tolist()
    found = transcribe_windows(exact_audio, chosen, DecodingOptions(temperatures=(0.0,), max_tokens=8))
    assert [text.no_speech for text in found] == pytest.approx(expected, abs=1e-4)
