"""Whisper's recorded steps with their rules write what steps one by one write; only where there is a CUDA device."""

import pytest
import torch
from cuda_only import needs_cuda

from mmcli.engine import cuda_graph
from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.layers import kernels
from mmcli.layers.fusing import fuse
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import Whisper
from mmcli.models.whisper.recorded_rules import RecordedWritingRules
from mmcli.models.whisper.rules import WritingRules
from mmcli.models.whisper.vocabulary import Special

needs_cuda()

END, T, V = 60, 70, 200
SPECIAL = Special(
    end=END, start=61, languages={}, translate=None, transcribe=None, previous=None, no_speech=62, no_times=T - 1,
    suppressed=(3, 61, T - 1), suppressed_first=(4, END), latest_first_time=50, alignment_heads=None,
)  # fmt: skip
RAW = {
    "vocab_size": V, "d_model": 128, "decoder_layers": 3, "encoder_layers": 1, "decoder_attention_heads": 2,
    "encoder_attention_heads": 2, "decoder_ffn_dim": 200, "encoder_ffn_dim": 64, "num_mel_bins": 8,
    "max_source_positions": 77, "max_target_positions": 160, "decoder_start_token_id": 61, "eos_token_id": END,
}  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(1)
    model = Whisper(WhisperConfig.from_hf(RAW)).cuda().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    fuse(model)
    return model


def written(model, seed, rows, recorded=True, tokens=60):
    """The texts of random audio, each with its log-probabilities."""
    torch.manual_seed(seed)
    with torch.inference_mode():
        context = model.encode(torch.randn(rows, 8, 154))
    prompts = torch.tensor([[61, 8, 9]] * rows, device="cuda")
    inputs = Inputs(prompts, torch.ones_like(prompts, dtype=torch.bool), context=context)
    rules = WritingRules(SPECIAL, True, "cuda", [1.0 + row / 3 for row in range(rows)], True)
    more = {"recorded": RecordedWritingRules(rules, rows, V, torch.device("cuda"))} if recorded else {}
    limits = [tokens - 7 * row for row in range(rows)]
    steps = generate(model, inputs, stop_ids=frozenset({END}), max_tokens=tokens, rules=rules, limits=limits, **more)
    events = [event for step in steps for event in step]
    return [[event.id for event in events if event.row == row] for row in range(rows)], [e.logprob for e in events]


@pytest.mark.parametrize("switch", ["0", "1"])
@pytest.mark.parametrize("rows", [1, 3])
def test_recorded_rules_write_what_the_rules_leave(model, rows, switch, monkeypatch):
    with monkeypatch.context() as plainly:
        plainly.setenv(kernels.SWITCH, "0")
        plainly.setattr(cuda_graph, "step", lambda model, tokens, cache: model.step(tokens, cache))
        expected = [written(model, seed, rows, recorded=False) for seed in range(3)]
    monkeypatch.setenv(kernels.SWITCH, switch)
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    recordings, record = [], cuda_graph.Graph._record
    monkeypatch.setattr(cuda_graph.Graph, "_record", lambda *given: recordings.append(given) or record(*given))
    for seed, (ids, logprobs) in enumerate(expected):
        found = written(model, seed, rows)
        assert found[0] == ids
        assert found[1] == pytest.approx(logprobs, abs=1e-3)
    assert len(recordings) == 1  # the audio of the next batch is put where the first one's was
    assert written(model, 1, rows, recorded=False)[0] == expected[1][0]  # a step without rules of its own
    assert len(recordings) == 1


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_audio_encoded_from_a_graph_is_what_the_encoder_makes_of_it(model, rows, monkeypatch):
    replays, play = [], cuda_graph.EncoderGraph.__call__
    monkeypatch.setattr(
        cuda_graph.EncoderGraph, "__call__", lambda own, *given: replays.append(given) or play(own, *given)
    )
    torch.manual_seed(0)
    with torch.inference_mode():
        features = [torch.randn(rows, 8, 154, device="cuda") for _ in range(4)]
        found = [model.encode(one) for one in features]  # none writes over another's
        assert len(replays) == (0 if rows > cuda_graph.MOST_ENCODED else 3)
        for one, got in zip(features, found, strict=True):
            for part, exact in zip(sum(got.layers, ()), model._parts(one), strict=True):
                torch.testing.assert_close(part, exact, rtol=1e-4, atol=1e-4)
