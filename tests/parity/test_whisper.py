"""Whisper against transformers: front end, encoder, logits and greedy tokens, on small random checkpoints and on the
bundled base with a real recording."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from places import assert_places, stages_of
from safetensors.torch import load_file
from transformers import WhisperConfig as ReferenceConfig
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)
from whisper_folders import audio, write_checkpoint

from mmcli.engine.inputs import Inputs
from mmcli.hub.layout import BUNDLED
from mmcli.hub.quantized import multiplied
from mmcli.hub.resolve import resolve
from mmcli.hub.safetensors_files import SCALE
from mmcli.models.load import load
from mmcli.models.whisper import FAMILY
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.features import log_mel, mel_filters
from mmcli.models.whisper.transcribe import _cut_at_last_word, _read, transcribe_windows
from mmcli.speech.fallback import DecodingOptions
from mmcli.types import Completion, WindowText

EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order
RECORDING = Path(__file__).parents[2] / "examples" / "jfk.flac"
STEPS = 40
SPOKEN = DecodingOptions(spoken_to_end=True)


@pytest.mark.parametrize("mels", [80, 128])
def test_mel_filters(mels):
    reference = WhisperFeatureExtractor(feature_size=mels).mel_filters.T
    np.testing.assert_allclose(mel_filters(mels), reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("samples", [1, 160, 201, 4000, 112_013, 479_800, 479_839, 479_840, 480_000])
def test_log_mel_windows(mels, samples):
    samples = np.random.default_rng(samples).standard_normal(samples).astype(np.float32) / 10
    reference = WhisperFeatureExtractor(feature_size=mels)([samples], sampling_rate=16_000, return_tensors="pt")
    torch.testing.assert_close(log_mel([samples], mels, 3000), reference["input_features"], rtol=0, atol=2e-6)


def test_log_mel_of_silence_and_of_nothing():
    reference = WhisperFeatureExtractor()([np.zeros(16_000, np.float32)], sampling_rate=16_000, return_tensors="pt")
    for silence in (np.zeros(16_000, np.float32), np.zeros(0, np.float32)):
        torch.testing.assert_close(log_mel([silence], 80, 3000), reference["input_features"])


@pytest.fixture(scope="module", params=[(80, True), (128, True), (80, False), (128, False)], ids=str)
def pair(request, tmp_path_factory):
    """(reference, ours) of one small checkpoint."""
    mels, multilingual = request.param
    folder = tmp_path_factory.mktemp("whisper")
    reference = write_checkpoint(folder, mels=mels, multilingual=multilingual, seed=mels + multilingual)
    return reference, load(resolve(str(folder)), "cpu", torch.float32)


def test_encoder_and_logits(pair):
    reference, ours = pair
    features = ours.processor.features([audio(1), audio(2, 2.0)])
    prompt = ours.processor.prompt("transcribe", "en", "hello", True)
    tokens = torch.tensor([prompt + [30, 31, 200], prompt + [5, 9, 11]])
    with torch.inference_mode():
        states = reference.model.encoder(features).last_hidden_state
        torch.testing.assert_close(ours.model.encoder(features), states, **EXACT)
        logits = reference(input_features=features, decoder_input_ids=tokens).logits
        encoded = ours.model.encode(features)
        inputs = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=encoded)
        found = ours.model.prefill(inputs, ours.model.new_cache(2, tokens.shape[1]))
        torch.testing.assert_close(found, logits[:, -1], **EXACT)
        torch.testing.assert_close(encoded.at_start, logits[:, 2], **EXACT)  # behind <|startofprev|> and one word


def reference_tokens(model, processor, window: np.ndarray, prompt: list[int], steps: int, times: bool) -> list[int]:
    """Greedy decoding with transformers' own model, cache and logit processors.

    Times behind the audio are taken out before: transformers knows of no audio that is shorter than its window.
    """
    special, begin = processor.special, len(prompt)
    settings = ReferenceConfig(eos_token_id=special.end, bos_token_id=special.end)
    settings.no_timestamps_token_id = special.no_times
    settings.max_initial_timestamp_index = special.latest_first_time
    processors = [
        SuppressTokensAtBeginLogitsProcessor(list(special.suppressed_first), begin),
        SuppressTokensLogitsProcessor(list(special.suppressed)),
    ] + ([WhisperTimeStampLogitsProcessor(settings, begin)] if times else [])
    features = processor.features([window])
    ids, unread, cache = list(prompt), list(prompt), None
    with torch.inference_mode():
        states = model.model.encoder(features)
        while len(ids) < begin + steps:
            read = {"encoder_outputs": states, "past_key_values": cache, "use_cache": True}
            out = model(decoder_input_ids=torch.tensor([unread]), **read)
            scores, cache = out.logits[:, -1].float(), out.past_key_values
            if times:
                scores[:, special.times + -(-len(window) // 320) + 1 :] = -torch.inf
            for process in processors:
                scores = process(torch.tensor([ids]), scores)
            best = scores.argmax().item()
            if best == special.end:
                break
            ids.append(best)
            unread = [best]
    return ids[begin:]


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("hint", [None, "hello world"])
def test_greedy_tokens(pair, times, hint):
    reference, ours = pair
    windows = [audio(seed, seconds) for seed, seconds in ((3, 1.3), (4, 2.0), (5, 0.3))]
    options = DecodingOptions(language="en", hint=hint, temperatures=(0.0,), times=times, max_tokens=STEPS)
    prompt = ours.processor.prompt("transcribe", "en", hint, times)
    found = transcribe_windows(ours, windows, options)
    for window, text in zip(windows, found, strict=True):
        assert list(text.token_ids) == reference_tokens(reference, ours.processor, window, prompt, STEPS, times)


@pytest.fixture(scope="module")
def base(exact_audio):
    """The bundled model in float32: transformers', from the same numbers multiplied out, and ours."""
    folder = BUNDLED["whisper-base"]
    stored = load_file(folder / "model.safetensors")
    weights = {
        name: multiplied(value, stored[name + SCALE]) if name + SCALE in stored else value.float()
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }
    reference = WhisperForConditionalGeneration(ReferenceConfig(**json.loads((folder / "config.json").read_text())))
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    assert missing == ["proj_out.weight"] and not unexpected
    reference.tie_weights()
    return reference.eval(), exact_audio


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    from mmcli.media.audio import read_audio
    from mmcli.media.sources import expand

    return read_audio(next(iter(expand([str(RECORDING)], extensions=frozenset()))))[0]


