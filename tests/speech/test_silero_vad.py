import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmcli.errors import ModelError
from mmcli.speech import silero_vad
from mmcli.speech.silero_vad import CONTEXT, FRAME, load_silero_vad, weights_path

# The package's own network, filled with the weights that lie beside it: name there → name in the safetensors file.
NAMES = {"stft.forward_basis_buffer": "stft_conv.weight", "decoder.rnn.": "lstm_cell."}
NAMES |= {"decoder.decoder.2.": "final_conv."}
NAMES |= {f"encoder.{i}.reparam_conv.": f"conv{i + 1}." for i in range(4)}


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    """Four seconds with something going on at many loudnesses and pitches."""
    rng = np.random.default_rng(0)
    time = np.arange(4 * 16_000) / 16_000
    tones = sum(np.sin(2 * np.pi * pitch * time * (1 + 0.01 * np.sin(5 * time))) for pitch in (120, 240, 700, 1900))
    loudness = np.abs(np.sin(3 * time))
    return (0.1 * loudness * tones + 0.01 * rng.standard_normal(len(time))).astype(np.float32)[: 124 * FRAME]


def reference(audio: np.ndarray) -> list[float]:
    """A frame at a time, as the package does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(weights_path().with_name("silero_vad.jit"))
    stored = load_file(weights_path())
    for name, value in network._model.state_dict().items():
        start = next(start for start in NAMES if name.startswith(start))
        value.copy_(stored[NAMES[start] + name[len(start) :]])
    with torch.inference_mode():
        frames = torch.from_numpy(audio).view(-1, FRAME)
        return [network(frame, 16_000).item() for frame in frames]


def frames_of(audio: np.ndarray) -> torch.Tensor:
    before = np.concatenate([np.zeros(CONTEXT, np.float32), audio])
    windows = np.lib.stride_tricks.sliding_window_view(before, CONTEXT + FRAME)[::FRAME]
    return torch.from_numpy(windows.copy())


def test_probabilities_are_those_of_the_package(audio):
    torch.set_num_threads(1)
    ours, _ = load_silero_vad()(frames_of(audio))
    wanted = torch.tensor(reference(audio))
    assert wanted.max() - wanted.min() > 0.05  # else anything would agree
    torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_give_what_the_whole_gives(audio, block):
    network, frames = load_silero_vad(), frames_of(audio)
    whole, _ = network(frames)
    parts, state = [], None
    for start in range(0, len(frames), block):
        part, state = network(frames[start : start + block], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)


def test_the_number_of_threads_stays(audio):
    torch.set_num_threads(2)
    load_silero_vad()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_without_the_package_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(silero_vad, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install silero-vad"):
        load_silero_vad()
