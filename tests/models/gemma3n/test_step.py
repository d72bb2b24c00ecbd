"""The decode step through the kernels against the plain one: on a CUDA device, or on a CPU with TRITON_INTERPRET=1."""

from dataclasses import replace

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.fusing import fuse
from mmcli.layers.linear import stack
from mmcli.models.gemma3n.config import LayerConfig, TextConfig
from mmcli.models.gemma3n.decoder import Decoder

needs_kernels()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
STEPS, WINDOW = 2, 12

# Two kinds of layers own keys, two look at them; some MLPs are sparse. Widths are their own numbers, but for one that
# the skinny product takes.
LAYERS = tuple(
    LayerConfig(sliding, width, sparsity, source)
    for sliding, width, sparsity, source in [
        (True, 80, 0.8, 0), (False, 96, 0.0, 1), (True, 72, 0.3, 0), (False, 80, 0.6, 1),
    ]
)  # fmt: skip
TEXT = TextConfig(
    vocabulary=60, width=128, layers=LAYERS, heads=4, key_heads=2, head_width=32, window=WINDOW, rope_base=1e6,
    sliding_rope_base=1e4, norm_epsilon=1e-5, logit_softcap=30.0, table_rows=50, table_width=6, streams=4,
    corrects_scale=True, laurel_rank=5, positions=1000,
)  # fmt: skip


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """In float32, where both paths must agree, the kernels are not chosen otherwise."""
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))


@pytest.fixture(autouse=INTERPRETED)
def coarse(monkeypatch):
    """Fewer programs: the interpreter runs one after the other."""
    from mmcli.layers.kernels import matvec

    monkeypatch.setattr(matvec, "LONG_TILE", (2048, 1 << 14))


def decoder(config=TEXT):
    torch.manual_seed(1)
    model = Decoder(config).to(DEVICE).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        spread = 0.3 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
        parameter.copy_(torch.randn_like(parameter) * spread + ("norm" in name or name.endswith("altup.scale")))
    fuse(model)
    for layer in model.layers if DEVICE.type == "cpu" else []:  # where nothing is put together otherwise
        attention, mlp = layer.attention, layer.mlp
        attention.qkv = stack(attention.q, attention.k, attention.v) if attention.owns else None
        mlp.gate_up = stack(mlp.gate, mlp.up)
    return model


@torch.inference_mode()
def logits(model, rows):
    """Those of a few steps in a cache with room, each row with as much padding as its number."""
    torch.manual_seed(2)
    c = model.config
    cache = KVCache(len(c.owners), rows, 50, c.key_heads, c.head_width, torch.float32, DEVICE)
    cache.store.normal_()
    cache.valid[:, :30] = torch.arange(30, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None] % 29
    cache.positions.copy_(cache.valid.sum(1))
    cache.fixed, found = True, []
    for step in range(STEPS):
        cache.cursor.fill_(30 + step)
        tokens = torch.randint(c.vocabulary, (rows, 1), device=DEVICE)
        table = torch.randn(rows, 1, c.depth * c.table_width, device=DEVICE)
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens, dtype=torch.bool))
        masks = cache.step_mask(), cache.step_mask(c.window)
        found.append(model.logits(model(model.embed(tokens), table, positions, masks, cache)))
    return torch.stack(found), cache.store


def assert_both_paths_agree(model, rows, monkeypatch):
    from mmcli.models.gemma3n import step

    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = logits(model, rows)
    monkeypatch.setenv(kernels.SWITCH, "1")
    run, read = step.read_step, []
    monkeypatch.setattr(step, "read_step", lambda *given: read.append(given) or run(*given))
    fast, store = logits(model, rows)
    assert len(read) == STEPS
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 2, 3, 17, 32])
def test_a_step_through_the_kernels_equals_the_plain_one(rows, monkeypatch):
    assert_both_paths_agree(decoder(), rows, monkeypatch)


def test_a_scale_that_is_not_there_and_two_streams(monkeypatch):
    assert_both_paths_agree(decoder(replace(TEXT, corrects_scale=False, streams=2)), 2, monkeypatch)


def test_three_streams_take_the_plain_path(monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "1")
    monkeypatch.setattr("mmcli.models.gemma3n.step.read_step", None)
    logits(decoder(replace(TEXT, streams=3)), 1)


@torch.inference_mode()
def read(model, rows, length, answers):
    """The last hidden states of a prompt behind another, each row with as much padding as its number, and the cache."""
    torch.manual_seed(3)
    c = model.config
    cache = KVCache(len(c.owners), rows, 2 * length, c.key_heads, c.head_width, torch.float32, DEVICE)
    for part in range(2):
        valid = torch.arange(length, device=DEVICE) + part * length >= torch.arange(rows, device=DEVICE)[:, None]
        tokens = torch.randint(c.vocabulary, (rows, length), device=DEVICE)
        table = torch.randn(rows, length, c.depth * c.table_width, device=DEVICE)
        positions = (cache.positions[:, None] + valid.long().cumsum(1) - 1).clamp(min=0)
        cache.extend(valid)
        masks = cache.causal_mask(length), cache.causal_mask(length, c.window)[..., 1 - c.window - length :]
        hidden = model(model.embed(tokens), table, positions, masks, cache, answers)
    return hidden, cache.store


@pytest.mark.parametrize("rows, length, answers", [(1, 2, True), (3, 17, True), (3, 17, False)])
def test_a_prompt_through_the_kernels_is_read_as_without(rows, length, answers, monkeypatch):
    from mmcli.models.gemma3n import step

    model = decoder()
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = read(model, rows, length, answers)
    monkeypatch.setenv(kernels.SWITCH, "1")
    run, calls = step.read_prompt, []
    monkeypatch.setattr(step, "read_prompt", lambda *given: calls.append(given) or run(*given))
    fast, store = read(model, rows, length, answers)
    assert len(calls) == 2
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)
