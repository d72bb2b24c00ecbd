"""Fuyu's decoder with its weights rearranged, and its decode step through the kernels, against the plain one."""

import pytest
import torch
from cuda_only import INTERPRETED

from mmcli.layers import kernels
from mmcli.models.fuyu.config import DecoderConfig
from mmcli.models.fuyu.decoder import PersimmonDecoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
needs_kernels = pytest.mark.skipif(DEVICE.type == "cpu" and not INTERPRETED, reason="needs a CUDA device")


def decoders(head_norms, turned):
    """Two with the same weights, as large as make a difference, of which the second is arranged."""
    config = DecoderConfig(
        vocabulary=70, width=96, depth=3, mlp_width=200, heads=3, turned=turned, rope_base=25_000.0,
        norm_epsilon=1e-5, head_norms=head_norms,
    )  # fmt: skip
    made = []
    for _ in range(2):
        torch.manual_seed(1)
        made.append(PersimmonDecoder(config).to(DEVICE).eval().requires_grad_(False))
        for parameter in made[-1].parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    for layer in made[1].layers:
        layer.attention.arrange()
    return made


@torch.inference_mode()
def hidden(model, rows, steps=2, last_only=True):
    """What a prompt of 20 tokens leaves, and each step behind it in a cache with room; rows begin one by one."""
    torch.manual_seed(2)
    cache = model.new_cache(rows, 50)
    valid = torch.arange(20, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None]
    cache.extend(valid)
    positions = (valid.long().cumsum(1) - 1).clamp(min=0)
    tokens = torch.randint(70, (rows, 20), device=DEVICE)
    found = [model(model.embed(tokens), positions, cache.causal_mask(20), cache, last_only=last_only)]
    assert found[0].shape[1] == (1 if last_only else 20)
    found[0] = found[0][:, -1:]
    cache.fixed = True
    for step in range(steps):
        cache.cursor.fill_(20 + step)
        positions = cache.positions[:, None].clone()
        tokens = torch.randint(70, (rows, 1), device=DEVICE)
        cache.extend(torch.ones_like(tokens, dtype=torch.bool))
        found.append(model(model.embed(tokens), positions, cache.step_mask(), cache))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("head_norms, turned", [(True, 16), (True, 4), (False, 32)])
def test_an_arranged_decoder_computes_the_same(head_norms, turned, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, arranged = (hidden(model, 3) for model in decoders(head_norms, turned))
    torch.testing.assert_close(arranged, plain, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("head_norms, turned", [(True, 16), (True, 4), (False, 32)])
@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 2, 17, 32])
def test_a_prompt_and_steps_through_the_kernels_equal_the_plain_ones(head_norms, turned, rows, monkeypatch):
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    model, arranged = decoders(head_norms, turned)
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain = hidden(model, rows, last_only=False)
    monkeypatch.setenv(kernels.SWITCH, "1")
    from mmcli.models.fuyu import step

    run, read = step.run_layers, []
    monkeypatch.setattr(step, "run_layers", lambda *given: read.append(given) or run(*given))
    for last_only in (True, False):
        torch.testing.assert_close(hidden(arranged, rows, last_only=last_only), plain, rtol=1e-4, atol=1e-4)
    assert len(read) == 6  # a prompt and two steps, twice
