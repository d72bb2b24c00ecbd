"""A decode step and a prompt through the kernels: on a CUDA device, or on a CPU with TRITON_INTERPRET=1."""

from types import SimpleNamespace

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import additive, prefix_positions
from mmcli.layers.decoder import Layer, LlamaConfig
from mmcli.layers.fusing import fuse
from mmcli.layers.linear import stack
from mmcli.models.mllama.decoder import CrossContext, Decoder

needs_kernels()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
STEPS, KEYS = 2, 70
TEXT = LlamaConfig(vocabulary=70, width=128, depth=2, mlp_width=160, heads=4, key_heads=2, head_width=32)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """In float32, where both paths must agree, the kernels are not chosen otherwise."""
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    if INTERPRETED:  # fewer programs, which run one after the other
        from mmcli.layers.kernels import matvec

        monkeypatch.setattr(matvec, "LONG_TILE", (2048, 1 << 14))


def decoder():
    torch.manual_seed(1)
    model = Decoder(SimpleNamespace(decoder=TEXT, cross_layers=(1, 3), depth=4)).to(DEVICE).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.2)
    for name, parameter in model.named_parameters():
        if "norm" in name or "gate_" in name:
            parameter.add_(1)
    fuse(model)
    for layer in model.layers if DEVICE.type == "cpu" else []:  # where nothing is put together otherwise
        layer.mlp.gate_up = stack(layer.mlp.gate, layer.mlp.up)
        if isinstance(layer, Layer):
            layer.attention.qkv = stack(layer.attention.q, layer.attention.k, layer.attention.v)
    return model


@torch.inference_mode()
def logits(model, rows, images):
    """Those of a few steps in a cache with room; the second row, if any, has fewer keys of images, the third none."""
    torch.manual_seed(2)
    cache = KVCache(TEXT.depth, rows, 50, TEXT.key_heads, TEXT.head_width, torch.float32, DEVICE)
    cache.store.normal_()
    cache.valid[:, :30] = torch.arange(30, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None]
    cache.positions.copy_(cache.valid.sum(1))
    context = None
    if images:
        counts = torch.tensor([KEYS, 40, 0] * rows, device=DEVICE)[:rows]
        valid = torch.arange(KEYS, device=DEVICE) < counts[:, None]
        layers = [tuple(torch.randn(2, rows, 2, KEYS, 32, device=DEVICE) * valid[:, None, :, None]) for _ in range(2)]
        seen = CrossAttentionKV(layers, valid)
        context = CrossContext(seen, additive(seen.mask(), torch.float32), valid.any(1)[:, None, None].float())
    cache.fixed, found = True, []
    for step in range(STEPS):
        cache.cursor.fill_(30 + step)
        tokens = torch.randint(70, (rows, 1), device=DEVICE)
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens, dtype=torch.bool))
        hidden = model.read(model.embed(tokens), positions, cache.step_mask(), cache, context)
        found.append(model.logits(hidden[:, -1]))
    return torch.stack(found), cache.store


@torch.inference_mode()
def prompt(model, rows, images, length=12):
    """Hidden states of a prompt, each row with as much padding as its number, and the cache; the second row's image has
    fewer keys, the third has none, and tokens in front of each image see all of it."""
    torch.manual_seed(3)
    cache = KVCache(TEXT.depth, rows, length + 4, TEXT.key_heads, TEXT.head_width, torch.float32, DEVICE)
    valid = torch.arange(length, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None]
    cache.extend(valid)
    context = None
    if images:
        counts = torch.tensor([KEYS, 40, 0] * rows, device=DEVICE)[:rows]
        there = torch.arange(KEYS, device=DEVICE) < counts[:, None]
        layers = [tuple(torch.randn(2, rows, 2, KEYS, 32, device=DEVICE) * there[:, None, :, None]) for _ in range(2)]
        behind = ((torch.arange(length, device=DEVICE) > 3) & there.any(1)[:, None])[..., None]
        mask = (there | ~there.any(1, keepdim=True))[:, None, None].expand(-1, 1, length, -1)
        context = CrossContext(CrossAttentionKV(layers, there), mask, behind.float())
    x = model.embed(torch.randint(70, (rows, length), device=DEVICE))
    hidden = model.read(x, prefix_positions(valid), cache.causal_mask(length), cache, context)
    return hidden[valid], cache.store


@pytest.mark.parametrize("images", [True, False], ids=["images", "text"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_prompt_through_the_kernels_equals_the_plain_one(rows, images, monkeypatch):
    model = decoder()
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = prompt(model, rows, images)
    monkeypatch.setenv(kernels.SWITCH, "1")
    from mmcli.layers import decoder_step

    run, read = decoder_step.run_layers, []
    monkeypatch.setattr(decoder_step, "run_layers", lambda *given, **more: read.append(given) or run(*given, **more))
    fast, store = prompt(model, rows, images)
    assert len(read) == 1
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("images", [True, False], ids=["images", "text"])
@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 3, 17, 32])
def test_a_step_through_the_kernels_equals_the_plain_one(rows, images, monkeypatch):
    model = decoder()
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = logits(model, rows, images)
    monkeypatch.setenv(kernels.SWITCH, "1")
    from mmcli.layers import decoder_step

    run, read = decoder_step.run_layers, []
    monkeypatch.setattr(decoder_step, "run_layers", lambda *given, **more: read.append(given) or run(*given, **more))
    fast, store = logits(model, rows, images)
    assert len(read) == STEPS
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)
