"""Whisper's decode step through the kernels against the plain one: on a CUDA device, or interpreted."""

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels

from mmcli.layers import kernels
from mmcli.layers.fusing import fuse
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import Whisper

needs_kernels()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
RAW = {
    "vocab_size": 70, "d_model": 96, "decoder_layers": 3, "encoder_layers": 1, "decoder_attention_heads": 3,
    "encoder_attention_heads": 3, "decoder_ffn_dim": 200, "encoder_ffn_dim": 64, "num_mel_bins": 8,
    "max_source_positions": 77, "max_target_positions": 60, "decoder_start_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    """Small, with weights as large as make a difference."""
    torch.manual_seed(1)
    model = Whisper(WhisperConfig.from_hf(RAW)).to(DEVICE).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.2)
    fuse(model)
    return model


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """In float32, where both paths must agree, the kernels are not chosen otherwise."""
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))


@torch.inference_mode()
def logits(model, rows, steps=2):
    """Those of a few steps in a cache with room, each row with as much padding as its number."""
    torch.manual_seed(2)
    cache = model.new_cache(rows, 50)
    cache.store.normal_()
    cache.valid[:, :30] = torch.arange(30, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None]
    cache.positions.copy_(cache.valid.sum(1))
    cache.context = model.encode(torch.randn(rows, 8, 154))
    cache.fixed, found = True, []
    for step in range(steps):
        cache.cursor.fill_(30 + step)
        found.append(model.step(torch.randint(70, (rows,), device=DEVICE), cache))
    return torch.stack(found), cache.store


@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 2, 3, 17, 32])
def test_a_step_through_the_kernels_equals_the_plain_one(model, rows, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = logits(model, rows)
    monkeypatch.setenv(kernels.SWITCH, "1")
    from mmcli.models.whisper import step

    run, calls = step.read, []
    monkeypatch.setattr(step, "read", lambda *given: calls.append(given) or run(*given))
    fast, store = logits(model, rows)
    assert len(calls) == 2
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)