@pytest.fixture(scope="module")
def transcribed(base, recording) -> WindowText:
    """What the bundled model in float32 writes of the recording."""
    return transcribe_windows(base[1], [recording], SPOKEN)[0]


def test_the_bundled_model_writes_the_reference_tokens_for_a_real_recording(base, recording, transcribed):
    reference, ours = base
    prompt = ours.processor.prompt("transcribe", "en", None, True)
    assert transcribed.language == "en" and "ask not what your country can do for you" in transcribed.text
    found, steps = list(transcribed.token_ids), len(transcribed.token_ids) + 1
    assert found == reference_tokens(reference, ours.processor, recording, prompt, steps, True)


def test_the_words_of_a_real_recording_have_times_in_rising_order(base, recording, transcribed):
    text = transcribe_windows(base[1], [recording], DecodingOptions(words=True))[0]
    assert text.token_ids == transcribed.token_ids
    words = [word for segment in text.segments for word in segment.words]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= len(recording) / 16_000
    assert len(words) == len(text.text.split())


@pytest.mark.parametrize(("count", "until"), [(5, (1.5, 3.5)), (22, (11.0, 11.0))])
def test_a_segment_stretched_over_more_than_its_text_is_used_as_far_as_it_was_said(
    base, recording, transcribed, count, until
):
    """Eleven seconds of which the answer has the first words only: the last of them tells where it must go on."""
    ours = base[1]
    processor, seconds = ours.processor, len(recording) / 16_000
    ids = [id for id in transcribed.token_ids if processor.is_text(id)][:count]
    first_time = processor.special.times
    written = Completion((first_time, *ids, first_time + round(seconds / 0.02)), (), True)
    stretched = _read(processor, written, "en", 0.0, 0.0, seconds, SPOKEN)
    assert stretched.transcribed_until == seconds
    encoded = ours.model.encode(processor.features([recording]))
    followed = _cut_at_last_word(ours.model, processor, encoded, stretched, seconds, SPOKEN)
    assert until[0] <= followed.transcribed_until <= until[1] + 0.01
    assert followed.text == stretched.text


def test_the_faster_arithmetic_transcribes_the_same(recording, transcribed, bundled_audio):
    fast = transcribe_windows(bundled_audio, [recording])[0]
    assert fast.text.lower().replace(",", "") == transcribed.text.lower().replace(",", "")


# width, encoder layers, decoder layers, heads, mels, rows
PUBLISHED = {
    "tiny.en": (384, 4, 4, 6, 80, 51864), "base": (512, 6, 6, 8, 80, 51865), "small": (768, 12, 12, 12, 80, 51865),
    "medium": (1024, 24, 24, 16, 80, 51865), "large-v2": (1280, 32, 32, 20, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866), "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
    "distil-large-v3": (1280, 32, 2, 20, 128, 51866),
}  # fmt: skip


@pytest.mark.parametrize("size", PUBLISHED)
def test_names_and_shapes_of_the_published_sizes_agree_in_both_directions(size):
    width, encoder, decoder, heads, mels, rows = PUBLISHED[size]
    raw = {
        "model_type": "whisper", "d_model": width, "encoder_layers": encoder, "decoder_layers": decoder,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width, "num_mel_bins": mels, "vocab_size": rows,
    }  # fmt: skip
    with torch.device("meta"):
        reference = WhisperForConditionalGeneration(ReferenceConfig(**raw))
        ours = FAMILY.build(WhisperConfig.from_hf(raw))
    assert_places(FAMILY.rules(WhisperConfig.from_hf(raw)), ours, reference, lambda name: [name])
    stages = stages_of(FAMILY, WhisperConfig.from_hf(raw))
    assert sum(stage.parameters for stage in stages) == sum(tensor.numel() for tensor in ours.state_dict().values())
